//! Entries for the fuzzer: any bytes on either side. They return nothing; a panic, an abort, a decoder that makes no
//! progress, that depends on how its input was cut, or that sends on other bytes than it took, is the finding.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    Terms,
    catalogue::Catalogue,
    mask::{Labelled, Mask, Tokens},
    model::{Actions, ExchangeDigest, Spent},
    permit::{Denial, Held},
    protocol::{CancelKey, DecodeError, Decoder, Endings, Greeting, Side, Step},
};

use super::{copy::FLUSH, decode::PostgresDecoder, frame};

/// How many steps one input may take, several to a byte: more means no progress.
fn budget(data: &[u8]) -> usize {
    data.len().saturating_mul(4).saturating_add(64)
}

fn denial() -> Denial {
    Denial { record: None, rule: "fuzz".to_owned(), message: "refused".to_owned(), hint: "none".to_owned() }
}

fn opened() -> PostgresDecoder {
    let mut decoder =
        PostgresDecoder::new(Arc::new(Catalogue::new(|| 0)), Labelled::nothing("r"), Tokens::default());
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let key = CancelKey { process: 1, secret: Bytes::from_static(b"four") };
    let _ = decoder.opened(&greeting, &key);
    decoder
}

/// Which exchanges are permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permitted {
    All,
    EverySecond,
}

/// All that a decoder did with one side's bytes.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// Sent on without a question, or to the client.
    passed: Vec<u8>,
    replied: Vec<u8>,
    asked: Vec<(ExchangeDigest, Actions)>,
    done: Endings,
    /// Why it stopped, unless it only waits.
    end: Option<String>,
}

/// Gives one side `data`, `cut` bytes at a time, until it waits, errs, or closes; the other side stays silent.
fn drive(decoder: &mut PostgresDecoder, side: Side, data: &[u8], cut: usize, permitted: Permitted) -> Seen {
    let mut seen = Seen::default();
    let mut input = BytesMut::new();
    let mut steps = budget(data);
    // How much of the client's bytes was sent on, and how much was taken.
    let (mut forwarded, mut fed) = (0, 0);
    for part in data.chunks(cut) {
        input.put_slice(part);
        fed += part.len();
        while seen.end.is_none() {
            assert!(steps > 0, "the decoder makes no progress");
            steps -= 1;
            let step = decoder.step(side, &mut input);
            let taken = fed.saturating_sub(input.len());
            let sent = match step {
                Ok(Step::Wait) => break,
                Ok(Step::Pass(bytes)) => {
                    seen.passed.put_slice(&bytes);
                    Held::new(0, Vec::new(), bytes).digest()
                }
                Ok(Step::Ask(held)) => {
                    let digest = held.digest();
                    seen.asked.push((digest, held.actions().into()));
                    if permitted == Permitted::All || held.number() % 2 == 0 {
                        decoder.sent(held.number(), Mask::Nothing);
                    } else {
                        let _ = decoder.refuse(held.number(), &denial());
                    }
                    digest
                }
                other => {
                    if matches!(other, Ok(Step::Reply(_))) {
                        forwarded = taken;
                    }
                    seen.other(decoder, other);
                    continue;
                }
            };
            let came = data.get(forwarded..taken).unwrap_or_default();
            if side == Side::Client && permitted == Permitted::All {
                assert!(is_what_came(came, sent), "what is sent on is what came");
            }
            forwarded = taken;
        }
    }
    seen
}

/// Whether what was sent on is `came` but for messages that may be dropped before it: what is said of a COPY; or a Flush
/// of our own.
fn is_what_came(mut came: &[u8], sent: ExchangeDigest) -> bool {
    if sent == Held::new(0, Vec::new(), Bytes::from_static(FLUSH)).digest() {
        return true;
    }
    while Held::new(0, Vec::new(), Bytes::copy_from_slice(came)).digest() != sent {
        match frame::head(came) {
            // Of one that is not whole yet, what is there is dropped.
            Ok(Some(head)) if b"dcfSH".contains(&head.tag) => {
                came = came.get(head.total..).unwrap_or_default()
            }
            _ => return false,
        }
    }
    true
}

