//! Short statements as fast as they go: rate, processor time and system calls for each transaction.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Extent,
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, SELECT},
    stage::{Layout, Stage, Transport},
    usage,
};

/// How long a round of one target is: processor time is counted exactly, but connecting must be little of it.
const ROUND: Duration = Duration::from_secs(1);
/// The same for 64 clients: pgbench's clock runs while it connects, one session after the other, and on one slow core
/// so many of them take a second.
const ROUND_OF_MANY: Duration = Duration::from_secs(4);

/// Modes and numbers of clients that the goals are about.
const USUAL: &[(Mode, usize)] =
    &[(Mode::Simple, 1), (Mode::Simple, 8), (Mode::Extended, 8), (Mode::Prepared, 8)];

/// All of them.
const FULL: &[(Mode, usize)] = &[
    (Mode::Simple, 1),
    (Mode::Simple, 8),
    (Mode::Simple, 64),
    (Mode::Extended, 1),
    (Mode::Extended, 8),
    (Mode::Extended, 64),
    (Mode::Prepared, 1),
    (Mode::Prepared, 8),
    (Mode::Prepared, 64),
];

/// Every load, the targets in turn in each round.
pub(crate) fn part(layout: Layout, extent: Extent, measured: &mut Measured) -> Result<()> {
    let mut stage = Stage::start(layout, Transport::Clear)?;
    let script = stage.file("select.sql", SELECT);
    let part = match layout {
        Layout::OneCore => "throughput",
        Layout::Free => "throughput-free",
    };
    let loads = match extent {
        Extent::Usual => USUAL,
        Extent::Full => FULL,
    };
    for &(mode, clients) in loads {
        let (round, rounds) = if clients < 64 { (ROUND, 7) } else { (ROUND_OF_MANY, 3) };
        let load = Load { script: &script, mode, clients, amount: Amount::For(round), more: "" };
        let name = format!("{}, {clients} {}", mode.word(), if clients == 1 { "client" } else { "clients" });
        eprintln!("  {name}");
        let filed = Filed { part, load: &name };
        in_turns(&mut stage, &load, filed, rounds, measured)?;
        if layout == Layout::OneCore && clients <= 8 {
            calls(&mut stage, &load, filed, measured)?;
        }
    }
    stage.finish();
    Ok(())
}

/// Where a load's measurements go.
#[derive(Debug, Clone, Copy)]
struct Filed<'a> {
    part: &'static str,
    load: &'a str,
}

impl<'a> Filed<'a> {
    fn of(self, target: &'a str) -> Place<'a> {
        Place { part: self.part, load: self.load, target }
    }
}

fn in_turns(
    stage: &mut Stage,
    load: &Load<'_>,
    filed: Filed<'_>,
    rounds: usize,
    measured: &mut Measured,
) -> Result<()> {
    let targets = 0..stage.targets.len();
    // Connecting is no transaction: what it costs is taken off. The first call also warms everything up.
    let mut connecting = Vec::new();
    for target in targets.clone() {
        let few = Load { amount: Amount::Each(1), ..*load };
        few.run(stage, target)?;
        connecting.push(usage::spent(stage, target, |stage| few.run(stage, target))?.1);
    }
    for _ in 0..rounds {
        for target in targets.clone() {
            let (done, used) = usage::spent(stage, target, |stage| load.run(stage, target))?;
            let known = stage.targets.get(target).context("no such target")?;
            let place = filed.of(known.name);
            measured.add(place, "rate", "tx/s", done.rate);
            let transactions = done.transactions.saturating_sub(load.clients as u64).max(1) as f64;
            for ((role, used), (_, before)) in used.iter().zip(connecting.get(target).into_iter().flatten()) {
                let each = used.saturating_sub(*before).as_secs_f64() * 1e6 / transactions;
                measured.add(place, &format!("processor {role}"), "us/tx", each);
            }
        }
    }
    Ok(())
}

/// System calls, in rounds of their own, since to count them is to slow them down. Two amounts, so that what
/// connecting takes falls out.
fn calls(stage: &mut Stage, load: &Load<'_>, filed: Filed<'_>, measured: &mut Measured) -> Result<()> {
    const FEW: u64 = 50;
    const MANY: u64 = 250;
    for target in 0..stage.targets.len() {
        let known = stage.targets.get(target).context("no such target")?;
        let (label, watched) = (known.name, known.watched.clone());
        for watched in watched.iter().filter(|watched| watched.role != "helper") {
            let mut count = |each| {
                let load = Load { amount: Amount::Each(each), ..*load };
                usage::system_calls(watched, || load.run(stage, target).map(drop))
            };
            let (few, many) = (count(FEW)?, count(MANY)?);
            let place = filed.of(label);
            let transactions = ((MANY - FEW) * load.clients as u64) as f64;
            let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, calls)| calls).sum::<u64>() as f64;
            let each = (sum(&many) - sum(&few)) / transactions;
            measured.add(place, &format!("system calls {}", watched.role), "1/tx", each);
            for (call, calls) in &many {
                let before = few.iter().find(|(known, _)| known == call).map_or(0, |(_, calls)| *calls);
                let each = (*calls as f64 - before as f64) / transactions;
                if each >= 0.01 {
                    measured.add(place, &format!("system calls {}: {call}", watched.role), "1/tx", each);
                }
            }
        }
    }
    Ok(())
}
