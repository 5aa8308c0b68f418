//! The ways around that are tried, in the order in which they are numbered. What an attempt does stands in
//! `clients/escape.py` under its name; here stands what it needs and what, besides a kernel hook, may have closed it.

/// A way around.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its number, the same for ever.
    pub number: u32,
    /// What it is.
    pub way: &'static str,
    /// How it is tried; nothing where [`Row::said`] is all there is to say.
    pub attempts: &'static [Attempt],
    /// What is to be known besides: for an open way, the condition that closes it.
    pub said: &'static str,
}

/// One thing that is tried.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its name in the script.
    pub name: &'static str,
    /// What it aims at.
    pub at: Aim,
    /// What may close it, when no hook of ours has counted it.
    pub by: &'static [Means],
}

/// What an attempt aims at, and so what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The world, where the sniffer is.
    World,
    /// A listener that the world beyond dials.
    Inbound,
    /// A listener that the host dials on its loopback.
    Forwarder,
    /// A listener that the world beyond dials, made of a socket from before.
    InboundBefore,
    /// A socket that the world beyond sends datagrams to.
    InboundDatagram,
    /// A Unix socket of a process outside.
    Door(Door),
    /// A TCP service on the host's loopback.
    Service,
    /// A process outside, of the person that the agent works for.
    Victim,
    /// The proxy's own process.
    Proxy,
    /// The proxy's listener.
    Listener,
    /// The proxy's listener, dialled by somebody who is not captured.
    ListenerFromOutside,
    /// A file of ours.
    File(Secret),
    /// Nothing but the kernel itself.
    Kernel,
    /// A socket on standard input.
    StandardInput,
    /// A socket that the launcher was started with.
    Inherited,
    /// The database, which is asked to reach out by itself.
    Statement(&'static str),
    /// The database's port, in its own protocol.
    Database,
}

/// Where a Unix socket of a process outside lies, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// In `/run`, open to everybody.
    Run,
    /// The same, made when the run was there.
    RunLater,
    /// In `/tmp`, its owner's alone.
    TmpLater,
    /// In a folder that the run works in.
    Shared,
    /// The same, made when the run was there.
    SharedLater,
    /// An abstract name.
    Abstract,
    /// The database's.
    Database,
    /// The database's, at a path that is a resource's.
    Resource,
    /// The daemon's own, for its operators.
    Control,
    /// The daemon's own, for launchers.
    Launch,
}

/// A file that no agent may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// The authority's key.
    Authority,
    /// A credential.
    Credential,
}

/// What closes a way that no hook sees: how it shows, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The system call filter.
    Filter,
    /// The mount namespace: it is not there.
    View,
    /// A mount that cannot be written.
    ReadOnly,
    /// The process namespace: nobody of that number is there.
    Processes,
    /// The network namespace: nothing is there, or nobody answers.
    Network,
    /// A capability that the run does not have, or `no_new_privs`.
    Rights,
    /// The owner and mode of a file outside.
    Owner,
    /// The launcher, which passes on nothing but the standard streams, as pipes.
    Launcher,
    /// The launcher, which connects a run to no Unix socket but the run's own.
    Porter,
    /// The proxy: it turns away what it cannot attribute or judge.
    Proxy,
    /// `ping_group_range`, which a new network namespace has closed.
    Pings,
    /// Attaching, which resets what was there before.
    Reset,
    /// Attaching, which binds what was there before to the loopback interface.
    Shut,
    /// The listener is there, and its port is taken.
    Taken,
    /// Policy.
    Policy,
    /// The belt: rules of nftables, which come before the egress hook.
    Belt,
}

impl Means {
    /// Whether a run that is attached has it, too.
    pub fn without_view(self) -> bool {
        !matches!(
            self,
            Self::Filter
                | Self::View
                | Self::ReadOnly
                | Self::Processes
                | Self::Pings
                | Self::Launcher
                | Self::Porter
        )
    }

