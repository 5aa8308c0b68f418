//! A redirected socket: where it was really going, and who was asking.

/// How the agent wrote the address it asked for.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `Flow::family` says.
    Native = 0,
    /// An IPv4 address in an IPv6 one: `::ffff:a.b.c.d`.
    Mapped = 1,
    /// The old embedding: `::a.b.c.d`.
    Compatible = 2,
}

/// What the connect or sendmsg hook remembers of a socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The socket's cookie.
    pub cookie: u64,
    /// The run.
    pub run: u64,
    /// When the hook ran, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The network namespace's cookie.
    pub netns_cookie: u64,
    /// The calling process's own cgroup.
    pub cgroup: u64,
    /// When the calling process started, nanoseconds since boot.
    pub start_boottime: u64,
    /// The original destination. IPv4 is in the first word.
    pub address: [u32; 4],
    /// The family of `address`: mapped and compatible ones are IPv4.
    pub family: u32,
    /// [`Form`]
    pub form: u32,
    /// The original destination's port.
    pub port: u32,
    /// The port that it was rewritten to.
    pub listener_port: u32,
    /// [`crate::PROTOCOL_TCP`] or [`crate::PROTOCOL_UDP`].
    pub protocol: u32,
    /// The calling process, in the host's pid namespace.
    pub tgid: u32,
    /// The calling thread's user id.
    pub uid: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Flow>() == 96);

/// What a listener sees of a client, and the run that the listener belongs to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TupleKey {
    /// The run.
    pub run: u64,
    /// The client's own address. IPv4 is in the first word.
    pub address: [u32; 4],
    /// The family of `address`.
    pub family: u32,
    /// The client's port.
    pub port: u32,
}

const _: () = assert!(size_of::<TupleKey>() == 32);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (sizes are asserted above), any bit pattern is a value.
unsafe impl aya::Pod for Flow {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for TupleKey {}
