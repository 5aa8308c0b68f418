//! Where ways around are tried: a host in a network namespace of its own with a world beyond, a run on it, a process
//! that is not captured, and the same attempts without capture beside.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use interceptor::control::api::{self, Request};
use serde_json::{Map, Value, json};

use super::{
    Becomes, Identity, Mode,
    catalogue::{Aim, Attempt, Door, Secret},
    judge::{Answer, Seen},
};
use crate::{
    Cgroup, Finished, Installation, RunningBed, Setup, cgroup, leaks, places,
    process::{self, PATIENCE, wait_until},
    sniffer::Sniffer,
    talk::Talker,
};

const ESCAPE: &str = include_str!("../../tests/clients/escape.py");
const DEPUTY: &str = include_str!("../../tests/clients/deputy.py");

/// Whom the processes outside belong to: a person, who is also the agent's user in one of the trials.
pub(super) const PERSON: u32 = 64_801;
/// The TCP service on the host's loopback.
const SERVICE: u16 = 47_010;
/// A Python that is set-user-id root, in the folder that runs work in.
const ROOTS_PYTHON: &str = "root-python";
/// The name of the database's socket where a resource has it.
const RESOURCE: &str = "database";
/// What the world, or the host, dials.
const LISTENER: u16 = 47_011;
/// The same for a socket from before, which whoever tries it keeps.
const LISTENER_BEFORE: u16 = 47_012;
/// How long a frame may take to the world: the interfaces are in one kernel.
const SETTLED: Duration = Duration::from_millis(30);
/// How long one may take that must come.
const LATE: Duration = Duration::from_secs(2);
/// How long an attempt may take, its own limits included.
const ATTEMPT: Duration = Duration::from_secs(40);

/// One identity's stage. Everything on it ends with the value.
pub(super) struct Stage<'a> {
    mode: Mode,
    identity: &'static Identity,
    bed: &'a RunningBed,
    /// Where the database can be reached, which it cannot from the namespace.
    plain: &'a Installation,
    captured: Talker,
    same: Talker,
    root: Talker,
    deputy: Talker,
    installation: Installation,
    sniffer: Sniffer,
    script: String,
    /// The folder in `/run`; gone with the value.
    doors: tempfile::TempDir,
    /// Where whoever is captured in its place is; gone with the value.
    cgroup: Option<Cgroup>,
    /// A captured process, and the proxy's listener in its network.
    run: u32,
    listener: u16,
}

impl<'a> Stage<'a> {
    pub(super) fn set(
        mode: Mode,
        identity: &'static Identity,
        bed: &'a RunningBed,
        plain: &'a Installation,
    ) -> Self {
        let sniffer = Sniffer::new();
        let doors =
            tempfile::Builder::new().prefix("ic-doors-").tempdir_in("/run").expect("a folder in /run");
        let beside = beside(bed, doors.path());
        let installation = Setup::of(bed).resource(&beside).in_namespace(sniffer.namespace()).start();
        open_ping(&installation);
        let script = installation.script("escape.py", ESCAPE);
        if identity.becomes == Becomes::Root {
            make_ready(&installation);
        }
        furnish(&installation, doors.path());
        let database = door_path(&installation, doors.path(), bed, Door::Database);
        symlink(database, doors.path().join(RESOURCE)).expect("a folder of ours");
        let deputy = installation.script("deputy.py", DEPUTY);
        let person = person().map(|word| word.to_string());
        let mut command = installation.outside(&places::tool("setpriv"));
        command.args(person).args(["/usr/bin/python3", &deputy, &SERVICE.to_string()]);
        let mut deputy = Talker::start(command);
        for door in [Door::Run, Door::Shared] {
            open_door(&mut deputy, &door_path(&installation, doors.path(), bed, door), door);
        }
        let (captured, cgroup) = captured(mode, identity, &installation, &script);
        for door in [Door::RunLater, Door::TmpLater, Door::SharedLater, Door::Abstract] {
            open_door(&mut deputy, &door_path(&installation, doors.path(), bed, door), door);
        }
        let same = Talker::start(outside(&installation, &identity.outside(), &script));
        let root = Talker::start(outside(&installation, &["--reuid=0".to_owned()], &script));
        let (run, listener) = listener(&installation, (mode, identity), &captured);
        let _ = sniffer.frames();
        Self {
            mode,
            identity,
            bed,
            plain,
            captured,
            same,
            root,
            deputy,
            installation,
            sniffer,
            script,
            doors,
            cgroup,
            run,
            listener,
        }
    }

