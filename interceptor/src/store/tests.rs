//! The store against real files, real `kill -9` and a really full disk.

mod tamper;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use interceptor_core::model::{
    Action, AgentIdentity, AgentName, Author, Effect, Entry, EventKind, EventRecord, ExchangeDigest,
    Guarantee, Mode, Object, OutcomeRecord, OutcomeStatus, Phase, Principal, RecordId, RecordedRows,
    RequestRecord, RunId, StatementFacts, StatementKind, Target, Verb, VerdictRecord,
};
use interceptor_core::permit::{Committed, Records};
use tempfile::TempDir;

use super::*;

pub(super) const DIGEST: ExchangeDigest = ExchangeDigest([7; 32]);

/// Publishes requests of one run as an exchange.
pub(super) fn commit_all(producer: &Producer, requests: &[RequestRecord]) -> Result<Receipt, JournalError> {
    let (head, written) = written(requests);
    producer.commit(DIGEST, &head, &written)
}

/// The text of requests of one session.
fn written(requests: &[RequestRecord]) -> (RequestHead, Requests) {
    let first = &requests[0];
    let head = RequestHead::new(&Who {
        run: first.run,
        agent: &first.agent,
        guarantee: first.guarantee,
        connection: first.connection,
        client: first.client,
        destination: first.destination.clone(),
        process: first.process.as_deref(),
        resource: first.resource.as_ref(),
        protocol: &first.protocol,
        principal: &first.principal,
    });
    let head = head.unwrap();
    let mut written = Requests::default();
    for request in requests {
        let ruling = RequestRuling::new(&request.verdict, &request.action.facts).unwrap();
        let mut frame = [0; 32];
        hex::decode_to_slice(&request.frame_sha256, &mut frame).unwrap();
        let what = What {
            action: Statement {
                phase: request.action.phase,
                text: &request.action.text,
                binds: &request.action.binds,
            },
            at: request.at,
            author: request.author,
            frame_sha256: ExchangeDigest(frame),
            place: request.place,
        };
        written.push(&head, &ruling, &what).unwrap();
    }
    (head, written)
}

pub(super) fn request(run: u64, text: &str, allowed: bool) -> RequestRecord {
    let object = |name: &str| Object {
        database: "orders".into(),
        schema: "public".into(),
        name: name.into(),
        oid: Some(16_384),
    };
    RequestRecord {
        at: 1_700_000_000_000_000,
        author: Author::Agent,
        run: RunId::from_random(run),
        agent: AgentIdentity { name: "release-bot".parse().unwrap(), owner: None, groups: vec![] },
        guarantee: Guarantee::Structural,
        connection: None,
        client: None,
        destination: None,
        process: None,
        resource: Some("orders-db".parse().unwrap()),
        protocol: "postgresql".into(),
        principal: Principal::default(),
        action: Action {
            phase: Phase::Query,
            text: text.into(),
            binds: interceptor_core::model::Binds::new(),
            facts: StatementFacts {
                kind: StatementKind::Select,
                effects: vec![Effect { verb: Verb::DataRead, target: Target::Table(object("users")) }],
                has_where: true,
                has_limit: false,
                unknown: None,
                provenance: None,
                dialect: interceptor_core::sql::Dialect::Postgres,
            }
            .into(),
        },
        frame_sha256: "00".repeat(32),
        place: (0, 1),
        verdict: VerdictRecord {
            allowed,
            mode: Mode::Enforce,
            would_be: None,
            rules: vec!["readers (base.cedar:3)".into()],
            reason: String::new(),
            said: None,
            policy: "p1".into(),
            held_for: vec![],
            approval: None,
            break_glass: None,
            rescue: None,
            undo: None,
            masked: Vec::new(),
            tokens: 0,
        },
    }
}

pub(super) fn outcome(request: RecordId) -> OutcomeRecord {
    OutcomeRecord {
        at: 1_700_000_000_000_100,
        request,
        status: OutcomeStatus::Completed,
        rows: Some(3),
        bytes: 120,
        latency_us: Some(400),
        code: None,
        message: None,
        recorded: None,
    }
}

