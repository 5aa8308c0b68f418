//! A first installation: one database, one agent, a policy that lets it read.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use interceptor_core::{
    inventory::Source,
    model::{AgentName, ResourceName},
};
use nix::unistd::{Gid, Uid};

use super::output::{Failure, Printer};
use crate::{config::Folder, helper::Accounts, places::Places, telemetry::chain};

/// Arguments of `init`; what is not given is asked for on a terminal.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The database's host name or address, as agents write it.
    #[arg(long)]
    host: Option<String>,
    /// Its port.
    #[arg(long)]
    port: Option<u16>,
    /// The role that the interceptor logs in as.
    #[arg(long)]
    user: Option<String>,
    /// The agent's name.
    #[arg(long)]
    agent: Option<AgentName>,
    /// What policy calls the database.
    #[arg(long, value_name = "NAME", default_value = "database")]
    resource: ResourceName,
    /// A file with the role's password; asked for without echo otherwise.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificates (PEM) that the database's own is verified by; the system's otherwise.
    #[arg(long, value_name = "FILE", conflicts_with = "plaintext")]
    roots: Option<PathBuf>,
    /// The database has no TLS and its network is trusted: why. On this host's loopback this is the default.
    #[arg(long, value_name = "REASON")]
    plaintext: Option<String>,
}

/// `interceptor init`
pub(super) fn init(places: &Places, printer: &Printer, options: Options) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("init writes to a folder that only root may change: run it with sudo"));
    }
    let folder = places.configuration();
    if folder.join("resources.toml").exists() {
        return Err(Failure::no(format!(
            "{} is there already and stays as it is: edit it, or move it away first",
            folder.join("resources.toml").display()
        )));
    }
    let (answers, password) = ask(options)?;
    let files = answers.files()?;
    let faults = |error: &crate::config::RulesError| {
        Failure::usage(format!("these answers make no policy, nothing was written: {}", chain(error)))
    };
    files.candidate(folder).load().map_err(|error| faults(&error))?;
    files.write(places, &password)?;
    Folder::in_force(places).and_then(|read| read.load()).map_err(|error| Failure::of(&error))?;
    finish(folder, printer, &answers)
}

