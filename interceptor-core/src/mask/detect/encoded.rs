//! Runs of letters that may be base64 or hexadecimal, and what they decode to: one level.

use std::ops::Range;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{bits::is_hex, class::Class, glance::RUN};

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
        if run.len().is_multiple_of(2) && is_hex(run) {
            if marked || reads_in_hex(run) {
                look(start..end, &bytes(run));
            }
            continue;
        }
        if !reads_in_base64(run) {
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
        if let Some(decoded) = decoded
            && reads(decoded.len(), |at| decoded.get(at).is_some_and(|byte| (b' '..=b'~').contains(byte)))
        {
            look(start..end, decoded);
        }
    }
}

/// Whether `parts`, which are bits of the places in `text` where a run may stand, have one that decodes to something that
/// reads as text. Nothing in it is a sign that means something to [`runs`].
pub(super) fn may_be(text: &[u8], parts: u64) -> bool {
    let mut left = parts;
    while left != 0 {
        let start = left.trailing_zeros();
        let length = (left >> start).trailing_ones();
        left &= u64::MAX.checked_shl(start + length).unwrap_or(0);
        let (start, length) = (start as usize, length as usize);
        if length < RUN {
            continue;
        }
        let run = text.get(start..start + length).unwrap_or_default();
        let hex = length.is_multiple_of(2) && is_hex(run);
        if if hex { reads_in_hex(run) } else { reads_in_base64(run) && !is_uuid(run) } {
            return true;
        }
    }
    false
}

/// Longer than chance makes what reads as text: digests and keys decode to bytes in which a value could only be by chance.
const READ: usize = 8;

/// Whether so many beside each other of `count` read as text: looks where they must reach, and back from there.
fn reads(count: usize, is_letter: impl Fn(usize) -> bool) -> bool {
    let mut at = READ - 1;
    while at < count {
        let behind = (0..READ).take_while(|back| is_letter(at - back)).count();
        if behind == READ {
            return true;
        }
        at += READ - behind;
    }
    false
}

/// Whether what is written in hexadecimal reads as text somewhere.
fn reads_in_hex(run: &[u8]) -> bool {
    reads(run.len() / 2, |at| run.get(2 * at).is_some_and(|high| (b'2'..=b'7').contains(high)))
}

/// Whether what may be written in base64 reads as text somewhere: then two groups of four letters beside each other are
/// made of such bytes.
fn reads_in_base64(run: &[u8]) -> bool {
    let (groups, _) = run.as_chunks::<4>();
    let reads = |at: usize| {
        groups.get(at).is_some_and(|[a, b, c, _]| {
            let of = |letter: &u8, place: u8| {
                READING.get(usize::from(*letter)).is_some_and(|places| places & place != 0)
            };
            of(a, 1) && of(b, 2) && of(c, 4)
        })
    };
    (1..groups.len()).step_by(2).any(|at| reads(at) && (reads(at - 1) || reads(at + 1)))
}

/// At which of the first three places of its group a letter of base64 may stand where all three bytes are of ASCII, and
/// none is a control character.
const READING: [u8; 256] = {
    let mut places = [0; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let letter = byte as u8;
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            // Of both alphabets.
            b'+' | b'-' | b'/' | b'_' => 63,
            _ => {
                byte += 1;
                continue;
            }
        };
        places[byte] =
            (value >= 8 && value < 32) as u8 + 2 * (value & 8 == 0) as u8 + 4 * (value & 2 == 0) as u8;
        byte += 1;
    }
    places
};

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
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let dash = |at: &usize| run.get(*at) == Some(&b'-');
    let hex = |from: usize, to: usize| run.get(from..to).is_some_and(is_hex);
    run.len() == UUID
        && DASHES.iter().all(dash)
        && hex(0, 8)
        && hex(9, 13)
        && hex(14, 18)
        && hex(19, 23)
        && hex(24, 36)
}
