//! What makes a container, and a command in one: read by the fields that a run may set, and written anew.
//!
//! Strategy: clients send every field that they know, most of them empty. An empty one (null, false, 0, "", [], {}) says
//! nothing and is dropped; any other that is not named here is a refusal that names it. What is written says where the
//! container is made, by which runtime and without what, whatever was asked. Fields: "ContainerCreate" of the Docker
//! Engine API.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use interceptor_core::model::RunId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    CgroupDriver, RUNTIME, is_plain,
    own::{Container, Shows},
    refusal::Refusal,
};

/// The label that each container of a run bears.
pub(super) const LABEL: &str = "interceptor.run";

/// Capabilities that a container may have: those that the engine gives by default and a run may keep.
pub(super) const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// The others that the engine gives by default.
const DROPPED: &[&str] = &["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// Fields of a container that are the run's own affair, and go on as they are.
const INSIDE: &[&str] = &[
    "ArgsEscaped",
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Domainname",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Hostname",
    "Image",
    "Labels",
    "OpenStdin",
    "Shell",
    "StdinOnce",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
];
/// The same, of what is said of the host: limits, and what lies in the container alone.
const HOST: &[&str] = &[
    "AutoRemove",
    "BlkioWeight",
    "CapDrop",
    "ConsoleSize",
    "CpuCount",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
    "ReadonlyRootfs",
    "ShmSize",
    "Tmpfs",
    "Ulimits",
];
/// Fields that are read here and do not go on as they are.
const READ: &[&str] = &[
    "Binds",
    "CapAdd",
    "CgroupnsMode",
    "IpcMode",
    "LogConfig",
    "MemorySwappiness",
    "Mounts",
    "NetworkMode",
    "PortBindings",
    "PublishAllPorts",
    "RestartPolicy",
    "Runtime",
    "SecurityOpt",
];
/// Fields of a command.
const COMMAND: &[&str] = &[
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "ConsoleSize",
    "DetachKeys",
    "Env",
    "Tty",
    "User",
    "WorkingDir",
];

/// A mount, as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    source: String,
    target: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    tmpfs_options: Option<Value>,
}

/// For whom containers are made.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) run: RunId,
    pub(super) slice: String,
    pub(super) driver: CgroupDriver,
    /// The folder that it may show.
    pub(super) folder: PathBuf,
}

/// What is sent in place of what was asked, and what is to be known of it.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) body: Value,
    pub(super) container: Container,
    pub(super) image: String,
}

type Fields = Map<String, Value>;

impl Owner {
    /// What the engine is told to make its containers below.
    pub(super) fn cgroup_parent(&self) -> String {
        self.driver.parent(&self.slice, self.run)
    }

    /// The container that is asked for, as this run may have it.
    pub(super) fn container(&self, body: &[u8], name: Option<String>) -> Result<Rewritten, Refusal> {
        let mut asked = fields(body)?;
        let mut host = taken(&mut asked, "HostConfig")?;
        let mut networking = taken(&mut asked, "NetworkingConfig")?;
        hollow(&mut networking);
        if !networking.is_empty() {
            return Err(Refusal::forbidden(
                "NetworkingConfig: the containers of a run share its network: leave out networks and aliases, and use localhost",
            ));
        }
        only(&asked, &[INSIDE], "")?;
        only(&host, &[HOST, READ], "HostConfig.")?;
        let image = asked.get("Image").and_then(Value::as_str).unwrap_or_default().to_owned();
        volumes(&asked)?;
        modes(&host)?;
        let published = published(&asked, &host)?;
        let mounts = self.mounts(&host)?;
        let is_bind = |mount: &Value| mount["Type"] == "bind";
        let shows = if mounts.iter().any(is_bind) { Shows::Folder } else { Shows::Nothing };
        let added = capabilities(&host)?;
        let security = security(&host)?;
        host.retain(|field, _| HOST.contains(&field.as_str()));
        let dropped = host.remove("CapDrop").and_then(|all| all.as_array().cloned()).unwrap_or_default();
        let dropped: Vec<Value> = dropped.into_iter().chain(DROPPED.iter().map(|name| json!(name))).collect();
        host.extend(fields_of(json!({
            "CapAdd": added,
            "CapDrop": dropped,
            "CgroupParent": self.cgroup_parent(),
            "CgroupnsMode": "private",
            "IpcMode": "private",
            "Mounts": mounts,
            // The runtime puts the run's network in its place. Without the runtime there would be none that leads anywhere,
            // since the kernel side refuses whoever is in the cgroup and not in the run's network.
            "NetworkMode": "host",
            "Runtime": RUNTIME,
            "SecurityOpt": security,
        })));
        let mut labels = taken(&mut asked, "Labels")?;
        labels.insert(LABEL.to_owned(), json!(self.run.to_string()));
        asked.insert("Labels".to_owned(), Value::Object(labels));
        asked.insert("HostConfig".to_owned(), Value::Object(host));
        let container = Container { name, shows, published };
        Ok(Rewritten { body: Value::Object(asked), container, image })
    }

