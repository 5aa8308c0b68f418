//! Segment files: `segments/NNNNNNNNNN.jsonl`, each a header line and the lines that follow it. Append-only; only an
//! unsynced end is ever cut.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    line::{ChainHash, NO_HASH},
    places,
    tree::Tree,
};

/// No line is longer: the journal takes no longer entry.
const LONGEST_LINE: u64 = 128 * 1024 * 1024;

/// Where the chain ends.
#[derive(Debug, Clone)]
pub(super) struct ChainEnd {
    /// The last line's hash.
    pub(super) hash: ChainHash,
    /// The last line's numbers.
    pub(super) seq: u64,
    pub(super) sub: u32,
    /// All lines, each by its hash.
    pub(super) tree: Tree,
}

impl ChainEnd {
    /// Of a store without lines.
    pub(super) fn empty() -> Self {
        Self { hash: NO_HASH, seq: 0, sub: 0, tree: Tree::default() }
    }

    /// Chains `json` and adds the whole line to `out`.
    pub(super) fn append(&mut self, json: &[u8], out: &mut Vec<u8>) {
        self.hash = self.hash.then(json);
        self.tree.push(&self.hash.0);
        out.extend_from_slice(&self.hash.0);
        out.push(b' ');
        out.extend_from_slice(json);
        out.push(b'\n');
    }

    /// Takes a line that was read back. `false` when it is not the next of the chain.
    pub(super) fn follow(&mut self, hash: ChainHash, json: &[u8]) -> bool {
        let expected = self.hash.then(json);
        self.hash = hash;
        self.tree.push(&hash.0);
        expected == hash
    }
}

/// The segments that are there, by number.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let folder = places::segments(dir);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| StoreError::io(&folder, e))? {
        let path = entry.map_err(|e| StoreError::io(&folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".jsonl").filter(|stem| stem.len() == 10).and_then(|s| s.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The file of segment `number`.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    places::segments(dir).join(format!("{number:010}.jsonl"))
}

/// Makes segment `number` with its header line, synced with its folder.
pub(super) fn create(dir: &Path, number: u64, header: &[u8]) -> Result<File, StoreError> {
    let path = path(dir, number);
    // Left by a try that found no space; the writer's own segment is always the last one.
    let _ = std::fs::remove_file(&path);
    let write = || {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&path)?;
        file.write_all(header)?;
        file.sync_all()?;
        File::open(places::segments(dir))?.sync_all()?;
        Ok(file)
    };
    write().map_err(|error| {
        // A torn header would be cut away by recovery anyhow; the error that counts is the first.
        let _ = std::fs::remove_file(&path);
        StoreError::io(&path, error)
    })
}

/// Reads a segment line by line.
pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    offset: u64,
    line: Vec<u8>,
}

/// A line as it stands in its file.
pub(super) struct FoundLine<'a> {
    /// Where it begins.
    pub(super) offset: u64,
    /// Without its newline.
    pub(super) bytes: &'a [u8],
    /// Whether it had one.
    pub(super) whole: bool,
}

impl Lines {
    /// From `offset` on, which must be the beginning of a line.
    pub(super) fn open(path: &Path, offset: u64) -> Result<Self, StoreError> {
        let open = || -> io::Result<_> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(BufReader::with_capacity(1 << 16, file))
        };
        let reader = open().map_err(|e| StoreError::io(path, e))?;
        Ok(Self { reader, path: path.to_owned(), offset, line: Vec::new() })
    }

    /// The next line, or `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<FoundLine<'_>>, StoreError> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut self.line).map_err(|e| StoreError::io(&self.path, e))?;
        if read == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += read as u64;
        let whole = self.line.last() == Some(&b'\n');
        if whole {
            self.line.pop();
        }
        Ok(Some(FoundLine { offset, bytes: &self.line, whole }))
    }
}
