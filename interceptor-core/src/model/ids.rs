//! Names and numbers that identify things. Names are checked once, where they enter.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', and begin with a letter or digit"
)]
pub struct NotAName(pub String);

fn check_name(text: &str) -> Result<(), NotAName> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits { Ok(()) } else { Err(NotAName(text.to_owned())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(text: &str) -> Result<Self, NotAName> {
                check_name(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(text: String) -> Result<Self, NotAName> {
                check_name(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A named non-human identity, as `agents.toml` lists it.
    AgentName
}

impl AgentName {
    /// The agent of a process that no entry of `agents.toml` matches.
    pub fn unknown() -> Self {
        Self("unknown".to_owned())
    }
}

name! {
    /// A named upstream, as `resources.toml` lists it.
    ResourceName
}
name! {
    /// The `@id` of a policy rule.
    RuleId
}
name! {
    /// A group of agents or of approvers, or an environment of resources.
    GroupName
}

name! {
    /// Somebody who may approve, as `people.toml` lists them.
    PersonName
}

/// A request for approval: `a` and ten hexadecimal digits, short enough to say aloud. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApprovalId(u64);

impl ApprovalId {
    /// From 64 random bits, of which 40 are kept; checked for collision where it is made.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & 0xff_ffff_ffff)
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{:010x}", self.0)
    }
}

/// Why a text is not a request for approval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an approval: it is `a` and ten hexadecimal digits, as `interceptor approvals list` prints it"
)]
pub struct NotAnApproval(pub String);

impl FromStr for ApprovalId {
    type Err = NotAnApproval;
    fn from_str(text: &str) -> Result<Self, NotAnApproval> {
        text.strip_prefix('a').and_then(forty_bits).map(Self).ok_or_else(|| NotAnApproval(text.to_owned()))
    }
}

impl TryFrom<String> for ApprovalId {
    type Error = NotAnApproval;
    fn try_from(text: String) -> Result<Self, NotAnApproval> {
        text.parse()
    }
}

impl From<ApprovalId> for String {
    fn from(id: ApprovalId) -> Self {
        id.to_string()
    }
}

/// The number that ten hexadecimal digits spell.
fn forty_bits(digits: &str) -> Option<u64> {
    let fits = digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| fits)
}

/// One captured process tree, from capture to its last process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(u64);

impl RunId {
    /// From 64 random bits, of which 40 are kept: short enough to type, and checked for collision where it is made.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & 0xff_ffff_ffff)
    }

    /// The number the kernel side knows the run by.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:010x}", self.0)
    }
}

/// Why a text is not a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run: a run is `r` and ten hexadecimal digits, as `interceptor ps` prints it")]
pub struct NotARun(pub String);

impl FromStr for RunId {
    type Err = NotARun;
    fn from_str(text: &str) -> Result<Self, NotARun> {
        text.strip_prefix('r').and_then(forty_bits).map(Self).ok_or_else(|| NotARun(text.to_owned()))
    }
}

impl TryFrom<String> for RunId {
    type Error = NotARun;
    fn try_from(text: String) -> Result<Self, NotARun> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.to_string()
    }
}

/// One accepted connection. Unique within one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// A record, by the sequence number of its request entry. Unique within one store, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub u64);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for RecordId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim_start_matches('#').parse().map(Self)
    }
}

/// SHA-256 of the bytes that an exchange wants to send: what ties a permit to one exchange.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeDigest(pub [u8; 32]);

impl fmt::Debug for ExchangeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
