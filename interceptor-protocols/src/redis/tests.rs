//! What a session does that no transcript has: log-ins, budgets, masks, long values, what is never sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    mask::{Detector, Form, Hiding, Label, LabelSet, Labelled, Labels, Mask, MaskKey},
    model::{OutcomeStatus, Principal, Spent, Verb},
    permit::{Denial, Held, Waits},
    protocol::{
        CancelKey, Challenge, Decoder, Done, Greeting, Login, LoginStep, Proof, Side, Step, UpstreamTls,
    },
};
use zeroize::Zeroizing;

use super::{
    command::{HEAD, written},
    decode::RedisDecoder,
    login::RedisLogin,
};

fn denial() -> Denial {
    Denial { record: None, rule: "r".into(), message: "no".into(), hint: "Stop.".into() }
}

const REFUSED: &[u8] = b"-NOPERM interceptor: no (rule r). Stop.\r\n";

fn opened() -> RedisDecoder {
    let mut decoder = RedisDecoder::new(Labelled::nothing("r"));
    let mut input = BytesMut::from(&b"*"[..]);
    assert!(matches!(decoder.step(Side::Client, &mut input), Ok(Step::Open(_))));
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let given = CancelKey { process: 1, secret: Bytes::from_static(b"four") };
    assert!(decoder.opened(&greeting, &given).is_empty());
    decoder
}

fn line(line: &str) -> BytesMut {
    BytesMut::from(&*written(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()))
}

/// What the client is asked about after it has sent `text`.
fn ask(decoder: &mut RedisDecoder, text: &str) -> Held {
    match decoder.step(Side::Client, &mut line(text)) {
        Ok(Step::Ask(held)) => held,
        other => panic!("{text}: {other:?}"),
    }
}

fn send(decoder: &mut RedisDecoder, text: &str) -> Bytes {
    send_with(decoder, text, Mask::Nothing)
}

fn send_with(decoder: &mut RedisDecoder, text: &str, mask: Mask) -> Bytes {
    let held = ask(decoder, text);
    let number = held.number();
    let bytes = crate::conformance::release(held);
    decoder.sent(number, mask);
    bytes
}

