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
    /// A label of `labels.toml`.
    LabelName
}

name! {
    /// Somebody who may approve, as `people.toml` lists them.
    PersonName
}

macro_rules! short_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal, $(#[$not_doc:meta])* $not:ident, $how:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl $name {
            /// From 64 random bits, of which 40 are kept: short enough to say aloud; checked for collision where it
            /// is made.
            pub fn from_random(bits: u64) -> Self {
                Self(bits & 0xff_ffff_ffff)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:010x}", $letter, self.0)
            }
        }

        $(#[$not_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("{0:?} is not {how}", how = $how)]
        pub struct $not(pub String);

        impl FromStr for $name {
            type Err = $not;
            fn from_str(text: &str) -> Result<Self, $not> {
                text.strip_prefix($letter)
                    .and_then(forty_bits)
                    .map(Self)
                    .ok_or_else(|| $not(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $not;
            fn try_from(text: String) -> Result<Self, $not> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

short_id! {
    /// A request for approval: `a` and ten hexadecimal digits. Never reused.
    ApprovalId, 'a',
    /// Why a text is not a request for approval.
    NotAnApproval,
    "an approval: it is `a` and ten hexadecimal digits, as `interceptor approvals list` prints it"
}

short_id! {
    /// A break-glass: `b` and ten hexadecimal digits. Never reused.
    BreakGlassId, 'b',
    /// Why a text is not a break-glass.
    NotABreakGlass,
    "a break-glass: it is `b` and ten hexadecimal digits, as `interceptor approvals list` prints it"
}

short_id! {
    /// A rescue: `s` and ten hexadecimal digits. Never reused.
    RescueId, 's',
    /// Why a text is not a rescue.
    NotARescue,
    "a rescue: it is `s` and ten hexadecimal digits, as `interceptor status` prints it"
}

short_id! {
    /// One captured process tree, from capture to its last process.
    RunId, 'r',
    /// Why a text is not a run.
    NotARun,
    "a run: it is `r` and ten hexadecimal digits, as `interceptor ps` prints it"
}

impl RunId {
    /// The number the kernel side knows the run by.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// The number that ten hexadecimal digits spell.
fn forty_bits(digits: &str) -> Option<u64> {
    let fits = digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| fits)
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