/// A store in a folder of its own, with everything due at once turned off.
pub(super) struct Place {
    pub(super) dir: TempDir,
    pub(super) journal: Journal,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(&dir.path().join("journal"), MINIMUM_SIZE).unwrap();
        Self { dir, journal }
    }

    pub(super) fn audit(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer_with(config()).0
    }

    fn writer_with(&self, config: Config) -> (Writer, RecoveryReport) {
        Writer::open(&self.audit(), &self.journal, config).unwrap()
    }

    pub(super) fn producer(&self) -> Producer {
        Producer::attach(&self.journal, Limits::default(), []).unwrap()
    }

    fn entries(&self) -> Vec<Line> {
        Reader::open(&self.audit()).unwrap().tail(usize::MAX).unwrap()
    }

    fn check(&self) -> Report {
        let key = fs::read_to_string(self.audit().join("log.pub")).unwrap().parse().unwrap();
        verify(&self.audit(), &key, None).unwrap()
    }
}

pub(super) fn config() -> Config {
    Config { free_warn: 0, free_refuse: 0, ..Config::default() }
}

fn commit(producer: &Producer, text: &str) -> RecordId {
    commit_all(producer, &[request(1, text, true)]).unwrap().records().get(0).unwrap()
}

#[test]
fn a_lines_text_is_that_of_the_whole_record() {
    let place = Place::new();
    let mut writer = place.writer();
    let requests = [request(1, "SELECT 'a \"b\" \n \u{1}'", true), request(1, "DROP", false)];
    let records = commit_all(&place.producer(), &requests).unwrap().records();
    writer.drain().unwrap();
    writer.close().unwrap();
    let path = segment::path(&place.audit(), 1);
    let text = fs::read_to_string(path).unwrap();
    for (record, request) in records.iter().zip(requests) {
        let entry = Entry::Request(Box::new(request));
        let line = Line { seq: record.0, sub: 0, skipped: None, first_segment: None, entry };
        let json = serde_json::to_string(&line).unwrap();
        assert!(text.lines().any(|line| line.ends_with(&format!(" {json}"))), "{json}\n{text}");
    }
}

