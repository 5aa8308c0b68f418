//! Both legs in memory, against rustls' own other side.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use interceptor_core::{
    inventory::{InRescue, Reach, RecordLevel, Resource, Tls, Upstream},
    model::{Mode, ResourceName},
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject};
use sha2::{Digest, Sha256, Sha384};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    server::{AgentTlsError, Leaf, Minter, Offer, Terminator},
    upstream::{Connector, UpstreamTlsError, end_point_binding},
    *,
};
use crate::keeper::authority::{Authority, CERTIFICATE_FILE};

struct Local {
    authority: Authority,
    minted: AtomicUsize,
    shortened: i64,
}

impl Minter for Local {
    fn mint<'a>(
        &'a self,
        _resource: &'a ResourceName,
        names: &'a [String],
        public_key: &'a [u8],
    ) -> BoxFuture<'a, Result<Leaf, String>> {
        self.minted.fetch_add(1, Ordering::Relaxed);
        let minted = self.authority.mint(names, public_key).map_err(|e| e.to_string());
        let leaf = minted.map(|m| Leaf { chain: m.chain, not_after: m.not_after - self.shortened });
        Box::pin(std::future::ready(leaf))
    }
}

struct Bench {
    folder: tempfile::TempDir,
    minter: Arc<Local>,
    terminator: Terminator,
}

impl Bench {
    fn new(shortened: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::ensure(&folder.path().join("ca")).expect("an authority");
        let minter = Arc::new(Local { authority, minted: AtomicUsize::new(0), shortened });
        let terminator = Terminator::new(Arc::clone(&minter) as Arc<dyn Minter>);
        Self { folder, minter, terminator }
    }

    fn roots(&self) -> PathBuf {
        self.folder.path().join("ca").join(CERTIFICATE_FILE)
    }

    fn client(&self, trusting: bool) -> ClientConfig {
        let mut store = RootCertStore::empty();
        if trusting {
            let pem = std::fs::read(self.roots()).expect("the certificate");
            store.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a root");
        }
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(store)
            .with_no_client_auth()
    }

    /// One handshake: what the client and what we say of it.
    async fn shake(
        &self,
        client: ClientConfig,
        name: &str,
        offer: &Offer,
    ) -> (io::Result<String>, Result<Option<Vec<u8>>, AgentTlsError>) {
        let (near, far) = duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let client = async move {
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, far).await?;
            stream.write_all(b"ping").await?;
            stream.flush().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let server = async move {
            let mut stream = self.terminator.accept(near, offer).await?;
            let mut four = [0; 4];
            stream.read_exact(&mut four).await.map_err(AgentTlsError::Client)?;
            assert_eq!(&four, b"ping");
            stream.write_all(b"pong").await.map_err(AgentTlsError::Client)?;
            stream.shutdown().await.map_err(AgentTlsError::Client)?;
            Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
        };
        tokio::join!(client, server)
    }
}

fn offer() -> Offer {
    Offer {
        resource: "orders".parse().expect("a name"),
        hosts: vec!["db.internal".to_owned(), "db2.internal".to_owned()],
        dialled: None,
        alpn: vec![b"postgresql".to_vec()],
    }
}

#[tokio::test]
async fn an_agent_that_trusts_us_gets_the_name_that_it_asked_for() {
    let bench = Bench::new(0);
    for name in ["db.internal", "DB2.internal", "db.internal"] {
        let mut client = bench.client(true);
        client.alpn_protocols = vec![b"postgresql".to_vec()];
        let (said, alpn) = bench.shake(client, name, &offer()).await;
        assert_eq!(said.expect("the client is content"), "pong");
        assert_eq!(alpn.expect("we are content").as_deref(), Some(&b"postgresql"[..]));
    }
    assert_eq!(bench.minter.minted.load(Ordering::Relaxed), 2, "one certificate per name");
}

