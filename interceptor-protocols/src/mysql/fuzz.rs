//! Entries for the fuzzer: any bytes on either side. They return nothing; a panic, an abort, a decoder that makes no
//! progress, that depends on how its input was cut, or that sends on other bytes than it was given leave for, is the
//! finding.

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    mask::Mask,
    model::{Action, Principal, Spent},
    permit::Held,
    protocol::{CancelKey, Decoder, Greeting, Inspection, Opening, Side, Step, UpstreamTls},
};

use crate::fuzzing::{self, Seen, denial};

use super::{COLLATION, UTF8, decode::MysqlDecoder, frame::packet, login::MysqlLogin, words};

/// COM_PING, COM_STMT_CLOSE and COM_STMT_RESET: what goes on without a judgement.
const PASSES: [u8; 3] = [0x0e, 0x19, 0x1a];

fn opened() -> MysqlDecoder {
    let mut decoder = MysqlDecoder::default();
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::new() });
    decoder
}

/// Answers to what the gate asks and to what was permitted, so that a session goes on.
fn answer(decoder: &mut MysqlDecoder, action: &Action) -> Seen {
    let bytes = match &*action.text {
        text if text.starts_with("SELECT 1, HEX(") => {
            result(&[Some(b"1"), Some(b""), Some(b"757466386D6234"), Some(b"0"), Some(b"73686F70")])
        }
        text if text.starts_with("SELECT 1, (") => {
            let tables = text.matches("information_schema.TRIGGERS").count();
            let values = [&b"0"[..], b"0", b"1"].repeat(tables);
            result(&std::iter::once(&b"1"[..]).chain(values).map(Some).collect::<Vec<_>>())
        }
        _ if action.phase == interceptor_core::model::Phase::Prepare => {
            let column = packet(2, b"\x03def");
            [packet(1, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), column, packet(3, &[0xfe, 0, 0, 2, 0])]
                .concat()
        }
        _ => words::ok(1, 2).to_vec(),
    };
    drive(decoder, Side::Upstream, &bytes, bytes.len())
}

/// A result of one row.
fn result(values: &[Option<&[u8]>]) -> Vec<u8> {
    let count = u8::try_from(values.len()).unwrap_or(u8::MAX);
    let mut packets = vec![vec![count]];
    packets.extend(values.iter().map(|_| b"\x03def".to_vec()));
    packets.push(vec![0xfe, 0, 0, 2, 0]);
    let value = |value: &Option<&[u8]>| match value {
        Some(value) => [&[u8::try_from(value.len()).unwrap_or_default()], *value].concat(),
        None => vec![0xfb],
    };
    packets.push(values.iter().flat_map(value).collect());
    packets.push(vec![0xfe, 0, 0, 2, 0]);
    let numbered = packets.iter().zip(1_u8..).map(|(payload, sequence)| packet(sequence, payload));
    numbered.flatten().collect()
}

