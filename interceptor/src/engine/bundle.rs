//! A bundle that the engine made for a container of a run's, tightened to what a run may be.
//!
//! Promises: every namespace but the network is the container's own, and the network is the run's; nothing is mounted but what
//! every container has, the engine's own files for this one, and what lies below the run's working folder; no devices but the
//! harmless ones; no capability that leads around; the filter is [`filter`]'s. A field that is not known is a refusal, so that a newer
//! engine takes nothing off. Format: "Configuration" of the OCI runtime specification 1.0 and later.

use std::path::{Path, PathBuf};

use interceptor_core::model::RunId;
use serde_json::{Map, Value, json};

use super::{CONTAINERS, CgroupDriver, UnixSockets, create::CAPABILITIES, filter, is_plain};

/// Fields of the whole.
const WHOLE: &[&str] =
    &["annotations", "domainname", "hostname", "linux", "mounts", "ociVersion", "process", "root"];
/// Fields of the first process.
const PROCESS: &[&str] = &[
    "apparmorProfile",
    "args",
    "capabilities",
    "consoleSize",
    "cwd",
    "env",
    "noNewPrivileges",
    "oomScoreAdj",
    "rlimits",
    "selinuxLabel",
    "terminal",
    "user",
];
/// Fields about Linux.
const LINUX: &[&str] = &[
    "cgroupsPath",
    "maskedPaths",
    "mountLabel",
    "namespaces",
    "readonlyPaths",
    "resources",
    "rootfsPropagation",
    "seccomp",
];
/// Limits.
const RESOURCES: &[&str] = &["blockIO", "cpu", "devices", "hugepageLimits", "memory", "pids"];
/// Shown as nothing.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Shown, and not to be written.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Character devices that a container may use: null, zero, full, random, urandom, tty, console, and the terminals that it makes.
const DEVICES: &[(i64, Option<i64>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];
/// Files of the engine's own that it shows in a container.
const FILES: &[&str] = &["hostname", "hosts", "mounts/shm", "resolv.conf"];

type Fields = Map<String, Value>;

/// What is to be known of a run to tighten a bundle.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The container's id.
    pub(super) container: &'a str,
    /// The run.
    pub(super) run: RunId,
    /// The cgroup that runs are in.
    pub(super) slice: &'a str,
    /// Its network namespace, by a path.
    pub(super) network: &'a Path,
    /// The folder that it may show.
    pub(super) folder: &'a Path,
    /// Where its calls on Unix sockets wait.
    pub(super) calls: &'a Path,
    pub(super) unix: UnixSockets,
    /// Where the engine keeps its own files.
    pub(super) engine: &'a Path,
}

/// A file or folder of the run's that a container is to show.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Which of the bundle's mounts it is.
    pub(super) number: usize,
    /// What the engine was told.
    pub(super) path: PathBuf,
}

/// The run that a bundle says it is of, if it is of any.
pub(super) fn run_of(bundle: &Value, slice: &str) -> Option<RunId> {
    CgroupDriver::run_of(slice, bundle["linux"]["cgroupsPath"].as_str().unwrap_or_default())
}

