//! What is looked up again, and when.

use interceptor_core::catalogue::PARTS;

use super::*;

/// A session to a resource whose catalogue is shared.
struct Talk {
    decoder: PostgresDecoder,
    status: u8,
}

impl Talk {
    fn new(catalogue: Arc<Catalogue>) -> Self {
        let mut decoder = PostgresDecoder::new(
            catalogue,
            interceptor_core::mask::Labelled::nothing("r"),
            interceptor_core::mask::Tokens::default(),
        );
        let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
        let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
        Self { decoder, status: b'I' }
    }

    /// Sends a text, answers it, and says how many look-ups came before it.
    fn says(&mut self, text: &str) -> usize {
        let mut asked = 0;
        let mut step = client(&mut self.decoder, &query(text));
        let held = loop {
            match step {
                Step::Ask(held) => break held,
                Step::Enquire(held) => {
                    asked += 1;
                    self.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
                    let _ = upstream(&mut self.decoder, &nothing_found("read committed", self.status));
                    step = client(&mut self.decoder, b"");
                }
                other => panic!("{text}: {other:?}"),
            }
        };
        self.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        match text {
            "BEGIN" => self.status = b'T',
            "COMMIT" | "ROLLBACK" => self.status = b'I',
            _ => {}
        }
        let _ = upstream(&mut self.decoder, &[complete("OK"), ready(self.status)].concat());
        asked
    }
}

/// A look-up's answer in which no name exists.
fn nothing_found(isolation: &str, status: u8) -> Vec<u8> {
    found(&[], isolation, status)
}

/// A look-up's answer to somebody of whom the server says this, in which no name exists.
fn told_to(viewer: [&str; 7], path: &str) -> Vec<u8> {
    let session = ["s", "7", "db", "role", "UTF8", "on", "read committed"];
    rows(&[session, viewer, ["p", "1", path, "", "", "", ""]], b'I')
}

/// A look-up's answer with these rows.
fn found(found: &[[&str; 7]], isolation: &str, status: u8) -> Vec<u8> {
    let session = [["s", "0", "db", "role", "UTF8", "on", isolation], ["p", "1", "public", "", "", "", ""]];
    rows(&[session.as_slice(), found].concat(), status)
}

/// An answer with no other rows than these.
fn rows(rows: &[[&str; 7]], status: u8) -> Vec<u8> {
    let mut answer = BytesMut::new();
    answer.put_slice(&[message(b'1', |_| {}), message(b'2', |_| {})].concat());
    for values in rows {
        answer.put_slice(&message(b'D', |out| {
            out.put_u16(7);
            values.iter().for_each(|value| put_value(out, Some(value.as_bytes())));
        }));
    }
    answer.put_slice(
        &[complete("SELECT 2"), message(b'3', |_| {}), message(b'3', |_| {}), ready(status)].concat(),
    );
    answer.to_vec()
}

#[test]
fn a_name_is_looked_up_once() {
    let mut talk = Talk::new(still());
    assert_eq!(talk.says("SELECT * FROM t"), 1);
    for text in
        ["SELECT a FROM t WHERE b = 7", "INSERT INTO t VALUES (1)", "BEGIN", "DELETE FROM t", "COMMIT"]
    {
        assert_eq!(talk.says(text), 0, "{text}");
    }
    assert_eq!(talk.says("SELECT * FROM t, u"), 1, "another name");
    assert_eq!(talk.says("SELECT * FROM u"), 0);
}

#[test]
fn a_known_name_needs_no_snapshot_and_no_working_transaction() {
    let mut talk = Talk::new(still());
    talk.says("SELECT * FROM t");
    talk.says("BEGIN");
    let held = asked(&mut talk.decoder, &query("LOCK TABLE t"));
    assert_eq!(why(&held.actions()[0]), "");
}

#[test]
fn what_may_turn_names_makes_everything_asked_again() {
    for (text, again) in [
        ("SET search_path TO x", true),
        ("SET ROLE x", true),
        ("SET SESSION AUTHORIZATION x", true),
        ("RESET ALL", true),
        ("DISCARD ALL", true),
        ("CREATE TABLE x (a int)", true),
        ("CREATE TEMP TABLE t (a int)", true),
        ("SELECT f(1)", true),
        ("DO $$ BEGIN END $$", true),
        ("GRANT USAGE ON SCHEMA x TO y", true),
        ("COMMIT PREPARED 'x'", true),
        ("SET statement_timeout = 5", false),
        ("SET LOCAL application_name = 'x'", false),
        ("SHOW search_path", false),
        ("NOTIFY x", false),
    ] {
        let mut talk = Talk::new(still());
        talk.says("SELECT * FROM t");
        talk.says(text);
        assert_eq!(talk.says("SELECT * FROM t"), usize::from(again), "{text}");
        assert_eq!(talk.says("SELECT * FROM t"), 0, "{text}");
    }
}

