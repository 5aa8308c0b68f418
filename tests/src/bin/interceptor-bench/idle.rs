//! Memory at rest, and what each session adds to it that is open and does nothing.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use interceptor_tests::{interrupt, places};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    Extent,
    measured::{Measured, Place},
    stage::{Client, Layout, Stage, Transport},
    usage::{Memory, Watched},
};

/// How many sessions are held open at once.
const SESSIONS: usize = 1000;

/// Weighs everything after its start, then with many sessions open.
pub(crate) fn part(_: Extent, measured: &mut Measured) -> Result<()> {
    // A session is two descriptors of whatever stands between.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    std::thread::sleep(Duration::from_secs(1));
    for target in &stage.targets {
        let place = Place { part: "idle", load: "at rest", target: target.name };
        for watched in &target.watched {
            let mebibytes = watched.memory(Memory::Resident)? as f64 / 1024.0;
            measured.add(place, &format!("memory {}", watched.role), "MiB", mebibytes);
        }
    }
    let folder = stage.folder("idle")?;
    for target in 0..stage.targets.len() {
        let known = stage.targets.get(target).context("no such target")?;
        let (name, client, watched) = (known.name, known.client, known.watched.clone());
        // What another resource's sessions left behind in the same process would be used again.
        if watched.is_empty() || ["pass", "metadata", "rows"].contains(&name) {
            continue;
        }
        let file = folder.path().join(name);
        let program = places::interceptor().with_file_name("bench-client");
        let line = |count: usize| {
            let (program, file) = (program.display(), file.display());
            format!("ulimit -n 4096; {program} {} {} idle {count} {file}", known.host, known.port)
        };
        // What the first session needs is no part of what another one adds.
        let (few, many) = (line(1), line(SESSIONS + 1));
        let before = hold(&mut stage, client, &few, &file, &watched)?;
        let after = hold(&mut stage, client, &many, &file, &watched)?;
        let place = Place { part: "idle", load: "1000 idle sessions", target: name };
        for ((watched, before), after) in watched.iter().zip(before).zip(after) {
            let each = after.saturating_sub(before) as f64 / SESSIONS as f64;
            measured.add(place, &format!("memory of a session {}", watched.role), "KiB", each);
        }
    }
    stage.finish();
    Ok(())
}

/// Has sessions opened, weighs what they hold on to after a while, and has them closed.
fn hold(stage: &mut Stage, client: Client, line: &str, file: &Path, watched: &[Watched]) -> Result<Vec<u64>> {
    stage.client(client).begin(line)?;
    while !file.exists() {
        interrupt::check()?;
        if let Some(said) = stage.client(client).ended(line)? {
            bail!("the sessions were not held: {said}");
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    // The journal is a file of a fixed size, of which new entries touch new pages until they have been round it once.
    let weighed = watched.iter().map(|watched| watched.memory(Memory::Anonymous)).collect();
    fs::remove_file(file)?;
    stage.client(client).end(line)?;
    weighed
}
