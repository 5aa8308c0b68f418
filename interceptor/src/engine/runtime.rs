//! The runtime: what the engine calls in place of `runc` to make the containers of runs.
//!
//! Strategy: all but two of `runc`'s commands are `runc`'s. `create` has the run's launcher admit the container, tightens the
//! bundle, makes it by `runc` in mounts of its own, and has the launcher look at it before it answers: the engine starts
//! nothing before. If the launcher or the daemon is gone, or anything is not as it must be, there is no container. `exec`
//! takes capabilities from who joins. Where it is the engine's default runtime, containers of no run are made as `runc` makes them: a
//! container is a run's by its cgroup, which the broker says and no container can change.
//! Arguments: those of `runc` 1.0 and later, as containerd gives them; others are refused.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use interceptor_core::model::RunId;
use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    FromDoor, ToDoor,
    bundle::{self, Wanted},
    mounts,
};
use crate::{channel::Channel, places::Places, telemetry};

/// The longest bundle or process that is read.
const LONGEST: u64 = 16 << 20;
/// How long a launcher may take to answer.
const ANSWER_SECONDS: i64 = 30;

/// Where a container is no run's.
const NOT_OURS: &str =
    "this runtime makes containers of runs only, which their broker asks for: use the engine's ordinary one";

/// `runc`'s own options that have a value.
const VALUED: &[&str] = &["--criu", "--log", "--log-format", "--root", "--rootless"];
/// Those that have none.
const PLAIN: &[&str] = &["--debug", "--systemd-cgroup", "--version", "-v"];
/// Options of `create` that have a value.
const CREATE: &[&str] = &["--bundle", "--console-socket", "--pid-file"];
/// Options of `exec` that have a value.
const EXEC: &[&str] = &["--console-socket", "--pid-file", "--process"];
/// Options of both that have none.
const EITHER: &[&str] = &["--detach", "--tty", "-d", "-t"];
/// Commands that are `runc`'s alone.
const OTHERS: &[&str] =
    &["delete", "events", "features", "kill", "list", "pause", "ps", "resume", "start", "state", "update"];

/// What becomes of containers that are no run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They are not made.
    Refused,
    /// They are `runc`'s.
    Left,
}

/// How the runtime was called.
#[derive(Debug)]
pub struct Options {
    /// The installation.
    pub places: Places,
    /// The ordinary runtime.
    pub runc: PathBuf,
    /// Where the engine keeps its own files.
    pub engine: PathBuf,
    /// What becomes of containers that are no run's.
    pub others: Others,
    /// `runc`'s arguments.
    pub arguments: Vec<OsString>,
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
enum Unmade {
    /// Something that is not for containers of runs.
    #[error("{0}")]
    Refused(String),
    /// What it is to show cannot be shown.
    #[error(transparent)]
    Unshown(#[from] mounts::Unshown),
    /// A step failed.
    #[error("could not {0}")]
    Step(String, #[source] io::Error),
}

fn step(what: &str) -> impl FnOnce(io::Error) -> Unmade {
    move |source| Unmade::Step(what.to_owned(), source)
}

/// `runc`'s arguments, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    /// Without the one that would have systemd make cgroups.
    arguments: Vec<OsString>,
    /// Where errors are read by who called.
    log: Option<PathBuf>,
    command: Option<String>,
    bundle: Option<PathBuf>,
    process: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    container: Option<String>,
}

/// Does what the engine asks for.
pub fn run(options: &Options) -> ExitCode {
    let call = match Call::read(&options.arguments) {
        Ok(call) => call,
        Err(error) => return told(&error, None),
    };
    let done = match call.command.as_deref() {
        Some("create") => create(options, &call),
        Some("exec") => exec(options, &call),
        _ => match options.others {
            Others::Refused => become_runc(options, &call.arguments),
            // Whose it is is not known: `runc` knows how it was made.
            Others::Left => become_runc(options, &options.arguments),
        },
    };
    done.unwrap_or_else(|error| told(&error, call.log.as_deref()))
}

/// Says it where the engine reads it, and on standard error.
fn told(error: &Unmade, log: Option<&Path>) -> ExitCode {
    let text = format!("interceptor: {}", telemetry::chain(error));
    eprintln!("{text}");
    if let Some(log) = log {
        let line = json!({ "level": "error", "msg": text, "time": jiff::Timestamp::now().to_string() });
        // Whoever cannot read it there sees the exit code.
        if let Ok(mut log) = fs::OpenOptions::new().append(true).create(true).open(log) {
            let _ = writeln!(log, "{line}");
        }
    }
    ExitCode::FAILURE
}

impl Call {
    fn read(arguments: &[OsString]) -> Result<Self, Unmade> {
        let mut call = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let text =
                word.to_str().ok_or_else(|| Unmade::Refused("an argument is no plain text".to_owned()))?;
            let (valued, plain) = match call.command.as_deref() {
                None => (VALUED, PLAIN),
                Some("create") => (CREATE, &[][..]),
                Some("exec") => (EXEC, EITHER),
                // All of it is `runc`'s.
                Some(_) => {
                    call.arguments.push(word.clone());
                    continue;
                }
            };
            if text == "--systemd-cgroup" {
                continue;
            }
            call.arguments.push(word.clone());
            if plain.contains(&text) {
                continue;
            }
            if valued.contains(&text) {
                let value = words.next().ok_or_else(|| Unmade::Refused(format!("{text} has no value")))?;
                call.arguments.push(value.clone());
                call.note(text, value);
                continue;
            }
            match (&call.command, &call.container) {
                (None, _) if ["create", "exec"].contains(&text) || OTHERS.contains(&text) => {
                    call.command = Some(text.to_owned());
                }
                (Some(_), None) if !text.starts_with('-') => call.container = Some(text.to_owned()),
                _ => {
                    return Err(Unmade::Refused(format!(
                        "{text:?} is nothing that this runtime is called with"
                    )));
                }
            }
        }
        Ok(call)
    }

