//! One line of a segment: `<hash> <json>`, where the hash is SHA-256 over the previous line's hash, as hexadecimal
//! text, and the JSON. Each line can be checked with `sha256sum`, and is a leaf of the checkpoints' tree.

use interceptor_core::model::{Entry, RecordId, RunId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{journal::Body, request};

/// Bytes of a hash in hexadecimal text.
pub(super) const HASH_TEXT: usize = 64;

/// What the first line of the first segment is chained to.
pub(super) const NO_HASH: ChainHash = ChainHash([b'0'; HASH_TEXT]);

/// A line's hash, as the text that it is chained by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ChainHash(pub(super) [u8; HASH_TEXT]);

impl ChainHash {
    /// The hash of a line with `json` after the line with `self`.
    pub(super) fn then(self, json: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(self.0).chain_update(json).finalize();
        let mut text = [b'0'; HASH_TEXT];
        // The buffer is twice the digest's length, so this cannot fail; if it did, no line would ever verify.
        let _ = hex::encode_to_slice(digest, &mut text);
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry with its place in the order of things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The proxy's number. The keeper's own entries repeat the number before them and count in `sub`.
    pub seq: u64,
    /// From 1 for the keeper's own entries; 0 (left out) for the proxy's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sub: u32,
    /// Numbers up to this one may have been given out, but their entries were lost with the power or with a damaged
    /// journal. Only in the keeper's own entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
    /// Segments before this one were removed by retention. Only in the keeper's own entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_segment: Option<u64>,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Writes the JSON of a proxy's entry behind `out`: what a [`Line`] would be written as. `None` when the entry has no
/// line of its own.
pub(super) fn write(seq: u64, body: &Body<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut begin = |word: &str| {
        out.extend_from_slice(b"{\"seq\":");
        out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
        out.extend_from_slice(b",\"entry\":\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\",");
    };
    match body {
        Body::Attach => return None,
        Body::Request { text: [head, ruling, own], .. } => {
            begin("request");
            request::join([head.strip_prefix(b"{")?, ruling, own], out)?;
        }
        Body::Outcome { text, .. } => {
            begin("outcome");
            out.extend_from_slice(text.strip_prefix(b"{")?);
        }
        Body::Event { text, .. } => {
            begin("event");
            out.extend_from_slice(text.strip_prefix(b"{")?);
        }
    }
    Some(())
}

/// The first line of each segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Always `segment`.
    pub(super) entry: SegmentTag,
    /// The store's id.
    pub(super) store: String,
    /// This segment's number, from 1.
    pub(super) segment: u64,
    /// The last numbers before this segment.
    pub(super) after_seq: u64,
    pub(super) after_sub: u32,
    /// Lines before this one, in all segments.
    pub(super) lines: u64,
    /// The hash of the line before.
    pub(super) previous: String,
    /// The Merkle tree over the lines before, as the roots of its complete subtrees, largest first.
    pub(super) tree: Vec<String>,
    /// Requests whose outcome is in no segment before this one.
    pub(super) open: Vec<Open>,
    /// Bytes that each run not yet ended has written.
    pub(super) used: Vec<(RunId, u64)>,
}

/// The word `segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SegmentTag {
    Segment,
}

/// A request without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) id: RecordId,
    /// Whether it may have been sent.
    pub(super) allowed: bool,
    pub(super) run: RunId,
}

/// A line of a segment, read back.
pub(super) enum Parsed {
    Header(Header),
    Line(Box<Line>),
}

/// Splits a line (without its newline) into its hash and JSON.
pub(super) fn split(line: &[u8]) -> Option<(ChainHash, &[u8])> {
    let (hash, json) = line.split_first_chunk::<HASH_TEXT>()?;
    let json = json.strip_prefix(b" ")?;
    hash.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some((ChainHash(*hash), json))
}

/// Reads a line's JSON.
pub(super) fn parse(json: &[u8]) -> Result<Parsed, serde_json::Error> {
    if json.starts_with(br#"{"entry":"segment""#) {
        serde_json::from_slice(json).map(Parsed::Header)
    } else {
        serde_json::from_slice(json).map(|line| Parsed::Line(Box::new(line)))
    }
}