#[tokio::test]
async fn tls_1_2_works_and_no_alpn_is_needed() {
    let bench = Bench::new(0);
    let mut store = RootCertStore::empty();
    let pem = std::fs::read(bench.roots()).expect("the certificate");
    store.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a root");
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    let (said, alpn) = bench.shake(client, "db.internal", &offer()).await;
    assert_eq!((said.expect("content"), alpn.expect("content")), ("pong".to_owned(), None));
}

#[tokio::test]
async fn an_agent_that_dials_an_address_gets_that_address() {
    let bench = Bench::new(0);
    let dialled = Offer { dialled: Some([10, 0, 0, 7].into()), ..offer() };
    let (said, ours) = bench.shake(bench.client(true), "10.0.0.7", &dialled).await;
    assert_eq!(said.expect("content"), "pong");
    ours.expect("content");
    // Without a name of any kind the first host stands, which this client did not dial.
    let (said, _) = bench.shake(bench.client(true), "10.0.0.7", &offer()).await;
    assert!(said.is_err());
    let nameless = Offer { hosts: Vec::new(), ..offer() };
    let (_, ours) = bench.shake(bench.client(true), "10.0.0.7", &nameless).await;
    assert!(matches!(ours, Err(AgentTlsError::NoName { .. })));
}

#[tokio::test]
async fn an_agent_that_does_not_trust_us_is_told_how_to() {
    let bench = Bench::new(0);
    let (said, ours) = bench.shake(bench.client(false), "db.internal", &offer()).await;
    assert!(said.is_err());
    let ours = ours.expect_err("no trust");
    assert!(matches!(ours, AgentTlsError::NotTrusted { .. }), "{ours:?}");
    assert!(ours.to_string().contains("SSL_CERT_FILE") && ours.to_string().contains("PGSSLROOTCERT"));
}