/// Whether a bundle that is of no run says a place among those of runs: then it is nobody's.
pub(super) fn is_near_runs(bundle: &Value, slice: &str) -> bool {
    let path = bundle["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    path.split(['/', ':']).any(|part| part == slice || part.starts_with("interceptor-"))
}

impl Wanted<'_> {
    /// Tightens a bundle, and says what of the run's files it shows.
    pub(super) fn tighten(&self, bundle: &mut Value) -> Result<Vec<Shown>, String> {
        let whole = fields(bundle, "the bundle")?;
        // Programs that the runtime would run as root.
        whole.retain(|name, value| name != "hooks" || !is_nothing(value));
        only(whole, WHOLE, "")?;
        process(whole.get_mut("process").ok_or("the bundle has no process")?)?;
        let shown = self.mounts(whole)?;
        let linux = fields(whole.get_mut("linux").ok_or("the bundle says nothing of Linux")?, "linux")?;
        linux.retain(|_, value| !is_nothing(value));
        only(linux, LINUX, "linux.")?;
        devices(linux)?;
        self.namespaces(linux)?;
        match linux.get("rootfsPropagation").map_or(Some("private"), Value::as_str) {
            Some("private" | "rprivate" | "slave" | "rslave") => {}
            _ => {
                return Err("linux.rootfsPropagation: mounts of the container would be the host's".to_owned());
            }
        }
        add(linux, "maskedPaths", MASKED)?;
        add(linux, "readonlyPaths", READ_ONLY)?;
        let profile = linux.remove("seccomp").ok_or(
            "the engine gives its containers no filter of system calls: use one that does, with its own profile",
        )?;
        let profile = filter::tightened(profile, self.unix, self.calls, self.run)?;
        linux.insert("seccomp".to_owned(), profile);
        let cgroup = format!("/{}/{}/{CONTAINERS}/{}", self.slice, self.run, self.container);
        linux.insert("cgroupsPath".to_owned(), json!(cgroup));
        Ok(shown)
    }

    fn namespaces(&self, linux: &mut Fields) -> Result<(), String> {
        let asked = linux.get("namespaces").and_then(Value::as_array).into_iter().flatten();
        for one in asked {
            if one["type"] == "user" {
                return Err("the engine gives its containers users of their own, whose rights on this host nothing says: turn \
                            `userns-remap` off"
                    .to_owned());
            }
            // Whatever network the engine means, this is not made in it.
            if one["type"] != "network" && one.get("path").is_some_and(|path| !is_nothing(path)) {
                return Err(format!("linux.namespaces: {} is somebody else's", one["type"]));
            }
        }
        let own = ["mount", "pid", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
        let network = json!({ "type": "network", "path": self.network });
        linux.insert("namespaces".to_owned(), own.into_iter().chain([network]).collect());
        Ok(())
    }

    fn mounts(&self, whole: &mut Fields) -> Result<Vec<Shown>, String> {
        let Some(mounts) = whole.get_mut("mounts").and_then(Value::as_array_mut) else {
            return Ok(Vec::new());
        };
        let mut shown = Vec::new();
        for (number, mount) in mounts.iter_mut().enumerate() {
            let mount = fields(mount, "a mount")?;
            only(mount, &["destination", "options", "source", "type"], "mounts.")?;
            let options: Vec<String> = match mount.get("options") {
                None => Vec::new(),
                Some(options) => {
                    serde_json::from_value(options.clone()).map_err(|error| error.to_string())?
                }
            };
            if let Some(option) = options.iter().find(|option| option.contains("shared")) {
                return Err(format!("mounts: {option:?} would give the container's mounts to the host"));
            }
            let is_bind = options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
            let is_read_only = options.iter().any(|option| option == "ro");
            match mount.get("type").and_then(Value::as_str).unwrap_or("bind") {
                _ if is_bind => {}
                "proc" | "tmpfs" | "devpts" | "mqueue" => continue,
                "sysfs" | "cgroup" | "cgroup2" if is_read_only => continue,
                "bind" => {}
                other => return Err(format!("mounts: one of type {other:?} is not for containers of runs")),
            }
            let source = PathBuf::from(mount.get("source").and_then(Value::as_str).unwrap_or_default());
            if !is_plain(&source) {
                return Err(format!("mounts: {} is no plain path", source.display()));
            }
            if source.starts_with(self.folder) {
                shown.push(Shown { number, path: source });
                let quiet = ["nosuid", "nodev"].map(str::to_owned);
                let options: Vec<String> = options.into_iter().chain(quiet).collect();
                mount.insert("options".to_owned(), json!(options));
            } else if !self.is_engines(&source) {
                return Err(format!(
                    "mounts: {} is neither below {} nor one of the engine's files for this container (it keeps them in {}; else say \
                     `--data-root` where the runtime is registered)",
                    source.display(),
                    self.folder.display(),
                    self.engine.display()
                ));
            }
        }
        Ok(shown)
    }

    /// Whether the engine made this for this container: one of its files, or a volume, of which a run can name none.
    fn is_engines(&self, source: &Path) -> bool {
        let Ok(below) = source.strip_prefix(self.engine) else { return false };
        if let Ok(own) = below.strip_prefix(Path::new("containers").join(self.container)) {
            return FILES.iter().any(|file| own == Path::new(file));
        }
        let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
        matches!(parts.as_slice(), ["volumes", _, "_data"])
    }
}

/// A process that joins a container, or its first one, with no more capabilities than a run's may have.
pub(super) fn process(process: &mut Value) -> Result<(), String> {
    let process = fields(process, "the process")?;
    process.retain(|_, value| !is_nothing(value));
    only(process, PROCESS, "process.")?;
    if let Some(sets) = process.get_mut("capabilities") {
        for (_, set) in fields(sets, "capabilities")?.iter_mut() {
            let set = set.as_array_mut().ok_or("a set of capabilities is no list")?;
            set.retain(|name| {
                name.as_str()
                    .and_then(|name| name.strip_prefix("CAP_"))
                    .is_some_and(|name| CAPABILITIES.contains(&name))
            });
        }
    }
    // What the kernel ends first, when memory is short, is not the run's to say.
    if process.get("oomScoreAdj").and_then(Value::as_i64).is_some_and(|score| score < 0) {
        process.remove("oomScoreAdj");
    }
    Ok(())
}

fn devices(linux: &mut Fields) -> Result<(), String> {
    let Some(resources) = linux.get_mut("resources") else { return Ok(()) };
    let resources = fields(resources, "linux.resources")?;
    resources.retain(|_, value| !is_nothing(value));
    only(resources, RESOURCES, "linux.resources.")?;
    let rules = resources.get("devices").and_then(Value::as_array).into_iter().flatten();
    for rule in rules.filter(|rule| rule["allow"] == true) {
        let (major, minor) = (rule["major"].as_i64(), rule["minor"].as_i64());
        let is_known =
            DEVICES.iter().any(|(known, of)| Some(*known) == major && (of.is_none() || *of == minor));
        if rule["type"] != "c" || !is_known {
            return Err(format!("linux.resources.devices: {rule} is no device for containers of runs"));
        }
    }
    Ok(())
}

fn add(linux: &mut Fields, field: &str, paths: &[&str]) -> Result<(), String> {
    let list = linux.entry(field).or_insert_with(|| json!([]));
    let list = list.as_array_mut().ok_or_else(|| format!("linux.{field} is no list"))?;
    for path in paths {
        if !list.iter().any(|known| known == path) {
            list.push(json!(path));
        }
    }
    Ok(())
}

fn fields<'a>(value: &'a mut Value, what: &str) -> Result<&'a mut Fields, String> {
    value.as_object_mut().ok_or_else(|| format!("{what} is no object"))
}

