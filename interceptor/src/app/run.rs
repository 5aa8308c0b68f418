//! `interceptor run`: the launcher, with what its runs must trust.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use interceptor_core::model::{AgentName, Mode};

use crate::{
    engine::SOCKET,
    launch::{self, Capability, Elevation, Options, Profile, Trust, TrustFile},
    places::Places,
    tls::trust,
};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The agent that this is; without it, the hints of `agents.toml` decide.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Run the command as this user; by default as whoever called sudo.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Let it keep this capability; may be given several times. What each costs is said at the start.
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<Capability>,
    /// Let programs such as sudo work. Root then has a copy of the host's system, which is gone with the run. What that costs is said
    /// at the start.
    #[arg(long)]
    sudo: bool,
    /// What it has besides: `ci` for sudo, and containers by a container engine of the host's. What that costs is said at the start.
    #[arg(long, value_enum, value_name = "PROFILE")]
    profile: Option<ProfileName>,
    /// Where the container engine of `--profile ci` listens.
    #[arg(long, value_name = "SOCKET", requires = "profile", default_value = SOCKET)]
    engine: PathBuf,
    /// Forward everything and only record what would have been refused.
    #[arg(long, requires = "reason")]
    observe: bool,
    /// Why it is only observed; recorded.
    #[arg(long, value_name = "TEXT", requires = "observe")]
    reason: Option<String>,
    /// The command and its arguments, behind `--`.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What a run may have besides, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProfileName {
    /// What CI jobs need.
    Ci,
}

/// Runs the command captured and gives its exit code.
pub fn run(places: &Places, root: Option<&Path>, arguments: Arguments) -> ExitCode {
    launch::run(&Options {
        places: places.clone(),
        agent: arguments.agent,
        mode: if arguments.observe { Mode::Observe } else { Mode::Enforce },
        reason: arguments.reason,
        user: arguments.user,
        capabilities: arguments.capabilities,
        elevation: if arguments.sudo || arguments.profile == Some(ProfileName::Ci) {
            Elevation::BySetUserId
        } else {
            Elevation::Refused
        },
        profile: match arguments.profile {
            None => Profile::Plain,
            Some(ProfileName::Ci) => Profile::Ci {
                engine: arguments.engine,
                broker: super::own_arguments(root, ["role", "broker"]),
            },
        },
        command: arguments.command,
        daemon: super::own_arguments(root, ["daemon", "--announce"]),
        trust: |certificate, folder| {
            made(certificate, folder).unwrap_or_else(|error| {
                // The agent's TLS will then fail, which refuses.
                eprintln!("interceptor run: what the run must trust could not be prepared: {error}");
                Trust::default()
            })
        },
    })
}

fn made(certificate: &str, folder: &Path) -> io::Result<Trust> {
    let staging = tempfile::tempdir()?;
    let files = trust::files(certificate.as_bytes(), staging.path())?;
    let existing: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let variables = trust::environment(&files, &existing);
    let mut laid = Vec::new();
    for entry in fs::read_dir(staging.path())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let over = if path == files.bundle { trust::bundle_paths() } else { Vec::new() };
        laid.push(TrustFile { name: name.to_owned(), over, contents: fs::read(&path)? });
    }
    let environment = variables
        .into_iter()
        .map(|(name, value)| {
            let inside = Path::new(&value).strip_prefix(staging.path()).map(|file| folder.join(file));
            (name, inside.map_or(value.clone(), |path| path.to_string_lossy().into_owned()))
        })
        .collect();
    Ok(Trust { files: laid, environment })
}
