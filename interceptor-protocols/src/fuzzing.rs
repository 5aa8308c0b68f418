//! What the fuzzers of all protocols do alike. It must never know a protocol.

use bytes::{BufMut, BytesMut};
use interceptor_core::protocol::{Login, LoginStep, Proof};
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
