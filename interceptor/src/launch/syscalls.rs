//! The system calls that have no safe wrapper among our libraries: the only `unsafe` of the launcher and helper.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    libc,
    pty::Winsize,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::{ForkResult, Pid},
};
use seccompiler::BpfProgramRef;
use tokio::io::unix::AsyncFd;

/// A child made by [`clone_into`].
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id, as the parent sees it.
    pub(crate) pid: Pid,
    /// A handle that outlives the reuse of the number.
    pub(crate) pidfd: OwnedFd,
}

/// Which side of a clone or fork this is.
#[derive(Debug)]
pub(crate) enum Side<T> {
    /// The one that was there before.
    Parent(T),
    /// The new one.
    Child,
}

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; the library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks a child that is born in `cgroup` and in the new namespaces `flags`, so that not even its first
/// instruction runs outside.
pub(crate) fn clone_into(cgroup: BorrowedFd<'_>, flags: u64) -> io::Result<Side<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`: every field is a plain integer.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | (libc::CLONE_PIDFD as u64) | CLONE_INTO_CGROUP;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: without CLONE_VM this is a fork: the child gets a copy of this memory and of this one thread.
    // `arguments` and `pidfd` outlive the call.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut arguments), size_of::<libc::clone_args>())
    };
    match pid {
        0 => Ok(Side::Child),
        pid if pid > 0 => {
            let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent(Child { pid: Pid::from_raw(pid), pidfd }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// An ordinary fork, for a process with one thread.
pub(crate) fn fork() -> io::Result<Side<Pid>> {
    // SAFETY: the launcher and the first process of a run have one thread, so no lock can be held by another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// A handle on process `pid`.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    pidfd_open_with(pid, 0)
}

/// A handle on process `pid`, or on a thread, as the flags say.
pub(crate) fn pidfd_open_with(pid: Pid, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) };
    owned(fd)
}

/// A copy of another process's descriptor.
pub(crate) fn pidfd_descriptor(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// A socket's family, kind and protocol.
pub(crate) fn socket_kind(socket: BorrowedFd<'_>) -> io::Result<(libc::c_int, libc::c_int, libc::c_int)> {
    let option = |name| {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: these options write one integer, which outlives the call.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                std::ptr::from_mut(&mut value).cast(),
                &mut length,
            )
        };
        if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    };
    Ok((option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?))
}

/// Sends `signal` to the process behind `pidfd`.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a null siginfo is documented as "like kill".
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from 3 on, or marks it to be closed at exec.
pub(crate) fn close_from_three(at_exec: bool) -> io::Result<()> {
    let flags = if at_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: called in a child that uses none of these descriptors afterwards.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the ambient set, and the bounding set but for those in `kept` (of the first 32); needs `CAP_SETPCAP`.
pub(crate) fn empty_bounding_set(kept: u32) -> io::Result<()> {
    for capability in (0..64).filter(|number| *number >= 32 || kept & (1 << number) == 0) {
        // SAFETY: these options take plain integers.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match (done, Errno::last()) {
            (0, _) => {}
            // Past the last capability that this kernel knows.
            (_, Errno::EINVAL) if capability > 0 => break,
            (_, errno) => return Err(errno.into()),
        }
    }
    // SAFETY: as above.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts the capabilities in `mask` (of the first 32) into the ambient set, so that they outlive exec for any user.
pub(crate) fn raise_ambient(mask: u32) -> io::Result<()> {
    for capability in (0..32).filter(|number| mask & (1 << number) != 0) {
        // SAFETY: this option takes plain integers.
        let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Leaves exactly the capabilities in `mask` (of the first 32) effective and permitted, and those in `inheritable`
/// so.
pub(crate) fn keep_capabilities(mask: u32, inheritable: u32) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let words = [
        CapabilityWords { effective: mask, permitted: mask, inheritable },
        CapabilityWords { effective: 0, permitted: 0, inheritable: 0 },
    ];
    // SAFETY: both structures have the layout that version 3 of the call asks for, and outlive it.
    let done = unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), words.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread alone other ids: the library's functions change every thread.
pub(crate) fn set_thread_ids(
    groups: &[libc::gid_t],
    [real_gid, gid, saved_gid]: [libc::gid_t; 3],
    [real_uid, uid, saved_uid]: [libc::uid_t; 3],
) -> io::Result<()> {
    let check = |done: libc::c_long| if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the list outlives the call and is as long as said.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, real_gid, gid, saved_gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, real_uid, uid, saved_uid) })
}

/// Fails unless the calling thread may write to a file that it has only looked up.
pub(crate) fn check_writable(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: the path is empty and ends in NUL.
    let done =
        unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), libc::W_OK, flags) };
    Errno::result(done).map(drop)
}

/// Runs `body` in the child between fork and exec.
pub(crate) fn before_exec(
    command: &mut Command,
    body: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the bodies given here make system calls on values prepared beforehand and allocate nothing that
    // another thread's lock could guard.
    unsafe { command.pre_exec(body) };
}

