//! Containers: captured while they run, or before they do.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use interceptor_tests::{
    Bed, Cgroup, Installation, Setup, Talker,
    cgroup::{self, put},
    leaks, places,
    process::{Finished, PATIENCE, run as run_command, wait_until},
};
use serde_json::{Value, json};

use crate::attach::{LONG, NOBODY};

const CONTAINED: &str = include_str!("../clients/contained.py");

/// A container whose root is made of the host's folders, under a runtime that is told its cgroup.
struct Container {
    id: String,
    talker: Option<Talker>,
    _folder: tempfile::TempDir,
}

impl Container {
    fn start(installation: &Installation, words: &[&str], uid: u32) -> Self {
        let user = json!({ "user": { "uid": uid, "gid": uid } });
        let (mut container, command) = Self::bundled(installation, words, &user, &json!({}));
        container.talker = Some(Talker::start(command));
        container
    }

    /// One that is not made yet, with this in its process and in all of it, and what makes it.
    fn bundled(
        installation: &Installation,
        words: &[&str],
        process: &Value,
        whole: &Value,
    ) -> (Self, Command) {
        let id = format!("{}-container", installation.mark());
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("rootfs");
        // Users of its own see it, and have places made there for what is mounted.
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        open(folder.path(), 0o755);
        for name in ["usr", "etc", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("a folder of its root");
            open(&root.join(name), 0o777);
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).expect("a link in its root");
        }
        let mut mounts = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
        for name in [Path::new("/usr"), Path::new("/etc"), installation.work()] {
            let options = json!(["rbind", "ro"]);
            mounts.push(json!({"destination": name, "type": "bind", "source": name, "options": options}));
        }
        let namespaces: Vec<_> =
            ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind })).to_vec();
        let mut bundle = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": {
                "args": words,
                "env": ["PATH=/usr/bin", "HOME=/"],
                "cwd": "/",
                "noNewPrivileges": true,
            },
            "mounts": mounts,
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("/{id}") },
        });
        merge(&mut bundle["process"], process);
        merge(&mut bundle, whole);
        fs::write(folder.path().join("config.json"), bundle.to_string()).expect("a bundle");
        let mut command = Command::new(places::tool("runc"));
        command.args(["run", &id]).current_dir(folder.path());
        (Self { id, talker: None, _folder: folder }, command)
    }

    fn say(&mut self, word: &str) -> String {
        self.talker.as_mut().expect("it runs").say(word, LONG)
    }

    fn cgroup(&self) -> PathBuf {
        leaks::cgroup_root().join(&self.id)
    }
}

/// Puts fields into an object.
fn merge(into: &mut Value, fields: &Value) {
    let fields = fields.as_object().expect("an object").clone();
    into.as_object_mut().expect("an object").extend(fields);
}

impl Drop for Container {
    fn drop(&mut self) {
        let runc = |words: &[&str]| {
            let _ = Command::new(places::tool("runc")).args(words).arg(&self.id).output();
        };
        runc(&["delete", "--force"]);
        drop(self.talker.take());
        cgroup::remove(&self.cgroup());
    }
}