/// Gives one side `data`, `cut` bytes at a time, until it waits, errs, or closes; every third exchange is refused, and what is
/// sent is answered.
fn drive(decoder: &mut MysqlDecoder, side: Side, data: &[u8], cut: usize) -> Seen {
    let mut seen = Seen::default();
    let mut input = BytesMut::new();
    let mut steps = data.len().saturating_mul(4).saturating_add(256);
    for part in data.chunks(cut.max(1)) {
        input.put_slice(part);
        while seen.end.is_none() {
            assert!(steps > 0, "the decoder makes no progress");
            steps -= 1;
            let before = input.clone();
            match decoder.step(side, &mut input) {
                Ok(Step::Wait | Step::Hold) => {
                    assert_eq!(before, input, "a decoder that waits has taken bytes");
                    break;
                }
                Ok(Step::Pass(bytes)) => {
                    let command = bytes.get(4).copied().unwrap_or_default();
                    assert!(before.starts_with(&bytes) && PASSES.contains(&command), "passed without leave");
                    seen.passed.put_slice(&bytes);
                    if command != 0x19 {
                        let ok = words::ok(1, 2);
                        let answered = drive(decoder, Side::Upstream, &ok, ok.len());
                        seen.passed.put_slice(&answered.passed);
                    }
                }
                Ok(Step::Reply(bytes)) => seen.passed.put_slice(&bytes),
                Ok(Step::Ask(held) | Step::Enquire(held)) => judge(decoder, &held, &mut seen),
                Ok(Step::Answer { bytes, done }) => {
                    assert!(before.ends_with(&input), "what goes on is what came");
                    assert!(bytes.is_empty() || before.starts_with(&bytes), "what goes on is what came");
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

fn judge(decoder: &mut MysqlDecoder, held: &Held, seen: &mut Seen) {
    seen.told.push(format!("{:?} {:?}", held.digest(), held.actions()));
    let number = held.number();
    if number.is_multiple_of(3) {
        let refusal = decoder.refuse(number, &denial());
        assert!(refusal.upstream.is_empty(), "sent without leave");
        seen.passed.put_slice(&refusal.client);
        return;
    }
    decoder.sent(number, Mask::Nothing);
    if let Some(action) = held.actions().first() {
        let answered = answer(decoder, action);
        seen.passed.put_slice(&answered.passed);
        seen.told.extend(answered.told);
    }
}

/// New decoders do the same with `data`, however it is cut.
fn same_however_cut(new: fn() -> MysqlDecoder, side: Side, data: &[u8]) {
    fuzzing::same_however_cut(data, |cut| drive(&mut new(), side, data, cut));
}

/// The client's side: `data` as a connection's first bytes, and as bytes within a session.
pub fn fuzz_client(data: &[u8]) {
    same_however_cut(MysqlDecoder::default, Side::Client, data);
    same_however_cut(opened, Side::Client, data);
}

/// The upstream's side: `data` as the answer to a text, to a statement that is prepared, to a command that has only OK, to a
/// look-up of the gate's, and to nothing; once more with an answer that a budget ends; and to a log-in.
pub fn fuzz_upstream(data: &[u8]) {
    let mut bounded = asked();
    bounded.allow(Spent { rows: 1, ..Spent::UNLIMITED });
    drive(&mut bounded, Side::Upstream, data, data.len());
    for new in [asked, preparing, pinged, looking_up, opened] {
        same_however_cut(new, Side::Upstream, data);
    }
    for tls in [UpstreamTls::Required, UpstreamTls::Plaintext] {
        let principal = Principal { user: "app".to_owned(), ..Principal::default() };
        let opening = Opening {
            held: Held::new(0, Vec::new(), Bytes::new()),
            claimed: principal.clone(),
            parameters: vec![(COLLATION.to_owned(), UTF8.to_string())],
            version: words::capability::OF_SESSION,
            then: Inspection::Full,
        };
        fuzzing::log_in(&mut MysqlLogin::new(&principal, &opening, tls), data);
    }
}

/// A session in which this command has been sent, and what the gate asked for it was answered.
fn sent(command: &[u8]) -> MysqlDecoder {
    let mut decoder = opened();
    let mut input = BytesMut::from(&*packet(0, command));
    loop {
        match decoder.step(Side::Client, &mut input) {
            Ok(Step::Enquire(held)) => {
                decoder.sent(held.number(), Mask::Nothing);
                held.actions().first().map(|action| answer(&mut decoder, action));
            }
            Ok(Step::Ask(held)) => {
                decoder.sent(held.number(), Mask::Nothing);
                return decoder;
            }
            _ => return decoder,
        }
    }
}

fn asked() -> MysqlDecoder {
    sent(b"\x03SELECT 1 FROM a")
}

fn preparing() -> MysqlDecoder {
    sent(b"\x16SELECT ?")
}

fn pinged() -> MysqlDecoder {
    sent(b"\x0e")
}

fn looking_up() -> MysqlDecoder {
    let mut decoder = opened();
    if let Ok(Step::Enquire(held)) =
        decoder.step(Side::Client, &mut BytesMut::from(&*packet(0, b"\x03SELECT 1")))
    {
        decoder.sent(held.number(), Mask::Nothing);
    }
    decoder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_begins_with_is_in_the_middle_of_something() {
        for new in [asked, preparing, pinged, looking_up] {
            assert!(!new().is_idle());
        }
        assert!(opened().is_idle());
    }
}
