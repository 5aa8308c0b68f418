//! IPv6 addresses: groups of hexadecimal digits between colons.

use std::net::Ipv6Addr;

use super::{Detector, Hit, class::Class, stands_alone};

/// The longest that is written.
const LONGEST: usize = 45;

pub(super) fn find(text: &[u8], hits: &mut Vec<Hit>) {
    let mut at = 0;
    // Every address has two of them beside each other, or more than a time has.
    while let Some(colon) = memchr::memchr(b':', text.get(at..).unwrap_or_default()).map(|skip| at + skip) {
        let before = text.get(at..colon).unwrap_or_default();
        let start = colon - before.iter().rev().take_while(|byte| Class::GROUP.has(**byte)).count();
        let end = colon + Class::GROUP.run(text, colon);
        at = end;
        let run = text.get(start..end).unwrap_or_default();
        // A sentence ends behind an address.
        let run = run
            .strip_suffix(b".")
            .or(run.strip_suffix(b":"))
            .filter(|_| !run.ends_with(b"::"))
            .unwrap_or(run);
        let range = start..start + run.len();
        if (3..=LONGEST).contains(&run.len())
            && has_groups(run)
            && stands_alone(text, &range)
            && std::str::from_utf8(run).is_ok_and(|run| run.parse::<Ipv6Addr>().is_ok())
        {
            hits.push(Hit { range, detector: Detector::Ip });
        }
    }
}

/// Whether there are as many groups as an address has, or a sign for those that are left out.
fn has_groups(run: &[u8]) -> bool {
    run.windows(2).any(|two| two == b"::") || run.iter().filter(|byte| **byte == b':').count() >= 6
}
