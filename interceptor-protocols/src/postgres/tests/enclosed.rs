//! Exchanges within terms: what is carried around them, what lasts, and where the session is left.

use interceptor_core::{Enclosed, Enclosure, Terms, mask::Mask};

use super::*;

const CHANGE: &str = "DELETE FROM t WHERE a = 1";

pub(super) fn terms(rows: u64) -> Terms {
    Terms { rows: Some(rows), ..Terms::default() }
}

fn within(rows: u64) -> Enclosure {
    Enclosure::Within(Arc::new(Enclosed { terms: terms(rows), pack: None }))
}

/// What came of the upstream's bytes: for the client, back to the upstream, and how exchanges ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) client: Vec<u8>,
    back: Vec<u8>,
    done: Vec<(u64, OutcomeStatus, Option<u64>, Option<String>)>,
    exceeded: Option<u64>,
}

/// Lets the upstream say `bytes`, in pieces of so many.
pub(super) fn hear(decoder: &mut PostgresDecoder, bytes: &[u8], piece: usize) -> Came {
    let mut came = Came::default();
    let mut input = BytesMut::new();
    for part in bytes.chunks(piece.max(1)) {
        input.put_slice(part);
        loop {
            match decoder.step(Side::Upstream, &mut input).expect("a step") {
                Step::Answer { bytes, done } => {
                    came.client.extend(bytes);
                    came.done.extend(
                        done.into_iter().map(|done| (done.exchange, done.status, done.rows, done.code)),
                    );
                }
                Step::Reply(bytes) => came.back.extend(bytes),
                Step::Exceeds { rows, .. } => {
                    came.exceeded = Some(rows);
                    let stopped = decoder.stop(&denial());
                    came.client.extend(stopped.client);
                }
                Step::Wait => break,
                other => panic!("{other:?}"),
            }
        }
    }
    came
}

fn tags(bytes: &[u8]) -> String {
    super::super::frames(bytes).into_iter().map(|(tag, _)| char::from(tag)).collect()
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|there| there == part.as_bytes())
}

/// The server's answers to an exchange of our own.
pub(super) fn own(tag: &str, status: u8) -> Vec<u8> {
    let close = message(b'3', |_| {});
    let all =
        [message(b'1', |_| {}), message(b'2', |_| {}), complete(tag), close.clone(), close, ready(status)];
    all.concat()
}

