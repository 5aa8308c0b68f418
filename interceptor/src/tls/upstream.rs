//! TLS towards a resource: its certificate verified as the inventory says, with a client certificate whose key is
//! elsewhere.
//!
//! Promises: a connection counts as verified only when the certificate chains to the configured roots and carries
//! the configured name; sessions are never resumed, so one agent's identity cannot be used by another; a client
//! key is never here.

use std::{fmt, fs, io, sync::Arc};

use interceptor_core::inventory::{Resource, Tls};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    sign::{CertifiedKey, Signer, SigningKey},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HANDSHAKE_DEADLINE, provider, rustls_error};

/// Why there is no TLS with the upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The inventory's TLS settings cannot be used.
    #[error("resource {resource}: {why}")]
    Settings {
        /// The resource.
        resource: String,
        /// What is wrong, and the mend.
        why: String,
    },
    /// The upstream is not who it should be.
    #[error(
        "resource {resource}: upstream's certificate does not prove that it is {name:?} ({source}): set `roots` to \
         the authority that signed it, or `server_name` to the name that it carries"
    )]
    NotVerified {
        /// The resource.
        resource: String,
        /// The expected name.
        name: String,
        /// Why.
        source: rustls::Error,
    },
    /// The handshake failed otherwise.
    #[error("resource {resource}: upstream: TLS failed: {source}")]
    Failed {
        /// The resource.
        resource: String,
        /// Why.
        source: io::Error,
    },
    /// The upstream took too long.
    #[error("resource {resource}: upstream did not end its TLS handshake in time")]
    Slow {
        /// The resource.
        resource: String,
    },
}

/// Signs with a client key that is elsewhere. It blocks; its callers make room for that.
pub trait RemoteSigner: fmt::Debug + Send + Sync {
    /// The signature of `message` (not hashed) by this scheme; or why not, in words.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// A client certificate, and who signs for it.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What its key can do.
    pub schemes: Vec<SignatureScheme>,
    /// Who holds its key.
    pub signer: Arc<dyn RemoteSigner>,
}

/// What an upstream's TLS gave.
#[derive(Debug)]
pub struct Secured<IO> {
    /// The stream.
    pub stream: TlsStream<IO>,
    /// Whether the certificate was verified; `false` for a named exception.
    pub verified: bool,
    /// The `tls-server-end-point` channel binding (RFC 5929); `None` where the certificate's signature has no
    /// single hash that is defined for it.
    pub binding: Option<Vec<u8>>,
}

/// Begins TLS with one resource.
#[derive(Clone)]
pub struct Connector {
    resource: String,
    name: ServerName<'static>,
    verified: bool,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("resource", &self.resource)
            .field("name", &self.name)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// For `resource`; `None` where the inventory says plaintext. Reads the roots: make it once per load of the
    /// inventory, not per connection.
    pub fn new(resource: &Resource, alpn: &[&[u8]]) -> Result<Option<Self>, UpstreamTlsError> {
        let named = resource.name.as_str();
        let settings = |why: String| UpstreamTlsError::Settings { resource: named.to_owned(), why };
        let provider = provider();
        let (name, verifier, verified): (&str, Arc<dyn ServerCertVerifier>, _) = match &resource.tls {
            Tls::Plaintext { .. } => return Ok(None),
            Tls::Verified { roots, server_name } => {
                let roots = match roots {
                    Some(path) => roots_of(path).map_err(settings)?,
                    None => system_roots().map_err(settings)?,
                };
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                (server_name, verifier.build().map_err(|e| settings(e.to_string()))?, true)
            }
            Tls::Unverified { .. } => {
                let host = resource.upstream.host();
                let host = host.ok_or_else(|| settings("there is no TLS over a Unix socket".to_owned()))?;
                (host, Arc::new(Anybody(provider.clone())), false)
            }
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| settings(format!("`server_name` {name:?} is neither a host name nor an address")))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| settings(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Self { resource: named.to_owned(), name, verified, config: Arc::new(config) }))
    }

    /// The same with a client certificate.
    #[must_use]
    pub fn with_identity(&self, identity: ClientIdentity) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(Shown::new(identity));
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The handshake on `io`.
    pub async fn connect<IO>(&self, io: IO) -> Result<Secured<IO>, UpstreamTlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = timeout(HANDSHAKE_DEADLINE, connector.connect(self.name.clone(), io))
            .await
            .map_err(|_| UpstreamTlsError::Slow { resource: self.resource.clone() })?
            .map_err(|error| self.failed(error))?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = certificate.and_then(|leaf| end_point_binding(leaf));
        Ok(Secured { stream, verified: self.verified, binding })
    }

    fn failed(&self, error: io::Error) -> UpstreamTlsError {
        match rustls_error(&error) {
            Some(inner @ rustls::Error::InvalidCertificate(_)) => UpstreamTlsError::NotVerified {
                resource: self.resource.clone(),
                name: self.name.to_str().into_owned(),
                source: inner.clone(),
            },
            _ => UpstreamTlsError::Failed { resource: self.resource.clone(), source: error },
        }
    }
}

fn roots_of(path: &std::path::Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|e| format!("`roots` {shown}: {e}"))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| format!("`roots` {shown} is not PEM: {e}"))?;
        store.add(certificate).map_err(|e| format!("`roots` {shown}: {e}"))?;
    }
    if store.is_empty() {
        return Err(format!("`roots` {shown} holds no certificate: write the authority's PEM into it"));
    }
    Ok(store)
}

/// For a server of nobody's inventory, by the system's roots.
pub fn ordinary_client() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(system_roots()?).with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let _counts = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err("this host has no trusted roots: install ca-certificates, or set `roots`".to_owned());
    }
    Ok(store)
}

/// The hash of a certificate as RFC 5929, section 4.1 wants it: by the hash of its signature, but SHA-256 where that
/// is MD5 or SHA-1; undefined where the signature has none.
pub fn end_point_binding(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let oid = parsed.signature_algorithm.algorithm.to_id_string();
    match oid.as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        // RSA-PSS names its hash in its parameters; Ed25519 has none. Servers differ, so we do not bind.
        _ => None,
    }
}

/// Believes any certificate, but still has its key prove itself. Only for a named exception of the inventory.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate to show to whoever asks for one.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl Shown {
    fn new(identity: ClientIdentity) -> Self {
        let key = RemoteKey { schemes: identity.schemes, signer: identity.signer };
        Self(Arc::new(CertifiedKey::new(identity.chain, Arc::new(key))))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
struct RemoteKey {
    schemes: Vec<SignatureScheme>,
    signer: Arc<dyn RemoteSigner>,
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSignature { scheme, signer: Arc::clone(&self.signer) }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        use SignatureScheme as S;
        match self.schemes.first() {
            Some(S::ECDSA_NISTP256_SHA256 | S::ECDSA_NISTP384_SHA384 | S::ECDSA_NISTP521_SHA512) => {
                SignatureAlgorithm::ECDSA
            }
            Some(S::ED25519) => SignatureAlgorithm::ED25519,
            Some(S::ED448) => SignatureAlgorithm::ED448,
            _ => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct RemoteSignature {
    scheme: SignatureScheme,
    signer: Arc<dyn RemoteSigner>,
}

impl Signer for RemoteSignature {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signer.sign(self.scheme, message).map_err(rustls::Error::General)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
