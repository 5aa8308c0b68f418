//! Captured cgroups are let go of for a while, with no daemon there: by the pinned map of runs alone.
//!
//! Promise: it ends by itself, by the kernel's clock, whoever is there or not; what it opened is refused from then on. A run
//! that has a network of its own is not let go of: out of that nothing leads.

use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use interceptor_common::{RunConfig, names};
use interceptor_core::model::RunId;

use super::{
    KernelError,
    maps::{boot_ns, pinned},
    pins::Pins,
};
use crate::places::Places;

/// The runs that the kernel side of an installation knows, whether or not a daemon lives.
pub struct KnownRuns(HashMap<MapData, u64, RunConfig>);

impl KnownRuns {
    /// From the pins. Needs root.
    pub fn open(places: &Places) -> Result<Self, KernelError> {
        let map = pinned(&Pins::of(places).maps(), names::RUNS)?;
        let runs = Map::HashMap(map).try_into();
        Ok(Self(runs.map_err(KernelError::refused(format!("map {}", names::RUNS)))?))
    }

    /// Lets go of a run from now on, for `time`.
    pub fn let_go(&mut self, run: RunId, time: Duration) -> Result<(), KernelError> {
        let found = self.0.iter().flatten().find(|(_, known)| known.run == run.as_u64());
        let (cgroup, known) = found.ok_or(KernelError::Unknown(run))?;
        if known.flags & RunConfig::OWN_NETNS != 0 {
            return Err(KernelError::OwnNetwork(run));
        }
        let until = boot_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.0
            .insert(cgroup, RunConfig { released_until: until, ..known }, EXISTS)
            .map_err(KernelError::refused(format!("to let go of run {run}")))
    }

    /// For how much longer a run is let go of: nothing at all where that is over, none where it never was.
    pub fn released_for(&self, run: RunId) -> Option<Duration> {
        left(self.0.iter().flatten(), run)
    }
}

impl std::fmt::Debug for KnownRuns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnownRuns")
    }
}

/// `BPF_EXIST`: one that has ended meanwhile does not come back.
const EXISTS: u64 = 2;

/// For how much longer a run among these is let go of: nothing at all where that is over, none where it never was.
pub(super) fn left(runs: impl Iterator<Item = (u64, RunConfig)>, run: RunId) -> Option<Duration> {
    let mut own = runs.filter(|(_, known)| known.run == run.as_u64());
    let until = own.next()?.1.released_until;
    (until != 0).then(|| Duration::from_nanos(until.saturating_sub(boot_ns())))
}