/// An exchange of our own with this text goes.
pub(super) fn goes(decoder: &mut PostgresDecoder, text: &str) -> u64 {
    let held = match client(decoder, b"") {
        Step::Enquire(held) => held,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(held.actions()[0].text, text);
    decoder.sent(held.number(), Mask::Nothing);
    assert!(matches!(client(decoder, b""), Step::Wait), "the client is held");
    held.number()
}

fn learns_the_names(decoder: &mut PostgresDecoder, sync: &[u8]) {
    let row = message(b'D', |out| {
        out.put_u16(7);
        for value in ["s", "0", "db", "role", "UTF8", "on", "read committed"] {
            put_value(out, Some(value.as_bytes()));
        }
    });
    let relation = message(b'D', |out| {
        out.put_u16(7);
        for value in ["r", "1", "public", "t", "20000", "r", "false"] {
            put_value(out, Some(value.as_bytes()));
        }
    });
    let close = message(b'3', |_| {});
    let answer = [
        message(b'1', |_| {}),
        message(b'2', |_| {}),
        row,
        relation,
        complete("SELECT 2"),
        close.clone(),
        close,
    ];
    let came = hear(decoder, &[answer.concat(), sync.to_vec()].concat(), usize::MAX);
    assert!(came.client.is_empty());
}

/// `frame` is asked, with its names looked up before where they are not known.
fn asked_about(decoder: &mut PostgresDecoder, frame: &[u8], sync: &[u8]) -> Held {
    match client(decoder, frame) {
        Step::Enquire(held) => {
            decoder.sent(held.number(), Mask::Nothing);
            learns_the_names(decoder, sync);
            asked(decoder, b"")
        }
        Step::Ask(held) => held,
        other => panic!("{other:?}"),
    }
}

/// A Query of `text` goes within terms, in a transaction of ours.
fn bracketed(decoder: &mut PostgresDecoder, text: &str, rows: u64) -> u64 {
    let held = asked_about(decoder, &query(text), &ready(b'I'));
    assert_eq!(held.circumstances().enclosure, Enclosure::Possible);
    decoder.enclose(held.number(), terms(rows));
    goes(decoder, "BEGIN");
    let came = hear(decoder, &own("BEGIN", b'T'), usize::MAX);
    assert!(came.client.is_empty());
    let held = asked(decoder, b"");
    assert_eq!(held.circumstances().enclosure, within(rows));
    assert_eq!(held.digest(), Held::new(0, Vec::new(), query(text)).digest(), "the client's own bytes");
    decoder.recorded(held.number(), RecordId(4711));
    decoder.sent(held.number(), Mask::Nothing);
    assert!(matches!(client(decoder, &query("SELECT 1")), Step::Hold), "nothing goes behind it");
    held.number()
}

#[test]
fn what_keeps_its_terms_is_committed_before_it_is_told() {
    for piece in [1, 7, usize::MAX] {
        let mut decoder = session();
        let number = bracketed(&mut decoder, CHANGE, 2);
        let came = hear(&mut decoder, &[complete("DELETE 2"), ready(b'T')].concat(), piece);
        assert_eq!(came, Came::default(), "nothing is told yet");
        goes(&mut decoder, "COMMIT");
        let came = hear(&mut decoder, &own("COMMIT", b'I'), piece);
        assert_eq!(came.client, [complete("DELETE 2"), ready(b'I')].concat());
        assert!(came.done.contains(&(number, OutcomeStatus::Completed, Some(2), None)));
        assert!(decoder.is_idle());
    }
}

#[test]
fn what_breaks_them_is_rolled_back_and_the_session_goes_on() {
    for tag in ["DELETE 3", "DELETE", "SELECT 1"] {
        let mut decoder = session();
        let number = bracketed(&mut decoder, CHANGE, 2);
        hear(&mut decoder, &[complete(tag), ready(b'T')].concat(), 3);
        goes(&mut decoder, "ROLLBACK");
        let came = hear(&mut decoder, &own("ROLLBACK", b'I'), 3);
        assert_eq!(tags(&came.client), "EZ");
        assert!(
            has(&came.client, "record 4711")
                && has(&came.client, "42501")
                && has(&came.client, "at most 2")
                && came.client.ends_with(b"I")
        );
        let ended = came.done.iter().find(|done| done.0 == number).expect("it ended");
        assert_eq!((ended.1, ended.3.as_deref()), (OutcomeStatus::Failed, Some("42501")));
        assert!(decoder.is_idle());
        let next = asked(&mut decoder, &query("SELECT 1"));
        decoder.sent(next.number(), Mask::Nothing);
    }
}

#[test]
fn what_fails_of_itself_or_at_commit_is_told_in_the_servers_own_words() {
    let mut decoder = session();
    let number = bracketed(&mut decoder, CHANGE, 2);
    let came = hear(&mut decoder, &[error("23503"), ready(b'E')].concat(), 1);
    assert_eq!(came.client, error("23503"));
    assert_eq!(came.done, [(number, OutcomeStatus::Failed, None, Some("23503".to_owned()))]);
    goes(&mut decoder, "ROLLBACK");
    assert_eq!(hear(&mut decoder, &own("ROLLBACK", b'I'), 1).client, *ready(b'I'));
    let number = bracketed(&mut decoder, CHANGE, 2);
    hear(&mut decoder, &[complete("DELETE 1"), ready(b'T')].concat(), 1);
    goes(&mut decoder, "COMMIT");
    let failed = [message(b'1', |_| {}), message(b'2', |_| {}), error("23503"), ready(b'I')].concat();
    let came = hear(&mut decoder, &failed, 1);
    assert_eq!(came.client, [error("23503"), ready(b'I')].concat());
    assert!(came.done.contains(&(number, OutcomeStatus::Failed, Some(1), Some("23503".to_owned()))));
    // A commit that a late cancel request hit leaves the transaction open, and is taken back.
    bracketed(&mut decoder, CHANGE, 2);
    hear(&mut decoder, &[complete("DELETE 1"), ready(b'T')].concat(), 1);
    goes(&mut decoder, "COMMIT");
    assert!(hear(&mut decoder, &[error("57014"), ready(b'E')].concat(), 1).client.is_empty());
    goes(&mut decoder, "ROLLBACK");
    assert_eq!(hear(&mut decoder, &own("ROLLBACK", b'I'), 1).client, [error("57014"), ready(b'I')].concat());
    assert!(decoder.is_idle());
}

#[test]
fn rows_beyond_the_ceiling_do_not_pass() {
    let row = message(b'D', |out| {
        out.put_i16(1);
        put_value(out, Some(b"x"));
    });
    let mut decoder = session();
    bracketed(&mut decoder, "DELETE FROM t RETURNING a", 2);
    let rows = [message(b'T', |out| out.put_i16(0)), row.repeat(5).into(), complete("DELETE 5"), ready(b'T')];
    assert_eq!(tags(&hear(&mut decoder, &rows.concat(), 4).client), "TDD");
    goes(&mut decoder, "ROLLBACK");
    assert_eq!(tags(&hear(&mut decoder, &own("ROLLBACK", b'I'), 4).client), "EZ");
    // What only reads is cut as it passes, without a transaction of ours.
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.enclose(held.number(), terms(2));
    let held = asked(&mut decoder, b"");
    assert_eq!(held.circumstances().enclosure, within(2));
    decoder.sent(held.number(), Mask::Nothing);
    let rows = [message(b'T', |out| out.put_i16(0)), row.repeat(5).into(), complete("SELECT 5"), ready(b'I')];
    let came = hear(&mut decoder, &rows.concat(), 4);
    assert_eq!((tags(&came.client).as_str(), came.exceeded), ("TDDEZ", Some(2)));
    assert!(decoder.is_idle());
}

fn in_transaction() -> PostgresDecoder {
    let mut decoder = session();
    let begin = asked(&mut decoder, &query("BEGIN"));
    decoder.sent(begin.number(), Mask::Nothing);
    hear(&mut decoder, &[complete("BEGIN"), ready(b'T')].concat(), usize::MAX);
    decoder
}

#[test]
fn in_a_transaction_of_the_clients_what_breaks_its_terms_fails_it() {
    let mut decoder = in_transaction();
    for (tag, kept) in [("DELETE 2", true), ("DELETE 3", false)] {
        let held = asked_about(&mut decoder, &query(CHANGE), &ready(b'T'));
        decoder.enclose(held.number(), terms(2));
        let held = asked(&mut decoder, b"");
        decoder.sent(held.number(), Mask::Nothing);
        let answer = [complete(tag), ready(b'T')].concat();
        let came = hear(&mut decoder, &answer, 2);
        if kept {
            assert_eq!(came.client, answer);
            continue;
        }
        assert!(came.client.is_empty() && tags(&came.back) == "Q", "{came:?}");
        assert_eq!(came.done[0].1, OutcomeStatus::Failed);
        let came = hear(&mut decoder, &[error("42601"), ready(b'E')].concat(), 2);
        assert!(has(&came.client, "42501") && came.client.ends_with(b"E"));
    }
    let rollback = asked(&mut decoder, &query("ROLLBACK"));
    decoder.sent(rollback.number(), Mask::Nothing);
    hear(&mut decoder, &[complete("ROLLBACK"), ready(b'I')].concat(), 2);
    assert!(decoder.is_idle());
}

/// A pipeline whose Execute is asked: Parse and Bind have been sent.
fn executing(decoder: &mut PostgresDecoder) -> Held {
    let parse = message(b'P', |out| {
        put_text(out, "");
        put_text(out, CHANGE);
        out.put_u16(0);
    });
    let held = asked_about(decoder, &parse, &ready(b'I'));
    decoder.sent(held.number(), Mask::Nothing);
    let bind = message(b'B', |out| out.put_slice(&[0; 8]));
    assert!(matches!(client(decoder, &bind), Step::Pass(_)));
    asked(decoder, &message(b'E', |out| out.put_slice(&[0; 5])))
}

const BEFORE: [u8; 10] = *b"1\0\0\0\x042\0\0\0\x04";

#[test]
fn in_a_pipeline_nothing_goes_on_before_the_end_is_known() {
    for (tag, kept) in [("DELETE 2", true), ("DELETE 3", false)] {
        let mut decoder = session();
        let held = executing(&mut decoder);
        assert_eq!(held.circumstances().enclosure, Enclosure::Possible);
        decoder.enclose(held.number(), terms(2));
        let held = asked(&mut decoder, b"");
        decoder.sent(held.number(), Mask::Nothing);
        let sync = message(b'S', |_| {});
        assert!(matches!(client(&mut decoder, &sync), Step::Pass(bytes) if &*bytes == b"H\0\0\0\x04"));
        assert!(matches!(client(&mut decoder, &sync), Step::Hold));
        let came = hear(&mut decoder, &[&BEFORE[..], &complete(tag)].concat(), 3);
        assert_eq!(tags(&came.client), if kept { "12C" } else { "12" });
        assert_eq!(tags(&came.back), if kept { "" } else { "P" });
        assert!(matches!(client(&mut decoder, &sync), Step::Pass(bytes) if &*bytes == b"S\0\0\0\x04"));
        let end = if kept { ready(b'I').to_vec() } else { [error("42601"), ready(b'I')].concat() };
        let came = hear(&mut decoder, &end, 3);
        assert_eq!(tags(&came.client), if kept { "Z" } else { "EZ" });
        assert!(kept || has(&came.client, "42501"));
        assert!(decoder.is_idle());
    }
}

#[test]
fn a_pipeline_that_has_failed_holds_nobody() {
    // Before it is sent, and after.
    for early in [true, false] {
        let mut decoder = session();
        let held = executing(&mut decoder);
        decoder.enclose(held.number(), terms(2));
        let held = asked(&mut decoder, b"");
        let failure = [&BEFORE[..5], &error("22P02")].concat();
        if early {
            hear(&mut decoder, &failure, 5);
        }
        decoder.sent(held.number(), Mask::Nothing);
        if !early {
            let sync = message(b'S', |_| {});
            assert!(matches!(client(&mut decoder, &sync), Step::Pass(_)));
            hear(&mut decoder, &failure, 5);
        }
        let sync = client(&mut decoder, &message(b'S', |_| {}));
        assert!(matches!(sync, Step::Pass(bytes) if &*bytes == b"S\0\0\0\x04"), "early: {early}");
        let came = hear(&mut decoder, &ready(b'I'), 5);
        assert_eq!((tags(&came.client).as_str(), came.done[0].1), ("Z", OutcomeStatus::Skipped));
        assert!(decoder.is_idle());
    }
}

#[test]
fn what_is_refused_after_all_leaves_no_transaction_behind() {
    let mut decoder = session();
    let held = asked_about(&mut decoder, &query(CHANGE), &ready(b'I'));
    decoder.enclose(held.number(), terms(2));
    goes(&mut decoder, "BEGIN");
    hear(&mut decoder, &own("BEGIN", b'T'), 1);
    let held = asked(&mut decoder, b"");
    let refusal = decoder.refuse(held.number(), &denial());
    assert!(refusal.client.is_empty() && refusal.upstream.is_empty());
    goes(&mut decoder, "ROLLBACK");
    let came = hear(&mut decoder, &own("ROLLBACK", b'I'), 1);
    assert_eq!(tags(&came.client), "EZ");
    assert!(has(&came.client, "record 9") && decoder.is_idle());
    // It cannot be begun: then it is asked with the reason.
    let held = asked(&mut decoder, &query(CHANGE));
    decoder.enclose(held.number(), terms(2));
    goes(&mut decoder, "BEGIN");
    hear(&mut decoder, &[error("53300"), ready(b'I')].concat(), 1);
    let held = asked(&mut decoder, b"");
    assert!(matches!(&held.circumstances().enclosure, Enclosure::Impossible(why) if why.contains("sorry")));
    assert_eq!(tags(&decoder.refuse(held.number(), &denial()).client), "EZ");
    assert!(decoder.is_idle());
}

#[test]
fn a_transaction_that_cannot_be_ended_ends_the_session() {
    let mut decoder = session();
    bracketed(&mut decoder, CHANGE, 2);
    hear(&mut decoder, &[complete("DELETE 1"), ready(b'T')].concat(), 1);
    let Step::Enquire(held) = client(&mut decoder, b"") else { panic!("its end") };
    let refusal = decoder.refuse(held.number(), &denial());
    assert!(has(&refusal.client, "FATAL") && refusal.upstream.is_empty());
    assert!(matches!(client(&mut decoder, b""), Step::Close(bytes) if bytes.is_empty()));
}

#[test]
fn what_cannot_be_enclosed_says_so() {
    let why = |held: &Held| match &held.circumstances().enclosure {
        Enclosure::Impossible(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    let mut decoder = session();
    let text = "DELETE FROM t; DELETE FROM t";
    assert!(why(&asked_about(&mut decoder, &query(text), &ready(b'I'))).contains("send it alone"));
    let mut decoder = session();
    assert!(why(&asked_about(&mut decoder, &query("COPY t FROM STDIN"), &ready(b'I'))).contains("alone"));
    let mut decoder = session();
    let held = executing(&mut decoder);
    decoder.sent(held.number(), Mask::Nothing);
    let part = message(b'E', |out| out.put_slice(&[0, 0, 0, 0, 1]));
    assert!(why(&asked(&mut decoder, &part)).contains("all of them"));
}

fn row(values: &[Option<&str>]) -> Bytes {
    message(b'D', |out| {
        out.put_u16(u16::try_from(values.len()).expect("few"));
        values.iter().for_each(|value| put_value(out, value.map(str::as_bytes)));
    })
}

/// The server's answers to a question of our own, which end with `end`.
fn told(rows: &[Bytes], end: &[u8]) -> Vec<u8> {
    let close = message(b'3', |_| {});
    [
        message(b'1', |_| {}),
        message(b'2', |_| {}),
        rows.concat().into(),
        complete("SELECT 1"),
        close.clone(),
        close,
    ]
    .concat()
    .into_iter()
    .chain(end.iter().copied())
    .collect()
}

/// What is said of a table `t` with a key `id` and a column `a`, with these settings and this volatile function.
fn table(style: &str, volatile: Option<&str>) -> Vec<Bytes> {
    vec![
        row(&[Some("s"), Some(style), Some("postgres"), Some("1"), Some("4294967308"), volatile]),
        row(&[Some("t"), Some("r"), Some("p"), Some("public"), Some("t"), Some("db")]),
        row(&[Some("c"), Some("2"), Some("a"), Some("25"), Some(""), Some("")]),
        row(&[Some("c"), Some("1"), Some("id"), Some("23"), Some(""), Some("key")]),
    ]
}

const UNDO: Terms = Terms { rows: None, undo: Some(2) };

fn enquires(decoder: &mut PostgresDecoder, part: &str) {
    let Step::Enquire(held) = client(decoder, b"") else { panic!("{part}") };
    assert!(held.actions()[0].text.contains(part), "{part}: {}", held.actions()[0].text);
    decoder.sent(held.number(), Mask::Nothing);
}

#[test]
fn images_are_taken_before_and_must_be_all_that_is_changed() {
    for (count, lasts) in [(2, true), (3, false), (1, false)] {
        let mut decoder = session();
        let text = "DELETE FROM t AS x WHERE x.a > 'b' -- y";
        let held = asked_about(&mut decoder, &query(text), &ready(b'I'));
        decoder.enclose(held.number(), UNDO);
        goes(&mut decoder, "BEGIN");
        hear(&mut decoder, &own("BEGIN", b'T'), 5);
        enquires(&mut decoder, "the table that the next statement changes");
        hear(&mut decoder, &told(&table("ISO, DMY", None), &ready(b'T')), 5);
        enquires(
            &mut decoder,
            "SELECT x.\"id\", x.\"a\" FROM t AS x WHERE x.a > 'b' LIMIT 3 FOR UPDATE OF x",
        );
        let rows = [row(&[Some("1"), Some("c")]), row(&[Some("2"), None])];
        let came = hear(&mut decoder, &told(&rows, &ready(b'T')), 5);
        assert!(came.client.is_empty() && came.done[0].2 == Some(2));
        let held = asked(&mut decoder, b"");
        let Enclosure::Within(within) = &held.circumstances().enclosure else { panic!("{held:?}") };
        let pack = within.pack.as_ref().expect("a pack");
        assert_eq!((pack.rows.len(), pack.transaction, within.terms), (2, 4_294_967_308, UNDO));
        assert_eq!(pack.table.oid, Some(20000));
        decoder.sent(held.number(), Mask::Nothing);
        hear(&mut decoder, &[complete(&format!("DELETE {count}")), ready(b'T')].concat(), 5);
        goes(&mut decoder, if lasts { "COMMIT" } else { "ROLLBACK" });
        let came = hear(&mut decoder, &own(if lasts { "COMMIT" } else { "ROLLBACK" }, b'I'), 5);
        assert_eq!(tags(&came.client), if lasts { "CZ" } else { "EZ" });
        assert!(lasts || has(&came.client, "images were taken of 2"));
        assert!(decoder.is_idle());
    }
}

#[test]
fn what_cannot_be_imaged_is_asked_with_the_reason_and_leaves_nothing_open() {
    let why = |held: &Held| match &held.circumstances().enclosure {
        Enclosure::Impossible(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    // Before anything has been sent.
    let mut decoder = session();
    let held = asked_about(&mut decoder, &query("DELETE FROM t WHERE a IN (VALUES (1))"), &ready(b'I'));
    decoder.enclose(held.number(), UNDO);
    let held = asked(&mut decoder, b"");
    assert!(why(&held).contains("query inside"));
    assert_eq!(tags(&decoder.refuse(held.number(), &denial()).client), "EZ");
    // By what the catalogue says, and by how many rows there are.
    let too_many: Vec<Bytes> = (0..3).map(|_| row(&[Some("1"), None])).collect();
    for (looked, rows, part) in [
        (table("SQL, DMY", None), None, "lose something"),
        (table("ISO, DMY", Some("random")), None, "differently each time (random)"),
        (table("ISO, DMY", None)[..1].to_vec(), None, "not there"),
        (table("ISO, DMY", None), Some(too_many), "more than the 2 rows"),
    ] {
        let mut decoder = session();
        let held = asked_about(&mut decoder, &query(CHANGE), &ready(b'I'));
        decoder.enclose(held.number(), UNDO);
        goes(&mut decoder, "BEGIN");
        hear(&mut decoder, &own("BEGIN", b'T'), 5);
        enquires(&mut decoder, "the table");
        hear(&mut decoder, &told(&looked, &ready(b'T')), 5);
        if let Some(rows) = rows {
            enquires(&mut decoder, "images of the rows");
            hear(&mut decoder, &told(&rows, &ready(b'T')), 5);
        }
        let held = asked(&mut decoder, b"");
        assert!(why(&held).contains(part), "{part}: {}", why(&held));
        decoder.refuse(held.number(), &denial());
        goes(&mut decoder, "ROLLBACK");
        assert_eq!(tags(&hear(&mut decoder, &own("ROLLBACK", b'I'), 5).client), "EZ");
        assert!(decoder.is_idle());
    }
}

#[test]
fn in_a_pipeline_images_end_with_flush_and_their_failure_is_told_once() {
    let flush = message(b'H', |_| {});
    for fails in [true, false] {
        let mut decoder = session();
        let held = executing(&mut decoder);
        decoder.enclose(held.number(), UNDO);
        enquires(&mut decoder, "the table");
        let came = hear(&mut decoder, &[&BEFORE[..], &told(&table("ISO, MDY", None), b"")].concat(), 4);
        assert_eq!(came.client, BEFORE);
        enquires(&mut decoder, "FROM t WHERE a = 1 LIMIT 3 FOR UPDATE OF t");
        if fails {
            let came = hear(&mut decoder, &[message(b'1', |_| {}), error("42501")].concat(), 4);
            assert!(came.client.is_empty() || tags(&came.client) == "E");
            let held = asked(&mut decoder, b"");
            let said = decoder.refuse(held.number(), &denial());
            assert!(said.upstream.is_empty() && tags(&[came.client, said.client.to_vec()].concat()) == "E");
        } else {
            hear(&mut decoder, &told(&[row(&[Some("1"), None])], b""), 4);
            let held = asked(&mut decoder, b"");
            decoder.sent(held.number(), Mask::Nothing);
            assert!(matches!(client(&mut decoder, b""), Step::Pass(bytes) if bytes == flush));
            assert_eq!(hear(&mut decoder, &complete("DELETE 1"), 4).client, complete("DELETE 1"));
        }
        let sync = client(&mut decoder, &message(b'S', |_| {}));
        assert!(matches!(sync, Step::Pass(bytes) if &*bytes == b"S\0\0\0\x04"));
        assert_eq!(hear(&mut decoder, &ready(b'I'), 4).client, *ready(b'I'));
        assert!(decoder.is_idle());
    }
}

/// What the fuzzer begins with is a change within terms.
#[test]
fn the_fuzzers_session_is_enclosed() {
    let mut decoder = super::super::fuzz::enclosed();
    assert!(matches!(client(&mut decoder, b""), Step::Hold));
    hear(&mut decoder, &[complete("DELETE 2"), ready(b'T')].concat(), 1);
    goes(&mut decoder, "COMMIT");
    for data in [
        &b""[..],
        b"C\0\0\0\x0dDELETE 3\0Z\0\0\0\x05T",
        b"C\0\0\0\x0dDELETE 1\0Z\0\0\0\x05I",
        b"Z\0\0\0\x05E",
    ] {
        super::super::fuzz_upstream(data);
    }
}

#[test]
fn a_savepoint_is_told_from_the_beginning_of_a_transaction() {
    use crate::postgres::image::Nesting;
    let pipelined = |decoder: &mut PostgresDecoder, text: &str| {
        let parse = message(b'P', |out| {
            put_text(out, "");
            put_text(out, text);
            out.put_u16(0);
        });
        for frame in
            [parse, message(b'B', |out| out.put_slice(&[0; 8])), message(b'E', |out| out.put_slice(&[0; 5]))]
        {
            if let Step::Ask(held) = client(decoder, &frame) {
                decoder.sent(held.number(), Mask::Nothing);
            }
        }
    };
    let mut decoder = session();
    pipelined(&mut decoder, "BEGIN READ WRITE");
    pipelined(&mut decoder, "start transaction");
    assert_eq!(decoder.nesting, Nesting::None);
    pipelined(&mut decoder, "SAVEPOINT a");
    assert_eq!(decoder.nesting, Nesting::Savepoint);
    let mut decoder = in_transaction();
    assert_eq!(decoder.nesting, Nesting::None);
    let held = asked(&mut decoder, &query("SAVEPOINT a"));
    decoder.sent(held.number(), Mask::Nothing);
    assert_eq!(decoder.nesting, Nesting::Savepoint);
    hear(&mut decoder, &[complete("SAVEPOINT"), ready(b'T')].concat(), 9);
    let held = asked(&mut decoder, &query("ROLLBACK"));
    decoder.sent(held.number(), Mask::Nothing);
    hear(&mut decoder, &[complete("ROLLBACK"), ready(b'I')].concat(), 9);
    assert_eq!(decoder.nesting, Nesting::None, "it ended with the transaction");
}
