//! The files and variables that make the programs of a run trust the CA.
//!
//! They are made in a folder of the host's that only root enters, and are then the run's own: the host's folder is
//! gone before the run begins, and the variables name where the run has its copies.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use interceptor_core::model::RunId;

use super::mounts::{OWN, Overlay};
use crate::{places::Places, tls::trust};

/// What a run needs to trust the CA.
pub(crate) struct Trust {
    /// Files below [`OWN`], the bundle laid over the distribution's.
    pub(crate) files: Vec<Overlay>,
    /// Variables that name them.
    pub(crate) environment: Vec<(String, String)>,
}

/// Makes it for the CA with this certificate (PEM) and an agent with this environment.
pub(crate) fn prepare(
    certificate: &str,
    places: &Places,
    run: RunId,
    inherited: &[(OsString, OsString)],
) -> io::Result<Trust> {
    let folder = Scratch::make(places.runtime().join(format!("launch-{run}")))?;
    let made = trust::files(certificate.as_bytes(), &folder.0)?;
    let texts =
        inherited.iter().filter_map(|(name, value)| Some((name.to_str()?.into(), value.to_str()?.into())));
    let existing: Vec<(String, String)> = texts.collect();
    let environment = trust::environment(&made, &existing)
        .into_iter()
        .map(|(name, value)| (name, inside(&folder.0, &value)))
        .collect();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder.0)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let over = if path == made.bundle { trust::bundle_paths() } else { Vec::new() };
        files.push(Overlay { name: name.to_owned(), over, contents: fs::read(&path)? });
    }
    Ok(Trust { files, environment })
}

/// Where the run has the file that the host has at `value`, when it is one of ours.
fn inside(folder: &Path, value: &str) -> String {
    match Path::new(value).strip_prefix(folder) {
        Ok(name) => Path::new(OWN).join(name).to_string_lossy().into_owned(),
        Err(_) => value.to_owned(),
    }
}

/// A folder that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
