//! The cgroup tree: where it is mounted, and the directories in it that are ours.
//!
//! A run's directory is a child of a permanent slice that root owns; it is never made under a user's own subtree,
//! whose owner could move processes out of it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use nix::libc;

use super::in_place;
use crate::places::Places;

/// Why the cgroup tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system.
    #[error(
        "no cgroup2 file system is mounted here: mount one, for example `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NotMounted,
    /// Something in it failed.
    #[error("{what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The slice is somebody else's.
    #[error("{0} belongs to uid {1}, not to root: remove it, captured runs must not be movable by a user")]
    NotRoots(PathBuf, u32),
    /// Processes remain.
    #[error("{0} still has processes after {1:?}")]
    Populated(PathBuf, Duration),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::Io { what, path: path.to_owned(), source }
}

/// The mounted cgroup2 hierarchy with our slice in it.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    slice: String,
    daemon: String,
}

impl Tree {
    /// Finds the hierarchy in this process's mounts.
    pub fn find(places: &Places) -> Result<Self, CgroupError> {
        Ok(Self { root: mounted()?, slice: places.slice(), daemon: places.daemon_cgroup() })
    }

    /// Where the hierarchy is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that runs are children of.
    pub fn slice(&self) -> PathBuf {
        self.root.join(&self.slice)
    }

    /// Makes the slice, checks that it is root's, and moves this process into the daemon's own cgroup.
    pub fn prepare(&self) -> Result<(), CgroupError> {
        let slice = self.slice();
        make(&slice)?;
        let owner = fs::metadata(&slice).map_err(failed("could not look at", &slice))?.uid();
        if owner != 0 {
            return Err(CgroupError::NotRoots(slice, owner));
        }
        let daemon = self.root.join(&self.daemon);
        make(&daemon)?;
        let entry = daemon.join("cgroup.procs");
        fs::write(&entry, "0").map_err(failed("could not move the daemon into", &entry))
    }

    /// The name of a run's cgroup, from the hierarchy's root.
    pub fn name_of(&self, run: RunId) -> String {
        format!("/{}/{run}", self.slice)
    }

    /// The directory of a run's cgroup.
    pub fn directory_of(&self, run: RunId) -> PathBuf {
        self.slice().join(run.to_string())
    }

    /// Makes a run's cgroup; fails when it exists.
    pub fn create(&self, run: RunId) -> Result<PathBuf, CgroupError> {
        let path = self.directory_of(run);
        fs::create_dir(&path).map_err(failed("could not create the run's cgroup", &path))?;
        Ok(path)
    }

