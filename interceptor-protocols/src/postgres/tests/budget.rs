//! Answers that are cut: what passes before, what the client gets instead, and where the session is left.

use interceptor_core::model::Spent;

use super::*;

/// Of a row with one value `x`.
fn row() -> Bytes {
    message(b'D', |out| {
        out.put_i16(1);
        put_value(out, Some(b"x"));
    })
}

fn rows(count: usize) -> Bytes {
    row().repeat(count).into()
}

fn may_pass(rows: u64) -> Spent {
    Spent { rows, ..Spent::UNLIMITED }
}

/// What came of the upstream's bytes: for the client, back to the upstream, and how exchanges ended.
#[derive(Debug, Default)]
struct Came {
    client: BytesMut,
    back: BytesMut,
    done: Vec<Done>,
    paused: Option<(u64, usize)>,
}

impl Came {
    fn statuses(&self) -> Vec<(u64, OutcomeStatus)> {
        self.done.iter().map(|done| (done.exchange, done.status)).collect()
    }
}

/// Lets the upstream say `input` until the decoder waits or pauses.
fn hear(decoder: &mut PostgresDecoder, input: &mut BytesMut) -> Came {
    let mut came = Came::default();
    loop {
        match decoder.step(Side::Upstream, input).expect("a step") {
            Step::Answer { bytes, done } => {
                came.client.put_slice(&bytes);
                came.done.extend(done);
            }
            Step::Reply(bytes) => came.back.put_slice(&bytes),
            Step::Pause { exchange, place } => {
                came.paused = Some((exchange, place));
                return came;
            }
            Step::Wait => return came,
            other => panic!("{other:?}"),
        }
    }
}

fn tags(bytes: &[u8]) -> String {
    let (mut tags, mut rest) = (String::new(), bytes);
    while let [tag, a, b, c, d, ..] = *rest {
        tags.push(char::from(tag));
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).expect("small");
        rest = &rest[length + 1..];
    }
    tags
}

/// A session in which this text was sent; its status is as given.
fn asked_for(text: &str, status: u8) -> (PostgresDecoder, u64) {
    let mut decoder = session();
    if status == b'T' {
        let begin = asked(&mut decoder, &query("BEGIN"));
        decoder.sent(begin.number(), interceptor_core::mask::Mask::Nothing);
        hear(&mut decoder, &mut BytesMut::from(&*[complete("BEGIN"), ready(b'T')].concat()));
    }
    let held = asked(&mut decoder, &query(text));
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    (decoder, held.number())
}

/// `SELECT 1`, of which three rows may pass; five come.
fn cut_after_three(status: u8) -> (PostgresDecoder, BytesMut, Came) {
    let (mut decoder, number) = asked_for("SELECT 1", status);
    let mut input = BytesMut::from(&*[message(b'T', |out| out.put_i16(0)), rows(5)].concat());
    decoder.allow(may_pass(3));
    let came = hear(&mut decoder, &mut input);
    assert_eq!(tags(&came.client), "TDDD");
    assert_eq!(came.paused, Some((number, 0)));
    assert_eq!((decoder.passed().rows, decoder.passed().rows), (3, 0));
    let stopped = decoder.stop(&denial());
    assert_eq!(tags(&stopped.client), "E");
    let done = stopped.done.expect("it ended");
    assert_eq!((done.exchange, done.status, done.rows), (number, OutcomeStatus::Failed, Some(3)));
    assert_eq!(done.code.as_deref(), Some("42501"));
    (decoder, input, came)
}

#[test]
fn a_result_is_cut_at_a_row_and_nothing_of_it_follows() {
    // The server is stopped in time, or has answered everything already.
    for end in [error("57014"), complete("SELECT 5")] {
        let (mut decoder, mut input, _) = cut_after_three(b'I');
        input.put_slice(&[rows(1000), end, ready(b'I')].concat());
        let came = hear(&mut decoder, &mut input);
        assert_eq!((tags(&came.client).as_str(), tags(&came.back).as_str()), ("Z", ""));
        assert_eq!(decoder.passed(), Spent::default());
        assert!(decoder.is_idle());
        let next = asked(&mut decoder, &query("SELECT 1"));
        decoder.sent(next.number(), interceptor_core::mask::Mask::Nothing);
        decoder.allow(Spent::UNLIMITED);
        let mut input = BytesMut::from(&*[rows(2), complete("SELECT 2"), ready(b'I')].concat());
        assert_eq!(tags(&hear(&mut decoder, &mut input).client), "DDCZ");
    }
}

