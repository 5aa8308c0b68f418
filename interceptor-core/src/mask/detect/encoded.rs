//! Runs of letters that may be base64 or hexadecimal, and what they decode to: one level.

use std::ops::Range;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{class::Class, glance::RUN};

/// The length of a UUID.
pub(super) const UUID: usize = 36;
/// The longest run that is decoded in place.
const SHORT: usize = 256;
const BASE64: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// Calls `look` with each run of `text` that decodes to something, and with that.
pub(super) fn runs(text: &[u8], mut look: impl FnMut(Range<usize>, &[u8])) {
    let mut at = 0;
    while let Some(mut start) = Class::PART.next(text, at) {
        let length = Class::PART.run(text, start);
        at = start + length;
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
        let marked = start > at - length;
        // A name may stand before it; only at its end does the sign fill it up.
        let padding = run.iter().rev().take_while(|byte| **byte == b'=').count();
        let body = run.get(..run.len() - padding).unwrap_or_default();
        let named = memchr::memrchr(b'=', body).map_or(0, |at| at + 1);
        let (start, run) = (start + named, run.get(named..).unwrap_or_default());
        if run.len() < RUN || is_uuid(run) {
            continue;
        }
        if run.len().is_multiple_of(2) && Class::HEX.run(run, 0) == run.len() {
            if marked || reads(run.iter().step_by(2), |high| (b'2'..=b'7').contains(high)) {
                look(start..end, &bytes(run));
            }
            continue;
        }
        let mut short = [0; SHORT];
        let long;
        // Letters that only one of the alphabets has tell which it is.
        let safe = memchr::memchr2(b'-', b'_', run).is_some();
        let engine = if safe { &URL_SAFE } else { &STANDARD };
        let decoded = if run.len() <= SHORT {
            let length = engine.decode_slice(run, &mut short).ok();
            length.and_then(|length| short.get(..length))
        } else {
            long = engine.decode(run).ok();
            long.as_deref()
        };
        if let Some(decoded) =
            decoded.filter(|bytes| reads(bytes.iter(), |byte| (b' '..=b'~').contains(byte)))
        {
            look(start..end, decoded);
        }
    }
}

/// Whether something that reads as text stands in it: digests and keys decode to bytes in which a value could only be
/// by chance.
fn reads<'a>(bytes: impl Iterator<Item = &'a u8>, is_letter: impl Fn(&u8) -> bool) -> bool {
    /// Longer than chance makes them.
    const READ: usize = 8;
    let mut length = 0;
    bytes.into_iter().any(|byte| {
        length = if is_letter(byte) { length + 1 } else { 0 };
        length == READ
    })
}

/// Whether a UUID begins at `at`.
pub(super) fn uuid_at(text: &[u8], at: usize) -> bool {
    text.get(at + 8) == Some(&b'-') && text.get(at..at + UUID).is_some_and(is_uuid)
}

/// The bytes that are written in hexadecimal.
fn bytes(run: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    };
    let byte =
        |pair: &[u8]| pair.iter().fold(0_u8, |sum, byte| sum.wrapping_mul(16).wrapping_add(digit(byte)));
    run.chunks_exact(2).map(byte).collect()
}

/// Whether it is written as a UUID, of which there are many and none is text.
fn is_uuid(run: &[u8]) -> bool {
    run.len() == UUID
        && run.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => Class::HEX.has(*byte),
        })
}
