//! Signed checkpoints over the tree of lines, in the C2SP formats (`signed-note`, `tlog-checkpoint`), so that
//! witnesses and tools of others can read them. The key never leaves the keeper.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    str::FromStr,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{StoreError, places, tree::Node};

/// The algorithm byte of Ed25519 in key ids and verifier keys.
const ED25519: u8 = 1;

/// The keeper's signing key, with the name it signs under.
pub(super) struct Signing {
    name: String,
    key: SigningKey,
}

impl Signing {
    /// Reads the key at `path`, or makes one that nobody else can read. `name` is what a new log is called.
    pub(super) fn open_or_create(path: &Path, name: &str) -> Result<Self, StoreError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file, name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path, name),
            Err(error) => Err(StoreError::io(path, error)),
        }
    }

    fn create(path: &Path, name: &str) -> Result<Self, StoreError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|e| StoreError::io(path, io::Error::other(e.to_string())))?;
        let text = Zeroizing::new(hex::encode(seed.as_slice()) + "\n");
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| StoreError::io(path, e))?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    fn read(path: &Path, mut file: File, name: &str) -> Result<Self, StoreError> {
        let metadata = file.metadata().map_err(|e| StoreError::io(path, e))?;
        let own = nix::unistd::geteuid().as_raw();
        if metadata.mode() & 0o077 != 0 || metadata.uid() != own {
            return Err(StoreError::KeyExposed { path: path.to_owned(), uid: own });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(|e| StoreError::io(path, e))?;
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), seed.as_mut_slice())
            .map_err(|_| StoreError::damaged(path, "it holds no key of 64 hexadecimal digits"))?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    /// The public half.
    pub(super) fn public(&self) -> LogKey {
        LogKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The signed note for a tree.
    pub(super) fn sign(&self, size: u64, root: &Node) -> String {
        let body = format!("{}\n{size}\n{}\n", self.name, BASE64_STANDARD.encode(root));
        let signature = self.key.sign(body.as_bytes()).to_bytes();
        let signed = [self.public().id().as_slice(), &signature].concat();
        format!("{body}\n\u{2014} {} {}\n", self.name, BASE64_STANDARD.encode(signed))
    }
}

/// The public key of a log, as `audit/log.pub` has it: a C2SP verifier key, `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    key: VerifyingKey,
}

impl LogKey {
    /// The log's name: the first line of its checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> Vec<u8> {
        [&[ED25519], self.key.as_bytes().as_slice()].concat()
    }

    fn id(&self) -> [u8; 4] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(&self.name)
            .chain_update(b"\n")
            .chain_update(self.bytes())
            .finalize()
            .into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

impl std::fmt::Display for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), BASE64_STANDARD.encode(self.bytes()))
    }
}

/// Why a text is not a log's public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not the public key of a log: expected `name+id+key`, as the file log.pub has it")]
pub struct NotALogKey;

impl FromStr for LogKey {
    type Err = NotALogKey;
    fn from_str(text: &str) -> Result<Self, NotALogKey> {
        // The last part is base64, which may hold `+` itself.
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotALogKey);
        };
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| NotALogKey)?;
        let Some((&ED25519, key)) = bytes.split_first() else { return Err(NotALogKey) };
        let key = VerifyingKey::try_from(key).map_err(|_| NotALogKey)?;
        let key = Self { name: name.to_owned(), key };
        if hex::encode(key.id()) == id { Ok(key) } else { Err(NotALogKey) }
    }
}

/// What a checkpoint states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Lines that it covers.
    pub size: u64,
    pub(super) root: Node,
}

impl Checkpoint {
    /// Reads a signed note and checks `key`'s signature; further signatures (witnesses) are passed over.
    pub fn verify(note: &str, key: &LogKey) -> Option<Self> {
        let (body, signatures) = note.split_once("\n\n")?;
        let body = format!("{body}\n");
        let signed = signatures.lines().any(|line| {
            let named = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' '));
            let Some((name, blob)) = named else { return false };
            let Ok(blob) = BASE64_STANDARD.decode(blob) else { return false };
            let Some((id, signature)) = blob.split_first_chunk::<4>() else { return false };
            let Ok(signature) = Signature::from_slice(signature) else { return false };
            name == key.name && *id == key.id() && key.key.verify_strict(body.as_bytes(), &signature).is_ok()
        });
        let mut lines = body.lines();
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root: Node = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
        let canonical = size.parse::<u64>().ok().filter(|n| n.to_string() == size)?;
        (signed && origin == key.name).then_some(Self { size: canonical, root })
    }
}

/// A checkpoint with the note that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it states.
    pub checkpoint: Checkpoint,
    /// The signed note, word for word.
    pub note: String,
}

/// The checkpoints of the store at `dir` that `key` signed, in order.
pub fn checkpoints(dir: &Path, key: &LogKey) -> Result<Vec<SignedCheckpoint>, StoreError> {
    let path = places::checkpoints(dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io(&path, error)),
    };
    let notes = notes(&String::from_utf8_lossy(&bytes)).into_iter();
    let signed = notes.filter_map(|note| {
        Checkpoint::verify(&note, key).map(|checkpoint| SignedCheckpoint { checkpoint, note })
    });
    Ok(signed.collect())
}

/// The notes of a checkpoints file, in order. Between two notes stands an empty line.
pub(super) fn notes(text: &str) -> Vec<String> {
    let parts: Vec<_> = text.split("\n\n").collect();
    parts
        .chunks(2)
        .filter_map(|pair| match pair {
            [body, signatures] => {
                Some(format!("{}\n\n{}\n", body.trim_start_matches('\n'), signatures.trim_end()))
            }
            _ => None,
        })
        .collect()
}
