//! The two bpf(2) calls that the library lacks for socket option programs: making a link and pinning it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// The longest `bpf_attr` that we pass.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes([u8; 32]);

impl Attributes {
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

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_CGROUP_SETSOCKOPT`
pub(super) const SETSOCKOPT: u32 = 22;

/// Attaches a program to a cgroup by a link.
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::default();
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
    let mut attributes = Attributes::default();
    attributes.put(0, &(path.as_ptr() as u64).to_ne_bytes());
    attributes.put(8, &link.as_fd().as_raw_fd().to_ne_bytes());
    attributes.call(BPF_OBJ_PIN).map(drop)
}
