//! The `ci` profile: containers of a run's, by a real Docker engine.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
    process::{Command, Stdio},
};

use interceptor_tests::{
    Bed, Installation, Job, Setup, cgroup, leaks, places,
    process::{Finished, PATIENCE, run, wait_until},
};
use nix::sys::signal::Signal;
use serde_json::json;

const JOB: &str = include_str!("../clients/ci.sh");

/// An engine of its own, with an image `base` of the host's programs.
struct Engine {
    folder: tempfile::TempDir,
    daemon: Option<Job>,
    mark: String,
}

impl Engine {
    fn start(installation: &Installation) -> Self {
        let folder = places::scratch("engine");
        let programs = places::docker();
        let runtime = json!({
            "path": places::interceptor(),
            "runtimeArgs": [
                "--root", installation.root(), "oci-runtime", "--data-root", folder.path().join("data"), "--",
            ],
        });
        let settings = json!({
            "runtimes": { "interceptor": runtime },
            "hosts": [format!("unix://{}", folder.path().join("docker.sock").display())],
            "data-root": folder.path().join("data"),
            "exec-root": folder.path().join("exec"),
            "pidfile": folder.path().join("docker.pid"),
            "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false,
            "log-level": "error",
        });
        fs::write(folder.path().join("daemon.json"), settings.to_string()).expect("own folder");
        // What it mounts goes with it.
        let mut command = Command::new(places::tool("unshare"));
        command.args(["--mount", "--propagation", "slave"]).arg(programs.join("usr/sbin/dockerd"));
        command.arg("--config-file").arg(folder.path().join("daemon.json"));
        let path = std::env::var("PATH").unwrap_or_default();
        let own = format!("{0}/usr/bin:{0}/usr/sbin:{path}:/usr/sbin:/sbin", programs.display());
        let libraries = programs.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        command.env("PATH", own).env("LD_LIBRARY_PATH", libraries).env("HOME", folder.path());
        command.env("TMPDIR", folder.path());
        let mut engine = Self { folder, daemon: Some(Job::start(command, "")), mark: installation.mark() };
        wait_until("the engine", PATIENCE, || {
            let daemon = engine.daemon.as_mut().expect("just started");
            if !daemon.is_running() {
                panic!("the engine has ended: {}", engine.daemon.take().expect("there").finish(PATIENCE));
            }
            engine.client(&["version"]).status.success()
        });
        engine.import();
        engine
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn program() -> PathBuf {
        places::docker().join("usr/bin/docker")
    }

    /// What somebody outside of any run asks of it.
    fn client(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(Self::program());
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("HOME", self.folder.path());
        command.args(words).stdin(Stdio::null());
        run(command)
    }

    /// Makes the image, of a shell and psql with its libraries.
    fn import(&self) {
        let root = self.folder.path().join("image");
        for name in ["bin", "etc", "lib64", "lib", "proc", "sys", "dev", "tmp", "work"] {
            fs::create_dir_all(root.join(name)).expect("own folder");
        }
        let busybox = places::docker().join("bin/busybox");
        fs::copy(busybox, root.join("bin/busybox")).expect("unpacked");
        for name in [
            "cat", "find", "grep", "httpd", "id", "ls", "mknod", "mount", "nc", "ping", "sh", "true",
            "unshare",
        ] {
            symlink("busybox", root.join("bin").join(name)).expect("own folder");
        }
        for program in [places::postgres_tool("psql"), places::tool("perl")] {
            let mut command = Command::new(places::tool("ldd"));
            command.arg(&program);
            let libraries = run(command).succeeded().stdout;
            for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
                let to = root.join(library.trim_start_matches('/'));
                fs::create_dir_all(to.parent().expect("a folder")).expect("own folder");
                fs::copy(library, to).expect("a library");
            }
            let name = program.file_name().expect("a program");
            fs::copy(&program, root.join("bin").join(name)).expect("installed");
        }
        let archive = self.folder.path().join("image.tar");
        let mut command = Command::new(places::tool("tar"));
        command.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&root).arg(".");
        run(command).succeeded();
        self.client(&["import", archive.to_str().expect("a plain path"), "base"]).succeeded();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            let said = daemon.finish(PATIENCE);
            if std::thread::panicking() {
                eprintln!("the engine said: {said}");
            }
        }
        // Where there are hierarchies of the first version, the runtime leaves folders in them.
        for (root, _) in leaks::hierarchies() {
            for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().contains(&self.mark) {
                    cgroup::remove(&entry.path());
                }
            }
        }
    }
}

/// What the job said of a thing that it tried.
fn said<'a>(finished: &'a Finished, what: &str) -> &'a str {
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("nothing is said of {what}: {finished}")).trim()
}

/// A captured job that may have containers.
fn job(installation: &Installation, engine: &Engine, words: &[&str]) -> Command {
    let socket = engine.socket();
    let options =
        ["--agent", "release-bot", "--profile", "ci", "--engine", socket.to_str().expect("a plain path")];
    installation.captured_with(&options, words)
}

