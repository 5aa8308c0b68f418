//! IPv6 addresses: groups of hexadecimal digits between colons.

use std::net::Ipv6Addr;

use super::{Detector, Hit, stands_alone};

/// The longest that is written.
const LONGEST: usize = 45;

pub(super) fn find(text: &[u8], hits: &mut Vec<Hit>) {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let run = rest.get(..length).unwrap_or_default();
        // A sentence ends behind an address.
        let run = run
            .strip_suffix(b".")
            .or(run.strip_suffix(b":"))
            .filter(|_| !run.ends_with(b"::"))
            .unwrap_or(run);
        let range = at..at + run.len();
        if (3..=LONGEST).contains(&run.len())
            && has_groups(run)
            && stands_alone(text, &range)
            && std::str::from_utf8(run).is_ok_and(|run| run.parse::<Ipv6Addr>().is_ok())
        {
            hits.push(Hit { range, detector: Detector::Ip });
        }
        at += length.max(1);
    }
}

/// Whether there are as many groups as an address has, or a sign for those that are left out.
fn has_groups(run: &[u8]) -> bool {
    run.windows(2).any(|two| two == b"::") || run.iter().filter(|byte| **byte == b':').count() >= 6
}
