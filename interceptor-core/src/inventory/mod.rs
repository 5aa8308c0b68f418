//! What the operator wrote about resources, agents, approvers and labels, checked: the TOML half of a policy folder.
//!
//! Unknown keys, doubtful values and ambiguities are faults, all listed together with file and line; nothing is
//! guessed. Nothing here reads files.

mod agents;
mod credential;
mod identify;
mod labels;
mod load;
mod lookup;
mod overlap;
mod people;
mod place;
mod resource;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use identify::{IdentifyError, Launch};
pub use load::load;
pub use lookup::Match;

use crate::{
    mask::Labels,
    model::{AgentName, PersonName, ResourceName, SocketPath, UNIX},
    sql::Dialect,
};

/// The environment of a resource that names none, as policy sees it.
pub const NO_ENV: &str = "none";

/// A protocol that a resource may name: what the registry knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownProtocol {
    /// The registry's name for it.
    pub name: &'static str,
    /// The port that it is usually spoken at.
    pub port: u16,
    /// What its data is kept in.
    pub data: DataIn,
    /// What its texts are written in; none where it is not spoken to in SQL.
    pub dialect: Option<Dialect>,
}

/// What the data of a protocol's resources is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataIn {
    /// Tables, whose columns can bear labels, and whose rows can be recorded.
    Tables,
    /// Keys with values: a label there goes by the form of a value alone.
    Keys,
    /// Answers that are passed without being looked into: nothing in them can be hidden, and so no label may be there, and
    /// no row is recorded.
    Unread,
}

/// A file of the policy folder, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, as it is shown in faults and rules.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// Something wrong in a policy folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Everything that `resources.toml` and `agents.toml` say.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Resources by name.
    pub resources: BTreeMap<ResourceName, Resource>,
    /// Agents by name.
    pub agents: BTreeMap<AgentName, Agent>,
    /// Groups that rules may wait for, as `@hold` and `context.approvals` name them.
    pub approvers: Vec<String>,
    /// Who may approve, by name.
    pub people: BTreeMap<PersonName, Person>,
    /// Labels by resource, see [`Inventory::labels`].
    labels: BTreeMap<ResourceName, Arc<Labels>>,
    /// SHA-256 of all texts, which goes into the policy's hash.
    pub digest: [u8; 32],
    /// What the data of the resources with a protocol is kept in.
    data: BTreeMap<ResourceName, DataIn>,
    /// Names, addresses and paths, made ready for [`Inventory::by_destination`] and [`Inventory::by_socket`].
    index: lookup::Index,
}

/// A named upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// The registry's protocol name; `None` for a resource that is only passed.
    pub protocol: Option<String>,
    /// What its texts are written in; none where it is not spoken to in SQL.
    pub dialect: Option<Dialect>,
    /// Where it belongs, such as `prod`: an `Env` entity.
    pub env: Option<String>,
    /// Names that the resolver answers for it, in lower case.
    pub hosts: Vec<String>,
    /// Addresses that an agent may dial it by.
    pub addresses: Vec<AddressPattern>,
    /// Unix sockets that the runs of agents reach it by.
    pub sockets: Vec<SocketPath>,
    /// The ports that agents reach it at. Empty only where it has neither hosts nor addresses.
    pub ports: Vec<u16>,
    /// Where the proxy itself dials.
    pub upstream: Upstream,
    /// How the upstream proves who it is.
    pub tls: Tls,
    /// Log-ins, the first that fits the agent.
    pub credentials: Vec<Credential>,
    /// Environment variables with real secrets that a run keeps for this resource, because it is passed.
    pub keeps: Vec<String>,
    /// What is recorded.
    pub record: RecordLevel,
    /// For how long what the catalogue said is taken for true, where a change made around us could not be seen.
    pub facts_max_age: Duration,
    /// How long a statement may be kept waiting for a person on the wire; nothing means that none is.
    pub hold_max: Duration,
    /// Whether denials are carried out.
    pub mode: crate::model::Mode,
    /// What becomes of it while a rescue lasts.
    pub rescue: InRescue,
    /// Where it stands: file and line.
    pub at: (String, usize),
}

