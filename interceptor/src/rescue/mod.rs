//! What a rescue stands on, on disk: what was saved as known to be good, and root's note that a rescue lasts.
//!
//! Promises: what was saved is used only where it is, to the byte, what was saved, and nobody but root could change it;
//! a note that cannot be read is none, and says so. Nobody signs either: root wrote them, and root could have written
//! anything, so that the record has the digest of what was saved. What the files mean is not known here.

mod begun;
mod saved;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use begun::Begun;
pub use saved::{Prepared, Saved, Scope, What, digest_of};

/// Why there is no rescue, or what was saved cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    /// Nothing was saved.
    #[error(
        "nothing is saved in {}: `interceptor rescue save` saves what is in force, while all is well",
        .0.display()
    )]
    Nothing(PathBuf),
    /// What was saved is not as it was.
    #[error(
        "{} {why}: what was saved is not used. Mend what is configured, end what lasts with `interceptor rescue end`, \
         and when all is well save anew with `interceptor rescue save`",
        path.display()
    )]
    Changed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The note cannot be read.
    #[error("{} cannot be read as the note of a rescue: remove it with `interceptor rescue end`", .0.display())]
    Note(PathBuf),
    /// The clock or the randomness of this host cannot be had.
    #[error("this host's clock cannot be read")]
    Clock(#[from] crate::store::StoreError),
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

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RescueError {
    move |source| RescueError::Io { step, path: path.to_owned(), source }
}