/// What the client gets of what the upstream says, and what ended.
fn answer(decoder: &mut RedisDecoder, said: &[u8]) -> (Vec<u8>, Vec<Done>) {
    let mut input = BytesMut::from(said);
    let (mut out, mut ended) = (Vec::new(), Vec::new());
    loop {
        match decoder.step(Side::Upstream, &mut input).expect("well formed") {
            Step::Answer { bytes, done } => {
                out.extend_from_slice(&bytes);
                ended.extend(done);
            }
            Step::Wait => return (out, ended),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_clients_log_in_is_answered_here_and_in_its_place() {
    let mut decoder = opened();
    match decoder.step(Side::Client, &mut line("AUTH whoever secret")) {
        Ok(Step::Reply(bytes)) => assert_eq!(bytes, "+OK\r\n"),
        other => panic!("{other:?}"),
    }
    send(&mut decoder, "GET a");
    assert!(
        matches!(decoder.step(Side::Client, &mut line("AUTH secret")), Ok(Step::Reply(b)) if b.is_empty())
    );
    send(&mut decoder, "GET b");
    let (out, done) = answer(&mut decoder, b"$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(out, b"$1\r\na\r\n+OK\r\n$1\r\nb\r\n");
    assert_eq!(done.len(), 2);
    let hello = ask(&mut decoder, "HELLO 3 AUTH whoever secret");
    let text = format!("{:?}", hello.actions());
    assert!(!text.contains("secret") && !text.contains("whoever"), "{text}");
    assert_eq!(&crate::conformance::release(hello)[..], &line("HELLO 3")[..]);
}

#[test]
fn what_is_never_sent_is_not_sent_even_where_it_is_permitted() {
    for text in ["MONITOR", "CLIENT REPLY OFF", "RESET", "SYNC", "SCRIPT DEBUG YES"] {
        let mut decoder = opened();
        let held = ask(&mut decoder, text);
        assert!(held.actions().iter().all(|action| action.facts.unknown.is_some()), "{text}");
        let bytes = crate::conformance::release(held);
        assert!(bytes.starts_with(b"*2\r\n$19\r\nINTERCEPTOR.REFUSED\r\n"), "{text}: {bytes:?}");
    }
    for text in ["AUTH u secret", "HELLO 3 AUTH u secret", "SUBSCRIBE c"] {
        let mut decoder = opened();
        send(&mut decoder, "MULTI");
        let bytes = send(&mut decoder, text);
        assert!(bytes.starts_with(b"*2\r\n$19\r\nINTERCEPTOR.REFUSED\r\n"), "{text}: {bytes:?}");
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"), "{text}");
    }
}

#[test]
fn a_refusal_within_a_transaction_spoils_it_and_keeps_its_place() {
    let mut decoder = opened();
    send(&mut decoder, "MULTI");
    send(&mut decoder, "SET a 1");
    let held = ask(&mut decoder, "SET b 1");
    assert_eq!(held.circumstances().waits, Waits::InTransaction);
    let refusal = decoder.refuse(held.number(), &denial());
    assert!(refusal.client.is_empty() && refusal.upstream.starts_with(b"*2\r\n$19\r\nINTERCEPTOR.REFUSED"));
    send(&mut decoder, "EXEC");
    let said = b"+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT Transaction discarded\r\n";
    let (out, done) = answer(&mut decoder, said);
    let expected = [&b"+OK\r\n+QUEUED\r\n"[..], REFUSED, b"-EXECABORT Transaction discarded\r\n"].concat();
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    let statuses: Vec<_> = done.iter().map(|done| done.status).collect();
    assert_eq!(statuses, [OutcomeStatus::Completed, OutcomeStatus::Skipped, OutcomeStatus::Failed]);
    assert_eq!(done.last().and_then(|done| done.code.as_deref()), Some("EXECABORT"));
    assert!(decoder.is_idle());
    // EXEC itself.
    send(&mut decoder, "MULTI");
    let held = ask(&mut decoder, "EXEC");
    let refusal = decoder.refuse(held.number(), &denial());
    assert_eq!(&refusal.upstream[..], &line("DISCARD")[..]);
    assert_eq!(answer(&mut decoder, b"+OK\r\n+OK\r\n").0, [b"+OK\r\n", REFUSED].concat());
    assert!(decoder.is_idle());
}

#[test]
fn answers_of_a_transaction_are_each_its_own() {
    let mut decoder = opened();
    for text in ["MULTI", "SET a x", "INCR a", "LRANGE l 0 -1", "EXEC"] {
        send(&mut decoder, text);
    }
    let said = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n-ERR not an integer\r\n*2\r\n$1\r\na\r\n*0\r\n";
    let (out, done) = answer(&mut decoder, said);
    assert_eq!(out, said);
    let told: Vec<_> = done.iter().map(|done| (done.exchange, done.status)).collect();
    let [multi, set, incr, lrange, exec] = told.as_slice() else { panic!("{told:?}") };
    assert!(multi.0 < set.0 && set.0 < incr.0 && incr.0 < lrange.0 && lrange.0 < exec.0);
    assert_eq!(
        (set.1, incr.1, lrange.1),
        (OutcomeStatus::Completed, OutcomeStatus::Failed, OutcomeStatus::Completed)
    );
}

#[test]
fn a_held_command_is_asked_again_and_not_lost() {
    let mut decoder = opened();
    let first = ask(&mut decoder, "GET a");
    decoder.again(first.number());
    match decoder.step(Side::Client, &mut BytesMut::new()) {
        Ok(Step::Ask(second)) => {
            assert_eq!(first.digest(), second.digest());
            assert!(second.number() > first.number());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_value_passes_behind_its_head_or_not_at_all() {
    let head = |text: &str| {
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\n{text}\r\n$8388608\r\n").into_bytes();
        bytes.extend(std::iter::repeat_n(b'x', HEAD));
        BytesMut::from(&bytes[..])
    };
    let tail = vec![b'x'; 8_388_608 - HEAD];
    let rest = [&tail[..], b"\r\n"].concat();
    for permitted in [Verb::DataInsert, Verb::Unknown] {
        let mut decoder = opened();
        let mut input = head("k");
        let Ok(Step::Ask(held)) = decoder.step(Side::Client, &mut input) else {
            panic!("its head is judged")
        };
        assert_eq!(held.circumstances().waits, Waits::Never);
        assert!(
            held.actions().iter().all(|action| action.text.contains("[of 8388608 bytes, the first 65536"))
        );
        if permitted == Verb::DataInsert {
            decoder.sent(held.number(), Mask::Nothing);
        } else {
            let refusal = decoder.refuse(held.number(), &denial());
            assert_eq!(refusal.client, REFUSED);
        }
        let mut input = BytesMut::from(&rest[..]);
        input.extend_from_slice(&line("GET a"));
        match decoder.step(Side::Client, &mut input) {
            Ok(Step::Pass(bytes)) => {
                assert_eq!((permitted, bytes.len()), (Verb::DataInsert, rest.len()));
            }
            Ok(Step::Reply(bytes)) => assert_eq!((permitted, bytes.len()), (Verb::Unknown, 0)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(decoder.step(Side::Client, &mut input), Ok(Step::Ask(_))), "the next is judged");
    }
}

#[test]
fn nothing_goes_along_with_a_goodbye() {
    let mut decoder = opened();
    let held = ask(&mut decoder, "QUIT with something");
    assert!(held.actions()[0].facts.unknown.is_some());
    let sent = crate::conformance::release(held);
    assert!(!sent.windows(9).any(|part| part == b"something"), "{sent:?}");
    decoder = opened();
    let mut input = BytesMut::from(&*written(&[b"QUIT"]));
    assert!(matches!(decoder.step(Side::Client, &mut input), Ok(Step::Close(_))));
}

#[test]
fn a_budget_ends_an_answer_before_it_or_with_the_session() {
    let rows = |rows| Spent { rows, ..Spent::UNLIMITED };
    let mut decoder = opened();
    send(&mut decoder, "GET a");
    decoder.allow(rows(0));
    let mut input = BytesMut::from(&b"$1\r\na\r\n"[..]);
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Pause { place: 0, .. })));
    let stopped = decoder.stop(&denial());
    assert_eq!(stopped.client, REFUSED);
    assert_eq!(stopped.done.map(|done| done.status), Some(OutcomeStatus::Failed));
    decoder.allow(Spent::UNLIMITED);
    assert_eq!(answer(&mut decoder, b"$1\r\na\r\n"), (Vec::new(), Vec::new()), "it is swallowed");
    send(&mut decoder, "LRANGE l 0 -1");
    decoder.allow(rows(2));
    let mut input = BytesMut::from(&b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"[..]);
    match decoder.step(Side::Upstream, &mut input) {
        Ok(Step::Answer { bytes, done }) => {
            assert_eq!((&bytes[..], done.len()), (&b"*3\r\n$1\r\na\r\n$1\r\nb\r\n"[..], 0));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.passed().rows, 2);
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Pause { .. })));
    let stopped = decoder.stop(&denial());
    assert!(stopped.client.is_empty() && stopped.done.is_some_and(|done| done.rows == Some(2)));
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Close(_))));
}

#[test]
fn what_may_go_on_after_a_pause_does() {
    let mut decoder = opened();
    send(&mut decoder, "LRANGE l 0 -1");
    decoder.allow(Spent { rows: 1, ..Spent::UNLIMITED });
    let mut input = BytesMut::from(&b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"[..]);
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Answer { .. })));
    assert!(matches!(decoder.step(Side::Upstream, &mut input), Ok(Step::Pause { .. })));
    decoder.allow(Spent::UNLIMITED);
    match decoder.step(Side::Upstream, &mut input) {
        Ok(Step::Answer { bytes, done }) => assert_eq!((&bytes[..], done.len()), (&b"$1\r\nb\r\n"[..], 1)),
        other => panic!("{other:?}"),
    }
}