fn only(fields: &Fields, known: &[&str], before: &str) -> Result<(), String> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => Err(format!("{before}{field} is nothing that a container of a run may have")),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123";

    fn bundle() -> Value {
        json!({
            "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "hostname": "x", "hooks": {},
            "process": {
                "args": ["true"], "cwd": "/", "user": { "uid": 0 }, "oomScoreAdj": -900,
                "capabilities": { "bounding": ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"] },
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
                { "destination": "/etc/hosts", "type": "bind", "source": format!("/engine/containers/{ID}/hosts"), "options": ["rbind"] },
                { "destination": "/a", "type": "bind", "source": "/home/ci/work/a", "options": ["rbind", "rprivate"] },
            ],
            "linux": {
                "cgroupsPath": format!("/interceptor.slice/{}/containers/{ID}", RunId::from_random(7)),
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "network", "path": "" }],
                "resources": { "devices": [{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 3 }] },
                "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [] },
                "sysctl": {}, "devices": [],
            },
        })
    }

    fn tightened(mut bundle: Value) -> Result<(Value, Vec<Shown>), String> {
        let run = run_of(&bundle, "interceptor.slice").ok_or("it is no run's")?;
        let wanted = Wanted {
            container: ID,
            run,
            slice: "interceptor.slice",
            network: Path::new("/proc/1/ns/net"),
            folder: Path::new("/home/ci/work"),
            calls: Path::new("/run/calls"),
            unix: UnixSockets::All,
            engine: Path::new("/engine"),
        };
        let shown = wanted.tighten(&mut bundle)?;
        Ok((bundle, shown))
    }

    #[test]
    fn a_bundle_becomes_what_a_run_may_be() {
        let (made, shown) = tightened(bundle()).expect("nothing against it");
        assert_eq!(made["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert!(made["process"].get("oomScoreAdj").is_none());
        assert_eq!(shown, [Shown { number: 3, path: "/home/ci/work/a".into() }]);
        assert!(made["mounts"][3]["options"].as_array().is_some_and(|all| all.contains(&json!("nosuid"))));
        let kinds = made["linux"]["namespaces"].as_array().expect("a list");
        assert_eq!(kinds.len(), 6);
        assert!(kinds.contains(&json!({ "type": "network", "path": "/proc/1/ns/net" })));
        assert!(
            made["linux"]["readonlyPaths"].as_array().is_some_and(|all| all.contains(&json!("/proc/sys")))
        );
        assert!(made["linux"]["seccomp"]["listenerPath"] == "/run/calls");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let cases: &[(&str, Value)] = &[
            ("/hooks", json!({ "prestart": [{ "path": "/bin/sh" }] })),
            ("/vm", json!({ "x": 1 })),
            ("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })),
            ("/linux/devices", json!([{ "path": "/dev/sda" }])),
            ("/linux/personality", json!({ "domain": "LINUX32" })),
            ("/linux/seccomp", json!(null)),
            ("/linux/rootfsPropagation", json!("rshared")),
            ("/linux/namespaces", json!([{ "type": "user" }])),
            ("/linux/namespaces", json!([{ "type": "ipc", "path": "/proc/1/ns/ipc" }])),
            ("/linux/resources/unified", json!({ "a": "b" })),
            ("/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }])),
            ("/linux/resources/devices", json!([{ "allow": true, "type": "b", "major": 1, "minor": 3 }])),
            ("/linux/cgroupsPath", json!("/docker/0123")),
            ("/process/scheduler", json!({ "policy": "SCHED_FIFO" })),
            ("/mounts/1/options", json!(["rw"])),
            ("/mounts/0/type", json!("overlay")),
            ("/mounts/2/source", json!("/engine/containers/another/hosts")),
            ("/mounts/2/source", json!("/engine/overlay2")),
            ("/mounts/3/source", json!("/etc")),
            ("/mounts/3/source", json!("/home/ci/work/../x")),
            ("/mounts/3/options", json!(["rbind", "rshared"])),
        ];
        for (place, value) in cases {
            let mut made = bundle();
            let (above, name) = place.rsplit_once('/').expect("a path");
            let above = made.pointer_mut(above).and_then(Value::as_object_mut).expect("it is there");
            above.insert(name.to_owned(), value.clone());
            assert!(tightened(made).is_err(), "{place} {value}");
        }
    }

    #[test]
    fn a_place_among_those_of_runs_is_nobodys() {
        for (path, is_near) in [
            ("/docker/0123", false),
            ("system.slice:docker:0123", false),
            ("/interceptor.slice/0123", true),
            ("/interceptor.slice/r1/containers/more/0123", true),
            ("interceptor-x.slice:docker:0123", true),
        ] {
            let bundle = json!({ "linux": { "cgroupsPath": path } });
            assert_eq!(is_near_runs(&bundle, "interceptor.slice"), is_near, "{path}");
            assert_eq!(run_of(&bundle, "interceptor.slice"), None, "{path}");
        }
    }

    #[test]
    fn who_joins_has_no_more() {
        let mut joins = json!({ "args": ["x"], "cwd": "/", "capabilities": { "effective": ["CAP_SYS_PTRACE", "CAP_KILL"] } });
        process(&mut joins).expect("nothing against it");
        assert_eq!(joins["capabilities"]["effective"], json!(["CAP_KILL"]));
        assert!(process(&mut json!({ "ioPriority": { "class": "x" } })).is_err());
        assert!(process(&mut json!([])).is_err());
    }
}
