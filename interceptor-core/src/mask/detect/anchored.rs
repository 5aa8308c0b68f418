//! Values that have a word or a sign in them: one automaton finds those, and what stands around each is checked.
//!
//! Promise: what is looked at around an anchor is bounded, or looked at once.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{Detector, Hit, class::Class, stands_alone};

/// What a value is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// The sign between the parts of an address.
    At,
    /// What stands behind the scheme of a URL.
    Scheme,
    /// The beginning of a token's head.
    Jwt,
    /// A prefix, behind which exactly sixteen letters stand.
    AwsKey,
    /// A prefix, behind which at least so many letters stand.
    Token(usize),
    /// The head of a key.
    Key,
    /// The head of a key's file of PuTTY's.
    PuttyKey,
    /// The word before a password.
    Password,
}

const ANCHORS: &[(&str, Anchor)] = &[
    ("@", Anchor::At),
    ("://", Anchor::Scheme),
    ("eyJ", Anchor::Jwt),
    ("AKIA", Anchor::AwsKey),
    ("ASIA", Anchor::AwsKey),
    ("ABIA", Anchor::AwsKey),
    ("ACCA", Anchor::AwsKey),
    ("-----BEGIN ", Anchor::Key),
    ("PuTTY-User-Key-File-", Anchor::PuttyKey),
    ("password=", Anchor::Password),
    ("ghp_", Anchor::Token(36)),
    ("gho_", Anchor::Token(36)),
    ("ghu_", Anchor::Token(36)),
    ("ghs_", Anchor::Token(36)),
    ("ghr_", Anchor::Token(36)),
    ("github_pat_", Anchor::Token(22)),
    ("glpat-", Anchor::Token(20)),
    ("xoxa-", Anchor::Token(11)),
    ("xoxb-", Anchor::Token(11)),
    ("xoxe-", Anchor::Token(11)),
    ("xoxo-", Anchor::Token(11)),
    ("xoxp-", Anchor::Token(11)),
    ("xoxr-", Anchor::Token(11)),
    ("xoxs-", Anchor::Token(11)),
    ("xapp-", Anchor::Token(20)),
    ("sk_live_", Anchor::Token(16)),
    ("sk_test_", Anchor::Token(16)),
    ("rk_live_", Anchor::Token(16)),
    ("rk_test_", Anchor::Token(16)),
    ("whsec_", Anchor::Token(24)),
    ("AIza", Anchor::Token(35)),
    ("ya29.", Anchor::Token(20)),
    ("sk-ant-", Anchor::Token(20)),
    ("sk-proj-", Anchor::Token(20)),
    ("npm_", Anchor::Token(36)),
    ("pypi-", Anchor::Token(40)),
    ("hf_", Anchor::Token(30)),
    ("dop_v1_", Anchor::Token(64)),
    ("shpat_", Anchor::Token(32)),
    ("glsa_", Anchor::Token(32)),
    ("hvs.", Anchor::Token(24)),
    ("dckr_pat_", Anchor::Token(20)),
    ("lin_api_", Anchor::Token(32)),
    ("AccountKey=", Anchor::Token(40)),
];

impl Anchor {
    /// Whether any of `wanted` is known by it.
    fn serves(self, wanted: &[Detector]) -> bool {
        let any = |detectors: &[Detector]| detectors.iter().any(|detector| wanted.contains(detector));
        match self {
            Self::At => any(&[Detector::Email]),
            Self::Scheme => any(&[Detector::Url, Detector::UrlPassword]),
            Self::Jwt => any(&[Detector::Jwt]),
            Self::AwsKey => any(&[Detector::AwsKey]),
            Self::Token(_) => any(&[Detector::ApiToken]),
            Self::Key | Self::PuttyKey => any(&[Detector::PrivateKey]),
            Self::Password => any(&[Detector::UrlPassword]),
        }
    }
}

/// The longest part of an e-mail address before its sign, and behind it.
const LOCAL: usize = 64;
const DOMAIN: usize = 253;
/// The longest part of a URL that is looked at for a password.
const URL: usize = 2048;
/// Top-level domains that are nobody's in the world, but somebody's at home.
const PRIVATE: [&str; 7] = ["example", "test", "invalid", "local", "internal", "lan", "corp"];

/// Finds what has an anchor.
#[derive(Debug, Clone)]
pub(super) struct Anchored {
    automaton: AhoCorasick,
    anchors: Vec<Anchor>,
    wanted: Vec<Detector>,
}

