//! Entries for the fuzzer: any bytes on either side. They return nothing; a panic, an abort or a decoder that makes
//! no progress is the finding.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    model::Spent,
    permit::Denial,
    protocol::{CancelKey, Decoder, Epoch, Greeting, Side, Step},
};

use super::decode::PostgresDecoder;

/// How many steps one input may take, several to a byte: more means no progress.
fn budget(data: &[u8]) -> usize {
    data.len().saturating_mul(4).saturating_add(64)
}

fn denial() -> Denial {
    Denial { record: None, rule: "fuzz".to_owned(), message: "refused".to_owned(), hint: "none".to_owned() }
}

fn opened() -> PostgresDecoder {
    let mut decoder = PostgresDecoder::new(Arc::new(Epoch::new(|| 0)));
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let key = CancelKey { process: 1, secret: Bytes::from_static(b"four") };
    let _ = decoder.opened(&greeting, &key);
    decoder
}

/// Gives one side `data` until it waits, errs, or closes; the other side stays silent. Every second exchange is
/// refused.
fn drive(decoder: &mut PostgresDecoder, side: Side, data: &[u8]) {
    let mut input = BytesMut::from(data);
    for turn in 0..budget(data) {
        let step = decoder.step(side, &mut input);
        let held = match step {
            Ok(Step::Ask(held) | Step::Enquire(held)) => held,
            Ok(Step::Open(opening)) => {
                let _ = decoder.refuse(opening.held.number(), &denial());
                return;
            }
            Ok(Step::Wait | Step::Hold | Step::Close(_) | Step::Cancel(_)) | Err(_) => return,
            Ok(Step::Pause { .. }) => {
                let _ = decoder.stop(&denial());
                decoder.allow(Spent::UNLIMITED);
                continue;
            }
            Ok(_) => continue,
        };
        if turn % 2 == 0 {
            decoder.sent(held.number());
        } else {
            let _ = decoder.refuse(held.number(), &denial());
        }
    }
    assert!(input.is_empty(), "the decoder makes no progress");
}

/// A session in which the server copies in.
fn copying() -> PostgresDecoder {
    let mut decoder = opened();
    let mut client = BytesMut::from(&b"Q\0\0\0\x16COPY t FROM STDIN\0"[..]);
    while let Ok(step @ (Step::Ask(_) | Step::Enquire(_))) = decoder.step(Side::Client, &mut client) {
        match step {
            Step::Ask(held) => decoder.sent(held.number()),
            Step::Enquire(held) => drop(decoder.refuse(held.number(), &denial())),
            _ => return decoder,
        }
    }
    let _ = decoder.step(Side::Upstream, &mut BytesMut::from(&b"G\0\0\0\x07\0\0\0"[..]));
    decoder
}

/// The client's side: `data` as a connection's first bytes, as bytes within a session, and while the server copies in.
pub fn fuzz_client(data: &[u8]) {
    drive(&mut PostgresDecoder::new(Arc::new(Epoch::new(|| 0))), Side::Client, data);
    drive(&mut opened(), Side::Client, data);
    drive(&mut copying(), Side::Client, data);
}

/// The upstream's side: `data` as answers to a session in which something of each kind is under way, and as the
/// answers to a log-in; once more with an answer that is cut.
pub fn fuzz_upstream(data: &[u8]) {
    let mut client = BytesMut::new();
    client.put_slice(b"Q\0\0\0\x0dSELECT 1\0");
    client.put_slice(b"Q\0\0\0\x1eCOPY (SELECT 1) TO STDOUT\0");
    client.put_slice(b"P\0\0\0\x10\0SELECT 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
    for rows in [u64::MAX, 1] {
        let mut decoder = opened();
        drive(&mut decoder, Side::Client, &client);
        decoder.allow(Spent { rows, ..Spent::UNLIMITED });
        drive(&mut decoder, Side::Upstream, data);
    }
    super::login::fuzz(data);
}
