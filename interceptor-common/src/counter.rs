//! What the kernel side counts. A refusal is counted under its reason, and the same number is the event's reason.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A counter's place in its map.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The name that people and metrics see.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The counter of a number that came from the kernel side.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

counters! {
    /// TCP connections sent to a run's listener.
    Redirected = 0, "redirected";
    /// Datagrams and UDP sockets sent to a run's resolver.
    DnsRedirected = 1, "dns-redirected";
    /// Connections to a run's own listeners, left alone.
    Internal = 2, "internal";
    /// The caller is in no run that we know.
    RefusedUnknownRun = 3, "refused-unknown-run";
    /// The proxy has not shown a sign of life in time.
    RefusedHeartbeat = 4, "refused-heartbeat";
    /// The installation refuses everything, or its settings cannot be read.
    RefusedMode = 5, "refused-mode";
    /// The caller is in another network namespace than its run's.
    RefusedNamespace = 6, "refused-namespace";
    /// Neither TCP nor UDP, or an unknown family.
    RefusedProtocol = 7, "refused-protocol";
    /// UDP to somewhere else than port 53.
    RefusedUdp = 8, "refused-udp";
    /// A socket of a kind that captured processes cannot have.
    RefusedSocket = 9, "refused-socket";
    /// A socket option that could lead around the hooks.
    RefusedOption = 10, "refused-option";
    /// A bind to one of our own ports.
    RefusedBind = 11, "refused-bind";
    /// A packet that would have left by another way than to ourselves.
    DroppedEgress = 12, "dropped-egress";
    /// The table of redirected sockets is full.
    MapFull = 13, "map-full";
    /// The table of handshakes is full: the connection will be rejected by the proxy.
    TupleFull = 14, "tuple-full";
    /// The table of processes is full.
    ProcessFull = 15, "process-full";
    /// Events that did not fit into the ring.
    RingLost = 16, "ring-lost";
    /// A socket that was made outside of the run, used by a process of it.
    RefusedForeign = 17, "refused-foreign";
    /// The run has as many redirected sockets as one run may have.
    RefusedQuota = 18, "refused-quota";
    /// A Unix socket that a run with a network of its own wanted to reach without its launcher.
    RefusedUnix = 19, "refused-unix";
    /// What was let by, of a run that is released.
    Released = 20, "released";
    /// Packets of connections from before their run's capture that may go on.
    Kept = 21, "kept";
    /// The same, after their time.
    DroppedKept = 22, "dropped-kept";
    /// A socket of a family that captured processes cannot have, which only an LSM program sees.
    RefusedFamily = 23, "refused-family";
    /// A Unix socket that was made outside of the run, and that a process of it wanted to reach.
    RefusedPeer = 24, "refused-peer";
    /// A socket that was made outside of the run, and passed to a process of it.
    RefusedPassed = 25, "refused-passed";
    /// A process outside of the run, whose memory or descriptors a process of it wanted.
    RefusedTrace = 26, "refused-trace";
    /// A ring of io_uring.
    RefusedRing = 27, "refused-ring";
    /// A program that would have had more rights than who executes it.
    RefusedRights = 28, "refused-rights";
    /// Input that a process wanted to put into a terminal.
    RefusedTyping = 29, "refused-typing";
    /// A socket of a process that bears a run's label, and is no more in the run's cgroup.
    RefusedStray = 30, "refused-stray";
    /// A process that was not made, since there is no room for its label.
    LabelFull = 31, "label-full";
    /// A packet for a captured socket that came from beyond the host.
    DroppedIngress = 32, "dropped-ingress";
}
