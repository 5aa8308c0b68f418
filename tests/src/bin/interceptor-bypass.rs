//! Tries every way around capture and prints the tables, as `cargo xtask bypass` puts them into the documentation; for
//! `cargo xtask vm` it does so in two halves: an account where it is tried, tables of accounts where they are read.

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result, bail};
use interceptor_tests::bypass::{self, Account, Facts, Mode, Report};

fn main() -> Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            let reports = perform(&Mode::ALL);
            for report in &reports {
                println!("### {}\n\n{}", report.mode.heading(), bypass::text(report, &Facts::find()));
            }
            Ok(told(&reports))
        }
        ["account", modes @ ..] => {
            let modes = modes.iter().map(|word| mode(word)).collect::<Result<Vec<_>>>()?;
            let reports = perform(if modes.is_empty() { &Mode::ALL } else { &modes });
            println!("{}", serde_json::to_string(&Account::of(Facts::find(), &reports))?);
            Ok(told(&reports))
        }
        ["table", paths @ ..] => {
            let read = |path: &&str| {
                let text = fs::read_to_string(path).with_context(|| (*path).to_owned())?;
                serde_json::from_str(&text).with_context(|| format!("{path} is no account"))
            };
            let accounts = paths.iter().map(read).collect::<Result<Vec<Account>>>()?;
            print!("{}", bypass::tables(&accounts));
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("{other:?} is not understood: say nothing, `account` and modes, or `table` and files"),
    }
}

fn mode(word: &str) -> Result<Mode> {
    match word {
        "run" => Ok(Mode::Launched),
        "attach" => Ok(Mode::Attached),
        "attach-cgroup" => Ok(Mode::Enclosed),
        other => bail!("no mode {other:?}: there are `run`, `attach` and `attach-cgroup`"),
    }
}

fn perform(modes: &[Mode]) -> Vec<Report> {
    modes.iter().map(|mode| bypass::perform(*mode)).collect()
}

/// Says what is wrong.
fn told(reports: &[Report]) -> ExitCode {
    let faults = reports
        .iter()
        .flat_map(|report| report.faults().into_iter().map(|fault| format!("{:?}: {fault}", report.mode)));
    let faults: Vec<_> = faults.collect();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
