//! What the kernel side tells user space: process events, and connections that were not redirected.

/// The most argument bytes that an exec event carries; longer vectors are cut and flagged.
pub const ARGUMENT_BYTES: usize = 8192;
/// The bytes kept for the path of an executable.
pub const PATH_BYTES: usize = 256;

/// What happened.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A captured process made another one.
    Fork = 1,
    /// A captured process executes a program.
    Exec = 2,
    /// The last thread of a captured process is gone.
    Exit = 3,
    /// A connection to the run's own listener was left alone.
    Internal = 4,
    /// A connection, datagram, socket, bind or option was refused.
    Refused = 5,
    /// A connection or datagram of a released run was let by.
    Released = 6,
}

/// The part that all events have.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHead {
    /// [`EventKind`]
    pub kind: u32,
    /// Bits; see the constants.
    pub flags: u32,
    /// The run; 0 when the process is in no known run.
    pub run: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The process's own cgroup.
    pub cgroup: u64,
    /// When the process started, nanoseconds since boot.
    pub start_boottime: u64,
    /// When its parent did.
    pub parent_start_boottime: u64,
    /// The process, in the host's pid namespace.
    pub tgid: u32,
    /// Its parent; 0 where the event does not say.
    pub parent_tgid: u32,
    /// The user id.
    pub uid: u32,
    /// For `Refused`: the [`crate::Counter`] that counted it.
    pub reason: u32,
    /// For `Internal`, `Refused` and `Released`: the destination.
    pub address: [u32; 4],
    /// The family of `address`, or that of the refused socket.
    pub family: u32,
    /// The port, or the option's name.
    pub port: u32,
    /// The protocol, or the option's level.
    pub protocol: u32,
    /// For `Exec`: how many bytes of arguments follow.
    pub argument_bytes: u32,
}

impl EventHead {
    /// The argument vector is longer than [`ARGUMENT_BYTES`], or could not be read.
    pub const ARGUMENTS_CUT: u32 = 1;
    /// The path is longer than [`PATH_BYTES`], or could not be read.
    pub const PATH_CUT: u32 = 2;
}

const _: () = assert!(size_of::<EventHead>() == 96);

/// An `Exec` event at its longest; the ring holds it without the unused end.
#[repr(C)]
pub struct ExecEvent {
    /// The common part.
    pub head: EventHead,
    /// The path given to the kernel, ended by a NUL.
    pub path: [u8; PATH_BYTES],
    /// The arguments, each ended by a NUL.
    pub arguments: [u8; ARGUMENT_BYTES],
}

const _: () = assert!(size_of::<ExecEvent>() == 96 + PATH_BYTES + ARGUMENT_BYTES);

/// Names one process for ever.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessKey {
    /// Nanoseconds since boot.
    pub start_boottime: u64,
    /// In the host's pid namespace.
    pub tgid: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ProcessKey>() == 16);

/// What is known of a live captured process.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessValue {
    /// The run.
    pub run: u64,
    /// When the parent started.
    pub parent_start_boottime: u64,
    /// The parent.
    pub parent_tgid: u32,
    /// The user id.
    pub uid: u32,
}

const _: () = assert!(size_of::<ProcessValue>() == 24);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (sizes are asserted above), any bit pattern is a value.
unsafe impl aya::Pod for EventHead {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for ProcessKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for ProcessValue {}