/// An address by which an agent may name a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPattern {
    /// Just this address and port.
    Exact(SocketAddr),
    /// A network, at the resource's ports: address and prefix length.
    Network(std::net::IpAddr, u8),
}

/// Where the proxy dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A port.
    Network {
        /// Host name or address literal; resolved by the host's own resolver.
        host: String,
        /// Port.
        port: u16,
        /// Which network it may be on.
        reach: Reach,
    },
    /// A Unix socket of this host's.
    Socket(SocketPath),
}

impl Upstream {
    /// The host, where there is one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Network { host, .. } => Some(host),
            Self::Socket(_) => None,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

/// Which addresses the proxy may dial for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anything but this host's loopback.
    Network,
    /// This host's loopback too: `dial = "host"`. Without it, a name that resolves to loopback is refused.
    Host,
}

/// How the upstream proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// TLS with a certificate that is verified.
    Verified {
        /// PEM file of trusted roots, or the system's.
        roots: Option<PathBuf>,
        /// The name that the certificate must carry; the upstream's host by default.
        server_name: String,
    },
    /// TLS without verification: a named exception.
    Unverified {
        /// Why, in the operator's words.
        reason: String,
    },
    /// No TLS: a named exception.
    Plaintext {
        /// Why, in the operator's words.
        reason: String,
    },
}

/// A log-in to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Which agents it is for; `Everyone` comes last.
    pub holders: Holders,
    /// The upstream user or role.
    pub user: String,
    /// Where the secret comes from; `None` where the upstream asks for none.
    pub secret: Option<SecretSource>,
    /// The weakest method that may be used.
    pub minimum: AuthMethod,
    /// A client certificate chain and where its key comes from.
    pub certificate: Option<(PathBuf, SecretSource)>,
}

/// Whom a credential is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holders {
    /// Agents by name and by group.
    Named {
        /// Agents.
        agents: Vec<AgentName>,
        /// Groups.
        groups: Vec<String>,
    },
    /// Any agent.
    Everyone,
}

/// Where a secret comes from. Only the keeper reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A file, mode 0600 or stricter, relative to the configuration's `credentials/`.
    File(PathBuf),
    /// A file of `$CREDENTIALS_DIRECTORY` (systemd's LoadCredential).
    Systemd(String),
    /// A program that prints `{"secret": "...", "expires_at": "RFC 3339"}`.
    Exec(Vec<String>),
}

/// How a password is proven, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMethod {
    /// No proof at all (`trust`, `peer`).
    None,
    /// The password itself, only inside TLS.
    Cleartext,
    /// PostgreSQL's md5.
    Md5,
    /// MySQL's `mysql_native_password`, by SHA-1.
    MysqlNative,
    /// MySQL's `caching_sha2_password`, by SHA-256.
    CachingSha2,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-256-PLUS, bound to the upstream's certificate.
    ScramSha256Plus,
    /// A client certificate.
    Certificate,
}

/// What the record keeps of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordLevel {
    /// Neither literals nor bind values.
    Metadata,
    /// Full text and bind values.
    Binds,
    /// And the rows that come back, masked as for somebody who may see nothing: only where its labels were reviewed.
    Rows,
}

/// What becomes of a resource while a rescue lasts, as was chosen for it beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InRescue {
    /// It is refused: nothing was chosen.
    Refused,
    /// It is used as ever.
    Masked,
    /// It is used, and what bears labels is shown.
    Unmasked,
}

/// A named non-human identity.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// The person answerable for it.
    pub owner: Option<String>,
    /// Groups that policy may name.
    pub groups: Vec<String>,
    /// Users who may launch it by name (`run --agent`); everyone with root may, where it is empty.
    pub launchers: Vec<String>,
    /// Hints by which a run without a name is recognised.
    pub hints: Vec<Hint>,
    /// Where it stands: file and line.
    pub at: (String, usize),
}

/// Somebody who may approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their name.
    pub name: PersonName,
    /// Their user on this host.
    pub uid: u32,
    /// Groups of approvers that they are in.
    pub groups: Vec<String>,
}

/// A hint: all of its parts must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    /// The launching user's name.
    pub user: Option<String>,
    /// The path of the command's executable.
    pub executable: Option<String>,
    /// Texts that stand in argv.
    pub argv: Vec<String>,
}
