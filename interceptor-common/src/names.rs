//! The names of programs and maps. A map's name is also its pin's.

/// Settings of one installation: one [`crate::Config`].
pub const CONFIG: &str = "CONFIG";
/// The proxy's sign of life: one `u64`, nanoseconds of `CLOCK_MONOTONIC`.
pub const HEARTBEAT: &str = "HEARTBEAT";
/// Cgroup id to [`crate::RunConfig`].
pub const RUNS: &str = "RUNS";
/// Socket cookie to [`crate::Flow`].
pub const FLOWS: &str = "FLOWS";
/// [`crate::TupleKey`] to the [`crate::Flow`] as it was when the handshake began.
pub const TUPLES: &str = "TUPLES";
/// [`crate::ProcessKey`] to [`crate::ProcessValue`].
pub const PROCESSES: &str = "PROCESSES";
/// The ring of events.
pub const EVENTS: &str = "EVENTS";
/// Run to the number of its entries in [`FLOWS`].
pub const USAGE: &str = "USAGE";
/// Per processor, one `u64` per [`crate::Counter`].
pub const COUNTERS: &str = "COUNTERS";

/// Socket cookie to [`crate::Kept`].
pub const KEPT: &str = "KEPT";

/// A thread's `task_struct` to the cgroup of the run whose label it bears.
pub const LABELS: &str = "LABELS";

/// [`crate::SocketFile`] of each Unix socket of the host's that is open to runs without a network of their own.
pub const PEERS: &str = "PEERS";

/// Every map that is pinned and kept over a restart.
pub const PINNED: [&str; 12] =
    [CONFIG, HEARTBEAT, RUNS, FLOWS, TUPLES, PROCESSES, EVENTS, USAGE, COUNTERS, KEPT, LABELS, PEERS];

/// The global that holds [`crate::Offsets`].
pub const OFFSETS: &str = "OFFSETS";

/// The global that holds [`crate::LayerOffsets`].
pub const LAYER_OFFSETS: &str = "LAYER_OFFSETS";

/// The cgroup programs, in the order in which they are attached: the backstop first, so that nothing is ever
/// half guarded.
pub const CGROUP_PROGRAMS: [&str; 16] = [
    "egress",
    "ingress",
    "sock_create",
    "setsockopt",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "post_bind4",
    "post_bind6",
    "sock_release",
    "publish_tuple",
];

/// The programs that are attached to the root of the hierarchy, since they are for sockets of other cgroups.
pub const GUARD_PROGRAMS: [&str; 4] =
    ["guard_connect4", "guard_connect6", "guard_sendmsg4", "guard_sendmsg6"];

/// The program that ends what is kept, whoever is there. It is attached to the root of the hierarchy as long as anything is.
pub const KEPT_GUARD: &str = "guard_kept";

/// The program that guards Unix sockets. It is loaded for each of [`UNIX_LINKS`].
pub const UNIX_PROGRAM: &str = "guard_unix";

/// Where [`UNIX_PROGRAM`] is attached to the root of the hierarchy, each with the kernel's number of its hook; nowhere on
/// kernels that do not know them (before 6.7).
pub const UNIX_LINKS: [(&str, u32); 2] = [("guard_connect_unix", 49), ("guard_sendmsg_unix", 50)];

/// The tracepoint programs, each with its tracepoint.
pub const TRACEPOINT_PROGRAMS: [(&str, &str); 3] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// The LSM programs of the layer that is there only where the kernel has BPF LSM switched on, each with its hook.
pub const LAYER_PROGRAMS: [(&str, &str); 9] = [
    ("layer_family", "socket_create"),
    ("layer_connect", "unix_stream_connect"),
    ("layer_send", "unix_may_send"),
    ("layer_receive", "file_receive"),
    ("layer_trace", "ptrace_access_check"),
    ("layer_ring", "inode_init_security_anon"),
    ("layer_rights", "bprm_creds_from_file"),
    ("layer_typing", "file_ioctl"),
    ("layer_typing_compat", "file_ioctl_compat"),
];

/// Those of its hooks that kernels lack which have no use for them: before it was there, `file_ioctl` was called in its place.
pub const LAYER_OPTIONAL: [&str; 1] = ["layer_typing_compat"];

/// The LSM programs of strict labels, each with its hook. First who bears a label, then what it means.
pub const LABEL_PROGRAMS: [(&str, &str); 6] = [
    ("label_end", "task_free"),
    ("label_fork", "task_alloc"),
    ("label_exec", "bprm_creds_for_exec"),
    ("label_create", "socket_create"),
    ("label_connect", "socket_connect"),
    ("label_send", "socket_sendmsg"),
];

/// The iterator over all threads that gives labels to whoever is in a run when it becomes known, with what it iterates over.
pub const LABEL_ALL: (&str, &str) = ("label_all", "task");

/// The tracepoint program of strict labels, with its tracepoint.
pub const LABEL_MOVE: (&str, &str) = ("label_move", "cgroup_attach_task");
