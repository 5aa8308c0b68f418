//! What a statement costs in numbers that do not hang on how fast a machine is.

use std::{fs, time::Duration};

use interceptor_tests::{
    Bed, Installation, Job, Setup, bed,
    installation::POLICY,
    places,
    process::{self, PATIENCE, wait_until},
};
use nix::sys::signal::Signal;

/// One read and one write each way, and one wait before each of the two reads.
const OF_A_RELAY: f64 = 6.0;

/// The threads of the proxy that serve connections.
fn workers(installation: &Installation) -> Vec<String> {
    let (_, proxy) = installation.roles().into_iter().find(|(role, _)| role == "proxy").expect("a proxy");
    let tasks = fs::read_dir(format!("/proc/{proxy}/task")).expect("a live process").flatten();
    let serves = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with("worker-"))
    };
    tasks.filter(serves).map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

/// How many system calls these threads make while one client asks `count` statements, one after the other.
fn calls(installation: &Installation, threads: &[String], count: usize) -> u64 {
    let folder = places::scratch("calls");
    let counts = folder.path().join("counts");
    let mut strace = process::command(&[places::tool("strace")]);
    strace.args(["-c", "-U", "calls,name", "-o"]).arg(&counts);
    for thread in threads {
        strace.args(["-p", thread]);
    }
    let strace = Job::start(strace, "");
    let traced = |thread: &String| {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    };
    wait_until("strace", Duration::from_secs(30), || threads.iter().all(traced));
    let clear = format!("host={} dbname=orders user=app sslmode=disable", bed::HOST);
    let words = ["psql", "-X", "-q", "-d", &clear, "-f", "-"];
    let psql = Job::start(installation.captured("release-bot", &words), &"SELECT 1;\n".repeat(count));
    psql.finish(PATIENCE).succeeded();
    strace.signal(Signal::SIGINT);
    strace.finish(PATIENCE);
    let counts = fs::read_to_string(&counts).expect("strace counts");
    let total = counts.lines().find(|line| line.trim_end().ends_with(" total")).expect("a sum");
    total.split_whitespace().next().and_then(|sum| sum.parse().ok()).expect("a number")
}

#[test]
fn a_statement_takes_the_system_calls_of_a_relay() {
    const FEW: usize = 100;
    const MANY: usize = 1000;
    let bed = Bed::default().open_to("app").run();
    // TLS has calls of its own.
    let resource = format!(
        "[resource.orders]\nprotocol = \"postgres\"\nenv = \"prod\"\nhosts = [{:?}]\nupstream = \"127.0.0.1:{}\"\n\
         dial = \"host\"\ntls = {{ plaintext = \"system calls are counted\" }}\n\n\
         [[resource.orders.credential]]\nuser = \"app\"\nminimum = \"none\"\n",
        bed::HOST,
        bed.port()
    );
    let installation = Setup::empty().resource(&resource).policy("10-test.cedar", POLICY).start();
    let threads = workers(&installation);
    assert!(!threads.is_empty());
    let measured = || {
        let (few, many) = (calls(&installation, &threads, FEW), calls(&installation, &threads, MANY));
        many.saturating_sub(few) as f64 / (MANY - FEW) as f64
    };
    // The threads also wake for the heartbeat, which under a tracer is more of them for each statement: a part of one
    // call, where a fault would be a whole one. On a busy machine it may be more, but not each time.
    let mut each = measured();
    for _ in 0..4 {
        if each >= OF_A_RELAY + 0.5 {
            each = measured();
        }
    }
    assert!((OF_A_RELAY - 1.0..OF_A_RELAY + 0.5).contains(&each), "{each} system calls a statement");
    installation.finish();
}
