//! A process and all that descend from it, as /proc shows them.

use std::{collections::BTreeMap, fs, io, path::Path};

use nix::libc;

use super::super::{LaunchError, step};
use crate::helper::{cgroup::Tree, in_place::InPlace};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// Its arguments, lossy.
    pub(super) command: Vec<String>,
    pub(super) executable: String,
    /// Its cgroup, from the hierarchy's root.
    pub(super) cgroup: String,
    /// Its permitted capabilities.
    pub(super) capabilities: u64,
}

/// Capabilities that lead around the kernel side, out of the cgroup, or to other capabilities, where nothing but their
/// owner and mode keeps the host's files.
pub(super) const AROUND: &[(u8, &str)] = &[
    (0, "chown"),
    (1, "dac_override"),
    (2, "dac_read_search"),
    (3, "fowner"),
    (7, "setuid"),
    (12, "net_admin"),
    (13, "net_raw"),
    (16, "sys_module"),
    (17, "sys_rawio"),
    (19, "sys_ptrace"),
    (21, "sys_admin"),
    (31, "setfcap"),
    (38, "perfmon"),
    (39, "bpf"),
];

impl Process {
    /// What makes it impossible to capture.
    pub(super) fn obstacle(&self) -> Option<String> {
        if self.uid == 0 {
            return Some(format!(
                "process {} ({}) runs as root, who may leave any cgroup: start it as somebody else, or by `interceptor \
                 run`",
                self.pid,
                self.name()
            ));
        }
        let (_, name) = AROUND.iter().find(|(number, _)| self.capabilities >> number & 1 == 1)?;
        Some(format!(
            "process {} ({}) has the capability {name}, by which it could go around: start it without, or by \
             `interceptor run`",
            self.pid,
            self.name()
        ))
    }

    /// A word for it.
    pub(super) fn name(&self) -> &str {
        self.command.first().map_or("?", String::as_str)
    }
}

/// Process `pid` and its descendants, it first. Refused for what must not be captured: the first process of the host,
/// us, who called us, the daemon, and who is captured already, but for those in `own`, the cgroup that they are being
/// moved into.
pub(super) fn of(cgroups: &Tree, pid: u32, own: Option<&Path>) -> Result<Vec<Process>, LaunchError> {
    let parents = parents().map_err(step("list the processes"))?;
    if !parents.contains_key(&pid) {
        return Err(LaunchError::NoProcess(pid));
    }
    let mut members = vec![pid];
    let mut at = 0;
    while let Some(parent) = members.get(at).copied() {
        members.extend(parents.iter().filter(|(_, above)| **above == parent).map(|(child, _)| *child));
        at += 1;
    }
    if pid == 1 || members.contains(&std::process::id()) {
        return Err(LaunchError::Obstacle(format!(
            "process {pid} is the host's first, or the one that this command comes from: name one below it"
        )));
    }
    let mut found = Vec::new();
    for member in members {
        match read(member) {
            Ok(process) => found.push(process),
            // It has ended meanwhile.
            Err(error) if member != pid && is_gone(&error) => {}
            Err(error) if is_gone(&error) => return Err(LaunchError::NoProcess(pid)),
            Err(error) => return Err(step("look at a process")(error)),
        }
    }
    let is_own = |process: &Process| {
        own.is_some_and(|own| cgroups.root().join(process.cgroup.trim_start_matches('/')) == own)
    };
    for process in found.iter().filter(|process| !is_own(process)) {
        let captured = match Tree::is_captured(&process.pid.to_string()) {
            Err(error) if is_gone(&error) => false,
            captured => captured.map_err(step("look at a process's cgroup"))?,
        };
        if captured || cgroups.is_ours(&process.cgroup) {
            return Err(LaunchError::Obstacle(format!(
                "process {} ({}) is captured already, or one of the daemon's own",
                process.pid,
                process.name()
            )));
        }
    }
    Ok(found)
}

/// The processes in a cgroup that is to be captured in its place, and below it. Refused for one in which the first process of
/// the host is, or who called us, or nobody, since what is captured is judged by what runs in it.
pub(super) fn in_cgroup(cgroup: &InPlace) -> Result<Vec<Process>, LaunchError> {
    let mut found = Vec::new();
    for pid in Tree::processes(cgroup.directory()) {
        if pid == 1 || pid == std::process::id() {
            return Err(LaunchError::Obstacle(format!(
                "{} has the host's first process, or the one that this command comes from: name a cgroup below it",
                cgroup.directory().display()
            )));
        }
        match read(pid) {
            Ok(process) => found.push(process),
            // It has ended meanwhile.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(step("look at a process")(error)),
        }
    }
    if found.is_empty() {
        return Err(LaunchError::Obstacle(format!(
            "{} has no process that could say what is captured: start the first one in it",
            cgroup.directory().display()
        )));
    }
    Ok(found)
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound) || error.raw_os_error() == Some(libc::ESRCH)
}

/// Every process of the host with its parent.
fn parents() -> io::Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in brackets, may hold anything.
        let above = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(above) = above {
            parents.insert(pid, above);
        }
    }
    Ok(parents)
}

pub(super) fn read(pid: u32) -> io::Result<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let malformed = || io::Error::other(format!("/proc/{pid}/status cannot be read"));
    let uid = field("Uid:").and_then(|ids| ids.split_whitespace().next()?.parse().ok());
    let capabilities = field("CapPrm:").and_then(|set| u64::from_str_radix(set, 16).ok());
    let arguments = fs::read(folder.join("cmdline"))?;
    let cgroups = fs::read_to_string(folder.join("cgroup"))?;
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(malformed)?;
    Ok(Process {
        pid,
        uid: uid.ok_or_else(malformed)?,
        command: String::from_utf8_lossy(&arguments)
            .split('\0')
            .filter(|argument| !argument.is_empty())
            .map(str::to_owned)
            .collect(),
        executable: fs::read_link(folder.join("exe"))
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        cgroup: cgroup.to_owned(),
        capabilities: capabilities.ok_or_else(malformed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;

    #[test]
    fn what_must_not_be_captured_is_refused() {
        let cgroups = Tree::find(&Places::system()).expect("cgroup2");
        assert!(matches!(of(&cgroups, 1, None), Err(LaunchError::Obstacle(_))));
        assert!(matches!(of(&cgroups, std::process::id(), None), Err(LaunchError::Obstacle(_))));
        assert!(matches!(of(&cgroups, u32::MAX, None), Err(LaunchError::NoProcess(_))));
    }

    #[test]
    fn capabilities_that_lead_around_are_an_obstacle() {
        let own = read(std::process::id()).expect("this process");
        let own = Process { uid: 1000, ..own };
        assert!(Process { capabilities: 1 << 13, ..own.clone() }.obstacle().is_some());
        assert!(Process { capabilities: 1 << 5, ..own.clone() }.obstacle().is_none());
        assert!(Process { capabilities: 0, uid: 0, ..own }.obstacle().is_some());
    }
}
