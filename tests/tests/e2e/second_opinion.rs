//! PostgreSQL's own parser beside ours: what the two do not agree on is unknown, and so is everything new once it is gone.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use interceptor_tests::{
    Bed, Setup, places,
    process::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The program, as `cargo xtask oracle` builds it.
fn built() -> PathBuf {
    let path = places::target().join("oracle/build/debug/interceptor-second-opinion");
    assert!(path.exists(), "{} is not built: run `cargo xtask oracle`", path.display());
    path
}

/// The processes that run `program`.
fn running(program: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program)).collect()
}

#[test]
#[ignore = "its program takes minutes to build: `cargo xtask oracle` runs it"]
fn what_the_two_parsers_do_not_agree_on_is_unknown() {
    let bed = Bed::start();
    let setup = Setup::of(&bed);
    let program = places::scratch("opinion");
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    let path = program.path().join("interceptor-second-opinion");
    fs::copy(built(), &path).expect("it can be copied");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
    let installation = setup.settings(&format!("second-opinion = {path:?}")).start();
    installation
        .psql("SELECT count(*) FROM users WHERE id > 1;\nINSERT INTO notes (body) VALUES ('one') RETURNING body;\n")
        .says("one");
    // We read a function's arguments more generously than the server, which would refuse it.
    installation
        .psql("SELECT count(VARIADIC 1, 2) FROM users;\n")
        .says("the second opinion differs: it does not read it");
    let processes = running(&path);
    assert_eq!(processes.len(), 1, "it waits for the next question");
    let of_whom = fs::read_to_string(format!("/proc/{}/status", processes[0])).expect("it runs");
    assert!(of_whom.contains("Seccomp:\t2") && !of_whom.contains("Uid:\t0"), "{of_whom}");
    kill(Pid::from_raw(processes[0]), Signal::SIGKILL).expect("the tests run as root");
    wait_until("its end", PATIENCE, || running(&path).is_empty());
    installation.psql("SELECT count(*) FROM users WHERE id > 2;\n").succeeded();
    installation.psql("SELECT min(id) FROM users;\n").says("no second opinion");
    installation.psql("SELECT max(id) FROM users;\n").says("restart the daemon");
    installation.finish();
    assert!(running(&path).is_empty(), "it goes with the daemon");
}

#[test]
fn a_second_opinion_that_cannot_be_had_is_no_daemon() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).settings("second-opinion = \"/usr/lib/nowhere\"").write();
    let daemon = installation.interceptor(&["daemon"]).failed();
    daemon.says("the second opinion's program /usr/lib/nowhere cannot be started");
}
