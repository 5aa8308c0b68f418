//! Services of a real systemd: captured while they run, and before each start.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use interceptor_tests::{
    Bed, Installation, Setup,
    installation::agent_user,
    machine::Machine,
    places,
    process::{Finished, PATIENCE, run, wait_until},
};
use nix::{sys::stat::Mode, unistd::mkfifo};

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
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).text();
    assert!(audit.contains("gone for good") && audit.contains("the test is over"), "{audit}");
    drop(machine);
    installation.finish();
}

fn with(mut command: std::process::Command, words: &[&str]) -> std::process::Command {
    command.args(words);
    command
}
