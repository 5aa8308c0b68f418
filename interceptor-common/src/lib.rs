//! The ABI between the kernel programs and user space: layouts, limits, and the names both sides use.
//!
//! Every structure is `repr(C)`, holds only integers, has no padding, and states its size; [`ABI_VERSION`] changes
//! whenever any of them, or the meaning of a field, does. Addresses are kept as the four 32-bit words the kernel
//! holds, each in network byte order; ports are in host byte order. Nothing here knows what a policy is.
#![no_std]

pub mod counter;
pub mod event;
pub mod flow;
pub mod names;
pub mod setting;

pub use counter::Counter;
pub use event::{ARGUMENT_BYTES, EventHead, EventKind, ExecEvent, PATH_BYTES, ProcessKey, ProcessValue};
pub use flow::{Flow, Form, TupleKey};
pub use setting::{Config, Kept, LayerOffsets, Offsets, RUN_LEVELS, RunConfig, SocketFile};

/// Which layout this is. Kernel programs and maps of another version are never mixed with ours.
pub const ABI_VERSION: u32 = 6;

/// The family of an IPv4 address (`AF_INET`).
pub const FAMILY_V4: u32 = 2;
/// The family of an IPv6 address (`AF_INET6`).
pub const FAMILY_V6: u32 = 10;
/// `IPPROTO_TCP`.
pub const PROTOCOL_TCP: u32 = 6;
/// `IPPROTO_UDP`.
pub const PROTOCOL_UDP: u32 = 17;

/// How many sockets can be redirected at once on one host; one more is refused.
pub const MAX_FLOWS: u32 = 65_536;
/// How many of these one run can have at once: no run takes the table from the others.
pub const MAX_FLOWS_PER_RUN: u64 = 16_384;
/// How many runs there can be at once.
pub const MAX_RUNS: u32 = 1_024;
/// How many captured processes are remembered by the kernel side.
pub const MAX_PROCESSES: u32 = 65_536;
/// How many connections from before their runs' capture may go on at once on one host.
pub const MAX_KEPT: u32 = 4_096;
/// How many threads can bear a run's label at once on one host; one more is not made.
pub const MAX_LABELS: u32 = 131_072;
/// How many Unix sockets of the host's may be open to runs without a network of their own.
pub const MAX_PEERS: u32 = 64;
/// The bytes of the event ring.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;
