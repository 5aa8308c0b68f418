//! Wiring: the only place that builds everything. Roles and commands begin here.

use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
