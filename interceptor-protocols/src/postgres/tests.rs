//! Start-up, log-in and the rules that a transcript does not show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod behind;
mod budget;
mod cancelled;
mod enclosed;
mod masking;
mod recorded;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    catalogue::Catalogue,
    model::{Action, OutcomeStatus, Phase, Principal, RecordId, Target, Verb},
    permit::{Denial, Held},
    protocol::{
        CancelKey, Challenge, DecodeError, Decoder, Done, Greeting, Inspection, LoginStep, Opening, Proof,
        Protocol, Refusal, Side, Step, UpstreamTls,
    },
};

use super::{Postgres, decode::PostgresDecoder, frame::Writer, frame::put_text, frame::put_value};

mod copy;

/// A catalogue that only changes move on.
fn still() -> Arc<Catalogue> {
    Arc::new(Catalogue::new(|| 0))
}

fn message(tag: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = Writer::default();
    out.message(tag, body);
    out.finish()
}

fn startup(version: u32, parameters: &[(&str, &str)]) -> BytesMut {
    let mut out = Writer::default();
    out.headless(|out| {
        out.put_u32(version);
        for (name, value) in parameters {
            put_text(out, name);
            put_text(out, value);
        }
        out.put_u8(0);
    });
    BytesMut::from(&*out.finish())
}

fn open(parameters: &[(&str, &str)]) -> Result<Opening, DecodeError> {
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    match decoder.step(Side::Client, &mut startup(3 << 16, parameters))? {
        Step::Open(opening) => Ok(opening),
        other => panic!("{other:?}"),
    }
}

fn denial() -> Denial {
    Denial { record: Some(RecordId(9)), rule: "rule\0x".into(), message: "no".into(), hint: "ask".into() }
}

fn session() -> PostgresDecoder {
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
    decoder
}

fn client(decoder: &mut PostgresDecoder, bytes: &[u8]) -> Step {
    decoder.step(Side::Client, &mut BytesMut::from(bytes)).expect("a step")
}

fn asked(decoder: &mut PostgresDecoder, bytes: &[u8]) -> Held {
    match client(decoder, bytes) {
        Step::Ask(held) => held,
        other => panic!("{other:?}"),
    }
}

fn upstream(decoder: &mut PostgresDecoder, bytes: &[u8]) -> (Bytes, Vec<Done>) {
    let mut input = BytesMut::from(bytes);
    let (mut out, mut all) = (BytesMut::new(), Vec::new());
    loop {
        match decoder.step(Side::Upstream, &mut input).expect("a step") {
            Step::Answer { bytes, done } => {
                out.put_slice(&bytes);
                all.extend(done);
            }
            Step::Wait => return (out.freeze(), all),
            other => panic!("{other:?}"),
        }
    }
}

fn query(text: &str) -> Bytes {
    message(b'Q', |out| put_text(out, text))
}

/// A FunctionCall with one binary parameter.
fn call(function: u32) -> Bytes {
    message(b'F', |out| {
        out.put_u32(function);
        out.put_slice(&[0, 1, 0, 1, 0, 1]);
        put_value(out, Some(&7_u32.to_be_bytes()));
        out.put_u16(1);
    })
}

fn ready(status: u8) -> Bytes {
    message(b'Z', |out| out.put_u8(status))
}

fn complete(tag: &str) -> Bytes {
    message(b'C', |out| put_text(out, tag))
}

fn error(code: &str) -> Bytes {
    message(b'E', |out| {
        for (kind, text) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', code), (b'M', "sorry")] {
            out.put_u8(kind);
            put_text(out, text);
        }
        out.put_u8(0);
    })
}

fn why(action: &Action) -> &str {
    action.facts.unknown.as_ref().map_or("", |unknown| unknown.0.as_str())
}

