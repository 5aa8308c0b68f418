//! System calls that wait for the porter's word: seccomp's notifications.

use std::{
    io,
    ops::Deref,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use nix::{errno::Errno, libc, unistd::Pid};
use seccompiler::BpfProgramRef;

use crate::launch::syscalls;

mod numbers {
    //! The requests of `linux/seccomp.h`.
    use nix::libc;

    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(is_valid, b'!', 2, u64);
    nix::ioctl_write_int!(set_flags, b'!', 4);
}

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: caller and porter take turns on one processor.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// Installs a filter on the calling thread; the calls that it asks about wait at what is returned.
pub(crate) fn install(program: BpfProgramRef<'_>) -> io::Result<OwnedFd> {
    // A caller whose call has been taken in hand is not to be interrupted, as it would make it twice (Linux 5.19).
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let made = match syscalls::install_filter(program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => syscalls::install_filter(program, flags)?,
        done => done?,
    };
    let made = RawFd::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Where calls wait.
pub(super) struct Listener(Arc<OwnedFd>);

/// A place in the caller's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) at: usize,
    pub(super) length: usize,
}

/// What is asked of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Bind,
    Connect,
    Send { data: Area, flags: libc::c_int },
}

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Whose it is, in our pid namespace.
    pub(super) thread: Pid,
    /// The caller's number of the socket.
    pub(super) socket: RawFd,
    pub(super) address: Area,
    pub(super) asked: Asked,
}

/// A call that waits for its answer. If it is dropped without one, the call fails.
pub(super) struct Waiting {
    listener: Arc<OwnedFd>,
    id: u64,
    call: Call,
    given: Answer,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// The kernel goes on with it as if nobody had asked.
    GoOn,
    /// It was made, and returned this.
    Done(i64),
    /// It fails.
    Failed(Errno),
}

impl Listener {
    pub(super) fn new(listener: OwnedFd) -> Self {
        // SAFETY: the request takes an integer. Kernels before 6.6 do not know it, and are slower.
        let _ = unsafe { numbers::set_flags(listener.as_raw_fd(), SYNC_WAKE_UP) };
        Self(Arc::new(listener))
    }

    /// The next call; nothing when there can be no more.
    pub(super) fn next(&self) -> Option<Waiting> {
        loop {
            // SAFETY: all-zero is a valid value: every field is a plain integer. The kernel wants it so.
            let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the structure is the one of this request, and outlives it.
            match unsafe { numbers::receive(self.0.as_raw_fd(), &raw mut told) } {
                Ok(_) => {}
                // Interrupted, or the caller was killed meanwhile.
                Err(Errno::EINTR | Errno::ENOENT) => continue,
                Err(_) => return None,
            }
            let waiting = |call, given| {
                let listener = Arc::clone(&self.0);
                Waiting { listener, id: told.id, call, given }
            };
            match Call::of(&told) {
                Some(call) => return Some(waiting(call, Answer::Failed(Errno::EAGAIN))),
                None => self.refuse(told.id),
            }
        }
    }

    fn refuse(&self, id: u64) {
        reply(&self.0, id, Answer::Failed(Errno::EPERM));
    }
}

impl Call {
    /// What is asked; nothing for a call that the filter does not ask about.
    fn of(told: &libc::seccomp_notif) -> Option<Self> {
        let thread = Pid::from_raw(i32::try_from(told.pid).ok().filter(|pid| *pid > 0)?);
        let [a, b, c, d, e, f] = told.data.args;
        // The kernel, too, takes the lower half of what is an integer.
        let integer = |value: u64| value as libc::c_int;
        let area = |at: u64, length: usize| Some(Area { at: usize::try_from(at).ok()?, length });
        // A negative length is invalid, as one is that is too long.
        let address = |at, length| area(at, usize::try_from(integer(length)).unwrap_or(usize::MAX));
        let (asked, address) = match libc::c_long::from(told.data.nr) {
            libc::SYS_bind => (Asked::Bind, address(b, c)?),
            libc::SYS_connect => (Asked::Connect, address(b, c)?),
            libc::SYS_sendto => {
                let data = area(b, usize::try_from(c).ok()?)?;
                (Asked::Send { data, flags: integer(d) }, address(e, f)?)
            }
            _ => return None,
        };
        Some(Self { thread, socket: integer(a), address, asked })
    }
}

impl Deref for Waiting {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl Waiting {
    /// The kernel's number for it, which no other call of the run has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Fails unless the caller waits still: then its number was nobody else's all the while.
    pub(super) fn check(&self) -> nix::Result<()> {
        // SAFETY: the request reads one integer, which outlives it.
        unsafe { numbers::is_valid(self.listener.as_raw_fd(), &raw const self.id) }.map(drop)
    }

    pub(super) fn answer(mut self, answer: Answer) {
        self.given = answer;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        reply(&self.listener, self.id, self.given);
    }
}

/// Says it to the kernel. A caller that is gone hears nothing.
fn reply(listener: &OwnedFd, id: u64, answer: Answer) {
    let (val, error, flags) = match answer {
        Answer::GoOn => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done(value) => (value, 0, 0),
        Answer::Failed(errno) => (0, -(errno as i32), 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the structure is the one of this request, and outlives it.
    let _ = unsafe { numbers::send(listener.as_fd().as_raw_fd(), &raw mut response) };
}
