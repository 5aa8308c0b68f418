//! COPY: what is held, what streams, what is dropped.

use super::*;

/// A session in which `text` was asked, permitted and sent, and nothing has answered yet.
fn asked_copy(text: &str) -> (PostgresDecoder, u64) {
    let mut decoder = session();
    let number = match client(&mut decoder, &query(text)) {
        Step::Ask(held) => held.number(),
        Step::Enquire(held) => {
            // The judge of names is no part of this: what it would have said does not matter.
            let number = held.number();
            let refusal = decoder.refuse(number, &denial());
            assert!(refusal.client.is_empty() && refusal.upstream.is_empty());
            asked(&mut decoder, b"").number()
        }
        other => panic!("{other:?}"),
    };
    decoder.sent(number, interceptor_core::mask::Mask::Nothing);
    (decoder, number)
}

fn begins(tag: u8) -> Bytes {
    message(tag, |out| out.put_slice(&[0, 0, 0]))
}

fn data(text: &str) -> Bytes {
    message(b'd', |out| out.put_slice(text.as_bytes()))
}

fn ends() -> Bytes {
    message(b'c', |_| {})
}

fn sync() -> Bytes {
    message(b'S', |_| {})
}

fn is_held(decoder: &mut PostgresDecoder, bytes: &[u8]) -> bool {
    let mut input = BytesMut::from(bytes);
    let step = decoder.step(Side::Client, &mut input).expect("a step");
    assert_eq!(input, bytes);
    matches!(step, Step::Hold)
}

/// Whether the message is judged, or its names looked up, at once.
fn goes_on(decoder: &mut PostgresDecoder, bytes: &[u8]) -> bool {
    matches!(client(decoder, bytes), Step::Ask(_) | Step::Enquire(_))
}