impl Anchored {
    /// For those of `wanted` that have one; none where none has. An error is a bug of ours in an anchor.
    pub(super) fn new(wanted: &[Detector]) -> Result<Option<Self>, String> {
        let chosen = || ANCHORS.iter().filter(|(_, anchor)| anchor.serves(wanted));
        if chosen().next().is_none() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(chosen().map(|(text, _)| text))
            .map_err(|error| error.to_string())?;
        Ok(Some(Self {
            automaton,
            anchors: chosen().map(|(_, anchor)| *anchor).collect(),
            wanted: wanted.to_vec(),
        }))
    }

    /// Whether any anchor stands in it.
    pub(super) fn touches(&self, text: &[u8]) -> bool {
        self.automaton.is_match(text)
    }

    pub(super) fn find(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut seen = Seen::default();
        let mut behind = 0;
        for found in self.automaton.find_iter(text) {
            // What has been hidden already hides what is known by an anchor inside it.
            if found.start() < behind {
                continue;
            }
            let Some(anchor) = self.anchors.get(found.pattern().as_usize()) else { continue };
            let anchor_at = found.start()..found.end();
            if let Some(hit) = self.around(*anchor, anchor_at, text, &mut seen) {
                behind = hit.range.end;
                hits.push(hit);
            }
        }
    }

    fn around(&self, anchor: Anchor, at: Range<usize>, text: &[u8], seen: &mut Seen) -> Option<Hit> {
        match anchor {
            Anchor::At => email(text, at.start).map(|range| Hit { range, detector: Detector::Email }),
            Anchor::Scheme => self.url(text, at),
            Anchor::Jwt => jwt(text, at.start, seen).map(|range| Hit { range, detector: Detector::Jwt }),
            Anchor::AwsKey => {
                let range = at.start..seen.run(text, at.end);
                let rest = text.get(at.end..range.end)?;
                let fits = rest.len() == 16 && rest.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
                (fits && stands_alone(text, &range)).then_some(Hit { range, detector: Detector::AwsKey })
            }
            Anchor::Token(least) => {
                let range = at.start..seen.run(text, at.end);
                let fits = range.end.saturating_sub(at.end) >= least;
                fits.then_some(Hit { range, detector: Detector::ApiToken })
            }
            Anchor::Key => {
                private_key(text, at, seen).map(|range| Hit { range, detector: Detector::PrivateKey })
            }
            Anchor::PuttyKey => Some(Hit { range: at.start..text.len(), detector: Detector::PrivateKey }),
            Anchor::Password => {
                password(text, at).map(|range| Hit { range, detector: Detector::UrlPassword })
            }
        }
    }

    fn url(&self, text: &[u8], at: Range<usize>) -> Option<Hit> {
        let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-');
        let before = text.get(at.start.saturating_sub(32)..at.start)?;
        let length = before.iter().rev().take_while(|byte| is_scheme(byte)).count();
        let head = before.get(before.len().saturating_sub(length)..)?;
        // The scheme begins with a letter.
        let start = at.start - head.iter().skip_while(|byte| !byte.is_ascii_alphabetic()).count();
        let rest = text.get(at.end..text.len().min(at.end.saturating_add(URL)))?;
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'<' | b'>' | b'\\');
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let rest = rest.get(..length)?;
        let range = start..at.end.saturating_add(length);
        if start == at.start {
            return None;
        }
        if self.wanted.contains(&Detector::UrlPassword)
            && let Some(sign) = rest.iter().rposition(|byte| *byte == b'@')
            && let Some(colon) = rest.iter().take(sign).position(|byte| matches!(byte, b':' | b'/'))
            && rest.get(colon) == Some(&b':')
            && colon.saturating_add(1) < sign
        {
            return Some(Hit { range, detector: Detector::UrlPassword });
        }
        let host = rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next()?;
        let host = host.rsplit(|byte| *byte == b'@').next()?.split(|byte| *byte == b':').next()?;
        (self.wanted.contains(&Detector::Url) && domain(host) == Some(host.len()))
            .then_some(Hit { range, detector: Detector::Url })
    }
}

/// How far what was looked at reaches, so that nothing is looked at twice.
#[derive(Debug, Default)]
struct Seen {
    run: usize,
    key_end: Option<usize>,
}

impl Seen {
    /// Where the run of a token's letters ends that `from` stands in.
    fn run(&mut self, text: &[u8], from: usize) -> usize {
        if from >= self.run {
            let rest = text.get(from..).unwrap_or_default();
            let is_token = |byte: &&u8| Class::PART.has(**byte) && !matches!(byte, b'=');
            self.run = from.saturating_add(rest.iter().take_while(is_token).count());
        }
        self.run
    }