    /// Runs whose cgroup exists.
    pub fn runs(&self) -> Vec<RunId> {
        let Ok(entries) = fs::read_dir(self.slice()) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Whether a cgroup, named from the hierarchy's root, is of captured processes or of the daemon's.
    pub fn is_ours(&self, name: &str) -> bool {
        name.split('/').any(|part| is_slice(part) || part == self.daemon)
    }

    /// The directory of a cgroup that is named from the hierarchy's root.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// Whether a process is in a cgroup or below it; one that is gone is not.
    pub fn holds(&self, directory: &Path, pid: u32) -> bool {
        let name = Self::cgroup_of(&pid.to_string());
        name.is_ok_and(|name| self.directory(&name).starts_with(directory))
    }

    /// The kernel's number of the cgroup that a process is in, if that is this one or below it.
    pub fn number_of(&self, directory: &Path, pid: u32) -> Option<u64> {
        let its_own = self.directory(&Self::cgroup_of(&pid.to_string()).ok()?);
        its_own.starts_with(directory).then(|| fs::metadata(its_own).ok())?.map(|meta| meta.ino())
    }

    /// The processes in a cgroup and below it.
    pub fn processes(directory: &Path) -> Vec<u32> {
        let mut found = Vec::new();
        collect(directory, &mut found);
        found
    }

    /// Whether any process is in a cgroup or below it.
    pub fn is_populated(directory: &Path) -> bool {
        fs::read_to_string(directory.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Kills everything in a cgroup and below it.
    pub fn kill(directory: &Path) -> Result<(), CgroupError> {
        let path = directory.join("cgroup.kill");
        fs::write(&path, "1").map_err(failed("could not kill by", &path))
    }

    /// Lets nothing in a cgroup or below it go on, until it is thawed. It can still be killed.
    pub fn freeze(directory: &Path) -> Result<(), CgroupError> {
        let path = directory.join("cgroup.freeze");
        fs::write(&path, "1").map_err(failed("could not freeze by", &path))
    }

    /// Lets a frozen cgroup go on.
    pub fn thaw(directory: &Path) -> Result<(), CgroupError> {
        let path = directory.join("cgroup.freeze");
        fs::write(&path, "0").map_err(failed("could not thaw by", &path))
    }

    /// Whether a cgroup is frozen, or is about to be.
    pub fn is_frozen(directory: &Path) -> bool {
        let path = directory.join("cgroup.freeze");
        fs::read_to_string(path).is_ok_and(|frozen| frozen.trim() == "1")
    }

    /// Kills what is left of a run and removes its cgroup, waiting at most `patience` for the processes to go.
    pub fn remove(&self, run: RunId, patience: Duration) -> Result<(), CgroupError> {
        clear(self.directory_of(run), patience)
    }

    /// The cgroup of the process that holds listeners when no daemon lives: it is known by that, whatever it does.
    fn holder(&self) -> PathBuf {
        self.root.join(&self.daemon).join("holder")
    }

    /// Makes that cgroup; gives the file by which a process that writes `0` enters it.
    pub(super) fn make_holder(&self) -> Result<File, CgroupError> {
        let path = self.holder();
        make(&path)?;
        let entry = path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&entry).map_err(failed("could not open", &entry))
    }

    /// Kills who holds, if anybody does, waiting at most `patience` for it to go.
    pub(super) fn end_holder(&self, patience: Duration) -> Result<(), CgroupError> {
        clear(self.holder(), patience)
    }

    /// Takes this process back to the root and removes what is empty of ours.
    pub fn dismantle(&self) {
        let _ = fs::write(self.root.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(self.holder());
        let _ = fs::remove_dir(self.root.join(&self.daemon));
        let _ = fs::remove_dir(self.slice());
    }

    /// The cgroup of a process, from the hierarchy's root.
    pub fn cgroup_of(pid: &str) -> io::Result<String> {
        let cgroups = fs::read_to_string(Path::new("/proc").join(pid).join("cgroup"))?;
        Ok(cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned())
    }

    /// Whether process `pid` is captured, by any installation: in its slice, or in a cgroup that it captures in its place.
    pub fn is_captured(pid: &str) -> io::Result<bool> {
        let name = Self::cgroup_of(pid)?;
        if name.split('/').any(is_slice) {
            return Ok(true);
        }
        if name == "/" {
            return Ok(false);
        }
        let root = mounted().map_err(io::Error::other)?;
        let directory = root.join(name.trim_start_matches('/'));
        for folder in directory.ancestors().take_while(|folder| **folder != root) {
            match in_place::marked(folder) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(true),
                // Removed under the process's feet, which has ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Where the whole hierarchy is mounted.
fn mounted() -> Result<PathBuf, CgroupError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(failed("could not read", path))?;
    mounts.lines().find_map(cgroup2_mount).ok_or(CgroupError::NotMounted)
}

fn is_slice(part: &str) -> bool {
    part.starts_with("interceptor") && part.ends_with(".slice")
}

fn collect(folder: &Path, found: &mut Vec<u32>) {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(processes.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("could not create", path)(error))
        }
        _ => Ok(()),
    }
}

/// Kills what is in a cgroup and removes it, waiting at most `patience` for the processes to go.
fn clear(path: PathBuf, patience: Duration) -> Result<(), CgroupError> {
    if !path.exists() {
        return Ok(());
    }
    let begun = Instant::now();
    Tree::kill(&path)?;
    loop {
        match remove_tree(&path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(CgroupError::Populated(path, patience));
            }
            Err(error) => return Err(failed("could not remove", &path)(error)),
        }
    }
}

/// Removes a cgroup and those that its processes made below it: depth first, directories only.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The mount point, when the line of `mountinfo` is of a whole cgroup2 hierarchy.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, rest) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (inside, point) = (fields.next()?, fields.next()?);
    (rest.split(' ').next() == Some("cgroup2") && inside == "/")
        .then(|| PathBuf::from(point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_cgroup2_hierarchy_counts() {
        let whole = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(whole), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("41 31 0:38 /user /mnt rw - cgroup2 none rw"), None);
        assert_eq!(cgroup2_mount("40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw"), None);
    }
}