impl Seen {
    /// Notes a step that sends nothing of the client's on.
    fn other(&mut self, decoder: &mut PostgresDecoder, step: Result<Step, DecodeError>) {
        match step {
            Ok(Step::Enquire(held)) => {
                self.asked.push((held.digest(), held.actions().into()));
                decoder.sent(held.number(), Mask::Nothing);
            }
            Ok(Step::Reply(bytes)) => self.replied.put_slice(&bytes),
            Ok(Step::Answer { bytes, done }) => {
                self.passed.put_slice(&bytes);
                self.done.extend(done);
            }
            Ok(Step::StartTls(_)) => {}
            Ok(Step::Pause { .. } | Step::Exceeds { .. }) => {
                let _ = decoder.stop(&denial());
                decoder.allow(Spent::UNLIMITED);
            }
            Ok(Step::Open(opening)) => {
                let _ = decoder.refuse(opening.held.number(), &denial());
                self.end = Some("opened".to_owned());
            }
            Ok(other) => self.end = Some(format!("{other:?}")),
            Err(error) => self.end = Some(error.to_string()),
        }
    }
}

/// A session in which the server copies in.
fn copying() -> PostgresDecoder {
    let mut decoder = opened();
    let mut client = BytesMut::from(&b"Q\0\0\0\x16COPY t FROM STDIN\0"[..]);
    while let Ok(step @ (Step::Ask(_) | Step::Enquire(_))) = decoder.step(Side::Client, &mut client) {
        match step {
            Step::Ask(held) => decoder.sent(held.number(), Mask::Nothing),
            Step::Enquire(held) => drop(decoder.refuse(held.number(), &denial())),
            _ => return decoder,
        }
    }
    let _ = decoder.step(Side::Upstream, &mut BytesMut::from(&b"G\0\0\0\x07\0\0\0"[..]));
    decoder
}

/// A session in which the server has ended a COPY with an error, so that data may still come.
fn broken() -> PostgresDecoder {
    let mut decoder = copying();
    let mut failed = BytesMut::from(&b"E\0\0\0\x17SERROR\0C22P02\0Mno\0\0Z\0\0\0\x05I"[..]);
    while let Ok(Step::Answer { .. }) = decoder.step(Side::Upstream, &mut failed) {}
    decoder
}

/// The client's side: `data` as a connection's first bytes, as bytes within a session, while the server copies in, and
/// after it has failed to.
pub fn fuzz_client(data: &[u8]) {
    let whole = data.len().max(1);
    let mut new =
        PostgresDecoder::new(Arc::new(Catalogue::new(|| 0)), Labelled::nothing("r"), Tokens::default());
    drive(&mut new, Side::Client, data, whole, Permitted::EverySecond);
    drive(&mut opened(), Side::Client, data, whole, Permitted::All);
    drive(&mut copying(), Side::Client, data, whole, Permitted::All);
    drive(&mut broken(), Side::Client, data, whole, Permitted::All);
    same_however_cut(opened, Side::Client, data, Permitted::EverySecond);
}

/// Gives `data` to two new decoders, whole and cut: as it says itself, so that mutation finds the ways.
fn same_however_cut(new: fn() -> PostgresDecoder, side: Side, data: &[u8], permitted: Permitted) {
    let cut = data.last().map_or(1, |byte| usize::from(byte % 16).saturating_add(1));
    let mut whole = drive(&mut new(), side, data, data.len().max(1), permitted);
    let mut cut = drive(&mut new(), side, data, cut, permitted);
    if whole.end.is_some() {
        // What came together with the fault may end with it.
        let passed = whole.passed.len().min(cut.passed.len());
        let done = whole.done.len().min(cut.done.len());
        for seen in [&mut whole, &mut cut] {
            seen.passed.truncate(passed);
            seen.done.truncate(done);
        }
    }
    assert_eq!(whole, cut, "the same however it is cut");
}

