//! A service of systemd's: its cgroup while it runs, and a drop-in by which each of its later starts is captured before
//! anything of it runs.
//!
//! Strategy: systemd makes a unit's cgroup anew at each start, and runs `ExecCondition=` in it first; with a `+` that is root,
//! without the unit's sandbox. So the drop-in has this program run there (`--starting`), which captures the cgroup that it is
//! itself in, alone, and ends; if it cannot, the unit fails and is not started. What the unit will be is what systemd says of it.
//!
//! Promises: what systemd says is believed as far as the kernel confirms it, and a drop-in as far as systemd shows that it
//! has read it. What was there of a drop-in is there again when a step fails.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use nix::unistd::User;

use super::{
    super::{LaunchError, step},
    tree::{self, AROUND, Process},
};
use crate::{
    helper::{cgroup::Tree, in_place::InPlace},
    places::Places,
};

/// The cgroup below a unit's that its own commands run in where the unit may make more.
const CONTROL: &str = "/.control";

/// The name of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit(String);

/// A text that is no [`Unit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give the name of a service, as `systemctl list-units` shows it")]
pub struct NotUnit;

impl FromStr for Unit {
    type Err = NotUnit;

    fn from_str(text: &str) -> Result<Self, NotUnit> {
        const KINDS: [&str; 10] =
            ["socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let kind = text.rsplit_once('.').map(|(_, kind)| kind);
        if text.is_empty() || text.starts_with(['-', '.']) || !text.chars().all(is_plain) || text.len() > 200
        {
            return Err(NotUnit);
        }
        match kind {
            Some("service") => Ok(Self(text.to_owned())),
            Some(kind) if KINDS.contains(&kind) => Err(NotUnit),
            _ => Ok(Self(format!("{text}.service"))),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a drop-in lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Until the host is booted again.
    UntilReboot,
    /// Until somebody removes it.
    Persistent,
}

impl Lasting {
    const ALL: [Self; 2] = [Self::UntilReboot, Self::Persistent];

    fn folder(self) -> &'static Path {
        Path::new(match self {
            Self::UntilReboot => "/run/systemd/system",
            Self::Persistent => "/etc/systemd/system",
        })
    }
}

/// A drop-in: where it is, and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub text: String,
}

impl DropIn {
    /// The one that has `words`, after the name of this program, run in the unit's cgroup before anything else of the unit.
    pub fn of(places: &Places, unit: &Unit, lasting: Lasting, words: &[String]) -> Result<Self, LaunchError> {
        let program = std::env::current_exe().map_err(step("find this program's own path"))?;
        let program = program.to_str().ok_or_else(|| unfit("this program's path is no plain text"))?;
        let words = std::iter::once(program).chain(words.iter().map(String::as_str));
        let words = words.map(quoted).collect::<Result<Vec<_>, _>>()?.join(" ");
        let ours = *places == Places::system();
        let daemon =
            if ours { "[Unit]\nWants=interceptor.service\nAfter=interceptor.service\n\n" } else { "" };
        let text = format!(
            "# Written by `interceptor attach --unit {unit}`, removed by `interceptor detach`.\n\
             {daemon}[Service]\n\
             # Captures the cgroup, which is new at each start, before anything of the unit runs in it. If it cannot, the unit \
             fails.\n\
             ExecCondition=+{words}\n\
             # A set-user-id program would have rights by which it could go around.\n\
             NoNewPrivileges=yes\n"
        );
        Ok(Self { path: path_of(places, unit, lasting), text })
    }

