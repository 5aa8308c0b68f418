//! The launcher's pieces against the real kernel, without a daemon: a shell script is executed in a finished run,
//! and says what it sees. The launcher wants a process with one busy thread, so each test runs this test binary
//! again, as `inside`, which is no test on its own.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixListener, unix::net::UnixStream},
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::pty::openpty;

use super::*;
use crate::helper::cgroup::Tree;

const SCRIPT: &str = "INTERCEPTOR_TEST_SCRIPT";
const ROOT: &str = "INTERCEPTOR_TEST_ROOT";
const USER: &str = "INTERCEPTOR_TEST_USER";

/// A certificate, in PEM.
pub(super) fn authority() -> String {
    let key = rcgen::KeyPair::generate().expect("key");
    rcgen::CertificateParams::default().self_signed(&key).expect("certificate").pem()
}

/// One file that is laid over the distribution's bundle, and a variable that names it.
pub(super) fn trust(certificate: &str, folder: &Path) -> Trust {
    Trust {
        files: vec![TrustFile {
            name: "bundle.pem".to_owned(),
            over: crate::tls::trust::bundle_paths(),
            contents: certificate.into(),
        }],
        environment: vec![(
            "SSL_CERT_FILE".to_owned(),
            folder.join("bundle.pem").to_string_lossy().into_owned(),
        )],
    }
}

#[test]
#[ignore = "the inner half of the other tests"]
fn inside() {
    let Ok(script) = env::var(SCRIPT) else { return };
    let root = tempfile::tempdir().expect("folder");
    let places = Places::under(env::var_os(ROOT).as_deref().map_or(root.path(), Path::new));
    std::fs::create_dir_all(places.configuration()).expect("folder");
    std::fs::write(places.configuration().join("secret"), "s").expect("file");
    let tree = Tree::find(&places).expect("cgroup2");
    std::fs::create_dir(tree.slice()).expect("slice");
    let run = RunId::from_random(std::process::id().into());
    let cgroup = tree.create(run).expect("cgroup");
    let (helper, other) = channel::pair::<LaunchRequest, LaunchAnswer>().expect("pair");
    let served = std::thread::spawn(move || {
        let asked = other.receive().expect("namespaces");
        assert!(matches!(asked, (LaunchRequest::Namespaces, descriptors) if descriptors.len() == 2));
        other.send(&LaunchAnswer::Ready, &[]).expect("send");
    });
    let options = Options {
        places: places.clone(),
        agent: None,
        mode: Mode::Enforce,
        reason: None,
        user: None,
        capabilities: Vec::new(),
        elevation: Elevation::Refused,
        profile: Profile::Plain,
        command: ["sh", "-c", &script].map(OsString::from).to_vec(),
        daemon: Vec::new(),
        trust,
    };
    let account = preflight::account(env::var(USER).ok().as_deref().or(Some("nobody"))).expect("account");
    let begun = Begun {
        run,
        agent: AgentIdentity { name: AgentName::unknown(), owner: None, groups: Vec::new() },
        keeps: BTreeSet::from(["KEPT_TOKEN".to_owned()]),
        authority: authority(),
        cgroup: File::open(&cgroup).expect("cgroup").into(),
    };
    let streams = Streams::of_caller().expect("streams");
    std::fs::create_dir_all(places.runtime()).expect("folder");
    let (environment, trust) = environment_of(&options, &account, &begun);
    let mut plan =
        plan(&options, &account, Path::new("/bin/sh"), run, environment, trust, &streams).expect("plan");
    plan.probe = false;
    plan.folder = "/".into();
    let status = enter(helper, &places, &begun.cgroup, plan, streams, None);
    tree.remove(run, Duration::from_secs(5)).expect("the cgroup goes");
    std::fs::remove_dir(tree.slice()).expect("the slice goes");
    drop(root);
    let status = status.unwrap_or_else(|error| {
        eprintln!("inside: {}", crate::telemetry::chain(&error));
        error.status()
    });
    if status != OWN_FAILURE {
        served.join().expect("helper");
    }
    std::process::exit(status.into());
}

