//! The bpf(2) calls that the library lacks: making a link and pinning it, for socket option programs and the guard of Unix
//! sockets, and loading the latter.

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

    fn call(&self, command: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: the attributes live through the call and are as long as said; the kernel only reads them.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw const self.0, size_of_val(&self.0)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
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
