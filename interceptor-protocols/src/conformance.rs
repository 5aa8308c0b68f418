//! What every protocol of the registry must keep: nothing lost or added, the same steps however the bytes are cut,
//! no panic and no hoarding on garbage, and a stream that goes on after a refusal.
//!
//! Each protocol brings transcripts of real sessions (`corpus/*.txt` in its folder): a line per arrival, `C` for the
//! client's and `U` for the upstream's bytes after the log-in, in hexadecimal. What contains `forbidden` is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    catalogue::{Catalogue, PARTS},
    model::{ExchangeDigest, RecordId},
    permit::{Committed, Denial, Held, Judgement, Permit, Records},
    protocol::{CancelKey, DecodeError, Decoder, Greeting, Protocol, Side, Step},
};
use proptest::prelude::*;

use crate::ALL;

/// A recorded session: its name, and who said what.
type Transcript = (String, Vec<(Side, Vec<u8>)>);

fn corpus(protocol: &dyn Protocol) -> Vec<Transcript> {
    let folder = format!("{}/src/{}/corpus", env!("CARGO_MANIFEST_DIR"), protocol.name());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a corpus folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a transcript");
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (side, bytes) = line.split_once(' ').expect("a side and bytes");
            (
                if side == "C" { Side::Client } else { Side::Upstream },
                hex::decode(bytes).expect("hexadecimal"),
            )
        });
        found.push((path.display().to_string(), lines.collect()));
    }
    found.sort_by(|left: &(String, _), right| left.0.cmp(&right.0));
    assert!(!found.is_empty(), "{} has no corpus", protocol.name());
    found
}

struct Written(ExchangeDigest);

impl Committed for Written {
    fn digest(&self) -> ExchangeDigest {
        self.0
    }
    fn records(&self) -> Records {
        Records::new(RecordId(0), 0)
    }
}

pub(crate) fn release(held: Held) -> Bytes {
    let judgement = Judgement::Allowed { rules: Vec::new(), reason: String::new() };
    let permit = Permit::mint(&judgement, &Written(held.digest())).expect("a permit");
    held.release(permit).expect("the same exchange")
}

fn denial() -> Denial {
    Denial { record: Some(RecordId(7)), rule: "r".into(), message: "no".into(), hint: "stop".into() }
}

/// All that a session did, however it was cut.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    /// The client's bytes as they were passed or held, before any was refused.
    of_client: Vec<u8>,
    told: Vec<String>,
    done: Vec<String>,
    refused: usize,
    error: Option<DecodeError>,
    closed: bool,
}

/// A catalogue of which nothing that is learned can be kept, as when the transcripts were made.
fn moving() -> Arc<Catalogue> {
    let reads = AtomicU64::new(0);
    Arc::new(Catalogue::new(move || reads.fetch_add(PARTS, Ordering::Relaxed)))
}

struct Session {
    decoder: Box<dyn Decoder>,
    input: [BytesMut; 2],
    opened: bool,
    seen: Seen,
}

impl Session {
    fn new(protocol: &dyn Protocol) -> Self {
        Self {
            decoder: protocol.open(
                moving(),
                interceptor_core::mask::Labelled::nothing("r"),
                interceptor_core::mask::Tokens::default(),
            ),
            input: [BytesMut::new(), BytesMut::new()],
            opened: false,
            seen: Seen::default(),
        }
    }

    fn feed(&mut self, side: Side, bytes: &[u8]) {
        self.input[side as usize].put_slice(bytes);
        while !self.seen.closed && self.seen.error.is_none() {
            let client = self.one(Side::Client);
            let upstream = self.opened && self.one(Side::Upstream);
            if !client && !upstream {
                break;
            }
        }
    }