#[test]
fn start_up_parameters_are_judged() {
    let opening = open(&[
        ("user", "agent"),
        ("database", "orders"),
        ("application_name", "x"),
        ("search_path", "evil"),
        ("options", "-c statement_timeout=0 --Session-Replication-Role=replica -c work\\_mem=1 -d5"),
    ])
    .expect("an opening");
    let facts = &opening.held.actions()[0].facts;
    let settings: Vec<_> = facts
        .effects
        .iter()
        .filter_map(|effect| match (&effect.verb, &effect.target) {
            (Verb::SessionChange, Target::Setting(name)) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        settings,
        ["search_path", "statement_timeout", "session_replication_role", "work_mem", "options"]
    );
    assert_eq!(facts.effects[0].verb, Verb::Connect);
    assert_eq!(opening.claimed.database, "orders");
    assert!(opening.parameters.contains(&("client_encoding".to_owned(), "UTF8".to_owned())));
}

#[test]
fn what_would_change_how_texts_are_read_is_refused_at_start_up() {
    for (name, value) in [
        ("client_encoding", "SJIS"),
        ("options", "-c client_encoding=GBK"),
        ("options", "-c standard_conforming_strings=off"),
        ("standard_conforming_strings", "FALSE"),
    ] {
        assert!(open(&[("user", "a"), (name, value)]).is_err(), "{name}={value}");
    }
    for value in ["'utf-8'", "UTF8", "unicode", "SQL_ASCII"] {
        assert!(open(&[("user", "a"), ("client_encoding", value)]).is_ok(), "{value}");
    }
    assert!(open(&[("database", "a")]).is_err(), "no user");
}

#[test]
fn replication_is_judged_as_such_and_then_not_inspected() {
    for (value, replicates) in [
        ("true", true),
        ("database", true),
        ("ON", true),
        ("1", true),
        ("off", false),
        ("f", false),
        ("0", false),
    ] {
        let opening = open(&[("user", "a"), ("replication", value)]).expect("an opening");
        let facts = &opening.held.actions()[0].facts;
        assert_eq!(facts.effects.iter().any(|effect| effect.verb == Verb::Replicate), replicates, "{value}");
        assert_eq!(opening.then == Inspection::None, replicates, "{value}");
    }
}

#[test]
fn bytes_before_tls_are_refused() {
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    assert!(matches!(client(&mut decoder, &request), Step::StartTls(bytes) if *bytes == *b"S"));
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    let mut input = BytesMut::from(&[&request[..], b"Q"].concat()[..]);
    assert!(decoder.step(Side::Client, &mut input).is_err());
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    assert!(matches!(client(&mut decoder, &[0x16, 3, 1]), Step::StartTls(bytes) if bytes.is_empty()));
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    assert!(
        matches!(client(&mut decoder, &[0, 0, 0, 8, 4, 210, 22, 48]), Step::Reply(bytes) if *bytes == *b"N")
    );
}

#[test]
fn cancel_keys_of_both_lengths() {
    for length in [4_usize, 32] {
        let key = CancelKey { process: 77, secret: vec![3; length].into() };
        let bytes = Postgres.cancel(&key).expect("PostgreSQL has keys");
        let mut decoder = PostgresDecoder::new(
            still(),
            interceptor_core::mask::Labelled::nothing("r"),
            interceptor_core::mask::Tokens::default(),
        );
        assert!(matches!(client(&mut decoder, &bytes), Step::Cancel(found) if found == key));
    }
}

#[test]
fn a_log_in_by_scram_hides_the_secret_and_proves_the_server() {
    let opening = open(&[("user", "agent"), ("database", "d")]).expect("an opening");
    let principal = Principal { user: "real".into(), claimed_user: "agent".into(), database: "d".into() };
    let sasl = |code: u32, rest: &[u8]| {
        message(b'R', |out| {
            out.put_u32(code);
            out.put_slice(rest);
        })
    };
    for honest in [true, false] {
        let mut login = Postgres.login(&principal, &opening, UpstreamTls::Required);
        let mut input = BytesMut::new();
        assert!(matches!(login.step(&mut input), Ok(LoginStep::Send(_))));
        input.put_slice(b"S");
        assert!(matches!(login.step(&mut input), Ok(LoginStep::StartTls)));
        let Ok(LoginStep::Send(packet)) = login.step(&mut input) else { panic!("the start-up packet") };
        assert!(
            packet.windows(4).any(|part| part == b"real") && !packet.windows(5).any(|part| part == b"agent")
        );
        input.put_slice(&sasl(10, b"SCRAM-SHA-256\0\0"));
        assert!(matches!(login.step(&mut input), Ok(LoginStep::Prove(Challenge::SaslBegin { .. }))));
        let begin = Proof::Begin { mechanism: "SCRAM-SHA-256".into(), message: b"n,,n=,r=x".to_vec() };
        assert!(matches!(login.prove(begin), Ok(LoginStep::Send(_))));
        input.put_slice(&sasl(11, b"r=xy"));
        assert!(matches!(login.step(&mut input), Ok(LoginStep::Prove(Challenge::SaslContinue { .. }))));
        let Ok(LoginStep::Send(sent)) = login.prove(Proof::Response(b"c=".to_vec().into())) else { panic!() };
        assert_eq!(&*sent, b"p\0\0\0\x06c=");
        if honest {
            input.put_slice(&sasl(12, b"v=z"));
            assert!(matches!(login.step(&mut input), Ok(LoginStep::Prove(Challenge::SaslFinish { .. }))));
            assert!(matches!(login.prove(Proof::Accepted), Ok(LoginStep::Wait)));
        }
        input.put_slice(&sasl(0, b""));
        for (name, value) in [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")] {
            input.put_slice(&message(b'S', |out| {
                put_text(out, name);
                put_text(out, value);
            }));
        }
        input.put_slice(&ready(b'I'));
        match login.step(&mut input) {
            Ok(LoginStep::Ready(greeting)) => assert!(honest && greeting.parameters.len() == 2),
            other => assert!(!honest && other.is_err()),
        }
    }
}

#[test]
fn an_upstream_without_tls_is_not_spoken_to() {
    let opening = open(&[("user", "a")]).expect("an opening");
    let mut login = Postgres.login(&Principal::default(), &opening, UpstreamTls::Required);
    let _ = login.step(&mut BytesMut::new());
    let error = login.step(&mut BytesMut::from(&b"N"[..])).expect_err("no TLS");
    assert!(error.to_string().contains("offers no TLS"));
}

/// What the client asked for is the client's to know; what is wrong with our credential is not.
#[test]
fn an_upstream_that_refuses_is_quoted_only_where_it_speaks_of_the_client() {
    let answered = |code: &str, accepted: bool| {
        let mut login = Postgres.login(
            &Principal::default(),
            &open(&[("user", "a")]).expect("an opening"),
            UpstreamTls::Plaintext,
        );
        let mut input = BytesMut::new();
        let _ = login.step(&mut input);
        if accepted {
            input.put_slice(&message(b'R', |out| out.put_u32(0)));
            assert!(matches!(login.step(&mut input), Ok(LoginStep::Prove(Challenge::Nothing))));
            let _ = login.prove(Proof::Accepted);
        }
        let said = message(b'E', |out| {
            out.put_u8(b'C');
            put_text(out, code);
            out.put_u8(0);
        });
        input.put_slice(&said);
        let Ok(LoginStep::Refused { answer, .. }) = login.step(&mut input) else { panic!("a refusal") };
        assert!(answer.as_ref().is_none_or(|answer| *answer == said));
        answer.is_some()
    };
    assert!(answered("3D000", true), "a database that does not exist");
    assert!(answered("57P03", false), "a server that starts up");
    assert!(!answered("28P01", false), "our password");
    assert!(!answered("3D000", false), "before it knows us");
    assert!(!answered("28000", true), "a role that may not log in");
}

#[test]
fn a_newer_client_is_told_what_is_spoken() {
    let mut decoder = PostgresDecoder::new(
        still(),
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    let mut packet = startup((3 << 16) | 9, &[("user", "a"), ("_pq_.new", "1")]);
    let Ok(Step::Open(opening)) = decoder.step(Side::Client, &mut packet) else { panic!("an opening") };
    let mut login = Postgres.login(&Principal::default(), &opening, UpstreamTls::Plaintext);
    let mut input = BytesMut::new();
    let Ok(LoginStep::Send(sent)) = login.step(&mut input) else { panic!("the start-up packet") };
    assert!(!sent.windows(4).any(|part| part == b"_pq_"));
    input.put_slice(&message(b'v', |out| {
        out.put_u32(3 << 16);
        out.put_u32(0);
    }));
    input.put_slice(&message(b'R', |out| out.put_u32(0)));
    assert!(matches!(login.step(&mut input), Ok(LoginStep::Prove(Challenge::Nothing))));
    let _ = login.prove(Proof::Accepted);
    for (name, value) in [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")] {
        input.put_slice(&message(b'S', |out| {
            put_text(out, name);
            put_text(out, value);
        }));
    }
    input.put_slice(&ready(b'I'));
    let Ok(LoginStep::Ready(greeting)) = login.step(&mut input) else { panic!("ready") };
    let said = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
    assert!(said.starts_with(b"v"), "before AuthenticationOk");
    assert!(said.windows(8).any(|part| part == b"_pq_.new"));
}

#[test]
fn a_refusal_while_idle_stays_here() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("VACUUM; SELECT 1"));
    assert_eq!(held.actions().len(), 2);
    let Refusal { client: said, upstream: sent } = decoder.refuse(held.number(), &denial());
    assert!(sent.is_empty());
    assert!(said.starts_with(b"E") && said.ends_with(&ready(b'I')));
    assert!(said.windows(5).any(|part| part == b"42501"));
    assert!(said.windows(8).any(|part| part == b"record 9"));
    assert!(decoder.is_idle());
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let answer = [complete("SELECT 1"), ready(b'I')].concat();
    let (bytes, done) = upstream(&mut decoder, &answer);
    assert_eq!(bytes, answer);
    assert_eq!((done[0].status, done[0].rows), (OutcomeStatus::Completed, Some(1)));
}

