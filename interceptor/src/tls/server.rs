//! TLS towards the agent: a certificate for the very name that it asked for, minted by the keeper.
//!
//! Promises: only names of the resource are stood for; a leaf's private key is made here and never leaves the
//! process; leaves are kept in a bounded cache and renewed a day before they end.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use futures::future::BoxFuture;
use interceptor_core::model::ResourceName;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::{
    AlertDescription, ServerConfig,
    crypto::ring::sign::any_ecdsa_type,
    server::{Acceptor, ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{error::Elapsed, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{HANDSHAKE_DEADLINE, provider, rustls_error};

/// The most certificates that are kept.
pub const CACHE_LIMIT: usize = 1024;

/// A leaf with less than this to live is replaced.
const RENEW_BEFORE: i64 = 24 * 3600;

/// A certificate for a public key of ours.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The end of its life, in seconds of the Unix epoch.
    pub not_after: i64,
}

/// Whoever holds the authority's key.
pub trait Minter: Send + Sync {
    /// A certificate in which `names` of `resource` stand for the DER SubjectPublicKeyInfo `public_key`; or why
    /// not, in words.
    fn mint<'a>(
        &'a self,
        resource: &'a ResourceName,
        names: &'a [String],
        public_key: &'a [u8],
    ) -> BoxFuture<'a, Result<Leaf, String>>;
}

/// Whom we may stand for on one connection.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The resource.
    pub resource: ResourceName,
    /// Its names, in lower case.
    pub hosts: Vec<String>,
    /// The original destination, where the resource was dialled by address rather than by name.
    pub dialled: Option<IpAddr>,
    /// The protocol's ALPN names.
    pub alpn: Vec<Vec<u8>>,
}

/// Why there is no TLS with the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentTlsError {
    /// The client does not trust our authority.
    #[error(
        "client does not trust the interceptor ({alert}): start it with `interceptor run`, or set SSL_CERT_FILE \
         (PGSSLROOTCERT for libpq, NODE_EXTRA_CA_CERTS for Node, REQUESTS_CA_BUNDLE for Python requests) as \
         `interceptor ca env` prints; a client that pins certificates or brings its own roots needs `pass`"
    )]
    NotTrusted {
        /// What the client said.
        alert: String,
    },
    /// The client asked for a name that is not the resource's.
    #[error("client asked for {name:?}, which is no name of resource {resource}: add it to its `hosts`")]
    ForeignName {
        /// The name.
        name: String,
        /// The resource.
        resource: ResourceName,
    },
    /// There is no name to stand for.
    #[error("resource {resource} has no host name, and the client named none: add `hosts` to it")]
    NoName {
        /// The resource.
        resource: ResourceName,
    },
    /// The keeper gave no certificate.
    #[error("no certificate for resource {resource}: {why}")]
    Mint {
        /// The resource.
        resource: ResourceName,
        /// The keeper's words.
        why: String,
    },
    /// The client spoke no TLS that we know, or broke it.
    #[error("client: TLS failed: {0}")]
    Client(#[source] io::Error),
    /// The client closed in the middle of it, which is how some say that they do not trust a certificate.
    #[error(
        "client closed during the TLS handshake: it may not trust the interceptor (see `interceptor ca env`)"
    )]
    Closed,
    /// The client took too long.
    #[error("client did not end its TLS handshake in time")]
    Slow(#[from] Elapsed),
}

/// Ends agents' TLS.
pub struct Terminator {
    minter: Arc<dyn Minter>,
    cache: Mutex<HashMap<Key, Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    resource: ResourceName,
    names: Vec<String>,
    alpn: Vec<Vec<u8>>,
}

struct Entry {
    config: Arc<ServerConfig>,
    /// When it was made and when it ends, in seconds of the Unix epoch.
    life: Range<i64>,
    used: Instant,
}

/// Whether a leaf with this life is given to clients. One that was made later than now is none: the clock was set back, and
/// for its clients it may not have begun.
fn is_fresh(life: &Range<i64>, now: i64) -> bool {
    (life.start..life.end.saturating_sub(RENEW_BEFORE)).contains(&now)
}

impl std::fmt::Debug for Terminator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminator")
    }
}

impl Terminator {
    /// With certificates from `minter`.
    pub fn new(minter: Arc<dyn Minter>) -> Self {
        Self { minter, cache: Mutex::default() }
    }