    fn note(&mut self, option: &str, value: &OsStr) {
        let place = match option {
            "--log" => &mut self.log,
            "--bundle" => &mut self.bundle,
            "--process" => &mut self.process,
            "--pid-file" => &mut self.pid_file,
            _ => return,
        };
        *place = Some(value.into());
    }

    fn needs<'a, T: ?Sized>(value: Option<&'a T>, what: &str) -> Result<&'a T, Unmade> {
        value.ok_or_else(|| Unmade::Refused(format!("the engine gives no {what}")))
    }
}

fn become_runc(options: &Options, arguments: &[OsString]) -> Result<ExitCode, Unmade> {
    let error = Command::new(&options.runc).args(arguments).exec();
    Err(step(&format!("execute {}", options.runc.display()))(error))
}

/// Takes from who joins a container of a run's what none in it may have.
fn exec(options: &Options, call: &Call) -> Result<ExitCode, Unmade> {
    if options.others == Others::Left {
        let bundle = bundle_of(options, call)?;
        if bundle::run_of(&bundle, &options.places.slice()).is_none() {
            return become_runc(options, &options.arguments);
        }
    }
    let path = Call::needs(call.process.as_deref(), "description of the process that joins")?;
    let mut process = read(path)?;
    bundle::process(&mut process).map_err(Unmade::Refused)?;
    write(path, &process)?;
    become_runc(options, &call.arguments)
}

/// What the part of `runc`'s state is that says where a container's bundle is.
#[derive(Deserialize)]
struct State {
    bundle: PathBuf,
}

/// The bundle that a container was made of.
fn bundle_of(options: &Options, call: &Call) -> Result<Value, Unmade> {
    let container = Call::needs(call.container.as_deref(), "id")?;
    let own = call.arguments.iter().take_while(|word| *word != "exec");
    let told = Command::new(&options.runc).args(own).args(["state", container]).output();
    let told = told.map_err(step("ask what the container is"))?;
    let state: State = serde_json::from_slice(&told.stdout)
        .map_err(|error| step("ask what the container is")(error.into()))?;
    read(&state.bundle.join("config.json"))
}

