//! What systemd holds for the daemon that it starts: its file descriptor store, by the protocol of sd_notify(3).
//!
//! A message is one datagram of `NAME=value` lines, and is not answered; that it was worked on shows at the end of a pipe that
//! came along (`BARRIER=1`). What is held comes back at the next start as descriptors from number 3 on, with their names in the
//! environment. A store that the unit does not have, or that is full, is not told of: then nothing, or not all, comes back.

use std::{
    env,
    ffi::OsStr,
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
    unistd::pipe2,
};

use crate::launch::syscalls;

/// Where a service manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// The number of the first descriptor that it passes.
const FIRST: RawFd = 3;
/// How long it may take to take in a message.
const TAKING: Duration = Duration::from_secs(2);
/// How long it may take to work on what it was told, in milliseconds.
const SETTLING: u16 = 5000;

/// A descriptor that this process was started with.
#[derive(Debug)]
pub(crate) struct Passed {
    /// By what name it was held.
    pub(super) name: String,
    pub(super) descriptor: OwnedFd,
}

impl Passed {
    /// All of them. To be called once, before anything else is opened.
    pub(crate) fn take() -> Vec<Self> {
        let text = |name| env::var(name).unwrap_or_default();
        let pid = std::process::id();
        if text("LISTEN_PID").parse() != Ok(pid) {
            return Vec::new();
        }
        let count: usize = text("LISTEN_FDS").parse().unwrap_or(0);
        let names = text("LISTEN_FDNAMES");
        // What has no name was not held by us.
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let passed = (FIRST..).zip(names).take(count);
        passed
            .map_while(|(number, name)| {
                Some(Self { name, descriptor: syscalls::take_inherited(number).ok()? })
            })
            .collect()
    }
}

/// The service manager that started this process.
#[derive(Debug)]
pub(super) struct Manager {
    socket: UnixDatagram,
    address: UnixAddr,
}

impl Manager {
    /// The one that the environment names, if it names one.
    pub(super) fn of_environment() -> io::Result<Option<Self>> {
        env::var_os(SOCKET).map(|name| Self::at(&name)).transpose()
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => UnixAddr::new_abstract(rest)?,
            [b'/', ..] => UnixAddr::new(name)?,
            _ => return Err(io::Error::other(format!("{SOCKET} is neither a path nor an abstract name"))),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(TAKING))?;
        Ok(Self { socket, address })
    }

    /// Has `descriptors` held by `name`.
    pub(super) fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Without FDPOLL=0 one that has an error to tell would be dropped.
        self.say(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), descriptors)
    }

    /// Has nothing held by `name` any more.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Waits until everything that was said has been worked on.
    pub(super) fn settle(&self) -> io::Result<()> {
        let (open, with_manager) = pipe2(OFlag::O_CLOEXEC)?;
        self.say("BARRIER=1", &[with_manager.as_fd()])?;
        drop(with_manager);
        let mut waiting = [PollFd::new(open.as_fd(), PollFlags::empty())];
        match poll(&mut waiting, PollTimeout::from(SETTLING))? {
            0 => Err(io::Error::other("the service manager does not get to what it was told")),
            _ => Ok(()),
        }
    }

    fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(self.socket.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, Some(&self.address))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_manager_is_told_what_to_hold_and_what_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).expect("a socket");
        let manager = Manager::at(path.as_os_str()).expect("a path");
        let heard = || {
            let mut bytes = [0; 256];
            let length = systemd.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        manager.store("r0000000001", &[systemd.as_fd()]).expect("said");
        assert_eq!(heard(), "FDSTORE=1\nFDPOLL=0\nFDNAME=r0000000001");
        manager.remove("r0000000001").expect("said");
        assert_eq!(heard(), "FDSTOREREMOVE=1\nFDNAME=r0000000001");
        // Whoever reads it and keeps nothing has closed the pipe that came along.
        let settled = std::thread::scope(|scope| {
            let settling = scope.spawn(|| manager.settle());
            assert_eq!(heard(), "BARRIER=1");
            settling.join().expect("it does not panic")
        });
        assert!(settled.is_ok(), "{settled:?}");
        drop(systemd);
        assert!(manager.remove("r0000000001").is_err());
        assert!(Manager::at(OsStr::new("vsock:2:1")).is_err());
    }
}
