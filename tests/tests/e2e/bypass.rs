//! Ways around capture: each ends at nothing, and a sniffer beyond the host sees no packet.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Stdio,
    time::Duration,
};

use interceptor_tests::{
    Bed, Installation, Job, Setup, Talker,
    bypass::{self, Mode, listeners},
    leaks, places,
    process::{self, PATIENCE, wait_until},
    sniffer::Sniffer,
};
use nix::sys::signal::{Signal, kill};

/// The processes of a run whose command line has `part`, the launcher left out.
fn captured_pid(installation: &Installation, part: &str) -> Option<u32> {
    let slice = installation.places().slice();
    leaks::processes()
        .into_iter()
        .find(|process| process.cgroup.contains(&slice) && process.command.starts_with(part))
        .map(|process| process.pid)
}

/// A run that only sleeps, so that its namespace can be looked at.
fn sleeper(installation: &Installation) -> (Job, u32) {
    let job = Job::start(installation.captured("release-bot", &["sleep", "600"]), "");
    let mut pid = None;
    wait_until("the captured sleep", PATIENCE, || {
        pid = captured_pid(installation, "sleep 600");
        pid.is_some()
    });
    (job, pid.unwrap_or_default())
}

/// The tables of docs/guarantees.md, from runs of now.
fn closed_or_known(mode: Mode) {
    let report = bypass::perform(mode);
    let faults = report.faults();
    assert!(faults.is_empty(), "{faults:#?}\n{}", bypass::text(&report, &bypass::Facts::find()));
}

#[test]
fn every_way_around_a_run_is_closed_or_known() {
    closed_or_known(Mode::Launched);
}

#[test]
fn every_way_around_an_attached_run_is_closed_or_known() {
    closed_or_known(Mode::Attached);
}

#[test]
fn every_way_around_a_cgroup_captured_in_its_place_is_closed_or_known() {
    closed_or_known(Mode::Enclosed);
}

#[test]
fn a_run_has_no_rights_and_its_own_view() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let finished = installation.run("release-bot", &["cat", "/proc/self/status"]).succeeded();
    for line in ["NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"] {
        assert!(finished.stdout.contains(line), "{finished}");
    }
    let view = "ls /run/user /run/docker.sock /run/dbus 2>&1; ls -A $1/etc $1/var $1/run; cat /proc/self/net/route; \
                ls /proc | grep -c '^[0-9]'";
    let words = ["sh", "-c", view, "sh", &installation.root().display().to_string()];
    let finished = installation.run("release-bot", &words).succeeded();
    for hidden in ["resources.toml", "control.sock", "launch.sock", "audit"] {
        assert!(!finished.text().contains(hidden), "{hidden} is seen: {finished}");
    }
    let processes: u32 = finished.stdout.lines().last().and_then(|count| count.parse().ok()).unwrap_or(99);
    assert!(processes < 8, "only the run's own processes are seen: {finished}");
    installation.finish();
}

/// Row 24: a socket on standard input, output or error is no way out.
#[test]
fn a_socket_on_a_standard_stream_is_not_inherited() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("own listener");
    let (mut far, _) = listener.accept().expect("own stream");
    let mut command =
        installation.captured("release-bot", &["sh", "-c", "readlink /proc/self/fd/0; echo x >&0"]);
    let socket: OwnedFd = stream.into();
    command.stdin(Stdio::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let output = command.output().expect("run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("socket:"), "the run holds a socket: {said}");
    far.set_nonblocking(true).expect("own stream");
    let mut buffer = [0; 8];
    assert!(!matches!(far.read(&mut buffer), Ok(1..)), "something came through the socket");
    installation.finish();
}

/// Row 43: a database's own socket is no way around, wherever it lies.
#[test]
fn local_sockets_of_databases_are_hidden() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let folder = bed.socket_folder().display().to_string();
    let port = bed.port().to_string();
    assert_eq!(bed.admin("orders", "SELECT 'outside it answers'"), "outside it answers");
    let words = [
        "psql",
        "-X",
        "-h",
        &folder,
        "-p",
        &port,
        "-U",
        "postgres",
        "-d",
        "orders",
        "-c",
        "DROP TABLE users",
    ];
    installation.run("release-bot", &words).failed();
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
    installation.finish();
}

/// Row 17: nobody outside reaches a listener of the run.
#[test]
fn a_listener_of_the_run_is_its_own() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = "import socket, time\ns = socket.create_server((\"127.0.0.1\", 0))\nport = s.getsockname()[1]\n\
                  c = socket.create_connection((\"127.0.0.1\", port))\nown = s.accept()\ns.setblocking(False)\n\
                  print('ready', flush=True)\ninput()\nprint(port, c.getpeername()[1], flush=True)\n\
                  input()\ntry: print(s.accept())\nexcept BlockingIOError: print('nobody', flush=True)\n";
    let path = installation.script("listen.py", script);
    let mut run = Talker::start(installation.captured("release-bot", &["/usr/bin/python3", &path]));
    let said = run.say("", PATIENCE);
    let ports: Vec<u16> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(ports.len(), 2, "{said}");
    assert_eq!(ports[0], ports[1], "the run reaches its own listener, and sees its own peer: {said}");
    // Somebody else of this host may have the same port: what counts is who comes to the run's.
    let _ = TcpStream::connect(("127.0.0.1", ports[0]));
    assert_eq!(run.say("", PATIENCE), "nobody");
    drop(run);
    installation.finish();
}

