//! What is captured is let go of for a while with no daemon there, and is captured again by nobody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use interceptor_tests::{
    Cgroup, Installation, Job, Setup, Talker,
    cgroup::put,
    places,
    process::{PATIENCE, command, run, wait_until},
    sniffer::Sniffer,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    attach::LONG,
    attach_cgroup::attach,
    belt::{attach_process, reaches_nothing, sender, told},
};

pub(crate) const ECHO: &str = "import socket, socketserver, sys, threading\n\
                    class Echo(socketserver.BaseRequestHandler):\n\
                    \x20   def handle(self):\n\
                    \x20       while data := self.request.recv(100): self.request.sendall(data)\n\
                    class Server(socketserver.ThreadingTCPServer):\n\
                    \x20   address_family = socket.AF_INET6\n\
                    \x20   daemon_threads = True\n\
                    server = Server(('::', 80), Echo)\n\
                    threading.Thread(target=server.serve_forever, daemon=True).start()\n\
                    print('ready', flush=True)\n\
                    sys.stdin.read()\n";

/// A server beyond the host.
pub(crate) fn server(sniffer: &Sniffer) -> Talker {
    let namespace = format!("--net=/run/netns/{}", sniffer.world());
    Talker::start(command(&["nsenter", &namespace, "/usr/bin/python3", "-c", ECHO]))
}

pub(crate) fn kill_daemon(installation: &Installation) {
    let daemon = installation.daemon().expect("it runs");
    kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL).expect("our daemon");
    wait_until("its roles to be gone", PATIENCE, || installation.roles().is_empty());
}

/// A host with a server beyond it, and two processes that are attached.
struct Stage {
    sniffer: Sniffer,
    installation: Installation,
    server: Talker,
    cgroup: Cgroup,
    /// One that was moved, and one in a cgroup that is captured where it is; their runs in this order.
    moved: Talker,
    inside: Talker,
    runs: [String; 2],
}

impl Stage {
    fn set() -> Self {
        let sniffer = Sniffer::new();
        let installation = Setup::empty().in_namespace(sniffer.namespace()).start();
        let server = server(&sniffer);
        let cgroup = Cgroup::make(&installation, "kept");
        let (moved, inside) = (sender(&installation), sender(&installation));
        put(&inside, &cgroup.0);
        let runs = [attach_process(&installation, &moved), attach(&installation, &cgroup.0)];
        Self { sniffer, installation, server, cgroup, moved, inside, runs }
    }
}

/// A folder on a disk that is full.
struct Full(PathBuf);