    /// Tries it captured, and without capture: as the same user, and as one who may do anything where that one could not.
    /// Nothing for what is the same in every mode and tried in `run`.
    pub(super) fn tried(&mut self, attempt: &Attempt) -> Option<(Seen, Seen, Seen)> {
        let elsewhere = matches!(attempt.at, Aim::StandardInput | Aim::Statement(_) | Aim::Database);
        if self.mode != Mode::Launched && elsewhere {
            return None;
        }
        let before = self.counters();
        let mut captured = self.perform(attempt, Who::Captured);
        // A run of its own counts what its launcher tries, too.
        if !matches!(
            attempt.at,
            Aim::StandardInput | Aim::ListenerFromOutside | Aim::Statement(_) | Aim::Database
        ) {
            let risen = |(name, count): &(String, u64)| before.get(name).is_none_or(|before| before < count);
            captured.counters = self.counters().into_iter().filter(risen).collect();
        }
        let same = self.perform(attempt, Who::Same);
        let root = if same.worked(attempt.at) { same.clone() } else { self.perform(attempt, Who::Root) };
        Some((captured, same, root))
    }

    /// Ends it in good order; says what came to the world after everything was tried.
    pub(super) fn finish(self) -> usize {
        let late = self.sniffer.frames().len();
        drop((self.captured, self.same, self.root, self.deputy));
        drop((self.doors, self.cgroup));
        // Packet information leads as far as the belt.
        self.installation.finish_after_alarms();
        late
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        // As the command asks, but without a process for it: there are two questions for each attempt.
        match api::ask(&self.installation.places().control_socket(), Request::Status) {
            Ok(api::Answer::Status(status)) => status.kernel.into_iter().collect(),
            other => panic!("the daemon does not say how it is: {other:?}"),
        }
    }

    fn perform(&mut self, attempt: &Attempt, who: Who) -> Seen {
        let given = self.given(attempt, who);
        let answer = match attempt.at {
            Aim::Statement(sql) => self.statement(sql, who),
            Aim::Database if who == Who::Captured => {
                let script = self.plain.script("escape.py", ESCAPE);
                once(&script, &given, self.run_once(self.plain))
            }
            // The server itself turns this away: there is nobody to show that it would work.
            Aim::Database => Answer { done: true, ..Answer::default() },
            Aim::StandardInput => once(&self.script, &given, self.with_socket_as_input(who)),
            Aim::ListenerFromOutside if who == Who::Captured => {
                let mut command = Command::new(places::tool("nsenter"));
                command.args(["-n", "-t", &self.run.to_string(), "/usr/bin/python3"]);
                once(&self.script, &given, command)
            }
            _ => {
                let dialler = self.dialler(attempt.at);
                let server = match who {
                    Who::Captured => &mut self.captured,
                    Who::Same => &mut self.same,
                    Who::Root => &mut self.root,
                };
                let answer = ask(server, &given);
                if dialler.is_some() {
                    // Its own packets are answered by the host: they are no escape.
                    drop(dialler);
                    let _ = self.sniffer.frames();
                }
                answer
            }
        };
        let frames = self.sniffer.frames_within(SETTLED).len();
        let mut seen = Seen { answer, frames, counters: BTreeMap::new() };
        if who != Who::Captured && !seen.worked(attempt.at) && seen.answer.done {
            // What shows that it would work may be late on a busy machine.
            seen.frames = self.sniffer.frames_within(LATE).len();
        }
        seen
    }

