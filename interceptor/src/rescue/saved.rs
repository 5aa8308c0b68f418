//! What was saved as known to be good: the daemon's binary and its configuration, with the digest of each file.
//!
//! Promises: what is saved anew takes the place of the old at once or not at all; a file that is missing, was changed, was
//! added, or could be changed by others than root, spoils all of it. Secrets are not saved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{RescueError, failed};
use crate::places::Places;

const MANIFEST: &str = "manifest.json";
const BINARY: &str = "interceptor";
const CONFIGURATION: &str = "etc";

/// What is to be saved.
#[derive(Debug)]
pub struct What<'a> {
    /// The binary: a path at which it can be read.
    pub binary: &'a Path,
    /// Its version.
    pub version: String,
    /// The hash of the policy in force.
    pub policy: String,
    /// Who saves it, in words.
    pub by: String,
    /// Files of the configuration, by their path in its folder.
    pub configuration: Vec<(PathBuf, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: String,
    policy: String,
    by: String,
    saved_at: i64,
    /// The SHA-256 of each file, by its path.
    files: BTreeMap<String, String>,
}

/// What is saved.
#[derive(Debug)]
pub struct Saved {
    folder: PathBuf,
    manifest: Manifest,
    digest: String,
}

/// How much of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The configuration, as by those who do not start the binary.
    Configuration,
    /// The binary, too.
    Whole,
}

impl Saved {
    /// What is saved. None of its files was looked at.
    pub fn open(places: &Places) -> Result<Self, RescueError> {
        let folder = places.rescue().join("saved");
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RescueError::Nothing(folder));
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let manifest = serde_json::from_slice(&text)
            .map_err(|_| RescueError::Changed { path, why: "is not the list that was saved" })?;
        Ok(Self { folder, manifest, digest: hex::encode(Sha256::digest(&text)) })
    }

    /// Makes sure that it is what was saved, and that only root could have changed it.
    pub fn verify(&self, scope: Scope) -> Result<(), RescueError> {
        let mut there = BTreeSet::new();
        walk(&self.folder, &mut there)?;
        there.remove(&self.folder.join(MANIFEST));
        for (name, digest) in &self.manifest.files {
            let path = self.folder.join(name);
            if !there.remove(&path) {
                return Err(RescueError::Changed { path, why: "is missing" });
            }
            if (name != BINARY || scope == Scope::Whole) && digest_of(&path)? != *digest {
                return Err(RescueError::Changed { path, why: "was changed since it was saved" });
            }
        }
        match there.pop_first() {
            Some(path) => Err(RescueError::Changed { path, why: "was added since" }),
            None => Ok(()),
        }
    }

    /// The digest of the list of files and their digests, which stands for all of it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The binary.
    pub fn binary(&self) -> PathBuf {
        self.folder.join(BINARY)
    }

    /// The digest that the binary had.
    pub fn binary_digest(&self) -> &str {
        self.manifest.files.get(BINARY).map_or("", String::as_str)
    }

    /// The folder that is the configuration while a rescue lasts.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join(CONFIGURATION)
    }

    /// What it is, in words.
    pub fn in_words(&self) -> String {
        let Manifest { version, policy, by, saved_at, .. } = &self.manifest;
        let at =
            jiff::Timestamp::from_microsecond(*saved_at).map_or_else(|_| String::new(), |at| at.to_string());
        format!("version {version}, policy {policy}, saved by {by} at {at}, digest {}", self.digest)
    }

    /// Writes `what` beside what is saved. It is not saved before [`Prepared::keep`].
    pub fn prepare(places: &Places, what: What<'_>) -> Result<Prepared, RescueError> {
        let rescue = places.rescue();
        folder(&rescue)?;
        let fresh = rescue.join("fresh");
        remove(&fresh)?;
        folder(&fresh)?;
        let prepared = Prepared { rescue, fresh, digest: String::new() };
        let mut files = BTreeMap::new();
        let binary = prepared.fresh.join(BINARY);
        fs::copy(what.binary, &binary).map_err(failed("copy the daemon's binary to", &binary))?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).map_err(failed("chmod", &binary))?;
        sync(&binary)?;
        files.insert(BINARY.to_owned(), digest_of(&binary)?);
        folder(&prepared.fresh.join(CONFIGURATION))?;
        for (name, text) in what.configuration {
            let name = Path::new(CONFIGURATION).join(name);
            let path = prepared.fresh.join(&name);
            if let Some(parent) = path.parent() {
                folder(parent)?;
            }
            write(&path, text.as_bytes())?;
            let digest = hex::encode(Sha256::digest(text.as_bytes()));
            files.insert(name.to_string_lossy().into_owned(), digest);
        }
        let saved_at = jiff::Timestamp::now().as_microsecond();
        let manifest = Manifest { version: what.version, policy: what.policy, by: what.by, saved_at, files };
        let path = prepared.fresh.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| failed("write", &path)(e.into()))?;
        write(&path, &text)?;
        Ok(Prepared { digest: hex::encode(Sha256::digest(&text)), ..prepared })
    }
}

