//! Trouble that a host has: each ends closed, is said clearly, and is over when its cause is.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use interceptor_tests::{
    Bed, Installation, Job, Records, RunningBed, Setup, Talker,
    installation::DSN,
    places,
    process::{PATIENCE, run, wait_until},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        resource::{Resource, getrlimit},
        signal::{Signal, kill},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime, clock_settime},
    unistd::Pid,
};

use crate::{
    crash::{accounts_agree, load, nothing_is_on_its_way, progress},
    operate::passed,
};

/// A small disk, for as long as it is there.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, mib: u32) -> Self {
        let how = format!("mode=0755,size={mib}m");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(how.as_str()))
            .expect("the tests run as root");
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[track_caller]
fn pid_of(installation: &Installation, role: &str) -> u32 {
    installation.roles().iter().find(|(found, _)| found == role).unwrap_or_else(|| panic!("no {role}")).1
}

fn signal(pid: u32, what: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), what).expect("the daemon's own process");
}

/// Waits until captured statements are answered again.
#[track_caller]
pub(crate) fn serves(installation: &Installation) {
    wait_until("a statement to be answered", PATIENCE, || {
        installation.psql("SELECT 'served'").stdout.contains("served")
    });
}

#[track_caller]
pub(crate) fn moves_on(bed: &RunningBed) {
    let before = progress(bed);
    wait_until("the load to move on", PATIENCE, || progress(bed) > before + 20);
}

#[track_caller]
pub(crate) fn proves_all(installation: &Installation) {
    installation.interceptor(&["audit", "verify"]).succeeded();
}

#[test]
fn a_full_disk_refuses_and_says_so_until_there_is_room() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).write();
    let state = installation.places().state().to_owned();
    fs::create_dir_all(&state).expect("a folder");
    let disk = Disk::mount(&state, 400);
    installation.start();
    serves(&installation);
    let filler = state.join("filler");
    run({
        let mut command = Command::new("fallocate");
        command.args(["-l", "200M"]).arg(&filler);
        command
    })
    .succeeded();
    wait_until("a refusal", PATIENCE, || !installation.psql("SELECT 1").status.success());
    let status = installation.interceptor(&["status"]);
    assert!(status.text().contains("disk"), "{status}");
    fs::remove_file(filler).expect("the filler");
    serves(&installation);
    proves_all(&installation);
    installation.finish();
    drop(disk);
}

#[test]
fn a_proxy_without_descriptors_refuses_and_lives_on() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    serves(&installation);
    let proxy = pid_of(&installation, "proxy");
    let open = fs::read_dir(format!("/proc/{proxy}/fd")).expect("the proxy's descriptors").count();
    // A process may be limited by its own user.
    let (uid, gid) = interceptor::helper::Accounts::find().proxy;
    run({
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "prlimit"]);
        command.args(["--pid", &proxy.to_string(), &format!("--nofile={}:", open + 20)]);
        command
    })
    .succeeded();
    let script = installation.script("many.py", MANY);
    let python = places::python().display().to_string();
    let many = installation.run("release-bot", &[&python, &script, DSN]).succeeded();
    many.says("some were refused")
        .says("all that were open still answer")
        .says("and then there is room again");
    assert_eq!(pid_of(&installation, "proxy"), proxy, "it never died");
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    installation.finish();
}

/// Opens sessions until there are no more to be had.
const MANY: &str = r#"
import sys, time
import psycopg
sessions = []
try:
    while len(sessions) < 90:
        sessions.append(psycopg.connect(sys.argv[1] + " connect_timeout=5", autocommit=True))
except psycopg.OperationalError:
    print("some were refused after", len(sessions))
for session in sessions:
    assert session.execute("SELECT 7").fetchone() == (7,)
print("all that were open still answer")
for session in sessions:
    session.close()
for _ in range(100):
    try:
        psycopg.connect(sys.argv[1] + " connect_timeout=5").close()
        print("and then there is room again")
        break
    except psycopg.OperationalError:
        time.sleep(0.1)
"#;

#[test]
fn a_stopped_process_lets_nothing_pass_and_goes_on() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let busy = load(&installation, "busy");
    for role in ["proxy", "keeper", "helper"] {
        moves_on(&bed);
        let pid = pid_of(&installation, role);
        signal(pid, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_secs(3));
        signal(pid, Signal::SIGCONT);
    }
    moves_on(&bed);
    busy.signal(Signal::SIGTERM);
    busy.finish(PATIENCE);
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    installation.finish();
}