    /// One step; whether it moved.
    fn one(&mut self, side: Side) -> bool {
        if self.seen.closed || self.seen.error.is_some() {
            return false;
        }
        let before = self.input[side as usize].len();
        let step = match self.decoder.step(side, &mut self.input[side as usize]) {
            Ok(step) => step,
            Err(error) => {
                self.seen.error = Some(error);
                return false;
            }
        };
        match step {
            Step::Wait | Step::Hold => {
                assert_eq!(before, self.input[side as usize].len(), "a decoder that waits has taken bytes");
                return false;
            }
            Step::Pass(bytes) => {
                self.seen.of_client.put_slice(&bytes);
                self.seen.to_upstream.put_slice(&bytes);
            }
            Step::Reply(bytes) if side == Side::Client => self.seen.to_client.put_slice(&bytes),
            Step::Reply(bytes) => self.seen.to_upstream.put_slice(&bytes),
            Step::StartTls(_) => {}
            Step::Open(opening) => {
                self.seen.told.push(format!("open {:?} {:?}", opening.claimed, opening.parameters));
                let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
                let key = CancelKey { process: 1, secret: Bytes::from_static(b"four") };
                let bytes = self.decoder.opened(&greeting, &key);
                self.seen.to_client.put_slice(&bytes);
                self.opened = true;
                // What came before is the log-in's and no part of the session.
                self.seen.of_client.clear();
            }
            Step::Cancel(_) => self.seen.closed = true,
            Step::Ask(held) => {
                let number = held.number();
                self.seen.told.push(format!("{:?}", held.actions()));
                let refused = held.actions().iter().any(|action| {
                    action.text.contains("forbidden")
                        || action.binds.iter().any(|bind| bind.value.as_deref() == Some("forbidden"))
                });
                let bytes = release(held);
                self.seen.of_client.put_slice(&bytes);
                if refused {
                    self.seen.refused += 1;
                    let refusal = self.decoder.refuse(number, &denial());
                    self.seen.to_client.put_slice(&refusal.client);
                    self.seen.to_upstream.put_slice(&refusal.upstream);
                } else {
                    self.seen.to_upstream.put_slice(&bytes);
                    self.decoder.sent(number, interceptor_core::mask::Mask::Nothing);
                }
            }
            Step::Enquire(held) => {
                let number = held.number();
                self.seen.told.push(format!("gate {:?}", held.actions()));
                let bytes = release(held);
                self.seen.to_upstream.put_slice(&bytes);
                self.decoder.sent(number, interceptor_core::mask::Mask::Nothing);
            }
            Step::Answer { bytes, done } => {
                self.seen.to_client.put_slice(&bytes);
                self.seen.done.extend(done.iter().map(|done| format!("{done:?}")));
            }
            Step::Await(_) => panic!("it waits for another session although there is none"),
            Step::Pause { .. } | Step::Exceeds { .. } => panic!("it pauses although there is no limit"),
            Step::Close(bytes) => {
                self.seen.of_client.put_slice(&bytes);
                self.seen.to_upstream.put_slice(&bytes);
                self.seen.closed = true;
            }
        }
        true
    }
}

/// Plays a transcript in pieces of at most `piece` bytes.
fn play(protocol: &dyn Protocol, lines: &[(Side, Vec<u8>)], piece: usize) -> Seen {
    let mut session = Session::new(protocol);
    for (side, bytes) in lines {
        bytes.chunks(piece.max(1)).for_each(|chunk| session.feed(*side, chunk));
    }
    session.seen
}

/// The client's bytes after the packet that opened the session.
fn session_bytes(lines: &[(Side, Vec<u8>)]) -> Vec<u8> {
    lines.iter().filter(|(side, _)| *side == Side::Client).flat_map(|(_, bytes)| bytes.clone()).collect()
}

#[test]
fn every_session_is_understood_to_its_end() {
    for protocol in ALL {
        let mut refused = 0;
        for (name, lines) in corpus(*protocol) {
            let seen = play(*protocol, &lines, usize::MAX);
            assert_eq!(seen.error, None, "{name}");
            assert!(seen.closed, "{name}: the client said goodbye");
            assert!(!seen.done.is_empty(), "{name}");
            refused += seen.refused;
        }
        assert!(refused > 0, "{} has no refusal in its corpus", protocol.name());
    }
}