    /// What an attempt is told.
    fn given(&self, attempt: &Attempt, who: Who) -> Value {
        let installation = &self.installation;
        let listens = if who == Who::Captured { self.listener } else { SERVICE };
        let cgroup = leaks::cgroup_root();
        let mut given = Map::new();
        let mut put = |name: &str, value: Value| drop(given.insert(name.to_owned(), value));
        put("name", json!(attempt.name));
        put("proxy", json!(listens));
        put("cgroup", json!(cgroup));
        put("slice", json!(cgroup.join(installation.places().slice())));
        put("pins", json!(installation.places().pins()));
        put("folder", json!(self.shared()));
        put("outside", json!(std::process::id()));
        put("program", json!(installation.work().join("set-user-id")));
        match attempt.at {
            Aim::Service => put("port", json!(SERVICE)),
            Aim::Inbound | Aim::Forwarder => put("port", json!(LISTENER)),
            Aim::InboundBefore => put("port", json!(LISTENER_BEFORE)),
            Aim::InboundDatagram => put("port", json!(LISTENER)),
            Aim::Victim => put("pid", json!(self.deputy.pid())),
            Aim::Proxy => put("pid", json!(self.proxy())),
            Aim::Door(door) => put("path", json!(door_path(installation, self.doors.path(), self.bed, door))),
            Aim::File(secret) => put("path", json!(self.secret(secret))),
            Aim::World
            | Aim::Listener
            | Aim::ListenerFromOutside
            | Aim::Kernel
            | Aim::StandardInput
            | Aim::Inherited
            | Aim::Statement(_)
            | Aim::Database => {}
        }
        if matches!(attempt.at, Aim::Door(Door::Control | Door::Launch)) {
            put("kind", json!(libc::SOCK_SEQPACKET));
        }
        if attempt.name == "take-port" && who != Who::Captured {
            // A free one, which is all that it shows.
            put("proxy", json!(LISTENER));
        }
        Value::Object(given)
    }

    fn shared(&self) -> PathBuf {
        self.installation.work().join("shared")
    }

    fn proxy(&self) -> u32 {
        let roles = self.installation.roles();
        roles.into_iter().find(|(role, _)| role == "proxy").map(|(_, pid)| pid).expect("a proxy")
    }

    fn secret(&self, secret: Secret) -> PathBuf {
        let places = self.installation.places();
        match secret {
            Secret::Credential => places.credentials().join("orders"),
            Secret::Authority => {
                let files = fs::read_dir(places.authority()).expect("the authority").flatten();
                files.map(|entry| entry.path()).find(|path| !path.ends_with("ca.pem")).expect("its key")
            }
        }
    }

    /// Somebody who dials the listener of an attempt for as long as it lives.
    fn dialler(&self, at: Aim) -> Option<Talker> {
        let (namespace, host, port) = match at {
            Aim::InboundDatagram => (self.sniffer.world(), "192.0.2.2", LISTENER),
            Aim::Inbound => (self.sniffer.world(), "192.0.2.2", LISTENER),
            Aim::InboundBefore => (self.sniffer.world(), "192.0.2.2", LISTENER_BEFORE),
            Aim::Forwarder => (self.sniffer.namespace(), "127.0.0.1", LISTENER),
            _ => return None,
        };
        let reach = match at {
            Aim::InboundDatagram => {
                format!("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({host:?}, {port}))")
            }
            _ => format!("socket.create_connection(({host:?}, {port}), 0.2)"),
        };
        let script = format!(
            "import socket, time\nprint('ready', flush=True)\nwhile True:\n    try: {reach}\n    except OSError: pass\n    time.sleep(0.02)\n"
        );
        let network = format!("--net=/run/netns/{namespace}");
        Some(Talker::start(process::command(&["nsenter", &network, "/usr/bin/python3", "-c", &script])))
    }

    fn run_once(&self, installation: &Installation) -> Command {
        let mut command = installation.command(&["run", "--agent", "release-bot"]);
        command.args(self.identity.options()).arg("--").arg(python(self.identity, installation));
        command.current_dir(installation.work());
        command
    }

    fn with_socket_as_input(&self, who: Who) -> Command {
        let inner = match who {
            Who::Captured => self.run_once(&self.installation),
            Who::Same | Who::Root => {
                let mut command = self.installation.outside(&places::tool("setpriv"));
                command.args(self.identity.outside()).arg("/usr/bin/python3");
                command
            }
        };
        let mut command = self.installation.outside(Path::new("/bin/bash"));
        command.args(["-c", "exec 0<>/dev/udp/192.0.2.1/9; exec \"$@\"", "bash"]);
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(self.installation.work());
        command
    }

