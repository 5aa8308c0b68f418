//! Logs of the daemon itself, and the one printer of error chains.
//!
//! Never a secret, never a statement: what agents do is evidence and goes to the store.

use std::{error::Error, fmt::Write as _};

use tracing_subscriber::{EnvFilter, fmt};

/// Sends log lines to standard error. `INTERCEPTOR_LOG` sets the filter; the default is `info`.
pub fn start() {
    let filter = EnvFilter::try_from_env("INTERCEPTOR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start (tests) keeps the first.
    let _ = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true).try_init();
}

/// An error with its causes, in one line. Each level prints only itself, so none is said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}
