//! Connections from before their run's capture that root lets go on for a while, by the cookies of their sockets.
//!
//! Promise: the time is the kernel's to keep: past it nothing of theirs is sent, whoever is there or not. A cookie is never
//! given again, so that an entry which is left behind lets nobody else by.

use std::{path::Path, sync::Mutex, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use interceptor_common::{Kept, names};
use interceptor_core::model::RunId;

use super::{
    KernelError,
    maps::{boot_ns, lock, pinned},
};

/// All of one installation's.
pub(super) struct KeptConnections(Mutex<HashMap<MapData, u64, Kept>>);

impl KeptConnections {
    pub(super) fn open(maps: &Path) -> Result<Self, KernelError> {
        let map = Map::HashMap(pinned(maps, names::KEPT)?).try_into();
        Ok(Self(Mutex::new(map.map_err(KernelError::refused(format!("map {}", names::KEPT)))?)))
    }

    pub(super) fn insert(&self, run: RunId, cookies: &[u64], time: Duration) -> Result<(), KernelError> {
        let until = boot_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut map = lock(&self.0);
        cookies.iter().try_for_each(|cookie| {
            map.insert(cookie, Kept { run: run.as_u64(), until }, 0)
                .map_err(KernelError::refused("more connections from before: there may be too many"))
        })
    }

    pub(super) fn remove(&self, cookies: &[u64]) {
        let mut map = lock(&self.0);
        // One that is not there is as good as removed.
        cookies.iter().for_each(|cookie| drop(map.remove(cookie)));
    }

    pub(super) fn forget(&self, run: RunId) {
        let of_run = |(cookie, kept): (u64, Kept)| (kept.run == run.as_u64()).then_some(cookie);
        let cookies: Vec<u64> = lock(&self.0).iter().flatten().filter_map(of_run).collect();
        self.remove(&cookies);
    }

    /// For how much longer those of a run may go on; none where it has none.
    pub(super) fn left(&self, run: RunId) -> Option<Duration> {
        let map = lock(&self.0);
        let mut own = map.iter().flatten().filter(|(_, kept)| kept.run == run.as_u64());
        own.next().map(|(_, kept)| Duration::from_nanos(kept.until.saturating_sub(boot_ns())))
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).keys().next().is_none()
    }
}