fn create(options: &Options, call: &Call) -> Result<ExitCode, Unmade> {
    let folder = Call::needs(call.bundle.as_deref(), "bundle")?;
    let container = Call::needs(call.container.as_deref(), "id")?;
    let pid_file = Call::needs(call.pid_file.as_deref(), "place for the number of the first process")?;
    let path = folder.join("config.json");
    let mut bundle = read(&path)?;
    let slice = options.places.slice();
    let Some(run) = bundle::run_of(&bundle, &slice) else {
        return match options.others {
            Others::Left if !bundle::is_near_runs(&bundle, &slice) => {
                become_runc(options, &options.arguments)
            }
            Others::Left | Others::Refused => Err(Unmade::Refused(NOT_OURS.to_owned())),
        };
    };
    let door = Door::of(&options.places, run)?;
    let (answer, descriptors) = door.ask(&ToDoor::Admit { container: container.to_owned() })?;
    let (FromDoor::Admitted { network, folder: at, unix }, [working]) = (answer, descriptors.as_slice())
    else {
        return Err(Unmade::Refused("the run's launcher answered out of turn".to_owned()));
    };
    let calls = options.places.calls(run);
    let wanted = Wanted {
        container,
        run,
        slice: &slice,
        network: &network,
        folder: &at,
        calls: &calls,
        unix,
        engine: &options.engine,
    };
    let shown = wanted.tighten(&mut bundle).map_err(Unmade::Refused)?;
    let paths: Vec<&Path> = shown.iter().map(|shown| shown.path.as_path()).collect();
    let staged = mounts::stage(working.as_fd(), &at, &paths, folder)?;
    for (shown, place) in shown.iter().zip(staged) {
        bundle["mounts"][shown.number]["source"] = json!(place);
    }
    write(&path, &bundle)?;
    let made = Command::new(&options.runc).args(&call.arguments).status();
    let made = made.map_err(step(&format!("execute {}", options.runc.display())))?;
    if !made.success() {
        // It has said why.
        return Ok(ExitCode::FAILURE);
    }
    let begun = first_process(pid_file).and_then(|pid| match door.ask(&ToDoor::Made { pid })? {
        (FromDoor::Begin, _) => Ok(ExitCode::SUCCESS),
        _ => Err(Unmade::Refused("the run's launcher answered out of turn".to_owned())),
    });
    if begun.is_err() {
        unmake(options, call, container);
    }
    begun
}

fn first_process(pid_file: &Path) -> Result<u32, Unmade> {
    let text = fs::read_to_string(pid_file).map_err(step("read the number of the first process"))?;
    text.trim().parse().map_err(|error| step("read the number of the first process")(io::Error::other(error)))
}

/// Takes back what was made. Nothing of its own has run, and nothing would: the engine starts what was made only.
fn unmake(options: &Options, call: &Call, container: &str) {
    let own = call.arguments.iter().take_while(|word| *word != "create");
    let _ = Command::new(&options.runc).args(own).args(["delete", "--force", container]).status();
}

fn read(path: &Path) -> Result<Value, Unmade> {
    let failed = || format!("read {}", path.display());
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(step(&failed()))?;
    file.take(LONGEST).read_to_end(&mut text).map_err(step(&failed()))?;
    serde_json::from_slice(&text).map_err(|error| step(&failed())(error.into()))
}

fn write(path: &Path, value: &Value) -> Result<(), Unmade> {
    fs::write(path, value.to_string()).map_err(step(&format!("write {}", path.display())))
}

/// Where a run's launcher admits containers.
struct Door(Channel<ToDoor, FromDoor>);

impl Door {
    fn of(places: &Places, run: RunId) -> Result<Self, Unmade> {
        let attempt = || -> nix::Result<_> {
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&places.door(run))?)?;
            setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
            Ok(socket)
        };
        let socket =
            attempt().map_err(|errno| step("reach the run's launcher: the run is over")(errno.into()))?;
        Ok(Self(Channel::from_socket(socket)))
    }

    fn ask(&self, question: &ToDoor) -> Result<(FromDoor, Vec<std::os::fd::OwnedFd>), Unmade> {
        let talk = |error| step("talk to the run's launcher")(io::Error::other(error));
        self.0.send(question, &[]).map_err(talk)?;
        match self.0.receive().map_err(talk)? {
            (FromDoor::Refused { text }, _) => Err(Unmade::Refused(text)),
            answer => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &str) -> Result<Call, Unmade> {
        Call::read(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_engines_calls_are_read() {
        let made = call(
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p abc",
        );
        let made = made.expect("as containerd calls it");
        assert_eq!(made.command.as_deref(), Some("create"));
        assert_eq!((made.container.as_deref(), made.bundle.as_deref()), (Some("abc"), Some(Path::new("/b"))));
        assert_eq!(made.log.as_deref(), Some(Path::new("/l")));
        assert!(!made.arguments.contains(&"--systemd-cgroup".into()), "the run's cgroups are not systemd's");
        let joined =
            call("--root /r exec --process /p --detach --pid-file /q abc").expect("as containerd calls it");
        assert_eq!(joined.process.as_deref(), Some(Path::new("/p")));
        assert_eq!(call("kill --all abc 9").expect("runc's own").arguments.len(), 4);
        assert_eq!(call("--version").expect("runc's own").command, None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for words in [
            "run --bundle /b abc",
            "restore abc",
            "--unheard create abc",
            "create --no-pivot --bundle /b abc",
            "create --bundle",
            "exec --cap CAP_SYS_ADMIN abc sh",
            "create --bundle /b abc more",
        ] {
            assert!(call(words).is_err(), "{words}");
        }
    }
}