#[test]
fn a_refusal_in_a_transaction_fails_it_upstream() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("BEGIN"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let _ = upstream(&mut decoder, &[complete("BEGIN"), ready(b'T')].concat());
    let held = asked(&mut decoder, &query("NOTIFY x"));
    let Refusal { client: said, upstream: sent } = decoder.refuse(held.number(), &denial());
    assert!(said.is_empty() && sent.starts_with(b"Q"));
    let (bytes, done) = upstream(&mut decoder, &[error("42601"), ready(b'E')].concat());
    assert!(bytes.windows(5).any(|part| part == b"42501") && !bytes.windows(5).any(|part| part == b"42601"));
    assert!(bytes.ends_with(&ready(b'E')) && done.is_empty());
}

#[test]
fn statements_behind_a_failure_are_skipped() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("SELECT 1; SELECT 2; SELECT 3"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let (_, done) = upstream(&mut decoder, &[complete("SELECT 1"), error("22012"), ready(b'I')].concat());
    let how: Vec<_> = done.iter().map(|done| (done.place, done.status)).collect();
    assert_eq!(how, [(0, OutcomeStatus::Completed), (1, OutcomeStatus::Failed), (2, OutcomeStatus::Skipped)]);
    assert_eq!(done[1].code.as_deref(), Some("22012"));
}

