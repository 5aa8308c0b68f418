//! The cgroup2 tree: where it is mounted, and the slice whose children are runs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::KernelError;
use crate::places::Places;

/// Where the cgroup2 hierarchy is mounted: never assumed, because on hybrid hosts it is not at the usual place.
pub fn root() -> Result<PathBuf, KernelError> {
    let mounts = "/proc/self/mountinfo";
    let text = fs::read_to_string(mounts).map_err(KernelError::place("read", mounts))?;
    text.lines().find_map(cgroup2_mount).ok_or(KernelError::NoCgroup2)
}

fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    // Only a mount of the whole tree will do.
    (fields.next()? == "/").then_some(())?;
    fields.next().map(|path| PathBuf::from(path.replace("\\040", " ")))
}

/// The captured slice's folder.
pub fn slice(places: &Places) -> Result<PathBuf, KernelError> {
    Ok(root()?.join(places.slice()))
}

/// A cgroup's number, as the kernel side knows it.
pub fn id(path: &Path) -> Result<u64, KernelError> {
    fs::metadata(path).map(|data| data.ino()).map_err(KernelError::place("look at", path))
}

/// How deep a cgroup lies below the root, by its path: it may be gone.
pub(super) fn level(path: &Path) -> Result<u32, KernelError> {
    let depth = path.strip_prefix(root()?).map_or(0, |below| below.components().count());
    Ok(u32::try_from(depth).unwrap_or(u32::MAX))
}

/// Makes the slice if it is missing. Only root can have made it: nobody else can write to the cgroup2 root.
pub(super) fn ensure_slice(places: &Places) -> Result<PathBuf, KernelError> {
    let path = slice(places)?;
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(KernelError::place("create", path)(error));
        }
        _ => {}
    }
    let data = fs::symlink_metadata(&path).map_err(KernelError::place("look at", &path))?;
    if !data.is_dir() || data.uid() != 0 || data.mode() & 0o022 != 0 {
        return Err(KernelError::Untrusted { path, expected: 0o755 });
    }
    Ok(path)
}

/// Whether a cgroup or one below it has a process.
pub fn is_populated(path: &Path) -> Result<bool, KernelError> {
    let events = path.join("cgroup.events");
    let text = fs::read_to_string(&events).map_err(KernelError::place("read", events))?;
    Ok(!text.lines().any(|line| line == "populated 0"))
}

/// Removes an empty cgroup and the empty ones below it.
pub fn remove(path: &Path) -> Result<(), KernelError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(KernelError::place("list", path)(error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path).map_err(KernelError::place("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_cgroup2_mount_counts() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let first = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:4 - cgroup cgroup rw,cpu";
        let part = "41 31 0:38 /user.slice /mnt/a rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount(first), None);
        assert_eq!(cgroup2_mount(part), None);
        assert_eq!(cgroup2_mount("nonsense"), None);
    }
}
