//! Who is at the other end of the approvers' socket, from what the kernel says of the process.
//!
//! Promises: a captured process, or one below a captured one, is nobody; so is a message that another process than
//! the one that connected has sent, as over a passed descriptor. A person is the user of the log-in session that
//! the process belongs to, as PAM has set it; being root makes nobody a person.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        getsockopt,
        sockopt::{PeerCredentials, PeerPidfd},
    },
};

use crate::{channel::Sender, helper::cgroup::Tree};

/// A user number that means none.
const UNSET: u32 = u32::MAX;
/// How far up is looked.
const ANCESTORS: usize = 256;

/// A process that may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// The user of its log-in session, where it has one.
    pub login: Option<u32>,
    /// The number of that session.
    pub session: u32,
}

/// Why a process may not speak.
#[derive(Debug, thiserror::Error)]
pub enum Stranger {
    /// The kernel says too little.
    #[error("the caller cannot be identified")]
    Nameless(#[from] io::Error),
    /// It is captured, or was started by somebody who is.
    #[error("a captured process, and whatever it started, may not approve")]
    Captured,
    /// Another process has the socket.
    #[error("this connection was made by another process than the one that uses it")]
    Passed,
    /// It is gone.
    #[error("the caller is gone")]
    Gone,
}

impl Caller {
    /// The process that connected `socket`, and that sent a message over it.
    pub fn identify(socket: BorrowedFd<'_>, sender: Option<Sender>) -> Result<Self, Stranger> {
        let peer = getsockopt(&socket, PeerCredentials).map_err(io::Error::from)?;
        let handle = handle(socket)?;
        if sender.is_none_or(|sender| sender.pid != peer.pid() || peer.pid() <= 0) {
            return Err(Stranger::Passed);
        }
        let pid = peer.pid().to_string();
        let login = number(&pid, "loginuid")?;
        let session = number(&pid, "sessionid")?;
        captured(&pid)?;
        // All of that was read of the process that connected, if it lives still.
        if let Some(handle) = handle
            && ended(handle.as_fd())?
        {
            return Err(Stranger::Gone);
        }
        let is_session = login != UNSET && session != UNSET;
        Ok(Self {
            pid: peer.pid().cast_unsigned(),
            uid: peer.uid(),
            login: is_session.then_some(login),
            session,
        })
    }

    /// The user who may decide: that of the log-in session, unless the process has become somebody else than root.
    pub fn decides(&self) -> Option<u32> {
        self.login.filter(|login| self.uid == 0 || self.uid == *login)
    }
}

/// A handle on the process that connected; none on kernels before 6.5, where a number could be another's by now.
fn handle(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Stranger> {
    match getsockopt(&socket, PeerPidfd) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(Errno::ESRCH | Errno::EINVAL) => Err(Stranger::Gone),
        Err(errno) => Err(Stranger::Nameless(errno.into())),
    }
}

fn ended(handle: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::new(handle, PollFlags::POLLIN)];
    Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
}

fn number(pid: &str, file: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Refuses a process that is captured, or has a captured one above it.
fn captured(pid: &str) -> Result<(), Stranger> {
    let mut pid = pid.to_owned();
    for _ in 0..ANCESTORS {
        if Tree::is_captured(&pid)? {
            return Err(Stranger::Captured);
        }
        let parent = parent(&pid)?;
        if parent <= 1 {
            return Ok(());
        }
        pid = parent.to_string();
    }
    Err(Stranger::Nameless(io::Error::other("too many processes above it")))
}

/// The parent, from the fourth field of `/proc/PID/stat`; the second may hold anything, so count from its end.
fn parent(pid: &str) -> io::Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind = stat.rsplit_once(") ").map(|(_, behind)| behind);
    let parent = behind.and_then(|behind| behind.split(' ').nth(1)).and_then(|field| field.parse().ok());
    parent.ok_or_else(|| io::Error::other("an unreadable stat"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::PassCred};

    use super::*;
    use crate::channel::Channel;

    #[test]
    fn the_sender_is_told_by_the_kernel() {
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a pair");
        setsockopt(&far, PassCred, &true).expect("credentials");
        let (near, far) = (Channel::<u32, u32>::from_socket(near), Channel::<u32, u32>::from_socket(far));
        near.send(&7, &[]).expect("sent");
        let (said, sender) = far.receive_signed().expect("received");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!((said, sender.map(|sender| sender.pid)), (7, Some(own)));
        let caller = Caller::identify(far.as_fd(), sender).expect("this process");
        assert_eq!(caller.uid, nix::unistd::getuid().as_raw());
        let passed = Some(Sender { pid: own + 1, uid: 0 });
        assert!(matches!(Caller::identify(far.as_fd(), passed), Err(Stranger::Passed)));
        assert!(matches!(Caller::identify(far.as_fd(), None), Err(Stranger::Passed)));
        assert!(near.as_fd().as_raw_fd() != far.as_fd().as_raw_fd());
    }

    #[test]
    fn root_is_nobody_without_a_session_and_nobody_is_somebody_else() {
        let caller = |uid, login| Caller { pid: 7, uid, login, session: 3 }.decides();
        assert_eq!(caller(0, Some(1002)), Some(1002));
        assert_eq!(caller(1002, Some(1002)), Some(1002));
        assert_eq!(caller(0, None), None);
        assert_eq!(caller(1003, Some(1002)), None);
    }
}