    fn statement(&self, sql: &str, who: Who) -> Answer {
        if who != Who::Captured {
            let _ = self.bed.admin("orders", sql);
            return Answer { done: true, ..Answer::default() };
        }
        let words = self.plain.psql_words(&["-c", sql]);
        let mut command = self.plain.command(&["run", "--agent", "release-bot"]);
        command.args(self.identity.options()).arg("--").args(words).current_dir(self.plain.work());
        let finished = process::run(command);
        let refused = finished.stderr.contains("42501");
        Answer {
            done: finished.status.success(),
            said: finished.stdout,
            call: "statement".to_owned(),
            errno: if refused { "42501".to_owned() } else { finished.stderr },
        }
    }
}

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Captured,
    Same,
    Root,
}

/// One attempt in a process of its own.
fn once(script: &str, given: &Value, mut command: Command) -> Answer {
    command.args([script, "once", &given.to_string()]);
    let finished = process::run(command);
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|_| broken(&finished))
}

fn broken(finished: &Finished) -> Answer {
    Answer { errno: "BROKEN".to_owned(), said: finished.to_string(), ..Answer::default() }
}

fn person() -> [String; 3] {
    [format!("--reuid={PERSON}"), format!("--regid={PERSON}"), "--clear-groups".to_owned()]
}

