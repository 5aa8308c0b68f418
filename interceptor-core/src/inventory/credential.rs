//! Log-ins of one resource.

use std::path::{Component, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{
    AuthMethod, Credential, Holders, Inventory, Resource, SecretSource, Tls, Upstream, load::Reader,
};
use crate::model::{AgentIdentity, AgentName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCredential {
    #[serde(default)]
    agents: Vec<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    user: Spanned<String>,
    secret: Option<Spanned<RawSecret>>,
    minimum: Option<Spanned<RawMethod>>,
    certificate: Option<Spanned<RawCertificate>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    file: Option<PathBuf>,
    systemd: Option<String>,
    exec: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCertificate {
    chain: PathBuf,
    key: Spanned<RawSecret>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum RawMethod {
    None,
    Cleartext,
    Md5,
    #[serde(rename = "mysql-native-password")]
    MysqlNative,
    #[serde(rename = "caching-sha2-password")]
    CachingSha2,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-256-plus")]
    ScramSha256Plus,
    Certificate,
}

impl From<RawMethod> for AuthMethod {
    fn from(raw: RawMethod) -> Self {
        match raw {
            RawMethod::None => Self::None,
            RawMethod::Cleartext => Self::Cleartext,
            RawMethod::Md5 => Self::Md5,
            RawMethod::MysqlNative => Self::MysqlNative,
            RawMethod::CachingSha2 => Self::CachingSha2,
            RawMethod::ScramSha256 => Self::ScramSha256,
            RawMethod::ScramSha256Plus => Self::ScramSha256Plus,
            RawMethod::Certificate => Self::Certificate,
        }
    }
}

/// Reads a resource's log-ins, in order.
pub(super) fn read(
    reader: &mut Reader<'_>,
    raw: Vec<Spanned<RawCredential>>,
    way: (&Tls, &Upstream),
    inventory: &Inventory,
) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    for raw in raw {
        let at = raw.span().start;
        if credentials.last().is_some_and(|last| last.holders == Holders::Everyone) {
            reader.fault(
                at,
                "the credential before this one is for every agent, so this one is never used; move it up",
            );
        }
        credentials.push(credential(reader, raw.into_inner(), at, way, inventory));
    }
    credentials
}

fn credential(
    reader: &mut Reader<'_>,
    raw: RawCredential,
    at: usize,
    way: (&Tls, &Upstream),
    inventory: &Inventory,
) -> Credential {
    if raw.user.get_ref().is_empty() || raw.user.get_ref().contains('\0') {
        reader.fault(raw.user.span().start, "`user` is empty or has a NUL in it");
    }
    let minimum_at = raw.minimum.as_ref().map_or(at, |minimum| minimum.span().start);
    let default = match (&raw.secret, &raw.certificate) {
        (Some(_), _) => AuthMethod::ScramSha256,
        (None, Some(_)) => AuthMethod::Certificate,
        (None, None) => AuthMethod::None,
    };
    let credential = Credential {
        holders: holders(reader, raw.agents, raw.groups, inventory),
        user: raw.user.into_inner(),
        secret: raw.secret.and_then(|raw| secret(reader, raw)),
        minimum: raw.minimum.map_or(default, |minimum| AuthMethod::from(minimum.into_inner())),
        certificate: raw.certificate.and_then(|raw| {
            let at = raw.span().start;
            let raw = raw.into_inner();
            if !raw.chain.is_absolute() {
                reader.fault(at, "`chain` must be an absolute path");
            }
            secret(reader, raw.key).map(|key| (raw.chain, key))
        }),
    };
    if let Some(wrong) = unfit(&credential, default, way) {
        reader.fault(minimum_at, wrong);
    }
    credential
}

/// What of a log-in cannot be had or must not be: a password goes out readable only to an upstream whose identity
/// was verified, or by a Unix socket, where nobody is in between. `best` is what the given secret and certificate could prove.
fn unfit(
    credential: &Credential,
    best: AuthMethod,
    (tls, upstream): (&Tls, &Upstream),
) -> Option<&'static str> {
    let verified = matches!(tls, Tls::Verified { .. }) || matches!(upstream, Upstream::Socket(_));
    let plaintext = matches!(tls, Tls::Plaintext { .. });
    let minimum = credential.minimum;
    if best == AuthMethod::ScramSha256 && minimum <= AuthMethod::Cleartext && !verified {
        Some(
            "`minimum` would let the password go out readable to an upstream that was not verified; \
             use `md5` or stronger, or verify its TLS",
        )
    } else if plaintext && (minimum >= AuthMethod::ScramSha256Plus || best == AuthMethod::Certificate) {
        Some("a certificate or scram-sha-256-plus needs TLS, and this resource has `tls.plaintext`")
    } else if best == AuthMethod::None && minimum != AuthMethod::None {
        Some("`minimum` asks for a proof, but there is neither `secret` nor `certificate`")
    } else if minimum == AuthMethod::Certificate && credential.certificate.is_none() {
        Some("`minimum` asks for a certificate; add `certificate = { chain = ..., key = ... }`")
    } else if best == AuthMethod::Certificate
        && minimum > AuthMethod::None
        && minimum < AuthMethod::Certificate
    {
        Some("`minimum` asks for a password, but there is no `secret`")
    } else {
        None
    }
}

fn holders(
    reader: &mut Reader<'_>,
    agents: Vec<Spanned<String>>,
    groups: Vec<Spanned<String>>,
    inventory: &Inventory,
) -> Holders {
    if agents.is_empty() && groups.is_empty() {
        return Holders::Everyone;
    }
    let mut named = Vec::new();
    for agent in agents {
        let name = AgentName::try_from(agent.get_ref().clone()).ok();
        match name.filter(|name| inventory.agents.contains_key(name) || *name == AgentName::unknown()) {
            Some(name) => named.push(name),
            None => {
                reader.fault(agent.span().start, format!("agents.toml has no agent `{}`", agent.get_ref()))
            }
        }
    }
    for group in &groups {
        if !inventory.agents.values().any(|agent| agent.groups.contains(group.get_ref())) {
            reader.fault(group.span().start, format!("no agent is in group `{}`", group.get_ref()));
        }
    }
    Holders::Named { agents: named, groups: groups.into_iter().map(Spanned::into_inner).collect() }
}

fn secret(reader: &mut Reader<'_>, raw: Spanned<RawSecret>) -> Option<SecretSource> {
    let at = raw.span().start;
    let raw = raw.into_inner();
    let wrong = match (raw.file, raw.systemd, raw.exec) {
        (Some(file), None, None) => {
            let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
            if plain && file.file_name().is_some() {
                return Some(SecretSource::File(file));
            }
            "`file` is a path below the configuration's `credentials/`, without `..`"
        }
        (None, Some(name), None) => {
            if !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']) {
                return Some(SecretSource::Systemd(name));
            }
            "`systemd` is the name of a credential of the unit, without `/`"
        }
        (None, None, Some(command)) => {
            if command.first().is_some_and(|program| program.starts_with('/')) {
                return Some(SecretSource::Exec(command));
            }
            "`exec` must begin with the absolute path of a program"
        }
        _ => "a secret comes from one of `file`, `systemd` and `exec`",
    };
    reader.fault(at, wrong);
    None
}

impl Resource {
    /// The log-in for an agent: the first that is for it.
    pub fn credential_for(&self, agent: &AgentIdentity) -> Option<&Credential> {
        self.credentials.iter().find(|credential| match &credential.holders {
            Holders::Everyone => true,
            Holders::Named { agents, groups } => {
                agents.contains(&agent.name) || groups.iter().any(|group| agent.groups.contains(group))
            }
        })
    }
}
