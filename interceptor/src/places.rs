//! Where things are on disk, in the cgroup tree and on bpffs. One value, made once; nobody else spells a path.

use std::path::{Path, PathBuf};

use interceptor_core::model::RunId;
use sha2::{Digest, Sha256};

/// The fixed places of one installation, or of a private one under a root folder (`--root`), of which several can
/// live side by side on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    configuration: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    instance: Option<String>,
}

impl Places {
    /// The installation of this host.
    pub fn system() -> Self {
        Self {
            configuration: "/etc/interceptor".into(),
            state: "/var/lib/interceptor".into(),
            runtime: "/run/interceptor".into(),
            instance: None,
        }
    }

    /// A private installation whose every path lies under `root`.
    pub fn under(root: &Path) -> Self {
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        Self {
            configuration: root.join("etc"),
            state: root.join("var"),
            runtime: root.join("run"),
            instance: Some(hex::encode(&digest[..4])),
        }
    }

    /// `resources.toml`, `agents.toml`, `policies/`, `credentials/`, `interceptor.toml`.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Secrets that the keeper reads.
    pub fn credentials(&self) -> PathBuf {
        self.configuration.join("credentials")
    }

    /// The policy folder: `*.cedar` and `*.expect.toml`.
    pub fn policies(&self) -> PathBuf {
        self.configuration.join("policies")
    }

    /// What survives a restart. Owned by root.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Segments, checkpoints, index and journal. Owned by the keeper.
    pub fn audit(&self) -> PathBuf {
        self.state.join("audit")
    }

    /// Notes of releases that no daemon has recorded yet. Owned by root.
    pub fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }

    /// What was saved for a rescue, and the note of one that lasts. Owned by root, read by all roles.
    pub fn rescue(&self) -> PathBuf {
        self.state.join("rescue")
    }

    /// The CA's key and certificate. Owned by the keeper.
    pub fn authority(&self) -> PathBuf {
        self.state.join("ca")
    }

    /// Sockets and descriptions of live runs; gone after a reboot.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The operator's socket, served by the proxy.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The approvers' socket, served by the proxy.
    pub fn approvals_socket(&self) -> PathBuf {
        self.runtime.join("approvals.sock")
    }

    /// The launcher's socket, served by the helper; root only.
    pub fn launch_socket(&self) -> PathBuf {
        self.runtime.join("launch.sock")
    }

    /// The socket of the process that holds listeners when no daemon lives; root only.
    pub fn holder_socket(&self) -> PathBuf {
        self.runtime.join("holder.sock")
    }

    /// One file per live run, written by the helper.
    pub fn runs(&self) -> PathBuf {
        self.runtime.join("runs")
    }

    /// Which sockets a run's listeners are, by the kernel's numbers.
    pub fn marks(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.marks"))
    }

    /// Where a run's launcher admits its containers; root only.
    pub fn door(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.door"))
    }

    /// Where a container's calls on Unix sockets come to wait; root only.
    pub fn calls(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.calls"))
    }

    /// The name of the permanent cgroup below the cgroup2 root that captured runs are children of.
    pub fn slice(&self) -> String {
        self.named("interceptor", ".slice")
    }

    /// The name of the cgroup that the daemon's own processes live in.
    pub fn daemon_cgroup(&self) -> String {
        self.named("interceptord", "")
    }

    /// The folder on bpffs that holds links and maps.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(self.named("interceptor", ""))
    }

    /// The name of the authority in the host's trust store.
    pub fn anchor(&self) -> String {
        self.named("interceptor-ca", "")
    }

    /// What the names of the installation's nftables tables begin with.
    pub fn table(&self) -> String {
        self.named("interceptor", "")
    }

    fn named(&self, stem: &str, end: &str) -> String {
        match &self.instance {
            None => format!("{stem}{end}"),
            Some(instance) => format!("{stem}-{instance}{end}"),
        }
    }
}
