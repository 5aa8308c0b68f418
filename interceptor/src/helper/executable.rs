//! What a process executes: path and digest, for a proxy that may not look itself.
//!
//! The answer is about one process, not one number: its start time is compared before and after. Digests are kept
//! by what a file is, not by what it is called.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use interceptor_core::model::ExecutableDigest;
use sha2::{Digest, Sha256};

use super::messages::ExecutableFacts;

/// What is longer is not hashed.
const LONGEST: u64 = 512 * 1024 * 1024;
/// How many digests are kept.
const KEPT: usize = 4096;

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct FileKey {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// Digests by file.
#[derive(Default)]
pub(crate) struct Executables {
    known: Mutex<HashMap<FileKey, ExecutableDigest>>,
}

impl Executables {
    /// Nothing, when the process is gone or another one has its number.
    pub(crate) fn of(&self, pid: u32, start_time: u64) -> Option<ExecutableFacts> {
        is_same(pid, start_time).then_some(())?;
        let link = Path::new("/proc").join(pid.to_string()).join("exe");
        let file = File::open(&link).ok()?;
        let path = fs::read_link(&link).ok()?;
        is_same(pid, start_time).then_some(())?;
        let digest = self.digest(file).ok().flatten();
        Some(ExecutableFacts { path: path.to_string_lossy().into_owned(), digest })
    }

    fn digest(&self, mut file: File) -> io::Result<Option<ExecutableDigest>> {
        let key = key(&file)?;
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(*known));
        }
        if key.size > LONGEST {
            return Ok(None);
        }
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 128 * 1024];
        let mut left = LONGEST;
        loop {
            let length = file.read(&mut chunk)?;
            left = left.saturating_sub(length as u64);
            match chunk.get(..length) {
                Some(part) if length > 0 && left > 0 => hash.update(part),
                Some(_) if length == 0 => break,
                _ => return Ok(None),
            }
        }
        // A file that changed under our hands has no digest.
        if self::key(&file)? != key {
            return Ok(None);
        }
        let digest = ExecutableDigest(hash.finalize().into());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, digest);
        Ok(Some(digest))
    }
}

fn key(file: &File) -> io::Result<FileKey> {
    let facts = file.metadata()?;
    Ok(FileKey {
        device: facts.dev(),
        inode: facts.ino(),
        changed: (facts.ctime(), facts.ctime_nsec()),
        size: facts.size(),
    })
}

/// `USER_HZ` is 100 on every architecture that we run on: a tick is 10 milliseconds.
pub(super) const TICK_NS: u64 = 10_000_000;

fn is_same(pid: u32, start_time: u64) -> bool {
    start_ticks(pid) == Some(start_time / TICK_NS)
}

/// The 22nd field of `/proc/PID/stat`; the second may hold anything, so count from its last parenthesis.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let pid = std::process::id();
        let start = start_ticks(pid).expect("stat") * TICK_NS + 123;
        let executables = Executables::default();
        let facts = executables.of(pid, start).expect("this process");
        let whole = fs::read("/proc/self/exe").expect("this binary");
        assert_eq!(facts.digest, Some(ExecutableDigest(Sha256::digest(&whole).into())));
        assert_eq!(executables.of(pid, start), Some(facts));
        assert_eq!(executables.of(pid, start + TICK_NS), None);
        assert_eq!(executables.of(0, start), None);
    }
}
