//! The keeper over its channel, with both of its helpers' ends real.

use std::{
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
};

use interceptor_core::{
    inventory::{AuthMethod, SecretSource, Tls},
    protocol::{Challenge, Proof},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{
    client::{AskError, KeeperClient},
    messages::Leg,
    proof::tests::{credential, inventory, verified},
    *,
};
use crate::tls::{provider, server::Minter, upstream::Connector};

pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) client: KeeperClient,
}

impl Bench {
    /// A keeper with its secrets in a folder of its own, and the proxy's end of its channel.
    pub(super) fn new(inventory: impl Fn() -> Result<Inventory, String> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places::under(folder.path());
        std::fs::create_dir_all(places.credentials()).expect("mkdir");
        let bench = Bench { client: serve(places, inventory), folder };
        bench.secret("orders", b"hunter2\n");
        bench
    }

    pub(super) fn places(&self) -> Places {
        Places::under(self.folder.path())
    }

    pub(super) fn secret(&self, name: &str, content: &[u8]) {
        let path = self.places().credentials().join(name);
        std::fs::write(&path, content).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    }
}

fn nothing_spent() -> SpentSince {
    Box::new(|_, _| Ok(Vec::new()))
}

/// A docket that answers each list with more than fits a message.
fn talkative() -> Kept {
    Kept {
        approvals: Box::new(|_| Ok(docket::Answer::No("x".repeat(crate::channel::LIMIT)))),
        packs: Box::new(|_| Ok(packs::Answer::Done)),
        bindings: Box::new(|_| Ok(bindings::Answer::Done)),
    }
}

fn serve(
    places: Places,
    inventory: impl Fn() -> Result<Inventory, String> + Send + Sync + 'static,
) -> KeeperClient {
    let load: Load = Box::new(move |_| inventory());
    let keeper = Arc::new(
        Keeper::new(places, SystemdCredentials::default(), load, nothing_spent(), talkative())
            .expect("a keeper"),
    );
    let (near, far) = crate::channel::pair::<Request, Reply>().expect("a channel");
    let far = Arc::new(far);
    for _ in 0..THREADS {
        let (keeper, far) = (Arc::clone(&keeper), Arc::clone(&far));
        thread::spawn(move || keeper.serve(&far));
    }
    KeeperClient::start(near).expect("a client")
}

fn orders() -> ResourceName {
    "orders".parse().expect("a name")
}

fn leg() -> Leg {
    Leg::Tls { verified: true, binding: None }
}

