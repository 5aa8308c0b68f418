//! What a build is made of, as clients send it: an archive, of which the Dockerfile is read and another put in its place.
//!
//! Promises: the engine reads the Dockerfile that was written for it, under a name that nobody could know before, and that stands
//! before anything that the run has put into the archive; the rest is the engine's to unpack, as it came. Format: tar, plain or by
//! gzip.

use std::{
    io::Read,
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use tar::{Archive, EntryType, Header};

use super::{refusal::Refusal, upstream::Body};

/// The longest archive that is taken: it is held in memory.
pub(super) const LONGEST: usize = 128 << 20;
/// The longest Dockerfile.
const LONGEST_FILE: u64 = 1 << 20;
/// The blocks that an archive is made of, and of which two empty ones end it.
const BLOCK: usize = 512;
/// What begins with this is compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Says what of the archive is no part of what is copied.
const IGNORE: &str = ".dockerignore";

/// An archive, and where its last file ends.
#[derive(Debug)]
pub(super) struct Context {
    archive: Bytes,
    end: usize,
    /// The text of its Dockerfile.
    pub(super) dockerfile: String,
}

impl Context {
    /// Reads an archive, whose Dockerfile has this name.
    pub(super) fn read(archive: Bytes, dockerfile: &str) -> Result<Self, Refusal> {
        let unread = |error: std::io::Error| {
            Refusal::malformed(format!(
                "the build's context cannot be read as a tar, plain or by gzip: {error}"
            ))
        };
        let archive = unpacked(archive)?;
        let wanted = plain(Path::new(dockerfile));
        let (mut end, mut found) = (0, None);
        for entry in Archive::new(archive.as_ref()).entries().map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let size = entry.header().entry_size().map_err(unread)?;
            let until = entry.raw_file_position().saturating_add(size);
            let until = usize::try_from(until).unwrap_or(usize::MAX).checked_next_multiple_of(BLOCK);
            end = until.unwrap_or(usize::MAX);
            if wanted.is_some() && plain(&entry.path().map_err(unread)?) == wanted {
                if entry.header().entry_type() != EntryType::Regular || size > LONGEST_FILE {
                    return Err(Refusal::forbidden(format!(
                        "{dockerfile} is no plain file of at most {LONGEST_FILE} bytes"
                    )));
                }
                let mut text = String::new();
                entry.take(LONGEST_FILE).read_to_string(&mut text).map_err(unread)?;
                found = Some(text);
            }
        }
        let dockerfile = found
            .ok_or_else(|| Refusal::malformed(format!("the build's context has no file {dockerfile:?}")))?;
        let end = end.min(archive.len());
        Ok(Self { archive, end, dockerfile })
    }

    /// The archive with another Dockerfile, and the name of that.
    pub(super) fn with(self, dockerfile: &str) -> Result<(String, Body), Refusal> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Refusal::unable(error.to_string()))?;
        let name = format!(".interceptor-{}.dockerfile", hex::encode(random));
        let mut tail = file(IGNORE, &format!("{IGNORE}\n{name}\n"))?;
        tail.resize(tail.len() + 2 * BLOCK, 0);
        let parts =
            [Bytes::from(file(&name, dockerfile)?), self.archive.slice(..self.end), Bytes::from(tail)];
        let frames = parts.map(|part| Ok::<_, hyper::Error>(Frame::data(part)));
        Ok((name, StreamBody::new(stream::iter(frames)).boxed()))
    }
}

/// An archive without compression.
fn unpacked(archive: Bytes) -> Result<Bytes, Refusal> {
    if !archive.starts_with(&GZIP) {
        return Ok(archive);
    }
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(archive.as_ref()).take(most.saturating_add(1)).read_to_end(&mut plain);
    match read {
        Ok(length) if length <= LONGEST => Ok(plain.into()),
        Ok(_) => Err(too_long("it is longer than that when it is unpacked")),
        Err(error) => Err(Refusal::malformed(format!("the build's context cannot be unpacked: {error}"))),
    }
}

