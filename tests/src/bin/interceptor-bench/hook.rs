//! What the kernel programs cost a connect, captured and not: by the kernel's own clock of each program.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use interceptor_tests::{places, process};
use serde_json::Value;

use crate::{
    Extent,
    measured::{Measured, Place},
    stage::{Layout, Stage, Transport},
};

/// Where the kernel is told to keep that clock: for the whole host, and so only meanwhile.
const CLOCK: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Connects in a row through each way, and looks at what the programs did meanwhile.
pub(crate) fn part(extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    stage.with_attached()?;
    let _clock = Clock::start()?;
    let rounds = match extent {
        Extent::Usual => 5,
        Extent::Full => 11,
    };
    for _ in 0..rounds {
        for (target, load) in [
            ("audit", "a captured connect"),
            ("attached", "a captured connect"),
            ("direct", "an uncaptured connect"),
        ] {
            let number = stage.target(target)?;
            let known = stage.targets.get(number).context("no such target")?;
            let (name, client) = (known.name, known.client);
            let program = places::interceptor().with_file_name("bench-client");
            let line = format!("{} {} {} flood 1", program.display(), known.host, known.port);
            let before = programs(&stage)?;
            let said = stage.client(client).tell(&line)?;
            let connects: f64 =
                said.split(' ').next().and_then(|count| count.parse().ok()).context(said.clone())?;
            let place = Place { part: "hook", load, target: name };
            let mut sum = 0.0;
            for (program, after) in programs(&stage)? {
                let before = before.get(&program).copied().unwrap_or_default();
                let time = after.time.saturating_sub(before.time) as f64 / 1e3;
                let runs = after.runs.saturating_sub(before.runs) as f64;
                // Programs that run now and then are in the sum alone.
                if runs >= connects / 2.0 {
                    measured.add(place, &format!("time in {program}"), "us", time / connects);
                    measured.add(place, &format!("a run of {program}"), "us", time / runs);
                }
                // What is told of processes runs for every process of the host, connect or not.
                if !program.starts_with("process_") {
                    sum += time / connects;
                }
            }
            measured.add(place, "time", "us", sum);
            measured.add(place, "connects", "1/s", connects);
        }
    }
    stage.finish();
    Ok(())
}

/// What a program has done since it was loaded, or since its clock was started.
#[derive(Debug, Clone, Copy, Default)]
struct Ran {
    /// In nanoseconds.
    time: u64,
    runs: u64,
}

/// Each pinned program of the installation, by its pin.
fn programs(stage: &Stage) -> Result<BTreeMap<String, Ran>> {
    let pins = stage.ours.places().pins().display().to_string();
    let ran: BTreeMap<u64, Ran> = ask(&["prog", "show"])?
        .iter()
        .filter_map(|program| {
            let number = |key| program.get(key).and_then(Value::as_u64);
            Some((number("id")?, Ran { time: number("run_time_ns")?, runs: number("run_cnt")? }))
        })
        .collect();
    let links = ask(&["-f", "link", "show"])?;
    let ours = links.iter().filter_map(|link| {
        let mut pinned = link.get("pinned")?.as_array()?.iter().filter_map(Value::as_str);
        let name = pinned.find(|pin| pin.starts_with(&pins))?.rsplit('/').next()?.to_owned();
        Some((name, ran.get(&link.get("prog_id")?.as_u64()?).copied().unwrap_or_default()))
    });
    let ours: BTreeMap<_, _> = ours.collect();
    anyhow::ensure!(!ours.is_empty(), "no program is pinned below {pins}");
    Ok(ours)
}

fn ask(words: &[&str]) -> Result<Vec<Value>> {
    let mut command = Command::new(places::tool("bpftool"));
    command.arg("--json").args(words);
    Ok(serde_json::from_str(&process::run(command).succeeded().stdout)?)
}

/// The kernel's clock, set back as it was with this value.
struct Clock {
    before: String,
}

impl Clock {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(CLOCK).context("this kernel does not time its programs")?;
        fs::write(CLOCK, "1")?;
        Ok(Self { before })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::write(CLOCK, &self.before);
    }
}
