//! Ctrl-C and SIGTERM end a program of ours at its next step, so that what it started is cleaned up as ever.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Notes those signals from now on, instead of ending by them.
pub fn listen() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        STOPPED.store(true, Ordering::Relaxed);
    });
}

/// An error once one of them came.
///
/// # Errors
///
/// Says that it was interrupted.
pub fn check() -> Result<()> {
    ensure!(!stopped(), "interrupted");
    Ok(())
}

/// Whether one of them came.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}
