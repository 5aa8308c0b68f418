//! What the fuzzers of all protocols do alike. It must never know a protocol.

use bytes::{BufMut, BytesMut};
use interceptor_core::{
    permit::Denial,
    protocol::{Login, LoginStep, Proof},
};
use zeroize::Zeroizing;

/// Gives a log-in `data` as the upstream's words, and a proof whenever it wants one, until it ends or has too little.
pub(crate) fn log_in(login: &mut dyn Login, data: &[u8]) {
    let mut input = BytesMut::new();
    let mut fed = false;
    // Each step takes bytes, or changes the state once.
    for _ in 0..data.len().saturating_add(16) {
        match login.step(&mut input) {
            Ok(LoginStep::Wait) if fed => break,
            Ok(LoginStep::Wait) => {
                input.put_slice(data);
                fed = true;
            }
            Ok(LoginStep::Prove(_)) => {
                if login.prove(Proof::Response(Zeroizing::new(b"secret".to_vec()))).is_err() {
                    break;
                }
            }
            Ok(LoginStep::Ready(_) | LoginStep::Refused { .. }) | Err(_) => break,
            Ok(LoginStep::Send(_) | LoginStep::StartTls) => {}
        }
    }
}

/// All that a decoder did with one side's bytes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) passed: Vec<u8>,
    pub(crate) told: Vec<String>,
    /// Why it stopped, unless it only waits.
    pub(crate) end: Option<String>,
}

/// What a refused exchange is told.
pub(crate) fn denial() -> Denial {
    Denial { record: None, rule: "fuzz".to_owned(), message: "refused".to_owned(), hint: "none".to_owned() }
}

/// Drives a decoder with `data` whole and cut: as it says itself, so that mutation finds the ways.
pub(crate) fn same_however_cut(data: &[u8], drive: impl Fn(usize) -> Seen) {
    let cut = data.last().map_or(1, |byte| usize::from(byte % 16).saturating_add(1));
    let (mut whole, mut cut) = (drive(data.len()), drive(cut));
    if whole.end.is_some() {
        // What came together with the fault may end with it.
        let (passed, told) = (whole.passed.len().min(cut.passed.len()), whole.told.len().min(cut.told.len()));
        for seen in [&mut whole, &mut cut] {
            seen.passed.truncate(passed);
            seen.told.truncate(told);
        }
    }
    assert_eq!(whole, cut, "the same however it is cut");
}
