//! The folder on bpffs that keeps links and maps alive when nobody of ours is.
//!
//! Layout: `links/NAME`, `links/RUN/NAME` for a run whose cgroup is not below the slice, and `maps-vN/NAME` for ABI version
//! N, so that maps of two versions never meet. A version that does not know such runs cannot remove a folder among the links,
//! and does not start: what it cannot keep captured it does not let go.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use interceptor_common::ABI_VERSION;
use interceptor_core::model::RunId;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::KernelError;
use crate::places::Places;

const BPFFS: &str = "/sys/fs/bpf";

/// The pins of one installation.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Names the pins without touching them.
    pub(super) fn of(places: &Places) -> Self {
        Self { folder: places.pins() }
    }

    /// Makes sure that the folders are there and are nobody else's.
    pub(super) fn establish(places: &Places) -> Result<Self, KernelError> {
        ensure_bpffs()?;
        let pins = Self::of(places);
        for folder in [pins.folder.clone(), pins.links(), pins.maps()] {
            ensure_private(&folder)?;
        }
        Ok(pins)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.folder.join("links")
    }

    /// The links of a run whose cgroup is not below the slice.
    pub(super) fn links_of(&self, run: RunId) -> PathBuf {
        self.links().join(run.to_string())
    }

    /// Makes that folder.
    pub(super) fn ensure_links_of(&self, run: RunId) -> Result<PathBuf, KernelError> {
        let folder = self.links_of(run);
        ensure_private(&folder)?;
        Ok(folder)
    }

    /// The runs that have such a folder.
    pub(super) fn enclosed(&self) -> Result<Vec<RunId>, KernelError> {
        let paths = list(&self.links())?;
        Ok(paths.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect())
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.folder.join(format!("maps-v{ABI_VERSION}"))
    }

    /// Removes the maps of other versions and links that this version does not have; those of runs stay.
    pub(super) fn remove_strangers(&self, links: &[&str]) -> Result<(), KernelError> {
        for path in list(&self.folder)? {
            if path != self.links() && path != self.maps() {
                remove_tree(&path)?;
            }
        }
        for path in list(&self.links())? {
            let name = path.file_name().and_then(|name| name.to_str());
            let known = name.is_some_and(|name| links.contains(&name) || name.parse::<RunId>().is_ok());
            if !known {
                fs::remove_file(&path).map_err(KernelError::place("remove", path))?;
            }
        }
        Ok(())
    }

    /// Releases everything.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        remove_tree(&self.folder)
    }
}

/// Mounts bpffs where nobody has. Two at once would each mount one, and what the first had made would be out of sight.
pub(super) fn ensure_bpffs() -> Result<(), KernelError> {
    // The folder below the mount, or the mount: whoever gets the former waits for the others that did.
    let turn = File::open(BPFFS).map_err(KernelError::place("open", BPFFS))?;
    turn.lock().map_err(KernelError::place("lock", BPFFS))?;
    let kind = statfs(BPFFS).map_err(|errno| KernelError::place("look at", BPFFS)(errno.into()))?;
    if kind.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700"))
        .map_err(|errno| KernelError::place("mount bpffs at", BPFFS)(errno.into()))
}

fn ensure_private(folder: &Path) -> Result<(), KernelError> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(KernelError::place("create", folder)(error));
        }
        _ => {}
    }
    let data = fs::symlink_metadata(folder).map_err(KernelError::place("look at", folder))?;
    if data.is_dir() && data.uid() == 0 && data.mode() & 0o777 == 0o700 {
        Ok(())
    } else {
        Err(KernelError::Untrusted { path: folder.into(), expected: 0o700 })
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, KernelError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KernelError::place("list", folder)(error)),
    }
}

pub(super) fn remove_tree(folder: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::place("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_file(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::place("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use nix::{
        mount::{MntFlags, umount2},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    #[test]
    fn bpffs_is_mounted_once_by_whoever_comes_first() {
        // A thread of its own has mounts of its own; those that it starts have them, too.
        let counts = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: are you root?");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .expect("mounts of one's own");
            (0..20).map(|_| mounted_by_all_at_once()).collect::<Vec<_>>()
        });
        assert_eq!(counts.join().expect("the thread"), [1; 20]);
    }

    fn mounted_by_all_at_once() -> usize {
        while umount2(BPFFS, MntFlags::MNT_DETACH).is_ok() {}
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    ensure_bpffs().expect("bpffs");
                });
            }
        });
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        mounts.lines().filter(|line| line.split(' ').nth(4) == Some(BPFFS)).count()
    }
}