#[test]
fn rows_go_nowhere_however_they_are_cut_into_pieces() {
    let whole = [rows(40), error("57014"), ready(b'I')].concat();
    for piece in 1..whole.len().min(40) {
        let (mut decoder, mut input, _) = cut_after_three(b'I');
        let mut client = BytesMut::new();
        for part in whole.chunks(piece) {
            input.put_slice(part);
            client.put_slice(&hear(&mut decoder, &mut input).client);
        }
        assert_eq!(tags(&client), "Z", "in pieces of {piece}");
    }
}

#[test]
fn a_transaction_fails_with_a_result_that_was_cut() {
    // The server failed it itself.
    let (mut decoder, mut input, _) = cut_after_three(b'T');
    input.put_slice(&[error("57014"), ready(b'E')].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), tags(&came.back).as_str()), ("Z", ""));
    // It was done before it could be stopped: it is made to fail, and only then the client goes on.
    let (mut decoder, mut input, _) = cut_after_three(b'T');
    input.put_slice(&[complete("SELECT 5"), ready(b'T')].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), tags(&came.back).as_str()), ("", "Q"));
    let mut input = BytesMut::from(&*[error("42601"), ready(b'E')].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!(came.client, ready(b'E'));
    assert!(came.done.is_empty());
}

#[test]
fn a_caller_that_lets_it_go_on_is_asked_again_at_the_next_threshold() {
    let (mut decoder, number) = asked_for("SELECT 1", b'I');
    let mut input = BytesMut::from(&*[rows(5), complete("SELECT 5"), ready(b'I')].concat());
    decoder.allow(may_pass(2));
    assert_eq!(hear(&mut decoder, &mut input).paused, Some((number, 0)));
    decoder.allow(may_pass(3));
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), came.paused), ("DDDCZ", None));
    assert_eq!(came.statuses(), [(number, OutcomeStatus::Completed)]);
    assert_eq!(decoder.passed().rows, 5);
}

#[test]
fn bytes_count_too() {
    let (mut decoder, number) = asked_for("SELECT 1", b'I');
    let mut input = BytesMut::from(&*rows(5));
    let length = u64::try_from(row().len()).expect("small");
    decoder.allow(Spent { bytes: 2 * length, ..Spent::UNLIMITED });
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), came.paused), ("DD", Some((number, 0))));
    assert_eq!(decoder.passed().bytes, 2 * length);
}

#[test]
fn changed_rows_are_asked_about_where_they_can_still_be_undone() {
    let room = Spent { changed: 10, ..Spent::UNLIMITED };
    // Outside of a transaction they are done: they only count.
    let (mut decoder, number) = asked_for("VALUES (1)", b'I');
    decoder.allow(room);
    let mut input = BytesMut::from(&*[complete("DELETE 20"), ready(b'I')].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), came.paused), ("CZ", None));
    assert_eq!(came.statuses(), [(number, OutcomeStatus::Completed)]);
    assert_eq!(decoder.passed().changed, 20);
    // Inside, the transaction fails.
    let (mut decoder, number) = asked_for("VALUES (1)", b'T');
    decoder.allow(room);
    let mut input = BytesMut::from(&*[complete("DELETE 20"), ready(b'T')].concat());
    assert_eq!(hear(&mut decoder, &mut input).paused, Some((number, 0)));
    assert_eq!(decoder.passed().changed, 20);
    assert_eq!(tags(&decoder.stop(&denial()).client), "E");
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), tags(&came.back).as_str()), ("", "Q"));
    let mut input = BytesMut::from(&*[error("42601"), ready(b'E')].concat());
    assert_eq!(hear(&mut decoder, &mut input).client, ready(b'E'));
    // A caller that says yes is asked once, and they count once.
    let (mut decoder, number) = asked_for("VALUES (1)", b'T');
    decoder.allow(room);
    let mut input = BytesMut::from(&*[complete("DELETE 20"), ready(b'T')].concat());
    assert_eq!(hear(&mut decoder, &mut input).paused, Some((number, 0)));
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), came.paused), ("CZ", None));
    assert_eq!(decoder.passed().changed, 20);
}

#[test]
fn the_rest_of_a_batch_is_told_of_as_it_ends() {
    let (mut decoder, number) = asked_for("SELECT 1; SELECT 2", b'I');
    let mut input = BytesMut::from(&*rows(5));
    decoder.allow(may_pass(3));
    assert_eq!(hear(&mut decoder, &mut input).paused, Some((number, 0)));
    let _ = decoder.stop(&denial());
    input.put_slice(&[error("57014"), ready(b'I')].concat());
    let came = hear(&mut decoder, &mut input);
    assert!(came.done.contains(&Done { place: 1, ..skipped(number) }), "{came:?}");
    assert_eq!(tags(&came.client), "Z");
}

