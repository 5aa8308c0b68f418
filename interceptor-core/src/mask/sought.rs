//! Secrets that are looked for in what passes, by fingerprints: whoever has one can tell the secret where it stands, and
//! cannot say what it is.
//!
//! Promise: time is linear in the text; where a fingerprint's own two bytes stand, each pair costs a digest of as many bytes
//! as the secret has. A fingerprint has two bytes of its secret and its length, and a digest that guessing
//! may be held against: only secrets that nobody can guess may have one, which whoever makes it must see to.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use hmac::{Hmac, Mac};
use memchr::memmem::Finder;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::detect;

/// What stands for a secret.
pub(super) const INSTEAD: &str = "[secret]";

/// What tells a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// How many bytes it has.
    pub length: usize,
    /// Two of them that follow each other.
    pub pair: [u8; 2],
    /// Where these stand in it.
    pub offset: usize,
    /// Its digest, with the key of [`Sought`].
    pub digest: [u8; 32],
}

impl Fingerprint {
    /// That of `secret`, with `key`; none where it is too short to have one.
    pub fn of(secret: &[u8], key: &[u8; 32]) -> Option<Self> {
        let (offset, pair) = secret.windows(2).enumerate().min_by_key(|(_, pair)| commonness(pair))?;
        let pair = <[u8; 2]>::try_from(pair).ok()?;
        Some(Self { length: secret.len(), pair, offset, digest: digest(secret, key)? })
    }
}

/// How common two bytes are in what tables hold, roughly.
fn commonness(pair: &[u8]) -> u32 {
    let of = |byte: &u8| match byte {
        b'a'..=b'z' | b' ' => 4,
        b'0'..=b'9' => 3,
        b'A'..=b'Z' | b'-' | b'.' | b'_' => 2,
        _ => 1,
    };
    pair.iter().map(of).product()
}

fn digest(bytes: &[u8], key: &[u8; 32]) -> Option<[u8; 32]> {
    // Any length of key will do.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(bytes);
    Some(mac.finalize().into_bytes().into())
}

/// Several secrets that are looked for. Its `Debug` prints none of their fingerprints.
#[derive(Default)]
pub struct Sought {
    key: Zeroizing<[u8; 32]>,
    each: Vec<(Fingerprint, Finder<'static>)>,
    /// In how many values one was found.
    found: AtomicU64,
}

impl std::fmt::Debug for Sought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sought").field(&self.each.len()).finish()
    }
}

impl Sought {
    /// Those with these fingerprints, which were made with `key`.
    pub fn new(key: Zeroizing<[u8; 32]>, mut fingerprints: Vec<Fingerprint>) -> Self {
        fingerprints.sort();
        fingerprints.dedup();
        let ready = |one: Fingerprint| {
            let finder = Finder::new(&one.pair).into_owned();
            (one, finder)
        };
        Self { key, each: fingerprints.into_iter().map(ready).collect(), found: AtomicU64::new(0) }
    }

    /// The same secrets, whose finds are counted apart.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { key: self.key.clone(), each: self.each.clone(), found: AtomicU64::new(0) }
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// In how many values one was found since this was last taken.
    pub fn take_found(&self) -> u64 {
        self.found.swap(0, Ordering::Relaxed)
    }

    /// Whether the same is looked for by both.
    pub fn is(&self, other: &Self) -> bool {
        let fingerprints = |sought: &Self| sought.each.iter().map(|(one, _)| one.clone()).collect::<Vec<_>>();
        fingerprints(self) == fingerprints(other)
    }

    /// Whether one stands in `text`.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        !self.is_empty() && !self.find(text).is_empty()
    }

    /// `text` without those in it; none where there are none.
    pub(super) fn cut(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let found = self.find(text);
        if found.is_empty() {
            return None;
        }
        self.found.fetch_add(1, Ordering::Relaxed);
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for range in found {
            if range.start >= at {
                out.extend_from_slice(text.get(at..range.start).unwrap_or_default());
                out.extend_from_slice(INSTEAD.as_bytes());
            }
            at = at.max(range.end);
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        Some(out)
    }

    /// Where they stand, in order; as runs of base64 or hexadecimal too.
    fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = self.plain(text);
        let shortest = self.each.iter().map(|(one, _)| one.length).min().unwrap_or(usize::MAX);
        // Encoded it is longer by a third at least.
        if text.len() > shortest {
            detect::encoded(text, |run, decoded| {
                if !self.plain(decoded).is_empty() {
                    found.push(run);
                }
            });
        }
        found.sort_by_key(|range| (range.start, range.end));
        found
    }

    fn plain(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for (one, finder) in self.each.iter().filter(|(one, _)| one.length <= text.len()) {
            for at in finder.find_iter(text) {
                let Some(start) = at.checked_sub(one.offset) else { continue };
                let range = start..start.saturating_add(one.length);
                let Some(window) = text.get(range.clone()) else { continue };
                if digest(window, &self.key).is_some_and(|digest| digest == one.digest) {
                    found.push(range);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose};

    use super::*;

    const SECRET: &[u8] = b"vQ7#kd82Lmz!pX04tRw9";

    fn sought(secrets: &[&[u8]]) -> Sought {
        let key = [5; 32];
        let each = secrets.iter().filter_map(|secret| Fingerprint::of(secret, &key));
        Sought::new(Zeroizing::new(key), each.collect())
    }

    fn cut(text: &str) -> Option<String> {
        let cut = sought(&[SECRET, b"another-0f-them-which-is-l0ng"]).cut(text.as_bytes());
        cut.map(|cut| String::from_utf8(cut).expect("UTF-8"))
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        let secret = std::str::from_utf8(SECRET).expect("ASCII");
        assert_eq!(cut(secret).as_deref(), Some("[secret]"));
        assert_eq!(cut(&format!("pw={secret}{secret}, x")).as_deref(), Some("pw=[secret][secret], x"));
        assert_eq!(
            cut(&format!("another-0f-them-which-is-l0ng {secret}")).as_deref(),
            Some("[secret] [secret]")
        );
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(cut(&hex).as_deref(), Some("[secret]"));
        assert_eq!(cut(&format!("\\x{hex}")).as_deref(), Some("\\x[secret]"));
        let encoded = general_purpose::STANDARD.encode(format!("user:{secret}"));
        assert_eq!(cut(&format!("Basic {encoded}")).as_deref(), Some("Basic [secret]"));
        for other in ["", "vQ7#kd82Lmz!pX04tRw", "vQ7#kd82Lmz!pX04tRw8", "#k#k#k#k#k#k#k#k#k#k#k#k#k"] {
            assert_eq!(cut(other), None, "{other}");
        }
    }

    #[test]
    fn a_fingerprint_tells_little() {
        let one = Fingerprint::of(SECRET, &[5; 32]).expect("a fingerprint");
        assert_eq!(SECRET.get(one.offset..one.offset + 2), Some(&one.pair[..]));
        assert_ne!(one.digest, Fingerprint::of(SECRET, &[6; 32]).expect("a fingerprint").digest);
        assert_eq!(Fingerprint::of(b"x", &[5; 32]), None);
        assert_eq!(format!("{:?}", sought(&[SECRET])), "Sought(1)");
        assert!(sought(&[SECRET]).is(&sought(&[SECRET, SECRET])) && !sought(&[SECRET]).is(&sought(&[])));
    }
}