/// The upstream's side: `data` as answers to a session in which something of each kind is under way, while it copies in,
/// and as the answers to a log-in; once more with an answer that a budget ends.
pub fn fuzz_upstream(data: &[u8]) {
    let mut bounded = under_way();
    bounded.allow(Spent { rows: 1, ..Spent::UNLIMITED });
    drive(&mut bounded, Side::Upstream, data, data.len().max(1), Permitted::All);
    same_however_cut(under_way, Side::Upstream, data, Permitted::All);
    same_however_cut(copying, Side::Upstream, data, Permitted::All);
    same_however_cut(enclosed, Side::Upstream, data, Permitted::All);
    super::login::fuzz(data);
}

/// A session with a query and a pipeline under way.
fn under_way() -> PostgresDecoder {
    let mut decoder = opened();
    let mut client = BytesMut::new();
    client.put_slice(b"Q\0\0\0\x0dSELECT 1\0");
    client.put_slice(b"Q\0\0\0\x1eCOPY (SELECT 1) TO STDOUT\0");
    client.put_slice(b"P\0\0\0\x10\0SELECT 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
    drive(&mut decoder, Side::Client, &client, client.len(), Permitted::All);
    decoder
}

/// A session in which a change goes within terms, in a transaction of our own.
pub(super) fn enclosed() -> PostgresDecoder {
    let mut decoder = opened();
    let mut client = BytesMut::from(&b"Q\0\0\0\x12DELETE FROM t\0"[..]);
    let values = |row: [&str; 7]| {
        let mut body = BytesMut::from(&[0, 7][..]);
        row.iter().for_each(|value| frame::put_value(&mut body, Some(value.as_bytes())));
        message(b'D', &body)
    };
    let rows = [
        values(["s", "0", "d", "r", "UTF8", "on", "read committed"]),
        values(["r", "1", "public", "t", "20000", "r", "false"]),
    ];
    // What a look-up brings serves for BEGIN too, which takes any tag.
    let (before, after) = ([b'1', b'2'].map(|tag| message(tag, b"")), message(b'3', b""));
    let begins = [before.concat(), message(b'C', b"BEGIN\0").to_vec(), after.repeat(2)].concat();
    let names =
        [before.concat(), rows.concat(), message(b'C', b"SELECT 2\0").to_vec(), after.repeat(2)].concat();
    let mut answers =
        [[names, message(b'Z', b"I").to_vec()].concat(), [begins, message(b'Z', b"T").to_vec()].concat()]
            .into_iter();
    let mut enclosed = false;
    while let Ok(step @ (Step::Ask(_) | Step::Enquire(_))) = decoder.step(Side::Client, &mut client) {
        match step {
            Step::Ask(held) if std::mem::replace(&mut enclosed, true) => {
                decoder.sent(held.number(), Mask::Nothing)
            }
            Step::Ask(held) => decoder.enclose(held.number(), Terms { rows: Some(2), undo: None }),
            Step::Enquire(held) => {
                decoder.sent(held.number(), Mask::Nothing);
                let mut answer = BytesMut::from(&*answers.next().unwrap_or_default());
                while let Ok(Step::Answer { .. }) = decoder.step(Side::Upstream, &mut answer) {}
            }
            _ => return decoder,
        }
    }
    decoder
}

fn message(tag: u8, body: &[u8]) -> Bytes {
    let mut out = frame::Writer::default();
    out.message(tag, |out| out.put_slice(body));
    out.finish()
}

/// How the messages in `data` are framed: type and total length of each, up to what is malformed or not whole.
pub fn frames(data: &[u8]) -> Vec<(u8, usize)> {
    let mut rest = data;
    let mut found = Vec::new();
    while let Ok(Some(head)) = frame::head(rest) {
        let Some(next) = rest.get(head.total..) else { break };
        found.push((head.tag, head.total));
        rest = next;
    }
    found
}