/// Waits for a file that a job makes.
fn await_file(installation: &Installation, job: &mut Job, name: &str) {
    wait_until(name, PATIENCE, || installation.work().join(name).exists() || !job.is_running());
}

/// Containers of a run are captured before they begin, are the run's alone, and have nothing that leads around.
#[test]
fn containers_of_a_run_are_captured() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let engine = Engine::start(&installation);
    let outsider = ["create", "--name", "outsider", "base", "true"];
    engine.client(&outsider).succeeded();
    engine
        .client(&["run", "--runtime", "interceptor", "base", "true"])
        .failed()
        .says("containers of runs only");
    let _outside = UnixListener::bind(installation.work().join("outside")).expect("own folder");
    let script = installation.script("ci.sh", JOB);
    let program = Engine::program();
    let words = ["/bin/sh", script.as_str(), program.to_str().expect("a plain path")];
    let mut running = Job::start(job(&installation, &engine, &words), "");
    await_file(&installation, &mut running, "ready");
    let records = installation.ended("SELECT count(*) FROM users");
    let request = records.one("SELECT count(*) FROM users");
    assert_eq!(request.at("/request/guarantee"), "structural");
    assert_eq!(request.at("/request/agent/name"), "release-bot");
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded().text();
    installation.stop();
    fs::write(installation.work().join("gone"), "").expect("own folder");
    let done = running.finish(PATIENCE).succeeded();
    let says = |what: &str, part: &str| {
        let line = said(&done, what);
        assert!(line.contains(part), "{what}: {line:?}, without {part:?}\n{done}");
    };
    assert_eq!(said(&done, "query"), "100", "{done}");
    says("port", "127.0.0.1:8123");
    assert_eq!(said(&done, "served"), "hello", "{done}");
    assert_eq!(said(&done, "joined"), "0 hello", "{done}");
    assert_eq!(said(&done, "unix"), "outside: Connection refused own: connected", "{done}");
    assert_eq!(said(&done, "capabilities"), "CapBnd:\t00000000800405fb Seccomp:\t2", "{done}");
    assert!(!said(&done, "inside").contains("moved"), "{done}");
    for part in [
        "ping: permission denied",
        "unshare(0x40000000): Operation not permitted",
        "mount: permission denied",
    ] {
        says("inside", part);
    }
    says("inside", "mknod: /tmp/sda: Operation not permitted");
    assert_eq!(said(&done, "listed"), "web", "{done}");
    says("copied", "links of the host's");
    says("another", "No such container: outsider");
    says("removed", "web");
    says("privileged", "Privileged");
    says("host-file", "cannot be shown to a container");
    says("link", "leads out of the run's folder");
    says("unconfined", "SecurityOpt");
    says("pull", "have them pulled before the run begins");
    says("build", "the engine builds uncaptured");
    says("unrecorded", "cannot be recorded");
    for part in [
        "192.0.2.1:81",
        "begins, captured",
        "/containers/create of image \"base\": passed",
        "/build: refused",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let left = engine.client(&["ps", "--all", "--format", "{{.Names}}"]).succeeded();
    assert!(!left.stdout.contains("left"), "what the run left is removed: {left}");
    assert!(left.stdout.contains("outsider"), "and nothing else: {left}");
    installation.start();
    installation.finish();
}

/// A launcher that is killed takes the containers along; without an engine, or with one that cannot make them, nothing is run.
#[test]
fn containers_end_with_their_launcher() {
    let mut installation = Setup::empty().start();
    let engine = Engine::start(&installation);
    let program = Engine::program();
    let script = "\"$0\" run -d --name left base httpd -f -p 8124 && touch ready && sleep 1000";
    let words = ["/bin/sh", "-c", script, program.to_str().expect("a plain path")];
    let mut running = Job::start(job(&installation, &engine, &words), "");
    await_file(&installation, &mut running, "ready");
    assert!(engine.client(&["ps", "--format", "{{.Names}}"]).succeeded().stdout.contains("left"));
    running.signal(Signal::SIGKILL);
    running.finish(PATIENCE);
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    wait_until("the container's end", PATIENCE, || {
        engine.client(&["ps", "--format", "{{.Names}}"]).succeeded().stdout.trim().is_empty()
    });
    let names = fs::read_dir(installation.places().runs()).expect("it is there").flatten();
    assert_eq!(names.map(|entry| entry.file_name()).collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());

    let options = ["--agent", "release-bot", "--profile", "ci"];
    let nowhere = ["--engine", "/nowhere.sock"];
    run(installation.captured_with(&[&options[..], &nowhere].concat(), &["true"]))
        .failed()
        .says("no container engine listens");
    let mut elsewhere = job(&installation, &engine, &["true"]);
    elsewhere.current_dir("/");
    run(elsewhere).failed().says("launch it from a folder that belongs to");
    installation.put_policy(
        "00-launch.cedar",
        "@id(\"plain\") permit (principal, action == Action::\"launch\", resource is Program) when { resource.profile == \"\" };",
    );
    installation.interceptor(&["reload"]).succeeded();
    run(job(&installation, &engine, &["true"])).failed().says("policy does not permit the launch");
    installation.stop();
    installation.finish();
}
