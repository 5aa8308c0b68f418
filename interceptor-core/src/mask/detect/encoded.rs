//! Runs of letters that may be base64 or hexadecimal, and what they decode to: one level.

use std::ops::Range;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::glance::{RUN, is_part};

const BASE64: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// Calls `look` with each run of `text` that decodes to something, and with that.
pub(super) fn runs(text: &[u8], mut look: impl FnMut(Range<usize>, &[u8])) {
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| is_part(**byte)).count();
        let mut start = at;
        at += length.max(1);
        if length < RUN {
            continue;
        }
        // `\x` is how the server marks bytes in hexadecimal.
        if text.get(start) == Some(&b'x') && start.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'\\')
        {
            start += 1;
        }
        let end = at;
        let Some(run) = text.get(start..end) else { continue };
        // A name may stand before it; only at its end does the sign fill it up.
        let padding = run.iter().rev().take_while(|byte| **byte == b'=').count();
        let body = run.get(..run.len() - padding).unwrap_or_default();
        let named = body.iter().rposition(|byte| *byte == b'=').map_or(0, |at| at + 1);
        let (start, run) = (start + named, run.get(named..).unwrap_or_default());
        if run.len() >= RUN && !is_uuid(run) {
            decoded(run, |bytes| look(start..end, bytes));
        }
    }
}

/// Whether it is written as a UUID, of which there are many and none is text.
fn is_uuid(run: &[u8]) -> bool {
    run.len() == 36
        && run.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What a run decodes to, as each of what it may be.
fn decoded(run: &[u8], mut look: impl FnMut(&[u8])) {
    if run.len().is_multiple_of(2) && run.iter().all(u8::is_ascii_hexdigit) {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        let bytes: Vec<u8> = run
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0_u8, |sum, byte| sum.wrapping_mul(16).wrapping_add(digit(byte))))
            .collect();
        look(&bytes);
    }
    // Letters that only one of the alphabets has tell which it is.
    let safe = run.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if safe { &URL_SAFE } else { &STANDARD };
    if let Ok(bytes) = engine.decode(run) {
        look(&bytes);
    }
}
