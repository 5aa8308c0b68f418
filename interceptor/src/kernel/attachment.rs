//! One installation's programs, links and maps: what the root helper holds.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
};
use interceptor_common::{
    ABI_VERSION, Config, Flow, ProcessKey, ProcessValue, RUN_LEVELS, RunConfig, TupleKey,
    names::{
        self, CGROUP_PROGRAMS, GUARD_PROGRAMS, KEPT_GUARD, LABEL_PROGRAMS, TRACEPOINT_PROGRAMS, UNIX_LINKS,
    },
};
use interceptor_core::model::RunId;

use super::{
    KernelError, KernelLog, KernelMaps,
    abi::RunSettings,
    cgroup,
    kept::KeptConnections,
    layer::{self, Labels, Layer, LayerMaps, Standing},
    load,
    maps::{lock, monotonic_ns, pinned},
    pins::{self, Pins},
    release,
};
use crate::places::Places;

/// How old the heartbeat may be before captured connections are refused.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(2);

/// The kernel side of one installation, in force. Dropping it changes nothing in the kernel.
pub struct Attachment {
    slice: PathBuf,
    pins: Pins,
    config: Mutex<Array<MapData, Config>>,
    runs: Mutex<HashMap<MapData, u64, RunConfig>>,
    flows: Mutex<HashMap<MapData, u64, Flow>>,
    tuples: Mutex<HashMap<MapData, TupleKey, Flow>>,
    usage: Mutex<HashMap<MapData, u64, u64>>,
    processes: HashMap<MapData, ProcessKey, ProcessValue>,
    kept: KeptConnections,
    proxy: KernelMaps,
    held: Mutex<Held>,
    enclosed: Mutex<BTreeMap<RunId, Enclosed>>,
    levels: Mutex<[u32; RUN_LEVELS]>,
    log: Mutex<Option<KernelLog>>,
    layer: Layer,
    layer_maps: LayerMaps,
}

/// Programs in force.
struct Held {
    /// The number of the slice that they are attached to.
    slice: u64,
    _links: Vec<load::Pinned>,
    /// The programs, for cgroups that are not below the slice.
    object: Option<Ebpf>,
    /// The one that ends what is kept, while anything is.
    kept_guard: Option<load::Pinned>,
    /// What there is of the LSM programs.
    standing: Standing,
}

/// Programs in force on a cgroup that is not below the slice.
struct Enclosed {
    level: u32,
    _links: Vec<load::Pinned>,
}

impl Attachment {
    /// Puts the programs in force, or fresh ones in place of those of an earlier daemon, whose maps are taken over.
    /// Captured connections stay refused until the proxy beats. Of the LSM programs there is what `layer` wants and the kernel has.
    pub fn establish(places: &Places, layer: Layer) -> Result<Self, KernelError> {
        layer::check(&layer)?;
        let slice = cgroup::ensure_slice(places)?;
        // One at a time: two daemons that start together must not take each other's pins.
        let turn = File::open(&slice).map_err(KernelError::place("open", &slice))?;
        turn.lock().map_err(KernelError::place("lock", &slice))?;
        let pins = Pins::establish(places)?;
        let mut object = load::object(&pins.maps())?;
        let attachment = Self::open(slice, pins, KernelLog::of(&mut object)?, layer)?;
        attachment.write_config(Config::ENFORCE)?;
        let mut known = attachment.put_in_force(object)?;
        known.extend(CGROUP_PROGRAMS);
        known.extend(GUARD_PROGRAMS);
        known.push(KEPT_GUARD);
        known.extend(UNIX_LINKS.iter().map(|(name, _)| *name));
        known.extend(TRACEPOINT_PROGRAMS.iter().map(|(name, _)| *name));
        attachment.pins.remove_strangers(&known)?;
        if attachment.layer.labels == Labels::Cgroup {
            attachment.layer_maps.clear_labels();
        }
        Ok(attachment)
    }

