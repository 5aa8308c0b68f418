//! Ctrl-C and SIGTERM end the tests under way; everything that was started then goes with its owner.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);
/// The process group of the tests under way; 0 between them.
static UNDER_WAY: AtomicI32 = AtomicI32::new(0);

/// Takes these signals from now on.
pub(crate) fn listen() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let take = |kind| signal(kind).expect("own signals");
        (take(SignalKind::interrupt()), take(SignalKind::terminate()))
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                STOPPED.store(true, Ordering::SeqCst);
                end();
            }
        });
    });
}

/// The tests run in this process group.
pub(crate) fn began(group: u32) {
    UNDER_WAY.store(group.cast_signed(), Ordering::SeqCst);
    if STOPPED.load(Ordering::SeqCst) {
        end();
    }
}

/// They ended; panics if they were made to.
pub(crate) fn ended() {
    UNDER_WAY.store(0, Ordering::SeqCst);
    assert!(!STOPPED.load(Ordering::SeqCst), "stopped");
}

fn end() {
    let group = UNDER_WAY.load(Ordering::SeqCst);
    if group > 0 {
        let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
    }
}