#[tokio::test]
async fn a_foreign_name_is_refused_with_an_alert() {
    let bench = Bench::new(0);
    let (said, ours) = bench.shake(bench.client(true), "example.com", &offer()).await;
    assert!(said.expect_err("refused").to_string().contains("AccessDenied"));
    let ours = ours.expect_err("refused").to_string();
    assert!(ours.contains("\"example.com\"") && ours.contains("`hosts`"), "{ours}");
    assert_eq!(bench.minter.minted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_no_tls_is_the_clients_fault() {
    let bench = Bench::new(0);
    for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 9, 9, 9]] {
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(bytes).await.expect("written");
        far.shutdown().await.expect("closed");
        let error = bench.terminator.accept(near, &offer()).await.expect_err("no TLS");
        assert!(matches!(error, AgentTlsError::Client(_) | AgentTlsError::Closed), "{error:?}");
    }
    let (near, far) = duplex(64);
    drop(far);
    let error = bench.terminator.accept(near, &offer()).await.expect_err("closed");
    assert!(matches!(error, AgentTlsError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_replaced() {
    let bench = Bench::new(6 * 24 * 3600);
    for _ in 0..2 {
        bench.shake(bench.client(true), "db.internal", &offer()).await.1.expect("content");
    }
    assert_eq!(bench.minter.minted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn bytes_that_were_read_already_come_first() {
    let (mut near, far) = duplex(64);
    near.write_all(b"def").await.expect("written");
    near.shutdown().await.expect("closed");
    let mut stream = Prefixed::new(Bytes::from_static(b"abc"), far);
    let mut two = [0; 2];
    stream.read_exact(&mut two).await.expect("two");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("the rest");
    assert_eq!((&two, rest.as_str()), (b"ab", "cdef"));
}

fn resource(tls: Tls) -> Resource {
    Resource {
        name: "orders".parse().expect("a name"),
        protocol: None,
        dialect: None,
        env: None,
        hosts: Vec::new(),
        addresses: Vec::new(),
        sockets: Vec::new(),
        ports: vec![5432],
        upstream: Upstream::Network { host: "db.internal".to_owned(), port: 5432, reach: Reach::Network },
        tls,
        credentials: Vec::new(),
        keeps: Vec::new(),
        record: RecordLevel::Binds,
        facts_max_age: Duration::ZERO,
        hold_max: Duration::ZERO,
        mode: Mode::Enforce,
        rescue: InRescue::Refused,
        at: ("resources.toml".to_owned(), 1),
    }
}

fn verified(roots: &Path, name: &str) -> Resource {
    resource(Tls::Verified { roots: Some(roots.to_owned()), server_name: name.to_owned() })
}

/// A server for `db.internal`, and its certificate.
fn server(bench: &Bench) -> (ServerConfig, CertificateDer<'static>) {
    let pair = KeyPair::generate().expect("a key");
    let public = pair.subject_public_key_info();
    let minted = bench.minter.authority.mint(&["db.internal".to_owned()], &public).expect("minted");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(minted.chain.clone(), key)
        .expect("a key that fits");
    (config, minted.chain[0].clone())
}

async fn dial(
    connector: &Connector,
    config: ServerConfig,
) -> Result<upstream::Secured<DuplexStream>, UpstreamTlsError> {
    let (near, far) = duplex(64 * 1024);
    let served = tokio::spawn(TlsAcceptor::from(Arc::new(config)).accept(far));
    let secured = connector.connect(near).await;
    drop(served.await);
    secured
}

#[tokio::test]
async fn an_upstream_is_verified_and_bound_to() {
    let bench = Bench::new(0);
    let (config, certificate) = server(&bench);
    let connector = Connector::new(&verified(&bench.roots(), "db.internal"), &[]).expect("settings");
    let secured = dial(&connector.expect("TLS"), config).await.expect("verified");
    assert!(secured.verified);
    assert_eq!(secured.binding, Some(Sha256::digest(&certificate).to_vec()));
}

#[tokio::test]
async fn another_name_or_authority_is_not_verified() {
    let (bench, other) = (Bench::new(0), Bench::new(0));
    for (roots, name) in [(bench.roots(), "db2.internal"), (other.roots(), "db.internal")] {
        let connector = Connector::new(&verified(&roots, name), &[]).expect("settings").expect("TLS");
        let error = dial(&connector, server(&bench).0).await.expect_err("not verified");
        assert!(matches!(error, UpstreamTlsError::NotVerified { .. }), "{error:?}");
        assert!(error.to_string().contains("resource orders") && error.to_string().contains("`roots`"));
    }
    let exception = resource(Tls::Unverified { reason: "a test".to_owned() });
    let connector = Connector::new(&exception, &[]).expect("settings").expect("TLS");
    let secured = dial(&connector, server(&bench).0).await.expect("encrypted");
    assert!(!secured.verified && secured.binding.is_some());
}

#[test]
fn settings_that_cannot_work_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("roots.pem");
    std::fs::write(&empty, "nothing").expect("write");
    let said = |resource: &Resource| Connector::new(resource, &[]).expect_err("wrong").to_string();
    assert!(said(&verified(&empty, "db")).contains("holds no certificate"));
    assert!(said(&verified(&folder.path().join("gone"), "db")).contains("No such file"));
    let plain = resource(Tls::Plaintext { reason: "a test".to_owned() });
    assert!(Connector::new(&plain, &[]).expect("settings").is_none());
}

#[test]
fn the_binding_follows_the_signatures_hash() {
    let made = |algorithm| {
        let pair = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new(vec!["db".to_owned()]).expect("params");
        params.self_signed(&pair).expect("a certificate").der().clone()
    };
    let strong = made(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(end_point_binding(&strong), Some(Sha384::digest(&strong).to_vec()));
    let plain = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(end_point_binding(&plain), Some(Sha256::digest(&plain).to_vec()));
    assert_eq!(end_point_binding(&made(&rcgen::PKCS_ED25519)), None);
    assert_eq!(end_point_binding(b"nonsense"), None);
}

#[test]
fn every_variable_has_one_meaning() {
    let names: BTreeSet<_> = trust::VARIABLES.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), trust::VARIABLES.len());
}