fn again(script: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command
        .args(["--exact", "launch::tests::inside", "--ignored", "--nocapture"])
        .env(SCRIPT, format!("echo BEGIN; {script}"))
        .env("GITHUB_TOKEN", "real-secret")
        .env("KEPT_TOKEN", "kept-secret")
        .env("SSH_AUTH_SOCK", "/tmp/agent.sock")
        .stdin(Stdio::null());
    command
}

/// The status and what the script wrote.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = text
        .split_once("BEGIN")
        .map_or_else(|| format!("nothing; errors: {errors}"), |(_, said)| said.to_owned());
    (output.status.code(), said.trim().replace('\r', ""))
}

fn in_run(script: &str) -> (Option<i32>, String) {
    said(&again(script).output().expect("test binary"))
}

#[test]
fn the_agent_has_no_privilege_and_no_way_to_one() {
    let (status, said) = in_run("grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|SigBlk)' /proc/self/status");
    assert_eq!(status, Some(0), "{said}");
    let mut lines: Vec<(String, String)> = said
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    lines.sort();
    let nobody = "65534 65534 65534 65534";
    for (name, value) in lines {
        let expected = match name.as_str() {
            "Uid" | "Gid" => nobody,
            "Groups" => "",
            "NoNewPrivs" => "1",
            _ => "0000000000000000",
        };
        assert_eq!(value, expected, "{name}");
    }
}

#[test]
fn root_without_capabilities_cannot_reach_the_host() {
    let script = "id -u; grep CapBnd /proc/self/status; mount -t tmpfs x /mnt && echo mounted; \
                  echo 1 > /proc/sys/vm/drop_caches && echo sysctl; echo $$ > /sys/fs/cgroup/cgroup.procs && echo moved; \
                  echo b > /proc/sysrq-trigger && echo sysrq; mkdir /sys/fs/cgroup/x && echo cgroup; \
                  kill -9 1; test -e /dev/vda && echo disk; cat /proc/1/environ && echo environ; true";
    let output = again(script).env(USER, "root").output().expect("test binary");
    let (status, said) = said(&output);
    assert_eq!((status, said.as_str()), (Some(0), "0\nCapBnd:\t0000000000000000"));
}

#[test]
fn the_network_is_loopback_and_a_void() {
    let (status, said) = in_run(
        "ls /sys/class/net | tr '\\n' ' '; awk 'NR>1 && $2==\"00000000\" {print $1}' /proc/net/route; \
         grep -c 20010db8000000000000000000000002 /proc/net/if_inet6; cat /sys/class/net/eth0/operstate; \
         awk '$4!=\"40\" && $4!=\"80\" && $6==\"lo\" {print}' /proc/net/if_inet6 | wc -l",
    );
    assert_eq!((status, said.as_str()), (Some(0), "eth0 lo void0 eth0\n1\nup\n1"));
}

#[test]
fn names_resolve_with_addrconfig_and_nothing_answers() {
    let (_, said) =
        in_run("cat /etc/resolv.conf; grep -c '^hosts: files dns$' /etc/nsswitch.conf; head -1 /etc/hosts");
    assert_eq!(said, "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n1\n127.0.0.1 localhost");
}

#[test]
fn doors_to_the_host_are_hidden() {
    let folder = tempfile::Builder::new().prefix("launch-door").tempdir_in("/var").expect("folder");
    let theirs = tempfile::NamedTempFile::new_in("/tmp").expect("file");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    let socket = folder.path().join("host.sock");
    let _listener = UnixListener::bind(&socket).expect("bind");
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
    let script = format!(
        "ls -A /run | tr '\\n' ' '; test -S {0} && echo socket; test -c {0} && echo covered; \
         ls -A /run/user; ls -A {1}; \
         ls -A /sys/fs/bpf; ls -A /sys/kernel/debug; ls /dev | tr '\\n' ' '; ls /proc | grep -c '^[0-9]'; \
         touch /run/x /dev/x /sys/fs/cgroup/x 2>/dev/null && echo writable;          test -e {2} && echo theirs; touch /tmp/x /var/tmp/x || echo no temporary files; true",
        socket.display(),
        folder.path().join("etc").display(),
        theirs.path().display(),
    );
    let output = again(&script).env(ROOT, folder.path()).output().expect("test binary");
    let (status, said) = said(&output);
    assert_eq!(status, Some(0));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("interceptor-run lock shm user covered"), "{said}");
    let devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert!(lines.next().is_some_and(|line| line.starts_with(devices)), "{said}");
    assert_eq!(lines.next(), None, "{said}");
}