#[tokio::test]
async fn questions_are_answered_over_the_channel() {
    let bench = Bench::new(|| Ok(inventory(verified(), vec![credential(AuthMethod::Cleartext)])));
    bench.client.ping().await.expect("there");
    let login = bench.client.login(orders(), "bot".parse().expect("a name"));
    let proof = login.prove(Challenge::Cleartext, &leg()).await.expect("a proof");
    assert_eq!(proof, Proof::Response(zeroize::Zeroizing::new(b"hunter2".to_vec())));
    assert!(login.identity().await.expect("an answer").is_none());
    let refused = login.prove(Challenge::Cleartext, &Leg::Plaintext).await.expect_err("refused");
    assert!(matches!(&refused, AskError::Refused(why) if why.contains("resource orders")), "{refused}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_a_refusal_and_the_keeper_goes_on() {
    let bench = Bench::new(|| Ok(inventory(verified(), vec![credential(AuthMethod::Md5)])));
    let refused = bench.client.ask(Ask::Approval(Question::List)).await.expect_err("too long");
    assert!(
        matches!(&refused, AskError::Refused(why) if why.contains("a message of more than")),
        "{refused}"
    );
    bench.client.ping().await.expect("there");
}

#[tokio::test]
async fn many_questions_at_once_get_their_own_answers() {
    let bench = Bench::new(|| Ok(inventory(verified(), vec![credential(AuthMethod::Md5)])));
    let asked = (0..200_u8).map(|n| {
        let login = bench.client.login(orders(), "bot".parse().expect("a name"));
        async move {
            let salt = [n; 4];
            let question = Challenge::Md5 { user: "app".to_owned(), salt };
            login.prove(question, &leg()).await.expect("a proof")
        }
    });
    let mut proofs: Vec<_> = futures::future::join_all(asked)
        .await
        .into_iter()
        .map(|proof| match proof {
            Proof::Response(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    proofs.sort();
    proofs.dedup();
    assert_eq!(proofs.len(), 200);
}

#[tokio::test]
async fn certificates_are_minted_only_for_the_resources_names() {
    let bench = Bench::new(|| {
        let mut inventory = inventory(verified(), Vec::new());
        let resource = inventory.resources.get_mut(&orders()).expect("there");
        resource.addresses = vec![
            AddressPattern::Exact("10.1.2.3:5432".parse().expect("an address")),
            AddressPattern::Network([10, 9, 0, 0].into(), 16),
            AddressPattern::Network("fd00::".parse().expect("an address"), 8),
        ];
        Ok(inventory)
    });
    let key = KeyPair::generate().expect("a key").subject_public_key_info();
    for (name, fits) in [
        ("db.internal", true),
        ("198.18.0.1", true),
        ("10.1.2.3", true),
        ("10.9.255.1", true),
        ("fd12::1", true),
        ("10.8.255.1", false),
        ("fe80::1", false),
        ("198.18.0.0", false),
        ("api.example.com", false),
        ("*.internal", false),
    ] {
        let minted = bench.client.mint(&orders(), &[name.to_owned()], &key).await;
        assert_eq!(minted.is_ok(), fits, "{name}: {minted:?}");
    }
    let nobody = "nobody".parse().expect("a name");
    let minted = bench.client.mint(&nobody, &["db.internal".to_owned()], &key).await;
    assert!(minted.expect_err("refused").contains("no resource nobody"));
}

#[tokio::test]
async fn a_wrong_inventory_is_refused_and_the_old_one_stays() {
    static WRONG: AtomicBool = AtomicBool::new(false);
    let bench = Bench::new(|| {
        if WRONG.load(Ordering::Relaxed) {
            return Err("resources.toml:3: no".to_owned());
        }
        Ok(inventory(verified(), vec![credential(AuthMethod::Cleartext)]))
    });
    bench.client.reload().await.expect("read again");
    WRONG.store(true, Ordering::Relaxed);
    assert_eq!(bench.client.reload().await, Err(AskError::Refused("resources.toml:3: no".to_owned())));
    let login = bench.client.login(orders(), "bot".parse().expect("a name"));
    login.prove(Challenge::Cleartext, &leg()).await.expect("still there");
}

#[tokio::test]
async fn slow_programs_do_not_hold_up_the_rest() {
    let bench = Bench::new(|| {
        let mut slow = credential(AuthMethod::Cleartext);
        slow.secret = Some(SecretSource::Exec(vec!["/bin/sleep".to_owned(), "9".to_owned()]));
        Ok(inventory(verified(), vec![slow]))
    });
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let login = bench.client.login(orders(), "bot".parse().expect("a name"));
            tokio::spawn(async move { login.prove(Challenge::Cleartext, &leg()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.client.ping().await.expect("there");
    assert!(asked.iter().any(|one| !one.is_finished()), "it is answered before the programs are through");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_keeper_that_is_gone_fails_every_question() {
    let (near, far) = crate::channel::pair::<Request, Reply>().expect("a channel");
    let client = KeeperClient::start(near).expect("a client");
    let asked = {
        let client = client.clone();
        tokio::spawn(async move { client.ping().await })
    };
    let (request, _) = tokio::task::spawn_blocking(move || {
        let received = far.receive().expect("a question");
        drop(far);
        received
    })
    .await
    .expect("joined");
    assert_eq!(request.ask, Ask::Ping);
    assert_eq!(asked.await.expect("joined"), Err(AskError::Gone));
    client.gone().await;
    assert_eq!(client.ping().await, Err(AskError::Gone));
}

/// An authority for clients, and a certificate of it: PEM chain, PEM key, DER root.
pub(super) fn client_certificate(user: &str) -> (String, String, Vec<u8>, String) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).expect("a root");
    let issuer = Issuer::from_params(&root, &root_key);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let root_pem = root_certificate.pem();
    (certificate.pem(), key.serialize_pem(), root_certificate.der().to_vec(), root_pem)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_and_signed_for_by_the_keeper() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let bench = Bench::new(|| {
            let mut shown = credential(AuthMethod::Certificate);
            shown.certificate = Some(("client.pem".into(), SecretSource::File("client.key".into())));
            Ok(inventory(verified(), vec![shown]))
        });
        let (chain, key, root, _) = client_certificate("app");
        bench.secret("client.pem", chain.as_bytes());
        bench.secret("client.key", key.as_bytes());

        let mut roots = RootCertStore::empty();
        roots.add(root.into()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let pair = KeyPair::generate().expect("a key");
        let names = ["db.internal".to_owned()];
        let leaf =
            bench.client.mint(&orders(), &names, &pair.subject_public_key_info()).await.expect("minted");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                leaf.chain,
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())),
            )
            .expect("a key that fits");

        let mut resource = inventory(verified(), Vec::new()).resources.remove(&orders()).expect("there");
        let roots = bench.places().authority().join(authority::CERTIFICATE_FILE);
        resource.tls = Tls::Verified { roots: Some(roots), server_name: "db.internal".to_owned() };
        let login = bench.client.login(orders(), "bot".parse().expect("a name"));
        let early = login.prove(Challenge::Nothing, &leg()).await;
        assert!(early.is_err(), "nothing was signed yet");
        let identity = login.identity().await.expect("an answer").expect("a certificate");
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let connector =
            Connector::new(&resource, &[]).expect("settings").expect("TLS").with_identity(identity);

        let (near, far) = tokio::io::duplex(64 * 1024);
        let served = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(far).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await?;
            Ok::<_, std::io::Error>(stream.get_ref().1.peer_certificates().map(<[_]>::len))
        });
        let mut secured = connector.connect(near).await.expect("a handshake");
        let mut text = String::new();
        secured.stream.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "hello");
        assert_eq!(served.await.expect("joined").expect("served"), Some(1));
        assert_eq!(login.prove(Challenge::Nothing, &leg()).await, Ok(Proof::Accepted));
    }
}

