//! `kill -9` on each process of the daemon, again and again, under load: the server's own log and the record agree.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use interceptor_tests::{
    Bed, Exchange, Installation, Job, Records, RunningBed, Setup,
    installation::DSN,
    places,
    process::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The marks `name-number` in statements, with how often each was seen.
fn marks<'a>(statements: impl Iterator<Item = &'a str>) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for statement in statements {
        let mark = statement.split("/* ").nth(1).and_then(|rest| rest.split(" */").next());
        if let Some(mark) = mark.filter(|mark| mark.contains('-')) {
            *found.entry(mark.to_owned()).or_insert(0) += 1;
        }
    }
    found
}

/// The records, once each statement that the server saw is among them and each that was sent has an outcome: both are
/// readable a moment later. Where that does not come, the records as they are, whose faults are then told one by one.
fn settled(installation: &Installation, seen: &BTreeMap<String, u32>) -> Records {
    let is_settled = |records: &Records| {
        let sent = || records.agents().filter(|exchange| exchange.phase() != "prepare");
        let recorded = marks(sent().map(Exchange::statement));
        let is_open =
            |exchange: &Exchange| exchange.status().is_empty() && exchange.statement().contains("/* ");
        seen.iter().all(|(mark, times)| recorded.get(mark) == Some(times)) && !sent().any(is_open)
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let records = installation.records();
        if is_settled(&records) || Instant::now() > deadline {
            return records;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits, when there is no daemon, until the server has done with what was on its way: no session of the agents' is left.
#[track_caller]
pub(crate) fn nothing_is_on_its_way(bed: &RunningBed) {
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    wait_until("the sessions upstream to end", PATIENCE, || bed.admin("orders", sessions) == "0");
}

/// The promise of the record, statement by statement.
pub(crate) fn accounts_agree(bed: &RunningBed, installation: &Installation) -> (usize, usize) {
    let log = bed.statements("app");
    let seen = marks(log.iter().map(String::as_str));
    let records = settled(installation, &seen);
    let sent: Vec<_> = records.agents().filter(|exchange| exchange.phase() != "prepare").collect();
    let recorded = marks(sent.iter().map(|exchange| exchange.statement()));
    let differ: Vec<_> = seen
        .iter()
        .filter(|(mark, times)| recorded.get(*mark) != Some(times))
        .map(|(mark, times)| {
            format!("{mark}: the server saw it {times} times, recorded {:?}", recorded.get(mark))
        })
        .collect();
    let all = (seen.len(), recorded.len(), records.0.len());
    assert!(
        differ.is_empty(),
        "{} differ of {all:?} (seen, recorded, records): {:#?}",
        differ.len(),
        &differ[..differ.len().min(20)]
    );
    for exchange in &sent {
        let Some(mark) = marks(std::iter::once(exchange.statement())).into_keys().next() else { continue };
        match exchange.status() {
            "completed" => {
                assert!(seen.contains_key(&mark), "{mark} is said to be done, but the server never saw it")
            }
            "unknown" | "failed" | "skipped" => {}
            other => panic!("{mark} has the outcome {other:?}"),
        }
    }
    // The gate's own statements: what the server saw beyond the agent's is recorded as the gate's.
    let own = records.0.iter().filter(|exchange| exchange.is_gates_own()).count();
    let foreign = log.iter().filter(|text| text.starts_with("/* interceptor:")).count();
    assert!(own >= foreign, "the server saw {foreign} statements of the gate's own, {own} are recorded");
    (seen.len(), sent.iter().filter(|exchange| exchange.status() == "unknown").count())
}

fn kill_role(installation: &Installation, role: &str) {
    let roles = installation.roles();
    println!("killing {role} of {roles:?}");
    for (_, pid) in roles.iter().filter(|(name, _)| name == role) {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

pub(crate) fn load(installation: &Installation, name: &str) -> Job {
    let script = installation.script("load.py", include_str!("../clients/load.py"));
    let python = places::python().display().to_string();
    Job::start(installation.captured("release-bot", &[&python, &script, DSN, name]), "")
}

pub(crate) fn progress(bed: &RunningBed) -> u64 {
    bed.admin("orders", "SELECT count(*) FROM notes").parse().unwrap_or(0)
}

/// The orders in which the processes are killed: a slice of the long test each.
const ORDERS: [[&str; 3]; 6] = [
    ["proxy", "keeper", "helper"],
    ["proxy", "helper", "keeper"],
    ["keeper", "proxy", "helper"],
    ["keeper", "helper", "proxy"],
    ["helper", "proxy", "keeper"],
    ["helper", "keeper", "proxy"],
];

fn rounds(order: [&str; 3], rounds: u32) {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let loads = [load(&installation, "one"), load(&installation, "two")];
    for round in 0..rounds {
        let before = progress(&bed);
        wait_until("the load to move on", PATIENCE, || progress(&bed) > before + 20);
        let role = order[(round % 3) as usize];
        kill_role(&installation, role);
        if role == "helper" {
            // Nothing leaves while the daemon is down; what is on its way may still arrive.
            wait_until("the whole daemon to be gone", PATIENCE, || installation.roles().is_empty());
            nothing_is_on_its_way(&bed);
            let down = progress(&bed);
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(progress(&bed), down, "rows were written while the daemon was down");
            installation.start();
        }
    }
    let before = progress(&bed);
    wait_until("the load to move on after the last kill", PATIENCE, || progress(&bed) > before + 20);
    for job in &loads {
        job.signal(Signal::SIGTERM);
    }
    for job in loads {
        let finished = job.finish(PATIENCE);
        assert!(!finished.timed_out, "{finished}");
    }
    wait_until("an outcome of every record", PATIENCE, || {
        installation.records().agents().all(|exchange| !exchange.status().is_empty())
    });
    let (statements, unknown) = accounts_agree(&bed, &installation);
    println!("{statements} statements, {unknown} with an unknown outcome, {rounds} kills");
    installation.finish();
}

#[test]
fn the_record_survives_kill_9_of_each_process() {
    rounds(ORDERS[0], 6);
}

/// The same for longer: `cargo xtask test --long`. `INTERCEPTOR_SLICE` is any number; without it, every order is tried.
#[test]
#[ignore = "takes minutes: run by `cargo xtask test --long`"]
fn the_record_survives_many_kills() {
    match std::env::var("INTERCEPTOR_SLICE") {
        Ok(slice) => {
            let slice: usize = slice.parse().expect("INTERCEPTOR_SLICE is a number");
            rounds(ORDERS[slice % ORDERS.len()], 12);
        }
        Err(_) => ORDERS.into_iter().for_each(|order| rounds(order, 12)),
    }
}