    /// Everything that is mounted, in the one form by which the engine makes no folders.
    fn mounts(&self, host: &Fields) -> Result<Vec<Value>, Refusal> {
        let mut made = Vec::new();
        for bind in list(host, "Binds")? {
            let (source, rest) = bind.split_once(':').unwrap_or((&bind, ""));
            let (target, options) = rest.split_once(':').unwrap_or((rest, ""));
            let mut read_only = false;
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option {
                    "ro" => read_only = true,
                    "rw" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
                    other => {
                        return Err(Refusal::forbidden(format!(
                            "HostConfig.Binds: the option {other:?} is none that a run may give: `ro` or nothing"
                        )));
                    }
                }
            }
            made.push(self.bind(source, target, read_only)?);
        }
        let asked: Vec<Mount> = match host.get("Mounts") {
            None => Vec::new(),
            Some(asked) => {
                let asked = asked.as_array().cloned().unwrap_or_default();
                let asked: Result<_, _> =
                    asked.into_iter().map(without_empty).map(serde_json::from_value).collect();
                asked.map_err(|error| {
                    Refusal::forbidden(format!("HostConfig.Mounts: {error}: leave it out"))
                })?
            }
        };
        for mount in asked {
            let Mount { kind, source, target, read_only, tmpfs_options } = mount;
            made.push(match (kind.as_str(), tmpfs_options) {
                ("bind", None) => self.bind(&source, &target, read_only)?,
                ("tmpfs", options) if source.is_empty() => {
                    let mut mount = json!({ "Type": "tmpfs", "Target": target, "ReadOnly": read_only });
                    if let (Some(options), Some(mount)) = (options, mount.as_object_mut()) {
                        mount.insert("TmpfsOptions".to_owned(), options);
                    }
                    mount
                }
                // One without a name is the container's own, and goes with it.
                ("volume", None) if source.is_empty() => {
                    json!({ "Type": "volume", "Target": target, "ReadOnly": read_only })
                }
                _ => {
                    return Err(Refusal::forbidden(format!(
                        "HostConfig.Mounts: {kind} {source:?}: bind a folder below {}, or use a tmpfs",
                        self.folder.display()
                    )));
                }
            });
        }
        Ok(made)
    }

    fn bind(&self, source: &str, target: &str, read_only: bool) -> Result<Value, Refusal> {
        let path = Path::new(source);
        if !is_plain(path) || !path.starts_with(&self.folder) || target.is_empty() {
            return Err(Refusal::forbidden(format!(
                "{source:?} cannot be shown to a container: bind what lies below {}, where the run works, by its whole path",
                self.folder.display()
            )));
        }
        let options = json!({ "Propagation": "rprivate" });
        Ok(json!({
            "Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options,
        }))
    }
}

/// The command that is asked for.
pub(super) fn command(body: &[u8]) -> Result<Value, Refusal> {
    let mut asked = fields(body)?;
    // Some clients say it here, too; the engine goes by the call.
    asked.remove("Container");
    only(&asked, &[COMMAND], "")?;
    Ok(Value::Object(asked))
}

/// How a prepared command begins.
pub(super) fn start(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let asked = fields(body)?;
    only(&asked, &[&["Detach", "Tty", "ConsoleSize"]], "")?;
    Ok(Value::Object(asked))
}