    /// Puts it there, and sees that systemd has read it. Gives what undoes that.
    pub(super) fn install(self, unit: &Unit) -> Result<Installed<'_>, LaunchError> {
        let before = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            before => Some(before.map_err(step("read the drop-in that is there"))?),
        };
        let installed = Installed { unit, path: self.path.clone(), before: Some(before) };
        write(&self.path, self.text.as_bytes()).map_err(step("write the drop-in"))?;
        reload()?;
        let shown = Shown::of(unit)?;
        // A systemd that is too old leaves out what it does not know.
        let command = self.text.lines().find_map(|line| line.strip_prefix("ExecCondition=+"));
        let program = command.and_then(|command| command.split('"').nth(1)).unwrap_or_default();
        let is_read =
            shown.of_name("DropInPaths").split_whitespace().any(|path| Path::new(path) == self.path);
        if !is_read || program.is_empty() || !shown.of_name("ExecCondition").contains(program) {
            return Err(unfit(&format!(
                "systemd does not run what {} asks for (ExecCondition=, since version 243): attach to its cgroup at each \
                 start, by `--cgroup`",
                self.path.display()
            )));
        }
        Ok(installed)
    }
}

/// A drop-in that is in force, and is taken back with this value unless it is to stay.
pub(super) struct Installed<'a> {
    unit: &'a Unit,
    path: PathBuf,
    /// What was there before; nothing once it stays.
    before: Option<Option<Vec<u8>>>,
}

impl Installed<'_> {
    pub(super) fn stay(mut self) {
        self.before = None;
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let Some(before) = self.before.take() else { return };
        let undone = match before {
            Some(text) => write(&self.path, &text),
            None => remove(&self.path),
        };
        if undone.is_err() || reload().is_err() {
            eprintln!("interceptor attach: {} of {} stays: remove it", self.path.display(), self.unit);
        }
    }
}

/// Removes the drop-ins of an installation for a unit; whether there was any.
pub fn remove_drop_in(places: &Places, unit: &Unit) -> Result<bool, LaunchError> {
    let mut found = false;
    for lasting in Lasting::ALL {
        let path = path_of(places, unit, lasting);
        if path.exists() {
            remove(&path).map_err(step("remove the drop-in"))?;
            found = true;
        }
    }
    if found {
        reload()?;
    }
    Ok(found)
}