#[test]
fn the_end_of_a_transaction_that_turned_names_turns_them_again() {
    for end in ["COMMIT", "ROLLBACK", "ROLLBACK TO SAVEPOINT s"] {
        let mut talk = Talk::new(still());
        for (text, asked) in [
            ("SELECT * FROM t", 1),
            ("BEGIN", 0),
            ("SET LOCAL search_path TO x", 0),
            ("SELECT * FROM t", 1),
            ("SELECT * FROM t", 0),
            (end, 0),
            ("SELECT * FROM t", 1),
            ("SELECT * FROM t", 0),
        ] {
            assert_eq!(talk.says(text), asked, "{text} with {end}");
        }
    }
}

#[test]
fn another_sessions_change_is_seen_when_it_is_sent_and_when_it_is_done() {
    let catalogue = still();
    let (mut one, mut other) = (Talk::new(catalogue.clone()), Talk::new(catalogue));
    one.says("SELECT * FROM t");
    other.says("BEGIN");
    assert_eq!(one.says("SELECT * FROM t"), 0);
    other.says("DROP TABLE IF EXISTS t");
    assert_eq!(one.says("SELECT * FROM t"), 1);
    other.says("INSERT INTO u VALUES (1)");
    other.says("COMMIT");
    assert_eq!(one.says("SELECT * FROM t"), 1);
    assert_eq!(one.says("SELECT * FROM t"), 0);
    other.says("SET search_path TO x");
    assert_eq!(one.says("SELECT * FROM t"), 0, "its own affair");
    // It ends in the middle of a change.
    let held = asked(&mut other.decoder, &query("DO $$ BEGIN END $$"));
    other.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    assert_eq!(one.says("SELECT * FROM t"), 1);
    drop(other);
    assert_eq!(one.says("SELECT * FROM t"), 1);
}

#[test]
fn a_number_is_looked_up_once_and_judged_as_a_name_is() {
    let mut talk = Talk::new(still());
    let mut calls = |number: u32, row: Option<[&str; 7]>| {
        let mut step = client(&mut talk.decoder, &call(number));
        if let Some(row) = row {
            let Step::Enquire(held) = step else { panic!("{number}: {step:?}") };
            assert!(
                held.actions()[0]
                    .binds
                    .iter()
                    .any(|bind| bind.value == Some(format!("{{\"{number}\"}}").into()))
            );
            talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
            let rows = if row[4].is_empty() { &[][..] } else { &[row] };
            let _ = upstream(&mut talk.decoder, &found(rows, "read committed", b'I'));
            step = client(&mut talk.decoder, b"");
        }
        let Step::Ask(held) = step else { panic!("{number}: {step:?}") };
        let action = held.actions()[0].clone();
        talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let answer = [message(b'V', |out| put_value(out, Some(&[0; 4]))), ready(b'I')].concat();
        let _ = upstream(&mut talk.decoder, &answer);
        action
    };
    let sleep = ["n", "0", "pg_catalog", "pg_sleep", "2626", "true", "23"];
    for row in [Some(sleep), None] {
        let action = calls(2626, row);
        let [effect] = action.facts.effects.as_slice() else { panic!("{action:?}") };
        assert!(matches!(&effect.target, Target::Function(function) if function.name == "pg_sleep"));
        assert_eq!((effect.verb, action.binds[0].value.as_deref()), (Verb::FunctionCall, Some("7")));
    }
    assert_eq!(why(&calls(953, None)), "", "a large object's needs none");
    let own = ["n", "0", "public", "mine", "16400", "false", "23"];
    let action = calls(16_400, Some(own));
    let Target::Function(function) = &action.facts.effects[0].target else { panic!("{action:?}") };
    assert_eq!((&*function.schema, &*function.name, function.oid), ("public", "mine", Some(16_400)));
    // It may have changed anything.
    assert_eq!(why(&calls(2626, Some(sleep))), "");
    assert!(why(&calls(16_401, Some([""; 7]))).contains("16401"));
}

