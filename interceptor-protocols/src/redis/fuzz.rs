//! Entries for the fuzzer: any bytes on either side. They return nothing; a panic, an abort, a decoder that makes no
//! progress, that depends on how its input was cut, or that sends on other bytes than it was given leave for, is the
//! finding.

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    mask::{Labelled, Mask},
    model::{Principal, Spent},
    protocol::{CancelKey, Decoder, Greeting, Side, Step, UpstreamTls},
};

use crate::fuzzing::{self, Seen, denial};

use super::{command::written, decode::RedisDecoder, login::RedisLogin};

fn opened() -> RedisDecoder {
    let mut decoder = RedisDecoder::new(Labelled::nothing("r"));
    let _ = decoder.step(Side::Client, &mut BytesMut::from(&b"*"[..]));
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
    decoder
}

/// Gives one side `data`, `cut` bytes at a time, until it waits, errs, or closes; every third exchange is refused.
fn drive(decoder: &mut RedisDecoder, side: Side, data: &[u8], cut: usize) -> Seen {
    let mut seen = Seen::default();
    let mut input = BytesMut::new();
    let mut steps = data.len().saturating_mul(4).saturating_add(256);
    for part in data.chunks(cut.max(1)) {
        input.put_slice(part);
        while seen.end.is_none() {
            assert!(steps > 0, "the decoder makes no progress");
            steps -= 1;
            match decoder.step(side, &mut input) {
                Ok(Step::Wait | Step::Hold) => break,
                Ok(Step::Pass(bytes) | Step::Reply(bytes)) => seen.passed.put_slice(&bytes),
                Ok(Step::Ask(held)) => {
                    seen.told.push(format!("{:?} {:?}", held.digest(), held.actions()));
                    let number = held.number();
                    if number % 3 == 0 {
                        let refusal = decoder.refuse(number, &denial());
                        seen.passed.put_slice(&refusal.client);
                        seen.passed.put_slice(&refusal.upstream);
                    } else {
                        decoder.sent(number, Mask::Nothing);
                    }
                }
                Ok(Step::Answer { bytes, done }) => {
                    seen.passed.put_slice(&bytes);
                    seen.told.extend(done.iter().map(|done| format!("{done:?}")));
                }
                Ok(Step::StartTls(_)) => {}
                Ok(Step::Pause { .. }) => {
                    let _ = decoder.stop(&denial());
                    decoder.allow(Spent::UNLIMITED);
                }
                Ok(other) => seen.end = Some(format!("{other:?}")),
                Err(error) => seen.end = Some(error.to_string()),
            }
        }
    }
    seen
}

/// New decoders do the same with `data`, however it is cut.
fn same_however_cut(new: fn() -> RedisDecoder, side: Side, data: &[u8]) {
    fuzzing::same_however_cut(data, |cut| drive(&mut new(), side, data, cut));
}

/// The client's side: `data` as a connection's first bytes, and as bytes within a session.
pub fn fuzz_client(data: &[u8]) {
    drive(&mut RedisDecoder::new(Labelled::nothing("r")), Side::Client, data, data.len());
    same_however_cut(opened, Side::Client, data);
}

/// The upstream's side: `data` as answers to a session in which something of each kind is under way, and to a log-in; once more
/// with an answer that a budget ends.
pub fn fuzz_upstream(data: &[u8]) {
    let mut bounded = under_way();
    bounded.allow(Spent { rows: 1, ..Spent::UNLIMITED });
    drive(&mut bounded, Side::Upstream, data, data.len());
    same_however_cut(under_way, Side::Upstream, data);
    same_however_cut(subscribing, Side::Upstream, data);
    for tls in [UpstreamTls::Required, UpstreamTls::Plaintext] {
        let principal = Principal { user: "app".to_owned(), ..Principal::default() };
        fuzzing::log_in(&mut RedisLogin::new(&principal, tls), data);
    }
}

/// A session with reads, a refusal and a transaction under way.
fn under_way() -> RedisDecoder {
    asking(&[
        &[b"LRANGE", b"l", b"0", b"-1"],
        &[b"MULTI"],
        &[b"GET", b"refused"],
        &[b"GET", b"k"],
        &[b"EXEC"],
        &[b"GET", b"k"],
    ])
}

/// A session with subscriptions under way.
fn subscribing() -> RedisDecoder {
    asking(&[&[b"SUBSCRIBE", b"a", b"b"], &[b"PING"], &[b"UNSUBSCRIBE"], &[b"GET", b"k"]])
}

fn asking(commands: &[&[&[u8]]]) -> RedisDecoder {
    let mut decoder = opened();
    let bytes: Vec<u8> = commands.iter().flat_map(|command| written(command)).collect();
    drive(&mut decoder, Side::Client, &bytes, bytes.len());
    decoder
}
