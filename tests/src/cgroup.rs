//! Cgroups that tests make beside those of the product.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Installation, Talker, leaks};

/// A cgroup of somebody else's, gone with the value, and whatever is in it.
#[derive(Debug)]
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// One at the top of the hierarchy, of a name that is the installation's own.
    pub fn make(installation: &Installation, name: &str) -> Self {
        let cgroup = Self(leaks::cgroup_root().join(format!("{}-{name}", installation.mark())));
        fs::create_dir_all(&cgroup.0).expect("a cgroup");
        cgroup
    }

    /// One below it.
    pub fn below(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("a cgroup below");
        path
    }

    /// Its path, as a word of a command.
    pub fn name(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Moves a process into a cgroup.
pub fn put(process: &Talker, cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), process.pid().to_string()).expect("moved");
}

/// Kills whatever is in a cgroup and removes it with all below it.
pub fn remove(path: &Path) {
    if !path.exists() {
        return;
    }
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for _ in 0..200 {
        let mut below: Vec<PathBuf> = folders_below(path);
        below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for folder in &below {
            let _ = fs::remove_dir(folder);
        }
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn folders_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(folders_below(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}