#[test]
fn at_an_age_of_nothing_every_statement_is_looked_up() {
    let looks = std::sync::atomic::AtomicU64::new(0);
    let time = move || looks.fetch_add(PARTS, std::sync::atomic::Ordering::Relaxed);
    let mut talk = Talk::new(Arc::new(Catalogue::new(time)));
    for _ in 0..3 {
        assert_eq!(talk.says("SELECT * FROM t"), 1);
    }
}

/// Parse, Bind and Execute of `text`.
fn extended(text: &str) -> Vec<Bytes> {
    vec![
        message(b'P', |out| {
            put_text(out, "");
            put_text(out, text);
            out.put_u16(0);
        }),
        message(b'B', |out| out.put_slice(&[0; 8])),
        message(b'E', |out| out.put_slice(&[0; 5])),
    ]
}

#[test]
fn a_pipeline_that_turned_names_is_over_only_when_it_is_answered() {
    let mut talk = Talk::new(still());
    talk.says("SELECT * FROM t");
    let mut looked_up = 0;
    let sync = message(b'S', |_| {});
    let set = extended("SET search_path TO x");
    let select = extended("SELECT * FROM t");
    for bytes in set.iter().chain(&select).chain([&sync]).chain(&select).chain([&sync]) {
        let mut step = client(&mut talk.decoder, bytes);
        loop {
            match step {
                Step::Ask(held) => talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing),
                Step::Enquire(held) => {
                    looked_up += 1;
                    talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
                    // All before it is answered first.
                    let mut answer = BytesMut::new();
                    if looked_up == 1 {
                        for part in [b'1', b'2'] {
                            answer.put_slice(&message(part, |_| {}));
                        }
                        answer.put_slice(&complete("SET"));
                    } else {
                        for part in [b'1', b'2'] {
                            answer.put_slice(&message(part, |_| {}));
                        }
                        answer.put_slice(&complete("SELECT 0"));
                        answer.put_slice(&ready(b'I'));
                    }
                    let found = nothing_found("read committed", b'I');
                    // Within a pipeline our look-up ends without ReadyForQuery.
                    let flushed = found.len() - if looked_up == 1 { 6 } else { 0 };
                    answer.put_slice(&found[..flushed]);
                    let _ = upstream(&mut talk.decoder, &answer);
                }
                Step::Pass(_) => break,
                other => panic!("{other:?}"),
            }
            step = client(&mut talk.decoder, b"");
            if matches!(step, Step::Wait) {
                break;
            }
        }
    }
    assert_eq!(looked_up, 2, "the SET may be undone by the end of its pipeline");
}

#[test]
fn what_an_older_snapshot_shows_is_not_kept() {
    let mut talk = Talk::new(still());
    talk.says("BEGIN");
    for isolation in ["repeatable read", "read committed"] {
        talk.decoder.snapshot = true;
        let Step::Enquire(held) = client(&mut talk.decoder, &query("SELECT * FROM t")) else {
            panic!("a look-up")
        };
        talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let _ = upstream(&mut talk.decoder, &nothing_found(isolation, b'T'));
        let held = asked(&mut talk.decoder, b"");
        talk.decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let _ = upstream(&mut talk.decoder, &[complete("SELECT 0"), ready(b'T')].concat());
    }
    assert_eq!(talk.says("SELECT * FROM t"), 0);
}

/// How the server names most sessions: when it was started, the search path as set, the role, no temporary objects.
const APP: [&str; 7] = ["w", "", "20260101", "public", "16384", "0", ""];

/// What comes of a text, step by step: a look-up of names, one of who asks, waiting, and judging.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Names,
    Viewer,
    Waits,
    Judged,
}

