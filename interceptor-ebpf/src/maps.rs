//! The maps. All but the scratch space are pinned by user space and outlive any one set of programs.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use interceptor_common::{
    Config, Counter, ExecEvent, Flow, Kept, LayerOffsets, MAX_FLOWS, MAX_KEPT, MAX_LABELS, MAX_PEERS,
    MAX_PROCESSES, MAX_RUNS, Offsets, ProcessKey, ProcessValue, RING_BYTES, RunConfig, SocketFile, TupleKey,
};

#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);

#[map]
pub static HEARTBEAT: Array<u64> = Array::pinned(1, 0);

#[map]
pub static RUNS: HashMap<u64, RunConfig> = HashMap::pinned(MAX_RUNS, 0);

// Never an LRU: an entry that is lost is a connection whose destination nobody knows.
#[map]
pub static FLOWS: HashMap<u64, Flow> = HashMap::pinned(MAX_FLOWS, 0);

#[map]
pub static TUPLES: HashMap<TupleKey, Flow> = HashMap::pinned(MAX_FLOWS, 0);

#[map]
pub static PROCESSES: HashMap<ProcessKey, ProcessValue> = HashMap::pinned(MAX_PROCESSES, 0);

#[map]
pub static USAGE: HashMap<u64, u64> = HashMap::pinned(MAX_RUNS, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(RING_BYTES, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(Counter::COUNT, 0);

#[map]
pub static KEPT: HashMap<u64, Kept> = HashMap::pinned(MAX_KEPT, 0);

// Of threads, and by their `task_struct`, since a thread that executes a program may become the first of its process. Its
// entry goes with it: the address is given again.
#[map]
pub static LABELS: HashMap<u64, u64> = HashMap::pinned(MAX_LABELS, 0);

#[map]
pub static PEERS: HashMap<SocketFile, u32> = HashMap::pinned(MAX_PEERS, 0);

/// Exec events are put together here: they are longer than the stack.
#[map]
pub static SCRATCH: PerCpuArray<ExecEvent> = PerCpuArray::with_max_entries(1, 0);

/// Where the running kernel keeps what we read; written by user space at load.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    task_pid: 0,
    task_tgid: 0,
    task_start_boottime: 0,
    task_real_parent: 0,
    task_group_leader: 0,
    task_mm: 0,
    task_signal: 0,
    signal_live: 0,
    mm_arg_start: 0,
    mm_arg_end: 0,
    binprm_filename: 0,
    reserved: 0,
};

/// [`OFFSETS`] as user space wrote them.
#[inline(always)]
pub fn offset(select: impl Fn(*const Offsets) -> *const u32) -> u32 {
    // SAFETY: `select` points at a field of a static. Volatile, because the compiler sees only zeros.
    unsafe { select(&raw const OFFSETS).read_volatile() }
}

/// The same, of what only the LSM programs look at.
#[unsafe(no_mangle)]
static LAYER_OFFSETS: LayerOffsets = LayerOffsets {
    socket_sk: 0,
    sock_cgroup: 0,
    cgroup_level: 0,
    cgroup_ancestors: 0,
    cgroup_kn: 0,
    kernfs_id: 0,
    task_cgroups: 0,
    css_set_cgroup: 0,
    file_inode: 0,
    file_private: 0,
    inode_mode: 0,
    qstr_name: 0,
    binprm_cred: 0,
    task_cred: 0,
    cred_euid: 0,
    cred_egid: 0,
    cred_permitted: 0,
    unix_dentry: 0,
    dentry_inode: 0,
    inode_number: 0,
    inode_volume: 0,
    volume_device: 0,
};

/// [`LAYER_OFFSETS`] as user space wrote them.
#[inline(always)]
pub fn layer_offset(select: impl Fn(*const LayerOffsets) -> *const u32) -> u32 {
    // SAFETY: as in `offset`.
    unsafe { select(&raw const LAYER_OFFSETS).read_volatile() }
}
