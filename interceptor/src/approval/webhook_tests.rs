use rcgen::{CertificateParams, KeyPair};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::keeper::messages::{Answer, Ask, Blob, Reply, Request as Question};

/// A keeper that vouches for everything with the same code.
fn keeper() -> KeeperClient {
    let (near, far) = crate::channel::pair::<Question, Reply>().expect("a channel");
    std::thread::spawn(move || {
        while let Ok((Question { id, ask }, _)) = far.receive() {
            let Ask::Vouch(_) = ask else { panic!("another question") };
            let answer = Answer::Signature(Blob(vec![0xab; 32]));
            far.send(&Reply { id, answer }, &[]).expect("answered");
        }
    });
    KeeperClient::start(near).expect("a client")
}

/// Hears one request over TLS as `hooks.example`; gives the certificate that it shows, its port, and what it heard.
async fn hook() -> (CertificateDer<'static>, u16, tokio::task::JoinHandle<Option<String>>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.ok()?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await.ok()?;
        let mut heard = String::new();
        let mut part = [0; 4096];
        while !heard.contains("\r\n\r\n") || !heard.ends_with('}') {
            let length = stream.read(&mut part).await.ok()?;
            heard.push_str(std::str::from_utf8(&part[..length]).ok()?);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
        stream.shutdown().await.ok()?;
        Some(heard)
    });
    (certificate.der().clone(), port, heard)
}

fn trusting(certificate: Option<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    certificate.into_iter().for_each(|certificate| roots.add(certificate).expect("a root"));
    let config = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    Ok(config.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

fn news() -> News {
    News { key: "a1/asked".to_owned(), body: "{\"event\":\"asked\"}".to_owned() }
}

#[tokio::test]
async fn what_is_told_over_tls_is_signed_and_heard() {
    let (certificate, port, heard) = hook().await;
    let url = format!("https://localhost:{port}/approvals");
    let webhook = Webhook::verified(&url, keeper(), || trusting(Some(certificate))).expect("a webhook");
    webhook.tell(&news()).await.expect("told");
    let heard = heard.await.expect("a task").expect("a request");
    assert!(heard.starts_with("POST /approvals HTTP/1.1\r\n"), "{heard}");
    let code = format!("x-interceptor-signature: sha256={}", "ab".repeat(32));
    assert!(heard.contains(&code) && heard.ends_with("{\"event\":\"asked\"}"), "{heard}");
}

#[tokio::test]
async fn nothing_is_told_to_whoever_cannot_show_who_they_are() {
    let (_, port, heard) = hook().await;
    let url = format!("https://localhost:{port}/approvals");
    let webhook = Webhook::verified(&url, keeper(), || trusting(None)).expect("a webhook");
    let error = webhook.tell(&news()).await.expect_err("not told");
    assert!(error.0.starts_with("its TLS failed"), "{error}");
    assert_eq!(heard.await.expect("a task"), None);
}

#[tokio::test]
async fn an_address_in_clear_is_for_this_host_alone() {
    for wrong in ["http://hooks.example.org/x", "ftp://localhost/x", "hooks", ""] {
        assert!(Webhook::verified(wrong, keeper(), || trusting(None)).is_err(), "{wrong}");
    }
    assert!(Webhook::verified("http://[::1]:7/x", keeper(), || trusting(None)).is_ok());
}
