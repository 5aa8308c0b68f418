//! The sockets that processes have from before they are captured: found by their descriptors, and reset, or let go on where
//! root says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::fd::{AsFd, RawFd},
    slice,
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
    unistd::Pid,
};

use super::{
    super::syscalls,
    diag::{Diag, Socket},
    tree::{self, Process},
};
use crate::helper::{Connection, Existing, MOST_KEPT};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The inodes of TCP and UDP sockets, each with a process that has it.
    pub(super) internet: BTreeMap<u64, (u32, String)>,
    /// The kernel's numbers of the network namespaces that those are in.
    pub(super) networks: BTreeSet<u64>,
    /// How many Unix sockets there are.
    pub(super) unix: usize,
    /// Handles of processes that are none of these (pidfds): which process, and who has it.
    pub(super) handles: Vec<String>,
    /// What cannot be captured.
    pub(super) obstacles: Vec<String>,
}

/// What became of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept {
    /// How many were reset.
    pub(super) reset: usize,
    /// How many still lead somewhere, and should not.
    pub(super) left: usize,
    /// Those that go on.
    pub(super) kept: Vec<Connection>,
    /// Their inodes.
    pub(super) stay: BTreeSet<u64>,
}

/// The sockets behind the descriptors of `processes`.
pub(super) fn held_by(processes: &[Process]) -> io::Result<Held> {
    let mut held = Held::default();
    for process in processes {
        let Some(handle) = there(syscalls::pidfd_open(Pid::from_raw(process.pid.cast_signed())))? else {
            continue;
        };
        for (number, target) in files_of(process)? {
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
            if target == "anon_inode:[pidfd]"
                && let Some(other) = process_of(process.pid, number)?
                && processes.iter().all(|process| process.pid != other)
            {
                let name = plain(process.name());
                held.handles.push(format!("{other}, of process {} ({name})", process.pid));
            }
            let Some(inode) = inode_of(&target) else { continue };
            let Some(copy) = there(syscalls::pidfd_descriptor(handle.as_fd(), number))? else { continue };
            match syscalls::socket_kind(copy.as_fd())? {
                kind if is_internet(kind) => {
                    held.internet.insert(inode, (process.pid, plain(process.name())));
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

/// Has no other host reach what `processes` have from before, but for the sockets with these inodes. What was reset can be made to
/// listen again, and what was never connected is in no table; no hook sees who then comes. Bound to the loopback
/// interface, nobody from elsewhere does; and who lacks `net_raw`, as whoever is captured, cannot undo that.
pub(super) fn shut_in(processes: &[Process], stay: &BTreeSet<u64>) -> io::Result<()> {
    for process in processes {
        let Some(handle) = there(syscalls::pidfd_open(Pid::from_raw(process.pid.cast_signed())))? else {
            continue;
        };
        for (number, target) in files_of(process)? {
            if inode_of(&target).is_none_or(|inode| stay.contains(&inode)) {
                continue;
            }
            let Some(copy) = there(syscalls::pidfd_descriptor(handle.as_fd(), number))? else { continue };
            if is_internet(syscalls::socket_kind(copy.as_fd())?) {
                setsockopt(&copy, sockopt::BindToDevice, &OsString::from("lo"))?;
            }
        }
    }
    Ok(())
}

fn is_internet(kind: (libc::c_int, libc::c_int, libc::c_int)) -> bool {
    matches!(
        kind,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP)
            | (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
    )
}

/// What was asked for; nothing where it is gone meanwhile. Whatever else stands against it means that nobody knows what is there.
fn there<T>(asked: io::Result<T>) -> io::Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBADF | libc::ENOENT)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The open files of a process, by their numbers; none where it has ended.
fn files_of(process: &Process) -> io::Result<Vec<(RawFd, String)>> {
    let Some(entries) = there(fs::read_dir(format!("/proc/{}/fd", process.pid)))? else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in entries {
        let Some(entry) = there(entry)? else { continue };
        let Some(target) = there(fs::read_link(entry.path()))? else { continue };
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            files.push((number, target.to_string_lossy().into_owned()));
        }
    }
    Ok(files)
}

/// The process that a handle is of; none where that one has ended.
fn process_of(holder: u32, number: RawFd) -> io::Result<Option<u32>> {
    let text = there(fs::read_to_string(format!("/proc/{holder}/fdinfo/{number}")))?.unwrap_or_default();
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i64>().ok());
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0))
}