    /// Whether a run that is launched has it, too.
    pub fn is_of_runs(self) -> bool {
        !matches!(self, Self::Reset | Self::Shut)
    }

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "seccomp",
            Self::View => "mount namespace",
            Self::ReadOnly => "read-only mount",
            Self::Processes => "PID namespace",
            Self::Network => "network namespace",
            Self::Rights => "no capability",
            Self::Owner => "file mode",
            Self::Launcher | Self::Porter => "launcher",
            Self::Proxy => "proxy",
            Self::Pings => "network namespace",
            Self::Reset => "reset",
            Self::Shut => "bound to loopback",
            Self::Taken => "listener",
            Self::Policy => "policy",
            Self::Belt => "nftables",
        }
    }

    /// How a call fails that it closes.
    pub fn shows_as(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &["EPERM", "ENOSYS", "EPROTONOSUPPORT"],
            Self::View => &["ENOENT", "ENOTDIR"],
            Self::ReadOnly => &["EROFS"],
            Self::Processes => &["ESRCH"],
            Self::Network => &["ENETUNREACH", "ECONNREFUSED", "TimeoutError", "EADDRNOTAVAIL"],
            Self::Rights => &["EPERM", "EACCES"],
            Self::Owner | Self::Pings => &["EACCES"],
            Self::Launcher => &["EBADF"],
            Self::Porter => &["ECONNREFUSED"],
            Self::Proxy => &["ECONNRESET"],
            Self::Reset => &["EDESTADDRREQ", "ECONNABORTED", "EBADF", "EINVAL"],
            Self::Shut => &["TimeoutError"],
            Self::Taken => &["EADDRINUSE"],
            Self::Policy => &["42501"],
            Self::Belt => &["EPERM"],
        }
    }
}

use Means::{
    Belt, Filter, Launcher, Network, Owner, Pings, Policy, Porter, Processes, Proxy, ReadOnly, Rights, Shut,
    Taken, View,
};

const fn world(name: &'static str) -> Attempt {
    Attempt { name, at: Aim::World, by: &[Network] }
}

const fn family(name: &'static str) -> Attempt {
    Attempt { name, at: Aim::Kernel, by: &[Filter] }
}

const fn kernel(name: &'static str, by: &'static [Means]) -> Attempt {
    Attempt { name, at: Aim::Kernel, by }
}

const fn aimed(name: &'static str, at: Aim, by: &'static [Means]) -> Attempt {
    Attempt { name, at, by }
}

const fn door(door: Door) -> Attempt {
    let by: &'static [Means] = match door {
        Door::SharedLater => &[View, Porter, Owner],
        _ => &[View, Network, Owner],
    };
    Attempt { name: "unix", at: Aim::Door(door), by }
}

const fn row(number: u32, way: &'static str, attempts: &'static [Attempt]) -> Row {
    Row { number, way, attempts, said: "" }
}

const fn known(number: u32, way: &'static str, attempts: &'static [Attempt], said: &'static str) -> Row {
    Row { number, way, attempts, said }
}

