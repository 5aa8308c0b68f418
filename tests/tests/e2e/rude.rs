//! Rudeness: what breaks the protocol is an error to the guilty side, with bounded memory and time; neighbours notice
//! nothing.

use std::{fs, time::Duration};

use interceptor_tests::{
    Bed, Installation, Job, Setup,
    process::{PATIENCE, wait_until},
};

fn memory(installation: &Installation, role: &str) -> u64 {
    let pid = installation.roles().into_iter().find(|(name, _)| name == role).map(|(_, pid)| pid);
    let status = fs::read_to_string(format!("/proc/{}/status", pid.unwrap_or_default())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn broken_protocol_is_an_error_to_the_guilty_side() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let before = installation.roles();
    installation.script("wire.py", include_str!("../clients/wire.py"));
    let script = installation.script("rude.py", include_str!("../clients/rude.py"));
    // "A message that never ends" waits for its time; it needs the script's patience, not ours.
    let finished =
        installation.run("release-bot", &["/usr/bin/python3", &script]).succeeded().says("all tried");
    // One that was started just now bears its parent's name for a moment.
    wait_until("every process of the daemon to be the same", PATIENCE, || installation.roles() == before);
    assert!(memory(&installation, "proxy") < 400 << 10, "the proxy's memory is bounded: {finished}");
    let open: Vec<_> = finished.stdout.lines().filter(|line| line.ends_with("still open")).collect();
    assert!(open.len() <= 3, "left open: {open:#?}\n{finished}");
    installation.psql("SELECT 'still', count(*) FROM users;\n").says("still|100");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
    let records = installation.ended("'still'");
    assert!(records.0.iter().all(|exchange| !exchange.allowed() || !exchange.statement().contains("DROP")));
    installation.finish();
}

/// A statement that is costly to read, or to carry out, does not hold up others: the neighbour finishes its work
/// while the hostile one is still at it.
#[test]
fn a_hostile_statement_does_not_stop_its_neighbours() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let hostile = installation.script(
        "hostile.py",
        "import sys\nsys.argv = ['rude.py']\n\
         exec(open(sys.argv[0]).read().split('only =')[0])\n\
         print('begun', flush=True)\n\
         import itertools\n\
         for n in itertools.count():\n\
         \x20   for name in ('20000 nested parentheses', '50000 statements', 'a statement of 4 MiB'):\n\
         \x20       try: TRIALS[name]()\n\
         \x20       except Exception as error: print(error, flush=True)\n",
    );
    installation.script("wire.py", include_str!("../clients/wire.py"));
    installation.script("rude.py", include_str!("../clients/rude.py"));
    let mut job = Job::start(installation.captured("release-bot", &["/usr/bin/python3", &hostile]), "");
    wait_until("the hostile one to begin", PATIENCE, || !installation.records().with("SELECT").is_empty());
    let text: String = (0..200)
        .map(|n| format!("SELECT 'neighbour', name FROM users WHERE id = {};\n", 1 + n % 100))
        .collect();
    let finished = installation.psql(&text).succeeded();
    assert_eq!(finished.stdout.matches("neighbour|user").count(), 200, "{finished}");
    assert!(job.is_running(), "the hostile one is still at it");
    drop(job);
    wait_until("the run to be gone", PATIENCE, || installation.runs().is_empty());
    installation.finish();
}

/// A run that floods the record is cut off; the evidence that is there stays, and others go on.
#[test]
fn a_flood_of_records_does_not_evict_evidence() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).settings("run-quota-mib = 1").start();
    installation.psql("SELECT 'evidence', count(*) FROM users;\n").says("evidence|100");
    let long = "x".repeat(20_000);
    let flood: String = (0..120).map(|n| format!("SELECT 'flood', {n}, '{long}';\n")).collect();
    let finished = Job::start(
        installation.captured("release-bot", &installation.psql_words(&["-o", "/dev/null", "-f", "-"])),
        &flood,
    )
    .finish(Duration::from_secs(180));
    assert!(finished.stderr.contains("ERROR") || finished.stderr.contains("FATAL"), "{finished}");
    installation.psql("SELECT 'afterwards', count(*) FROM users;\n").says("afterwards|100");
    let records = installation.ended("'afterwards'");
    assert_eq!(records.one("'evidence'").status(), "completed");
    installation.finish();
}
