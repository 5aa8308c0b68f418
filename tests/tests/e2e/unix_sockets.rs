//! Unix sockets in a folder that a run works in: its own are its own, and those of others are out of reach.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use interceptor_tests::{
    Installation, Job, Setup, Talker,
    installation::agent_user,
    leaks,
    process::{PATIENCE, run, wait_until},
};
use nix::sys::signal::Signal;

const CLIENT: &str = include_str!("../clients/unix_sockets.py");
/// The client's name in the folder, since that is all that a run in `/tmp` sees of it.
const SCRIPT: &str = "unix_sockets.py";
const PYTHON: &str = "/usr/bin/python3";

/// A folder that everybody may write, with the client in it.
fn folder(installation: &Installation, name: &str) -> PathBuf {
    let folder = installation.work().join(name);
    fs::create_dir(&folder).expect("own folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("own folder");
    fs::write(folder.join(SCRIPT), CLIENT).expect("own folder");
    folder
}

fn captured(installation: &Installation, user: &str, folder: &Path, words: &[&str]) -> Command {
    let mut command = installation.command(&["run", "--user", user, "--agent", "release-bot", "--"]);
    command.args(words).current_dir(folder);
    command
}

/// A captured part that begins when there is a file `go`.
fn later(installation: &Installation, user: &str, folder: &Path, part: &str) -> Job {
    let wait = format!("while [ ! -e go ]; do sleep 0.05; done; exec {PYTHON} {SCRIPT} {part}");
    let job = Job::start(captured(installation, user, folder, &["/bin/sh", "-c", &wait]), "");
    wait_until("the run", PATIENCE, || !installation.runs().is_empty());
    job
}

fn free(installation: &Installation, folder: &Path, part: &str) -> Command {
    let mut command = installation.outside(Path::new(PYTHON));
    command.args([SCRIPT, part]).current_dir(folder);
    command
}

/// Somebody outside, and how many have come there.
fn came(outside: &mut Talker) -> u64 {
    outside.say("", PATIENCE).parse().expect("a number")
}

fn refused(installation: &Installation) -> u64 {
    let status = installation.status();
    let counters = status["kernel"].as_array().cloned().unwrap_or_default();
    let counter = counters.iter().find(|pair| pair[0] == "refused-unix");
    counter.and_then(|pair| pair[1].as_u64()).expect("it is counted")
}

#[test]
fn a_runs_own_unix_sockets_work() {
    let installation = Setup::empty().start();
    for user in ["root", &agent_user()] {
        let folder = folder(&installation, user);
        let words = [PYTHON, SCRIPT, "own"];
        let finished = run(captured(&installation, user, &folder, &words)).succeeded();
        for what in ["stream", "packet", "datagram", "abstract", "full", "busy", "nothing there", "moved"] {
            assert!(finished.stdout.contains(&format!("ok {what}\n")), "{user}: no {what}: {finished}");
        }
        assert!(!finished.stdout.contains("failed"), "{finished}");
    }
    installation.finish();
}

/// The outside is there after the launch, so that nothing of it is covered.
#[test]
fn unix_sockets_of_others_are_out_of_reach_and_said_to_be() {
    let installation = Setup::empty().start();
    for user in ["root", &agent_user()] {
        let ours = folder(&installation, user);
        let job = later(&installation, user, &ours, "reach");
        let mut outside = Talker::start(free(&installation, &ours, "outside"));
        fs::write(ours.join("go"), "").expect("own folder");
        let finished = job.finish(PATIENCE).succeeded();
        assert!(finished.stdout.ends_with("done\n"), "{finished}");
        assert!(!finished.stdout.contains("reached"), "{finished}");
        assert_eq!(came(&mut outside), 0, "{finished}");
        wait_until("the end of the run", PATIENCE, || installation.runs().is_empty());
        // Without capture, all of it leads there.
        let bare = folder(&installation, &format!("bare-{user}"));
        let mut outside = Talker::start(free(&installation, &bare, "outside"));
        let finished = run(free(&installation, &bare, "reach")).succeeded();
        assert!(!finished.stdout.contains("not "), "{finished}");
        assert!(came(&mut outside) > 0, "{finished}");
    }
    let told = installation.interceptor(&["audit", "tail", "--all"]).succeeded();
    told.says("Unix socket \"out.stream\", which is not the run's own").says("refused-unix");
    installation.finish();
}

/// What is asked for is changed while it is looked at. What then goes past the launcher ends in the kernel: it is waited
/// for that it does.
#[test]
fn nobody_wins_a_race_to_the_unix_socket_of_another() {
    let installation = Setup::empty().start();
    let bare = folder(&installation, "bare");
    let mut outside = Talker::start(free(&installation, &bare, "outside"));
    let racing = Talker::start(free(&installation, &bare, "race"));
    wait_until("the outside, without capture", PATIENCE, || came(&mut outside) > 0);
    drop((racing, outside));
    let ours = folder(&installation, "captured");
    let racing = later(&installation, &agent_user(), &ours, "race");
    let mut outside = Talker::start(free(&installation, &ours, "outside"));
    let before = refused(&installation);
    fs::write(ours.join("go"), "").expect("own folder");
    wait_until("races that are won", PATIENCE, || refused(&installation) > before + 50);
    assert_eq!(came(&mut outside), 0);
    // Nor does anybody come there when the launcher is dead.
    racing.signal(Signal::SIGKILL);
    let slice = installation.places().slice();
    wait_until("the end of what was launched", PATIENCE, || {
        !leaks::processes().iter().any(|process| process.cgroup.contains(&slice))
    });
    assert_eq!(came(&mut outside), 0);
    drop(racing.finish(PATIENCE));
    installation.finish();
}