/// Every way.
pub const ROWS: &[Row] = &[
    row(1, "TCP Fast Open", &[world("fast-open"), world("fast-open-connect")]),
    row(2, "MPTCP", &[world("mptcp")]),
    row(3, "SCTP", &[world("sctp-stream"), world("sctp-seqpacket")]),
    row(4, "DCCP", &[world("dccp")]),
    row(5, "UDP-Lite", &[world("udp-lite"), world("udp-lite-v6")]),
    row(6, "ping sockets", &[aimed("ping", Aim::World, &[Pings]), aimed("ping-v6", Aim::World, &[Pings])]),
    row(
        7,
        "raw sockets",
        &[aimed("raw", Aim::World, &[Rights]), aimed("raw-own-header", Aim::World, &[Rights])],
    ),
    row(8, "packet and XDP sockets", &[aimed("packet", Aim::World, &[Filter]), family("xdp")]),
    row(9, "IPv6 routing header", &[world("routing-header")]),
    row(
        10,
        "IPv4 source route",
        &[world("source-route"), aimed("source-route-message", Aim::World, &[Rights])],
    ),
    row(
        11,
        "another interface: bound device, packet information",
        &[
            world("bound-to-device"),
            aimed("packet-info", Aim::World, &[Belt]),
            aimed("packet-info-v6", Aim::World, &[Belt]),
        ],
    ),
    row(
        12,
        "addresses in other clothes: mapped, NAT64, 6to4, literal",
        &[world("ipv4"), world("ipv6"), world("mapped"), world("compatible"), world("nat64"), world("6to4")],
    ),
    row(13, "socket addresses of another family", &[world("odd-family"), world("no-family")]),
    row(
        14,
        "the zero address, which means the host itself",
        &[aimed("zero", Aim::Service, &[Proxy]), aimed("zero-v6", Aim::Service, &[Proxy])],
    ),
    row(
        15,
        "link-local, multicast, broadcast",
        &[world("link-local"), world("multicast"), world("broadcast")],
    ),
    row(16, "TCP repair", &[world("repair")]),
    row(
        17,
        "a listener that the world dials",
        &[aimed("listen", Aim::Inbound, &[Network]), aimed("hear", Aim::InboundDatagram, &[Network])],
    ),
    row(18, "a listener that a forwarder on the host dials", &[aimed("listen", Aim::Forwarder, &[Network])]),
    row(
        19,
        "sockets of the kernel's own: SMC, RDS, KCM, crypto, network file systems",
        &[
            family("smc"),
            family("rds"),
            family("kcm"),
            family("alg"),
            family("rxrpc"),
            family("ppp"),
            kernel("mount-network", &[Filter]),
        ],
    ),
    row(20, "vsock, to the hypervisor or a guest", &[family("vsock")]),
    row(
        21,
        "other families: Bluetooth, CAN, QIPCRTR, TIPC, NFC, X.25, 802.15.4",
        &[
            family("bluetooth"),
            family("can"),
            family("qipcrtr"),
            family("tipc"),
            family("nfc"),
            family("x25"),
            family("ieee802154"),
        ],
    ),
    row(
        22,
        "interfaces of the agent's own: tun, veth",
        &[kernel("tun", &[View]), kernel("new-interface", &[Rights]), kernel("netlink-netfilter", &[Filter])],
    ),
    row(
        23,
        "a socket made before capture",
        &[
            aimed("inherited", Aim::Inherited, &[Launcher]),
            aimed("listen-before", Aim::InboundBefore, &[Shut, Network]),
        ],
    ),
    row(24, "a socket as standard input", &[aimed("standard-input", Aim::StandardInput, &[Launcher])]),
    known(
        25,
        "a socket passed by a process outside (SCM_RIGHTS)",
        &[door(Door::TmpLater), door(Door::Shared), door(Door::SharedLater)],
        "before Linux 6.7, a race to a socket that is made after the launch is open",
    ),
    row(
        26,
        "descriptors and memory of a process outside: pidfd_getfd, ptrace",
        &[aimed("take-descriptor", Aim::Victim, &[Processes]), aimed("trace", Aim::Victim, &[Processes])],
    ),
    row(
        27,
        "writing into a process outside: process_vm_writev, /proc/PID/mem",
        &[aimed("inject", Aim::Victim, &[Processes]), aimed("memory", Aim::Victim, &[View])],
    ),
    row(28, "io_uring", &[kernel("io-uring", &[Filter])]),
    row(
        29,
        "descriptors over io_uring or binder",
        &[kernel("io-uring", &[Filter]), kernel("binder", &[View])],
    ),
    row(30, "moving to another cgroup", &[kernel("another-cgroup", &[ReadOnly, Owner])]),
    row(
        31,
        "being born in another cgroup, mounting cgroup2 afresh",
        &[kernel("born-in-another-cgroup", &[View, Filter, Owner]), kernel("mount-cgroup", &[Filter])],
    ),
    row(
        32,
        "a cgroup that the agent's user may write",
        &[kernel("own-cgroup-is-delegated", &[ReadOnly, Owner, View])],
    ),
    row(33, "legacy net_cls and net_prio", &[kernel("legacy-cgroup", &[View])]),
    row(34, "set-user-id programs", &[kernel("set-user-id", &[Rights])]),
    row(
        35,
        "namespaces of the agent's own",
        &[
            kernel("user-namespace", &[Filter]),
            kernel("user-namespace-clone", &[Filter]),
            kernel("user-namespace-clone3", &[Filter]),
            kernel("mount-namespace", &[Filter]),
        ],
    ),
    row(36, "entering the host's namespaces", &[kernel("host-namespace", &[Filter, Rights, View])]),
    row(37, "systemd and D-Bus", &[door(Door::Run)]),
    row(38, "Docker, podman, containerd", &[door(Door::RunLater)]),
    row(
        39,
        "session services: portals, GVFS, keyrings",
        &[door(Door::RunLater), kernel("keyring", &[Filter])],
    ),
    row(40, "tmux, screen, editors", &[door(Door::TmpLater)]),
    known(
        41,
        "an ssh master, ssh-agent, gpg-agent in the home folder",
        &[door(Door::Shared), door(Door::SharedLater)],
        "as 25",
    ),
    row(42, "name services outside: nscd, resolved, sssd", &[door(Door::Run)]),
    row(
        43,
        "a database's own socket",
        &[
            aimed("unix-connect", Aim::Door(Door::Database), &[View, Owner, Network]),
            aimed("superuser-by-socket", Aim::Door(Door::Resource), &[Proxy]),
        ],
    ),
    row(44, "abstract sockets: X11, D-Bus", &[door(Door::Abstract)]),
    known(
        45,
        "what a person runs later: cron, hooks, rc files",
        &[],
        "outside of what capture can see: what the run may write is for file permissions to say",
    ),
    row(46, "typing into a terminal", &[kernel("terminal", &[Filter])]),
    row(47, "ssh to the host itself", &[aimed("local-service", Aim::Service, &[Proxy])]),
    row(48, "relays on the host's loopback", &[aimed("local-service", Aim::Service, &[Proxy])]),
    row(
        49,
        "the database reaching out",
        &[
            aimed("copy-to-program", Aim::Statement("COPY users TO PROGRAM 'cat > /dev/null'"), &[Policy]),
            aimed("read-server-file", Aim::Statement("SELECT pg_read_file('PG_VERSION')"), &[Policy]),
            aimed("large-object-import", Aim::Statement("SELECT lo_import('/etc/hostname')"), &[Policy]),
        ],
    ),
    row(50, "cloud metadata", &[world("metadata"), world("metadata-v6")]),
    row(51, "killing the proxy", &[aimed("kill", Aim::Proxy, &[Processes])]),
    row(52, "taking the proxy's port", &[aimed("take-port", Aim::Listener, &[Taken])]),
    row(53, "bpf(), pinned programs", &[kernel("bpf", &[Filter]), kernel("pins", &[View])]),
    row(54, "netfilter and routing rules", &[kernel("netlink-netfilter", &[Filter])]),
    row(55, "removing the run's cgroup", &[kernel("remove-cgroup", &[View, ReadOnly, Owner])]),
    row(56, "flooding the tables", &[world("flood")]),
    row(57, "dialling the proxy itself", &[aimed("proxy-itself", Aim::Listener, &[Proxy])]),
    row(58, "dialling the proxy uncaptured", &[aimed("proxy-itself", Aim::ListenerFromOutside, &[Proxy])]),
    row(
        59,
        "the control sockets",
        &[
            aimed("unix-connect", Aim::Door(Door::Control), &[View]),
            aimed("unix-connect", Aim::Door(Door::Launch), &[View]),
        ],
    ),
    row(
        60,
        "keys and credentials",
        &[
            aimed("read-file", Aim::File(Secret::Authority), &[View]),
            aimed("read-file", Aim::File(Secret::Credential), &[View]),
        ],
    ),
    known(
        61,
        "LD_PRELOAD, seccomp, ptrace of its own children",
        &[],
        "nothing in the agent's processes is relied on",
    ),
    known(62, "attacks on the decoders", &[], "`cargo xtask fuzz`; the proxy has no capability"),
    row(
        63,
        "the kernel: modules, core_pattern, sysrq, device nodes, audit",
        &[
            kernel("module", &[Filter]),
            kernel("core-pattern", &[ReadOnly, Owner]),
            kernel("sysrq", &[ReadOnly, Owner]),
            kernel("device-node", &[Filter]),
            family("netlink-audit"),
        ],
    ),
    row(64, "TLS of its own to anywhere", &[world("tls")]),
    row(65, "encrypted client hello", &[world("ech")]),
    row(66, "the name of an allowed server, another address", &[world("fronting")]),
    row(
        67,
        "no name, odd ports, proxies: CONNECT, absolute form, SOCKS",
        &[world("no-name"), world("connect-proxy"), world("absolute-form"), world("socks")],
    ),
    row(68, "HTTP/2 in clear, upgrades", &[world("http2"), world("upgrade")]),
    row(
        69,
        "STARTTLS, bytes before TLS",
        &[world("smtp-starttls"), aimed("injected-before-tls", Aim::Database, &[Proxy])],
    ),
    row(70, "SSH", &[world("ssh")]),
    row(
        71,
        "tunnels in names, DNS over TLS",
        &[world("tunnel-by-name"), world("tunnel-by-name-tcp"), world("dns-over-tls")],
    ),
    row(
        72,
        "QUIC, other UDP",
        &[world("quic"), world("datagram"), world("datagram-v6"), world("connected-datagram")],
    ),
    known(73, "what an allowed server publishes", &[], "for policy to say, statement by statement"),
    known(74, "the timing of what is allowed", &[], "residual: a channel of a few bits that no proxy closes"),
    row(75, "request smuggling", &[world("smuggling")]),
    row(76, "a protocol that nobody knows", &[world("unknown-protocol")]),
];