impl Talk {
    /// The next thing that becomes of what was sent, or of `text`.
    fn goes_on(&mut self, text: Option<&str>) -> (Seen, Option<u64>) {
        let bytes = text.map(query).unwrap_or_default();
        match client(&mut self.decoder, &bytes) {
            Step::Ask(held) => (Seen::Judged, Some(held.number())),
            Step::Await(_) => (Seen::Waits, None),
            Step::Enquire(held) => {
                let is_viewer = held.actions()[0].text.contains("as whom this session asks");
                (if is_viewer { Seen::Viewer } else { Seen::Names }, Some(held.number()))
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// Answers what is under way.
    fn hears(&mut self, number: Option<u64>, answer: &[u8]) {
        self.decoder.sent(number.expect("it was asked"), interceptor_core::mask::Mask::Nothing);
        let _ = upstream(&mut self.decoder, answer);
    }

    /// Sends a text and answers whatever it needs as the server does to somebody like this; what became of it.
    fn asks_as(&mut self, text: &str, viewer: [&str; 7], path: &str) -> Vec<Seen> {
        let mut all = Vec::new();
        let mut text = Some(text);
        loop {
            let (seen, number) = self.goes_on(text.take());
            let is_over = seen == Seen::Judged;
            all.push(seen);
            if is_over {
                self.hears(number, &[complete("OK"), ready(b'I')].concat());
                return all;
            }
            self.hears(number, &told_to(viewer, path));
        }
    }
}

#[test]
fn what_one_session_was_told_is_told_to_its_like() {
    let catalogue = still();
    let talk = || Talk::new(catalogue.clone());
    assert_eq!(talk().asks_as("SELECT * FROM t", APP, "public"), [Seen::Names, Seen::Judged]);
    let mut like = talk();
    assert_eq!(like.asks_as("SELECT * FROM t", APP, "public"), [Seen::Viewer, Seen::Judged]);
    assert_eq!(like.asks_as("SELECT a FROM t", APP, "public"), [Seen::Judged]);
    assert_eq!(like.asks_as("SELECT * FROM u", APP, "public"), [Seen::Names, Seen::Judged]);
    let mut late = talk();
    assert_eq!(
        late.asks_as("SELECT * FROM v", APP, "public"),
        [Seen::Names, Seen::Judged],
        "nobody knows it"
    );
    assert_eq!(late.asks_as("SELECT * FROM t, u", APP, "public"), [Seen::Judged]);
    catalogue.advance();
    assert_eq!(late.asks_as("SELECT * FROM t", APP, "public"), [Seen::Names, Seen::Judged]);
    assert_eq!(like.asks_as("SELECT * FROM t", APP, "public"), [Seen::Judged], "it knows who it is");
}

#[test]
fn nobody_is_told_what_was_told_to_somebody_else() {
    let other = |at: usize, value| {
        let mut viewer = APP;
        viewer[at] = value;
        viewer
    };
    for (viewer, path) in [
        (other(2, "20260102"), "public"),
        (other(3, "x, public"), "public"),
        (other(4, "16385"), "public"),
        (other(5, "16500"), "public"),
        (other(4, ""), "public"),
        (APP, "x"),
        (["p", "2", "x", "", "", "", ""], "public"),
    ] {
        let catalogue = still();
        let told = Talk::new(catalogue.clone()).asks_as("SELECT * FROM t", APP, "public");
        assert_eq!(told, [Seen::Names, Seen::Judged]);
        let mut talk = Talk::new(catalogue.clone());
        let seen = talk.asks_as("SELECT * FROM t", viewer, path);
        assert_eq!(seen, [Seen::Viewer, Seen::Names, Seen::Judged], "{viewer:?} {path}");
        // Whoever cannot be like anybody is not asked again as whom it asks.
        catalogue.advance();
        assert_eq!(talk.asks_as("SELECT * FROM t", viewer, path), [Seen::Names, Seen::Judged]);
    }
}

#[test]
fn what_a_session_changes_makes_it_somebody_else() {
    let catalogue = still();
    let mut one = Talk::new(catalogue.clone());
    one.asks_as("SELECT * FROM t", APP, "public");
    let mut other = Talk::new(catalogue);
    other.asks_as("SELECT * FROM t", APP, "public");
    other.asks_as("SET search_path TO x", APP, "public");
    let mut changed = APP;
    changed[3] = "x";
    let seen = other.asks_as("SELECT * FROM t", changed, "x");
    assert_eq!(seen, [Seen::Viewer, Seen::Names, Seen::Judged]);
    other.asks_as("RESET search_path", APP, "public");
    assert_eq!(other.asks_as("SELECT * FROM t", APP, "public"), [Seen::Viewer, Seen::Judged]);
}

#[test]
fn what_is_not_committed_is_told_to_nobody() {
    let catalogue = still();
    let mut one = Talk::new(catalogue.clone());
    for text in ["SELECT * FROM t", "BEGIN", "SET LOCAL search_path TO x"] {
        let _ = one.says(text);
    }
    let (seen, number) = one.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Names);
    let session = ["s", "7", "db", "role", "UTF8", "on", "read committed"];
    one.hears(number, &rows(&[session, APP, ["p", "1", "public", "", "", "", ""]], b'T'));
    let mut other = Talk::new(catalogue);
    assert_eq!(other.asks_as("SELECT * FROM t", APP, "public"), [Seen::Names, Seen::Judged]);
}

#[test]
fn while_one_session_asks_its_like_wait() {
    let catalogue = still();
    let (mut one, mut other) = (Talk::new(catalogue.clone()), Talk::new(catalogue.clone()));
    let (seen, number) = one.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Names);
    one.decoder.sent(number.expect("asked"), interceptor_core::mask::Mask::Nothing);
    let (seen, who) = other.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Viewer, "somebody asks the same");
    other.hears(who, &told_to(APP, "public"));
    assert_eq!(other.goes_on(None).0, Seen::Waits);
    let _ = upstream(&mut one.decoder, &told_to(APP, "public"));
    let (seen, number) = other.goes_on(None);
    assert_eq!(seen, Seen::Judged, "it was told");
    other.hears(number, &[complete("OK"), ready(b'I')].concat());
}