/// What a build is made of that is too long to be held.
pub(super) fn too_long(why: &str) -> Refusal {
    let most = LONGEST >> 20;
    Refusal::malformed(format!(
        "the build's context cannot be read ({why}): it has at most {most} MiB; leave out what it does not need by a .dockerignore"
    ))
}

/// A path without what says nothing; nothing where it leads back.
fn plain(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    let parts: Option<PathBuf> = parts
        .map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    parts.filter(|path| path.file_name().is_some())
}

/// A file, as an archive has it.
fn file(name: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name).map_err(|error| Refusal::unable(error.to_string()))?;
    header.set_mode(0o644);
    header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Bytes {
        let mut bytes: Vec<u8> =
            files.iter().flat_map(|(name, text)| file(name, text).expect("a file")).collect();
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes.into()
    }

    fn files(body: Body) -> Vec<(String, String)> {
        let body = futures::executor::block_on(body.collect()).expect("all there").to_bytes();
        let mut archive = Archive::new(body.as_ref());
        let entries = archive.entries().expect("an archive").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (entry.path().expect("a path").display().to_string(), text)
        });
        entries.collect()
    }

    #[test]
    fn the_engine_reads_another_dockerfile() {
        let given = archive(&[("./Dockerfile", "FROM a"), ("x/y", "z"), ("Dockerfile", "FROM b")]);
        let context = Context::read(given, "Dockerfile").expect("a context");
        assert_eq!(context.dockerfile, "FROM b", "the last counts");
        let (name, body) = context.with("FROM c").expect("a body");
        let found = files(body);
        assert_eq!(found.first(), Some(&(name.clone(), "FROM c".to_owned())));
        assert_eq!(found.len(), 5);
        assert_eq!(found.last(), Some(&(IGNORE.to_owned(), format!("{IGNORE}\n{name}\n"))));
        let again = Context::read(archive(&[("a/D", "FROM a")]), "./a/D").expect("a context");
        assert_ne!(again.with("FROM c").expect("a body").0, name, "another name each time");
    }

    fn packed(bytes: &[u8]) -> Bytes {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(bytes).expect("all of it");
        packer.finish().expect("all of it").into()
    }

    #[test]
    fn a_compressed_archive_goes_on_without_that() {
        let given = archive(&[("Dockerfile", "FROM a"), ("x", "y")]);
        let context = Context::read(packed(&given), "Dockerfile").expect("a context");
        assert_eq!(context.dockerfile, "FROM a");
        assert_eq!(files(context.with("FROM b").expect("a body").1).len(), 4);
    }

    #[test]
    fn what_is_no_plain_archive_is_refused() {
        assert!(Context::read(Bytes::new(), "Dockerfile").is_err());
        assert!(Context::read(Bytes::from_static(&[0x1f, 0x8b, 8, 0]), "Dockerfile").is_err());
        let zeros = vec![0; LONGEST + 1];
        assert!(
            Context::read(packed(&zeros), "Dockerfile").is_err_and(|refusal| refusal.text.contains("MiB"))
        );
        assert!(Context::read(Bytes::from(vec![b'x'; 2048]), "Dockerfile").is_err());
        let given = archive(&[("Dockerfile", "FROM a")]);
        assert!(Context::read(given.clone(), "../Dockerfile").is_err());
        assert!(Context::read(given.slice(..BLOCK + 3), "Dockerfile").is_err(), "cut off");
        let mut link = Header::new_ustar();
        link.set_entry_type(EntryType::Symlink);
        link.set_path("Dockerfile").expect("a name");
        link.set_link_name("/etc/passwd").expect("a name");
        link.set_size(0);
        link.set_cksum();
        let mut bytes = link.as_bytes().to_vec();
        bytes.resize(3 * BLOCK, 0);
        assert!(Context::read(bytes.into(), "Dockerfile").is_err());
    }
}
