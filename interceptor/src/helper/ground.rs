//! The folders and files that the daemon stands on: who owns them, who may enter, and that it is the only one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, setsockopt, socket,
        sockopt::PassCred,
    },
    unistd::{Gid, Uid, User},
};

use crate::places::Places;

/// Why the daemon cannot stand here.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// Another daemon runs.
    #[error("a daemon of this installation runs already: {} is locked", .0.display())]
    Running(PathBuf),
    /// A path is not as it must be.
    #[error("{} {why}: {mend}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        mend: String,
    },
    /// A path could not be used.
    #[error("could not {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

pub(super) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GroundError {
    move |source| GroundError::Io { step, path: path.to_owned(), source }
}

/// Whom the unprivileged roles run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts {
    /// The proxy's user and group.
    pub proxy: (Uid, Gid),
    /// The keeper's user and group.
    pub keeper: (Uid, Gid),
    /// Those of the process that holds listeners.
    pub holder: (Uid, Gid),
}

impl Accounts {
    /// The installed system users, or else numbers that no user has: a run from the build folder needs no set-up.
    pub fn find() -> Self {
        let account = |name: &str, number: u32| match User::from_name(name) {
            Ok(Some(user)) => (user.uid, user.gid),
            _ => (Uid::from_raw(number), Gid::from_raw(number)),
        };
        Self {
            proxy: account("interceptor-proxy", 64_790),
            keeper: account("interceptor-keeper", 64_791),
            holder: account("interceptor-holder", 64_792),
        }
    }
}

/// Makes and checks the folders. The configuration is checked only: it is the operator's.
pub(super) fn prepare(places: &Places, accounts: Accounts) -> Result<(), GroundError> {
    check_configuration(places.configuration())?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    folder(places.state(), root, 0o755)?;
    folder(&places.audit(), accounts.keeper, 0o700)?;
    // The certificate is for everybody, the key in it for the keeper alone.
    folder(&places.authority(), accounts.keeper, 0o711)?;
    folder(places.runtime(), root, 0o755)?;
    folder(&places.runs(), root, 0o700)?;
    // The roles are not root: every folder above theirs must let them through.
    for path in places.audit().ancestors().skip(1).chain(places.configuration().ancestors()) {
        let facts = fs::metadata(path).map_err(failed("look at", path))?;
        if facts.mode() & 0o001 == 0 {
            return Err(unfit(
                path,
                "cannot be entered by the daemon's users",
                "chmod o+x it, or use another place",
            ));
        }
    }
    Ok(())
}

fn check_configuration(path: &Path) -> Result<(), GroundError> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unfit(path, "does not exist", "`interceptor init` writes a first configuration"));
        }
        Err(error) => return Err(failed("look at", path)(error)),
    };
    if facts.uid() != 0 {
        return Err(unfit(path, format!("belongs to uid {}", facts.uid()), "chown it to root"));
    }
    if facts.mode() & 0o022 != 0 {
        return Err(unfit(path, "can be changed by others than root", "chmod go-w it"));
    }
    Ok(())
}

fn unfit(path: &Path, why: impl Into<String>, mend: impl Into<String>) -> GroundError {
    GroundError::Unfit { path: path.to_owned(), why: why.into(), mend: mend.into() }
}

/// Makes a folder, or checks that the one there is a folder of the same owner; sets its mode.
fn folder(path: &Path, owner: (Uid, Gid), mode: u32) -> Result<(), GroundError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            chown(path, Some(owner.0.as_raw()), Some(owner.1.as_raw())).map_err(failed("chown", path))?
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create", path)(error)),
    }
    let facts = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !facts.is_dir() {
        return Err(unfit(path, "is not a folder", "move it away"));
    }
    if facts.uid() != owner.0.as_raw() {
        let mend = format!("chown -R {} it, if it is yours", owner.0);
        return Err(unfit(path, format!("belongs to uid {}", facts.uid()), mend));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("chmod", path))
}

/// Held for as long as a daemon lives.
pub type Lock = Flock<File>;

/// Makes sure that there is no daemon of the installation, and none comes while the value lives.
pub fn lock(places: &Places) -> Result<Lock, GroundError> {
    let path = places.runtime().join("daemon.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| GroundError::Running(path))
}

/// A listening socket for packets at `path`, that only root may connect to.
pub(super) fn listener(path: &Path) -> Result<OwnedFd, GroundError> {
    remove_socket(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = (|| -> Result<OwnedFd, Errno> {
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(made.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(made)
    })();
    let made = made.map_err(|errno| failed("listen at", path)(errno.into()))?;
    // Nobody can connect before this, because nobody listens yet.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("chmod", path))?;
    listen(&made, Backlog::new(16).unwrap_or(Backlog::MAXCONN))
        .map_err(|errno| failed("listen at", path)(errno.into()))?;
    Ok(made)
}

/// The same for approvers: anybody may connect, and the kernel says of each message who sent it.
pub(super) fn approvers_listener(path: &Path) -> Result<OwnedFd, GroundError> {
    let made = listener(path)?;
    // Inherited by every connection.
    setsockopt(&made, PassCred, &true).map_err(|errno| failed("listen at", path)(errno.into()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed("chmod", path))?;
    Ok(made)
}

/// Removes what an earlier daemon left. The lock is held, so nobody listens there.
pub(super) fn remove_socket(path: &Path) -> Result<(), GroundError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