fn finish(folder: &Path, printer: &Printer, answers: &Answers) -> Result<ExitCode, Failure> {
    let Answers { host, port, agent, resource, .. } = answers;
    if printer.is_json() {
        let value = serde_json::json!({"folder": folder, "agent": agent, "resource": resource});
        return printer.json(&value).map(|()| ExitCode::SUCCESS);
    }
    printer.line(&format!("wrote {}:", folder.display()))?;
    for (file, what) in [
        ("resources.toml", "where agents may go"),
        ("agents.toml", "who agents are"),
        ("policies/", "the rules (reading only) and the verdicts expected of them"),
        (&format!("credentials/{resource}"), "the password; only the keeper can read it"),
    ] {
        printer.line(&format!("  {file:<24} {what}"))?;
    }
    printer.line("next:")?;
    printer.line("  interceptor policy test")?;
    printer.line(&format!(
        "  interceptor run --agent {agent} -- psql \"host={host} port={port} dbname=NAME user=anything\""
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that has to be known, from options or from the terminal.
fn ask(options: Options) -> Result<(Answers, Vec<u8>), Failure> {
    let host = given(options.host, "--host", "Database host, as agents write it", None)?;
    let port = match options.port {
        Some(port) => port,
        None => given(None, "--port", "Port", Some("5432"))?
            .parse()
            .map_err(|_| Failure::usage("the port must be a number from 1 to 65535"))?,
    };
    let user = given(options.user, "--user", "Role that the interceptor logs in as", None)?;
    let agent = match options.agent {
        Some(agent) => agent,
        None => given(None, "--agent", "Name of the agent", Some("release-bot"))?
            .parse()
            .map_err(|error| Failure::usage(format!("the agent's name: {error}")))?,
    };
    let password = match options.password_file {
        Some(path) => fs::read(&path)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?,
        None => ask_secret(&format!("Password of {user} (not shown)"))?,
    };
    if password.trim_ascii().is_empty() {
        return Err(Failure::usage(format!("the password of {user} is empty")));
    }
    let Options { resource, roots, plaintext, .. } = options;
    Ok((Answers { host, port, user, agent, resource, roots, plaintext }, password))
}

struct Answers {
    host: String,
    port: u16,
    user: String,
    agent: AgentName,
    resource: ResourceName,
    roots: Option<PathBuf>,
    plaintext: Option<String>,
}

/// What is written, but for the secret.
struct Files {
    resource: ResourceName,
    resources: String,
    agents: String,
    rules: String,
    guardrails: String,
    expectations: String,
}

impl Answers {
    fn files(&self) -> Result<Files, Failure> {
        let Self { agent, resource, .. } = self;
        // The example speaks of a warehouse and its readers.
        let fitted = |text: &str| {
            text.replace("warehouse", resource.as_str())
                .replace("reporting", "public")
                .replace("readers", "agents")
                .replace("Readers", "Agents")
        };
        let words = |text: &str| text.replace("AGENT", agent.as_str()).replace("RESOURCE", resource.as_str());
        Ok(Files {
            resource: resource.clone(),
            resources: self.resources()?,
            agents: format!(
                "# Who agents are: `interceptor run --agent {agent} -- COMMAND`.\n\n[agent.{agent}]\ngroups = [\"agents\"]\n"
            ),
            rules: fitted(RULES),
            guardrails: fitted(GUARDRAILS),
            expectations: words(EXPECTATIONS),
        })
    }

    fn resources(&self) -> Result<String, Failure> {
        let Self { host, port, user, resource, .. } = self;
        let address = host.parse::<IpAddr>().ok();
        let local = host == "localhost";
        let loopback = local || address.is_some_and(|address| address.is_loopback());
        let upstream = address
            .map_or_else(|| format!("{host}:{port}"), |address| SocketAddr::new(address, *port).to_string());
        let named = match address {
            Some(_) => format!("addresses = [{}]", quoted(&upstream)?),
            // What a client makes of this name, without asking any resolver.
            None if local => format!("addresses = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]"),
            None => format!("hosts = [{}]\nports = [{port}]", quoted(host)?),
        };
        let tls = match (&self.roots, &self.plaintext) {
            (Some(roots), _) => {
                let roots = fs::canonicalize(roots).map_err(|error| {
                    Failure::usage(format!("{} cannot be read: {error}", roots.display()))
                })?;
                format!("tls = {{ roots = {} }}\n", quoted(&roots.to_string_lossy())?)
            }
            (None, Some(reason)) => format!("tls = {{ plaintext = {} }}\n", quoted(reason)?),
            (None, None) if loopback => {
                "tls = { plaintext = \"the database listens on this host's loopback\" }\n".to_owned()
            }
            (None, None) => String::new(),
        };
        let dial = if loopback { "dial = \"host\"\n" } else { "" };
        Ok(format!(
            "# Where agents may go. Everything else is refused.\n\n\
             [resource.{resource}]\nprotocol = \"postgres\"\n{named}\nupstream = {}\n{dial}{tls}\n\
             [[resource.{resource}.credential]]\nuser = {}\n\
             secret = {{ file = \"{resource}\" }}    # below credentials/, mode 0600, the keeper's\n\
             minimum = \"scram-sha-256\"\n",
            quoted(&upstream)?,
            quoted(user)?
        ))
    }
}

impl Files {
    /// The same as a folder, to be checked before anything is written.
    fn candidate(&self, folder: &Path) -> Folder {
        let source = |name: &str, text: &str| Source {
            file: folder.join(name).display().to_string(),
            text: text.to_owned(),
        };
        Folder {
            resources: source("resources.toml", &self.resources),
            agents: source("agents.toml", &self.agents),
            people: None,
            labels: None,
            policies: vec![
                source("policies/10-reading.cedar", &self.rules),
                source("policies/20-guardrails.cedar", &self.guardrails),
            ],
            expectations: vec![source("policies/start.expect.toml", &self.expectations)],
        }
    }

    fn write(&self, places: &Places, password: &[u8]) -> Result<(), Failure> {
        let (folder, policies, credentials) =
            (places.configuration(), places.policies(), places.credentials());
        directory(folder, 0o755)?;
        directory(&policies, 0o755)?;
        directory(&credentials, 0o750)?;
        let keeper = Accounts::find().keeper;
        own(&credentials, keeper)?;
        let secret = credentials.join(self.resource.as_str());
        file(&secret, password, 0o600)?;
        own(&secret, keeper)?;
        file(&policies.join("10-reading.cedar"), self.rules.as_bytes(), 0o644)?;
        file(&policies.join("20-guardrails.cedar"), self.guardrails.as_bytes(), 0o644)?;
        file(&policies.join("start.expect.toml"), self.expectations.as_bytes(), 0o644)?;
        file(&folder.join("agents.toml"), self.agents.as_bytes(), 0o644)?;
        // Last: what is there makes `init` leave everything alone.
        file(&folder.join("resources.toml"), self.resources.as_bytes(), 0o644)
    }
}

/// A TOML string; JSON's are a part of them.
fn quoted(text: &str) -> Result<String, Failure> {
    serde_json::to_string(text).map_err(|error| Failure::of(&error))
}

fn own(path: &Path, (uid, gid): (Uid, Gid)) -> Result<(), Failure> {
    std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
        .map_err(|error| Failure::host(format!("{} cannot be given to the keeper: {error}", path.display())))
}

fn directory(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|error| Failure::host(format!("{} cannot be made: {error}", path.display())))
}

fn file(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| Failure::host(format!("{} cannot be written: {error}", path.display())))
}

fn given(
    value: Option<String>,
    option: &str,
    question: &str,
    default: Option<&str>,
) -> Result<String, Failure> {
    if let Some(value) = value {
        return Ok(value);
    }
    if !io::stdin().is_terminal() {
        return default.map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!("there is no terminal to ask on for {option}: give it as an option"))
        });
    }
    eprint!("{question}{}: ", default.map(|value| format!(" [{value}]")).unwrap_or_default());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::of(&error))?;
    match (line.trim(), default) {
        ("", Some(default)) => Ok(default.to_owned()),
        ("", None) => Err(Failure::usage(format!("{question}: an answer is needed"))),
        (answer, _) => Ok(answer.to_owned()),
    }
}

