//! Live runs on disk, so that a new helper can take them over.
//!
//! The folder is root's and gone after a reboot, as are the runs. A description is believed only as far as the
//! kernel confirms it: the process, its start time and its cgroup.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use interceptor_core::model::{Run, RunId};
use serde::{Deserialize, Serialize};

use super::{cgroup::Tree, executable::start_ticks, kept::Keeping, messages::Ports};
use crate::places::Places;

/// What is needed to serve a run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    /// The run.
    pub(super) run: Run,
    /// Its first process, in the host's pid namespace.
    pub(super) init: u32,
    /// When that process started, in clock ticks since boot.
    pub(super) init_start: u64,
    /// The ports of its listeners.
    pub(super) ports: Ports,
    /// How far its capture has come.
    #[serde(default)]
    pub(super) progress: Progress,
    /// Connections from before that go on.
    #[serde(default)]
    pub(super) keeping: Option<Keeping>,
}

/// How far the capture of a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// It stays when its launcher is gone.
    #[default]
    Settled,
    /// Its cgroup is captured in its place, and its launcher has not said that this holds.
    Tried,
}

impl Described {
    /// Describes a run whose first process is `init`.
    pub(super) fn new(run: Run, init: u32, ports: Ports) -> io::Result<Self> {
        let init_start =
            start_ticks(init).ok_or_else(|| io::Error::other("the run's first process is gone"))?;
        Ok(Self { run, init, init_start, ports, progress: Progress::Settled, keeping: None })
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, places: &Places) -> io::Result<()> {
        write_whole(&path_of(places, self.run.id), &serde_json::to_vec(self)?)
    }

    /// That of one run.
    pub(super) fn find(places: &Places, run: RunId) -> Option<Self> {
        Self::all(places).into_iter().find(|described| described.run.id == run)
    }

    /// All that are there; what cannot be read describes nothing.
    pub(super) fn all(places: &Places) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(places.runs()) else { return Vec::new() };
        let json = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"));
        json.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
    }

    /// Whether its first process is still that process, and in its cgroup.
    pub(super) fn is_alive(&self, tree: &Tree) -> bool {
        start_ticks(self.init) == Some(self.init_start)
            && tree.holds(&tree.directory(&self.run.cgroup), self.init)
    }
}

/// Writes a file of a run, whole or not at all.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    io::Write::write_all(&mut file, text)?;
    fs::rename(unfinished, path)
}

/// Removes a run's description with what is noted beside it, and the sockets that a launcher which was killed left there.
pub(super) fn forget(places: &Places, run: RunId) {
    for path in [path_of(places, run), places.marks(run), places.door(run), places.calls(run)] {
        let _ = fs::remove_file(path);
    }
}

fn path_of(places: &Places, run: RunId) -> PathBuf {
    places.runs().join(format!("{run}.json"))
}
