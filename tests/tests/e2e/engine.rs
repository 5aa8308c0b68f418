//! A Docker engine for tests of the `ci` profile, and what a job in such a run says.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use interceptor_tests::{
    Installation, Job,
    bed::free_port,
    cgroup, leaks, places,
    process::{Finished, PATIENCE, run, wait_until},
};
use nix::sys::signal::Signal;
use serde_json::json;

/// By which runtime the engine makes what names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultRuntime {
    /// The ordinary one.
    Ordinary,
    /// Ours, which leaves what is no run's to the ordinary one.
    Ours,
}

/// An engine of its own, with an image `base` of the host's programs.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    daemon: Option<Job>,
    mark: String,
}

impl Engine {
    pub(crate) fn start(installation: &Installation, default: DefaultRuntime) -> Self {
        let folder = places::scratch("engine");
        let programs = places::docker();
        let runtime = |others: &str| {
            let data = folder.path().join("data");
            let words = json!([
                "--root",
                installation.root(),
                "oci-runtime",
                "--data-root",
                data,
                "--others",
                others,
                "--",
            ]);
            json!({ "path": places::interceptor(), "runtimeArgs": words })
        };
        let default = match default {
            DefaultRuntime::Ordinary => "runc",
            DefaultRuntime::Ours => "interceptor-of-all",
        };
        let settings = json!({
            "runtimes": { "interceptor": runtime("refused"), "interceptor-of-all": runtime("left") },
            "default-runtime": default,
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

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    pub(crate) fn program() -> PathBuf {
        places::docker().join("usr/bin/docker")
    }

    /// What somebody outside of any run asks of it.
    pub(crate) fn client(&self, words: &[&str]) -> Finished {
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
            let said = daemon.end(PATIENCE);
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

/// A registry of images on this host's loopback, with the engine's `base` in it.
pub(crate) struct Registry {
    _folder: tempfile::TempDir,
    daemon: Option<Job>,
    /// Where it is, as images are named.
    pub(crate) place: String,
}

impl Registry {
    pub(crate) fn start(engine: &Engine) -> Self {
        let folder = places::scratch("registry");
        let place = format!("127.0.0.1:{}", free_port());
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{place}\"}}\n",
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("config.yml"), settings).expect("own folder");
        let mut command = Command::new(places::registry());
        command.arg("serve").arg(folder.path().join("config.yml"));
        let mut registry = Self { _folder: folder, daemon: Some(Job::start(command, "")), place };
        wait_until("the registry", PATIENCE, || {
            let daemon = registry.daemon.as_mut().expect("just started");
            if !daemon.is_running() {
                let said = registry.daemon.take().expect("there").finish(PATIENCE);
                panic!("the registry has ended: {said}");
            }
            std::net::TcpStream::connect(&registry.place).is_ok()
        });
        for name in ["team/base:1", "team/other:1"] {
            let name = registry.named(name);
            engine.client(&["tag", "base", &name]).succeeded();
            engine.client(&["push", &name]).succeeded();
            engine.client(&["rmi", &name]).succeeded();
        }
        registry
    }

    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            let said = daemon.end(PATIENCE);
            if std::thread::panicking() {
                eprintln!("the registry said: {said}");
            }
        }
    }
}

/// What the job said of a thing that it tried.
pub(crate) fn said<'a>(finished: &'a Finished, what: &str) -> &'a str {
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("nothing is said of {what}: {finished}")).trim()
}

/// A captured job that may have containers.
pub(crate) fn job(installation: &Installation, engine: &Engine, words: &[&str]) -> Command {
    let socket = engine.socket();
    let options =
        ["--agent", "release-bot", "--profile", "ci", "--engine", socket.to_str().expect("a plain path")];
    installation.captured_with(&options, words)
}

/// Waits for a file that a job makes.
pub(crate) fn await_file(installation: &Installation, job: &mut Job, name: &str) {
    wait_until(name, PATIENCE, || installation.work().join(name).exists() || !job.is_running());
}