#[test]
fn more_answers_than_statements_end_the_session() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let mut input = BytesMut::from(&[complete("SELECT 1"), complete("DROP TABLE")].concat()[..]);
    assert!(decoder.step(Side::Upstream, &mut input).is_err());
}

#[test]
fn names_are_looked_up_by_flush_inside_a_pipeline_and_by_sync_outside() {
    let parse = |name: &str, text: &str| {
        message(b'P', |out| {
            put_text(out, name);
            put_text(out, text);
            out.put_u16(0);
        })
    };
    let mut decoder = session();
    let Step::Enquire(held) = client(&mut decoder, &parse("a", "SELECT * FROM t")) else {
        panic!("a look-up")
    };
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    assert!(matches!(client(&mut decoder, b""), Step::Wait), "the client is held");
    let mut answer = BytesMut::new();
    answer.put_slice(&[message(b'1', |_| {}), message(b'2', |_| {})].concat());
    answer.put_slice(&message(b'D', |out| {
        out.put_u16(7);
        for value in ["s", "0", "db", "role", "UTF8", "on", ""] {
            put_value(out, Some(value.as_bytes()));
        }
    }));
    answer.put_slice(
        &[complete("SELECT 1"), message(b'3', |_| {}), message(b'3', |_| {}), ready(b'I')].concat(),
    );
    let (bytes, done) = upstream(&mut decoder, &answer);
    assert!(bytes.is_empty(), "the client sees nothing of it");
    assert_eq!((done.len(), done[0].exchange), (1, held.number()));
    let held = asked(&mut decoder, b"");
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    // In the same pipeline, another name: not by Sync.
    let Step::Enquire(held) = client(&mut decoder, &parse("b", "SELECT * FROM u")) else {
        panic!("a look-up")
    };
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    // The first Parse fails: the server passes the look-up over, and the names stay unknown.
    let (_, done) = upstream(&mut decoder, &error("42P01"));
    assert_eq!(
        done.iter().map(|done| done.status).collect::<Vec<_>>(),
        [OutcomeStatus::Failed, OutcomeStatus::Skipped]
    );
    let held = asked(&mut decoder, b"");
    assert!(why(&held.actions()[0]).contains("earlier message"));
    let refusal = decoder.refuse(held.number(), &denial());
    assert!(refusal.client.is_empty());
    assert!(matches!(client(&mut decoder, &message(b'S', |_| {})), Step::Pass(_)));
    let (bytes, done) = upstream(&mut decoder, &ready(b'I'));
    assert_eq!((&*bytes, done.len()), (&*ready(b'I'), 0), "the refused one has its outcome from the gate");
    assert!(decoder.is_idle());
}