/// What a process of the script's says to an attempt.
fn ask(server: &mut Talker, given: &Value) -> Answer {
    let line = server.say(&given.to_string(), ATTEMPT);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// Lets everybody on the host ping, as systemd and Docker do.
fn open_ping(installation: &Installation) {
    let mut command = installation.outside(Path::new("/bin/sh"));
    command.args(["-c", "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range"]);
    process::run(command).succeeded();
}

/// A resource that is the database by its Unix socket, with nobody permitted to use it.
fn beside(bed: &RunningBed, doors: &Path) -> String {
    format!(
        "[resource.beside]\nprotocol = \"postgres\"\nsockets = [{:?}]\nupstream = \"unix:{}/.s.PGSQL.{}\"\n\
         tls = {{ plaintext = \"a test\" }}\n[[resource.beside.credential]]\nuser = \"app\"\n\
         secret = {{ file = \"orders\" }}\n",
        doors.join(RESOURCE),
        bed.socket_folder().display(),
        bed.port()
    )
}

/// Makes the folders of the doors, and a program that is set-user-id root.
fn furnish(installation: &Installation, doors: &Path) {
    let tmp = tmp_folder(installation);
    let shared = installation.work().join("shared");
    for folder in [&tmp, &shared] {
        fs::create_dir(folder).expect("a folder of ours");
    }
    for (folder, mode) in [(doors, 0o755), (tmp.as_path(), 0o700), (shared.as_path(), 0o777)] {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("own folder");
        chown(folder, Some(PERSON), Some(PERSON)).expect("the tests run as root");
    }
    let program = installation.work().join("set-user-id");
    fs::copy("/bin/cat", &program).expect("cat");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("own file");
}

/// Where the person's programs keep sockets in `/tmp`: beside the installation, so that it goes with it.
fn tmp_folder(installation: &Installation) -> PathBuf {
    installation.root().join("tmux")
}

fn door_path(installation: &Installation, doors: &Path, bed: &RunningBed, door: Door) -> PathBuf {
    let shared = installation.work().join("shared");
    match door {
        Door::Run => doors.join("bus"),
        Door::RunLater => doors.join("docker.sock"),
        Door::TmpLater => tmp_folder(installation).join("default"),
        Door::Shared => shared.join("master"),
        Door::SharedLater => shared.join("later"),
        Door::Abstract => PathBuf::from(format!("@ic-{}", installation.mark())),
        Door::Database => bed.socket_folder().join(format!(".s.PGSQL.{}", bed.port())),
        Door::Resource => doors.join(RESOURCE),
        Door::Control => installation.places().control_socket(),
        Door::Launch => installation.places().launch_socket(),
    }
}

fn open_door(deputy: &mut Talker, path: &Path, door: Door) {
    let mode = if matches!(door, Door::Run | Door::RunLater) { 0o777 } else { 0o700 };
    let wanted = json!({ "path": path, "mode": mode }).to_string();
    assert_eq!(deputy.say(&wanted, PATIENCE), "bound");
}

/// `program` with a socket to the world at descriptor 9.
fn with_socket(command: &mut Command) -> &mut Command {
    command.args(["-c", "exec 9<>/dev/udp/192.0.2.1/9; exec \"$@\"", "bash"])
}

/// Whoever tries, captured; and the cgroup that was captured for that, where it is one.
fn captured(
    mode: Mode,
    identity: &Identity,
    installation: &Installation,
    script: &str,
) -> (Talker, Option<Cgroup>) {
    let attach = |target: [&str; 2]| {
        let words = [&["attach", "--agent", "release-bot"][..], &target].concat();
        installation.interceptor(&words).succeeded();
    };
    if mode == Mode::Launched {
        return (Talker::start(launched(identity, installation, script)), None);
    }
    let running = Talker::start(outside(installation, &identity.outside(), script));
    if mode == Mode::Attached {
        attach(["--pid", &running.pid().to_string()]);
        return (running, None);
    }
    let cgroup = Cgroup::make(installation, "tried");
    cgroup::put(&running, &cgroup.0);
    attach(["--cgroup", cgroup.name()]);
    (running, Some(cgroup))
}

fn launched(identity: &Identity, installation: &Installation, script: &str) -> Command {
    let run = installation.command(&["run", "--agent", "release-bot"]);
    // `command` has entered the namespace already.
    let mut command = installation.outside(Path::new("/bin/bash"));
    with_socket(&mut command).arg(run.get_program()).args(run.get_args());
    command.args(identity.options()).arg("--").arg(python(identity, installation)).arg(script);
    command.current_dir(installation.work());
    command
}

/// What the script is run by, in a run.
fn python(identity: &Identity, installation: &Installation) -> PathBuf {
    match identity.becomes {
        Becomes::Itself => PathBuf::from("/usr/bin/python3"),
        Becomes::Root => installation.work().join(ROOTS_PYTHON),
    }
}

/// Gives the person the folder that runs work in, as a run with sudo wants it, and puts a program in there that makes
/// whoever starts it root.
pub(super) fn make_ready(installation: &Installation) {
    let work = installation.work();
    chown(work, Some(PERSON), Some(PERSON)).expect("the tests run as root");
    let program = work.join(ROOTS_PYTHON);
    fs::copy("/usr/bin/python3", &program).expect("python3");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("own file");
}

fn outside(installation: &Installation, who: &[String], script: &str) -> Command {
    let mut command = installation.outside(&places::tool("unshare"));
    // What it mounts is gone with it.
    command.args(["--mount", "--propagation", "private", "/bin/bash"]);
    with_socket(&mut command).arg(places::tool("setpriv")).args(who).args(["/usr/bin/python3", script]);
    command.current_dir(installation.work());
    command
}

/// A captured process of the installation, and the port of its run's listener.
fn listener(
    installation: &Installation,
    (mode, identity): (Mode, &Identity),
    captured: &Talker,
) -> (u32, u16) {
    let python = python(identity, installation).display().to_string();
    let ours = |port: &u16| match mode {
        Mode::Launched => *port >= 61_440,
        // Others listen in the same network.
        Mode::Attached | Mode::Enclosed => (61_500..61_900).contains(port),
    };
    let slice = installation.places().slice();
    let whoever = || match mode {
        // The launcher's child, in the run.
        Mode::Launched => leaks::processes()
            .into_iter()
            .find(|one| one.cgroup.contains(&slice) && one.command.starts_with(&python))
            .map(|one| one.pid),
        Mode::Attached | Mode::Enclosed => Some(captured.pid()),
    };
    let mut found = None;
    wait_until("the listener of a captured process", PATIENCE, || {
        found = whoever().and_then(|pid| Some((pid, listeners(pid).into_iter().find(ours)?)));
        found.is_some()
    });
    found.expect("found")
}

/// The ports that are listened on in the network namespace of a process.
pub fn listeners(pid: u32) -> Vec<u16> {
    let Ok(table) = File::open(format!("/proc/{pid}/net/tcp")) else { return Vec::new() };
    let lines = BufReader::new(table).lines().map_while(Result::ok).skip(1);
    let listening = lines.filter(|line| line.split_whitespace().nth(3) == Some("0A"));
    listening
        .filter_map(|line| {
            let (_, port) = line.split_whitespace().nth(1)?.split_once(':')?;
            u16::from_str_radix(port, 16).ok()
        })
        .collect()
}
