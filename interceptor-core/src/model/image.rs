//! An image of a container registry, by its whole name: registry, repository, and what of it.
//!
//! Promise: what is read means the same to whoever reads it again, since nothing is left to be added: a short name is made a
//! whole one here, by the rules of Docker's own clients. What those rules leave open (no tag, a registry by its IPv6
//! address, capital letters) is not read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a name without a registry leads.
const HUB: &str = "docker.io";
/// Another name of the same.
const OLD_HUB: &str = "index.docker.io";
/// In which folder of it images are that name none.
const OFFICIAL: &str = "library";
/// The longest name without a tag or digest.
const LONGEST: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;
/// What a digest begins with.
const DIGEST: &str = "sha256:";

/// An image that is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Host and perhaps port, such as `docker.io` or `registry.internal:5000`.
    pub registry: String,
    /// Such as `library/debian`.
    pub repository: String,
    /// A tag such as `12`, or a digest, `sha256:` and 64 digits.
    pub reference: String,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} names no image: {why}")]
pub struct NotAnImage {
    name: String,
    why: &'static str,
}

impl Image {
    /// The image that `name` means with this tag or digest; without one, the name must have it.
    pub fn named(name: &str, reference: Option<&str>) -> Result<Self, NotAnImage> {
        let not = |why| NotAnImage { name: name.chars().take(LONGEST).collect(), why };
        let (name, own) = split(name);
        let reference = match (own, reference) {
            (Some(_), Some(_)) => return Err(not("it has a tag or digest of its own, and another")),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(not("say which by a tag or digest, such as `:latest`")),
        };
        if name.len() > LONGEST {
            return Err(not("it is too long"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (if first == OLD_HUB { HUB } else { first }, rest.to_owned())
            }
            _ => (HUB, name.to_owned()),
        };
        let repository = match registry {
            HUB if !repository.contains('/') => format!("{OFFICIAL}/{repository}"),
            _ => repository,
        };
        if !is_registry(registry) {
            return Err(not(
                "its registry is not one that can be read: a host in small letters, and perhaps a port",
            ));
        }
        if !repository.split('/').all(is_component) {
            return Err(not(
                "a part of it has other signs than small letters, digits, and `.`, `_`, `-` between them",
            ));
        }
        if !is_digest(reference) && !is_tag(reference) {
            return Err(not("its tag or digest is none"));
        }
        Ok(Self { registry: registry.to_owned(), repository, reference: reference.to_owned() })
    }

    /// Registry and repository.
    pub fn place(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, reference } = self;
        let sign = if is_digest(reference) { '@' } else { ':' };
        write!(f, "{registry}/{repository}{sign}{reference}")
    }
}

impl FromStr for Image {
    type Err = NotAnImage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::named(text, None)
    }
}

/// A name without its tag or digest, and that.
fn split(name: &str) -> (&str, Option<&str>) {
    if let Some((name, digest)) = name.split_once('@') {
        return (name, Some(digest));
    }
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name.get(last..).and_then(|part| part.find(':')) {
        Some(at) => (name.get(..last + at).unwrap_or_default(), name.get(last + at + 1..)),
        None => (name, None),
    }
}

fn is_small(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        label.bytes().all(|byte| is_small(byte) || byte == b'-') && !label.is_empty() && is_edged(label)
    };
    let is_port =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_edged(text: &str) -> bool {
    let bytes = text.as_bytes();
    [bytes.first(), bytes.last()].into_iter().all(|edge| edge.copied().is_some_and(is_small))
}

fn is_component(text: &str) -> bool {
    text.bytes().all(|byte| is_small(byte) || b"._-".contains(&byte)) && is_edged(text)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=LONGEST_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix(DIGEST).is_some_and(|digits| {
        digits.len() == 64
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(name: &str, reference: Option<&str>) -> Option<String> {
        Image::named(name, reference).ok().map(|image| image.to_string())
    }

    #[test]
    fn a_short_name_is_made_a_whole_one() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (name, reference, expected) in [
            ("debian", Some("12"), "docker.io/library/debian:12".to_owned()),
            ("debian:12", None, "docker.io/library/debian:12".to_owned()),
            ("team/app", Some("x"), "docker.io/team/app:x".to_owned()),
            ("index.docker.io/debian", Some("12"), "docker.io/library/debian:12".to_owned()),
            ("localhost/app", Some("1"), "localhost/app:1".to_owned()),
            ("localhost:5000/app:1", None, "localhost:5000/app:1".to_owned()),
            ("r.internal/a/b__c", Some("v1.0_x-y"), "r.internal/a/b__c:v1.0_x-y".to_owned()),
            ("debian", Some(digest.as_str()), format!("docker.io/library/debian@{digest}")),
        ] {
            assert_eq!(whole(name, reference).as_ref(), Some(&expected), "{name}");
            assert_eq!(whole(&expected, None).as_ref(), Some(&expected), "and stays so");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_not_read() {
        for (name, reference) in [
            ("debian", None),
            ("debian:12", Some("13")),
            ("debian", Some("")),
            ("debian", Some("a b")),
            ("debian", Some("sha256:abc")),
            ("Debian", Some("12")),
            ("", Some("12")),
            ("a//b", Some("12")),
            ("../a", Some("12")),
            ("-a", Some("12")),
            ("a:1:2", None),
            ("a:1@sha256:0", None),
            ("R.internal/a", Some("12")),
            ("[::1]:5000/a", Some("12")),
            ("r.internal:99999999/a", Some("12")),
            ("r..internal/a", Some("12")),
            ("http://r.internal/a", Some("12")),
            ("r.internal/a?b", Some("12")),
        ] {
            assert_eq!(whole(name, reference), None, "{name:?} {reference:?}");
        }
    }
}