#[test]
fn behind_a_refused_parse_its_bind_and_execute_are_dropped() {
    let mut decoder = session();
    let held = asked(&mut decoder, &message(b'P', |out| out.put_slice(b"\0SELECT 1\0\0\0")));
    assert!(decoder.refuse(held.number(), &denial()).upstream.starts_with(b"P"));
    let bind = message(b'B', |out| out.put_slice(&[0; 8]));
    assert!(matches!(client(&mut decoder, &bind), Step::Pass(bytes) if bytes.is_empty()));
    let execute = message(b'E', |out| out.put_slice(&[0; 5]));
    assert!(matches!(client(&mut decoder, &execute), Step::Pass(bytes) if bytes.is_empty()));
    assert!(matches!(client(&mut decoder, &message(b'S', |_| {})), Step::Pass(bytes) if bytes.len() == 5));
    let (bytes, _) = upstream(&mut decoder, &[error("42601"), ready(b'I')].concat());
    assert!(bytes.windows(5).any(|part| part == b"42501") && bytes.ends_with(&ready(b'I')));
    assert!(matches!(client(&mut decoder, &execute), Step::Ask(_)), "the next pipeline is judged again");
}

#[test]
fn unknown_names_are_unknown() {
    let mut decoder = session();
    let bind = message(b'B', |out| {
        out.put_slice(b"\0nobody\0");
        out.put_slice(&[0; 6]);
    });
    assert!(why(&asked(&mut decoder, &bind).actions()[0]).contains("no prepared statement"));
    let mut decoder = session();
    let execute = message(b'E', |out| out.put_slice(b"nobody\0\0\0\0\0"));
    assert!(why(&asked(&mut decoder, &execute).actions()[0]).contains("no portal"));
    let mut decoder = session();
    assert!(why(&asked(&mut decoder, &query("FETCH ALL FROM nobody")).actions()[0]).contains("no cursor"));
    assert!(decoder.refuse(1, &denial()).client.ends_with(&ready(b'I')));
}

