//! The daemon's own settings and the policy folder, read from disk once: raw text to checked values.
//!
//! What is writable by others than root decides nothing: such a file is refused with the command that mends it.

mod basis;
mod settings;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use interceptor_core::{
    inventory::{self, Fault, Inventory, KnownProtocol, Source},
    policy::Policy,
};

pub use basis::Basis;
pub use settings::{LocalApproval, Settings, SettingsError};

use crate::{gate::Rules, places::Places, rescue::RescueError};

/// Why the rules could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// There is nothing to load.
    #[error("there is no policy in {0}: run `interceptor init`, or copy one of the example folders there")]
    Missing(PathBuf),
    /// Somebody else could change it.
    #[error("{path} can be changed by others than its owner: run `chmod go-w {path}`")]
    Writable {
        /// The file or folder.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to uid {uid}, not to root: run `chown root {path}`")]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
    },
    /// What was saved for a rescue cannot be used.
    #[error(transparent)]
    Rescue(#[from] RescueError),
    /// The rules say something wrong.
    #[error("{}", list(.0))]
    Faults(Vec<Fault>),
    /// The TOML half says something wrong. What rules mean depends on it.
    #[error("{}\nthe rules are checked when this is mended", list(.0))]
    Inventory(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether the folder decides for this host, or is only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It decides: owner and mode are checked.
    InForce,
    /// It is a candidate, such as a checkout on a developer's machine.
    Candidate,
}

/// The files of a policy folder, unread in meaning.
#[derive(Debug, Clone)]
pub struct Folder {
    /// `resources.toml`
    pub resources: Source,
    /// `agents.toml`
    pub agents: Source,
    /// `people.toml`, where there is one.
    pub people: Option<Source>,
    /// `labels.toml`, where there is one.
    pub labels: Option<Source>,
    /// `*.cedar`, by name.
    pub policies: Vec<Source>,
    /// `*.expect.toml`, by name.
    pub expectations: Vec<Source>,
}

impl Folder {
    /// Reads the installation's folder, as it is configured.
    pub fn in_force(places: &Places) -> Result<Self, RulesError> {
        Self::read(places.configuration(), Trust::InForce)
    }

    /// Reads `folder`: TOML files in it, Cedar and expectations in it or in its `policies/`.
    pub fn read(folder: &Path, trust: Trust) -> Result<Self, RulesError> {
        if !folder.join("resources.toml").exists() {
            return Err(RulesError::Missing(folder.to_owned()));
        }
        check(folder, trust)?;
        let mut policies = Vec::new();
        let mut expectations = Vec::new();
        for place in [folder.to_owned(), folder.join("policies")] {
            for path in entries(&place)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.ends_with(".cedar") {
                    check(&place, trust)?;
                    policies.push(source(&path, trust)?);
                } else if name.ends_with(".expect.toml") {
                    expectations.push(source(&path, Trust::Candidate)?);
                }
            }
        }
        Ok(Self {
            resources: source(&folder.join("resources.toml"), trust)?,
            agents: source(&folder.join("agents.toml"), trust)?,
            people: if_there(&folder.join("people.toml"), trust)?,
            labels: if_there(&folder.join("labels.toml"), trust)?,
            policies,
            expectations,
        })
    }

    /// All that is read of it, but for the expectations, which decide nothing.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let toml = [Some(&self.resources), Some(&self.agents), self.people.as_ref(), self.labels.as_ref()];
        toml.into_iter().flatten().chain(&self.policies)
    }

    /// Checks the whole folder; every fault is listed.
    pub fn load(&self) -> Result<Rules, RulesError> {
        let inventory = self.inventory()?;
        let policy = Policy::load(&self.policies, &inventory).map_err(RulesError::Faults)?;
        Ok(Rules { inventory, policy, rescue: None })
    }

    /// Checks the TOML half alone.
    pub fn inventory(&self) -> Result<Inventory, RulesError> {
        let protocols: Vec<KnownProtocol> = interceptor_protocols::ALL
            .iter()
            .map(|protocol| KnownProtocol {
                name: protocol.name(),
                port: protocol.default_port(),
                data: protocol.data(),
                dialect: protocol.dialect(),
            })
            .collect();
        let inventory = inventory::load(&self.resources, &self.agents, &protocols);
        let inventory = inventory.map_err(RulesError::Inventory)?;
        let inventory = match &self.people {
            Some(people) => inventory.with_people(people).map_err(RulesError::Inventory)?,
            None => inventory,
        };
        match &self.labels {
            Some(labels) => inventory.with_labels(labels).map_err(RulesError::Inventory),
            None => inventory.without_labels().map_err(RulesError::Inventory),
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, RulesError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RulesError::Read(folder.to_owned(), error)),
    };
    let mut paths = listing
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| RulesError::Read(folder.to_owned(), error))?;
    paths.sort();
    Ok(paths)
}

/// Nobody can approve, or nothing is labelled, where it is missing.
fn if_there(path: &Path, trust: Trust) -> Result<Option<Source>, RulesError> {
    if path.exists() { source(path, trust).map(Some) } else { Ok(None) }
}

fn source(path: &Path, trust: Trust) -> Result<Source, RulesError> {
    check(path, trust)?;
    let text = fs::read_to_string(path).map_err(|error| RulesError::Read(path.to_owned(), error))?;
    Ok(Source { file: path.display().to_string(), text })
}

fn check(path: &Path, trust: Trust) -> Result<(), RulesError> {
    if trust == Trust::Candidate {
        return Ok(());
    }
    let metadata = fs::metadata(path).map_err(|error| RulesError::Read(path.to_owned(), error))?;
    if metadata.uid() != 0 {
        return Err(RulesError::Owner { path: path.to_owned(), uid: metadata.uid() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(RulesError::Writable { path: path.to_owned() });
    }
    Ok(())
}