/// Row 58: an uncaptured process that dials the proxy's listener is turned away.
#[test]
fn the_proxy_serves_nobody_else() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let (job, pid) = sleeper(&installation);
    let ports = listeners(pid);
    assert!(!ports.is_empty(), "listeners inside the run");
    for port in ports {
        let script = format!(
            "import socket\ns = socket.create_connection(('127.0.0.1', {port}), 5)\ns.settimeout(10)\n\
             s.send(bytes([0, 0, 0, 8, 4, 210, 22, 47]))\n\
             try: print('got', s.recv(10))\nexcept ConnectionResetError: print('got', b'')\n"
        );
        let words = ["nsenter", "-n", "-t", &pid.to_string(), "/usr/bin/python3", "-c", &script];
        let finished = process::run(process::command(&words));
        assert!(finished.stderr.contains("Error") || finished.stdout.contains("got b''"), "{finished}");
    }
    job.signal(Signal::SIGTERM);
    job.finish(PATIENCE);
    installation.finish();
}

/// Row 51: a proxy that is dead or stopped refuses, and nothing leaves.
#[test]
fn a_dead_or_stopped_daemon_refuses() {
    let sniffer = Sniffer::new();
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).in_namespace(sniffer.namespace()).start();
    let script = installation.script(
        "again.py",
        "import socket, sys, time\n\
         for line in sys.stdin:\n\
         \x20   try:\n\
         \x20       socket.create_connection(('192.0.2.1', 443), 8).recv(1)\n\
         \x20       print('closed', flush=True)\n\
         \x20   except OSError as error:\n\
         \x20       print(type(error).__name__, flush=True)\n",
    );
    let mut command = installation.captured("release-bot", &["/usr/bin/python3", &script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().expect("run");
    let mut stdin = child.stdin.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let mut ask = move || {
        stdin.write_all(b"go\n").expect("the run lives");
        lines.next().and_then(Result::ok).unwrap_or_default()
    };
    let alive = ask();
    assert!(alive == "closed" || alive.ends_with("Error"), "{alive}");
    let daemon = installation.roles();
    for (_, pid) in &daemon {
        let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP);
    }
    // The heartbeat is missed within seconds: from then on the kernel refuses at once.
    std::thread::sleep(Duration::from_secs(5));
    let stopped = ask();
    assert!(stopped.ends_with("Error") && stopped != "TimeoutError", "it waited for an answer: {stopped}");
    for (_, pid) in &daemon {
        let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    std::thread::sleep(Duration::from_secs(1));
    let dead = ask();
    assert!(dead.ends_with("Error"), "{dead}");
    sniffer.saw_nothing("with the daemon dead");
    let listed = installation.interceptor(&["ps"]);
    assert!(listed.text().contains("dead"), "{listed}");
    let run = listed
        .stdout
        .split_whitespace()
        .find(|word| word.len() == 11 && word.starts_with('r'))
        .unwrap_or_default();
    installation.interceptor(&["kill", run]).succeeded();
    let _ = child.wait();
    installation.start();
    installation.finish();
}

/// The control socket answers nobody who is captured.
#[test]
fn a_captured_process_may_not_control() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let binary = places::interceptor().display().to_string();
    let root = installation.root().display().to_string();
    for words in [&["status"][..], &["ps"], &["reload"]] {
        let command: Vec<_> = [&[binary.as_str(), "--root", &root][..], words].concat();
        let finished = installation.run("release-bot", &command);
        assert!(!finished.status.success(), "{finished}");
    }
    installation.finish();
}

/// What a user can try before trusting it.
#[test]
fn the_self_test_finds_the_host_closed() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let finished = installation.interceptor(&["--json", "doctor", "--self-test"]).succeeded();
    let tried: Vec<serde_json::Value> = serde_json::from_str(&finished.stdout).expect("JSON");
    let in_state = |state: &str| tried.iter().filter(|one| one["state"] == state).count();
    assert!(tried.len() > 15 && in_state("OPEN") == 0, "{finished}");
    assert!(in_state("closed") > 12, "most of it is real on this host: {finished}");
    installation.finish();
}

/// None of the daemon's processes can get more than it was given.
#[test]
fn the_roles_are_filtered_and_have_no_rights() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let roles = installation.roles();
    let filtered = ["Seccomp:\t2", "NoNewPrivs:\t1"];
    let powerless = ["CapBnd:\t0000000000000000", "CapPrm:\t0000000000000000"];
    for (role, lines) in [
        ("helper", &filtered[..]),
        ("proxy", &[filtered, powerless].concat()),
        ("keeper", &[filtered, powerless].concat()),
    ] {
        let (_, pid) = roles.iter().find(|(found, _)| found == role).expect("a role");
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a live process");
        let status = of("status");
        for line in lines {
            assert!(status.contains(line), "{role}: {status}");
        }
        assert!(of("limits").contains("Max core file size        0"), "{role}");
    }
    installation.finish();
}