/// Puts a process into a cgroup of its own in which there is room for so many bytes, whichever hierarchy has memory.
struct Cramped(PathBuf);

impl Cramped {
    fn new(pid: u32, bytes: u32) -> Self {
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if first.exists() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let folder = root.join(format!("interceptor-test-{pid}"));
        fs::create_dir(&folder).expect("the tests run as root");
        let group = Self(folder);
        fs::write(group.0.join(limit), bytes.to_string()).expect("a limit for memory");
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).expect("the proxy is there");
        group
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_proxy_that_is_out_of_memory_is_started_again() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let busy = load(&installation, "busy");
    moves_on(&bed);
    let proxy = pid_of(&installation, "proxy");
    let cramped = Cramped::new(proxy, 128 * 1024);
    wait_until("the kernel to end the proxy", PATIENCE, || {
        // A large statement needs memory.
        let text = format!("SELECT length('{}')", "x".repeat(100_000));
        let path = installation.script("large.sql", &text);
        drop(installation.run("release-bot", &installation.psql_words(&["-f", &path])));
        !installation.roles().iter().any(|(_, pid)| *pid == proxy)
    });
    serves(&installation);
    moves_on(&bed);
    busy.signal(Signal::SIGTERM);
    busy.finish(PATIENCE);
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    drop(cramped);
    installation.finish();
}

/// An upgrade is one daemon after the other.
#[test]
fn an_upgrade_under_load_loses_nothing_and_lets_nothing_pass() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let loads = [load(&installation, "one"), load(&installation, "two")];
    for _ in 0..3 {
        moves_on(&bed);
        installation.stop();
        nothing_is_on_its_way(&bed);
        let down = progress(&bed);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(progress(&bed), down, "rows were written while there was no daemon");
        installation.start();
    }
    moves_on(&bed);
    for job in &loads {
        job.signal(Signal::SIGTERM);
    }
    for job in loads {
        job.finish(PATIENCE);
    }
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    installation.finish();
}

/// Kills every process of the daemon, whose programs go with it: nothing gets out, and all is well with the next one.
#[track_caller]
fn dies_closed(bed: &RunningBed, installation: &mut Installation, busy: Job) {
    for (_, pid) in installation.roles() {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    wait_until("the daemon to be gone", PATIENCE, || installation.roles().is_empty());
    nothing_is_on_its_way(bed);
    let down = progress(bed);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(progress(bed), down, "rows were written without the programs");
    busy.signal(Signal::SIGKILL);
    busy.finish(PATIENCE);
    installation.start();
    serves(installation);
    accounts_agree(bed, installation);
    proves_all(installation);
}

/// Whoever takes the pinned programs away takes the network from runs, not capture.
#[test]
fn removed_pins_end_closed() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    serves(&installation);
    let busy = load(&installation, "busy");
    moves_on(&bed);
    fs::remove_dir_all(installation.places().pins()).expect("the pins");
    std::thread::sleep(Duration::from_secs(2));
    dies_closed(&bed, &mut installation, busy);
    installation.finish();
}

/// Whoever unmounts what the programs are pinned in takes nothing from them while the daemon lives, and the network from
/// runs when it does not.
#[test]
fn an_unmounted_bpffs_ends_closed() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).write();
    installation.start_apart();
    let busy = load(&installation, "busy");
    moves_on(&bed);
    let daemon = installation.daemon().expect("it runs").to_string();
    let apart = |words: &[&str]| {
        let mut command = Command::new(places::tool("nsenter"));
        command.args(["--mount", "--target", &daemon]).args(words);
        run(command)
    };
    let pins = installation.places().pins().display().to_string();
    apart(&["ls", &pins]).succeeded();
    apart(&["umount", "/sys/fs/bpf"]).succeeded();
    apart(&["ls", &pins]).failed();
    moves_on(&bed);
    serves(&installation);
    dies_closed(&bed, &mut installation, busy);
    installation.finish();
}

/// Sets the host's clock forward, or back.
fn set_clock(hours: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("there is a clock");
    let then = TimeSpec::new(now.tv_sec() + hours * 3600, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).expect("the tests run as root");
}

