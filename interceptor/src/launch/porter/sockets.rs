//! Calls on a caller's Unix socket, and the addresses that they name.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    libc,
    sys::{
        stat::{SFlag, fstat},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::{Pid, fchdir},
};

use super::call::Area;
use crate::launch::syscalls;

/// The longest address that the kernel looks at, `struct sockaddr_storage`.
const LONGEST: usize = 128;
/// Where the path begins.
const PATH: usize = 2;
/// The longest datagram that is sent by name: as much as the kernel gives a socket by default.
const DATAGRAM: usize = 212_992;

/// An address, as its caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(Vec<u8>);

/// An address that leads nowhere else any more, with the file that it names.
pub(super) struct Destination {
    pub(super) address: Address,
    _file: Option<OwnedFd>,
}

impl Address {
    /// Reads it out of the caller's memory.
    pub(super) fn read(thread: Pid, area: &Area) -> nix::Result<Self> {
        if area.length > LONGEST {
            return Err(Errno::EINVAL);
        }
        read(thread, area).map(Self)
    }

    /// Whether it is one of the Unix family.
    pub(super) fn is_unix(&self) -> bool {
        let family = self.0.get(..PATH).and_then(|family| family.try_into().ok()).map(u16::from_ne_bytes);
        family.is_some_and(|family| libc::c_int::from(family) == libc::AF_UNIX)
    }

    /// The path, if it is an address of the Unix family that has one. An abstract name begins with a NUL.
    pub(super) fn path(&self) -> Option<&[u8]> {
        let path = self.0.get(PATH..)?.split(|byte| *byte == 0).next()?;
        (self.is_unix() && !path.is_empty()).then_some(path)
    }

    pub(super) fn of_path(path: &str) -> Self {
        let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        bytes.extend(path.as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.0.as_ptr().cast(), self.0.len() as libc::socklen_t)
    }
}

impl Destination {
    pub(super) fn named(address: Address) -> Self {
        Self { address, _file: None }
    }

    /// The very file, whatever happens to its names: as a number in the folder of our descriptors, which becomes the
    /// calling thread's folder.
    pub(super) fn file(file: OwnedFd, descriptors: &OwnedFd) -> nix::Result<Self> {
        fchdir(descriptors)?;
        Ok(Self { address: Address::of_path(&file.as_raw_fd().to_string()), _file: Some(file) })
    }
}

/// This process's own descriptors, as a folder that can be entered from anywhere.
pub(super) fn own_descriptors() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/fd")?.into())
}

/// What there is at a path.
pub(super) enum Found {
    /// A socket, that the calling thread may write to.
    Socket(OwnedFd),
    /// No socket: connect(2) would fail so.
    Nothing(Errno),
}

/// What the calling thread finds at `path`, as connect(2) would. Links of `/proc` to descriptors are not followed, since they
/// would be those of another process than the caller's.
pub(super) fn look_up(path: &[u8]) -> nix::Result<Found> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(AT_FDCWD, Path::new(OsStr::from_bytes(path)), how) {
        Err(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => return Ok(Found::Nothing(errno)),
        opened => opened?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFSOCK {
        let refused = syscalls::check_writable(file.as_fd()).err();
        return Ok(Found::Nothing(refused.unwrap_or(Errno::ECONNREFUSED)));
    }
    syscalls::check_writable(file.as_fd())?;
    Ok(Found::Socket(file))
}

/// The bytes of a datagram.
pub(super) fn datagram(thread: Pid, area: &Area) -> nix::Result<Vec<u8>> {
    if area.length > DATAGRAM { Err(Errno::EMSGSIZE) } else { read(thread, area) }
}

fn read(thread: Pid, area: &Area) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0; area.length];
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let from = RemoteIoVec { base: area.at, len: area.length };
    let length = process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes)], &[from])?;
    if length == area.length { Ok(bytes) } else { Err(Errno::EFAULT) }
}

pub(super) fn bind(socket: &OwnedFd, address: &Address) -> nix::Result<()> {
    let (at, length) = address.parts();
    // SAFETY: the address outlives the call and is as long as said.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), at, length) }).map(drop)
}

pub(super) fn connect(socket: &OwnedFd, address: &Address) -> nix::Result<i64> {
    let (at, length) = address.parts();
    // SAFETY: as above.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), at, length) }).map(i64::from)
}

pub(super) fn send(socket: &OwnedFd, data: &[u8], flags: libc::c_int, address: &Address) -> nix::Result<i64> {
    let (at, length) = address.parts();
    let (from, bytes) = (data.as_ptr().cast(), data.len());
    // A signal would be ours.
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: as above, and the same goes for the data.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), from, bytes, flags, at, length) };
    Errno::result(sent).map(|sent| sent as i64)
}

/// `SIOCUNIXFILE` of `linux/un.h`.
const SIOCUNIXFILE: libc::c_ulong = 0x89e0;

/// The file that a socket is bound to.
pub(super) fn bound_file(socket: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // SAFETY: the request takes nothing and answers with a descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a socket was made in this network namespace.
pub(super) fn is_of(socket: &OwnedFd, network: &File) -> nix::Result<bool> {
    let made_in = super::number(syscalls::network_of(socket.as_fd()))?;
    super::number(syscalls::same_file(&made_in, network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(family: libc::c_int, rest: &[u8]) -> Address {
        let mut bytes = (family as u16).to_ne_bytes().to_vec();
        bytes.extend(rest);
        Address(bytes)
    }

    #[test]
    fn only_a_path_of_the_unix_family_is_one() {
        assert_eq!(address(libc::AF_UNIX, b"/a/b\0rest").path(), Some(&b"/a/b"[..]));
        assert_eq!(address(libc::AF_UNIX, b"rel").path(), Some(&b"rel"[..]));
        assert_eq!(address(libc::AF_UNIX, b"\0abstract").path(), None);
        assert_eq!(address(libc::AF_UNIX, b"").path(), None);
        assert_eq!(address(libc::AF_INET, b"/a/b").path(), None);
        assert_eq!(Address(vec![1]).path(), None);
        assert_eq!(Address::of_path("12").path(), Some(&b"12"[..]));
    }
}