/// A container is captured in its own network, by its id; what is started in it later is, too, and its end is the run's.
#[test]
fn a_container_is_captured_where_it_is() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("contained.py", CONTAINED);
    let words = ["/usr/bin/python3", &script];
    let privileged = Container::start(&installation, &words, 0);
    let refusals = [
        (vec!["attach", "--container", &privileged.id], "runs as root"),
        (vec!["attach", "--container", "no-such-container"], "there is no container"),
        (vec!["attach", "--container", "../etc"], "no container's id"),
    ];
    for (words, why) in refusals {
        installation.interceptor(&words).failed().says(why);
    }
    drop(privileged);

    let mut container = Container::start(&installation, &words, 65534);
    let id = container.id.clone();
    assert_eq!(container.say("dial"), "OSError", "its network leads nowhere");
    installation.interceptor(&["attach", "--container", &id, "--plan"]).succeeded().says("contained.py");
    let attached =
        installation.interceptor(&["attach", "--container", &id, "--agent", "release-bot"]).succeeded();
    assert!(attached.stdout.contains("attached run"), "{}", attached.stdout);
    assert_eq!(container.say("query"), "100", "what policy permits goes through, from its network");
    let mut joined = Command::new(places::tool("runc"));
    joined.args(["exec", "--user", "65534", &id, "/usr/bin/python3", &script, "query"]);
    let joined = run_command(joined).succeeded();
    assert_eq!(joined.stdout.trim(), "100", "who joins it is captured");
    let runs = installation.runs();
    assert_eq!((runs.len(), &runs[0]["guarantee"]), (1, &json!("enforced")));
    drop(container);
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());
    let audit = || installation.interceptor(&["audit", "tail", "--all"]).text();
    wait_until("the record of it", PATIENCE, || audit().contains("its cgroup is gone"));
    installation.finish();
}

/// Another runtime's container is known by its cgroup's name, and only by all of it.
#[test]
fn a_container_is_found_by_its_cgroup() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let id = format!("{}0123456789abcdef", installation.mark());
    let cgroup = Cgroup(leaks::cgroup_root().join(format!("docker-{id}.scope")));
    fs::create_dir(&cgroup.0).expect("a cgroup");
    let script = installation.script("contained.py", CONTAINED);
    let inside = format!("ip link set lo up && exec setpriv {} /usr/bin/python3 {script}", NOBODY.join(" "));
    let mut apart = Command::new(places::tool("unshare"));
    apart.args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c", &inside]);
    apart.env("HOME", "/").current_dir("/");
    let mut container = Talker::start(apart);
    let outer = container.pid();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).expect("it lives");
    fs::write(cgroup.0.join("cgroup.procs"), children.trim()).expect("moved");
    put(&container, &cgroup.0);
    let refused = |id: &str, why: &str| {
        installation.interceptor(&["attach", "--container", id]).failed().says(why);
    };
    refused(&id, "is one of the host's");
    put(&container, &leaks::cgroup_root());
    refused(&id[..8], "give the whole id");
    refused(&id[..20], "give the whole id");
    installation.interceptor(&["attach", "--container", &id, "--agent", "release-bot"]).succeeded();
    assert_eq!(container.say("query", LONG), "100");
    assert_ne!(container.say("dial", LONG), "OSError", "the interceptor answers there");
    let run = installation.runs()[0]["run"].as_str().expect("a run").to_owned();
    installation.interceptor(&["detach", &run, "--reason", "the test is over"]).succeeded();
    assert_eq!(container.say("dial", LONG), "OSError", "its network leads nowhere again");
    drop((container, cgroup));
    installation.finish();
}

/// `attach --created` as a hook of this installation's.
fn hook(installation: &Installation) -> Value {
    let root = installation.root().to_str().expect("a plain path");
    let program = places::interceptor();
    let words = ["interceptor", "--root", root, "attach", "--created", "--agent", "release-bot"];
    json!({ "path": program, "args": words })
}

/// Its first program does the one thing that it is told, and it is over.
fn once(container: &Container, mut command: Command) -> Finished {
    command.stdin(std::process::Stdio::null());
    let finished = run_command(command);
    assert!(!container.cgroup().exists(), "runc removes it");
    finished
}

