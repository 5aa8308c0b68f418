//! A webhook: news as an HTTP POST of JSON, with a code by which the receiver knows that it is ours.
//!
//! Promises: TLS with a verified certificate, but for this host's loopback; the shared secret stays with the keeper; a
//! receiver that is slow, endless or not there costs one bounded try. Headers: `x-interceptor-event` names the news,
//! `x-interceptor-timestamp` is in seconds of the Unix epoch, and `x-interceptor-signature` is `sha256=` and the
//! HMAC-SHA-256 of timestamp, a full stop and body, in hexadecimal.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::{Request, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{News, Notifier, NotifyError};
use crate::{keeper::client::KeeperClient, tls};

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there can be no such webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Not such an address.
    #[error("{0:?} is not an address of a webhook: write `https://host/path`")]
    Address(String),
    /// It would be sent in clear over a network.
    #[error("{0:?} would go out in clear: use https; http is for this host's loopback only")]
    Clear(String),
    /// The system's roots cannot be had.
    #[error("the system's certificates cannot be read: {0}")]
    Roots(String),
}

/// A webhook.
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    keeper: KeeperClient,
}

impl Webhook {
    /// The webhook at `url`, for which `keeper` has the secret. TLS is verified by the system's roots.
    pub fn new(url: &str, keeper: KeeperClient) -> Result<Self, WebhookError> {
        Self::verified(url, keeper, tls::upstream::ordinary_client)
    }

    fn verified(
        url: &str,
        keeper: KeeperClient,
        config: impl FnOnce() -> Result<ClientConfig, String>,
    ) -> Result<Self, WebhookError> {
        let address = || WebhookError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| address())?;
        let host = uri.host().ok_or_else(address)?.trim_matches(['[', ']']).to_owned();
        let (port, tls) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| address())?;
                let config = config().map_err(WebhookError::Roots)?;
                (443, Some((TlsConnector::from(Arc::new(config)), name)))
            }
            Some("http") if is_loopback(&host) => (80, None),
            Some("http") => return Err(WebhookError::Clear(url.to_owned())),
            _ => return Err(address()),
        };
        Ok(Self { port: uri.port_u16().unwrap_or(port), uri, host, tls, keeper })
    }

    async fn post(&self, news: &News) -> Result<(), NotifyError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| NotifyError(format!("{what}: {error}"));
        let timestamp = jiff::Timestamp::now().as_second().to_string();
        let message = format!("{timestamp}.{}", news.body);
        let code =
            self.keeper.vouch(message.as_bytes()).await.map_err(|e| failed("it cannot be signed", &e))?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header("x-interceptor-event", &news.key)
            .header("x-interceptor-timestamp", timestamp)
            .header("x-interceptor-signature", format!("sha256={}", hex::encode(code)))
            .body(Full::new(Bytes::from(news.body.clone())))
            .map_err(|error| failed("it cannot be written", &error))?;
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await;
        let socket = socket.map_err(|error| failed("the webhook cannot be reached", &error))?;
        match &self.tls {
            None => send(socket, request).await,
            Some((connector, name)) => {
                let secured = connector.connect(name.clone(), socket).await;
                send(secured.map_err(|error| failed("its TLS failed", &error))?, request).await
            }
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), NotifyError> {
    let failed = |error: hyper::Error| NotifyError(format!("the webhook did not answer: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        // What it says besides is of no interest.
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(NotifyError(format!("the webhook answered {}", answer.status())))
        }
    };
    // The connection ends with its sender; how is of no interest once there is an answer.
    tokio::join!(answer, connection).0
}

impl Notifier for Webhook {
    fn tell<'a>(&'a self, news: &'a News) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let told = tokio::time::timeout(PATIENCE, self.post(news)).await;
            told.unwrap_or_else(|_| Err(NotifyError(format!("the webhook took longer than {PATIENCE:?}"))))
        })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