/// Puts `source` at descriptor number `target`, open across exec.
pub(crate) fn place(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: `target` is a number that the calling child reserves for this purpose.
    let done = unsafe {
        if source.as_raw_fd() == target {
            libc::fcntl(target, libc::F_SETFD, 0)
        } else {
            libc::dup2(source.as_raw_fd(), target)
        }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the descriptor behind standard input, which becomes `/dev/null`.
pub(crate) fn take_standard_input() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    place(File::open("/dev/null")?.as_fd(), 0)?;
    Ok(taken)
}

/// Takes a descriptor that this process was started with, by its number. It is closed at exec from now on.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; it fails where nothing is open by that number.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and was so before this process opened anything: nobody else here knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// An extended attribute of a file, as text; nothing where it has none.
pub(crate) fn attribute(path: &Path, name: &CStr) -> io::Result<Option<String>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0_u8; 256];
    // SAFETY: both names end in NUL, and the value is as long as said.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENODATA) { Ok(None) } else { Err(error) };
    };
    let value = value.get(..length).unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(value).into_owned()))
}

/// Sets an extended attribute that a file does not have.
pub(crate) fn set_attribute(path: &Path, name: &CStr, value: &str) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (text, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: both names end in NUL, and the value is as long as said.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), text, length, libc::XATTR_CREATE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Removes an extended attribute of a file.
pub(crate) fn remove_attribute(path: &Path, name: &CStr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names end in NUL.
    let done = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The cookie by which the kernel side knows the network namespace of `socket`.
pub(crate) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes eight bytes at most, to an integer that outlives the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h`.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Puts a filter of system calls in force on the calling thread, which must have given up new privileges or be root; gives
/// what the kernel says, a descriptor where the flags ask for one.
pub(crate) fn install_filter(program: BpfProgramRef<'_>, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program outlives the call, which only reads it, and is as long as said.
    let said = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, std::ptr::from_ref(&program)) };
    if said < 0 { Err(io::Error::last_os_error()) } else { Ok(said) }
}

/// The network namespace that a socket was made in.
pub(crate) fn network_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes nothing and answers with a descriptor.
    owned(libc::c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS, 0) }))
}

/// `SIOCGSKNS` of `linux/sockios.h`.
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// Makes the terminal behind the first standard stream that is one the session's controlling terminal.
pub(crate) fn take_terminal() -> io::Result<()> {
    for number in 0..3 {
        // SAFETY: TIOCSCTTY takes an integer.
        if unsafe { libc::ioctl(number, libc::TIOCSCTTY, 0) } == 0 {
            return Ok(());
        }
    }
    Err(io::Error::last_os_error())
}

/// The size of the terminal `from`, copied to `to`.
pub(crate) fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both calls take a pointer to a `winsize` that outlives them.
    let done = unsafe {
        match libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, std::ptr::from_mut(&mut size)) {
            0 => libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)),
            failed => failed,
        }
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the other end of a pseudo-terminal be opened.
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> io::Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK takes a pointer to an integer that outlives the call.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlocked)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens the other end of a pseudo-terminal without a path.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes integer flags and answers with a descriptor.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    owned(libc::c_long::from(fd))
}

/// Accepts one connection.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let accepted = nix::sys::socket::accept4(listener.as_raw_fd(), nix::sys::socket::SockFlag::SOCK_CLOEXEC)?;
    owned(libc::c_long::from(accepted))
}

/// A socket of any family and protocol, only to learn whether it may be had.
pub(crate) fn try_socket(
    family: libc::c_int,
    kind: libc::c_int,
    protocol: libc::c_int,
) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(libc::c_long::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }))
}

/// Whether a ring of io_uring may be made: one without room, which the kernel refuses as invalid whoever may.
pub(crate) fn try_ring() -> io::Result<()> {
    // SAFETY: with no entries, the kernel looks at nothing else before it refuses; a null pointer is refused, too.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, std::ptr::null::<libc::c_void>()) };
    match (done, Errno::last()) {
        (0.., _) => owned(done).map(drop),
        (_, Errno::EINVAL | Errno::EFAULT) => Ok(()),
        (_, errno) => Err(errno.into()),
    }
}

/// Replaces this process; returns only on failure.
pub(crate) fn execute(file: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    match nix::unistd::execve(file, arguments, environment) {
        Err(errno) => errno,
    }
}

/// Waits for readability of `descriptor` on the running tokio runtime.
pub(crate) async fn readable(descriptor: &OwnedFd) -> io::Result<()> {
    let copy = descriptor.try_clone()?;
    // SAFETY: an `OwnedFd` is open, and names the same file, for as long as it lives.
    let waiting = unsafe { AsyncFd::register(copy) }.map_err(io::Error::from)?;
    let _ready = waiting.readable().await?;
    Ok(())
}

/// The device and inode behind a descriptor, for comparing namespaces.
pub(crate) fn same_file(left: impl AsFd, right: impl AsFd) -> io::Result<bool> {
    let (left, right) = (nix::sys::stat::fstat(left)?, nix::sys::stat::fstat(right)?);
    Ok((left.st_dev, left.st_ino) == (right.st_dev, right.st_ino))
}

/// Ends this process at once, without running anything that belongs to the parent.
pub(crate) fn leave(status: i32) -> ! {
    // SAFETY: `_exit` ends the process.
    unsafe { libc::_exit(status) }
}

/// An inherited standard stream as a file of its own.
pub(crate) fn duplicate(stream: impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// Undoes what this program did to signals: the mask of the launcher, and Rust's ignoring of SIGPIPE.
pub(crate) fn restore_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    SigSet::empty().thread_set_mask()?;
    Ok(())
}
