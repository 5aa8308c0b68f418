//! A container that its runtime is just making, as a `createRuntime` hook is told of it on standard input.
//!
//! Promise: it is captured before anything of its own runs. Its first process is the runtime's still, as root; what it will
//! be stands in the bundle that the runtime makes it from, and that is what is looked at. Anything that the runtime says and
//! that is not so, and anything that it does not say, is a refusal; the runtime then makes no container.
//!
//! Format: "State" and "Configuration" of the OCI runtime specification 1.0 and later.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    super::{LaunchError, step},
    container,
    tree::{self, AROUND, Process},
};
use crate::helper::{cgroup::Tree, in_place::InPlace};

/// The longest state that is read. Runtimes write a few hundred bytes, and whatever annotations there are.
const LONGEST_STATE: u64 = 1 << 20;
/// The longest configuration that is read.
const LONGEST_CONFIGURATION: u64 = 16 << 20;

/// What a runtime says of a container that it makes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Created {
    id: String,
    status: String,
    pid: u32,
    bundle: PathBuf,
}

/// What the runtime makes it from; the part that is read.
#[derive(Debug, Deserialize)]
struct Configuration {
    process: Wanted,
    #[serde(default)]
    linux: Linux,
}

/// The process that it will be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    user: User,
    args: Vec<String>,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Debug, Deserialize)]
struct User {
    uid: u32,
}

/// Sets out of which a process can take what it needs. The bounding set alone gives nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    effective: Vec<String>,
    permitted: Vec<String>,
    inheritable: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
}

impl Created {
    /// Reads what the runtime says.
    pub fn read(from: impl Read) -> Result<Self, LaunchError> {
        let mut from = from.take(LONGEST_STATE);
        parsed(&mut from).map_err(step("understand what the runtime says of the container"))
    }

    /// Its cgroup, and its first process as it will be.
    pub(super) fn find(&self, cgroups: &Tree) -> Result<(PathBuf, Process), LaunchError> {
        let no = |why: String| Err(LaunchError::Obstacle(why));
        let Self { id, status, pid, bundle } = self;
        if status != "creating" {
            return no(format!(
                "container {id} is {status:?}, and its first program may have run: call this as a `createRuntime` hook, or \
                 capture it by `--container`"
            ));
        }
        let path = bundle.join("config.json");
        let mut file = fs::File::open(&path)
            .map_err(step("open the container's configuration"))?
            .take(LONGEST_CONFIGURATION);
        let Configuration { process: wanted, linux } =
            parsed(&mut file).map_err(step("understand the container's configuration"))?;
        if linux.namespaces.iter().any(|namespace| namespace.kind == "user") {
            return no(format!(
                "container {id} has users of its own, whose rights on this host nothing says: make it without a user namespace"
            ));
        }
        let cgroup = Tree::cgroup_of(&pid.to_string()).map_err(step("look at the container's cgroup"))?;
        let directory = cgroups.directory(&cgroup);
        container::is_alone(&directory, id)?;
        let process = Process {
            uid: wanted.user.uid,
            executable: wanted.args.first().cloned().unwrap_or_default(),
            command: wanted.args,
            capabilities: wanted.capabilities.around(),
            ..tree::read(*pid).map_err(step("look at the container's first process"))?
        };
        Ok((directory, process))
    }

    /// The first process as it will be, if nothing else is in its cgroup.
    pub(super) fn alone(cgroup: &InPlace, first: &Process) -> Result<Vec<Process>, LaunchError> {
        match &*Tree::processes(cgroup.directory()) {
            [pid] if *pid == first.pid => Ok(vec![first.clone()]),
            others => Err(LaunchError::Obstacle(format!(
                "{} has {} processes, where the runtime made one: have it make a cgroup for each container",
                cgroup.directory().display(),
                others.len()
            ))),
        }
    }
}

impl Capabilities {
    /// Those that lead around, as a set of the kernel's.
    fn around(&self) -> u64 {
        let Self { effective, permitted, inheritable, ambient } = self;
        let named = [effective, permitted, inheritable, ambient].into_iter().flatten();
        let plain = named.map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase());
        plain.fold(0, |set, name| {
            let found = AROUND.iter().find(|(_, known)| *known == name);
            found.map_or(set, |(number, _)| set | 1 << number)
        })
    }
}

fn parsed<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut text = Vec::new();
    from.read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;

    fn state(status: &str, bundle: &std::path::Path) -> Created {
        let text = serde_json::json!({
            "ociVersion": "1.0.2", "id": "one", "status": status, "pid": std::process::id(), "bundle": bundle,
        });
        Created::read(text.to_string().as_bytes()).expect("a state")
    }

    #[test]
    fn what_a_runtime_does_not_say_is_refused() {
        let cgroups = Tree::find(&Places::system()).expect("cgroup2");
        let bundle = tempfile::tempdir().expect("a folder");
        assert!(Created::read(&b""[..]).is_err());
        assert!(Created::read(&b"{\"id\": \"one\"}"[..]).is_err());
        let missing = state("creating", bundle.path()).find(&cgroups);
        assert!(matches!(missing, Err(LaunchError::Step { .. })), "{missing:?}");
        fs::write(bundle.path().join("config.json"), "{\"process\": {\"args\": [\"a\"]}}")
            .expect("own folder");
        let unsaid = state("creating", bundle.path()).find(&cgroups);
        assert!(matches!(unsaid, Err(LaunchError::Step { .. })), "{unsaid:?}");
        let late = state("running", bundle.path()).find(&cgroups);
        assert!(matches!(late, Err(LaunchError::Obstacle(_))), "{late:?}");
    }

    #[test]
    fn every_set_that_gives_counts() {
        let of = |text: &str| serde_json::from_str::<Capabilities>(text).expect("sets").around();
        assert_eq!(of("{\"bounding\": [\"CAP_NET_RAW\"], \"permitted\": [\"CAP_KILL\"]}"), 0);
        for set in ["effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(of(&format!("{{\"{set}\": [\"CAP_KILL\", \"CAP_NET_RAW\"]}}")), 1 << 13, "{set}");
        }
    }
}
