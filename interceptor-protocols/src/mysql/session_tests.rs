//! Commands and their answers, one after the other.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    mask::Mask,
    model::{OutcomeStatus, Phase, Spent},
    permit::{Denial, Held},
    protocol::{CancelKey, DecodeError, Decoder as _, Greeting, Side, Step},
};

use super::{decode::MysqlDecoder, frame::packet};

const COLUMN: &[u8] = b"\x03def";
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
/// With SERVER_MORE_RESULTS_EXISTS.
const MORE: &[u8] = &[0xfe, 0, 0, 10, 0];
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// One parameter, no columns.
const PREPARED: &[&[u8]] = &[&[0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], COLUMN, EOF];

fn denial() -> Denial {
    Denial { record: None, rule: "r".to_owned(), message: "no".to_owned(), hint: "stop".to_owned() }
}

/// Packets of an upstream, numbered.
fn packets(payloads: &[&[u8]]) -> Bytes {
    let numbered = payloads.iter().zip(1_u8..).map(|(payload, sequence)| packet(sequence, payload));
    numbered.collect::<Vec<_>>().concat().into()
}

fn rows(values: &[&[u8]]) -> Bytes {
    let count = u8::try_from(values.len()).expect("few");
    let row: Vec<u8> = values
        .iter()
        .flat_map(|value| [&[u8::try_from(value.len()).expect("short")], *value].concat())
        .collect();
    let mut payloads: Vec<&[u8]> = vec![std::slice::from_ref(&count)];
    payloads.extend(std::iter::repeat_n(COLUMN, values.len()));
    payloads.extend([EOF, &row, EOF]);
    packets(&payloads)
}

/// What the gate's look-up of the settings is answered.
fn settings([mode, charset, database]: [&str; 3]) -> Bytes {
    let [mode, charset, database] = [mode, charset, database].map(hex::encode);
    rows(&[b"1", mode.as_bytes(), charset.as_bytes(), b"0", database.as_bytes()])
}

#[path = "bound_tests.rs"]
mod bound;

