//! The cgroup of a container, by the id that its runtime knows it by.
//!
//! Strategy: what the runtime has written down is a hint; the kernel must confirm it. `runc` says which process is the
//! container's first, and since when, and the cgroup is that process's own; where there is no such file, as with other
//! runtimes, the cgroup is the one that bears the whole id in its name. Either way it must hold the container alone, and
//! something must run in it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::super::{LaunchError, step, syscalls::same_file};
use crate::helper::{cgroup::Tree, start_ticks};

/// Where `runc` writes down what it runs.
const RUNC: &str = "/run/runc";
/// The shortest id that is looked for in names of cgroups: shorter ones may be part of anything.
const SHORTEST: usize = 12;

/// The part of `runc`'s `state.json` that is read.
#[derive(Debug, Deserialize)]
struct State {
    init_process_pid: u32,
    /// In clock ticks since boot.
    init_process_start: u64,
}

/// The folder of the cgroup of container `id`.
pub(super) fn find(cgroups: &Tree, id: &str) -> Result<PathBuf, LaunchError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    if id.is_empty() || id.starts_with('.') || !id.chars().all(is_plain) {
        return Err(LaunchError::Obstacle(format!(
            "{id:?} is no container's id: give it as the runtime lists it"
        )));
    }
    let directory = match of_runc(cgroups, id)? {
        Some(directory) => directory,
        None => by_name(cgroups, id)?,
    };
    is_alone(&directory, id)?;
    Ok(directory)
}

/// Refuses a cgroup that has processes of the host's in it.
pub(super) fn is_alone(directory: &Path, id: &str) -> Result<(), LaunchError> {
    for pid in Tree::processes(directory) {
        if is_of_the_host(pid)? {
            return Err(LaunchError::Obstacle(format!(
                "{} is not container {id}'s alone: process {pid} in it is one of the host's; have its runtime make a cgroup for it",
                directory.display()
            )));
        }
    }
    Ok(())
}

/// The cgroup of the first process that `runc` has started for it; nothing where `runc` does not know it.
fn of_runc(cgroups: &Tree, id: &str) -> Result<Option<PathBuf>, LaunchError> {
    let text = match fs::read(Path::new(RUNC).join(id).join("state.json")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(step("read what runc says of the container"))?,
    };
    let state: State = serde_json::from_slice(&text)
        .map_err(|error| step("understand what runc says of the container")(error.into()))?;
    let pid = state.init_process_pid;
    let cgroup = Tree::cgroup_of(&pid.to_string()).ok();
    // Asked after its cgroup was: that was this process's, then.
    match cgroup {
        Some(name) if start_ticks(pid) == Some(state.init_process_start) => {
            Ok(Some(cgroups.directory(&name)))
        }
        _ => Err(LaunchError::Obstacle(format!(
            "container {id} does not run: runc has a record of it, but its first process is gone; start it"
        ))),
    }
}

/// The one cgroup that has the whole id in its name, alone or as `docker-ID.scope` has it, and none such above it.
fn by_name(cgroups: &Tree, id: &str) -> Result<PathBuf, LaunchError> {
    let mut found = Vec::new();
    if id.len() >= SHORTEST {
        search(cgroups.root(), id, &mut found).map_err(step("look through the cgroups"))?;
    }
    match (found.pop(), found.pop()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(LaunchError::Obstacle(format!(
            "there is no container {id}: runc has none of that id in {RUNC}, and no cgroup has it in its name; give the whole id, \
             or the cgroup by `--cgroup`"
        ))),
        (Some(one), Some(other)) => Err(LaunchError::Obstacle(format!(
            "container {id} could be {} or {}: say which by `--cgroup`",
            one.display(),
            other.display()
        ))),
    }
}

fn search(folder: &Path, id: &str, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match entry.file_name().to_str() {
            Some(name) if is_named(name, id) => found.push(entry.path()),
            _ => search(&entry.path(), id, found)?,
        }
    }
    Ok(())
}

fn is_named(name: &str, id: &str) -> bool {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    name.strip_suffix(id).is_some_and(|before| before.is_empty() || before.ends_with('-'))
}

/// Whether a process is in the PID namespace that we are in: containers have their own.
fn is_of_the_host(pid: u32) -> Result<bool, LaunchError> {
    let own = File::open("/proc/self/ns/pid").map_err(step("open the PID namespace"))?;
    match File::open(format!("/proc/{pid}/ns/pid")) {
        Ok(other) => same_file(&own, &other).map_err(step("compare PID namespaces")),
        // It has ended meanwhile.
        Err(_) if !Path::new("/proc").join(pid.to_string()).exists() => Ok(false),
        Err(error) => Err(step("open the PID namespace")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;

    #[test]
    fn a_name_has_the_whole_id_at_its_end() {
        let id = "0123456789abcdef";
        for name in ["0123456789abcdef", "docker-0123456789abcdef.scope", "libpod-0123456789abcdef.scope"] {
            assert!(is_named(name, id), "{name}");
        }
        for name in
            ["0123456789abcdef0", "x0123456789abcdef", "docker-0123456789abcdef.slice", "0123456789abcde"]
        {
            assert!(!is_named(name, id), "{name}");
        }
    }

    #[test]
    fn what_is_no_container_is_refused() {
        let cgroups = Tree::find(&Places::system()).expect("cgroup2");
        for id in ["", "..", "../../etc", "a/b", "no-such-container-0123456789"] {
            assert!(matches!(find(&cgroups, id), Err(LaunchError::Obstacle(_))), "{id}");
        }
    }
}
