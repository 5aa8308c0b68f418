//! The harmless half of the ways around capture, tried on the user's own host: `interceptor doctor --self-test`.
//!
//! The same program tries them twice, in a run and without capture, and says of each what it came to. Nothing in here
//! sends a packet that could leave the host: without capture, what would is not tried.

use std::{
    fs,
    io::{self, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};

use super::syscalls;
use crate::{helper::cgroup::Tree, places::Places};

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// It got what it wanted.
    Through,
    /// It was refused, in these words.
    Refused(String),
    /// It was not tried, since it would have sent something.
    NotTried,
}

/// One attempt and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Its number in docs/guarantees.md.
    pub number: u32,
    /// What was tried.
    pub way: String,
    /// What it came to.
    pub came: Came,
}

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prober {
    /// A process in a run.
    Captured,
    /// One that is not captured.
    Free,
}

/// Where nobody is (TEST-NET-1, RFC 5737).
const NOBODY_THERE: ([u8; 4], u16) = ([192, 0, 2, 77], 443);
const PATIENCE: Duration = Duration::from_secs(3);

const SOCKETS: &[(u32, &str, i32, i32, i32)] = &[
    (2, "an MPTCP socket", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
    (3, "an SCTP socket", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    (5, "a UDP-Lite socket", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
    (7, "a raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
    (8, "a packet socket", libc::AF_PACKET, libc::SOCK_RAW, 0),
    (19, "a socket of the kernel's cryptography", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    (20, "a vsock socket", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    (54, "a netfilter socket", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
];

/// Tries everything. The last attempt changes the calling process, which should end then.
pub fn try_all(places: &Places, prober: Prober) -> Vec<Tried> {
    let mut all = Vec::new();
    let mut note = |number, way: &str, came| all.push(Tried { number, way: way.to_owned(), came });
    for (number, way, family, kind, protocol) in SOCKETS {
        note(*number, way, came(syscalls::try_socket(*family, *kind, *protocol)));
    }
    note(28, "io_uring", came(syscalls::try_ring()));
    let cgroup = Tree::find(places)
        .map_err(io::Error::other)
        .and_then(|tree| fs::OpenOptions::new().write(true).open(tree.root().join("cgroup.procs")));
    note(30, "another cgroup", came(cgroup));
    note(31, "a mount", mounting());
    note(53, "the pinned kernel programs", came(fs::read_dir(places.pins())));
    note(59, "the operators' socket", came_to_socket(places));
    note(60, "the credentials", came(fs::read_dir(places.credentials())));
    for (number, way, attempt) in
        [(72, "a datagram", datagram as fn() -> io::Result<()>), (76, "a connection to nowhere", connection)]
    {
        note(number, way, if prober == Prober::Free { Came::NotTried } else { came(attempt()) });
    }
    note(35, "a user namespace", came(unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from)));
    all
}

fn came<T>(result: io::Result<T>) -> Came {
    match result {
        Ok(_) => Came::Through,
        Err(error) => Came::Refused(error.to_string()),
    }
}

/// Onto a folder that does not exist: whoever may mount hears just that.
fn mounting() -> Came {
    let nowhere = "/interceptor/self/test";
    match mount(Some("tmpfs"), nowhere, Some("tmpfs"), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(Errno::ENOENT) => Came::Through,
        Err(errno) => Came::Refused(errno.desc().to_owned()),
    }
}

/// The socket is one for packets: "wrong type" says that it could be reached.
fn came_to_socket(places: &Places) -> Came {
    match UnixStream::connect(places.control_socket()) {
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => Came::Refused(error.to_string()),
        _ => Came::Through,
    }
}

fn datagram() -> io::Result<()> {
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"self-test", SocketAddr::from(NOBODY_THERE)).map(drop)
}

/// The proxy answers and closes: what comes back is nothing.
fn connection() -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(NOBODY_THERE), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.read(&mut [0; 64])? {
        0 => Err(io::Error::other("turned away by the proxy")),
        _ => Ok(()),
    }
}
