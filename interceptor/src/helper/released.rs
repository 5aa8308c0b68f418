//! Notes of what was let go of while no daemon was there to record it.
//!
//! Promises: a note is on disk before anything is let go of, and stays until a daemon has recorded it. Nobody signs it: root
//! wrote it, and root could have written anything; the record says that it is a note.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use interceptor_core::model::{AgentName, RunId};
use serde::{Deserialize, Serialize};

use crate::places::Places;

/// What root said when it let go of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// Who, as text.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, in microseconds of the Unix epoch.
    pub at: i64,
    /// Until when it may be let go of.
    pub until: i64,
}

impl Note {
    /// Writes it to the disk. Where that fails nothing may be let go of.
    pub fn write(&self, places: &Places) -> io::Result<()> {
        let folder = places.releases();
        ensure(&folder)?;
        let path = path_of(&folder, self.run, self.at);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = (|| {
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            // The names are as much of it as the text.
            File::open(&folder)?.sync_all()?;
            File::open(places.state())?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// All that are there, oldest first, and the paths of those that cannot be read.
    pub(super) fn all(places: &Places) -> (Vec<Self>, Vec<PathBuf>) {
        let entries = fs::read_dir(places.releases()).into_iter().flatten().flatten();
        let (mut notes, mut unread) = (Vec::new(), Vec::new());
        for path in entries.map(|entry| entry.path()) {
            match fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok()) {
                Some(note) => notes.push(note),
                None => unread.push(path),
            }
        }
        notes.sort_by_key(|note| note.at);
        (notes, unread)
    }

    /// Removes one that is recorded, or that nothing came of.
    pub fn remove(places: &Places, run: RunId, at: i64) -> io::Result<()> {
        fs::remove_file(path_of(&places.releases(), run, at))
    }
}

fn path_of(folder: &Path, run: RunId, at: i64) -> PathBuf {
    folder.join(format!("{at}-{run}.json"))
}

/// The folder is root's alone.
fn ensure(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let facts = fs::symlink_metadata(folder)?;
    if facts.is_dir() && facts.uid() == 0 && facts.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{} must be a folder that only root may change", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places::under(folder.path());
        fs::create_dir_all(places.state()).expect("a folder");
        let note = |at| Note {
            run: RunId::from_random(7),
            agent: "bot".parse().expect("a name"),
            by: "root".to_owned(),
            reason: "the database is down".to_owned(),
            at,
            until: at + 1,
        };
        note(2).write(&places).expect("root may");
        note(1).write(&places).expect("root may");
        assert!(note(1).write(&places).is_err(), "once only");
        fs::write(places.releases().join("other"), "nonsense").expect("a file");
        let unread = vec![places.releases().join("other")];
        assert_eq!(
            Note::all(&places),
            (vec![note(1), note(2)], unread.clone()),
            "what failed takes nothing with it"
        );
        Note::remove(&places, note(1).run, 1).expect("it is there");
        Note::remove(&places, note(2).run, 2).expect("it is there");
        assert_eq!(Note::all(&places), (Vec::new(), unread));
        assert!(Note::remove(&places, note(2).run, 2).is_err());
    }
}
