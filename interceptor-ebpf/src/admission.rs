//! Whose connection is this, and may anything be connected at all?

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_set_retval,
};
use interceptor_common::{ABI_VERSION, Config, Counter, RunConfig};

use crate::maps::{CONFIG, HEARTBEAT, RUNS};

/// `ECONNREFUSED`, as a return value.
const CONNECTION_REFUSED: i32 = -111;

/// A run that something is in, and which cgroup is the run's: by its number and its depth.
pub struct Found {
    pub run: &'static RunConfig,
    pub cgroup: u64,
    pub level: u32,
}

/// The run that the caller is in, whatever the state of the daemon.
#[inline(always)]
pub fn run_of_caller() -> Option<&'static RunConfig> {
    found_of_caller().map(|found| found.run)
}

/// The same, with the run's cgroup.
#[inline(always)]
pub fn found_of_caller() -> Option<Found> {
    // SAFETY: no pointers.
    found_above(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The run among the cgroups that `ancestor` finds at the depths where there are runs. No run is below another.
#[inline(always)]
pub fn run_above(ancestor: impl Fn(i32) -> u64) -> Option<&'static RunConfig> {
    found_above(ancestor).map(|found| found.run)
}

/// The same, with the run's cgroup.
#[inline(always)]
fn found_above(ancestor: impl Fn(i32) -> u64) -> Option<Found> {
    let config = CONFIG.get(0)?;
    for level in &config.run_levels {
        if *level == 0 {
            continue;
        }
        let cgroup = ancestor(*level as i32);
        // SAFETY: user space replaces an entry as a whole, and removes it after the run's end.
        if let Some(run) = unsafe { RUNS.get(&cgroup) } {
            return Some(Found { run, cgroup, level: *level });
        }
    }
    None
}

/// Whether root has let go of the run for a while that is not over. Asks nobody: it ends with no daemon there.
#[inline(always)]
pub fn is_released(run: &RunConfig) -> bool {
    // SAFETY: no arguments.
    run.released_until != 0 && unsafe { bpf_ktime_get_boot_ns() } < run.released_until
}

/// The run that the caller is in, if its connections can be served now.
#[inline(always)]
pub fn admit() -> Result<&'static RunConfig, Counter> {
    let Some(config) = CONFIG.get(0) else { return Err(Counter::RefusedMode) };
    if config.abi != ABI_VERSION || config.mode != Config::ENFORCE {
        return Err(Counter::RefusedMode);
    }
    let Some(run) = run_of_caller() else { return Err(Counter::RefusedUnknownRun) };
    // The heartbeat is read before the clock, so that it can never seem to be of the future.
    let Some(beat) = HEARTBEAT.get_ptr(0) else { return Err(Counter::RefusedHeartbeat) };
    // SAFETY: a valid slot; eight aligned bytes are read at once.
    let beat = unsafe { beat.read_volatile() };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let limit = u64::from(config.heartbeat_limit_ms) * 1_000_000;
    if beat == 0 || now < beat || now - beat > limit {
        return Err(Counter::RefusedHeartbeat);
    }
    Ok(run)
}

/// Makes the refused call fail as a closed port would, rather than with `EPERM`.
#[inline(always)]
pub fn answer_refused() {
    // SAFETY: only sets the value that the system call returns.
    unsafe { bpf_set_retval(CONNECTION_REFUSED) };
}
