//! Services of a real systemd: captured while they run, and before each start.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use interceptor_tests::{
    Bed, Installation, Setup, Talker,
    installation::agent_user,
    leaks,
    machine::Machine,
    places,
    process::{Finished, PATIENCE, run, wait_until},
};
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::held::Listening;

const CONTAINED: &str = include_str!("../clients/contained.py");

/// A service that first does one thing, which it writes down, and then what it is told.
struct Service {
    input: File,
    answers: PathBuf,
    firsts: PathBuf,
    log: PathBuf,
    text: String,
    heard: usize,
}

impl Service {
    fn of(installation: &Installation) -> Self {
        let script = installation.script("contained.py", CONTAINED);
        let work = installation.work();
        let [fifo, answers, firsts, log] = ["input", "answers", "firsts", "log"].map(|name| work.join(name));
        mkfifo(&fifo, Mode::from_bits_truncate(0o666)).expect("own folder");
        let input = OpenOptions::new().read(true).write(true).open(&fifo).expect("own queue");
        let first = format!("/usr/bin/python3 {script} query >> {}", firsts.display());
        // What the drop-in's command says goes to the log.
        let then = format!("exec /usr/bin/python3 {script} >> {}", answers.display());
        let text = format!(
            "User={}\nExecStart=/bin/sh -c '{first}; {then}'\n\
             StandardInput=file:{}\nStandardOutput=append:{log}\nStandardError=append:{log}\n",
            agent_user(),
            fifo.display(),
            log = log.display()
        );
        Self { input, answers, firsts, log, text, heard: 0 }
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until it is ready to be told what to do.
    #[track_caller]
    fn await_ready(&mut self) {
        assert_eq!(self.next(), "ready");
    }

    #[track_caller]
    fn say(&mut self, word: &str) -> String {
        writeln!(self.input, "{word}").expect("own queue");
        self.next()
    }

    #[track_caller]
    fn next(&mut self) -> String {
        let at = self.heard;
        self.heard += 1;
        wait_until("an answer", PATIENCE, || Self::lines(&self.answers).len() > at);
        Self::lines(&self.answers).swap_remove(at)
    }
}

fn attach(machine: &Machine, installation: &Installation, words: &[&str]) -> Finished {
    let attach = ["attach", "--agent", "release-bot", "--unit"];
    machine.interceptor(installation, &[&attach[..], words].concat())
}

#[test]
fn a_unit_is_captured_where_it_is_and_at_each_start() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let mut service = Service::of(&installation);
    let root = service.text.replace(&format!("User={}\n", agent_user()), "");
    let machine = Machine::start(&installation, &[("bot.service", &service.text), ("root.service", &root)]);
    machine.systemctl(&["start", "bot"]).succeeded();
    service.await_ready();
    assert!(service.say("query").contains("could not translate"), "nobody has captured it");

    for (words, why) in [
        (&["no-such"][..], "has no service"),
        (&["root"], "runs as root"),
        (&["bot.slice"], "name of a service"),
    ] {
        attach(&machine, &installation, words).failed().says(why);
    }
    let drop_in = "/run/systemd/system/bot.service.d";
    let folder = |folder: &str| run(with(machine.command(&places::tool("ls")), &[folder])).status.success();
    let plan = attach(&machine, &installation, &["bot", "--plan"])
        .succeeded()
        .says("ExecCondition=+\"/")
        .says("NoNewPrivileges=yes");
    assert!(plan.stdout.contains(drop_in) && !folder(drop_in), "a plan changes nothing: {plan}");
    let attached = attach(&machine, &installation, &["bot"]).succeeded().says("attached run");
    assert!(attached.stdout.contains(drop_in) && folder(drop_in), "{attached}");
    assert_eq!(service.say("query"), "100", "it is captured where it is");
    attach(&machine, &installation, &["bot"]).failed().says("captured already");
    assert!(folder(drop_in), "what failed takes nothing with it");

    let first = installation.runs()[0]["run"].clone();
    machine.systemctl(&["restart", "bot"]).succeeded();
    service.await_ready();
    assert_eq!(
        Service::lines(&service.firsts).last().map(String::as_str),
        Some("100"),
        "from its first moment on"
    );
    assert_eq!(service.say("query"), "100");
    wait_until("the first run's end", PATIENCE, || installation.runs().len() == 1);
    let run = installation.runs()[0].clone();
    assert_ne!(run["run"], first);
    assert_eq!((&run["agent"], &run["guarantee"]), (&"release-bot".into(), &"enforced".into()));

    machine.systemctl(&["stop", "bot"]).succeeded();
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    installation.stop();
    let firsts = Service::lines(&service.firsts).len();
    machine.systemctl(&["start", "bot"]).failed();
    assert!(Service::lines(&service.log).join("\n").contains("nobody answers"), "its log says why");
    assert_eq!(Service::lines(&service.firsts).len(), firsts, "without a daemon nothing of it has run");
    installation.start();
    machine.systemctl(&["start", "bot"]).succeeded();
    service.await_ready();
    assert_eq!(service.say("query"), "100");