/// As on a kernel without hooks for them: there is no kernel side at all in here.
#[test]
fn unix_sockets_lead_to_the_runs_own_without_hooks() {
    const CLIENT: &str = r#"
import os, socket, sys, time
def connected(path):
    try: return socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error: return error.strerror
own = socket.socket(socket.AF_UNIX)
own.bind("/tmp/own")
own.listen()
print(connected("/tmp/own"))
own = socket.socket(socket.AF_UNIX)
own.bind("\0own")
own.listen()
print(connected("\0own"))
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
    try: socket.socket(socket.AF_UNIX, kind)
    except PermissionError: print("none")
    try: socket.socketpair(socket.AF_UNIX, kind)
    except PermissionError: print("no pair")
while not os.path.exists(sys.argv[1]): time.sleep(0.05)
print(connected(sys.argv[1]))
"#;
    let folder = tempfile::Builder::new().prefix("launch-later").tempdir_in("/var").expect("folder");
    let open = |path: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("mode");
    };
    open(folder.path(), 0o755);
    let (made, later) = (folder.path().join("made"), folder.path().join("later"));
    let client = folder.path().join("client.py");
    std::fs::write(&client, CLIENT).expect("file");
    let script = format!("echo here; exec /usr/bin/python3 {} {}", client.display(), later.display());
    let mut child = again(&script).stdout(Stdio::piped()).spawn().expect("test binary");
    let mut output = child.stdout.take().expect("piped");
    let mut text = String::new();
    while !text.contains("here\n") {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).expect("read"), 1, "{text}");
        text.push(byte[0].into());
    }
    let listener = UnixListener::bind(&made).expect("bind");
    open(&made, 0o777);
    std::fs::rename(&made, &later).expect("rename");
    text.clear();
    output.read_to_string(&mut text).expect("read");
    assert!(child.wait().expect("wait").success(), "{text}");
    assert_eq!(text, "None\nNone\nnone\nno pair\nnone\nno pair\nConnection refused\n");
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    UnixStream::connect(&later).expect("it is there");
}

#[test]
fn secrets_are_placeholders_and_trust_is_there() {
    let (_, said) = in_run(
        "echo $GITHUB_TOKEN; echo $KEPT_TOKEN; echo sock=$SSH_AUTH_SOCK; echo $SSL_CERT_FILE; \
         grep -c BEGIN $SSL_CERT_FILE; cmp $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt && echo laid; \
         tr '\\0' '\\n' < /proc/self/environ | grep -c real-secret; \
         tr '\\0' '\\n' < /proc/1/environ",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("interceptor-placeholder-r") && lines[0].ends_with("-GITHUB_TOKEN"),
        "{said}"
    );
    assert_eq!(
        lines[1..],
        ["kept-secret", "sock=", "/run/interceptor-run/bundle.pem", "1", "laid", "0"],
        "{said}"
    );
}

#[test]
fn no_descriptor_but_the_standard_ones_is_inherited() {
    let (_, said) = in_run("ls -l /proc/$$/fd | awk 'NR>1 {print $9}' | tr '\\n' ' '; cat /proc/$$/cgroup");
    let (descriptors, cgroups) =
        said.split_once(' ').map_or(("", ""), |_| said.split_at(said.rfind("2 ").unwrap_or(0) + 2));
    assert_eq!(descriptors.trim(), "0 1 2", "{said}");
    assert!(cgroups.lines().any(|line| line == "0::/"), "{said}");
}

#[test]
fn the_exit_status_is_the_commands() {
    assert_eq!(in_run("exit 7").0, Some(7));
    assert_eq!(in_run("kill -TERM $$").0, Some(143));
    assert_eq!(in_run("(sleep 1000 &) ; exit 3").0, Some(3));
}

