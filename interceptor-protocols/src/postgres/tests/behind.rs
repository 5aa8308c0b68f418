//! What is to wait for people, sent before the answers to what stands before it have come.

use interceptor_core::{mask::Mask, permit::Waits};

use super::*;

/// A Close of a statement, as drivers send it when they drop one, and its Sync.
fn dropped() -> Bytes {
    let close = message(b'C', |out| {
        out.put_u8(b'S');
        put_text(out, "s1");
    });
    [close, message(b'S', |_| {})].concat().into()
}

/// The server's answer to [`dropped`].
fn closed(status: u8) -> Bytes {
    [message(b'3', |_| {}), ready(status)].concat().into()
}

/// A statement that is prepared, bound and executed, without its Sync.
fn extended(text: &str) -> [Bytes; 3] {
    let parse = message(b'P', |out| {
        put_text(out, "");
        put_text(out, text);
        out.put_u16(0);
    });
    let bind = message(b'B', |out| {
        put_text(out, "");
        put_text(out, "");
        out.put_slice(&[0; 6]);
    });
    let execute = message(b'E', |out| {
        put_text(out, "");
        out.put_u32(0);
    });
    [parse, bind, execute]
}

/// Sends this, in which nothing is judged.
fn passes(decoder: &mut PostgresDecoder, bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    while !input.is_empty() {
        let step = decoder.step(Side::Client, &mut input).expect("a step");
        assert!(matches!(step, Step::Pass(_)), "{step:?}");
    }
}

/// What is held is put off, and asked again when `answer` has come, byte by byte.
fn then(decoder: &mut PostgresDecoder, held: &Held, answer: &[u8]) -> Held {
    assert_eq!(held.circumstances().waits, Waits::Behind);
    decoder.again(held.number());
    let mut said = BytesMut::new();
    for byte in answer {
        assert!(matches!(client(decoder, b""), Step::Wait), "it is asked before it is known");
        said.put_u8(*byte);
        while !matches!(decoder.step(Side::Upstream, &mut said).expect("a step"), Step::Wait) {}
    }
    let again = asked(decoder, b"");
    assert_eq!(again.actions()[0].text, held.actions()[0].text);
    again
}

#[test]
fn a_query_is_asked_again_when_it_is_known_that_no_transaction_is_open() {
    let mut decoder = session();
    passes(&mut decoder, &dropped());
    let held = asked(&mut decoder, &query("BEGIN"));
    let again = then(&mut decoder, &held, &closed(b'I'));
    assert_eq!(again.circumstances().waits, Waits::Here);
}

/// What comes behind it is not put off, too: where the server waits for data of the client's, nothing would go on.
#[test]
fn it_is_put_off_once_and_nothing_else_is() {
    let mut decoder = session();
    passes(&mut decoder, &dropped());
    let held = asked(&mut decoder, &query("BEGIN"));
    let again = then(&mut decoder, &held, &closed(b'I'));
    decoder.sent(again.number(), Mask::Nothing);
    passes(&mut decoder, &dropped());
}

#[test]
fn a_query_behind_the_beginning_of_a_transaction_is_in_it() {
    let mut decoder = session();
    let begin = asked(&mut decoder, &query("BEGIN"));
    assert_eq!(begin.circumstances().waits, Waits::Here);
    decoder.sent(begin.number(), Mask::Nothing);
    let held = asked(&mut decoder, &query("LISTEN a"));
    let again = then(&mut decoder, &held, &[complete("BEGIN"), ready(b'T')].concat());
    assert_eq!(again.circumstances().waits, Waits::InTransaction);
}

#[test]
fn an_execute_is_asked_again_when_what_was_sent_before_its_stretch_is_answered() {
    let mut decoder = session();
    passes(&mut decoder, &dropped());
    let [parse, bind, execute] = extended("BEGIN");
    let prepare = asked(&mut decoder, &parse);
    decoder.sent(prepare.number(), Mask::Nothing);
    passes(&mut decoder, &bind);
    let held = asked(&mut decoder, &execute);
    let again = then(&mut decoder, &held, &closed(b'I'));
    assert_eq!(again.circumstances().waits, Waits::Here);
}

#[test]
fn an_execute_behind_another_of_its_stretch_is_in_its_transaction() {
    let mut decoder = session();
    let [parse, bind, execute] = extended("LISTEN a");
    let prepare = asked(&mut decoder, &parse);
    decoder.sent(prepare.number(), Mask::Nothing);
    passes(&mut decoder, &bind);
    let first = asked(&mut decoder, &execute);
    decoder.sent(first.number(), Mask::Nothing);
    passes(&mut decoder, &bind);
    assert_eq!(asked(&mut decoder, &execute).circumstances().waits, Waits::InTransaction);
}
