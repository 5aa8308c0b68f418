//! Whose call it is, and acting with no more than that one's rights.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{Pid, chroot, fchdir},
};

use super::number;
use crate::launch::syscalls;

/// `PIDFD_THREAD`, of Linux 6.9.
const THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// A thread that waits for an answer, as it is seen from outside.
pub(super) struct Caller {
    /// Its process.
    pub(super) process: u32,
    root: File,
    folder: File,
    mask: Mode,
    /// Real, effective and saved.
    pub(super) uids: [libc::uid_t; 3],
    gids: [libc::gid_t; 3],
    groups: Vec<libc::gid_t>,
    capabilities: u32,
}

/// A handle on the thread's descriptors.
pub(super) fn handle(thread: Pid) -> nix::Result<OwnedFd> {
    match syscalls::pidfd_open_with(thread, THREAD) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let leader = field(&status(thread)?, "Tgid")?;
            number(syscalls::pidfd_open(Pid::from_raw(leader)))
        }
        opened => number(opened),
    }
}

impl Caller {
    /// What counts of it, read once. True of it only if it is checked afterwards that it waits still.
    pub(super) fn look(thread: Pid) -> nix::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let status = status(thread)?;
        let open = |name: &str| {
            let path = format!("/proc/{thread}/{name}");
            number(fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path))
        };
        let three = |name| -> nix::Result<[u32; 3]> {
            let all: Vec<u32> = numbers(&status, name)?;
            all.get(..3).and_then(|three| three.try_into().ok()).ok_or(Errno::EIO)
        };
        let mask = u32::from_str_radix(text(&status, "Umask")?, 8).map_err(|_| Errno::EIO)?;
        let capabilities = u64::from_str_radix(text(&status, "CapEff")?, 16).map_err(|_| Errno::EIO)?;
        Ok(Self {
            process: field(&status, "Tgid")?,
            root: open("root")?,
            folder: open("cwd")?,
            mask: Mode::from_bits_truncate(mask),
            uids: three("Uid")?,
            gids: three("Gid")?,
            groups: numbers(&status, "Groups")?,
            // No run has any of the others.
            capabilities: capabilities as u32,
        })
    }

    /// Does something in a thread of its own that stands where the caller does, and may do what the caller may.
    pub(super) fn perform<T: Send>(&self, doing: impl FnOnce() -> nix::Result<T> + Send) -> nix::Result<T> {
        let standing = || number(self.become_alike()).and_then(|()| doing());
        thread::scope(|scope| {
            let acting = number(thread::Builder::new().spawn_scoped(scope, standing))?;
            acting.join().unwrap_or(Err(Errno::EIO))
        })
    }

    /// Only the calling thread changes, and for good.
    fn become_alike(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        fchdir(&self.root)?;
        chroot(".")?;
        fchdir(&self.folder)?;
        umask(self.mask);
        prctl::set_keepcaps(true)?;
        syscalls::set_thread_ids(&self.groups, self.gids, self.uids)?;
        syscalls::keep_capabilities(self.capabilities, 0)
    }
}

fn status(thread: Pid) -> nix::Result<String> {
    number(fs::read_to_string(format!("/proc/{thread}/status")))
}

fn text<'a>(status: &'a str, name: &str) -> nix::Result<&'a str> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| *known == name).map(|(_, value)| value.trim()).ok_or(Errno::EIO)
}

fn field<T: std::str::FromStr>(status: &str, name: &str) -> nix::Result<T> {
    text(status, name)?.parse().map_err(|_| Errno::EIO)
}

fn numbers(status: &str, name: &str) -> nix::Result<Vec<u32>> {
    text(status, name)?.split_whitespace().map(|word| word.parse().map_err(|_| Errno::EIO)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_or_an_error() {
        let status = "Name:\tUid:\t7\nUmask:\t0022\nTgid:\t12\nUid:\t1\t2\t3\t4\nGroups:\t \n";
        assert_eq!(field(status, "Tgid"), Ok(12_u32));
        assert_eq!(numbers(status, "Uid"), Ok(vec![1, 2, 3, 4]));
        assert_eq!(numbers(status, "Groups"), Ok(Vec::new()));
        assert_eq!(text(status, "Umask"), Ok("0022"));
        assert_eq!(text(status, "CapEff"), Err(Errno::EIO));
    }
}
