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

/// Every map that is pinned and kept over a restart.
pub const PINNED: [&str; 10] =
    [CONFIG, HEARTBEAT, RUNS, FLOWS, TUPLES, PROCESSES, EVENTS, USAGE, COUNTERS, KEPT];

/// The global that holds [`crate::Offsets`].
pub const OFFSETS: &str = "OFFSETS";

/// The cgroup programs, in the order in which they are attached: the backstop first, so that nothing is ever
/// half guarded.
pub const CGROUP_PROGRAMS: [&str; 15] = [
    "egress",
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
