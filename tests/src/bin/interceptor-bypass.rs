//! Tries every way around capture and prints the tables, as `cargo xtask bypass` puts them into the documentation.

use std::process::ExitCode;

use interceptor_tests::bypass::{self, Facts, Mode};

fn main() -> ExitCode {
    let mut faults = Vec::new();
    for (heading, mode) in [("`run`", Mode::Launched), ("`attach`", Mode::Attached)] {
        let report = bypass::perform(mode);
        println!("### {heading}\n\n{}", bypass::text(&report, &Facts::find()));
        faults.extend(report.faults().into_iter().map(|fault| format!("{heading}: {fault}")));
    }
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