    let run = installation.runs()[0]["run"].as_str().expect("a run").to_owned();
    machine.interceptor(&installation, &["detach", &run, "--reason", "the test is over"]).succeeded();
    assert!(!folder(drop_in), "nothing of it stays");
    machine.systemctl(&["restart", "bot"]).succeeded();
    service.await_ready();
    assert!(service.say("query").contains("could not translate"), "it is as free as before");
    machine.systemctl(&["stop", "bot"]).succeeded();

    attach(&machine, &installation, &["bot"]).succeeded().says("from its next start on");
    machine.systemctl(&["start", "bot"]).succeeded();
    service.await_ready();
    assert_eq!(service.say("query"), "100");
    machine.systemctl(&["stop", "bot"]).succeeded();
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    let detach = ["detach", "--unit", "bot", "--reason", "gone for good"];
    machine.interceptor(&installation, &detach).succeeded();
    assert!(!folder(drop_in), "nothing of it stays");
    wait_until("the record of it", PATIENCE, || {
        let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).text();
        audit.contains("gone for good") && audit.contains("the test is over")
    });
    drop(machine);
    installation.finish();
}

/// The number of sockets that systemd holds for the daemon.
fn in_store(machine: &Machine) -> String {
    let words = ["show", "--property=NFileDescriptorStore", "--value", "interceptor"];
    machine.systemctl(&words).succeeded().stdout.trim().to_owned()
}

#[test]
fn a_daemon_that_is_a_unit_has_its_listeners_held_by_systemd() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).write();
    let (program, root) = (places::interceptor(), installation.root());
    let log = installation.root().join("daemon.log");
    let unit = format!(
        "ExecStart={} --root {} daemon\nRestart=always\nRestartSec=1\nKillMode=mixed\nNotifyAccess=main\n\
         FileDescriptorStoreMax=256\nStandardError=append:{}\n",
        program.display(),
        root.display(),
        log.display()
    );
    let machine = Machine::start(&installation, &[("interceptor.service", &unit)]);
    let serves = || machine.interceptor(&installation, &["status"]).status.success();
    let start = || {
        machine.systemctl(&["start", "interceptor"]).succeeded();
        wait_until("the daemon to serve", PATIENCE, serves);
    };
    start();
    assert_eq!(in_store(&machine), "0");

    let script = installation.script("contained.py", CONTAINED);
    let mut command = machine.command(Path::new("/bin/sh"));
    command.args(["-c", "cd \"$0\" && exec \"$@\""]).arg(installation.work()).arg(&program);
    command.arg("--root").arg(root).args(["run", "--agent", "release-bot", "--user", &agent_user(), "--"]);
    let mut agent = Talker::start(with(command, &["/usr/bin/python3", &script]));
    assert_eq!(agent.say("query", PATIENCE), "100");
    let slice = installation.places().slice();
    let process = leaks::processes().into_iter().find(|process| process.cgroup.contains(&slice));
    let process = process.expect("a captured process").pid;
    let listening = Listening { process, tcp: 61_443, dns: 61_453 };
    let before = listening.sockets();
    assert!(before.len() >= 4, "{before:?}");
    assert_eq!(in_store(&machine), before.len().to_string());
    assert_eq!(installation.holder(), None, "systemd holds");

    for words in [&["restart", "interceptor"][..], &["kill", "--signal=KILL", "interceptor"]] {
        let daemon = installation.roles();
        machine.systemctl(words).succeeded();
        let gone = || daemon.iter().all(|one| !installation.roles().contains(one));
        wait_until("the daemon to be gone", PATIENCE, gone);
        assert_eq!(listening.sockets(), before, "they are held");
        wait_until("the next daemon to serve", PATIENCE, serves);
        assert_eq!(agent.say("query", PATIENCE), "100");
        assert_eq!(listening.sockets(), before, "they are the same");
        assert_eq!(in_store(&machine), before.len().to_string());
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(!said.contains("made anew") && said.contains("are taken up"), "{said}");

    // Whoever stops it for good gives them up; the next daemon makes new ones.
    machine.systemctl(&["stop", "interceptor"]).succeeded();
    wait_until("systemd to let go", PATIENCE, || listening.sockets().is_empty());
    start();
    assert_eq!(agent.say("query", PATIENCE), "100");
    assert!(fs::read_to_string(&log).unwrap_or_default().contains("made anew: nobody holds any"));
    drop(agent);
    wait_until("systemd to hold nothing", PATIENCE, || in_store(&machine) == "0");
    machine.systemctl(&["stop", "interceptor"]).succeeded();
    drop(machine);
    installation.finish();
}

fn with(mut command: std::process::Command, words: &[&str]) -> std::process::Command {
    command.args(words);
    command
}
