//! The maps that the unprivileged proxy works with, from descriptors that the helper hands over.
//!
//! It gets the handshakes, the heartbeat, the counters and the events; never the runs or the settings, so that a
//! proxy that has been taken over cannot redirect a run elsewhere or open the host.

use std::{
    fmt,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use interceptor_common::{Counter, TupleKey, names};
use interceptor_core::model::RunId;
use nix::time::{ClockId, clock_gettime};

use super::{
    KernelError,
    abi::{Flow, tuple_key},
    events::EventReader,
};

/// The maps handed to the proxy, in the order of their descriptors.
const HANDED: [&str; 4] = [names::TUPLES, names::HEARTBEAT, names::COUNTERS, names::EVENTS];

/// The proxy's view of the kernel side.
pub struct KernelMaps {
    tuples: Mutex<HashMap<MapData, TupleKey, interceptor_common::Flow>>,
    heartbeat: Mutex<Array<MapData, u64>>,
    counters: PerCpuArray<MapData, u64>,
    events: MapData,
    handed: [OwnedFd; 4],
}

impl KernelMaps {
    /// From what [`KernelMaps::descriptors`] gave in another process. Needs no privilege.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Result<Self, KernelError> {
        let count = descriptors.len();
        let mut data = descriptors.into_iter().map(|fd| {
            MapData::from_fd(fd).map_err(KernelError::refused("to describe a map that was handed over"))
        });
        let mut next = || data.next().ok_or(KernelError::Descriptors(count))?;
        let (tuples, heartbeat, counters, events) = (next()?, next()?, next()?, next()?);
        Self::from_data(tuples, heartbeat, counters, events)
    }

    /// From the pins.
    pub(super) fn from_pins(folder: &std::path::Path) -> Result<Self, KernelError> {
        let [tuples, heartbeat, counters, events] = HANDED.map(|name| pinned(folder, name));
        Self::from_data(tuples?, heartbeat?, counters?, events?)
    }

    fn from_data(
        tuples: MapData,
        heartbeat: MapData,
        counters: MapData,
        events: MapData,
    ) -> Result<Self, KernelError> {
        let unfit = |name: &'static str| KernelError::refused(format!("map {name}"));
        let handed = [copy(&tuples)?, copy(&heartbeat)?, copy(&counters)?, copy(&events)?];
        Ok(Self {
            handed,
            tuples: Mutex::new(Map::HashMap(tuples).try_into().map_err(unfit(names::TUPLES))?),
            heartbeat: Mutex::new(Map::Array(heartbeat).try_into().map_err(unfit(names::HEARTBEAT))?),
            counters: Map::PerCpuArray(counters).try_into().map_err(unfit(names::COUNTERS))?,
            events,
        })
    }

    /// What to hand over. The order is part of the agreement with [`KernelMaps::from_descriptors`].
    pub fn descriptors(&self) -> Result<Vec<OwnedFd>, KernelError> {
        let copies = self.handed.iter().map(OwnedFd::try_clone);
        copies.collect::<Result<_, _>>().map_err(KernelError::refused("a copy of a map's descriptor"))
    }

    /// Where an accepted client was really going. Answers once: the entry is gone afterwards. None means that the
    /// connection must be rejected, for whatever reason.
    pub fn take_flow(&self, run: RunId, client: SocketAddr) -> Option<Flow> {
        let key = tuple_key(run, client);
        let mut tuples = lock(&self.tuples);
        let flow = tuples.get(&key, 0).ok()?;
        if let Err(error) = tuples.remove(&key) {
            // Read by somebody else as well, or not ours to remove: then it cannot be trusted to be read once.
            tracing::warn!(%error, %run, "a handshake's entry could not be removed");
            return None;
        }
        Flow::from_raw(&flow).filter(|flow| flow.run == run)
    }

    /// Shows the kernel side that we are alive and working.
    pub fn beat(&self) -> Result<(), KernelError> {
        lock(&self.heartbeat).set(0, monotonic_ns(), 0).map_err(KernelError::refused("the heartbeat"))
    }

    /// What the kernel side has counted.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let mut values = Vec::with_capacity(Counter::ALL.len());
        for counter in Counter::ALL {
            let per_cpu = self
                .counters
                .get(&(*counter as u32), 0)
                .map_err(KernelError::refused("a look at its counters"))?;
            values.push((*counter, per_cpu.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value))));
        }
        Ok(Counters(values))
    }

    /// The ring of events. There must be one reader per installation.
    pub fn events(&self) -> Result<EventReader, KernelError> {
        let data =
            MapData::from_fd(copy(&self.events)?).map_err(KernelError::refused("the ring of events"))?;
        let ring =
            RingBuf::try_from(Map::RingBuf(data)).map_err(KernelError::refused("the ring of events"))?;
        Ok(EventReader::new(ring))
    }
}

impl fmt::Debug for KernelMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelMaps")
    }
}

/// Totals since the maps were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(Vec<(Counter, u64)>);

impl Counters {
    /// One total.
    pub fn of(&self, counter: Counter) -> u64 {
        self.iter().find(|(each, _)| *each == counter).map_or(0, |(_, value)| value)
    }

    /// All totals.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        self.0.iter().copied()
    }
}

fn copy(map: &MapData) -> Result<OwnedFd, KernelError> {
    map.fd().as_fd().try_clone_to_owned().map_err(KernelError::refused("a copy of a map's descriptor"))
}

/// A pinned map.
pub(super) fn pinned(folder: &std::path::Path, name: &str) -> Result<MapData, KernelError> {
    MapData::from_pin(folder.join(name)).map_err(KernelError::refused(format!("map {name}")))
}

/// Now, on the clock that the kernel side uses.
pub(super) fn monotonic_ns() -> u64 {
    now_ns(ClockId::CLOCK_MONOTONIC)
}

/// Now, on the clock that releases are kept by: it goes on while the host sleeps.
pub(super) fn boot_ns() -> u64 {
    now_ns(ClockId::CLOCK_BOOTTIME)
}

fn now_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec()).unwrap_or(0))
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps have no state of ours that a panic could leave half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