/// Reads a line without echo.
fn ask_secret(question: &str) -> Result<Vec<u8>, Failure> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the password on: give it with --password-file",
        ));
    }
    let before = tcgetattr(&stdin).map_err(|error| Failure::of(&error))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    eprint!("{question}: ");
    tcsetattr(&stdin, SetArg::TCSANOW, &silent).map_err(|error| Failure::of(&error))?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, SetArg::TCSANOW, &before);
    eprintln!();
    read.map_err(|error| Failure::of(&error))?;
    restored.map_err(|error| Failure::of(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
}

const RULES: &str = include_str!("../../../../policies/read-only/10-reading.cedar");
const GUARDRAILS: &str = include_str!("../../../../policies/read-only/20-guardrails.cedar");
const EXPECTATIONS: &str = include_str!("start.expect.toml");

#[cfg(test)]
mod tests {
    use interceptor_core::policy::expect;

    use super::*;

    fn answers(host: &str) -> Answers {
        Answers {
            host: host.to_owned(),
            port: 5433,
            user: "a \"quoted\" role".to_owned(),
            agent: "bot".parse().unwrap(),
            resource: "orders".parse().unwrap(),
            roots: None,
            plaintext: None,
        }
    }

    #[test]
    fn what_is_written_checks_clean_and_says_what_it_should() {
        for host in ["db.internal", "localhost", "127.0.0.1", "::1", "10.1.2.3"] {
            let folder = answers(host).files().unwrap().candidate(Path::new("/etc/interceptor"));
            let policy = folder.load().unwrap_or_else(|error| panic!("{host}: {error}")).policy;
            assert!(policy.warnings().is_empty(), "{host}: {:?}", policy.warnings());
            for source in &folder.expectations {
                let results = expect::run(&policy, source, &expect::Catalogue::facts).unwrap();
                assert!(results.len() > 5);
                results.iter().for_each(|result| assert!(result.passed, "{host}: {}", result.found));
            }
        }
    }

    #[test]
    fn tls_is_given_up_only_on_loopback_or_with_a_reason() {
        assert!(!answers("db.internal").resources().unwrap().contains("plaintext"));
        assert!(!answers("10.1.2.3").resources().unwrap().contains("plaintext"));
        assert!(answers("::1").resources().unwrap().contains("plaintext"));
        let reasoned = Answers { plaintext: Some("a lab".to_owned()), ..answers("db.internal") };
        assert!(reasoned.resources().unwrap().contains("tls = { plaintext = \"a lab\" }"));
    }
}