/// What is to be known of a way in `attach`, where a run has no view of its own: for an open way, what closes it.
pub const ATTACHED: &[(u32, &str)] = &[
    (18, "open: the host's loopback is shared; closed by `run`"),
    (
        19,
        "without LSM open where the kernel has such families, whose making no other hook sees; closed by keeping their modules \
         out, by `run`",
    ),
    (20, "without LSM open: no other hook sees this family; closed by `run`"),
    (
        22,
        "without LSM open where the kernel lets anybody make such a socket; it does nothing without a capability",
    ),
    (25, "without LSM open: Unix sockets lead to whoever listens; closed by `run`"),
    (26, "without LSM open for processes of the same uid; closed by a uid of its own, by Yama, by `run`"),
    (27, "as 26"),
    (
        28,
        "without LSM open: what a ring sends meets the same hooks, and one from before is refused; closed by `run`",
    ),
    (29, "as 28"),
    (
        34,
        "without LSM open where set-user-id programs let it; closed by starting it with `no_new_privs`, by `run`",
    ),
    (35, "open, and of no use for the network: in another one everything is refused; closed by `run`"),
    (36, "as 35"),
    (37, "as 25"),
    (38, "as 25"),
    (39, "sockets as 25; keyrings open; closed by `run`"),
    (40, "as 25"),
    (41, "as 25"),
    (42, "as 25: names can leave by a name service of the host's"),
    (43, "as 25"),
    (44, "as 25"),
    (46, "without LSM open where `dev.tty.legacy_tiocsti` is set; closed by `run`"),
    (54, "as 22"),
    (
        63,
        "without LSM open where the kernel lets anybody make such a socket; it does nothing without a capability",
    ),
];

/// What some kernels have not, so that there is nothing to close.
pub const OPTIONAL: &[&str] = &[
    "mptcp",
    "sctp-stream",
    "sctp-seqpacket",
    "dccp",
    "udp-lite",
    "udp-lite-v6",
    "xdp",
    "smc",
    "rds",
    "kcm",
    "alg",
    "rxrpc",
    "ppp",
    "vsock",
    "bluetooth",
    "can",
    "qipcrtr",
    "tipc",
    "nfc",
    "x25",
    "ieee802154",
    "tun",
    "binder",
    "legacy-cgroup",
    "terminal",
    "module",
    "sysrq",
    "netlink-netfilter",
    "netlink-audit",
    "compatible",
    "link-local",
    "io-uring",
    "new-interface",
    "set-user-id",
];