/// Nothing that is timed by a clock that people set is held open by it, and who is served stays so.
#[test]
#[ignore = "sets the host's clock: `cargo xtask vm smoke` runs it on machines of its own"]
fn a_clock_that_jumps_opens_nothing() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    serves(&installation);
    let words = installation.psql_words(&[]).join("' '");
    let script = format!("echo ready; exec '{words}'");
    let mut kept = Talker::start(installation.captured("release-bot", &["sh", "-c", &script]));
    for hours in [30, -29, -1] {
        set_clock(hours);
        assert_eq!(kept.say("SELECT 'goes on';", PATIENCE), "goes on");
        serves(&installation);
        let refused = installation.psql("DROP TABLE users");
        assert!(refused.stderr.contains("42501"), "{refused}");
    }
    drop(kept);
    accounts_agree(&bed, &installation);
    proves_all(&installation);
    installation.finish();
}

/// The slice is removed and made anew, as cleaning tools do: its programs are gone with it.
#[test]
fn a_slice_that_was_made_anew_captures() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    serves(&installation);
    let slice = interceptor::kernel::cgroup::root().expect("cgroup2").join(installation.places().slice());
    wait_until("the last run to be gone", PATIENCE, || fs::remove_dir(&slice).is_ok());
    fs::create_dir(&slice).expect("the tests run as root");
    serves(&installation);
    // It asks the server for TLS: a connection that leads nowhere may be there for a moment before it is closed.
    let direct = format!(
        "import socket, sys; s = socket.create_connection(('127.0.0.1', {}), 3); \
         s.sendall(bytes.fromhex('0000000804d2162f')); sys.exit(0 if s.recv(1) else 1)",
        bed.port()
    );
    let python = places::python().display().to_string();
    let refused = installation.run("release-bot", &[&python, "-c", &direct]);
    assert!(!refused.status.success(), "{refused}");
    accounts_agree(&bed, &installation);
    installation.finish();
}

/// How long a crowd may take beside what it is given: an emulated machine is slow.
const CROWDED: Duration = Duration::from_secs(1200);

/// As many connections at once as asked, or as this host's limit of descriptors lets a proxy have, and then new ones in a
/// row, by two runs, since one has no more than half: nothing is lost, and each is recorded.
fn crowd(at_once: u64, seconds: u64) {
    const A_SECOND: u64 = 1000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // The proxy has two for each.
    let each = at_once.min(most.saturating_sub(500) / 2) / 2;
    // The host's, which a machine of `cargo xtask vm` has, too.
    const PYTHON: &str = "/usr/bin/python3";
    let mut server = Command::new(PYTHON)
        .args(["-c", include_str!("../clients/crowd_server.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut says = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let port = says.next().expect("a port").expect("a line");
    // What is open keeps room for its outcome, and one run has a quarter of that.
    let installation = passed(port.parse().expect("a port")).settings("journal-mib = 64").start();
    let script = installation.script("crowd.py", include_str!("../clients/crowd.py"));
    let numbers = [each, A_SECOND / 2, seconds].map(|number| number.to_string());
    let mut words = vec![PYTHON, &script, "model.internal", "8443"];
    words.extend(numbers.iter().map(String::as_str));
    let jobs = [(); 2].map(|()| Job::start(installation.captured("release-bot", &words), ""));
    let in_a_row = A_SECOND / 2 * seconds;
    for job in jobs {
        let finished = job.finish(CROWDED + Duration::from_secs(seconds)).succeeded();
        println!("{}", finished.stdout);
        finished.says(&format!("at once {each} lost 0 ")).says(&format!("in a row {in_a_row} lost 0 "));
    }
    drop(server.stdin.take());
    let all = 2 * (each + in_a_row);
    assert_eq!(says.next().expect("a count").expect("a line"), all.to_string());
    server.wait().expect("the server ends");
    // A run that ends before all of its goodbyes were read leaves some ends that nobody saw.
    let ended = |records: &Records| {
        let has_ended = |status: &str| matches!(status, "completed" | "unknown");
        let passes = records.agents().filter(|one| one.phase() == "pass" && has_ended(one.status()));
        u64::try_from(passes.count()).expect("a count")
    };
    let records = installation.records_once("all ends", |records| ended(records) == all);
    assert!(records.agents().all(|one| one.allowed()), "nothing was refused");
    proves_all(&installation);
    installation.finish();
}

#[test]
fn a_crowd_gets_through() {
    crowd(2_500, 3);
}

#[test]
#[ignore = "takes minutes: run by `cargo xtask test --long`"]
fn ten_thousand_at_once_and_a_thousand_a_second_for_a_minute_get_through() {
    crowd(10_000, if std::env::var_os("INTERCEPTOR_SLICE").is_some() { 5 } else { 60 });
}