fn skipped(exchange: u64) -> Done {
    Done {
        exchange,
        place: 0,
        status: OutcomeStatus::Skipped,
        rows: None,
        bytes: 0,
        code: None,
        message: None,
        recorded: None,
    }
}

#[test]
fn an_execute_is_cut_and_its_pipeline_passed_over_until_sync() {
    let parse = message(b'P', |out| {
        put_text(out, "");
        put_text(out, "SELECT 1");
        out.put_i16(0);
    });
    let bind = message(b'B', |out| {
        put_text(out, "");
        put_text(out, "");
        (0..3).for_each(|_| out.put_i16(0));
    });
    let execute = message(b'E', |out| {
        put_text(out, "");
        out.put_i32(0);
    });
    let sync = message(b'S', |_| {});
    for answered in [error("57014"), complete("SELECT 5")] {
        let mut decoder = session();
        let prepare = asked(&mut decoder, &parse);
        decoder.sent(prepare.number(), interceptor_core::mask::Mask::Nothing);
        assert!(matches!(client(&mut decoder, &bind), Step::Pass(_)));
        let held = asked(&mut decoder, &execute);
        decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        decoder.allow(may_pass(3));
        let parsed = [message(b'1', |_| {}), message(b'2', |_| {})].concat();
        let mut input = BytesMut::from(&*[parsed, rows(5).to_vec()].concat());
        let came = hear(&mut decoder, &mut input);
        assert_eq!((tags(&came.client).as_str(), came.paused), ("12DDD", Some((held.number(), 0))));
        assert_eq!(tags(&decoder.stop(&denial()).client), "E");
        // What the client sends before Sync, the server would have passed over.
        let mut more = BytesMut::from(&*[&*bind, &*execute].concat());
        assert!(
            matches!(decoder.step(Side::Client, &mut more).expect("a step"), Step::Pass(bytes) if bytes.is_empty())
                || more.is_empty()
        );
        assert!(matches!(client(&mut decoder, &sync), Step::Pass(bytes) if bytes == sync));
        input.put_slice(&[answered, ready(b'I')].concat());
        let came = hear(&mut decoder, &mut input);
        assert_eq!(tags(&came.client), "Z");
        assert!(came.done.iter().all(|done| done.exchange != held.number()), "told twice: {came:?}");
        assert!(decoder.is_idle());
    }
}

#[test]
fn more_room_does_not_stand_for_an_answer() {
    let (mut decoder, number) = asked_for("SELECT 1", b'I');
    let mut input = BytesMut::from(&*rows(5));
    decoder.allow(may_pass(3));
    let Step::Answer { bytes, .. } = decoder.step(Side::Upstream, &mut input).expect("a step") else {
        panic!()
    };
    assert_eq!(tags(&bytes), "DDD");
    decoder.allow(may_pass(1));
    assert_eq!(hear(&mut decoder, &mut input).paused, Some((number, 0)));
}

#[test]
fn what_a_copy_streams_out_is_cut_and_one_behind_a_cut_gets_no_data() {
    let (mut decoder, number) = asked_for("COPY (VALUES (1)) TO STDOUT", b'I');
    let begins = |tag| {
        message(tag, |out| {
            out.put_u8(0);
            out.put_i16(0);
        })
    };
    let data = message(b'd', |out| out.put_slice(b"1\n"));
    decoder.allow(may_pass(2));
    let mut input = BytesMut::from(&*[begins(b'H'), data.repeat(5).into()].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), came.paused), ("Hdd", Some((number, 0))));
    assert_eq!(tags(&decoder.stop(&denial()).client), "E");
    let end = [message(b'c', |_| {}), complete("COPY 5"), ready(b'I')].concat();
    input.put_slice(&end);
    assert_eq!(tags(&hear(&mut decoder, &mut input).client), "Z");
    // The server had gone on to the next statement of the batch, and waits for data.
    let (mut decoder, _) = asked_for("no text that can be read", b'I');
    decoder.allow(may_pass(1));
    let mut input = BytesMut::from(&*rows(2));
    assert!(hear(&mut decoder, &mut input).paused.is_some());
    let _ = decoder.stop(&denial());
    input.put_slice(&[complete("SELECT 2"), begins(b'G')].concat());
    let came = hear(&mut decoder, &mut input);
    assert_eq!((tags(&came.client).as_str(), tags(&came.back).as_str()), ("", "f"));
    input.put_slice(&[error("57014"), ready(b'I')].concat());
    assert_eq!(tags(&hear(&mut decoder, &mut input).client), "Z");
}