/// A runtime's hook captures a container before its first program runs; one that cannot be captured is not made.
#[test]
fn a_container_is_captured_before_it_begins() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("contained.py", CONTAINED);
    let hooks = json!({ "hooks": { "createRuntime": [hook(&installation)] } });
    let nobody = json!({ "user": { "uid": 65534, "gid": 65534 } });
    let words = ["/usr/bin/python3", script.as_str(), "query"];

    let (container, command) = Container::bundled(&installation, &words, &nobody, &hooks);
    let finished = once(&container, command).succeeded();
    assert_eq!(finished.stdout.trim().lines().last(), Some("100"), "{finished}");
    let records = installation.ended("SELECT count(*) FROM users");
    let request = records.one("SELECT count(*) FROM users");
    assert_eq!(request.at("/request/guarantee"), "enforced");
    assert_eq!(request.at("/request/agent/name"), "release-bot");
    drop(container);
    wait_until("the run's end", PATIENCE, || installation.runs().is_empty());

    let around = json!({ "user": { "uid": 65534 }, "capabilities": { "inheritable": ["CAP_NET_RAW"] } });
    let own_users = json!([{ "containerID": 0, "hostID": 65534, "size": 1 }]);
    let namespaces: Vec<_> = ["pid", "network", "mount", "user"].map(|kind| json!({ "type": kind })).to_vec();
    let users = json!({
        "namespaces": namespaces, "uidMappings": own_users, "gidMappings": own_users,
        "cgroupsPath": format!("/{}-container", installation.mark()),
    });
    let users = json!({ "hooks": hooks["hooks"], "linux": users });
    let root = json!({ "user": { "uid": 0, "gid": 0 } });
    let unfit = [
        (&root, &hooks, "runs as root"),
        (&around, &hooks, "has the capability net_raw"),
        (&root, &users, "has users of its own"),
    ];
    for (process, whole, why) in unfit {
        let (container, command) = Container::bundled(&installation, &words, process, whole);
        once(&container, command).failed().says(why);
    }
    installation.finish();
}

/// Podman is told of the hook by a file, and needs nothing else.
#[test]
fn podman_captures_whatever_it_starts() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script("contained.py", CONTAINED);
    let folder = tempfile::tempdir().expect("a folder");
    let hooks = folder.path().join("hooks.d");
    fs::create_dir(&hooks).expect("own folder");
    let told = json!({
        "version": "1.0.0", "hook": hook(&installation), "when": { "always": true }, "stages": ["createRuntime"],
    });
    fs::write(hooks.join("interceptor.json"), told.to_string()).expect("own folder");
    let root = folder.path().join("rootfs");
    for name in ["usr", "etc", "proc", "dev", "tmp", "sys"] {
        fs::create_dir_all(root.join(name)).expect("a folder of its root");
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("a link in its root");
    }
    let parent = Parent(format!("{}-podman", installation.mark()));
    let run = |user: &str| {
        let podman = places::podman();
        let mut command = Command::new(podman.join("usr/bin/podman"));
        for (option, path) in [("--root", "storage"), ("--runroot", "state"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(folder.path().join(path));
        }
        command.arg("--conmon").arg(podman.join("usr/bin/conmon"));
        command.arg("--runtime").arg(places::tool("runc"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.arg("--hooks-dir").arg(&hooks);
        command.args(["run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined"]);
        // What podman would have otherwise may be more than this process can give.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command.args([
            "--cgroup-parent",
            &format!("/{}", parent.0),
            "--user",
            user,
            "--volume",
            "/usr:/usr:ro",
        ]);
        command.arg("--volume").arg(format!("{0}:{0}:ro", installation.work().display()));
        command.arg("--rootfs").arg(&root).args(["/usr/bin/python3", &script, "query"]);
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", podman.join(libraries)).stdin(std::process::Stdio::null());
        run_command(command)
    };
    let finished = run("65534").succeeded();
    assert_eq!(finished.stdout.trim().lines().last(), Some("100"), "{finished}");
    let records = installation.ended("SELECT count(*) FROM users");
    assert_eq!(records.one("SELECT count(*) FROM users").at("/request/guarantee"), "enforced");
    run("0").failed().says("runs as root");
    drop(parent);
    installation.finish();
}

/// A cgroup, by name, in every hierarchy of the host.
struct Parent(String);

impl Drop for Parent {
    fn drop(&mut self) {
        for (root, _) in leaks::hierarchies() {
            cgroup::remove(&root.join(&self.0));
        }
    }
}