#[test]
fn nothing_of_the_client_is_lost_or_added() {
    for protocol in ALL {
        for (name, lines) in corpus(*protocol) {
            let seen = play(*protocol, &lines, usize::MAX);
            let all = session_bytes(&lines);
            if seen.refused == 0 {
                assert!(all.ends_with(&seen.of_client), "{name}: what was passed or held is what was sent");
                assert!(all.len() - seen.of_client.len() < 1000, "{name}: only the opening is not forwarded");
            }
            // Behind a refusal something may be dropped, but nothing is made up or put in another order.
            let mut rest = all.iter();
            assert!(seen.of_client.iter().all(|byte| rest.any(|sent| sent == byte)), "{name}");
        }
    }
}

#[test]
fn nothing_of_the_upstream_is_lost_but_what_answers_the_gate() {
    for protocol in ALL {
        for (name, lines) in corpus(*protocol) {
            let seen = play(*protocol, &lines, usize::MAX);
            let sent: usize =
                lines.iter().filter(|(side, _)| *side == Side::Upstream).map(|(_, bytes)| bytes.len()).sum();
            let is_plain = seen.refused == 0 && !seen.told.iter().any(|told| told.starts_with("gate"));
            // Besides the greeting that we gave.
            if is_plain {
                assert!(seen.to_client.len() >= sent && seen.to_client.len() < sent + 200, "{name}");
            }
        }
    }
}

#[test]
fn any_cut_gives_the_same_steps() {
    for protocol in ALL {
        for (name, lines) in corpus(*protocol) {
            let whole = play(*protocol, &lines, usize::MAX);
            for piece in [1, 2, 3, 7, 64, 1000] {
                assert_eq!(play(*protocol, &lines, piece), whole, "{name} in pieces of {piece}");
            }
        }
    }
}

#[test]
fn the_session_goes_on_after_a_refusal() {
    for protocol in ALL {
        let goes_on = corpus(*protocol).iter().any(|(_, lines)| {
            let seen = play(*protocol, lines, usize::MAX);
            let at = seen.told.iter().position(|told| told.contains("forbidden"));
            at.is_some_and(|at| seen.told.len() > at + 3 && seen.error.is_none())
        });
        assert!(goes_on, "{}", protocol.name());
    }
}

#[test]
fn a_peer_that_claims_much_is_not_believed() {
    for protocol in ALL {
        for tag in 0..=255_u8 {
            for opened in [false, true] {
                let mut session = Session::new(*protocol);
                if opened {
                    let (_, lines) = corpus(*protocol).remove(0);
                    lines
                        .iter()
                        .take_while(|(side, _)| *side == Side::Client)
                        .for_each(|(side, bytes)| session.feed(*side, bytes));
                }
                for side in [Side::Client, Side::Upstream] {
                    session.feed(side, &[tag, 0x7f, 0xff, 0xff, 0xff]);
                    for _ in 0..40 {
                        session.feed(side, &[b'x'; 1 << 16]);
                    }
                }
                let kept: usize = session.input.iter().map(BytesMut::len).sum();
                let stopped = session.seen.error.is_some() || session.seen.closed;
                assert!(stopped || kept < (32 << 20), "{} keeps {kept} bytes", protocol.name());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_is_an_error_or_is_waited_on(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        for protocol in ALL {
            let mut session = Session::new(*protocol);
            for (side, bytes) in &pieces {
                session.feed(if *side { Side::Client } else { Side::Upstream }, bytes);
            }
            let _ = session.decoder.farewell(&denial());
        }
    }

    #[test]
    fn a_spoilt_session_never_panics(seed in any::<u64>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        for protocol in ALL {
            let mut corpus = corpus(*protocol);
            let which = usize::try_from(seed % corpus.len() as u64).unwrap_or(0);
            let (_, mut lines) = corpus.swap_remove(which);
            for (at, byte) in &flips {
                let line = at.index(lines.len());
                let bytes = &mut lines[line].1;
                if !bytes.is_empty() {
                    let place = at.index(bytes.len());
                    bytes[place] = *byte;
                }
            }
            let _ = play(*protocol, &lines, usize::MAX);
        }
    }
}
