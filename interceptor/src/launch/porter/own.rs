//! The files that a run's own sockets are bound to.
//!
//! Each is held, so that its number is no other file's as long as it is known here. A file that has lost its last name
//! can be connected to by nobody, and is forgotten.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{errno::Errno, libc, sys::stat::fstat};

use super::sockets;

/// How many there may be of one run.
const MOST: usize = 512;

/// By device and number.
type Files = BTreeMap<(libc::dev_t, libc::ino_t), OwnedFd>;

/// What is known of one run.
#[derive(Debug, Default)]
pub(super) struct Own(Mutex<Files>);

impl Own {
    /// Whether a socket of the run was bound to this file.
    pub(super) fn has(&self, file: &OwnedFd) -> nix::Result<bool> {
        let stat = fstat(file)?;
        Ok(self.files().contains_key(&(stat.st_dev, stat.st_ino)))
    }

    /// Fails where no file more can be known.
    pub(super) fn make_room(&self) -> nix::Result<()> {
        let mut files = self.files();
        if files.len() >= MOST {
            files.retain(|_, file| fstat(file).is_ok_and(|stat| stat.st_nlink > 0));
        }
        if files.len() < MOST { Ok(()) } else { Err(Errno::ENOBUFS) }
    }

    /// Keeps the file that `socket` is bound to.
    pub(super) fn remember(&self, socket: &OwnedFd) -> nix::Result<()> {
        let file = sockets::bound_file(socket.as_fd())?;
        let stat = fstat(&file)?;
        self.files().insert((stat.st_dev, stat.st_ino), file);
        Ok(())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    fn bound(own: &Own, path: &std::path::Path) -> UnixListener {
        let listener = UnixListener::bind(path).expect("bind");
        let socket = listener.as_fd().try_clone_to_owned().expect("copy");
        own.make_room().expect("room");
        own.remember(&socket).expect("remember");
        listener
    }

    #[test]
    fn what_others_bound_is_not_ones_own_whatever_its_name() {
        let folder = tempfile::tempdir().expect("folder");
        let (ours, others) = (folder.path().join("ours"), folder.path().join("others"));
        let own = Own::default();
        let _ours = bound(&own, &ours);
        let _others = UnixListener::bind(&others).expect("bind");
        let file = |path: &std::path::Path| match sockets::look_up(path.as_os_str().as_encoded_bytes()) {
            Ok(sockets::Found::Socket(file)) => file,
            Ok(sockets::Found::Nothing(errno)) | Err(errno) => panic!("{}: {errno}", path.display()),
        };
        assert_eq!(own.has(&file(&ours)), Ok(true));
        assert_eq!(own.has(&file(&others)), Ok(false));
        fs::rename(&others, &ours).expect("rename");
        assert_eq!(own.has(&file(&ours)), Ok(false));
    }

    #[test]
    fn files_without_a_name_make_room() {
        let folder = tempfile::tempdir().expect("folder");
        let own = Own::default();
        let kept = folder.path().join("kept");
        let _kept = bound(&own, &kept);
        for number in 1..MOST {
            let path = folder.path().join(number.to_string());
            drop(bound(&own, &path));
        }
        assert_eq!(own.make_room(), Err(Errno::ENOBUFS));
        for number in 1..MOST {
            fs::remove_file(folder.path().join(number.to_string())).expect("remove");
        }
        assert_eq!(own.make_room(), Ok(()));
        assert_eq!(own.files().len(), 1);
    }
}
