//! What an installation may have left in the kernel: asked for by name, so that tests side by side do not see each
//! other.

use std::{fs, path::PathBuf};

use crate::{places, process};

/// The cgroup2 folder of this host, which is not always at the usual place.
pub fn cgroup_root() -> PathBuf {
    let (root, _) =
        hierarchies().into_iter().find(|(_, kind)| kind == "cgroup2").expect("cgroup2 is mounted somewhere");
    root
}

/// The folders of all hierarchies of cgroups, those of the first version too, each with its type. Runtimes of containers use
/// whatever there is.
pub fn hierarchies() -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let hierarchy = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next().filter(|kind| kind.starts_with("cgroup"))?;
        Some((PathBuf::from(before.split(' ').nth(4)?), kind.to_owned()))
    };
    table.lines().filter_map(hierarchy).collect()
}

/// Everything in the kernel that carries `mark`: cgroups, pins, mounts, network namespaces, nftables, sockets and processes.
pub fn traces_of(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    let named = |folder: PathBuf, what: &str, found: &mut Vec<String>| {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(mark) {
                found.push(format!("{what} {}", entry.path().display()));
            }
        }
    };
    named(cgroup_root(), "cgroup", &mut found);
    named("/sys/fs/bpf".into(), "pins", &mut found);
    named("/run/netns".into(), "network namespace", &mut found);
    for (table, what) in [("/proc/self/mountinfo", "mount"), ("/proc/self/net/unix", "socket")] {
        let lines = fs::read_to_string(table).unwrap_or_default();
        found.extend(lines.lines().filter(|line| line.contains(mark)).map(|line| format!("{what} {line}")));
    }
    let tables =
        process::run(process::command(&[places::tool("nft").to_string_lossy().as_ref(), "list", "tables"]));
    found.extend(
        tables
            .succeeded()
            .stdout
            .lines()
            .filter(|line| line.contains(mark))
            .map(|line| format!("nftables {line}")),
    );
    for process in processes() {
        let own = process.pid == std::process::id();
        if !own && (process.command.contains(mark) || process.cgroup.contains(mark)) {
            found.push(format!("process {} {} in {}", process.pid, process.command, process.cgroup));
        }
    }
    found
}

/// Removes the tables of nftables that carry `mark`, in this network namespace.
pub fn remove_tables_of(mark: &str) {
    let nft = places::tool("nft");
    let nft = nft.to_string_lossy();
    let tables = process::run(process::command(&[&*nft, "list", "tables"])).stdout;
    for table in tables.lines().filter(|line| line.contains(mark)) {
        let words = [&*nft, "delete"].into_iter().chain(table.split(' '));
        process::run(process::command(&words.collect::<Vec<_>>()));
    }
}

/// A process of this host.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its arguments, by spaces.
    pub command: String,
    /// Its cgroups.
    pub cgroup: String,
}

/// Every process that can be read.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
            if command.is_empty() {
                // A kernel thread, or one that has ended and is not yet waited for.
                return None;
            }
            let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            Some(Process { pid, command, cgroup })
        })
        .collect()
}

/// Those of a cgroup, by its last name, and of those below it.
pub fn processes_of(cgroup: &str) -> Vec<Process> {
    let is_own = |line: &str| line.split('/').any(|part| part == cgroup);
    processes().into_iter().filter(|process| process.cgroup.lines().any(is_own)).collect()
}

/// Searches the readable memory of a process for `needle`. `None` when the process is gone.
pub fn memory_contains(pid: u32, needle: &[u8]) -> Option<bool> {
    use std::os::unix::fs::FileExt;
    const STEP: usize = 1 << 20;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut buffer = vec![0; STEP + needle.len()];
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(mut at), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
            continue;
        };
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = memory.read_at(&mut buffer[..length], at).unwrap_or(0);
            if buffer[..read].windows(needle.len()).any(|window| window == needle) {
                return Some(true);
            }
            at += STEP as u64;
        }
    }
    Some(false)
}
