//! Tries every way around capture and prints the tables, as `cargo xtask bypass` puts them into the documentation; for
//! `cargo xtask vm` it does so in two halves: an account where it is tried, tables of accounts where they are read.

use std::{env, fs, process::ExitCode};

use interceptor_tests::bypass::{self, Account, Facts, Mode, Report};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            let reports = perform(&MODES);
            for (heading, report) in ["`run`", "`attach`"].iter().zip(&reports) {
                println!("### {heading}\n\n{}", bypass::text(report, &Facts::find()));
            }
            told(&reports)
        }
        ["account", modes @ ..] => {
            let modes: Vec<Mode> = modes.iter().map(|word| mode(word)).collect();
            let reports = perform(if modes.is_empty() { &MODES } else { &modes });
            let account = Account::of(Facts::find(), &reports);
            println!("{}", serde_json::to_string(&account).expect("an account is JSON"));
            told(&reports)
        }
        ["table", paths @ ..] => {
            let read = |path: &&str| {
                let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
            };
            let accounts: Vec<Account> = paths.iter().map(read).collect();
            print!("{}", bypass::tables(&accounts));
            ExitCode::SUCCESS
        }
        other => {
            panic!("nothing is known of {other:?}: it is nothing, `account` and modes, or `table` and files")
        }
    }
}

const MODES: [Mode; 2] = [Mode::Launched, Mode::Attached];

fn mode(word: &str) -> Mode {
    match word {
        "run" => Mode::Launched,
        "attach" => Mode::Attached,
        other => panic!("no mode {other:?}: it is `run` or `attach`"),
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