/// As much of a name as is told: whoever has it has chosen it.
fn plain(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn inode_of(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Those of `held` that the tables of a network namespace have, as text, each with whether it could go on.
pub(super) fn shown(network: &File, held: &Held) -> io::Result<Vec<(String, Fate)>> {
    let diag = Diag::open(network)?;
    let found = diag.all(&held.internet)?;
    let each = found.iter().map(|(inode, socket)| {
        let fate = if socket.is_connection() { Fate::Chosen } else { Fate::Reset };
        let (pid, name) = holder(held, *inode);
        (format!("{socket}, of process {pid} ({name})"), fate)
    });
    Ok(each.collect())
}

/// What can become of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is reset, whatever is chosen.
    Reset,
    /// It is a connection, which may go on if that is chosen.
    Chosen,
}

fn holder(held: &Held, inode: u64) -> (u32, String) {
    held.internet.get(&inode).cloned().unwrap_or_default()
}

/// Resets every socket of `held` in a network namespace, in which all of them must be, since none of another would be found;
/// but for connections that `existing` lets go on.
pub(super) fn sweep(network: &File, held: &Held, existing: Existing) -> io::Result<Swept> {
    sweep_where(network, held, |socket| existing != Existing::Reset && socket.is_connection())
}

/// Resets the sockets that a process has brought along into a captured cgroup, but for those that `stays` knows, by the number of
/// the cgroup that a socket was made in, and by its cookie. Says how many there were.
pub(crate) fn reset_brought(pid: u32, stays: impl Fn(Option<u64>, u64) -> bool) -> io::Result<usize> {
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
    match sweep_where(&network, &held, |socket| stays(socket.cgroup, socket.cookie()))? {
        Swept { reset, left: 0, stay, .. } => shut_in(slice::from_ref(&process), &stay).map(|()| reset),
        Swept { left, .. } => Err(io::Error::other(format!("{left} could not be reset"))),
    }
}

fn sweep_where(network: &File, held: &Held, stays: impl Fn(&Socket) -> bool) -> io::Result<Swept> {
    let diag = Diag::open(network)?;
    if held.networks.iter().any(|other| *other != diag.network) {
        return Err(io::Error::other(
            "some are of another network namespace: close them, or end their process",
        ));
    }
    let found = diag.all(&held.internet)?;
    let (kept, goes): (Vec<_>, Vec<_>) = found.iter().partition(|(_, socket)| stays(socket));
    if kept.len() > MOST_KEPT {
        return Err(io::Error::other(format!(
            "{} connections were to go on, and at most {MOST_KEPT} can: use `--existing reset`",
            kept.len()
        )));
    }
    for (_, socket) in &goes {
        diag.destroy(socket)?;
    }
    let left = diag.all(&held.internet)?.values().filter(|socket| !stays(socket)).count();
    let stay = kept.iter().map(|(inode, _)| **inode).collect();
    let kept = kept.into_iter().map(|(inode, socket)| socket.connection(holder(held, *inode))).collect();
    Ok(Swept { reset: goes.len().saturating_sub(left), left, kept, stay })
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::OwnedFd, unix::fs::MetadataExt},
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
        let inodes = [inode(&listener), inode(&client), inode(&datagrams)];
        held.internet.extend(inodes.map(|inode| (inode, (1, "own".to_owned()))));
        let network = File::open("/proc/self/ns/net").expect("namespace");
        assert_eq!(shown(&network, &held).expect("a look").len(), 3);
        let swept = sweep(&network, &held, Existing::Reset).expect("sweep");
        assert_eq!(swept, Swept { reset: 3, left: 0, kept: Vec::new(), stay: BTreeSet::new() });
        assert!(client.read(&mut [0]).is_err());
        assert!(datagrams.send(b"x").is_err());
        held.networks.insert(1);
        let swept = sweep(&network, &held, Existing::Reset);
        assert!(swept.is_err(), "what cannot be found is not said to be reset");
    }

    #[test]
    fn a_connection_that_is_kept_goes_on_and_is_known_until_its_end() {
        for listens in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listens).expect("a port");
            let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("own listener");
            let (mut server, _) = listener.accept().expect("own client");
            let mut held = Held::default();
            held.internet
                .extend([inode(&listener), inode(&client)].map(|inode| (inode, (7, "own".to_owned()))));
            let network = File::open("/proc/self/ns/net").expect("namespace");
            let swept = sweep(&network, &held, Existing::KeepObserved).expect("sweep");
            assert_eq!((swept.reset, swept.left), (1, 0), "a listener does not go on");
            let [kept] = &*swept.kept else { panic!("{swept:?}") };
            assert_eq!((kept.own, kept.peer), (client.local_addr().unwrap(), client.peer_addr().unwrap()));
            server.write_all(b"x").expect("it goes on");
            client.read_exact(&mut [0]).expect("so does its other end");
            let diag = Diag::open(&network).expect("sock_diag");
            assert!(diag.has(kept).expect("a look"));
            let other = Connection { cookie: kept.cookie + 1, ..kept.clone() };
            assert!(!diag.has(&other).expect("a look"), "another of the same addresses is another");
            diag.reset(&other).expect("nothing to do");
            assert!(diag.has(kept).expect("a look"));
            diag.reset(kept).expect("a reset");
            assert!(!diag.has(kept).expect("a look") && client.read(&mut [0]).is_err());
        }
    }

    #[test]
    fn handles_of_processes_outside_are_found() {
        let own = tree::read(std::process::id()).expect("this process");
        let mut outside = Command::new("/bin/sleep").arg("60").spawn().expect("sleep");
        let handle = syscalls::pidfd_open(Pid::from_raw(outside.id().cast_signed())).expect("a handle");
        let told = format!("{}, of process {} ", outside.id(), own.pid);
        let found = |processes: &[Process]| {
            let held = held_by(processes).expect("a look");
            held.handles.into_iter().filter(|text| text.starts_with(&told)).count()
        };
        assert_eq!(found(slice::from_ref(&own)), 1);
        let child = tree::read(outside.id()).expect("sleep");
        assert_eq!(found(&[own.clone(), child]), 0, "one of its own is none");
        outside.kill().expect("kill");
        outside.wait().expect("wait");
        assert_eq!(found(slice::from_ref(&own)), 0, "an ended one is none");
        drop(handle);
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
        assert_eq!(reset_brought(holder.id(), |cgroup, _| cgroup == Some(own)).expect("a look"), 0);
        server.write_all(b"x").expect("it is there");
        client.read_exact(&mut [0]).expect("so is its other end");
        assert_eq!(reset_brought(holder.id(), |cgroup, _| cgroup != Some(own)).expect("a reset"), 1);
        assert!(client.read(&mut [0]).is_err());
        let device = getsockopt(&client, sockopt::BindToDevice).expect("own socket");
        assert_eq!(
            device.to_string_lossy().trim_end_matches('\0'),
            "lo",
            "nobody from elsewhere comes to it any more"
        );
        holder.kill().expect("kill");
        holder.wait().expect("wait");
        assert_eq!(reset_brought(holder.id(), |_, _| false).expect("nobody"), 0);
    }
}
