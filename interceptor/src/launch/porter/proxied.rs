//! A Unix socket that a resource stands for: the caller's very socket is connected to the proxy.
//!
//! Promises: the proxy is asked first, about the path that the caller's call named, read once, and about a process that
//! waits in that call; each call has a listener of its own, whose file has lost its name before it listens, so that nobody
//! else comes there and no two calls can be taken for one another; without the proxy's word, or without one in time, the call
//! fails. Knows no resource and no policy.

use std::{
    collections::HashMap,
    fs::{File, Permissions, remove_file, set_permissions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, getsockopt, listen, setsockopt, socket,
            sockopt::{PeerCredentials, ReceiveTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
    unistd::Pid,
};

use super::{
    call::Waiting,
    caller::Caller,
    number,
    sockets::{self, Address},
};
use crate::{
    channel::{self, Channel},
    helper::messages::{LaunchRequest, Ported, Porting},
    launch::{daemon::Daemon, syscalls},
};

/// How long the proxy may take to say whether a path is a resource's.
const PATIENCE_SECONDS: i64 = 5;
/// For how long a path that no resource had is not asked about again: programs look for the same few name services all the time.
const HELD: Duration = Duration::from_secs(2);
/// How many such paths are kept.
const MOST_HELD: usize = 256;

/// What a path came to.
pub(super) enum Led {
    /// To a resource: the caller's socket is connected.
    Through,
    /// To none: no resource has it.
    Nowhere,
    /// Nobody serves it, or says whether anybody would.
    Unserved,
}

/// Where listeners get the name that they lose.
pub(super) struct Door {
    folder: File,
    nowhere: Mutex<Nowhere>,
}

/// Paths that no resource had when the proxy was last asked, and when that was.
#[derive(Debug, Default)]
struct Nowhere(HashMap<String, Instant>);

impl Nowhere {
    fn has(&self, path: &str, now: Instant) -> bool {
        self.0.get(path).is_some_and(|since| now.duration_since(*since) < HELD)
    }

    fn learn(&mut self, path: &str, now: Instant) {
        if self.0.len() >= MOST_HELD {
            self.0.clear();
        }
        self.0.insert(path.to_owned(), now);
    }
}

impl Door {
    /// In a folder that only root writes to.
    pub(super) fn at(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: File::open(folder)?, nowhere: Mutex::default() })
    }

    /// Connects the caller's socket to the proxy, if `path` is a resource's.
    pub(super) fn leads(
        &self,
        daemon: &Daemon,
        waiting: &Waiting,
        (caller, socket): (&Caller, &OwnedFd),
        path: &[u8],
    ) -> nix::Result<Led> {
        let Some(path) = str::from_utf8(path).ok().filter(|path| path.starts_with('/')) else {
            return Ok(Led::Nowhere);
        };
        let (_, kind, _) = number(syscalls::socket_kind(socket.as_fd()))?;
        if kind != libc::SOCK_STREAM {
            return Ok(Led::Nowhere);
        }
        let nowhere = || self.nowhere.lock().unwrap_or_else(PoisonError::into_inner);
        if nowhere().has(path, Instant::now()) {
            return Ok(Led::Nowhere);
        }
        let process = Pid::from_raw(i32::try_from(caller.process).map_err(|_| Errno::EIO)?);
        let process = number(syscalls::pidfd_open(process))?;
        // It is the caller's process that was opened, if the caller waits still.
        waiting.check()?;
        let (proxy, theirs): (Channel<Ported, Porting>, Channel<Porting, Ported>) = number(channel::pair())?;
        setsockopt(&proxy, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        let [uid, ..] = caller.uids;
        let wanted = LaunchRequest::Wanted { uid, path: path.to_owned() };
        if daemon.tell(&wanted, &[process.as_fd(), theirs.as_fd()]).is_err() {
            return Ok(Led::Unserved);
        }
        drop(theirs);
        match proxy.receive() {
            Ok((Porting::Come, _)) => {}
            Ok((Porting::Nobodys, _)) => {
                nowhere().learn(path, Instant::now());
                return Ok(Led::Nowhere);
            }
            // Closed unheard, out of time, unreadable.
            Err(_) => return Ok(Led::Unserved),
        }
        waiting.check()?;
        let end = self.connected(socket, waiting.id())?;
        let brought = proxy.send(&Ported::Connected, &[end.as_fd()]);
        Ok(if brought.is_ok() { Led::Through } else { Led::Unserved })
    }

    /// The other end of a socket that is connected to nobody else.
    fn connected(&self, caller: &OwnedFd, call: u64) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let own = std::process::id();
        let name = format!("/proc/self/fd/{}/call-{own}-{call:x}", self.folder.as_raw_fd());
        sockets::bind(&listener, &Address::of_path(&name))?;
        let file = sockets::bound_file(listener.as_fd());
        number(remove_file(&name))?;
        let file = file?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Somebody may have looked it up by its name, and could connect while it listens.
        number(set_permissions(&path, Permissions::from_mode(0o000)))?;
        listen(&listener, Backlog::new(1)?)?;
        sockets::connect(caller, &Address::of_path(&path))?;
        let end = number(syscalls::accept(listener.as_fd()))?;
        let connected_by = getsockopt(&end, PeerCredentials)?.pid();
        if u32::try_from(connected_by) == Ok(own) { Ok(end) } else { Err(Errno::EPERM) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn unconnected() -> OwnedFd {
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
    }

    #[test]
    fn what_leads_nowhere_is_asked_about_again_after_a_while() {
        let (mut nowhere, now) = (Nowhere::default(), Instant::now());
        nowhere.learn("/a", now);
        assert!(nowhere.has("/a", now) && !nowhere.has("/b", now));
        assert!(!nowhere.has("/a", now + HELD));
        for number in 0..MOST_HELD {
            nowhere.learn(&number.to_string(), now);
        }
        assert!(!nowhere.has("/a", now) && nowhere.0.len() <= MOST_HELD, "it does not grow");
    }

    #[test]
    fn a_socket_is_connected_once_and_leaves_no_name() {
        let folder = tempfile::tempdir().expect("folder");
        let door = Door::at(folder.path()).expect("door");
        let caller = unconnected();
        let end = door.connected(&caller, 1).expect("connected");
        let (mut near, mut far) = (UnixStream::from(caller), UnixStream::from(end));
        near.write_all(b"hello").expect("sent");
        let mut heard = [0; 5];
        far.read_exact(&mut heard).expect("heard");
        assert_eq!(&heard, b"hello");
        assert_eq!(door.connected(&near.into(), 2).expect_err("once"), Errno::EISCONN);
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
    }
}