#[test]
fn an_entry_that_is_not_written_as_ours_are_is_set_aside() {
    let place = Place::new();
    let mut writer = place.writer();
    let producer = place.producer();
    let (head, mut written) = written(&[request(1, "SELECT 1", true)]);
    let own = RequestRuling::new(&request(1, "", true).verdict, &request(1, "", true).action.facts).unwrap();
    let own = String::from_utf8(own.json().to_vec()).unwrap();
    // White space, a field that is not ours, a line's end: all the same JSON, and none of them ours.
    for (from, to) in [
        (r#""allowed":true"#, r#""allowed":true "#),
        (r#""allowed":true"#, r#""allowed":true,"more":1"#),
        (r#""allowed":true"#, "\"allowed\":true\n"),
    ] {
        let ruling = RequestRuling::from_json(own.replacen(from, to, 1));
        let action = Statement { phase: Phase::Query, text: "SELECT 1", binds: &[] };
        let what = What { action, at: 1, author: Author::Agent, frame_sha256: DIGEST, place: (0, 1) };
        written.push(&head, &ruling, &what).unwrap();
    }
    producer.commit(DIGEST, &head, &written).unwrap();
    assert_eq!(writer.drain().unwrap(), 2, "the mark of the producer and the first");
    assert!(place.audit().join("quarantine").exists());
}

#[test]
fn entries_are_numbered_chained_proven_and_found() {
    let place = Place::new();
    let mut writer = place.writer();
    // It would come and go as it finds time.
    writer.index = None;
    let producer = place.producer();
    let receipt =
        commit_all(&producer, &[request(1, "SELECT 1", true), request(1, "SELECT 2", true)]).unwrap();
    assert_eq!(receipt.records(), Records::new(RecordId(1), 2));
    assert_eq!(receipt.digest(), DIGEST);
    producer.append_outcome(outcome(RecordId(2))).unwrap();
    assert!(matches!(producer.append_outcome(outcome(RecordId(2))), Err(JournalError::NotOpen(RecordId(2)))));
    let denied =
        commit_all(&producer, &[request(2, "DROP TABLE users", false)]).unwrap().records().get(0).unwrap();
    assert_eq!(place.journal.synced(), 0);
    assert_eq!(writer.drain().unwrap(), 5);
    assert_eq!(place.journal.synced(), 4);
    writer.close().unwrap();

    let report = place.check();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.last_seq, report.unproven, report.proven.unwrap().seq), (4, 0, 4));
    for indexed in [true, false] {
        if indexed {
            rebuild(&place.audit()).unwrap();
        } else {
            fs::remove_file(place.audit().join("index.sqlite")).unwrap();
        }
        let reader = Reader::open(&place.audit()).unwrap();
        let found = reader.record(RecordId(2)).unwrap().unwrap();
        assert_eq!((&*found.request.action.text, found.outcome.unwrap().rows), ("SELECT 2", Some(3)));
        assert_eq!(reader.record(RecordId(3)).unwrap(), None);
        assert_eq!(reader.last_refused(&Filter::default()).unwrap().unwrap().id, denied);
        let ids =
            |filter: Filter| reader.search(&filter, 10).unwrap().iter().map(|r| r.id.0).collect::<Vec<_>>();
        assert_eq!(ids(Filter { table: Some("users".into()), ..Filter::default() }), [4, 2, 1]);
        assert_eq!(ids(Filter { table: Some("public.users".into()), ..Filter::default() }), [4, 2, 1]);
        assert_eq!(ids(Filter { table: Some("user".into()), ..Filter::default() }), [0; 0]);
        assert_eq!(ids(Filter { text: Some("drop".into()), ..Filter::default() }), [4]);
        assert_eq!(ids(Filter { text: Some("%".into()), ..Filter::default() }), [0; 0]);
        assert_eq!(ids(Filter { status: Some("completed".into()), ..Filter::default() }), [2]);
        assert_eq!(
            ids(Filter {
                verb: Some("data.read".into()),
                run: Some(RunId::from_random(2)),
                ..Filter::default()
            }),
            [4]
        );
        let exported: Vec<_> = reader.export(&Filter::default()).map(|r| r.unwrap().id.0).collect();
        assert_eq!(exported, [1, 2, 4]);
    }
    rebuild(&place.audit()).unwrap();
    assert_eq!(Reader::open(&place.audit()).unwrap().search(&Filter::default(), 10).unwrap().len(), 3);
}

#[test]
fn a_new_producer_ends_what_the_old_one_left_and_numbers_go_on() {
    let place = Place::new();
    let old = place.producer();
    let (kept, lost) = (commit(&old, "SELECT 1"), commit(&old, "SELECT 2"));
    let refused = commit_all(&old, &[request(1, "DROP", false)]).unwrap().records().get(0).unwrap();
    old.append_outcome(outcome(kept)).unwrap();
    let new = place.producer();
    assert!(matches!(old.append_outcome(outcome(lost)), Err(JournalError::Superseded)));
    assert_eq!(commit(&new, "SELECT 3"), RecordId(5));
    let (mut writer, _) = place.writer_with(config());
    writer.drain().unwrap();
    // The keeper dies before it says that it took the frames, and its successor reads them again.
    drop(writer);
    let (writer, report) = place.writer_with(config());
    assert_eq!(report.open_requests, 1);
    writer.close().unwrap();
    let ended: BTreeMap<_, _> = place
        .entries()
        .into_iter()
        .filter_map(|line| match line.entry {
            Entry::Outcome(outcome) => Some((outcome.request, outcome.status)),
            _ => None,
        })
        .collect();
    let expected =
        [(kept, OutcomeStatus::Completed), (lost, OutcomeStatus::Unknown), (refused, OutcomeStatus::Refused)];
    assert_eq!(ended, BTreeMap::from(expected));
    assert!(place.check().is_good());
}

#[test]
fn a_full_journal_refuses_requests_and_never_an_outcome() {
    let place = Place::new();
    let producer = place.producer();
    let mut open = Vec::new();
    let long = "x".repeat(300);
    let refused = loop {
        match commit_all(&producer, &[request(open.len() as u64, &long, true)]) {
            Ok(receipt) => open.extend(receipt.records().iter()),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full), "{refused}");
    assert!(open.len() > 50);
    for id in &open {
        let message = Some("\u{1}".repeat(10_000));
        producer.append_outcome(OutcomeRecord { message, ..outcome(*id) }).unwrap();
    }
    let text = "y".repeat(MINIMUM_SIZE as usize / 2);
    let too_large = commit_all(&producer, &[request(1, &text, true)]);
    assert!(matches!(too_large, Err(JournalError::TooLarge(_))));
    let mut writer = place.writer();
    writer.drain().unwrap();
    commit(&producer, &long);
    writer.close().unwrap();
    assert!(place.check().is_good());
}

#[test]
fn rows_are_recorded_where_there_is_room_and_else_counted() {
    let place = Place::new();
    let row = vec![Some("z".repeat(998)), None];
    let recorded = Some(RecordedRows { rows: vec![row; 40], rows_left_out: 2 });
    let limits = Limits { run_bytes: 100_000 };
    let producer = Producer::attach(&place.journal, limits, [(RunId::from_random(2), 90_000)]).unwrap();
    let ids: Vec<_> = (0..40)
        .map(|n| {
            let run = if n == 0 { 2 } else { 100 + n };
            commit_all(&producer, &[request(run, "SELECT 1", true)]).unwrap().records().get(0).unwrap()
        })
        .collect();
    for id in &ids {
        let message = Some("\u{1}".repeat(10_000));
        producer
            .append_outcome(OutcomeRecord { recorded: recorded.clone(), message, ..outcome(*id) })
            .unwrap();
    }
    let mut writer = place.writer();
    writer.drain().unwrap();
    writer.close().unwrap();
    assert!(place.check().is_good());
    let reader = Reader::open(&place.audit()).unwrap();
    let came: Vec<_> = ids
        .iter()
        .map(|id| reader.record(*id).unwrap().unwrap().outcome.unwrap())
        .map(|outcome| (outcome.message.is_some(), outcome.recorded))
        .collect();
    let left_out = (true, recorded.as_ref().map(RecordedRows::emptied));
    assert_eq!(left_out.1.as_ref().map(|rows| rows.rows_left_out), Some(42));
    assert_eq!(came[0], left_out, "the run may not write so much");
    let whole = came.iter().filter(|one| one.1 == recorded).count();
    assert!((1..4).contains(&whole), "{whole} of them have room, with that of all outcomes kept");
    assert!(came.iter().all(|one| one.1 == recorded || *one == left_out));
}

#[test]
fn one_runs_flood_ends_at_its_quota() {
    let place = Place::new();
    let limits = Limits { run_bytes: 20_000 };
    let producer = Producer::attach(&place.journal, limits, [(RunId::from_random(3), 19_999)]).unwrap();
    let flood = (0..100).find_map(|_| commit_all(&producer, &[request(1, "SELECT 1", true)]).err());
    assert!(matches!(flood, Some(JournalError::Quota { .. })));
    assert!(commit_all(&producer, &[request(3, "SELECT 1", true)]).is_err());
    assert!(commit_all(&producer, &[request(2, "SELECT 1", true)]).is_ok());
    let writer = place.writer();
    assert!(writer.usage().iter().any(|(run, bytes)| *run == RunId::from_random(1) && *bytes > 10_000));
}

#[test]
fn segments_are_sealed_and_retired_and_what_is_left_verifies() {
    let place = Place::new();
    let small = Config { segment_bytes: 20_000, checkpoint_lines: 7, ..config() };
    let (mut writer, _) = place.writer_with(small.clone());
    let producer = place.producer();
    let open = commit(&producer, "SELECT 'open across segments'");
    for n in 0..100 {
        let id = commit(&producer, &format!("SELECT {n}"));
        producer.append_outcome(outcome(id)).unwrap();
        writer.drain().unwrap();
    }
    let before = place.check();
    assert!(before.is_good() && before.checkpoints > 20, "{before:?}");
    drop(writer);
    let (mut writer, report) = place.writer_with(Config { retention: Some(Duration::ZERO), ..small });
    assert_eq!(report.open_requests, 1);
    producer.append_outcome(outcome(open)).unwrap();
    writer.drain().unwrap();
    writer.look_after().unwrap();
    writer.close().unwrap();
    let report = place.check();
    assert!(report.is_good() && report.retired > 100 && report.beyond > 10, "{report:?}");
    assert_eq!(report.unproven, 0);
    assert_eq!(Reader::open(&place.audit()).unwrap().record(RecordId(2)).unwrap(), None);
    fs::remove_file(fs::read_dir(place.audit().join("segments")).unwrap().next().unwrap().unwrap().path())
        .unwrap();
    assert!(!place.check().is_good());
}

#[test]
fn hostile_frames_are_set_aside_and_the_producer_is_shut_out() {
    use std::os::unix::fs::FileExt;
    for (offset, bytes) in [
        (4096_u64, vec![0xff; 4]),
        (4096, vec![0; 64]),
        (4096 + 40, vec![b'{'; 8]),
        (64, vec![0xff; 8]),
        (64, 5_u64.to_le_bytes().to_vec()),
    ] {
        let place = Place::new();
        let mut writer = place.writer();
        let producer = place.producer();
        commit(&producer, "SELECT 1");
        let file = fs::OpenOptions::new().write(true).open(place.dir.path().join("journal")).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
        while writer.drain().unwrap() > 0 {}
        assert!(
            matches!(producer.append_event(&event("late")), Err(JournalError::Superseded)),
            "{offset} {bytes:?}"
        );
        let again = place.producer();
        let id = commit(&again, "SELECT 2");
        assert!(id > RecordId(100), "a number that may have been given out is not given again");
        writer.drain().unwrap();
        writer.close().unwrap();
        let report = place.check();
        assert!(report.is_good() && !report.skipped.is_empty(), "{report:?}");
        assert!(
            place
                .entries()
                .iter()
                .any(|line| matches!(&line.entry, Entry::Event(e) if e.kind == EventKind::Store))
        );
    }
}

#[test]
fn a_forged_entry_of_a_good_frame_is_refused() {
    let place = Place::new();
    let mut writer = place.writer();
    let first = place.producer();
    let id = commit(&first, "SELECT 1");
    writer.drain().unwrap();
    // Two producers at once is what a hostile proxy could do: both number from the same place.
    let second = place.producer();
    second.append_event(&event("mine")).unwrap();
    assert!(first.append_outcome(outcome(id)).is_err());
    writer.drain().unwrap();
    writer.close().unwrap();
    assert!(place.check().is_good());
}

fn event(text: &str) -> EventRecord {
    EventRecord {
        at: 1,
        run: None,
        agent: Some(AgentName::unknown()),
        kind: EventKind::Internal,
        text: text.into(),
        attempt: None,
    }
}

/// Runs the test `name` again in a child, with the folder in its environment.
fn child(name: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::{name}"), "--test-threads", "1"])
        .env("STORE_CHILD", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os("STORE_CHILD").map(PathBuf::from)
}

/// Some milliseconds, different each time.
fn a_while(most: u64) -> Duration {
    let mut byte = [0; 2];
    getrandom::fill(&mut byte).unwrap();
    Duration::from_millis(u64::from(u16::from_le_bytes(byte)) % most)
}

/// Appends as fast as it can: exchanges of one to three requests, with outcomes, until `until`.
fn produce(journal: &Journal, until: Instant) {
    let producer = Producer::attach(journal, Limits::default(), []).unwrap();
    let mut n = 0_usize;
    while Instant::now() < until {
        n += 1;
        let batch = vec![request(1, &format!("SELECT {n}"), true); 1 + n % 3];
        let Ok(receipt) = commit_all(&producer, &batch) else {
            std::thread::yield_now();
            continue;
        };
        for id in receipt.records().iter().skip(usize::from(n.is_multiple_of(7))) {
            producer.append_outcome(outcome(id)).unwrap();
        }
    }
}

/// Numbers without a gap, each once; each request with at most one outcome.
fn check_whole(place: &Place) -> (usize, usize) {
    let report = place.check();
    assert!(report.is_good(), "{report:?}");
    assert!(report.skipped.is_empty());
    let entries = place.entries();
    let numbers: Vec<_> = entries.iter().filter(|line| line.sub == 0).map(|line| line.seq).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
    let mut ended = BTreeSet::new();
    let mut requests = 0;
    for line in &entries {
        match &line.entry {
            Entry::Outcome(outcome) => assert!(ended.insert(outcome.request), "two outcomes"),
            Entry::Request(_) => requests += 1,
            Entry::Event(_) => {}
        }
    }
    (requests, ended.len())
}

#[test]
fn producers_killed_at_random_leave_no_gap_and_nothing_torn() {
    const NAME: &str = "producers_killed_at_random_leave_no_gap_and_nothing_torn";
    if let Some(dir) = child_dir() {
        let journal = Journal::open(&dir.join("journal")).unwrap();
        return produce(&journal, Instant::now() + Duration::from_secs(20));
    }
    let place = Place::new();
    let mut writer = place.writer();
    for _ in 0..12 {
        writer.drain().unwrap();
        let mut process = child(NAME, place.dir.path());
        // On a busy machine it takes its time to begin.
        let latest = Instant::now() + Duration::from_secs(15);
        while writer.drain().unwrap() == 0 && Instant::now() < latest {}
        let end = Instant::now() + Duration::from_millis(40) + a_while(120);
        while Instant::now() < end {
            writer.drain().unwrap();
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    drop(place.producer());
    writer.close().unwrap();
    let (requests, ended) = check_whole(&place);
    assert!(requests > 500, "only {requests} requests");
    assert_eq!(requests, ended, "each has an outcome, unknown where its producer died");
}

#[test]
fn keepers_killed_at_random_lose_and_double_nothing() {
    const NAME: &str = "keepers_killed_at_random_lose_and_double_nothing";
    if let Some(dir) = child_dir() {
        let journal = Journal::open(&dir.join("journal")).unwrap();
        let small = Config { segment_bytes: 200_000, checkpoint_lines: 50, ..config() };
        let (writer, _) = Writer::open(&dir.join("audit"), &journal, small).unwrap();
        return writer.run(&std::sync::atomic::AtomicBool::new(false)).unwrap();
    }
    let place = Place::new();
    let journal = place.journal.clone();
    let producing = std::thread::spawn(move || produce(&journal, Instant::now() + Duration::from_secs(3)));
    while !producing.is_finished() {
        let mut process = child(NAME, place.dir.path());
        std::thread::sleep(Duration::from_millis(60) + a_while(150));
        process.kill().unwrap();
        process.wait().unwrap();
    }
    producing.join().unwrap();
    drop(place.producer());
    place.writer().close().unwrap();
    let (requests, ended) = check_whole(&place);
    assert!(requests > 500, "only {requests} requests");
    assert_eq!(requests, ended);
}

#[test]
fn a_torn_last_line_is_cut_and_written_again() {
    let place = Place::new();
    let mut writer = place.writer();
    let producer = place.producer();
    commit(&producer, "SELECT 1");
    writer.drain().unwrap();
    drop(writer);
    let path = place.audit().join("segments/0000000001.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"0123456789abcdef torn");
    fs::write(&path, &bytes).unwrap();
    let (writer, report) = place.writer_with(config());
    assert_eq!((report.cut, report.saved), (21, None));
    writer.close().unwrap();
    assert!(place.check().is_good());
}

#[test]
fn two_keepers_do_not_share_a_store() {
    let place = Place::new();
    let _writer = place.writer();
    assert!(matches!(Writer::open(&place.audit(), &place.journal, config()), Err(StoreError::InUse(_))));
}

#[test]
fn a_run_of_the_keeper_stops_in_good_order() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let place = Place::new();
    let writer = place.writer();
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || writer.run(&stop)
    });
    let producer = place.producer();
    let id = commit(&producer, "SELECT 1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let deadline = || tokio::time::Instant::now() + Duration::from_secs(60);
    runtime.block_on(producer.wait_synced(id.0, deadline())).unwrap();
    let (head, written) = written(&[request(1, "SELECT 2", true)]);
    runtime.block_on(producer.commit_by(DIGEST, &head, &written, deadline())).unwrap();
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap().unwrap();
    assert_eq!(place.check().last_seq, 2);
    assert!(!place.writer_with(config()).1.skipped);
}

#[test]
fn numbers_that_the_power_may_have_taken_are_not_given_again() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let mut writer = place.writer();
    commit(&place.producer(), "SELECT 1");
    writer.drain().unwrap();
    drop(writer);
    let file = fs::OpenOptions::new().write(true).open(place.dir.path().join("journal")).unwrap();
    file.write_all_at(&[9; 8], 320).unwrap();
    let (mut writer, report) = place.writer_with(config());
    assert!(report.skipped);
    assert!(commit(&place.producer(), "SELECT 2").0 > place.journal.most_entries());
    writer.drain().unwrap();
    writer.close().unwrap();
    let report = place.check();
    assert!(report.is_good() && report.skipped.len() == 1, "{report:?}");
}

/// Runs `test` in a thread with a mount namespace of its own, where `dir` is a disk of `size`.
fn on_a_small_disk(dir: &Path, size: &str, test: impl FnOnce() + Send + 'static) {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let (dir, size) = (dir.to_owned(), format!("size={size}"));
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        test();
    });
    thread.join().unwrap();
}

