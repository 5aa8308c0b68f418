//! A driver's own test suite, direct and captured, each against a server of its own: the same tests must fail, and
//! each statement in the captured server's log must have its record.
//!
//! `interceptor-suite NAME FOLDER plain|tls|approved [TEST...]`: FOLDER is where `cargo xtask suites` put the suite. The captured half is
//! done twice, as an installation begins: observed, where the record tells which texts nobody understands, then with
//! policy in force and these texts permitted one by one. Tests that end differently are tried once more, without the
//! others, on both sides.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail loudly"
)]

mod account;
mod approver;
mod side;
mod suite;
mod tally;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use interceptor_tests::Records;

use crate::{
    account::Account,
    side::{Capture, Side},
    suite::{Declared, Suite, Tls, Variant},
    tally::{Difference, Tally},
};

fn main() -> ExitCode {
    interceptor_tests::interrupt::listen();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match perform(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interceptor-suite: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn perform(arguments: &[&str]) -> Result<bool> {
    let [name, folder, variant, only @ ..] = arguments else {
        bail!("usage: interceptor-suite NAME FOLDER plain|tls|approved [TEST...]")
    };
    let suite = suite::find(name).context("no such suite")?;
    let variant = Variant::parse(variant).context("the variants are plain, tls and approved")?;
    let title = format!("{name}, {}", variant.name());
    if variant == Variant::Tls && suite.tls == Tls::Never {
        println!("{title}: left out, its tests cannot be told to use TLS");
        return Ok(true);
    }
    let start = |capture: Capture<'_>| Side::start(suite, variant, Path::new(folder), capture);
    let direct = start(Capture::None);
    let expected = direct.run(only);
    direct.finish();
    ensure!(!expected.is_empty(), "{title}: no test was run: is that the name of one?");
    let (observed, records) = Report::of((suite, variant), Capture::Observed, only, &expected, &start);
    let unread = account::unread(&records);
    let (enforced, _) = Report::of((suite, variant), Capture::Enforced(&unread), only, &expected, &start);
    println!("\n{title}: {} texts that cannot be read were permitted one by one", unread.len());
    println!(
        "  {:<9} {:>6} {:>6} {:>7} {:>8} {:>9}",
        "", "passed", "failed", "skipped", "logged", "recorded"
    );
    println!("  {:<9} {expected}", "direct");
    let reports = [observed, enforced];
    reports.iter().for_each(Report::row);
    // Each is explained, the good ones behind a bad one too.
    let bad = reports.iter().filter(|report| !report.explain(only)).count();
    Ok(bad == 0)
}

/// What came of a captured side, seen from the direct one.
struct Report {
    name: &'static str,
    tally: Tally,
    /// Tests that are to end differently, and why.
    by_design: Declared,
    /// Tests that may, and why.
    held: Declared,
    /// Tests that ended differently twice, once of it with no others but such before them.
    still: Vec<Difference>,
    /// Only the first time.
    settled: Vec<Difference>,
    account: Account,
}

impl Report {
    /// Runs the tests behind `capture`, and those that end differently once more, on servers that nothing was done to.
    fn of(
        (suite, variant): (&'static Suite, Variant),
        capture: Capture<'_>,
        only: &[&str],
        expected: &Tally,
        start: &impl Fn(Capture<'_>) -> Side,
    ) -> (Self, Records) {
        let side = start(capture);
        let tally = side.run(only);
        let records = side.records();
        let account = Account::of(&side.finish(), &records);
        let (mut still, mut settled) = (Vec::new(), expected.differences(&tally));
        let names: Vec<String> = settled.iter().map(|difference| difference.name.clone()).collect();
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let again = |capture: Capture<'_>| {
                let side = start(capture);
                let tally = side.run(&names);
                side.finish();
                tally
            };
            let (direct, captured) = (again(Capture::None), again(capture));
            still = direct.differences(&captured);
            // What cannot be tried by its name alone is no more settled than what ended differently again.
            let untried = |one: &&Difference| !direct.has(&one.name) && !captured.has(&one.name);
            still.extend(settled.iter().filter(untried).cloned());
            settled.retain(|difference| still.iter().all(|other| other.name != difference.name));
        }
        (
            Self {
                name: capture.name(),
                tally,
                by_design: suite.by_design,
                held: suite.held(variant, capture),
                still,
                settled,
                account,
            },
            records,
        )
    }

    fn row(&self) {
        let Self { name, tally, account, .. } = self;
        println!("  {name:<9} {tally} {:>8} {:>9}", account.logged, account.recorded);
    }

    /// Says what differs; gives whether just that does which is meant to.
    fn explain(&self, only: &[&str]) -> bool {
        let Self { name, by_design, held, still, settled, account, .. } = self;
        for difference in settled {
            println!("  {name}: {difference}; the same when tried again");
        }
        let mut good = account.agrees();
        let declared = |test: &str| by_design.iter().chain(*held).find(|(declared, _)| *declared == test);
        for difference in still {
            match declared(&difference.name) {
                Some((_, why)) => println!("  {name}: {difference}, by design: {why}"),
                None => {
                    println!("  {name}: DIFFERS: {difference}");
                    good = false;
                }
            }
        }
        for (test, _) in by_design.iter().filter(|(test, _)| only.is_empty() || only.contains(test)) {
            if still.iter().all(|difference| difference.name != *test) {
                println!("  {name}: DECLARED to differ by design, and does not: {test}");
                good = false;
            }
        }
        for fault in account.missing.iter().chain(&account.unseen) {
            println!("  {name}: RECORD: {fault}");
        }
        let (logged, recorded) = account.own;
        println!("  {name}: of the gate's own statements {logged} were logged, {recorded} recorded");
        good
    }
}
