//! pgbench, called by whichever client a target has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    measured::{Measured, Place},
    stage::{Stage, Target},
    usage,
};

/// The statement of pgbench's `-S`, by itself: pgbench's own questions before it are no part of the load.
pub(crate) const SELECT: &str =
    "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Simple,
    Extended,
    Prepared,
}

impl Mode {
    /// pgbench's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// Whatever fits into this time.
    For(Duration),
    /// So many transactions for each client.
    Each(u64),
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) script: &'a str,
    pub(crate) mode: Mode,
    pub(crate) clients: usize,
    pub(crate) amount: Amount,
    /// More of pgbench's own options.
    pub(crate) more: &'a str,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) transactions: u64,
    /// A second, without the time that connecting took.
    pub(crate) rate: f64,
}

impl Load<'_> {
    /// The command line for a target.
    pub(crate) fn line(&self, target: &Target) -> String {
        let amount = match self.amount {
            Amount::For(time) => format!("-T {}", time.as_secs()),
            Amount::Each(count) => format!("-t {count}"),
        };
        let Self { script, mode, clients, more, .. } = self;
        let connection = target.connection();
        format!("pgbench -n -M {} -c {clients} {amount} {more} -f {script} '{connection}'", mode.word())
    }

    /// Runs it against the target with that number.
    pub(crate) fn run(&self, stage: &mut Stage, target: usize) -> Result<Done> {
        let target = stage.targets.get(target).context("no such target")?;
        let (name, client, line) = (target.name, target.client, self.line(target));
        let text = stage.client(client).tell(&line)?;
        let done = read(&text).with_context(|| format!("by way of {name}, `{line}` said:\n{text}"))?;
        ensure!(done.transactions > 0, "by way of {name}, `{line}` got nothing done:\n{text}");
        Ok(done)
    }
}

/// Runs a load against the target with that number, and files its rate and the processor time that each part took for a
/// transaction; files nothing of a round that only warms up.
pub(crate) fn file(
    load: &Load<'_>,
    (stage, target): (&mut Stage, usize),
    (part, name): (&'static str, &str),
    measured: Option<&mut Measured>,
) -> Result<()> {
    let (done, used) = usage::spent(stage, target, |stage| load.run(stage, target))?;
    let target = stage.targets.get(target).context("no such target")?.name;
    let Some(measured) = measured else { return Ok(()) };
    let place = Place { part, load: name, target };
    measured.add(place, "rate", "1/s", done.rate);
    for (role, used) in used {
        let each = used.as_secs_f64() * 1e6 / done.transactions as f64;
        measured.add(place, &format!("processor {role}"), "us", each);
    }
    Ok(())
}

/// Reads pgbench's report.
pub(crate) fn read(text: &str) -> Option<Done> {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start));
    if !after("number of failed transactions: ")?.starts_with("0 ") {
        return None;
    }
    let transactions = after("number of transactions actually processed: ")?;
    let transactions = transactions.split('/').next()?.trim().parse().ok()?;
    let rate = after("tps = ")?.split(' ').next()?.parse().ok()?;
    Some(Done { transactions, rate })
}