impl Full {
    fn at(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let path = folder.to_str().expect("a plain path");
        run(command(&["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "none", path])).succeeded();
        let full = Self(folder.to_owned());
        let _ = fs::write(folder.join("filler"), [0; 1 << 16]);
        full
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn with_the_daemon_dead_a_release_opens_for_its_time_and_no_longer() {
    let Stage { sniffer, mut installation, server: _server, cgroup, mut moved, mut inside, runs } =
        Stage::set();
    let launched = Job::start(installation.captured("release-bot", &["sleep", "600"]), "");
    wait_until("the run to be listed", PATIENCE, || installation.runs().len() == 3);
    let own =
        installation.runs().iter().find(|run| run["guarantee"] == "structural").expect("it")["run"].clone();
    let own = own.as_str().expect("a run").to_owned();
    kill_daemon(&installation);
    for one in [&mut moved, &mut inside] {
        reaches_nothing(one, "with the daemon dead everything is refused");
    }
    let _ = sniffer.frames();

    let [run_moved, run_inside] = &runs;
    let release = |run: &str, time: &str| {
        installation.interceptor(&["release", run, "--for", time, "--reason", "the outage of today"])
    };
    let root = installation.root().to_str().expect("a plain path");
    let mut nobody = installation.outside(&places::tool("setpriv"));
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(places::interceptor());
    nobody.args(["--root", root, "release", run_moved, "--for", "1m", "--reason", "mine"]);
    run(nobody).failed().says("sudo");
    let mut captured = installation.outside(&places::tool("sh"));
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.0.display());
    captured.args(["-c", &enter, "sh"]).arg(places::interceptor());
    captured.args(["--root", root, "release", run_inside, "--for", "1m", "--reason", "mine"]);
    run(captured).failed().says("captured");
    release(&own, "1m").failed().says("no network but through it");
    release("r0000000000", "1m").failed().says("nothing that was attached");
    let full = Full::at(&installation.places().releases());
    release(run_moved, "1m").failed().says("could not be noted");
    drop(full);
    reaches_nothing(&mut moved, "what cannot be noted is not let go of");
    sniffer.saw_nothing("what is not let go of");

    release(run_moved, "1s").succeeded();
    release(run_moved, "25s").succeeded().says("captured again");
    // What was said last holds.
    std::thread::sleep(Duration::from_millis(1500));
    installation.interceptor(&["ps"]).succeeded().says("released by the kernel side until");
    for (word, said) in [("datagram4", "sent"), ("datagram6", "sent"), ("dial6", "heard"), ("keep", "heard")]
    {
        assert_eq!(moved.say(word, LONG), said, "{word} goes out as it is");
    }
    assert!(!sniffer.frames().is_empty());
    reaches_nothing(&mut inside, "nobody has let go of this one");
    wait_until("the end of it", LONG, || moved.say("dial4", LONG) != "heard");
    let _ = sniffer.frames();
    reaches_nothing(&mut moved, "it is captured again, and no daemon did it");
    assert_eq!(moved.say("kept", LONG), "TimeoutError", "and so is what it opened");
    sniffer.saw_nothing("what is captured again");

    installation.start();
    let noted = "as noted by root: the outage of today";
    wait_until("the record of it", PATIENCE, || told(&installation, run_moved, noted) == 2);
    assert_eq!(told(&installation, run_inside, noted), 0);
    let notes = || fs::read_dir(installation.places().releases()).expect("the notes' folder").count();
    wait_until("the note to be gone", PATIENCE, || notes() == 0);
    reaches_nothing(&mut moved, "the daemon captures as ever");
    for run in &runs {
        installation.interceptor(&["detach", run, "--reason", "the test is over"]).succeeded();
    }
    drop((moved, inside, launched, cgroup));
    // What it opened sent on, into the belt.
    installation.finish_after_alarms();
}

/// A daemon that comes meanwhile leaves it as root said, and tells of each connection.
#[test]
fn a_daemon_that_comes_during_a_release_records_what_goes_out() {
    let Stage { sniffer: _sniffer, mut installation, server: _server, cgroup, mut moved, mut inside, runs } =
        Stage::set();
    kill_daemon(&installation);
    installation.interceptor(&["release", "--all", "--for", "40s", "--reason", "the outage"]).succeeded();
    installation.start();
    for name in &runs {
        let noted = || told(&installation, name, "as noted by root: the outage") == 1;
        wait_until("the record of it", PATIENCE, noted);
    }
    for (one, name) in [(&mut moved, &runs[0]), (&mut inside, &runs[1])] {
        assert_eq!(one.say("dial4", LONG), "heard");
        wait_until("the record to tell", PATIENCE, || {
            told(&installation, name, "TCP to 192.0.2.1:80 went out as it was") == 1
        });
    }
    let listed = installation.runs();
    assert!(listed.iter().all(|run| run["released_until"].is_i64()), "{listed:?}");
    for (one, name) in [(&mut moved, &runs[0]), (&mut inside, &runs[1])] {
        wait_until("the end of it", 2 * LONG, || one.say("dial4", LONG) != "heard");
        wait_until("the record to say so", PATIENCE, || told(&installation, name, "captured again") == 1);
        reaches_nothing(one, "the daemon captures as ever");
        installation.interceptor(&["detach", name, "--reason", "the test is over"]).succeeded();
    }
    drop((moved, inside, cgroup));
    installation.end();
}