#[test]
fn a_call_by_number_is_judged_by_its_function_with_its_values() {
    let mut decoder = session();
    let held = asked(&mut decoder, &call(953));
    let [action] = held.actions() else { panic!("{held:?}") };
    let Target::Function(function) = &action.facts.effects[0].target else { panic!("{action:?}") };
    assert_eq!((action.phase, action.facts.effects[0].verb), (Phase::Execute, Verb::FunctionCall));
    assert_eq!((&*function.schema, &*function.name, function.oid), ("pg_catalog", "lo_close", Some(953)));
    assert_eq!(action.binds[0].value.as_deref(), Some("7"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let answer = [message(b'V', |out| put_value(out, Some(&[0; 4]))), ready(b'I')].concat();
    let (bytes, done) = upstream(&mut decoder, &answer);
    assert_eq!((bytes.len(), done[0].status), (answer.len(), OutcomeStatus::Completed));
    let mut short = BytesMut::from(&b"F\0\0\0\x08\0\0\x03\xb9"[..]);
    assert!(decoder.step(Side::Client, &mut short).is_err());
}

#[test]
fn a_large_bind_passes_as_it_comes_and_is_told() {
    let mut decoder = session();
    let held = asked(&mut decoder, &message(b'P', |out| out.put_slice(b"\0SELECT $1\0\0\0")));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let (portal, statement, formats) = (b"\0", b"\0", [0, 0, 0, 1]);
    let mut head = BytesMut::from(&[&portal[..], statement, &formats].concat()[..]);
    let length = 300_000_000_u32;
    head.put_u32(length);
    let total = 4 + u32::try_from(head.len()).expect("short") + length + 2;
    let mut input = BytesMut::from(&b"B"[..]);
    input.put_u32(total);
    input.put_slice(&head);
    let mut left = usize::try_from(length).expect("64 bits");
    let mut passed = 0;
    while left > 0 {
        let part = left.min(1 << 20);
        input.put_slice(&vec![b'x'; part]);
        left -= part;
        if left == 0 {
            input.put_slice(&[0, 0]);
        }
        loop {
            match decoder.step(Side::Client, &mut input).expect("a step") {
                Step::Pass(bytes) => passed += bytes.len(),
                Step::Wait => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(input.is_empty());
    }
    assert_eq!(passed, usize::try_from(total).expect("64 bits") + 1);
    let held = asked(&mut decoder, &message(b'E', |out| out.put_slice(&[0; 5])));
    let bind = &held.actions()[0].binds[0];
    assert_eq!((bind.value.as_deref(), bind.cut_from), (Some(&*"x".repeat(1024)), Some(length.into())));
}

#[test]
fn a_large_bind_of_nothing_known_is_not_taken() {
    let mut decoder = session();
    let mut input = BytesMut::from(&b"B\x10\0\0\0\0nobody\0"[..]);
    input.put_slice(&vec![0; 200_000]);
    assert!(decoder.step(Side::Client, &mut input).is_err());
}

#[test]
fn a_setting_that_changes_reading_ends_it() {
    let mut decoder = session();
    let (_, _) = upstream(
        &mut decoder,
        &message(b'S', |out| {
            put_text(out, "standard_conforming_strings");
            put_text(out, "off");
        }),
    );
    assert!(
        why(&asked(&mut decoder, &query("SELECT 1")).actions()[0]).contains("standard_conforming_strings")
    );
}

#[test]
fn rows_stream_through_without_being_gathered() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let mut input = BytesMut::from(&b"D\x10\0\0\0"[..]);
    for _ in 0..100 {
        input.put_slice(&[7; 4096]);
        match decoder.step(Side::Upstream, &mut input) {
            Ok(Step::Answer { .. }) => assert!(input.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn our_own_names_are_not_the_clients() {
    let mut decoder = session();
    let close = message(b'C', |out| out.put_slice(b"S_interceptor_1\0"));
    assert!(decoder.step(Side::Client, &mut BytesMut::from(&*close)).is_err());
}

#[test]
fn the_fuzzers_entries_hold_on_the_corpus() {
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/postgres/corpus")).expect("a corpus")
    {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        let bytes: Vec<u8> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(_, bytes)| hex::decode(bytes).ok())
            .flatten()
            .collect();
        super::fuzz_client(&bytes);
        super::fuzz_upstream(&bytes);
    }
}

#[test]
fn a_goodbye_leaves_the_answers_under_way_to_come() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    assert!(matches!(client(&mut decoder, &message(b'X', |_| {})), Step::Close(_)));
    assert!(matches!(client(&mut decoder, &query("SELECT 2")), Step::Wait));
    let answer = [complete("SELECT 1"), ready(b'I')].concat();
    let (bytes, done) = upstream(&mut decoder, &answer);
    assert_eq!(bytes, answer);
    assert_eq!(done[0].status, OutcomeStatus::Completed);
}

#[test]
fn a_fatal_error_closes_once() {
    let mut decoder = session();
    let held = asked(&mut decoder, &query("SELECT 1"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let fatal = message(b'E', |out| {
        for (kind, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "57P01"), (b'M', "gone")] {
            out.put_u8(kind);
            put_text(out, text);
        }
        out.put_u8(0);
    });
    let mut input = BytesMut::from(&*fatal);
    let step = decoder.step(Side::Upstream, &mut input).expect("a step");
    let Step::Answer { bytes, done } = step else { panic!("{step:?}") };
    assert_eq!((bytes, done[0].status), (fatal, OutcomeStatus::Unknown));
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Close(_))));
    for _ in 0..3 {
        assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Wait)));
    }
}

#[test]
fn errors_that_quote_values_are_told_by_their_code_alone() {
    for (code, told) in [("42P01", Some("sorry")), ("22P02", None), ("23505", None), ("42601", None)] {
        let mut decoder = session();
        let held = asked(&mut decoder, &query("SELECT 1"));
        decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let (_, done) = upstream(&mut decoder, &[error(code), ready(b'I')].concat());
        assert_eq!((done[0].code.as_deref(), done[0].message.as_deref()), (Some(code), told));
    }
}

mod known;
