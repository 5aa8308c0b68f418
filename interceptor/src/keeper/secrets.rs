//! Where secrets come from: a file, systemd's credentials, or a program; one trait for all of them.
//!
//! Promises: a secret is read only by the keeper, only from a place that nobody else can read or change, is never
//! printed by `Debug` or named in an error, and is wiped when it is dropped. A file is checked on the descriptor
//! that is read, never by its name beforehand.
//! Nothing here knows what a secret is used for.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use interceptor_core::inventory::SecretSource;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
    unistd::geteuid,
};
use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

use super::exec::{Helper, WaitingRoom};

/// The most bytes that a secret may have: enough for any key or token.
pub const SECRET_LIMIT: usize = 64 * 1024;

/// Bytes that nobody may see. `Debug` prints stars; the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Arc<SecretBox<Vec<u8>>>);

impl Secret {
    /// Takes the bytes over; `bytes` is wiped by being moved into the box.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(SecretBox::new(Box::new(bytes))))
    }

    /// The bytes, for the one place that proves them.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a secret could not be had. Names the place and the mend, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The path is not a plain path below the credentials folder.
    #[error("{path}: a credential is a plain path below {folder}: remove `..`, `.` and the leading `/`")]
    Outside {
        /// What was written.
        path: PathBuf,
        /// The credentials folder.
        folder: PathBuf,
    },
    /// There is no such file.
    #[error("{path}: no such credential: write the secret into it, `chown {uid}` it and `chmod 600` it")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The keeper's uid.
        uid: u32,
    },
    /// The keeper may not read the file, or somebody else owns it.
    #[error("{path}: the keeper (uid {uid}) cannot use it, {why}: chown {uid} {path}")]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// The keeper's uid.
        uid: u32,
        /// What is wrong.
        why: String,
    },
    /// Others than its owner may use the file.
    #[error("{path}: mode {mode:04o} lets others than its owner use it: chmod {wanted} {path}")]
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What the mode must be.
        wanted: &'static str,
    },
    /// A symbolic link, a pipe, a folder.
    #[error("{path}: not a regular file, or reached over a symbolic link: put the file itself there")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The content is not a secret.
    #[error("{what}: {why}")]
    Unusable {
        /// The place.
        what: String,
        /// What is wrong with it, and the mend.
        why: String,
    },
    /// The file system failed.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A place that gives a secret.
pub trait Source: Send + Sync {
    /// The secret as it is now.
    fn fetch(&self) -> Result<Secret, SecretError>;
}

/// A file of the credentials folder. It is read each time, so that a rotated secret is used at once.
#[derive(Debug, Clone)]
pub struct FileSource {
    folder: PathBuf,
    path: PathBuf,
}

impl FileSource {
    /// `path` below `folder`.
    pub fn new(folder: &Path, path: &Path) -> Self {
        Self { folder: folder.to_owned(), path: path.to_owned() }
    }
}

impl Source for FileSource {
    fn fetch(&self) -> Result<Secret, SecretError> {
        let plain = self.path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || self.path.as_os_str().is_empty() {
            return Err(SecretError::Outside { path: self.path.clone(), folder: self.folder.clone() });
        }
        read_private(&self.folder, &self.path, 0o077).map(Secret::new)
    }
}

/// Reads `folder/path` when it belongs to us or root, is closed to everybody that `forbidden` names, and is reached
/// without a symbolic link. One newline at the end is not part of the secret.
pub(super) fn read_private(folder: &Path, path: &Path, forbidden: u32) -> Result<Vec<u8>, SecretError> {
    let shown = folder.join(path);
    let directory = open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH, Mode::empty())
        .map_err(|errno| from_errno(folder, errno))?;
    check_folder(&directory, folder)?;
    // `O_NONBLOCK`: a pipe laid in our way must not hang us.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(&directory, path, how).map_err(|errno| from_errno(&shown, errno))?;
    read_opened(file.into(), &shown, forbidden)
}

/// The secret in an opened file, when it is a regular one of ours or root's, closed to whom `forbidden` names.
fn read_opened(mut file: File, shown: &Path, forbidden: u32) -> Result<Vec<u8>, SecretError> {
    check_file(&file, shown, forbidden)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_LIMIT + 1));
    let limit = u64::try_from(SECRET_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    Read::by_ref(&mut file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| SecretError::Io { path: shown.to_owned(), source })?;
    trimmed(&bytes, &shown.display().to_string())
}

/// Bounds a secret and takes one newline from its end.
pub(super) fn trimmed(bytes: &[u8], place: &str) -> Result<Vec<u8>, SecretError> {
    let unusable = |why: &str| SecretError::Unusable { what: place.to_owned(), why: why.to_owned() };
    if bytes.len() > SECRET_LIMIT {
        return Err(unusable("longer than 64 KiB, which no secret is: check what was written there"));
    }
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err(unusable("empty: write the secret into it"));
    }
    if bytes.contains(&0) {
        return Err(unusable("holds a zero byte, which no password or key file does"));
    }
    Ok(bytes.to_vec())
}