fn hiding() -> Mask {
    let label = Label {
        name: "ssn".to_owned(),
        columns: Vec::new(),
        detect: vec![Detector::UsSsn],
        form: Form::Redact,
    };
    let labels = Labels::new("r", vec![label]).expect("labels");
    Mask::Of(Arc::new(Hiding::new(Arc::new(labels), LabelSet::ALL, &MaskKey::new([0; 32]))))
}

#[test]
fn what_is_hidden_is_covered_wherever_it_stands() {
    let mut decoder = opened();
    for (said, shown) in [
        ("$14\r\nis 123-45-6789\r\n", "$8\r\nis [ssn]\r\n"),
        ("*2\r\n$11\r\n123-45-6789\r\n*1\r\n+123-45-6789\r\n", "*2\r\n$5\r\n[ssn]\r\n*1\r\n+[ssn]\r\n"),
        ("-ERR 123-45-6789\r\n", "-ERR [ssn]\r\n"),
        ("%1\r\n$11\r\n123-45-6789\r\n:1\r\n", "%1\r\n$5\r\n[ssn]\r\n:1\r\n"),
        ("=15\r\ntxt:123-45-6789\r\n", "=9\r\ntxt:[ssn]\r\n"),
        ("$4\r\nnone\r\n", "$4\r\nnone\r\n"),
        ("$-1\r\n", "$-1\r\n"),
    ] {
        for piece in [1, 5, said.len()] {
            send_with(&mut decoder, "GET a", hiding());
            let mut input = BytesMut::new();
            let mut out = Vec::new();
            for part in said.as_bytes().chunks(piece) {
                input.extend_from_slice(part);
                while let Ok(Step::Answer { bytes, .. }) = decoder.step(Side::Upstream, &mut input) {
                    out.extend_from_slice(&bytes);
                }
            }
            assert_eq!(String::from_utf8_lossy(&out), shown, "{said:?} in pieces of {piece}");
        }
    }
    send_with(&mut decoder, "GET a", hiding());
    let long = [format!("${}\r\n", 2 << 20).as_bytes(), &vec![b'x'; 2 << 20], b"\r\n"].concat();
    let (out, _) = answer(&mut decoder, &long);
    assert_eq!(out, b"$27\r\n[masked: longer than 1 MiB]\r\n");
    // Messages are looked through as what was asked last is.
    send_with(&mut decoder, "SUBSCRIBE c", hiding());
    answer(&mut decoder, b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let (out, done) = answer(&mut decoder, b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$11\r\n123-45-6789\r\n");
    assert!(out.ends_with(b"$5\r\n[ssn]\r\n") && done.is_empty());
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_session() {
    let mut decoder = opened();
    assert!(decoder.step(Side::Upstream, &mut BytesMut::from(&b"+OK\r\n"[..])).is_err());
    assert_eq!(decoder.farewell(&denial()), REFUSED);
}

#[test]
fn tls_begins_once_and_at_once() {
    let mut decoder = RedisDecoder::new(Labelled::nothing("r"));
    let mut input = BytesMut::from(&[0x16, 3, 1][..]);
    assert!(matches!(decoder.step(Side::Client, &mut input), Ok(Step::StartTls(bytes)) if bytes.is_empty()));
    assert!(matches!(decoder.step(Side::Client, &mut input), Ok(Step::Open(_))));
}

/// Plays a log-in; what is sent, and how it ends.
fn log_in(user: &str, says: &[&str]) -> (Vec<u8>, String) {
    let principal = Principal { user: user.to_owned(), ..Principal::default() };
    let mut login = RedisLogin::new(&principal, UpstreamTls::Required);
    let (mut input, mut sent, mut says) = (BytesMut::new(), Vec::new(), says.iter());
    assert!(matches!(login.step(&mut input), Ok(LoginStep::StartTls)), "nothing goes before TLS");
    let mut step = login.step(&mut input);
    loop {
        step = match step {
            Ok(LoginStep::Send(bytes)) => {
                sent.extend_from_slice(&bytes);
                login.step(&mut input)
            }
            Ok(LoginStep::Wait) => {
                let Some(said) = says.next() else { return (sent, "waits".to_owned()) };
                input.extend_from_slice(said.as_bytes());
                login.step(&mut input)
            }
            Ok(LoginStep::Prove(Challenge::Cleartext)) => {
                login.prove(Proof::Response(Zeroizing::new(b"hunter2".to_vec())))
            }
            Ok(LoginStep::Prove(Challenge::Nothing)) => login.prove(Proof::Accepted),
            Ok(LoginStep::Ready(_)) => return (sent, "ready".to_owned()),
            Ok(LoginStep::Refused { code, answer, .. }) => {
                return (sent, format!("{code} {}", answer.is_some()));
            }
            other => return (sent, format!("{other:?}")),
        };
    }
}

#[test]
fn a_password_goes_where_it_is_wanted_or_another_user_is() {
    let ping = line("PING").to_vec();
    let auth = |user: &str| [ping.clone(), line(&format!("AUTH {user} hunter2")).to_vec()].concat();
    let noauth = "-NOAUTH Authentication required.\r\n";
    for (user, says, sent, end) in [
        ("app", &[noauth, "+OK\r\n"][..], auth("app"), "ready"),
        ("app", &["+PONG\r\n", "+OK\r\n"], auth("app"), "ready"),
        ("default", &["-NOAU", "TH x\r\n", "+OK\r\n"], auth("default"), "ready"),
        ("default", &["+PONG\r\n"], ping.clone(), "ready"),
        ("app", &[noauth, "-WRONGPASS invalid\r\n"], auth("app"), "WRONGPASS false"),
        ("app", &["-LOADING Redis is loading\r\n"], ping.clone(), "LOADING true"),
        ("app", &["-DENIED protected mode\r\n"], ping.clone(), "DENIED false"),
    ] {
        assert_eq!(log_in(user, says), (sent, end.to_owned()), "{user} {says:?}");
    }
    assert!(log_in("app", &["HTTP/1.1 400\r\n"]).1.contains("not Redis'"));
}
