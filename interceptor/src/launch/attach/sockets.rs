//! The sockets that processes have from before they are captured: found by their descriptors, reset by sock_diag.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    slice, thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    sys::time::TimeVal,
    unistd::Pid,
};

use super::{
    super::syscalls,
    tree::{self, Process},
};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The inodes of TCP and UDP sockets.
    pub(super) internet: BTreeSet<u64>,
    /// The kernel's numbers of the network namespaces that those are in.
    pub(super) networks: BTreeSet<u64>,
    /// How many Unix sockets there are.
    pub(super) unix: usize,
    /// What cannot be captured.
    pub(super) obstacles: Vec<String>,
}

/// What became of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept {
    /// How many were reset.
    pub(super) reset: usize,
    /// How many still lead somewhere.
    pub(super) left: usize,
}

/// The sockets behind the descriptors of `processes`.
pub(super) fn held_by(processes: &[Process]) -> io::Result<Held> {
    let mut held = Held::default();
    for process in processes {
        let Ok(handle) = syscalls::pidfd_open(Pid::from_raw(process.pid.cast_signed())) else { continue };
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else { continue };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let obstacle = |what: &str| {
                format!(
                    "process {} ({}) holds {what}, which cannot be captured: end it, or start it by `interceptor run`",
                    process.pid,
                    process.name()
                )
            };
            if target == "anon_inode:[io_uring]" {
                held.obstacles.push(obstacle("a ring of io_uring"));
            }
            let (Some(inode), Some(number)) = (inode_of(&target), number) else { continue };
            // Closed meanwhile.
            let Ok(copy) = syscalls::pidfd_descriptor(handle.as_fd(), number) else { continue };
            match syscalls::socket_kind(copy.as_fd())? {
                (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP)
                | (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => {
                    held.internet.insert(inode);
                    held.networks.insert(syscalls::namespace_cookie(copy.as_fd())?);
                }
                (libc::AF_UNIX, ..) => held.unix += 1,
                (libc::AF_NETLINK, ..) => {}
                (family, _, protocol) => {
                    held.obstacles
                        .push(obstacle(&format!("a socket of family {family}, protocol {protocol}")));
                }
            }
        }
    }
    Ok(held)
}

fn inode_of(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Resets every socket of `held` in a network namespace, in which all of them must be: none of another would be found.
pub(super) fn sweep(network: &File, held: &Held) -> io::Result<Swept> {
    sweep_where(network, held, |_| true)
}

/// Resets the sockets that a process has brought along into a captured cgroup: those that were not made in it, as `is_inside`
/// knows by the number of a socket's cgroup. Says how many there were.
pub(crate) fn reset_brought(pid: u32, is_inside: impl Fn(u64) -> bool) -> io::Result<usize> {
    let process = match tree::read(pid) {
        // It has ended, and its sockets with it.
        Err(error) if tree::is_gone(&error) => return Ok(0),
        process => process?,
    };
    let held = held_by(slice::from_ref(&process))?;
    if held.internet.is_empty() {
        return Ok(0);
    }
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    let is_brought = |socket: &Named| socket.cgroup.is_none_or(|cgroup| !is_inside(cgroup));
    match sweep_where(&network, &held, is_brought)? {
        Swept { reset, left: 0 } => Ok(reset),
        Swept { left, .. } => Err(io::Error::other(format!("{left} could not be reset"))),
    }
}

fn sweep_where(network: &File, held: &Held, goes: impl Fn(&Named) -> bool) -> io::Result<Swept> {
    let network = network.try_clone()?;
    let opened = thread::spawn(move || -> io::Result<OwnedFd> {
        // Only this thread changes over, and it ends here.
        setns(&network, CloneFlags::CLONE_NEWNET)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let diag = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&diag, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
        Ok(diag)
    });
    let diag = opened.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))?;
    let network = syscalls::namespace_cookie(diag.as_fd())?;
    if held.networks.iter().any(|other| *other != network) {
        return Err(io::Error::other(
            "some are of another network namespace: close them, or end their process",
        ));
    }
    let those = || -> io::Result<Vec<Named>> {
        let found = all(diag.as_fd(), &held.internet)?;
        Ok(found.into_values().filter(|socket| goes(socket)).collect())
    };
    let found = those()?;
    for socket in &found {
        destroy(diag.as_fd(), socket)?;
    }
    let left = those()?.len();
    Ok(Swept { reset: found.len().saturating_sub(left), left })
}

