//! `interceptor.toml`: how the daemon itself behaves. Every key has a default, and the file may be missing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    gate::Durability,
    kernel::layer::{Labels, Layer, Wanted},
    rescue::RescueError,
};

/// Why the settings could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// What was saved for a rescue cannot be used.
    #[error(transparent)]
    Rescue(#[from] RescueError),
    /// It says something wrong.
    #[error("{0}: {1}")]
    Wrong(PathBuf, String),
}

/// Whether people may approve on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalApproval {
    /// From log-in sessions.
    On,
    /// Nobody may.
    Off,
}

/// The daemon's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// When a permit may be minted.
    pub durability: Durability,
    /// The size of the journal between proxy and keeper, in MiB.
    pub journal_mib: u64,
    /// How much one run may write to the store, in MiB.
    pub run_quota_mib: u64,
    /// How much different names one run may have looked up in an hour, in KiB.
    pub run_names_kib: u64,
    /// How much the store may hold, in MiB; sealed segments beyond it are removed, oldest first.
    pub store_mib: u64,
    /// Where approvers hear what waits for them: `https://...`, or `http://` on this host's loopback.
    pub webhook: Option<String>,
    /// Whether people may approve on this host, over its own socket; by default where no CI jobs run.
    local_approval: Option<LocalApproval>,
    /// The program that gives a second opinion of SQL texts, if there is to be one.
    pub second_opinion: Option<PathBuf>,
    /// Whether there are to be LSM programs.
    lsm: Wanted,
    /// What says that a process is captured.
    labels: Labels,
    /// Unix sockets of the host's that captured processes may use although LSM programs refuse all others.
    unix_sockets: Vec<PathBuf>,
    /// Sealed segments younger than this are kept in any case, in days.
    pub retention_days: u32,
}

/// The host's own log, and where its service manager hears that a service is ready: a service that is captured would else have
/// no log, and might not start.
const LEFT_OPEN: [&str; 4] = [
    "/run/systemd/notify",
    "/run/systemd/journal/stdout",
    "/run/systemd/journal/socket",
    "/run/systemd/journal/dev-log",
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            journal_mib: 16,
            run_quota_mib: 1024,
            run_names_kib: 16,
            store_mib: 16 * 1024,
            webhook: None,
            local_approval: None,
            second_opinion: None,
            lsm: Wanted::Available,
            labels: Labels::Cgroup,
            unix_sockets: LEFT_OPEN.map(PathBuf::from).into(),
            retention_days: 90,
        }
    }
}

impl Settings {
    /// The file's name.
    pub const FILE: &'static str = "interceptor.toml";

    /// Whether people may approve on this host. Where the daemon was started in a CI job, whoever is logged in is
    /// likely to be the job.
    pub fn local_approval(&self) -> LocalApproval {
        let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        self.local_approval.unwrap_or(if is_ci { LocalApproval::Off } else { LocalApproval::On })
    }

    /// What is wanted of LSM programs.
    pub fn layer(&self) -> Layer {
        Layer { wanted: self.lsm, labels: self.labels, open: self.unix_sockets.clone() }
    }

    /// Reads the settings in a folder.
    pub fn read(folder: &Path) -> Result<Self, SettingsError> {
        let path = folder.join(Self::FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(SettingsError::Read(path, error)),
        };
        let settings: Self =
            toml::from_str(&text).map_err(|error| SettingsError::Wrong(path.clone(), error.to_string()))?;
        let bounds = [
            ("journal-mib", settings.journal_mib, 4, 1024),
            ("run-quota-mib", settings.run_quota_mib, 1, 1 << 20),
            ("run-names-kib", settings.run_names_kib, 1, 1 << 20),
            ("store-mib", settings.store_mib, 64, 1 << 30),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                let text = format!("{key} = {value} is out of bounds: use {least} to {most}");
                return Err(SettingsError::Wrong(path, text));
            }
        }
        if settings.labels == Labels::Strict && settings.lsm != Wanted::Required {
            let text = "labels = \"strict\" is kept by LSM programs: say lsm = \"required\", too";
            return Err(SettingsError::Wrong(path, text.to_owned()));
        }
        let most = interceptor_common::MAX_PEERS as usize;
        if settings.unix_sockets.len() > most || settings.unix_sockets.iter().any(|path| !path.is_absolute())
        {
            let text = format!("unix-sockets takes up to {most} paths from the root: /run/...");
            return Err(SettingsError::Wrong(path, text));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join(Settings::FILE), text).expect("write");
        Settings::read(folder.path())
    }

    #[test]
    fn strict_labels_want_all_of_the_programs() {
        let layer = read("lsm = \"required\"\nlabels = \"strict\"\n").expect("good").layer();
        assert_eq!((layer.wanted, layer.labels), (Wanted::Required, Labels::Strict));
        assert_eq!(layer.open.len(), LEFT_OPEN.len());
        for wrong in ["labels = \"strict\"\n", "lsm = \"off\"\nlabels = \"strict\"\n"] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("lsm = \"required\""), "{error}");
        }
        assert!(read("lsm = \"yes\"\n").is_err());
        assert!(read("unix-sockets = [\"run/log\"]\n").is_err());
        assert!(read("unix-sockets = []\n").expect("good").layer().open.is_empty());
    }
}