    /// Where the next end of a key stands, from `from` on.
    fn key_end(&mut self, text: &[u8], from: usize) -> usize {
        match self.key_end {
            Some(end) if end >= from => end,
            _ => {
                let found = memchr::memmem::find(text.get(from..).unwrap_or_default(), b"-----END ");
                let end = found.map_or(text.len(), |at| {
                    // Its name and its dashes.
                    let tail = text.get(from + at + 9..).unwrap_or_default();
                    let tail = tail.get(..tail.len().min(80)).unwrap_or_default();
                    let dashes = memchr::memmem::find(tail, b"-----").map_or(tail.len(), |dashes| dashes + 5);
                    from + at + 9 + dashes
                });
                self.key_end = Some(end);
                end
            }
        }
    }
}

fn email(text: &[u8], at: usize) -> Option<Range<usize>> {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b".!#$%&'+_~-".contains(byte);
    let before = text.get(at.saturating_sub(LOCAL)..at)?;
    let length = before.iter().rev().take_while(|byte| is_local(byte)).count();
    let local = before.get(before.len().saturating_sub(length)..)?;
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || *byte == b'_';
    let start = at - local.iter().skip_while(|byte| !begins(byte)).count();
    let is_domain =
        |byte: &&u8| byte.is_ascii_alphanumeric() || **byte >= 0x80 || matches!(byte, b'.' | b'-');
    let rest = text.get(at + 1..text.len().min(at.saturating_add(1 + DOMAIN)))?;
    let length = rest.iter().take_while(is_domain).count();
    let length = domain(rest.get(..length)?)?;
    (start < at).then_some(start..at + 1 + length)
}

/// How much of `name` is the name of a host below a top-level domain that there is; none where nothing is.
fn domain(name: &[u8]) -> Option<usize> {
    let mut name = name;
    loop {
        let dot = name.iter().rposition(|byte| *byte == b'.')?;
        let top = name.get(dot + 1..)?;
        if name.get(..dot).is_some_and(|host| !host.is_empty() && !host.ends_with(b".")) && is_top(top) {
            return Some(name.len());
        }
        // A word that follows without a blank.
        name = name.get(..dot)?;
    }
}

fn is_top(top: &[u8]) -> bool {
    if top.iter().any(|byte| *byte >= 0x80) {
        return true;
    }
    let Ok(top) = std::str::from_utf8(top) else { return false };
    let top = top.to_ascii_lowercase();
    tld::exist(&top) || PRIVATE.contains(&top.as_str())
}

fn jwt(text: &[u8], at: usize, seen: &mut Seen) -> Option<Range<usize>> {
    let head = seen.run(text, at);
    if head.saturating_sub(at) < 16 || text.get(head) != Some(&b'.') {
        return None;
    }
    let body = seen.run(text, head + 1);
    if body.saturating_sub(head) < 7 {
        return None;
    }
    // A token that is not signed has nothing behind its second dot.
    let end = if text.get(body) == Some(&b'.') { seen.run(text, body + 1) } else { body };
    Some(at..end)
}

fn private_key(text: &[u8], at: Range<usize>, seen: &mut Seen) -> Option<Range<usize>> {
    let head = text.get(at.end..text.len().min(at.end.saturating_add(64)))?;
    let head = memchr::memmem::find(head, b"PRIVATE KEY")?;
    Some(at.start..seen.key_end(text, at.end + head))
}

/// A password behind its word, as connections are written.
fn password(text: &[u8], at: Range<usize>) -> Option<Range<usize>> {
    let rest = text.get(at.end..text.len().min(at.end.saturating_add(256)))?;
    let quoted = rest.strip_prefix(b"'").filter(|rest| rest.contains(&b'\''));
    let value = quoted.unwrap_or(rest);
    let ends = |byte: &u8| match quoted {
        Some(_) => *byte == b'\'',
        None => byte.is_ascii_whitespace() || b"&;,\"')}".contains(byte),
    };
    let length = value.iter().position(ends).unwrap_or(value.len());
    let value = value.get(..length)?;
    // A place for one, or one that is covered.
    let stands_for =
        value.first().is_none_or(|byte| matches!(byte, b'$' | b'?' | b'%' | b'*' | b'<' | b'{' | b'['));
    let end = at.end + usize::from(quoted.is_some()) * 2 + length;
    (!stands_for && length >= 4).then_some(at.start..end.min(text.len()))
}