/// A session, and what it is given.
struct Session {
    decoder: MysqlDecoder,
    client: BytesMut,
    upstream: BytesMut,
    mode: &'static str,
    charset: &'static str,
    database: &'static str,
    /// What the gate's look-up of one table is answered; nothing where it fails.
    table: Option<[&'static [u8]; 3]>,
}

impl Session {
    fn new() -> Self {
        let mut decoder = MysqlDecoder::default();
        let greeting = Greeting {
            bytes: Bytes::new(),
            parameters: vec![("status".to_owned(), "2".to_owned())],
            cancel: None,
        };
        let ok = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::new() });
        assert!(ok.ends_with(&[2, 0, 0, 0]), "whether each statement is a transaction is told: {ok:?}");
        let (client, upstream) = (BytesMut::new(), BytesMut::new());
        let (mode, charset, database) = ("", "utf8mb4", "shop");
        Self { decoder, client, upstream, mode, charset, database, table: Some([b"0", b"0", b"1"]) }
    }

    fn client(&mut self) -> Step {
        self.decoder.step(Side::Client, &mut self.client).expect("a step")
    }

    fn upstream(&mut self, bytes: &[u8]) -> Result<Step, DecodeError> {
        self.upstream.extend_from_slice(bytes);
        self.decoder.step(Side::Upstream, &mut self.upstream)
    }

    /// The next step for the client's side that is not the gate's own.
    fn next(&mut self) -> Result<Step, DecodeError> {
        loop {
            let step = self.decoder.step(Side::Client, &mut self.client)?;
            let Step::Enquire(held) = step else { return Ok(step) };
            let text = held.actions().first().expect("an action").text.to_string();
            self.decoder.sent(held.number(), Mask::Nothing);
            let answer = match self.table {
                _ if text.starts_with("SELECT 1, HEX(") => settings([self.mode, self.charset, self.database]),
                Some([other, triggers, rights]) => rows(&[b"1", other, triggers, rights]),
                None => packets(&[b"\xff\x50\x04#42000no"]),
            };
            assert!(
                matches!(self.upstream(&answer)?, Step::Answer { bytes, .. } if bytes.is_empty()),
                "{text}"
            );
        }
    }

    fn command(&mut self, payload: &[u8]) -> Step {
        self.client.extend_from_slice(&packet(0, payload));
        self.next().expect("a step")
    }

    /// A command that is asked about.
    fn asks(&mut self, payload: &[u8]) -> Held {
        match self.command(payload) {
            Step::Ask(held) => held,
            other => unreachable!("{payload:?}: {other:?}"),
        }
    }

    /// Why it is not understood.
    fn unknown(&mut self, payload: &[u8]) -> Option<String> {
        let held = self.asks(payload);
        let _ = self.decoder.refuse(held.number(), &denial());
        held.actions().first().and_then(|action| action.facts.unknown.as_ref()).map(ToString::to_string)
    }

    fn sent(&mut self, payload: &[u8]) {
        let held = self.asks(payload);
        self.decoder.sent(held.number(), Mask::Nothing);
    }

    /// A command that is refused whatever policy says: the code, the state and the words.
    fn refused(&mut self, payload: &[u8]) -> (u16, String, String) {
        match self.command(payload) {
            Step::Reply(bytes) => error(&bytes),
            other => unreachable!("{payload:?}: {other:?}"),
        }
    }

    /// An answer that is passed on as it came, to its end.
    fn answered(&mut self, bytes: &[u8]) -> interceptor_core::protocol::Done {
        match self.upstream(bytes) {
            Ok(Step::Answer { bytes: passed, mut done }) if passed == bytes && done.len() == 1 => {
                done.pop().expect("one")
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn prepare(&mut self, text: &str) {
        self.sent(&[b"\x16", text.as_bytes()].concat());
        self.answered(&packets(PREPARED));
    }
}

fn error(bytes: &[u8]) -> (u16, String, String) {
    let [_, _, _, 1, 0xff, low, high, b'#', rest @ ..] = bytes else { unreachable!("{bytes:?}") };
    let text = String::from_utf8(rest.to_vec()).expect("words");
    (u16::from_le_bytes([*low, *high]), text[..5].to_owned(), text[5..].to_owned())
}

/// COM_STMT_EXECUTE of statement 7 with one value.
fn execute(flag: u8, kind: [u8; 2], value: &[u8]) -> Vec<u8> {
    [b"\x17\x07\0\0\0\0\x01\0\0\0\0", &[flag][..], &kind, value].concat()
}

#[test]
fn what_is_refused_says_what_to_do_and_leaves_the_session() {
    let mut session = Session::new();
    for (command, part) in [
        (&b"\x04users\0"[..], "SHOW COLUMNS"),
        (b"\x05x", "Use a statement"),
        (b"\x06x", "Use a statement"),
        (b"\x07\x01", "Use a statement"),
        (b"\x0a", "Use a statement"),
        (b"\x0c\x01\0\0\0", "KILL"),
        (b"\x11root\0", "new connection"),
        (b"\x12\x04\0\0\0\0\0\x01\0\0\0", "Use a statement"),
        (b"\x15", "Use a statement"),
        (b"\x1b\0\0", "on its own"),
        (b"\x1c\x07\0\0\0\x01\0\0\0", "cursors"),
        (b"\x1e", "Use a statement"),
        (b"\xfa\x07\0\0\0\0\0", "once for each row"),
        (b"\xfe\x05\0\0\0\x03KILL", "Use a statement"),
        (b"\x7f", "Use a statement"),
    ] {
        let (code, state, words) = session.refused(command);
        assert_eq!((code, state.as_str()), (1235, "42000"), "{command:?}");
        assert!(words.starts_with("interceptor: ") && words.contains(part), "{command:?}: {words}");
        assert!(session.decoder.is_idle() && session.upstream.is_empty());
    }
    let (code, state, _) = session.refused(&execute(1, [1, 0], &[1]));
    assert_eq!((code, state.as_str()), (1243, "HY000"), "a statement that was not prepared");
    let held = session.asks(b"\x03SELECT 1");
    let refusal = session.decoder.refuse(held.number(), &denial());
    assert!(refusal.upstream.is_empty());
    assert_eq!(
        error(&refusal.client),
        (1142, "42000".to_owned(), "interceptor: no (rule r). stop".to_owned())
    );
}

#[test]
fn values_are_read_as_every_server_reads_them_or_not_at_all() {
    let mut session = Session::new();
    session.prepare("SELECT ?");
    for kind in [9, 13, 14, 16, 17, 20, 247, 248, 255] {
        let (code, _, words) = session.refused(&execute(1, [kind, 0], &[1, 0, 0, 0]));
        assert!(code == 1235 && words.contains("integer or a string"), "{kind}: {words}");
    }
    let held = session.asks(&execute(1, [3, 0x80], &[255, 255, 255, 255]));
    assert_eq!(held.actions()[0].binds[0].value.as_deref(), Some("4294967295"));
    assert_eq!(held.actions()[0].phase, Phase::Execute);
    let _ = session.decoder.refuse(held.number(), &denial());
    for malformed in [
        execute(2, [3, 0], &[1, 0, 0, 0]),
        execute(255, [3, 0], &[1, 0, 0, 0]),
        execute(1, [3, 0x40], &[1, 0, 0, 0]),
        execute(1, [3, 0], &[1, 0, 0, 0, 0]),
        execute(1, [3, 0], &[1, 0]),
        execute(1, [6, 0], &[0]),
        execute(1, [0xfe, 0], &[0xfb]),
    ] {
        let mut session = Session::new();
        session.prepare("SELECT ?");
        session.client.extend_from_slice(&packet(0, &malformed));
        assert!(session.next().is_err(), "{malformed:?}");
    }
}

#[test]
fn cursors_and_long_data_are_refused_when_the_statement_is_executed() {
    let mut session = Session::new();
    session.prepare("SELECT ?");
    let mut cursor = execute(1, [1, 0], &[1]);
    cursor[5] = 1;
    assert!(session.refused(&cursor).2.contains("Fetch all rows"));
    let mut twice = execute(1, [1, 0], &[1]);
    twice[6] = 2;
    assert_eq!(session.refused(&twice).0, 1235);

    let long = b"\x18\x07\0\0\0\0\0a part of a value";
    assert!(matches!(session.command(long), Step::Reply(bytes) if bytes.is_empty()), "it has no answer");
    assert!(matches!(session.command(long), Step::Reply(bytes) if bytes.is_empty()));
    assert!(session.refused(&execute(1, [1, 0], &[1])).2.contains("with the statement"));
    session.sent(&execute(1, [1, 0], &[1]));
    session.answered(&packets(&[OK]));
    // COM_STMT_RESET forgets it as the server would.
    assert!(matches!(session.command(long), Step::Reply(_)));
    assert!(matches!(session.command(b"\x1a\x07\0\0\0"), Step::Pass(_)));
    let reset = packets(&[OK]);
    assert!(matches!(session.upstream(&reset), Ok(Step::Answer { bytes, .. }) if bytes == reset));
    session.sent(b"\x17\x07\0\0\0\0\x01\0\0\0\0\0\x01");
}

#[test]
fn what_is_kept_of_prepared_statements_is_bounded() {
    let mut session = Session::new();
    let long = [&b"\x16SELECT '"[..], &vec![b'x'; 8 << 20], b"'"].concat();
    let (code, state, words) = session.refused(&long);
    assert_eq!((code, state.as_str()), (1461, "42000"));
    assert!(words.contains("Close some"), "{words}");
    session.prepare(&format!("SELECT ?, '{}'", "x".repeat((8 << 20) - 100)));
    assert_eq!(session.refused(&[&b"\x16SELECT '"[..], &[b'x'; 100], b"'"].concat()).0, 1461);
    assert!(matches!(session.command(b"\x19\x07\0\0\0"), Step::Pass(_)), "COM_STMT_CLOSE");
    session.prepare("SELECT ?");
}

#[test]
fn sessions_are_reset_and_databases_chosen_by_judgement_alone() {
    let mut session = Session::new();
    session.prepare("SELECT ?");
    for (command, shown) in [(&b"\x02other"[..], "database"), (b"\x1f", "connection")] {
        session.sent(b"\x03SELECT 1");
        session.answered(&packets(&[b"\x01", COLUMN, EOF, b"\x011", EOF]));
        let held = session.asks(command);
        assert!(format!("{:?}", held.actions()).contains(shown));
        session.decoder.sent(held.number(), Mask::Nothing);
        session.answered(&packets(&[OK]));
        session.client.extend_from_slice(&packet(0, b"\x03SELECT 1"));
        assert!(matches!(session.client(), Step::Enquire(_)), "what held is asked for again");
        session = Session { client: BytesMut::new(), ..Session::new() };
        session.prepare("SELECT ?");
    }
    session.sent(b"\x1f");
    session.answered(&packets(&[OK]));
    assert_eq!(session.refused(&execute(1, [1, 0], &[1])).0, 1243, "the server has forgotten it too");
    // Neither has rows, and a client would not read them.
    for command in [&b"\x02other"[..], b"\x1f"] {
        let mut session = Session::new();
        session.sent(command);
        assert!(session.upstream(&packets(&[b"\x01"])).is_err());
    }
}

#[test]
fn a_look_up_that_is_not_answered_as_it_must_be_makes_the_statement_unknown() {
    let mut session = Session::new();
    assert_eq!(session.unknown(b"\x03SELECT id FROM users"), None);
    assert_eq!(session.unknown(b"\x03INSERT INTO users VALUES (1)"), None);
    let hidden: [&[u8]; 3] = [b"0", b"0", b"0"];
    session.table = Some(hidden);
    assert_eq!(session.unknown(b"\x03SELECT id FROM users"), None, "a reading fires no trigger");
    assert!(session.unknown(b"\x03INSERT INTO users VALUES (1)").is_some_and(|why| why.contains("grant it")));
    session.table = Some([b"0", b"1", b"1"]);
    assert!(
        session.unknown(b"\x03INSERT INTO users VALUES (1)").is_some_and(|why| why.contains("has triggers"))
    );
    session.table = Some([b"1", b"0", b"0"]);
    assert!(session.unknown(b"\x03SELECT id FROM users").is_some_and(|why| why.contains("is a view")));
    session.table = None;
    assert!(session.unknown(b"\x03SELECT id FROM users").is_some_and(|why| why.contains("looked up")));
    session.table = Some([b"0", b"0", b"1"]);
    let name = "\x03SELECT id FROM `u\u{1f600}`";
    assert!(session.unknown(name.as_bytes()).is_some());
}

#[test]
fn what_was_prepared_while_texts_meant_something_else_stays_unknown() {
    let mut session = Session::new();
    session.mode = "ANSI_QUOTES";
    session.prepare("SELECT ?");
    assert!(session.unknown(b"\x03SELECT 1").is_some_and(|why| why.contains("ANSI_QUOTES")));
    session.mode = "";
    // Not understood, it may have been SET.
    session.sent(b"\x03SELECT 1");
    session.answered(&packets(&[OK]));
    assert_eq!(session.unknown(b"\x03SELECT 1"), None);
    let why = session.unknown(&execute(1, [1, 0], &[1]));
    assert!(why.is_some_and(|why| why.contains("when it was prepared")));
}

#[test]
fn a_call_of_a_routine_makes_the_settings_asked_for_again() {
    for (text, again) in
        [("SELECT 1", false), ("SELECT mine()", true), ("CALL p()", true), ("SET @a = 1", true)]
    {
        let mut session = Session::new();
        session.sent(&[b"\x03", text.as_bytes()].concat());
        session.answered(&packets(&[OK]));
        session.client.extend_from_slice(&packet(0, b"\x03SELECT 1"));
        assert_eq!(matches!(session.client(), Step::Enquire(_)), again, "{text}");
    }
}

#[test]
fn a_client_that_does_not_wait_is_answered_in_order() {
    let mut session = Session::new();
    for text in ["SELECT 1", "SELECT 2"] {
        session.client.extend_from_slice(&packet(0, &[b"\x03", text.as_bytes()].concat()));
    }
    session.client.extend_from_slice(&packet(0, b"\x0e"));
    for text in ["SELECT 1", "SELECT 2"] {
        let Ok(Step::Ask(held)) = session.next() else { unreachable!("{text}") };
        assert_eq!(&*held.actions()[0].text, text);
        assert!(matches!(session.client(), Step::Wait), "it is being judged");
        session.decoder.sent(held.number(), Mask::Nothing);
        assert!(matches!(session.client(), Step::Hold), "its answer is due");
        session.answered(&packets(&[b"\x01", COLUMN, EOF, b"\x011", EOF]));
    }
    assert!(matches!(session.client(), Step::Pass(_)));
}

#[test]
fn all_results_of_a_call_are_its_answer() {
    let mut session = Session::new();
    session.sent(b"\x03CALL p()");
    let first = packets(&[b"\x01", COLUMN, EOF, b"\x011", b"\x012", MORE]);
    assert!(
        matches!(session.upstream(&first), Ok(Step::Answer { bytes, done }) if bytes == first && done.is_empty())
    );
    session.client.extend_from_slice(&packet(0, b"\x03SELECT 1"));
    assert!(matches!(session.client(), Step::Hold), "more is to come");
    let rest: Vec<Bytes> = [&b"\x01"[..], COLUMN, EOF, b"\x013", MORE, OK]
        .iter()
        .zip(7_u8..)
        .map(|(payload, sequence)| packet(sequence, payload))
        .collect();
    let done = session.answered(&rest.concat());
    assert_eq!((done.rows, done.status), (Some(3), OutcomeStatus::Completed));
    assert!(matches!(session.client(), Step::Enquire(_)), "a procedure may set what it likes");

    // An error is the end of all of them.
    let mut session = Session::new();
    session.sent(b"\x03CALL p()");
    let failed = packets(&[b"\x01", COLUMN, EOF, b"\x011", MORE, b"\xff\x50\x04#42000no"]);
    let done = session.answered(&failed);
    assert_eq!((done.status, done.code.as_deref()), (OutcomeStatus::Failed, Some("1104 (42000)")));
    assert_eq!(done.rows, Some(1), "what came before it has passed");
    assert!(session.decoder.is_idle());
}

#[test]
fn an_error_ends_an_answer_wherever_it_comes() {
    let failed: &[u8] = b"\xff\x25\x05#70100killed";
    let befores: [&[&[u8]]; 4] =
        [&[], &[b"\x02"], &[b"\x02", COLUMN], &[b"\x02", COLUMN, COLUMN, EOF, b"\x011\x011"]];
    for before in befores {
        let mut session = Session::new();
        session.sent(b"\x03SELECT 1, 2");
        let done = session.answered(&packets(&[before, &[failed]].concat()));
        assert_eq!(done.code.as_deref(), Some("1317 (70100)"), "{before:?}");
        assert!(session.decoder.is_idle(), "{before:?}");
    }
    let mut session = Session::new();
    session.sent(b"\x16SELECT ?");
    session.answered(&packets(&[&[0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], failed]));
    assert_eq!(session.refused(&execute(1, [1, 0], &[1])).0, 1243, "it was not prepared");
}

#[test]
fn a_budget_ends_an_answer_between_two_rows_and_the_rest_goes_nowhere() {
    let mut session = Session::new();
    session.decoder.allow(Spent { rows: 1, ..Spent::UNLIMITED });
    session.sent(b"\x03SELECT 1");
    let head = packets(&[b"\x01", COLUMN, EOF, b"\x011"]);
    let all = packets(&[b"\x01", COLUMN, EOF, b"\x011", b"\x012", b"\x013", EOF]);
    assert!(
        matches!(session.upstream(&all), Ok(Step::Answer { bytes, done }) if bytes == head && done.is_empty())
    );
    assert!(matches!(session.upstream(&[]), Ok(Step::Pause { .. })));
    let stopped = session.decoder.stop(&denial());
    assert_eq!(
        stopped.client.get(3..7),
        Some(&[5, 0xff, 0x76, 0x04][..]),
        "the packet behind the row is the error"
    );
    assert_eq!(stopped.done.and_then(|done| done.rows), Some(1));
    session.client.extend_from_slice(&packet(0, b"\x0e"));
    assert!(matches!(session.client(), Step::Hold), "the server is still answering");
    assert!(
        matches!(session.upstream(&[]), Ok(Step::Answer { bytes, done }) if bytes.is_empty() && done.is_empty())
    );
    assert!(matches!(session.client(), Step::Pass(_)));
}

#[test]
fn a_long_value_streams_and_nothing_is_said_in_the_middle_of_it() {
    let mut session = Session::new();
    session.sent(b"\x03SELECT 1");
    let head = packets(&[b"\x01", COLUMN, EOF]);
    assert!(matches!(session.upstream(&head), Ok(Step::Answer { .. })));
    // A value of 1 GB: 64 packets that go on, each passed on as it comes.
    let part = vec![b'x'; 1 << 20];
    for place in 0..64_u8 {
        let begin = [&[0xff, 0xff, 0xff, place + 4][..], &[0xfe, 0, 0, 0, 0x40, 0, 0, 0, 0]].concat();
        assert!(matches!(session.upstream(&begin), Ok(Step::Answer { .. })));
        let mut left = 0xff_ffff - 9;
        while left > 0 {
            let next = part.len().min(left);
            assert!(matches!(session.upstream(&part[..next]), Ok(Step::Answer { .. })));
            assert!(session.upstream.is_empty(), "nothing is held");
            assert!(session.decoder.is_within_row());
            left -= next;
        }
    }
    // It ends with an empty packet, behind which the same bytes may follow in one arrival or in two.
    let end = [&[0, 0, 0, 68][..], &packet(69, EOF)].concat();
    let Ok(Step::Answer { done, .. }) = session.upstream(&end) else { unreachable!() };
    assert_eq!(done.first().and_then(|done| done.rows), Some(1));
    assert!(!session.decoder.is_within_row());
    assert!(!session.decoder.farewell(&denial()).is_empty());
}

#[test]
fn what_comes_out_of_sequence_or_empty_or_unasked_is_an_error() {
    let wrong: [&[u8]; 8] = [
        &packet(0, OK),
        &packet(2, OK),
        &packet(1, b""),
        &[packet(1, b"\x01"), packet(3, COLUMN)].concat(),
        &[packet(1, b"\x01"), packet(2, COLUMN), packet(3, b"\x05")].concat(),
        // With SERVER_STATUS_CURSOR_EXISTS.
        &[packet(1, b"\x01"), packet(2, COLUMN), packet(3, &[0xfe, 0, 0, 66, 0])].concat(),
        // With a byte of an extension that was not taken.
        &packet(1, &[1, 1]),
        &packet(1, EOF),
    ];
    for bytes in wrong {
        for cut in [1, bytes.len()] {
            let mut session = Session::new();
            session.sent(b"\x03SELECT 1");
            let failed = bytes.chunks(cut).chain([&[][..]]).any(|part| session.upstream(part).is_err());
            assert!(failed, "{bytes:?} by {cut}");
        }
    }
    for bytes in [&packet(1, OK)[..], &packet(0, b""), &[0, 0, 0, 0, 0xff]] {
        for cut in [1, bytes.len()] {
            let mut session = Session::new();
            assert!(bytes.chunks(cut).any(|part| session.upstream(part).is_err()), "{bytes:?} by {cut}");
        }
    }
    let mut session = Session::new();
    let last = packet(0, b"\xff\x7f\x07#08S01idle");
    assert!(
        matches!(session.upstream(&last), Ok(Step::Close(bytes)) if bytes == last),
        "a server's last word"
    );
}

#[test]
fn a_file_is_never_asked_of_a_client_nor_taken_from_one() {
    let mut session = Session::new();
    session.sent(b"\x03SELECT 1");
    let error = session.upstream(&packets(&[b"\xfb/etc/passwd"])).expect_err("refused");
    assert!(error.what.contains("INSERT"), "{error}");
    assert!(Session::new().unknown(b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t").is_some());
}

#[test]
fn a_command_is_one_packet_with_the_number_nought() {
    // The last is the first of several.
    for bytes in [&packet(1, b"\x03SELECT 1")[..], &packet(0, b""), &[0xff, 0xff, 0xff, 0, 3]] {
        let mut session = Session::new();
        session.client.extend_from_slice(bytes);
        assert!(session.next().is_err(), "{bytes:?}");
    }
}

#[test]
fn what_passes_without_a_judgement_carries_nothing() {
    for command in [&b"\x01x"[..], b"\x0ex", b"\x19\x07\0\0\0x", b"\x1a\x07\0\0\0x", b"\x19\x07\0", b"\x1fx"]
    {
        let mut session = Session::new();
        session.client.extend_from_slice(&packet(0, command));
        assert!(session.next().is_err(), "{command:?}");
    }
}

#[test]
fn types_that_a_failed_statement_brought_are_not_relied_on() {
    let mut session = Session::new();
    session.prepare("SELECT ?");
    let again = |value: &[u8]| [b"\x17\x07\0\0\0\0\x01\0\0\0\0\0", value].concat();
    assert!(session.refused(&again(&[1])).2.contains("Prepare the statement anew"));
    session.sent(&execute(1, [1, 0], &[1]));
    session.answered(&packets(&[b"\xff\x26\x04#23000twice"]));
    session.sent(&again(&[2]));
    session.answered(&packets(&[OK]));
    session.sent(&execute(1, [3, 0], &[1, 0, 0, 0]));
    session.answered(&packets(&[b"\xff\x17\x04#08S01not now"]));
    assert_eq!(session.refused(&again(&[1])).0, 1235);
    session.sent(&execute(1, [3, 0], &[1, 0, 0, 0]));
    session.answered(&packets(&[OK]));
    session.sent(&again(&[2, 0, 0, 0]));
}

#[test]
fn values_in_a_character_set_that_is_not_read_are_unknown() {
    for (charset, unknown) in [("utf8mb4", false), ("latin1", true), ("gbk", true)] {
        let mut session = Session::new();
        session.charset = charset;
        session.prepare("SELECT ?");
        let why = session.unknown(&execute(1, [0xfe, 0], "\u{2}é".as_bytes()));
        assert_eq!(why.is_some(), unknown, "{charset}: {why:?}");
        assert_eq!(
            session.unknown(&execute(1, [0xfe, 0], b"\x01e")).is_some(),
            charset == "gbk",
            "{charset}"
        );
    }
}

#[test]
fn what_is_in_order_passes_before_an_error() {
    let mut session = Session::new();
    session.sent(b"\x03SELECT 1");
    let head = packets(&[b"\x01", COLUMN, EOF, b"\x011"]);
    let all = [&head[..], &packet(9, b"\x012")].concat();
    assert!(matches!(session.upstream(&all), Ok(Step::Answer { bytes, .. }) if bytes == head));
    assert!(session.upstream(&[]).is_err());
    let word = session.decoder.farewell(&denial());
    assert_eq!(word.get(3..5), Some(&[5, 0xff][..]), "in sequence with what has passed");
}
