//! A network of two namespaces: an outer one, where an installation lives with a default route, and the world beyond
//! it, where every frame that arrives is seen.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::{
    places,
    process::{self, Job},
};

/// The hardware address of the outer namespace's end: frames from it are what is looked for.
const OUTER_MAC: &str = "02:00:00:00:00:01";
const WORLD_MAC: &str = "02:00:00:00:00:02";

/// An address of the world that every escape aims at.
pub const WORLD_V4: &str = "192.0.2.1";
/// The same, for IPv6.
pub const WORLD_V6: &str = "2001:db8::1";

/// The two namespaces and the eye in the second.
#[derive(Debug)]
pub struct Sniffer {
    outer: String,
    world: String,
    socket: Option<OwnedFd>,
}

impl Sniffer {
    /// Makes the namespaces; both are gone with the value.
    pub fn new() -> Self {
        let mark = crate::bed::random_text(6);
        let (outer, world) = (format!("ic-{mark}-o"), format!("ic-{mark}-w"));
        // Made first, so that what stands goes again when a step fails.
        let mut sniffer = Self { outer, world, socket: None };
        sniffer.build();
        sniffer.socket = Some(eye(&sniffer.world));
        sniffer
    }

    fn build(&self) {
        let Self { outer, world, .. } = self;
        for line in [
            format!("netns add {outer}"),
            format!("netns add {world}"),
            format!("-n {outer} link add out0 type veth peer name in0 netns {world}"),
            format!("-n {outer} link set out0 address {OUTER_MAC}"),
            format!("-n {world} link set in0 address {WORLD_MAC}"),
            format!("-n {outer} addr add 192.0.2.2/24 dev out0"),
            format!("-n {world} addr add {WORLD_V4}/24 dev in0"),
            format!("-n {outer} addr add 2001:db8::2/64 dev out0 nodad"),
            format!("-n {world} addr add {WORLD_V6}/64 dev in0 nodad"),
            format!("-n {outer} link set lo up"),
            format!("-n {outer} link set out0 up"),
            format!("-n {world} link set in0 up"),
            // No ARP or neighbour search needed, so none is seen.
            format!("-n {outer} neigh replace {WORLD_V4} lladdr {WORLD_MAC} dev out0 nud permanent"),
            format!("-n {outer} neigh replace {WORLD_V6} lladdr {WORLD_MAC} dev out0 nud permanent"),
            format!("-n {world} neigh replace 192.0.2.2 lladdr {OUTER_MAC} dev in0 nud permanent"),
            format!("-n {world} neigh replace 2001:db8::2 lladdr {OUTER_MAC} dev in0 nud permanent"),
            format!("-n {outer} route add default via {WORLD_V4}"),
            format!("-n {outer} -6 route add default via {WORLD_V6}"),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            process::run(ip(&words)).succeeded();
        }
    }

    /// The namespace to put an installation into.
    pub fn namespace(&self) -> &str {
        &self.outer
    }

    /// The namespace beyond.
    pub fn world(&self) -> &str {
        &self.world
    }

    /// Every frame that came since the last call, but the chatter of IPv6 itself.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.frames_within(Duration::from_millis(300))
    }

    /// The same, when nothing more comes for `quiet`.
    pub fn frames_within(&self, quiet: Duration) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 65536];
        let Some(socket) = &self.socket else { return frames };
        let quiet = TimeVal::milliseconds(i64::try_from(quiet.as_millis()).unwrap_or(300));
        setsockopt(socket, ReceiveTimeout, &quiet).expect("own socket");
        loop {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let frame = &buffer[..length];
                    if frame.get(6..12) == Some(&[2, 0, 0, 0, 0, 1]) && !is_chatter(frame) {
                        frames.push(frame.to_vec());
                    }
                }
                Err(Errno::EINTR) => {}
                // EAGAIN: nothing came for the time that the socket waits.
                Err(_) => return frames,
            }
        }
    }

    /// Panics, showing their beginnings, if any frame came.
    #[track_caller]
    pub fn saw_nothing(&self, after: &str) {
        let frames = self.frames();
        let shown: Vec<_> = frames.iter().map(|frame| hex::encode(&frame[..frame.len().min(96)])).collect();
        assert!(frames.is_empty(), "{after}: {} frames left the host: {shown:#?}", frames.len());
    }
}

impl Default for Sniffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        for name in [&self.outer, &self.world] {
            let _ = Job::start(ip(&["netns", "del", name]), "").end(process::PATIENCE);
        }
    }
}

fn ip(words: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(places::tool("ip"));
    command.args(words);
    command
}

/// A packet socket inside `namespace`, opened by a thread that goes there and ends.
fn eye(namespace: &str) -> OwnedFd {
    let file = File::open(format!("/run/netns/{namespace}")).expect("a namespace just made");
    std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).expect("the tests run as root");
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .expect("a packet socket")
    })
    .join()
    .expect("the thread ends well")
}

/// Router solicitations, neighbour search and multicast reports, which any namespace with IPv6 emits by itself.
fn is_chatter(frame: &[u8]) -> bool {
    let ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    let icmp = match frame.get(20) {
        Some(58) => frame.get(54),
        // A hop-by-hop header stands before multicast reports.
        Some(0) if frame.get(54) == Some(&58) => frame.get(62),
        _ => None,
    };
    ipv6 && icmp.is_some_and(|kind| matches!(kind, 130..=136 | 143))
}