    /// Says which programs are in force that need not be.
    fn put_in_force(&self, mut object: Ebpf) -> Result<Vec<&'static str>, KernelError> {
        let folder = self.pins.links();
        if !folder.join(LABEL_PROGRAMS[0].0).exists() {
            // What an earlier daemon left has been nobody's to take away.
            self.layer_maps.clear_labels();
        }
        for (path, error) in self.layer_maps.leave_open(&self.layer.open)? {
            tracing::warn!("{} stays closed to attached runs: {error}", path.display());
        }
        // From here to the end of pinning, both the new programs and any old ones are in force.
        let mut links = load::attach_all(&mut object, &self.slice, &cgroup::root()?)?;
        let layer::Attached { links: optional, standing } = layer::attach(&mut object, &self.layer)?;
        let names = optional.iter().map(|(name, _)| *name).collect();
        links.extend(optional);
        let links = replace_pins(&folder, links)?;
        let slice = cgroup::id(&self.slice)?;
        let mut held = lock(&self.held);
        *held = Held { slice, _links: links, object: Some(object), kept_guard: None, standing };
        self.label_all(&mut held)?;
        self.guard_kept(&mut held)?;
        Ok(names)
    }

    /// Gives labels, where they are strict, to whoever is in a run that is known.
    fn label_all(&self, held: &mut Held) -> Result<(), KernelError> {
        match self.layer.labels {
            Labels::Cgroup => Ok(()),
            Labels::Strict => layer::label_all(object_of(held)?),
        }
    }

    /// What there is of the LSM programs.
    pub fn layer(&self) -> Standing {
        lock(&self.held).standing.clone()
    }

    /// Has what is kept ended in time, with programs of this daemon's, where anything is; else takes the guard off.
    fn guard_kept(&self, held: &mut Held) -> Result<(), KernelError> {
        let folder = self.pins.links();
        if self.kept.is_empty() {
            held.kept_guard = None;
            return pins::remove_file(&folder.join(KEPT_GUARD));
        }
        if held.kept_guard.is_none() {
            let link = load::attach_kept_guard(object_of(held)?, &cgroup::root()?)?;
            held.kept_guard = Some(replace_pin(&folder, KEPT_GUARD, link)?);
        }
        Ok(())
    }

    /// Lets connections of a run from before, by the cookies of their sockets, go on for `time`.
    pub fn keep(&self, run: RunId, cookies: &[u64], time: Duration) -> Result<(), KernelError> {
        // First what ends them, then what lets them go on.
        let kept = self.kept.insert(run, cookies, time).and_then(|()| self.guard_kept(&mut lock(&self.held)));
        match kept {
            Ok(()) => self.flag_kept(run),
            Err(error) => {
                self.forget_kept(run)?;
                Err(error)
            }
        }
    }

    /// Forgets connections that are no more.
    pub fn unkeep(&self, run: RunId, cookies: &[u64]) -> Result<(), KernelError> {
        self.kept.remove(cookies);
        self.flag_kept(run)?;
        self.guard_kept(&mut lock(&self.held))
    }

    /// For how much longer a run's connections from before may go on: nothing at all where that is over, none where there are
    /// none.
    pub fn kept_for(&self, run: RunId) -> Option<Duration> {
        self.kept.left(run)
    }

    fn forget_kept(&self, run: RunId) -> Result<(), KernelError> {
        self.kept.forget(run);
        self.guard_kept(&mut lock(&self.held))
    }

    /// Has the programs of a run's cgroup look for what is kept exactly where there is some.
    fn flag_kept(&self, run: RunId) -> Result<(), KernelError> {
        let mut runs = lock(&self.runs);
        let found = runs.iter().flatten().find(|(_, known)| known.run == run.as_u64());
        let Some((cgroup, known)) = found else { return Ok(()) };
        let others = known.flags & !RunConfig::KEEPS;
        let flags = others | self.kept.left(run).map_or(0, |_| RunConfig::KEEPS);
        runs.insert(cgroup, RunConfig { flags, ..known }, 0)
            .map_err(KernelError::refused(format!("to say that run {run} keeps connections")))
    }

    /// Puts the programs in force again where somebody has removed the slice, which takes them with it: whether that was
    /// so. Runs that are captured keep it from being removed.
    pub fn maintain(&self, places: &Places) -> Result<bool, KernelError> {
        // Whoever listens there may have been started again. What is unfit was said at the start.
        let _ = self.layer_maps.leave_open(&self.layer.open)?;
        let slice = cgroup::ensure_slice(places)?;
        if cgroup::id(&slice)? == lock(&self.held).slice {
            return Ok(false);
        }
        let turn = File::open(&slice).map_err(KernelError::place("open", &slice))?;
        turn.lock().map_err(KernelError::place("lock", &slice))?;
        // Maps that were made anew would be others than the proxy has.
        let config = self.pins.maps().join(names::CONFIG);
        fs::symlink_metadata(&config).map_err(KernelError::place("look at", &config))?;
        let mut object = load::object(&self.pins.maps())?;
        *lock(&self.log) = Some(KernelLog::of(&mut object)?);
        self.put_in_force(object)?;
        Ok(true)
    }

    /// Puts the programs in force on a cgroup that is not below the slice, or fresh ones in place of those of an earlier
    /// daemon. What is in it is refused everything until its run is registered.
    pub fn enclose(&self, run: RunId, cgroup: &Path) -> Result<(), KernelError> {
        let level = cgroup::level(cgroup)?;
        let mut levels = lock(&self.levels);
        if !levels.contains(&level) {
            let free = levels.iter_mut().find(|place| **place == 0);
            *free.ok_or_else(|| KernelError::Depths { path: cgroup.into(), level })? = level;
        }
        drop(levels);
        self.write_levels()?;
        let folder = self.pins.ensure_links_of(run)?;
        let mut held = lock(&self.held);
        let links = replace_pins(&folder, load::attach_to(object_of(&mut held)?, cgroup)?)?;
        drop(held);
        lock(&self.enclosed).insert(run, Enclosed { level, _links: links });
        Ok(())
    }

    /// Takes the programs off a cgroup that is not below the slice and forgets its run. The cgroup may be gone.
    pub fn release(&self, run: RunId, cgroup: &Path) -> Result<(), KernelError> {
        for (known, _) in self.runs().into_iter().filter(|(_, known)| *known == run) {
            self.forget_run(known)?;
        }
        let mut enclosed = lock(&self.enclosed);
        enclosed.remove(&run);
        pins::remove_tree(&self.pins.links_of(run))?;
        let level = cgroup::level(cgroup)?;
        let is_used = level == self.slice_level()? || enclosed.values().any(|other| other.level == level);
        if !is_used {
            lock(&self.levels).iter_mut().filter(|place| **place == level).for_each(|place| *place = 0);
        }
        drop(enclosed);
        self.write_levels()
    }

    /// The runs whose cgroups are not below the slice and have programs in force, or had them while the cgroup was there.
    pub fn enclosed(&self) -> Result<Vec<RunId>, KernelError> {
        self.pins.enclosed()
    }

    fn write_levels(&self) -> Result<(), KernelError> {
        let mode = lock(&self.config).get(&0, 0).map_or(Config::DENY_ALL, |config| config.mode);
        self.write_config(mode)
    }

    /// The depth of the slice's children.
    fn slice_level(&self) -> Result<u32, KernelError> {
        Ok(cgroup::level(&self.slice)? + 1)
    }

    fn open(slice: PathBuf, pins: Pins, log: KernelLog, layer: Layer) -> Result<Self, KernelError> {
        let folder = pins.maps();
        let unfit = |name: &'static str| KernelError::refused(format!("map {name}"));
        let hash = |name| pinned(&folder, name).map(Map::HashMap);
        let config = Map::Array(pinned(&folder, names::CONFIG)?);
        let config: Array<MapData, Config> = config.try_into().map_err(unfit(names::CONFIG))?;
        // Those of an earlier daemon stay until its runs are taken over or released.
        let mut levels = match config.get(&0, 0) {
            Ok(before) if before.abi == ABI_VERSION => before.run_levels,
            _ => [0; RUN_LEVELS],
        };
        if let Some(first) = levels.first_mut() {
            *first = cgroup::level(&slice)? + 1;
        }
        Ok(Self {
            config: Mutex::new(config),
            runs: Mutex::new(hash(names::RUNS)?.try_into().map_err(unfit(names::RUNS))?),
            flows: Mutex::new(hash(names::FLOWS)?.try_into().map_err(unfit(names::FLOWS))?),
            tuples: Mutex::new(hash(names::TUPLES)?.try_into().map_err(unfit(names::TUPLES))?),
            usage: Mutex::new(hash(names::USAGE)?.try_into().map_err(unfit(names::USAGE))?),
            processes: hash(names::PROCESSES)?.try_into().map_err(unfit(names::PROCESSES))?,
            proxy: KernelMaps::from_pins(&folder)?,
            kept: KeptConnections::open(&folder)?,
            held: Mutex::new(Held {
                slice: 0,
                _links: Vec::new(),
                object: None,
                kept_guard: None,
                standing: Standing::Off,
            }),
            layer,
            layer_maps: LayerMaps::open(&folder)?,
            enclosed: Mutex::default(),
            levels: Mutex::new(levels),
            log: Mutex::new(Some(log)),
            slice,
            pins,
        })
    }

    /// The folder of the captured slice: each run's cgroup is a child of it.
    pub fn slice(&self) -> &Path {
        &self.slice
    }

    /// What the proxy works with: hand its descriptors over.
    pub fn proxy_maps(&self) -> &KernelMaps {
        &self.proxy
    }

    /// The programs' diagnostics, for whoever will flush them. Given once, and once more where [`Attachment::maintain`] says
    /// so.
    pub fn take_log(&self) -> Option<KernelLog> {
        lock(&self.log).take()
    }

    /// Refuses everything, or not.
    pub fn deny_all(&self, deny: bool) -> Result<(), KernelError> {
        self.write_config(if deny { Config::DENY_ALL } else { Config::ENFORCE })
    }

    fn write_config(&self, mode: u32) -> Result<(), KernelError> {
        let config = Config {
            abi: ABI_VERSION,
            mode,
            heartbeat_limit_ms: u32::try_from(HEARTBEAT_LIMIT.as_millis()).unwrap_or(0),
            run_levels: *lock(&self.levels),
        };
        lock(&self.config).set(0, config, 0).map_err(KernelError::refused("the settings"))
    }

    /// Makes a run known, before its first process. `cgroup` is from [`cgroup::id`].
    pub fn register_run(&self, cgroup: u64, run: RunSettings) -> Result<(), KernelError> {
        self.count_anew(run.run.as_u64())
            .map_err(KernelError::refused(format!("run {}: there may be too many", run.run)))?;
        let mut runs = lock(&self.runs);
        // It may have been let go of while no daemon was there: that holds for as long as was said.
        let before = runs.get(&cgroup, 0).ok().filter(|before| before.run == run.run.as_u64());
        runs.insert(cgroup, run.to_raw(before), 0)
            .map_err(KernelError::refused(format!("run {}: there may be too many", run.run)))?;
        drop(runs);
        self.label_all(&mut lock(&self.held))
    }

    /// For how much longer a run is let go of: nothing at all where that is over, none where it never was.
    pub fn released_for(&self, run: RunId) -> Option<Duration> {
        release::left(lock(&self.runs).iter().flatten(), run)
    }

    /// Forgets a run and what is left of its connections.
    pub fn forget_run(&self, cgroup: u64) -> Result<(), KernelError> {
        let Ok(run) = lock(&self.runs).get(&cgroup, 0) else { return Ok(()) };
        lock(&self.runs).remove(&cgroup).map_err(KernelError::refused("to forget a run"))?;
        let _ = lock(&self.usage).remove(&run.run);
        self.remove_where(|flow| flow.run == run.run, |flow| flow.run == run.run);
        self.forget_kept(RunId::from_random(run.run))
    }

    /// The runs that are known, each with its cgroup.
    pub fn runs(&self) -> Vec<(u64, RunId)> {
        let runs = lock(&self.runs);
        runs.iter().flatten().map(|(cgroup, run)| (cgroup, RunId::from_random(run.run))).collect()
    }

    /// Removes handshakes that nobody took within `patience`, and flows that are older and whose process is gone
    /// without the kernel having told us. Says how many.
    pub fn sweep(&self, patience: Duration) -> usize {
        let limit = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let oldest = monotonic_ns().saturating_sub(limit);
        let is_dead = |flow: &Flow| {
            let key = ProcessKey { start_boottime: flow.start_boottime, tgid: flow.tgid, reserved: 0 };
            self.processes.get(&key, 0).is_err()
        };
        // Processes that were there before their run was captured are not among those that are known.
        let launched: Vec<u64> = lock(&self.runs)
            .iter()
            .flatten()
            .filter(|(_, run)| run.flags & RunConfig::OWN_NETNS != 0)
            .map(|(_, run)| run.run)
            .collect();
        let flow_goes = |flow: &Flow| flow.at_ns < oldest && launched.contains(&flow.run) && is_dead(flow);
        let swept = self.remove_where(flow_goes, |flow| flow.at_ns < oldest);
        for (_, run) in self.runs() {
            if let Err(error) = self.count_anew(run.as_u64()) {
                tracing::warn!(%run, %error, "what a run has of the table could not be counted");
            }
        }
        swept
    }

    /// Sets how many redirected sockets a run has: what the kernel aborts is not given back by itself.
    fn count_anew(&self, run: u64) -> Result<(), aya::maps::MapError> {
        let count = lock(&self.flows).iter().flatten().filter(|(_, flow)| flow.run == run).count();
        lock(&self.usage).insert(run, u64::try_from(count).unwrap_or(u64::MAX), 0)
    }

    fn remove_where(&self, flow_goes: impl Fn(&Flow) -> bool, tuple_goes: impl Fn(&Flow) -> bool) -> usize {
        let mut flows = lock(&self.flows);
        let gone: Vec<u64> =
            flows.iter().flatten().filter(|(_, flow)| flow_goes(flow)).map(|(key, _)| key).collect();
        let mut count = gone.iter().filter(|key| flows.remove(key).is_ok()).count();
        let mut tuples = lock(&self.tuples);
        let gone: Vec<TupleKey> =
            tuples.iter().flatten().filter(|(_, flow)| tuple_goes(flow)).map(|(key, _)| key).collect();
        count += gone.iter().filter(|key| tuples.remove(key).is_ok()).count();
        count
    }

    /// Takes everything out of force and out of the kernel. Refused while a captured process lives.
    pub fn teardown(places: &Places) -> Result<(), KernelError> {
        let slice = cgroup::slice(places)?;
        if slice.exists() && cgroup::is_populated(&slice)? {
            return Err(KernelError::Populated(slice));
        }
        if let Some(run) = Pins::of(places).enclosed()?.first() {
            return Err(KernelError::Enclosed(*run));
        }
        // The cgroup goes first: with it gone there is nothing left to capture.
        cgroup::remove(&slice)?;
        Pins::of(places).remove()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("slice", &self.slice).finish_non_exhaustive()
    }
}

fn object_of(held: &mut Held) -> Result<&mut Ebpf, KernelError> {
    held.object.as_mut().ok_or_else(|| KernelError::Refused {
        what: "another link".to_owned(),
        source: "the programs are not in force".into(),
    })
}

fn replace_pins(
    folder: &Path,
    links: Vec<(&'static str, load::Link)>,
) -> Result<Vec<load::Pinned>, KernelError> {
    links.into_iter().map(|(name, link)| replace_pin(folder, name, link)).collect()
}

/// Pins under another name and renames: the old link is released only when the new one is in its place.
fn replace_pin(folder: &Path, name: &str, link: load::Link) -> Result<load::Pinned, KernelError> {
    let fresh = folder.join(format!("{name}-new"));
    pins::remove_file(&fresh)?;
    let pinned = link.pin(&fresh)?;
    let path = folder.join(name);
    fs::rename(&fresh, &path).map_err(KernelError::place("replace the pin", path))?;
    Ok(pinned)
}