#[test]
fn a_full_disk_refuses_and_kills_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    on_a_small_disk(dir.path(), "2m", move || {
        assert!(Journal::create(&path.join("journal"), 4 << 20).is_err());
        assert!(!path.join("journal").exists() && !path.join("journal.new").exists());
        let journal = Journal::create(&path.join("journal"), MINIMUM_SIZE).unwrap();
        let audit = path.join("audit");
        let (mut writer, _) = Writer::open(&audit, &journal, config()).unwrap();
        let producer = Producer::attach(&journal, Limits::default(), []).unwrap();
        let ballast = path.join("ballast");
        fs::write(&ballast, vec![1; 1 << 20]).unwrap();
        let mut open = std::collections::VecDeque::new();
        let failed = loop {
            if open.len() > 5 {
                producer.append_outcome(outcome(open.pop_front().unwrap())).unwrap();
            }
            match commit_all(&producer, &[request(1, "SELECT 1", true)]) {
                Ok(receipt) => open.extend(receipt.records().iter()),
                Err(error) => panic!("refused too early: {error}"),
            }
            if let Err(error) = writer.drain() {
                break error;
            }
        };
        assert!(matches!(failed, StoreError::NoSpace(_)), "{failed}");
        // The requests' own ring still has room for how each of them ends.
        let refused = commit_all(&producer, &[request(1, "SELECT 1", true)]);
        assert!(matches!(refused, Err(JournalError::NoSpace | JournalError::Full)));
        for id in &open {
            producer.append_outcome(outcome(*id)).unwrap();
        }
        assert!(writer.drain().is_err());
        fs::remove_file(&ballast).unwrap();
        writer.drain().unwrap();
        writer.look_after().unwrap();
        assert!(commit_all(&producer, &[request(1, "SELECT 1", true)]).is_ok());
        let key = writer.public_key();
        writer.close().unwrap();
        let report = verify(&audit, &key, None).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(Some(report.last_seq), open.back().map(|id| id.0 + open.len() as u64 + 1));
    });
}

#[test]
fn a_filling_disk_is_told_before_requests_are_refused() {
    let place = Place::new();
    let producer = place.producer();
    let (mut writer, _) = place.writer_with(Config { free_warn: u64::MAX, ..config() });
    writer.look_after().unwrap();
    commit(&producer, "SELECT 1");
    drop(writer);
    let (mut writer, _) = place.writer_with(Config { total_bytes: 1, ..config() });
    writer.look_after().unwrap();
    let refused = commit_all(&producer, &[request(1, "SELECT 1", true)]);
    assert!(matches!(refused, Err(JournalError::NoSpace)));
    producer.append_event(&event("events still go through")).unwrap();
    producer.append_outcome(outcome(RecordId(1))).unwrap();
    writer.close().unwrap();
    let told = place.entries().into_iter().filter(|line| line.sub > 0).count();
    assert_eq!(told, 2, "one event for each change");
}