    /// The handshake with an agent that begins TLS on `io`.
    pub async fn accept<IO>(&self, io: IO, offer: &Offer) -> Result<TlsStream<IO>, AgentTlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let deadline = tokio::time::Instant::now() + HANDSHAKE_DEADLINE;
        let start = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), io)).await?;
        let start = start.map_err(from_io)?;
        let names = names_for(start.client_hello().server_name(), offer);
        let config = match names {
            Ok(names) => timeout_at(deadline, self.config(names, offer)).await?,
            Err(error) => Err(error),
        };
        match config {
            Ok(config) => timeout_at(deadline, start.into_stream(config)).await?.map_err(from_io),
            Err(error) => {
                // So that the client is told by an alert, not by silence.
                let _alert = timeout_at(deadline, start.into_stream(refusing())).await;
                Err(error)
            }
        }
    }

    async fn config(&self, names: Vec<String>, offer: &Offer) -> Result<Arc<ServerConfig>, AgentTlsError> {
        let key = Key { resource: offer.resource.clone(), names, alpn: offer.alpn.clone() };
        if let Some(config) = self.cached(&key) {
            return Ok(config);
        }
        let failed = |why: String| AgentTlsError::Mint { resource: offer.resource.clone(), why };
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| failed(e.to_string()))?;
        let public = pair.subject_public_key_info();
        let leaf = self.minter.mint(&key.resource, &key.names, &public).await.map_err(failed)?;
        let config = server_config(&pair, &leaf, &key.alpn).map_err(|e| failed(e.to_string()))?;
        let config = Arc::new(config);
        self.keep(key, &config, leaf.not_after);
        Ok(config)
    }

    fn cached(&self, key: &Key) -> Option<Arc<ServerConfig>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.get_mut(key)?;
        if !is_fresh(&entry.life, now()) {
            return None;
        }
        entry.used = Instant::now();
        Some(Arc::clone(&entry.config))
    }

    fn keep(&self, key: Key, config: &Arc<ServerConfig>, not_after: i64) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_LIMIT && !cache.contains_key(&key) {
            let oldest = cache.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.map(|key| cache.remove(&key));
        }
        cache.insert(key, Entry { config: Arc::clone(config), life: now()..not_after, used: Instant::now() });
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The name that the client asked for, when it is the resource's; without one, the address that it dialled and the
/// resource's first name.
fn names_for(asked: Option<&str>, offer: &Offer) -> Result<Vec<String>, AgentTlsError> {
    if let Some(name) = asked {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if offer.hosts.contains(&name) {
            return Ok(vec![name]);
        }
        return Err(AgentTlsError::ForeignName { name, resource: offer.resource.clone() });
    }
    let dialled = offer.dialled.map(|address| address.to_string());
    let names: Vec<String> = dialled.into_iter().chain(offer.hosts.first().cloned()).collect();
    if names.is_empty() {
        return Err(AgentTlsError::NoName { resource: offer.resource.clone() });
    }
    Ok(names)
}

fn server_config(pair: &KeyPair, leaf: &Leaf, alpn: &[Vec<u8>]) -> Result<ServerConfig, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let certified = CertifiedKey::new(leaf.chain.clone(), any_ecdsa_type(&key)?);
    certified.keys_match()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}

/// Answers every client with the alert `access_denied`.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[expect(
    clippy::expect_used,
    reason = "the provider's own versions are consistent; nothing comes from outside"
)]
fn refusing() -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    Arc::new(config)
}

fn from_io(error: io::Error) -> AgentTlsError {
    use AlertDescription as A;
    match rustls_error(&error) {
        Some(rustls::Error::AlertReceived(
            alert @ (A::UnknownCA
            | A::BadCertificate
            | A::CertificateUnknown
            | A::UnsupportedCertificate
            | A::CertificateExpired
            | A::AccessDenied),
        )) => AgentTlsError::NotTrusted { alert: format!("{alert:?}") },
        Some(_) => AgentTlsError::Client(error),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                AgentTlsError::Closed
            }
            _ => AgentTlsError::Client(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_fresh_from_when_it_was_made_until_it_is_time_for_another() {
        let life = 1_000_000..1_000_000 + 3 * RENEW_BEFORE;
        for (now, fresh) in [(0, true), (2 * RENEW_BEFORE - 1, true), (2 * RENEW_BEFORE, false), (-1, false)]
        {
            assert_eq!(is_fresh(&life, life.start + now), fresh, "{now}");
        }
    }
}
