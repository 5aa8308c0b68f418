//! What must hold before anything is made: privilege, place, command, user.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User, geteuid};

use super::{LaunchError, mounts::OWN};
use crate::helper::cgroup::Tree;

/// Who may look at other processes' descriptors; no file where the kernel has no such module.
const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Whom a run runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) name: Option<String>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) shell: Option<PathBuf>,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            uid: user.uid,
            gid: user.gid,
            name: Some(user.name),
            home: Some(user.dir),
            shell: Some(user.shell),
        }
    }
}

/// Refuses a launch by anyone but root, and from inside a run.
pub(crate) fn may_launch() -> Result<(), LaunchError> {
    if !geteuid().is_root() {
        return Err(LaunchError::NotRoot);
    }
    // Inside a run, the cgroup's name is hidden, but the run's own folder shows.
    match Tree::is_captured("self").map(|captured| captured || Path::new(OWN).exists()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(LaunchError::Captured),
        Err(source) => Err(LaunchError::Step { what: "read this process's own cgroup", source }),
    }
}

/// Refuses a launch where not even root may look at the sockets of a run's processes: none of them could connect.
pub(crate) fn may_look() -> Result<(), LaunchError> {
    match std::fs::read_to_string(PTRACE_SCOPE) {
        Ok(scope) if scope.trim() == "3" => Err(LaunchError::Obstacle(format!(
            "{PTRACE_SCOPE} is 3, so that nobody may look at the sockets of a run's processes: boot with it at most 2"
        ))),
        _ => Ok(()),
    }
}

/// The account named by `--user`, else the one that called `sudo`. Root only when it is named.
pub(crate) fn account(user: Option<&str>) -> Result<Account, LaunchError> {
    if let Some(name) = user {
        return named(name);
    }
    let uid = sudo_number("SUDO_UID")
        .map(Uid::from_raw)
        .filter(|uid| !uid.is_root())
        .ok_or(LaunchError::WhichUser)?;
    if let Some(user) = User::from_uid(uid).ok().flatten() {
        return Ok(user.into());
    }
    let gid = sudo_number("SUDO_GID").map(Gid::from_raw).ok_or(LaunchError::WhichUser)?;
    Ok(Account { uid, gid, name: None, home: None, shell: None })
}

/// Whether `folder` may be what root of the run, or of its containers, reads and writes: it must be the run's own to begin with, and
/// nothing that the host is made of.
pub(crate) fn given_up(folder: &Path, account: &Account) -> Result<(), LaunchError> {
    if is_own(folder, account) {
        return Ok(());
    }
    Err(LaunchError::Obstacle(format!(
        "{} would be what root in the run reads and writes: launch it from a folder that belongs to uid {} and is not one of the \
         host's own",
        folder.display(),
        account.uid
    )))
}

/// What stays the host's in a run in which there may be root: the folder that it works in, and its user's home.
pub(crate) fn own_folders(folder: &Path, account: &Account) -> Vec<PathBuf> {
    let homes = account.home.iter().map(PathBuf::as_path);
    homes.chain([folder]).filter(|path| is_own(path, account)).map(Path::to_owned).collect()
}

fn is_own(folder: &Path, account: &Account) -> bool {
    let is_deep = folder.components().count() > 2;
    is_deep && folder.metadata().is_ok_and(|data| data.is_dir() && data.uid() == account.uid.as_raw())
}

/// The user who launches: the one behind `sudo`, or root.
pub(crate) fn launcher() -> (Uid, Option<String>) {
    let uid = sudo_number("SUDO_UID").map_or(Uid::from_raw(0), Uid::from_raw);
    (uid, User::from_uid(uid).ok().flatten().map(|user| user.name))
}

fn sudo_number(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// A user by name or number; a number needs no entry among the host's users.
fn named(name: &str) -> Result<Account, LaunchError> {
    let number = name.parse().ok().map(Uid::from_raw);
    let found = match number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(name),
    };
    match (found.ok().flatten(), number) {
        (Some(user), _) => Ok(user.into()),
        (None, Some(uid)) => {
            Ok(Account { uid, gid: Gid::from_raw(uid.as_raw()), name: None, home: None, shell: None })
        }
        (None, None) => Err(LaunchError::NoUser(name.to_owned())),
    }
}

/// Where `command` is: by its path, or along `PATH`.
pub(crate) fn find_command(command: &OsStr, path: Option<OsString>) -> Result<PathBuf, LaunchError> {
    if command.is_empty() {
        return Err(LaunchError::NoCommand);
    }
    if command.as_bytes().contains(&b'/') {
        let path = PathBuf::from(command);
        return match (path.exists(), is_program(&path)) {
            (_, true) => Ok(path),
            (true, false) => Err(LaunchError::NotExecutable(path)),
            (false, false) => Err(LaunchError::NotFound(command.to_string_lossy().into_owned())),
        };
    }
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut candidates = env::split_paths(&path).map(|folder| folder.join(command));
    candidates
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| LaunchError::NotFound(command.to_string_lossy().into_owned()))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A text for the kernel; one with a NUL in it cannot be passed.
pub(crate) fn kernel_text(text: &OsStr) -> Result<CString, LaunchError> {
    CString::new(text.as_bytes()).map_err(|_| LaunchError::Nul(text.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_or_named_as_missing() {
        assert_eq!(find_command("sh".as_ref(), Some("/nowhere:/bin".into())).ok(), Some("/bin/sh".into()));
        assert!(
            matches!(find_command("no-such".as_ref(), None), Err(LaunchError::NotFound(name)) if name == "no-such")
        );
        assert!(matches!(find_command("/etc/passwd".as_ref(), None), Err(LaunchError::NotExecutable(_))));
    }

    #[test]
    fn root_is_a_user_only_by_name() {
        assert!(account(Some("root")).is_ok_and(|account| account.uid.is_root()));
        assert!(account(Some("54321")).is_ok_and(|account| account.gid.as_raw() == 54321));
        assert!(matches!(account(Some("no such user")), Err(LaunchError::NoUser(_))));
    }
}
