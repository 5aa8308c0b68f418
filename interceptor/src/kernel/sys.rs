//! The bpf(2) calls that the library lacks: making a link and pinning it, for socket option programs and the guard of Unix
//! sockets, loading the latter, and asking a cgroup what is attached to it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::bpf_insn;

/// The longest `bpf_attr` that we pass.
#[repr(C, align(8))]
struct Attributes([u8; 72]);

impl Attributes {
    fn new() -> Self {
        Self([0; 72])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    fn call(&mut self, command: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: the attributes live through the call and are as long as said; the kernel writes nothing beyond them.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self.0, size_of_val(&self.0)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`
const SOCK_ADDR: u32 = 18;
/// A move of a constant into the result, `BPF_ALU64 | BPF_MOV | BPF_K`.
pub(super) const MOVE: u8 = 0xb7;
/// The end of a program, `BPF_JMP | BPF_EXIT`.
pub(super) const EXIT: u8 = 0x95;
/// `BPF_CGROUP_SETSOCKOPT`
pub(super) const SETSOCKOPT: u32 = 22;

/// Has the verifier look at a socket address program for one hook.
pub(super) fn load(name: &str, program: &[bpf_insn], attach_type: u32) -> io::Result<OwnedFd> {
    const NAME: usize = 16;
    let count = u32::try_from(program.len()).map_err(io::Error::other)?;
    let mut attributes = Attributes::new();
    attributes.put(0, &SOCK_ADDR.to_ne_bytes());
    attributes.put(4, &count.to_ne_bytes());
    attributes.put(8, &(program.as_ptr() as u64).to_ne_bytes());
    attributes.put(16, &(c"Dual MIT/GPL".as_ptr() as u64).to_ne_bytes());
    let name: Vec<u8> = name.bytes().take(NAME - 1).collect();
    attributes.put(48, &name);
    attributes.put(68, &attach_type.to_ne_bytes());
    let fd = attributes.call(BPF_PROG_LOAD)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup by a link.
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new();
    attributes.put(0, &program.as_raw_fd().to_ne_bytes());
    attributes.put(4, &cgroup.as_raw_fd().to_ne_bytes());
    attributes.put(8, &attach_type.to_ne_bytes());
    let fd = attributes.call(BPF_LINK_CREATE)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a link a name on bpffs.
pub(super) fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes::new();
    attributes.put(0, &(path.as_ptr() as u64).to_ne_bytes());
    attributes.put(8, &link.as_fd().as_raw_fd().to_ne_bytes());
    attributes.call(BPF_OBJ_PIN).map(drop)
}

/// On which terms programs are attached to a hook of a cgroup: the first one's, which others then have to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// Beside others, there and below.
    Beside,
    /// Alone, unless there is one below, which then is in its place.
    UnlessBelow,
    /// Alone, there and below.
    Alone,
}

/// `BPF_F_ALLOW_OVERRIDE`
const ALLOW_OVERRIDE: u32 = 1;
/// `BPF_F_ALLOW_MULTI`
const ALLOW_MULTI: u32 = 2;
/// More than the kernel lets be attached to one hook of one cgroup.
const MOST_ATTACHED: usize = 64;

/// The programs on a hook of a cgroup, and on which terms they are.
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<(Vec<u32>, Terms)> {
    let mut ids = [0_u32; MOST_ATTACHED];
    let mut attributes = Attributes::new();
    attributes.put(0, &cgroup.as_raw_fd().to_ne_bytes());
    attributes.put(4, &attach_type.to_ne_bytes());
    attributes.put(16, &(ids.as_mut_ptr() as u64).to_ne_bytes());
    attributes.put(24, &(MOST_ATTACHED as u32).to_ne_bytes());
    attributes.call(BPF_PROG_QUERY)?;
    let terms = match attributes.u32_at(12) {
        flags if flags & ALLOW_MULTI != 0 => Terms::Beside,
        flags if flags & ALLOW_OVERRIDE != 0 => Terms::UnlessBelow,
        _ => Terms::Alone,
    };
    Ok((ids.iter().copied().take(attributes.u32_at(24) as usize).collect(), terms))
}