/// The last of the drop-ins by its name, so that none of them takes its line away.
fn path_of(places: &Places, unit: &Unit, lasting: Lasting) -> PathBuf {
    lasting.folder().join(format!("{unit}.d")).join(format!("zz-{}.conf", places.table()))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // systemd reads no other endings.
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    fs::rename(unfinished, path)
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    if let Some(folder) = path.parent() {
        // There may be others.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// A word of a command line, as systemd reads it.
fn quoted(word: &str) -> Result<String, LaunchError> {
    if word.chars().any(char::is_control) {
        return Err(unfit("a path or name has control characters in it, which no unit can have"));
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

fn unfit(text: &str) -> LaunchError {
    LaunchError::Obstacle(text.to_owned())
}

fn reload() -> Result<(), LaunchError> {
    systemctl(&["daemon-reload"]).map(drop)
}

fn systemctl(words: &[&str]) -> Result<String, LaunchError> {
    let mut command = Command::new("systemctl");
    command.args(words).env("LC_ALL", "C").env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0");
    let said = command.stdin(Stdio::null()).output().map_err(step("run systemctl"))?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&said.stderr);
    Err(unfit(&format!("systemctl {} failed: {}", words.join(" "), why.trim())))
}

/// What systemd says of a unit.
pub(super) struct Shown {
    unit: Unit,
    fields: BTreeMap<String, String>,
}

impl Shown {
    pub(super) fn of(unit: &Unit) -> Result<Self, LaunchError> {
        const PROPERTIES: &str = "--property=Id,LoadState,ControlGroup,MainPID,User,DynamicUser,AmbientCapabilities,\
                                  PrivateNetwork,NetworkNamespacePath,TriggeredBy,ExecStartEx,ExecCondition,DropInPaths";
        let text = systemctl(&["show", PROPERTIES, "--", &unit.0])?;
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            // One that there may be several of has a line for each.
            let all = fields.entry(name.to_owned()).or_default();
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(value);
        }
        let shown = Self { unit: unit.clone(), fields };
        match shown.of_name("LoadState") {
            "loaded" if shown.of_name("Id") == unit.0 => Ok(shown),
            "loaded" => {
                Err(unfit(&format!("{unit} is another name of {}: say that one", shown.of_name("Id"))))
            }
            state => {
                Err(unfit(&format!("systemd has no service {unit} that could be captured: it is {state:?}")))
            }
        }
    }

    fn of_name(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Its cgroup, if it runs. The kernel must confirm that its main process is in there.
    pub(super) fn cgroup(&self, cgroups: &Tree) -> Result<Option<PathBuf>, LaunchError> {
        let Self { unit, .. } = self;
        let (name, main) = (self.of_name("ControlGroup"), self.of_name("MainPID"));
        if name.is_empty() {
            return Ok(None);
        }
        let directory = cgroups.directory(name);
        match main.parse::<u32>() {
            Ok(pid) if pid > 0 && cgroups.holds(&directory, pid) => Ok(Some(directory)),
            _ => Err(unfit(&format!(
                "systemd says that {unit} is in {name}, and its main process ({main}) is not there: name its cgroup by \
                 `--cgroup`, if it is one of its own"
            ))),
        }
    }

    /// What makes it impossible to capture it at its start.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let Self { unit, .. } = self;
        let no = |why: &str| format!("{unit} {why}");
        let mut found = Vec::new();
        if self.of_name("DynamicUser") == "yes" {
            found.push(no(
                "has DynamicUser=yes, so that nobody knows before its start who it is: give it a User=",
            ));
        } else if matches!(self.of_name("User"), "" | "root" | "0") {
            found.push(no("runs as root, who may leave any cgroup: give it a User="));
        }
        let around = self.of_name("AmbientCapabilities").split_whitespace().find(|name| {
            AROUND.iter().any(|(_, known)| name.to_ascii_lowercase().trim_start_matches("cap_") == *known)
        });
        found.extend(
            around.map(|name| no(&format!("has the capability {name}, by which it could go around"))),
        );
        if self.of_name("PrivateNetwork") == "yes" || !self.of_name("NetworkNamespacePath").is_empty() {
            found.push(no(
                "is in a network of its own, and is served in the host's: take PrivateNetwork= away",
            ));
        }
        if self.of_name("TriggeredBy").contains(".socket") {
            found.push(no(
                "gets its sockets from systemd, which are not captured: have it make them by itself",
            ));
        }
        if self.of_name("ExecStartEx").split("flags=").skip(1).any(gives_rights) {
            found.push(no("has an ExecStart= that begins with +, ! or !!, and so as root: take that away"));
        }
        found
    }

    /// Its first process, as it will be.
    fn first(&self) -> Result<Process, LaunchError> {
        let user = self.of_name("User");
        let uid = match user.parse() {
            Ok(uid) => uid,
            Err(_) => User::from_name(user)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw())
                .ok_or_else(|| LaunchError::NoUser(user.to_owned()))?,
        };
        let start = self.of_name("ExecStartEx");
        let part =
            |name: &str| start.split(" ; ").find_map(|part| part.trim_start_matches("{ ").strip_prefix(name));
        Ok(Process {
            uid,
            executable: part("path=").unwrap_or_default().to_owned(),
            command: part("argv[]=").unwrap_or_default().split(' ').map(str::to_owned).collect(),
            capabilities: 0,
            ..tree::read(std::process::id()).map_err(step("look at this process"))?
        })
    }
}

fn gives_rights(flags: &str) -> bool {
    let flags = flags.split(';').next().unwrap_or_default();
    flags.split_whitespace().any(|flag| ["privileged", "no-setuid", "ambient"].contains(&flag))
}

/// A service that is just being started, with this process in its cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Starting {
    pub(super) folder: PathBuf,
    pub(super) first: Process,
}

impl Starting {
    /// Where it is, and what it will be. Refused where it cannot be captured.
    pub(super) fn find(cgroups: &Tree, unit: &Unit) -> Result<Self, LaunchError> {
        let shown = Shown::of(unit)?;
        if let Some(obstacle) = shown.obstacles().into_iter().next() {
            return Err(LaunchError::Obstacle(obstacle));
        }
        let name = own_cgroup()?;
        if name != shown.of_name("ControlGroup") {
            return Err(unfit(&format!(
                "this process is in {name}, and not where systemd says that {unit} is: this is for the unit's own drop-in"
            )));
        }
        Ok(Self { folder: cgroups.directory(&name), first: shown.first()? })
    }

