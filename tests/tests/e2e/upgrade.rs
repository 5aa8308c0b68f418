//! One build after another: what an earlier one left in force, and wrote, is taken over by this one.

use std::{path::PathBuf, time::Duration};

use interceptor_tests::{
    Bed, Installation, RunningBed, Setup, places,
    process::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    chaos::{moves_on, proves_all, serves},
    crash::{accounts_agree, load, nothing_is_on_its_way, progress},
};

/// The earlier build, with another ABI between its programs and its daemon; `cargo xtask upgrade` makes it.
fn before() -> PathBuf {
    let path = std::env::var_os("INTERCEPTOR_BEFORE");
    PathBuf::from(path.expect("INTERCEPTOR_BEFORE names an earlier build: run `cargo xtask upgrade`"))
}

/// How many statements of a load the server saw.
fn sent(bed: &RunningBed, name: &str) -> usize {
    bed.statements("app").iter().filter(|text| text.contains(&format!("/* {name}-"))).count()
}

/// Runs that the earlier build launched go on under this one beside new ones, each statement in the server's log has its record
/// in one chain, and between the two nothing passes.
#[track_caller]
fn takes_over(end: impl FnOnce(&mut Installation)) {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).product(before()).start();
    serves(&installation);
    let old = load(&installation, "old");
    moves_on(&bed);
    end(&mut installation);
    // What is on its way may still arrive.
    nothing_is_on_its_way(&bed);
    let down = progress(&bed);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(progress(&bed), down, "rows were written while there was no daemon");
    installation.replace_product(places::interceptor());
    installation.start();
    serves(&installation);
    let new = load(&installation, "new");
    for name in ["old", "new"] {
        let so_far = sent(&bed, name);
        wait_until(&format!("the {name} load to move on"), PATIENCE, || sent(&bed, name) > so_far + 20);
    }
    for job in [old, new] {
        job.signal(Signal::SIGTERM);
        job.finish(PATIENCE);
    }
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    installation.finish();
}

#[test]
#[ignore = "wants an earlier build: `cargo xtask upgrade`"]
fn an_earlier_build_that_ends_is_taken_over() {
    takes_over(|installation| drop(installation.stop()));
}

#[test]
#[ignore = "wants an earlier build: `cargo xtask upgrade`"]
fn an_earlier_build_that_is_killed_is_taken_over() {
    takes_over(|installation| {
        for (_, pid) in installation.roles() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        wait_until("the daemon to be gone", PATIENCE, || installation.roles().is_empty());
    });
}
