//! The agent's environment: secrets become placeholders, doors to the outside are taken out, trust is added.
//!
//! A placeholder names its run and variable, so that one that turns up in traffic or a record can be traced to the
//! place it came from. Nothing here knows which secrets are real: whatever looks like one is replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use interceptor_core::{model::RunId, password};

/// What a run's environment was made into.
#[derive(Default)]
pub(crate) struct Environment {
    /// The variables that the agent gets. Their values never reach a log: this type has no `Debug`.
    pub(crate) variables: BTreeMap<OsString, OsString>,
    /// Names whose secret was replaced.
    pub(crate) replaced: Vec<String>,
    /// Names whose secret was kept, because a passed resource needs it.
    pub(crate) kept: Vec<String>,
}

/// Variables that lead to a process outside the run.
const DOORS: &[&str] = &[
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "KITTY_LISTEN_ON",
    "WEZTERM_UNIX_SOCKET",
    "VSCODE_IPC_HOOK_CLI",
    "VSCODE_GIT_IPC_HANDLE",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "CONTAINERD_ADDRESS",
    "PODMAN_SOCK",
    "PULSE_SERVER",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// Makes the agent's environment from the launcher's.
pub(crate) fn prepare(
    run: RunId,
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    keeps: &BTreeSet<String>,
    added: impl IntoIterator<Item = (String, String)>,
) -> Environment {
    let mut made = Environment::default();
    for (name, value) in inherited {
        let shown = name.to_string_lossy().into_owned();
        if DOORS.contains(&shown.as_str()) {
            continue;
        }
        let value = match without_secret(run, &shown, &value) {
            Some(_) if keeps.contains(&shown) => {
                made.kept.push(shown);
                value
            }
            Some(safe) => {
                made.replaced.push(shown);
                safe
            }
            None => value,
        };
        made.variables.insert(name, value);
    }
    made.variables.extend(added.into_iter().map(|(name, value)| (name.into(), value.into())));
    made
}

/// The names of variables that hold a secret.
pub(crate) fn secret_names(inherited: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<String> {
    let anything = RunId::from_random(0);
    let named = inherited.into_iter().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    named
        .filter(|(name, value)| {
            !DOORS.contains(&name.as_str()) && without_secret(anything, name, value).is_some()
        })
        .map(|(name, _)| name)
        .collect()
}

/// The text that stands for a secret.
pub(crate) fn placeholder(run: RunId, variable: &str) -> String {
    format!("interceptor-placeholder-{run}-{variable}")
}

/// The value with its secret replaced, or nothing when it has none.
fn without_secret(run: RunId, name: &str, value: &OsStr) -> Option<OsString> {
    if value.is_empty() {
        return None;
    }
    let stand_in = placeholder(run, name);
    if (names_a_secret(name) && !is_a_path(name, value)) || looks_like_a_secret(value) {
        return Some(stand_in.into());
    }
    let text = value.as_bytes();
    let safe = password::replaced(text, stand_in.as_bytes())?;
    Some(OsString::from_vec(safe))
}

/// Whether the name says that the value is a credential.
fn names_a_secret(name: &str) -> bool {
    const EXACT: &[&str] =
        &["PGPASSWORD", "MYSQL_PWD", "REDISCLI_AUTH", "SSHPASS", "AUTHORIZATION", "PASS", "PAT"];
    const INSIDE: &[&str] = &["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "PRIVATE_KEY"];
    const ENDS: &[&str] =
        &["TOKEN", "_KEY", "APIKEY", "_KEY_ID", "_PASS", "_PWD", "_PAT", "_AUTH", "_COOKIE", "_JWT"];
    let name = name.to_ascii_uppercase();
    EXACT.contains(&name.as_str())
        || INSIDE.iter().any(|part| name.contains(part))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether the value says where a credential is rather than what it is.
fn is_a_path(name: &str, value: &OsStr) -> bool {
    let name = name.to_ascii_uppercase();
    let tells = ["_FILE", "_PATH", "_DIR", "_CREDENTIALS"].iter().any(|end| name.ends_with(end));
    tells && value.as_bytes().starts_with(b"/")
}

/// Whether the value begins as widely used credentials do, whatever the variable is called.
fn looks_like_a_secret(value: &OsStr) -> bool {
    const BEGINNINGS: &[&[u8]] = &[
        b"sk-",
        b"ghp_",
        b"gho_",
        b"ghs_",
        b"github_pat_",
        b"glpat-",
        b"xoxb-",
        b"xoxp-",
        b"AKIA",
        b"ASIA",
        b"npm_",
        b"pypi-",
        b"hvs.",
        b"eyJhbGciOi",
        b"-----BEGIN",
    ];
    let value = value.as_bytes();
    value.len() >= 16 && BEGINNINGS.iter().any(|beginning| value.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::from_random(0xabcdef)
    }

    fn made(name: &str, value: &str) -> Option<String> {
        without_secret(run(), name, OsStr::new(value)).map(|safe| safe.into_string().expect("text"))
    }

    #[test]
    fn credentials_are_replaced_and_the_rest_is_not() {
        for name in
            ["PGPASSWORD", "GITHUB_TOKEN", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]
        {
            assert_eq!(made(name, "hunter2"), Some(placeholder(run(), name)), "{name}");
        }
        for (name, value) in [
            ("PATH", "/usr/bin:/bin"),
            ("AWS_REGION", "eu-west-1"),
            ("HOME", "/home/me"),
            ("PGUSER", "me"),
            ("DATABASE_URL", "postgres://me@db.internal/orders"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/adc.json"),
            ("PGPASSWORD", ""),
        ] {
            assert_eq!(made(name, value), None, "{name}");
        }
        assert!(made("ANYTHING", "sk-ant-0123456789abcdef").is_some());
    }

    #[test]
    fn only_the_password_of_an_address_is_replaced() {
        let stand_in = placeholder(run(), "U");
        for (value, safe) in [
            ("postgres://me:p@ss:w@db/orders?x=1", format!("postgres://me:{stand_in}@db/orders?x=1")),
            ("redis://:secret@cache:6379/0", format!("redis://:{stand_in}@cache:6379/0")),
            ("host=db password='a \\' b' dbname=x", format!("host=db password={stand_in} dbname=x")),
            ("Server=db;Pwd=x;Uid=me", format!("Server=db;Pwd={stand_in};Uid=me")),
            (
                "postgres://db/x?user=me&password=s&y=1",
                format!("postgres://db/x?user=me&password={stand_in}&y=1"),
            ),
        ] {
            assert_eq!(made("U", value), Some(safe));
        }
    }

    #[test]
    fn a_kept_secret_is_listed_and_doors_are_gone() {
        let inherited = [("API_KEY", "a"), ("OTHER_KEY", "b"), ("SSH_AUTH_SOCK", "/tmp/s")]
            .map(|(name, value)| (name.into(), value.into()));
        let keeps = BTreeSet::from(["API_KEY".to_owned()]);
        let made = prepare(run(), inherited, &keeps, [("SSL_CERT_FILE".to_owned(), "/x".to_owned())]);
        assert_eq!((made.kept, made.replaced), (vec!["API_KEY".to_owned()], vec!["OTHER_KEY".to_owned()]));
        assert_eq!(made.variables.get(OsStr::new("API_KEY")), Some(&"a".into()));
        assert_eq!(made.variables.get(OsStr::new("SSL_CERT_FILE")), Some(&"/x".into()));
        assert!(!made.variables.contains_key(OsStr::new("SSH_AUTH_SOCK")));
    }
}