#[test]
fn a_signal_reaches_the_agent() {
    let mut command = again("trap 'echo got; exit 9' TERM; echo here; while :; do sleep 0.05; done");
    // The launcher has one thread; the test binary has two, and the other one must not take the signal.
    syscalls::before_exec(&mut command, || Ok(relay::forwarded().thread_block()?));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("test binary");
    let mut output = child.stdout.take().expect("output");
    let mut text = String::new();
    while !text.contains("here") {
        let mut chunk = [0; 256];
        let length = output.read(&mut chunk).expect("read");
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("pid"));
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("kill");
    output.read_to_string(&mut text).expect("read");
    assert!(text.ends_with("got\n"), "{text}");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
}

#[test]
fn a_launcher_that_is_killed_takes_the_run_along() {
    let mark = format!("4{:07}", std::process::id());
    let mut child =
        again(&format!("echo here; exec sleep {mark}")).stdout(Stdio::piped()).spawn().expect("test binary");
    let mut output = child.stdout.take().expect("output");
    let mut text = String::new();
    while !text.contains("here") {
        let mut chunk = [0; 256];
        let length = output.read(&mut chunk).expect("read");
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    // The pipe ends when the last process of the run is gone.
    output.read_to_string(&mut text).expect("read");
    sweep(child.id());
}

/// Removes the cgroup that a killed `inside` could not.
fn sweep(pid: u32) {
    let places = Places::system();
    let root = Tree::find(&places).expect("cgroup2").root().to_owned();
    let run = RunId::from_random(pid.into()).to_string();
    for slice in std::fs::read_dir(root).expect("cgroups").flatten() {
        let mine = slice.path().join(&run);
        if mine.is_dir() {
            for _ in 0..200 {
                if std::fs::remove_dir(&mine).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            std::fs::remove_dir(slice.path()).expect("slice");
        }
    }
}

#[test]
fn a_socket_as_standard_stream_is_replaced_by_a_pipe() {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    let output = OwnedFd::from(theirs);
    let mut child = again("cat; stat -Lc %F /proc/self/fd/0 /proc/self/fd/1")
        .stdin(output.try_clone().expect("clone"))
        .stdout(output)
        .spawn()
        .expect("test binary");
    let mut ours = ours;
    ours.write_all(b"through\n").expect("write");
    ours.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let mut text = String::new();
    ours.read_to_string(&mut text).expect("read");
    assert!(text.ends_with("BEGIN\nthrough\nfifo\nfifo\n"), "{text}");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn a_terminal_is_the_agents_own() {
    let pty = openpty(None, None).expect("pty");
    let mut command = again(
        "tty; echo tests >/dev/tty; test -t 0 -a -t 1 -a -t 2 && echo all; read line; echo [$line]; stty size",
    );
    command
        .stdin(pty.slave.try_clone().expect("clone"))
        .stdout(pty.slave.try_clone().expect("clone"))
        .stderr(pty.slave);
    let mut child = command.spawn().expect("test binary");
    drop(command);
    let mut master = File::from(pty.master);
    let mut text = String::new();
    let mut chunk = [0; 4096];
    let mut typed = false;
    while let Ok(length @ 1..) = master.read(&mut chunk) {
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
        // Before it reads, the echo would stand anywhere among what it says.
        if !typed && text.contains("all\r\n") {
            master.write_all(b"typed\r").expect("write");
            typed = true;
        }
    }
    assert_eq!(child.wait().expect("wait").code(), Some(0), "{text}");
    let text = text.replace('\r', "");
    let said = text.split_once("BEGIN\n").map(|(_, said)| said).unwrap_or(&text);
    assert!(said.contains("/dev/pts/0\ntests\nall\n"), "{text}");
    assert!(said.contains("[typed]\n0 0\n"), "{text}");
}

#[test]
fn what_cannot_be_executed_says_so() {
    let (status, _) = in_run("exec /no/such/program");
    assert_eq!(status, Some(127));
}
