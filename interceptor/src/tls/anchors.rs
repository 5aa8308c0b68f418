//! The host's own trust store: where the distribution takes in authorities, so that programs of attached runs, whose files and
//! environment nobody changes, trust ours.
//!
//! Promises: one file is put where the distribution wants it and taken away again by the same name; the distribution's own program
//! does the rest; what is said to be trusted was read in the bundle that programs read.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::trust;

/// How a distribution takes in authorities.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Where their files belong.
    folder: &'static str,
    /// How their names end.
    ending: &'static str,
    /// What makes the bundle of them.
    refresh: &'static [&'static str],
}

/// Debian and its kin, Fedora and its kin, SUSE, Arch; the most particular folder first.
const WAYS: &[Way] = &[
    Way {
        folder: "/etc/pki/ca-trust/source/anchors",
        ending: "pem",
        refresh: &["update-ca-trust", "extract"],
    },
    Way { folder: "/etc/ca-certificates/trust-source/anchors", ending: "crt", refresh: &["update-ca-trust"] },
    Way { folder: "/etc/pki/trust/anchors", ending: "pem", refresh: &["update-ca-certificates"] },
    Way { folder: "/usr/local/share/ca-certificates", ending: "crt", refresh: &["update-ca-certificates"] },
];

/// Where distributions keep such programs, whatever `PATH` says.
const PROGRAMS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The store of this host.
#[derive(Debug)]
pub struct Anchors {
    way: Way,
    program: PathBuf,
}

/// Why the host does not trust it now, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// None of the ways is this host's.
    #[error(
        "this host has no trust store that is known: take in the output of `interceptor ca print` by its own means"
    )]
    Unknown,
    /// The file could not be put there, or taken away.
    #[error("{0} could not be changed")]
    File(PathBuf, #[source] io::Error),
    /// The distribution's program could not be started.
    #[error("{0} does not start")]
    Program(PathBuf, #[source] io::Error),
    /// It failed.
    #[error("{0} failed: {1}")]
    Refused(PathBuf, String),
    /// It did not fail, and yet nothing came of it.
    #[error("{0} said nothing against it, and {1} is as it was")]
    Without(PathBuf, String),
}

impl Anchors {
    /// By what is there.
    pub fn of_host() -> Result<Self, AnchorError> {
        let fits = |way: &Way| {
            let name = way.refresh.first()?;
            let program =
                PROGRAMS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())?;
            Path::new(way.folder).is_dir().then_some(Self { way: *way, program })
        };
        WAYS.iter().find_map(fits).ok_or(AnchorError::Unknown)
    }

    /// Where the authority of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(self.way.folder).join(format!("{name}.{}", self.way.ending))
    }

    /// Has the host trust the authority whose certificate is `pem`.
    pub fn take_in(&self, name: &str, pem: &str) -> Result<(), AnchorError> {
        let path = self.file(name);
        let put = || {
            fs::write(&path, pem)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        };
        put().map_err(|error| AnchorError::File(path.clone(), error))?;
        self.refresh()?;
        match trust::is_trusted(pem.as_bytes()) {
            true => Ok(()),
            false => Err(AnchorError::Without(self.program.clone(), "the host's bundle".to_owned())),
        }
    }

    /// Has the host trust it no more.
    pub fn take_out(&self, name: &str, pem: &str) -> Result<(), AnchorError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AnchorError::File(path, error));
            }
            _ => self.refresh()?,
        }
        match trust::is_trusted(pem.as_bytes()) {
            false => Ok(()),
            true => Err(AnchorError::Without(self.program.clone(), "the host's bundle".to_owned())),
        }
    }

    fn refresh(&self) -> Result<(), AnchorError> {
        let path = env::join_paths(PROGRAMS).unwrap_or_default();
        let mut command = Command::new(&self.program);
        command.args(self.way.refresh.iter().skip(1)).env_clear().env("PATH", path).env("LC_ALL", "C");
        let Output { status, stderr, .. } =
            command.output().map_err(|error| AnchorError::Program(self.program.clone(), error))?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(AnchorError::Refused(
            self.program.clone(),
            if said.is_empty() { status.to_string() } else { said },
        ))
    }
}