/// Everything that goes on of the client's bytes.
fn passed(decoder: &mut PostgresDecoder, bytes: &[u8]) -> Bytes {
    let mut input = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    loop {
        match decoder.step(Side::Client, &mut input).expect("a step") {
            Step::Pass(bytes) => out.put_slice(&bytes),
            Step::Wait => return out.freeze(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn data_waits_for_the_server_and_then_streams() {
    let (mut decoder, number) = asked_copy("COPY t FROM STDIN");
    assert!(is_held(&mut decoder, &data("1\n")));
    let (bytes, _) = upstream(&mut decoder, &begins(b'G'));
    assert_eq!(bytes, begins(b'G'));
    let all = [data("1\n"), data(&"x".repeat(100_000)), data(""), ends()].concat();
    // A part of a message is enough to go on.
    let (first, rest) = all.split_at(50_000);
    assert_eq!(passed(&mut decoder, first), first);
    assert_eq!(passed(&mut decoder, rest), rest);
    let (_, done) = upstream(&mut decoder, &[complete("COPY 2"), ready(b'I')].concat());
    assert_eq!((done[0].exchange, done[0].status, done[0].rows), (number, OutcomeStatus::Completed, Some(2)));
    assert!(done[0].bytes > 100_000);
    assert!(decoder.is_idle());
}

#[test]
fn a_step_reads_a_message_and_while_data_streams_all_of_it() {
    let pipeline = [sync(), query("SELECT 1"), sync()].concat();
    assert_eq!(session().next_reads(&pipeline), sync().len());
    assert_eq!(session().next_reads(&query("SELECT 1")[..3]), 3);
    let (mut decoder, _) = asked_copy("COPY t FROM STDIN");
    upstream(&mut decoder, &begins(b'G'));
    let rows = data("1\n").repeat(100);
    assert_eq!(decoder.next_reads(&rows), rows.len());
    assert_eq!(passed(&mut decoder, &rows), rows);
}

#[test]
fn what_the_server_sends_streams_and_is_counted() {
    let (mut decoder, _) = asked_copy("COPY t TO STDOUT");
    let mut answer = BytesMut::from(&[begins(b'H'), data("1\n")].concat()[..]);
    answer.put_slice(b"d\x10\0\0\0");
    let step = decoder.step(Side::Upstream, &mut answer);
    assert!(matches!(step, Ok(Step::Answer { .. })) && answer.is_empty());
    for _ in 0..(0x1000_0000 - 4) / (1 << 16) {
        let (bytes, _) = upstream(&mut decoder, &[0; 1 << 16]);
        assert_eq!(bytes.len(), 1 << 16);
    }
    let left = (0x1000_0000 - 4) % (1 << 16);
    let answer = [&vec![0; left][..], &ends(), &complete("COPY 2"), &ready(b'I')].concat();
    let (bytes, done) = upstream(&mut decoder, &answer);
    assert_eq!(bytes.len(), answer.len());
    assert_eq!((done[0].status, done[0].rows), (OutcomeStatus::Completed, Some(2)));
    assert!(done[0].bytes > 0x1000_0000);
}

#[test]
fn flush_and_sync_end_here_while_the_server_copies_in() {
    let mut decoder = session();
    let parse = message(b'P', |out| out.put_slice(b"\0COPY t FROM STDIN\0\0\0"));
    let Step::Enquire(held) = client(&mut decoder, &parse) else { panic!("a look-up") };
    let _ = decoder.refuse(held.number(), &denial());
    let held = asked(&mut decoder, b"");
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let bind = message(b'B', |out| out.put_slice(&[0; 8]));
    assert_eq!(passed(&mut decoder, &bind), bind);
    let execute = message(b'E', |out| out.put_slice(&[0; 5]));
    let held = asked(&mut decoder, &execute);
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    assert!(is_held(&mut decoder, &sync()));
    let answer = [message(b'1', |_| {}), message(b'2', |_| {}), begins(b'G')].concat();
    assert_eq!(upstream(&mut decoder, &answer).0, answer);
    assert!(passed(&mut decoder, &[sync(), message(b'H', |_| {})].concat()).is_empty());
    let all = [data("1\n"), ends(), sync()].concat();
    assert_eq!(passed(&mut decoder, &all), all);
    let (_, done) = upstream(&mut decoder, &[complete("COPY 1"), ready(b'I')].concat());
    assert_eq!(done.last().map(|done| (done.status, done.rows)), Some((OutcomeStatus::Completed, Some(1))));
    assert!(decoder.is_idle());
}

#[test]
fn what_comes_after_a_failure_goes_nowhere() {
    let (mut decoder, _) = asked_copy("COPY t FROM STDIN");
    let _ = upstream(&mut decoder, &begins(b'G'));
    let head = &data("not a number\n")[..9];
    assert_eq!(passed(&mut decoder, head), head);
    let (_, done) = upstream(&mut decoder, &[error("22P02"), ready(b'I')].concat());
    assert_eq!(done[0].status, OutcomeStatus::Failed);
    // The message that was begun is completed; the server would lose the thread otherwise.
    let rest = &data("not a number\n")[9..];
    assert_eq!(passed(&mut decoder, rest), rest);
    let stray = [data("2\n"), data(&"x".repeat(100_000)), ends()].concat();
    let (first, more) = stray.split_at(5_000);
    assert!(passed(&mut decoder, first).is_empty() && !decoder.is_idle());
    assert!(passed(&mut decoder, more).is_empty() && decoder.is_idle());
    let _ = asked(&mut decoder, &query("SELECT 1"));
}

#[test]
fn a_batch_copies_as_often_as_it_says() {
    let (mut decoder, _) = asked_copy("COPY a FROM STDIN; SELECT 1; COPY b FROM STDIN");
    for rows in [1, 2] {
        assert!(is_held(&mut decoder, &data("1\n")));
        let _ = upstream(&mut decoder, &begins(b'G'));
        let all = [data("1\n"), ends()].concat();
        assert_eq!(passed(&mut decoder, &all), all);
        let mut answer = vec![complete(&format!("COPY {rows}"))];
        if rows == 1 {
            assert!(is_held(&mut decoder, &query("SELECT 2")), "another may follow");
            answer.push(complete("SELECT 1"));
        } else {
            assert!(goes_on(&mut decoder, &query("SELECT 2")));
            answer.push(ready(b'I'));
        }
        let (_, done) = upstream(&mut decoder, &answer.concat());
        assert_eq!((done[0].status, done[0].rows), (OutcomeStatus::Completed, Some(rows)));
    }
}

#[test]
fn a_command_in_the_middle_of_a_copy_ends_the_session() {
    for bytes in [query("SELECT 1"), message(b'P', |out| out.put_slice(b"\0SELECT 1\0\0\0"))] {
        let (mut decoder, _) = asked_copy("COPY t FROM STDIN");
        let _ = upstream(&mut decoder, &begins(b'G'));
        let mut input = BytesMut::from(&bytes[..]);
        assert!(decoder.step(Side::Client, &mut input).is_err());
    }
}

/// The server keeps the end of an Execute to itself until a Sync or Flush, and a Sync behind what may be a COPY is held.
#[test]
fn what_could_not_be_read_is_flushed_before_its_sync_is_held() {
    let mut decoder = session();
    for (tag, body) in [(b'P', &b"\0SELECT $$\0\0\0"[..]), (b'B', &[0; 8]), (b'E', &[0; 5])] {
        let mut input = BytesMut::from(&message(tag, |out| out.put_slice(body))[..]);
        loop {
            match decoder.step(Side::Client, &mut input).expect("a step") {
                Step::Ask(held) => decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing),
                // The judge of names is no part of this.
                Step::Enquire(held) => drop(decoder.refuse(held.number(), &denial())),
                Step::Pass(_) => {}
                Step::Wait => break,
                other => panic!("{other:?}"),
            }
        }
    }
    let mut input = BytesMut::from(&sync()[..]);
    let step = decoder.step(Side::Client, &mut input).expect("a step");
    assert!(matches!(&step, Step::Pass(bytes) if **bytes == *b"H\0\0\0\x04"), "{step:?}");
    assert!(is_held(&mut decoder, &sync()), "once is enough");
    for tag in [b'1', b'2', b'I'] {
        let _ = upstream(&mut decoder, &message(tag, |_| {}));
    }
    assert_eq!(passed(&mut decoder, &sync()), sync());
}

#[test]
fn nothing_is_held_where_no_copy_can_begin() {
    for text in ["SELECT 1", "COPY t TO STDOUT", "COPY t FROM '/tmp/x'", "COPY t FROM PROGRAM 'x'"] {
        let (mut decoder, _) = asked_copy(text);
        assert!(passed(&mut decoder, &data("1\n")).is_empty(), "{text}");
        assert!(goes_on(&mut decoder, &query("SELECT 1")), "{text}");
    }
    // A refused one that the server fails itself.
    let mut decoder = session();
    let held = asked(&mut decoder, &query("BEGIN"));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let _ = asked(&mut decoder, &query("SELECT 1"));
    let _ = decoder.refuse(2, &denial());
    assert!(passed(&mut decoder, &data("1\n")).is_empty());
}

#[test]
fn a_copy_that_was_not_asked_for_is_the_upstreams_fault() {
    let cases = [
        ("SELECT 1", begins(b'G')),
        ("SELECT 1", begins(b'H')),
        ("COPY t FROM STDIN", begins(b'H')),
        ("COPY t TO STDOUT", begins(b'G')),
        ("COPY t TO STDOUT", data("1\n")),
        ("COPY t TO STDOUT", [begins(b'H'), complete("COPY 1")].concat().into()),
        ("COPY t FROM STDIN", [begins(b'G'), complete("COPY 1")].concat().into()),
        ("COPY t FROM STDIN", begins(b'W')),
    ];
    for (text, answer) in cases {
        let (mut decoder, _) = asked_copy(text);
        let mut input = BytesMut::from(&answer[..]);
        let first = decoder.step(Side::Upstream, &mut input);
        assert!(first.is_err() || decoder.step(Side::Upstream, &mut input).is_err(), "{text} {answer:?}");
    }
}