#[tokio::test]
async fn only_handshakes_are_signed() {
    let bench = Bench::new(|| {
        let mut shown = credential(AuthMethod::Certificate);
        shown.certificate = Some(("client.pem".into(), SecretSource::File("client.key".into())));
        Ok(inventory(verified(), vec![shown]))
    });
    let (chain, key, ..) = client_certificate("app");
    bench.secret("client.pem", chain.as_bytes());
    bench.secret("client.key", key.as_bytes());
    let login = bench.client.login(orders(), "bot".parse().expect("a name"));
    let identity = login.identity().await.expect("an answer").expect("a certificate");
    let scheme = rustls::SignatureScheme::ECDSA_NISTP256_SHA256;
    let refused = identity.signer.sign(scheme, b"pay me").expect_err("refused");
    assert!(refused.contains("only handshakes"), "{refused}");
    let mut text = vec![b' '; 64];
    text.extend_from_slice(b"TLS 1.3, server CertificateVerify\0");
    assert!(identity.signer.sign(scheme, &text).is_err());
}

/// The whole role, in a process of its own, since it hardens itself. Run by the test below.
#[test]
#[ignore = "a part of the_role_hardens_itself_and_ends_with_its_channel"]
fn the_role() {
    let folder = tempfile::tempdir().expect("a folder");
    let (near, far) = crate::channel::pair::<Request, Reply>().expect("a channel");
    let left = folder.path().join("left");
    let written = left.clone();
    let role = Role {
        channel: far,
        places: Places::under(folder.path()),
        systemd: SystemdCredentials::default(),
        load: Box::new(|_| Ok(Inventory::default())),
        spent: nothing_spent(),
        kept: talkative(),
        writer: Box::new(move |stop| {
            while !stop.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(5));
            }
            std::fs::write(left, "the rest").map_err(|e| e.to_string())
        }),
    };
    let asked = thread::spawn(move || {
        near.send(&Request { id: 7, ask: Ask::Ping }, &[]).expect("sent");
        near.receive().expect("an answer").0
    });
    let Err(error) = run(role);
    assert!(matches!(error, KeeperError::Channel(ChannelError::Closed)), "{error:?}");
    assert_eq!(std::fs::read_to_string(written).expect("written"), "the rest");
    assert_eq!(asked.join().expect("joined"), Reply { id: 7, answer: Answer::Pong });
    assert!(!nix::sys::prctl::get_dumpable().expect("prctl"));
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).expect("limit");
    assert_eq!((soft, hard), (0, 0));

    let fails: Writer = Box::new(|_| Err("disk full".to_owned()));
    let panics: Writer = Box::new(|_| panic!("a bug, and part of the test"));
    for writer in [fails, panics] {
        let (_kept, channel) = crate::channel::pair::<Request, Reply>().expect("a channel");
        let places = Places::under(folder.path());
        let load: Load = Box::new(|_| Ok(Inventory::default()));
        let Err(error) = run(Role {
            channel,
            places,
            systemd: SystemdCredentials::default(),
            load,
            spent: nothing_spent(),
            kept: talkative(),
            writer,
        });
        assert!(matches!(error, KeeperError::Writer(_)), "{error:?}");
    }
}

#[test]
fn the_role_hardens_itself_and_ends_with_its_channel() {
    let itself = std::env::current_exe().expect("a path");
    let arguments = ["--exact", "keeper::tests::the_role", "--ignored", "--test-threads=1"];
    let output = std::process::Command::new(itself).args(arguments).output().expect("run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
