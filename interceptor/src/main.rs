//! The one binary: `interceptor`.

use std::process::ExitCode;

fn main() -> ExitCode {
    interceptor::app::main()
}