/// A socket as sock_diag names it.
struct Named {
    family: u8,
    protocol: u8,
    /// `struct inet_diag_sockid`
    id: [u8; 48],
    /// The number of the cgroup that it was made in, where the kernel says so.
    cgroup: Option<u64>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = REQUEST | libc::NLM_F_DUMP as u16;
const ACKNOWLEDGED: u16 = REQUEST | libc::NLM_F_ACK as u16;
const HEADER: usize = 16;
/// The length of `struct inet_diag_msg`; attributes follow.
const MESSAGE: usize = 72;
/// `INET_DIAG_CGROUP_ID`
const CGROUP_ID: u16 = 21;
/// All of TCP's states but TIME_WAIT, SYN_RECV's half-open requests and CLOSE: those belong to nobody any more.
const STATES: u32 = !(1 << 6 | 1 << 12);

/// Those of `inodes` that the kernel's tables have.
fn all(diag: BorrowedFd<'_>, inodes: &BTreeSet<u64>) -> io::Result<BTreeMap<u64, Named>> {
    let mut found = BTreeMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let (family, protocol) = (family as u8, protocol as u8);
            let any = Named { family, protocol, id: [0; 48], cgroup: None };
            send(diag.as_raw_fd(), &request(SOCK_DIAG_BY_FAMILY, DUMP, &any), MsgFlags::empty())?;
            read_dump(diag, protocol, inodes, &mut found)?;
        }
    }
    Ok(found)
}

fn read_dump(
    diag: BorrowedFd<'_>,
    protocol: u8,
    inodes: &BTreeSet<u64>,
    found: &mut BTreeMap<u64, Named>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let (Some(size), Some(kind)) = (word(rest, 0), half(rest, 4)) {
            let size = size as usize;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = word(rest, HEADER).unwrap_or(0).cast_signed();
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => {}
            }
            let message = rest.get(HEADER..size).unwrap_or_default();
            let id = message.get(4..52).and_then(|id| id.try_into().ok());
            if let (Some(family), Some(inode), Some(id)) = (message.first(), word(message, 68), id)
                && inodes.contains(&inode.into())
            {
                let cgroup = attribute(message.get(MESSAGE..).unwrap_or_default(), CGROUP_ID);
                found.insert(inode.into(), Named { family: *family, protocol, id, cgroup });
            }
            rest = rest.get(size.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn destroy(diag: BorrowedFd<'_>, socket: &Named) -> io::Result<()> {
    send(diag.as_raw_fd(), &request(SOCK_DESTROY, ACKNOWLEDGED, socket), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = word(answer.get(..length).unwrap_or_default(), HEADER).unwrap_or(0).cast_signed();
    match -code {
        // Gone by itself.
        0 | libc::ENOENT => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, socket: &Named) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([socket.family, socket.protocol, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    bytes.extend(socket.id);
    bytes
}

/// A number of eight bytes among netlink's attributes.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<u64> {
    while let (Some(size), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let size = usize::from(size);
        if kind == wanted {
            return rest.get(4..size)?.try_into().ok().map(u64::from_ne_bytes);
        }
        rest = rest.get(size.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::fs::MetadataExt,
        process::Command,
    };

    use super::*;
    use crate::{helper::cgroup::Tree, places::Places};

    fn inode(socket: impl AsFd) -> u64 {
        nix::sys::stat::fstat(socket).expect("own socket").st_ino
    }

    #[test]
    fn connections_listeners_and_datagram_sockets_are_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("own listener");
        let (_server, _) = listener.accept().expect("own client");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
        datagrams.connect("127.0.0.1:9").expect("any address");
        let mut held = Held::default();
        held.internet.extend([inode(&listener), inode(&client), inode(&datagrams)]);
        let network = File::open("/proc/self/ns/net").expect("namespace");
        assert_eq!(sweep(&network, &held).expect("sweep"), Swept { reset: 3, left: 0 });
        assert!(client.read(&mut [0]).is_err());
        assert!(datagrams.send(b"x").is_err());
        held.networks.insert(1);
        assert!(sweep(&network, &held).is_err(), "what cannot be found is not said to be reset");
    }

    #[test]
    fn only_what_was_brought_along_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("own listener");
        let (mut server, _) = listener.accept().expect("own client");
        let input = OwnedFd::from(client.try_clone().expect("own socket"));
        let mut holder = Command::new("/bin/sleep").arg("60").stdin(input).spawn().expect("sleep");
        let tree = Tree::find(&Places::system()).expect("cgroup2");
        let own = tree.directory(&Tree::cgroup_of("self").expect("this process's"));
        let own = fs::metadata(own).expect("a cgroup").ino();
        assert_eq!(reset_brought(holder.id(), |cgroup| cgroup == own).expect("a look"), 0);
        server.write_all(b"x").expect("it is there");
        client.read_exact(&mut [0]).expect("so is its other end");
        assert_eq!(reset_brought(holder.id(), |cgroup| cgroup != own).expect("a reset"), 1);
        assert!(client.read(&mut [0]).is_err());
        holder.kill().expect("kill");
        holder.wait().expect("wait");
        assert_eq!(reset_brought(holder.id(), |_| false).expect("nobody"), 0);
    }
}