/// Volumes that the container names for itself are its own; their values say nothing.
fn volumes(asked: &Fields) -> Result<(), Refusal> {
    let paths = asked.get("Volumes").and_then(Value::as_object).into_iter().flatten();
    for (path, _) in paths {
        if path.contains(':') || !path.starts_with('/') {
            return Err(Refusal::forbidden(format!("Volumes: {path:?} is no path in the container")));
        }
    }
    Ok(())
}

/// Everything that is one of a few words.
fn modes(host: &Fields) -> Result<(), Refusal> {
    let words = [
        (
            "NetworkMode",
            &["default", "bridge", "host"][..],
            "a run's containers share its network: leave it out",
        ),
        ("IpcMode", &["private", "shareable"], "a container has its own: leave it out"),
        ("CgroupnsMode", &["private"], "a container has its own: leave it out"),
        ("Runtime", &[RUNTIME, "runc"], "it is made by the interceptor's: leave it out"),
    ];
    for (field, known, mend) in words {
        match host.get(field) {
            None => {}
            Some(Value::String(word)) if known.contains(&word.as_str()) => {}
            Some(other) => return Err(Refusal::forbidden(format!("HostConfig.{field} {other}: {mend}"))),
        }
    }
    let policy = host.get("RestartPolicy").and_then(|policy| policy.get("Name"));
    match policy.map_or(Some("no"), Value::as_str) {
        Some("no" | "") => {}
        _ => {
            return Err(Refusal::forbidden(
                "HostConfig.RestartPolicy: containers end with their run: leave it out, and start it again yourself",
            ));
        }
    }
    let kind = host.get("LogConfig").and_then(|log| log.get("Type"));
    match kind.map_or(Some(""), Value::as_str) {
        Some("" | "json-file" | "local" | "none") => {}
        _ => {
            return Err(Refusal::forbidden(
                "HostConfig.LogConfig: logs are kept by the engine, as it is set up: leave it out",
            ));
        }
    }
    match host.get("MemorySwappiness") {
        None => Ok(()),
        Some(value) if value.as_i64() == Some(-1) => Ok(()),
        Some(_) => Err(Refusal::forbidden("HostConfig.MemorySwappiness: leave it out")),
    }
}

/// Ports that are to be published. The network is the run's, so that each has its own number there.
fn published(asked: &Fields, host: &Fields) -> Result<BTreeSet<String>, Refusal> {
    let mut published = BTreeSet::new();
    if host.get("PublishAllPorts") == Some(&Value::Bool(true)) {
        let exposed = asked.get("ExposedPorts").and_then(Value::as_object).into_iter().flatten();
        published.extend(exposed.map(|(port, _)| port.clone()));
    }
    let bindings = host.get("PortBindings").and_then(Value::as_object).into_iter().flatten();
    for (port, at) in bindings {
        let number = port.split('/').next().unwrap_or_default();
        let wanted = at.as_array().into_iter().flatten().filter_map(|one| one.get("HostPort")?.as_str());
        for wanted in wanted {
            if !matches!(wanted, "" | "0") && wanted != number {
                return Err(Refusal::forbidden(format!(
                    "HostConfig.PortBindings: port {number} as {wanted}: the containers of a run share its network, where a port \
                     has one number: use {number}"
                )));
            }
        }
        published.insert(if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    }
    Ok(published)
}

fn capabilities(host: &Fields) -> Result<Vec<String>, Refusal> {
    let added = list(host, "CapAdd")?;
    for name in &added {
        let upper = name.to_ascii_uppercase();
        if !CAPABILITIES.contains(&upper.strip_prefix("CAP_").unwrap_or(&upper)) {
            return Err(Refusal::forbidden(format!(
                "HostConfig.CapAdd: {name} is kept by no container of a run, only: {}",
                CAPABILITIES.join(", ")
            )));
        }
    }
    Ok(added)
}

fn security(host: &Fields) -> Result<Vec<String>, Refusal> {
    let asked = list(host, "SecurityOpt")?;
    let known = |option: &&String| {
        !matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
    };
    match asked.iter().find(known) {
        Some(other) => Err(Refusal::forbidden(format!(
            "HostConfig.SecurityOpt: {other:?} would take something off that a run's containers have: leave it out"
        ))),
        None => Ok(asked),
    }
}

fn fields(body: &[u8]) -> Result<Fields, Refusal> {
    let read: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::malformed(format!("the body cannot be read as JSON: {error}")))?;
    match without_empty(read) {
        Value::Object(fields) => Ok(fields),
        _ => Err(Refusal::malformed("the body is no object")),
    }
}