/// What is written, and not saved yet.
#[derive(Debug)]
pub struct Prepared {
    rescue: PathBuf,
    fresh: PathBuf,
    digest: String,
}

impl Prepared {
    /// The digest that it will be known by.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Puts it in the place of what was saved before.
    pub fn keep(self) -> Result<(), RescueError> {
        let saved = self.rescue.join("saved");
        let flags = match fs::symlink_metadata(&saved) {
            Ok(_) => RenameFlags::RENAME_EXCHANGE,
            Err(error) if error.kind() == io::ErrorKind::NotFound => RenameFlags::RENAME_NOREPLACE,
            Err(error) => return Err(failed("look at", &saved)(error)),
        };
        renameat2(AT_FDCWD, &self.fresh, AT_FDCWD, &saved, flags)
            .map_err(|errno| failed("put in its place", &saved)(errno.into()))?;
        sync(&self.rescue)?;
        // What was saved before is where the new was.
        remove(&self.fresh)
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub fn digest_of(path: &Path) -> Result<String, RescueError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk).map_err(failed("read", path))? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(chunk.get(..length).unwrap_or_default()),
        }
    }
}

/// All files below a folder, each of them and each folder root's alone to change.
fn walk(path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), RescueError> {
    let facts = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let changed = |why| RescueError::Changed { path: path.to_owned(), why };
    if !facts.is_dir() && !facts.is_file() {
        return Err(changed("is neither a file nor a folder"));
    }
    if facts.uid() != 0 || facts.mode() & 0o022 != 0 {
        return Err(changed("could be changed by others than root"));
    }
    if facts.is_dir() {
        for entry in fs::read_dir(path).map_err(failed("list", path))? {
            walk(&entry.map_err(failed("list", path))?.path(), files)?;
        }
    } else {
        files.insert(path.to_owned());
    }
    Ok(())
}

/// A folder that all may read and only root may change.
fn folder(path: &Path) -> Result<(), RescueError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create", path)(error));
        }
        _ => {}
    }
    let facts = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !facts.is_dir() || facts.uid() != 0 {
        return Err(RescueError::Changed { path: path.to_owned(), why: "is not a folder of root's" });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("chmod", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RescueError> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Whatever the mask of the caller is: the roles read it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
    })();
    written.map_err(failed("write", path))
}

fn sync(path: &Path) -> Result<(), RescueError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("write to the disk", path))
}

fn remove(path: &Path) -> Result<(), RescueError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(places: &Places, policy: &str) {
        let binary = places.state().join("program");
        fs::write(&binary, "a program").expect("written");
        let what = What {
            binary: &binary,
            version: "1".to_owned(),
            policy: policy.to_owned(),
            by: "alice".to_owned(),
            configuration: vec![("policies/a.cedar".into(), policy.to_owned())],
        };
        let prepared = Saved::prepare(places, what).expect("prepared");
        let digest = prepared.digest().to_owned();
        prepared.keep().expect("kept");
        assert_eq!(Saved::open(places).expect("saved").digest(), digest);
    }

    #[test]
    fn what_is_saved_is_used_as_it_was_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places::under(folder.path());
        fs::create_dir_all(places.state()).expect("a folder");
        assert!(matches!(Saved::open(&places), Err(RescueError::Nothing(_))));
        save(&places, "one");
        save(&places, "another");
        assert!(!places.rescue().join("fresh").exists());
        let saved = Saved::open(&places).expect("saved");
        saved.verify(Scope::Whole).expect("as it was");
        let (binary, policy) = (saved.binary(), saved.configuration().join("policies/a.cedar"));
        assert_eq!(fs::read_to_string(&policy).expect("read"), "another");
        assert_eq!(digest_of(&binary).expect("read"), saved.binary_digest());
        let added = saved.configuration().join("policies/b.cedar");
        let spoil: [(&str, &dyn Fn()); 5] = [
            ("was changed since", &|| fs::write(&policy, "permit").expect("written")),
            ("was added since", &|| fs::write(&added, "permit").expect("written")),
            ("is missing", &|| fs::remove_file(&policy).expect("removed")),
            ("by others than root", &|| {
                fs::set_permissions(&policy, fs::Permissions::from_mode(0o666)).expect("own file");
            }),
            ("neither a file nor a folder", &|| std::os::unix::fs::symlink(&binary, &added).expect("a link")),
        ];
        for (why, spoil) in spoil {
            spoil();
            let said = saved.verify(Scope::Configuration).expect_err(why).to_string();
            assert!(said.contains(why) && said.contains("interceptor rescue save"), "{said}");
            save(&places, "another");
        }
        fs::write(&binary, "another program").expect("written");
        let saved = Saved::open(&places).expect("saved");
        saved.verify(Scope::Configuration).expect("the binary is not looked at");
        assert!(saved.verify(Scope::Whole).is_err());
        fs::write(places.rescue().join("saved").join(MANIFEST), "{}").expect("written");
        assert!(matches!(Saved::open(&places), Err(RescueError::Changed { .. })));
    }
}
