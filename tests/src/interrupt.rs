//! Ctrl-C and SIGTERM end a program of ours at its next step, and a test at its next wait, so that what it started is
//! cleaned up as ever.

use std::{
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

static LISTENS: Once = Once::new();
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Notes those signals from now on, instead of ending by them.
pub fn listen() {
    LISTENS.call_once(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let take = |kind| signal(kind).expect("own signals");
            (take(SignalKind::interrupt()), take(SignalKind::terminate()))
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            STOPPED.store(true, Ordering::Relaxed);
        });
    });
}

/// Ends a test by a panic once one of them came, unless it ends already: what it started goes with its values.
#[track_caller]
pub fn pass() {
    assert!(!stopped() || thread::panicking(), "interrupted");
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