fn fields_of(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// The object in a field, which goes out of it; an empty one where there is none.
fn taken(from: &mut Fields, field: &str) -> Result<Fields, Refusal> {
    match from.remove(field) {
        None => Ok(Fields::new()),
        Some(value @ Value::Object(_)) => match without_empty(value) {
            Value::Object(fields) => Ok(fields),
            _ => Ok(Fields::new()),
        },
        Some(_) => Err(Refusal::malformed(format!("{field} is no object"))),
    }
}

fn list(host: &Fields, field: &str) -> Result<Vec<String>, Refusal> {
    let Some(value) = host.get(field) else { return Ok(Vec::new()) };
    serde_json::from_value(value.clone()).map_err(|error| Refusal::malformed(format!("{field}: {error}")))
}

fn only(asked: &Fields, known: &[&[&str]], before: &str) -> Result<(), Refusal> {
    match asked.keys().find(|field| !known.iter().any(|known| known.contains(&field.as_str()))) {
        None => Ok(()),
        Some(field) => Err(Refusal::forbidden(format!(
            "{before}{field} is nothing that a run may ask for: leave it out"
        ))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// An object without the fields that say nothing. Only its own: what is in them may be lists and maps that mean it.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect())
        }
        other => other,
    }
}

/// Takes everything out that says nothing, however deep.
fn hollow(fields: &mut Fields) {
    for value in fields.values_mut() {
        if let Value::Object(inner) = value {
            hollow(inner);
        }
    }
    fields.retain(|_, value| !is_empty(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            run: RunId::from_random(7),
            slice: "interceptor.slice".into(),
            driver: CgroupDriver::Cgroupfs,
            folder: "/home/ci/work".into(),
        }
    }

    fn made(body: &Value) -> Result<Rewritten, Refusal> {
        owner().container(body.to_string().as_bytes(), None)
    }

    /// What the command line client sends for `docker run image`.
    fn plain() -> Value {
        json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "Tty": false,
            "Env": null, "Cmd": ["true"], "Image": "base", "Volumes": {}, "WorkingDir": "", "Entrypoint": null,
            "OnBuild": null, "Labels": { LABEL: "another" },
            "HostConfig": {
                "Binds": ["/home/ci/work/a:/a:ro"], "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": {} },
                "NetworkMode": "default", "PortBindings": { "5432/tcp": [{ "HostIp": "", "HostPort": "" }] },
                "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "CapAdd": null, "Privileged": false,
                "PidMode": "", "MemorySwappiness": -1, "OomKillDisable": false, "Devices": [], "Memory": 1_000_000,
            },
            "NetworkingConfig": { "EndpointsConfig": { "default": { "IPAMConfig": null, "Aliases": null } } },
        })
    }

    #[test]
    fn what_is_made_is_the_runs() {
        let Rewritten { body, container, image } = made(&plain()).expect("nothing against it");
        let host = &body["HostConfig"];
        assert_eq!(body["Labels"][LABEL], json!(owner().run.to_string()), "whatever was asked");
        assert_eq!(host["CgroupParent"], json!(format!("/interceptor.slice/{}/containers", owner().run)));
        assert_eq!((&host["Runtime"], &host["NetworkMode"]), (&json!("interceptor"), &json!("host")));
        assert_eq!(host["Mounts"][0]["Source"], "/home/ci/work/a");
        assert_eq!((&host["Mounts"][0]["ReadOnly"], &host["Memory"]), (&json!(true), &json!(1_000_000)));
        assert!(host.get("Binds").is_none() && host.get("PortBindings").is_none());
        assert!(host["CapDrop"].as_array().is_some_and(|all| all.contains(&json!("NET_RAW"))));
        assert_eq!((container.shows, container.published.len(), image.as_str()), (Shows::Folder, 1, "base"));
    }

    #[test]
    fn what_no_run_may_have_is_refused_and_named() {
        let refused = [
            ("Privileged", json!(true)),
            ("Devices", json!([{ "PathOnHost": "/dev/sda" }])),
            ("PidMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("UTSMode", json!("host")),
            ("IpcMode", json!("container:other")),
            ("NetworkMode", json!("container:other")),
            ("NetworkMode", json!("none")),
            ("CgroupnsMode", json!("host")),
            ("CgroupParent", json!("/")),
            ("Runtime", json!("sysbox")),
            ("VolumesFrom", json!(["other"])),
            ("CapAdd", json!(["SYS_ADMIN"])),
            ("CapAdd", json!(["ALL"])),
            ("SecurityOpt", json!(["seccomp=unconfined"])),
            ("RestartPolicy", json!({ "Name": "always" })),
            ("Sysctls", json!({ "net.ipv4.ip_forward": "1" })),
            ("MaskedPaths", json!(["/none"])),
            ("Annotations", json!({ "a": "b" })),
            ("PortBindings", json!({ "80/tcp": [{ "HostPort": "8080" }] })),
            ("LogConfig", json!({ "Type": "syslog" })),
            ("Unheard", json!(1)),
        ];
        for (field, value) in refused {
            let mut body = plain();
            body["HostConfig"][field] = value.clone();
            let Refusal { text, .. } = made(&body).expect_err(field);
            assert!(text.contains(field), "{field} {value}: {text}");
        }
        for (field, value) in [("MacAddress", json!("02:00:00:00:00:01")), ("Unheard", json!([1]))] {
            let mut body = plain();
            body[field] = value;
            assert!(made(&body).is_err(), "{field}");
        }
        let mut body = plain();
        body["NetworkingConfig"]["EndpointsConfig"]["default"]["Aliases"] = json!(["db"]);
        assert!(made(&body).is_err_and(|refusal| refusal.text.contains("share its network")));
        assert!(owner().container(b"[]", None).is_err() && owner().container(b"{", None).is_err());
    }

    #[test]
    fn only_the_working_folder_is_shown() {
        for bind in [
            "/etc:/x",
            "/:/x",
            "/home/ci/work/../x:/x",
            "/home/ci/workx:/x",
            "/run/docker.sock:/x",
            "name:/x",
            "/home/ci/work:/x:z",
            "/home/ci/work:/x:rshared",
            "/home/ci/work",
        ] {
            let mut body = plain();
            body["HostConfig"]["Binds"] = json!([bind]);
            assert!(made(&body).is_err(), "{bind}");
        }
        for mount in [
            json!({ "Type": "bind", "Source": "/etc", "Target": "/x" }),
            json!({ "Type": "volume", "Source": "named", "Target": "/x" }),
            json!({ "Type": "npipe", "Source": "a", "Target": "/x" }),
            json!({ "Type": "bind", "Source": "/home/ci/work", "Target": "/x", "BindOptions": { "Propagation": "shared" } }),
            json!({ "Type": "volume", "Target": "/x", "VolumeOptions": { "DriverConfig": { "Name": "x" } } }),
        ] {
            let mut body = plain();
            body["HostConfig"]["Mounts"] = json!([mount]);
            assert!(made(&body).is_err(), "{mount}");
        }
    }

    #[test]
    fn a_command_has_no_more_than_its_container() {
        assert!(command(br#"{"Cmd": ["true"], "Privileged": false}"#).is_ok());
        assert!(command(br#"{"Cmd": ["true"], "Privileged": true}"#).is_err());
        let named = command(br#"{"Cmd": ["true"], "Container": "another"}"#).expect("nothing against it");
        assert_eq!(named, json!({ "Cmd": ["true"] }));
        assert!(
            start(b"").is_ok() && start(br#"{"Detach": true}"#).is_ok() && start(br#"{"X": 1}"#).is_err()
        );
    }
}
