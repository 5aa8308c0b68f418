//! Tries every way around capture and prints the table, as `cargo xtask bypass` puts it into the documentation.

use std::process::ExitCode;

use interceptor_tests::bypass::{self, Facts};

fn main() -> ExitCode {
    let report = bypass::perform();
    print!("{}", bypass::text(&report, &Facts::find()));
    let faults = report.faults();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