#[test]
fn who_waited_in_vain_asks() {
    let catalogue = still();
    let (mut one, mut other) = (Talk::new(catalogue.clone()), Talk::new(catalogue));
    let (_, number) = one.goes_on(Some("SELECT * FROM t"));
    one.decoder.sent(number.expect("asked"), interceptor_core::mask::Mask::Nothing);
    let (_, who) = other.goes_on(Some("SELECT * FROM t"));
    other.hears(who, &told_to(APP, "public"));
    assert_eq!(other.goes_on(None).0, Seen::Waits);
    assert_eq!(other.goes_on(None).0, Seen::Names, "it took too long");
    drop(one);
    let mut third = Talk::new(other.decoder.turns.catalogue().clone());
    let (seen, who) = third.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Viewer, "the second one asks");
    third.hears(who, &told_to(APP, "public"));
    assert_eq!(third.goes_on(None).0, Seen::Waits);
    drop(other);
    assert_eq!(third.goes_on(None).0, Seen::Names, "nobody asks any more");
}

#[test]
fn before_an_answer_holds_no_more_one_session_asks_again() {
    let parts = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let time = parts.clone();
    let time = move || time.load(std::sync::atomic::Ordering::Relaxed);
    let catalogue = Arc::new(Catalogue::new(time));
    let (mut one, mut other) = (Talk::new(catalogue.clone()), Talk::new(catalogue));
    one.asks_as("SELECT * FROM t", APP, "public");
    other.asks_as("SELECT * FROM t", APP, "public");
    parts.store(PARTS - 2, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(one.asks_as("SELECT * FROM t", APP, "public"), [Seen::Judged]);
    parts.store(PARTS - 1, std::sync::atomic::Ordering::Relaxed);
    let (seen, number) = one.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Names);
    assert_eq!(other.asks_as("SELECT * FROM t", APP, "public"), [Seen::Judged], "it need not wait");
    one.hears(number, &told_to(APP, "public"));
    let (seen, number) = one.goes_on(None);
    assert_eq!(seen, Seen::Judged);
    one.hears(number, &[complete("OK"), ready(b'I')].concat());
    parts.store(2 * PARTS - 3, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(other.asks_as("SELECT * FROM t", APP, "public"), [Seen::Judged], "it is told by the other");
    parts.store(2 * PARTS - 1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(other.asks_as("SELECT * FROM t", APP, "public"), [Seen::Names, Seen::Judged]);
}

#[test]
fn what_holds_still_is_used_where_it_could_not_be_asked_again() {
    let parts = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let time = parts.clone();
    let time = move || time.load(std::sync::atomic::Ordering::Relaxed);
    let mut talk = Talk::new(Arc::new(Catalogue::new(time)));
    talk.asks_as("SELECT * FROM t", APP, "public");
    parts.store(PARTS - 1, std::sync::atomic::Ordering::Relaxed);
    let (seen, number) = talk.goes_on(Some("SELECT * FROM t"));
    assert_eq!(seen, Seen::Names);
    talk.hears(number, &[error("53200"), ready(b'I')].concat());
    let held = asked(&mut talk.decoder, b"");
    assert_eq!(why(&held.actions()[0]), "", "it is known what it does");
}
