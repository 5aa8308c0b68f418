//! What a role that is taken over may still do to this host's files, ports and processes: less than its user may.
//!
//! Promise: where the kernel has Landlock, the proxy writes to no file, runs no program and listens on no TCP port, the
//! keeper writes only where the record is and where its helpers for secrets may leave something, and neither signals
//! anybody but its own children. Where it has not, nothing changes: the guarantee never hangs on it.
//!
//! It holds for the calling thread and what that begins, so it is called before there are others.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use crate::places::Places;

/// What is asked for; an older kernel gives what it has.
const WANTED: ABI = ABI::V6;

/// Which role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// The proxy.
    Proxy,
    /// The keeper.
    Keeper,
}

/// How much of it this kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that was asked for.
    Whole,
    /// Some.
    Part,
    /// Nothing.
    None,
}

/// It could not be put in force although the kernel has it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A rule was not taken.
    #[error("Landlock refused a rule")]
    Rule(#[from] RulesetError),
    /// A folder that may be written is not there.
    #[error("{0} cannot be opened")]
    Place(PathBuf, #[source] landlock::PathFdError),
}

/// Confines this thread to what `role` needs.
pub fn confine(role: Confined, places: &Places) -> Result<Extent, ConfineError> {
    match role {
        Confined::Proxy => restrict(AccessFs::ReadFile | AccessFs::ReadDir, &[], AccessNet::BindTcp.into()),
        Confined::Keeper => {
            let (audit, authority) = (places.audit(), places.authority());
            let writable = [audit.as_path(), &authority, Path::new("/tmp"), Path::new("/dev/null")];
            restrict(AccessFs::from_read(WANTED), &writable, BitFlags::EMPTY)
        }
    }
}

fn restrict(
    everywhere: BitFlags<AccessFs>,
    writable: &[&Path],
    ports: BitFlags<AccessNet>,
) -> Result<Extent, ConfineError> {
    let all = AccessFs::from_all(WANTED);
    let mut rules = Ruleset::default().handle_access(all)?;
    if !ports.is_empty() {
        rules = rules.handle_access(ports)?;
    }
    let mut rules = rules.scope(Scope::from_all(WANTED))?.create()?;
    let open = |path: &Path| PathFd::new(path).map_err(|error| ConfineError::Place(path.to_owned(), error));
    rules = rules.add_rule(PathBeneath::new(open(Path::new("/"))?, everywhere))?;
    for path in writable.iter().filter(|path| path.exists()) {
        let access = if path.is_dir() { all } else { AccessFs::from_file(WANTED) };
        rules = rules.add_rule(PathBeneath::new(open(path)?, access))?;
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Extent::Whole,
        RulesetStatus::PartiallyEnforced => Extent::Part,
        RulesetStatus::NotEnforced => Extent::None,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener, process::Command};

    use super::*;

    /// What a thread in which `role` was confined could do.
    fn could(role: Confined) -> [bool; 5] {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let places = Places::under(folder.path());
        fs::create_dir_all(places.audit()).expect("a folder");
        fs::write(folder.path().join("readable"), "x").expect("a file");
        let tried = std::thread::spawn(move || {
            let extent = confine(role, &places).expect("it is taken");
            assert_ne!(extent, Extent::None, "the tests want a kernel with Landlock");
            [
                fs::read(folder.path().join("readable")).is_ok(),
                fs::write(folder.path().join("new"), "x").is_ok(),
                fs::write(places.audit().join("new"), "x").is_ok(),
                Command::new("/bin/true").status().is_ok(),
                TcpListener::bind("127.0.0.1:0").is_ok(),
            ]
        });
        tried.join().expect("it does not panic")
    }

    #[test]
    fn a_role_does_nothing_but_its_own() {
        // Ports came later than files.
        assert_eq!(could(Confined::Proxy)[..4], [true, false, false, false]);
        assert_eq!(could(Confined::Keeper), [true, false, true, true, true]);
    }
}