    /// The first process as it will be, if nothing but this process is in its cgroup.
    pub(super) fn alone(cgroup: &InPlace, first: &Process) -> Result<Vec<Process>, LaunchError> {
        match &*Tree::processes(cgroup.directory()) {
            [pid] if *pid == std::process::id() => Ok(vec![first.clone()]),
            others => Err(unfit(&format!(
                "{} has {} processes before the service has begun: end what an earlier start has left there",
                cgroup.directory().display(),
                others.len()
            ))),
        }
    }
}

/// The cgroup of the unit that this process is started for.
pub(super) fn own_cgroup() -> Result<String, LaunchError> {
    let name = Tree::cgroup_of("self").map_err(step("look at this process's cgroup"))?;
    Ok(name.strip_suffix(CONTROL).unwrap_or(&name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_is_a_unit() {
        for (text, name) in
            [("a", "a.service"), ("a@1.service", "a@1.service"), ("org.x.y", "org.x.y.service")]
        {
            assert_eq!(text.parse::<Unit>().map(|unit| unit.0), Ok(name.to_owned()));
        }
        for wrong in ["", "-a", "../a", "a/b", "a b", "a.slice", "a.socket", ".service"] {
            assert_eq!(wrong.parse::<Unit>(), Err(NotUnit), "{wrong}");
        }
    }

    #[test]
    fn what_stands_in_a_drop_in_is_read_as_it_was_meant() {
        assert_eq!(quoted("/a b/%n$X\"\\").expect("plain"), r#""/a b/%%n$$X\"\\""#);
        assert!(quoted("a\nExecStart=b").is_err());
        let unit: Unit = "bot".parse().expect("a unit");
        let words = ["attach", "--unit", "bot.service"].map(str::to_owned);
        let places = Places::under(Path::new("/r"));
        let drop_in = DropIn::of(&places, &unit, Lasting::UntilReboot, &words).expect("plain");
        assert!(drop_in.path.starts_with("/run/systemd/system/bot.service.d"), "{drop_in:?}");
        assert!(
            drop_in.text.contains("interceptor\" \"attach\" \"--unit\"")
                || drop_in.text.contains("ExecCondition=+\"")
        );
        assert!(!drop_in.text.contains("interceptor.service"), "a private installation has no such unit");
        let system = DropIn::of(&Places::system(), &unit, Lasting::Persistent, &words).expect("plain");
        assert!(system.text.contains("After=interceptor.service") && system.path.starts_with("/etc"));
    }

    fn shown(fields: &[(&str, &str)]) -> Shown {
        let own = [("User", "nobody"), ("DynamicUser", "no"), ("PrivateNetwork", "no")];
        let fields = own.iter().chain(fields).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Shown { unit: "bot".parse().expect("a unit"), fields: fields.collect() }
    }

    #[test]
    fn what_cannot_be_captured_at_its_start_is_an_obstacle() {
        assert_eq!(shown(&[]).obstacles(), Vec::<String>::new());
        let plain = "{ path=/bin/a ; argv[]=/bin/a b ; flags= ; start_time=[n/a] }";
        assert_eq!(shown(&[("ExecStartEx", plain)]).obstacles(), Vec::<String>::new());
        let first = shown(&[("ExecStartEx", plain)]).first().expect("a user");
        assert_eq!((first.executable.as_str(), first.command.join(" ").as_str()), ("/bin/a", "/bin/a b"));
        for (name, value) in [
            ("User", ""),
            ("User", "0"),
            ("DynamicUser", "yes"),
            ("AmbientCapabilities", "cap_kill cap_net_raw"),
            ("PrivateNetwork", "yes"),
            ("NetworkNamespacePath", "/run/netns/a"),
            ("TriggeredBy", "bot.socket"),
            ("ExecStartEx", "{ path=/a ; argv[]=/a ; flags=privileged ; start_time=[n/a] }"),
        ] {
            assert_eq!(shown(&[(name, value)]).obstacles().len(), 1, "{name}={value}");
        }
    }
}