fn check_folder(directory: &OwnedFd, path: &Path) -> Result<(), SecretError> {
    let stat = nix::sys::stat::fstat(directory).map_err(|errno| from_errno(path, errno))?;
    check_owner(path, stat.st_uid)?;
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode, wanted: "go-w" });
    }
    Ok(())
}

fn check_file(file: &File, path: &Path, forbidden: u32) -> Result<(), SecretError> {
    let facts = file.metadata().map_err(|source| SecretError::Io { path: path.to_owned(), source })?;
    if !facts.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    check_owner(path, facts.uid())?;
    let mode = facts.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode, wanted: "600" });
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), SecretError> {
    let uid = geteuid().as_raw();
    if owner == 0 || owner == uid {
        return Ok(());
    }
    Err(SecretError::Owner { path: path.to_owned(), uid, why: format!("it belongs to uid {owner}") })
}

fn from_errno(path: &Path, errno: Errno) -> SecretError {
    let uid = geteuid().as_raw();
    let path = path.to_owned();
    match errno {
        Errno::ENOENT => SecretError::Missing { path, uid },
        Errno::EACCES | Errno::EPERM => {
            SecretError::Owner { path, uid, why: "it may not open it".to_owned() }
        }
        Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR | Errno::ENXIO | Errno::EISDIR => {
            SecretError::NotAFile { path }
        }
        errno => SecretError::Io { path, source: errno.into() },
    }
}

/// What systemd's `LoadCredential=` gave the service. They do not change while the service lives, and only the
/// service's first user may read them, so they are read once, before privileges are given up.
#[derive(Debug, Clone, Default)]
pub struct SystemdCredentials {
    found: BTreeMap<String, Secret>,
    faults: BTreeMap<String, String>,
}

impl SystemdCredentials {
    /// Reads the files of `$CREDENTIALS_DIRECTORY`, as the helper opened them: only the service's first user may.
    /// What cannot be read is told when it is asked for.
    pub fn read(opened: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let mut credentials = Self::default();
        for (name, file) in opened {
            // An access list for the service's user shows up as group bits; only others are never meant.
            match read_opened(file.into(), Path::new(&name), 0o027) {
                Ok(bytes) => drop(credentials.found.insert(name, Secret::new(bytes))),
                Err(error) => drop(credentials.faults.insert(name, error.to_string())),
            }
        }
        credentials
    }

    fn get(&self, name: &str) -> Result<Secret, SecretError> {
        if let Some(secret) = self.found.get(name) {
            return Ok(secret.clone());
        }
        let why = self.faults.get(name).cloned().unwrap_or_else(|| {
            format!("not in $CREDENTIALS_DIRECTORY: add `LoadCredential={name}:/path` to the service and restart it")
        });
        Err(SecretError::Unusable { what: format!("credential {name:?}"), why })
    }
}

struct SystemdSource<'a> {
    credentials: &'a SystemdCredentials,
    name: &'a str,
}

impl Source for SystemdSource<'_> {
    fn fetch(&self) -> Result<Secret, SecretError> {
        self.credentials.get(self.name)
    }
}

/// Every place that this installation's secrets come from.
#[derive(Debug)]
pub struct Secrets {
    folder: PathBuf,
    systemd: SystemdCredentials,
    helpers: Mutex<HashMap<Vec<String>, Arc<Helper>>>,
    room: Arc<WaitingRoom>,
}

impl Secrets {
    /// Files are looked up below `folder`.
    pub fn new(folder: PathBuf, systemd: SystemdCredentials) -> Self {
        Self { folder, systemd, helpers: Mutex::default(), room: Arc::default() }
    }

    /// The folder of [`SecretSource::File`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The secret that `source` names, as it is now. A helper program may take up to its deadline.
    pub fn fetch(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        match source {
            SecretSource::File(path) => FileSource::new(&self.folder, path).fetch(),
            SecretSource::Systemd(name) => SystemdSource { credentials: &self.systemd, name }.fetch(),
            SecretSource::Exec(argv) => self.helper(argv).fetch(),
        }
    }

    /// What a helper program said last, as long as it holds.
    pub(super) fn said(&self, argv: &[String]) -> Option<Secret> {
        let helpers = self.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        helpers.get(argv).and_then(|helper| helper.said())
    }

    /// Forgets what helper programs said.
    pub fn forget(&self) {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn helper(&self, argv: &[String]) -> Arc<Helper> {
        let mut helpers = self.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Helper::new(argv.to_vec(), Arc::clone(&self.room)));
        Arc::clone(helpers.entry(argv.to_vec()).or_insert_with(fresh))
    }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
