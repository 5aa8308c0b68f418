//! The way to an upstream: resolve, connect, secure, log in.
//!
//! The proxy dials the resource's own host, never the address that the agent used. Nothing secret is sent before
//! the upstream has shown who it is, or the inventory excuses it by name.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Held, Login, LoginStep, Protocol,
    inventory::{Reach, Resource, Tls, Upstream},
    mask::Sought,
    model::{AgentIdentity, Principal, ResourceName, SocketPath},
    protocol::{CancelKey, DecodeError, Greeting, Inspection, Opening, UpstreamTls},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::stream::{Stream, keep_alive};
use crate::{
    keeper::{
        client::{AskError, KeeperClient, UpstreamLogin},
        messages::{Blob, Leg},
    },
    tls::upstream::{Connector, UpstreamTlsError},
};

/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(10);
/// How long TLS and log-in may take together.
const LOG_IN: Duration = Duration::from_secs(30);

/// Why an upstream could not be reached or logged into. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("the upstream's name {0} does not resolve on this host")]
    Name(String, #[source] io::Error),
    /// It resolves to this host's loopback.
    #[error("{0} is this host's loopback: add `dial = \"host\"` to the resource if that is meant")]
    Loopback(String),
    /// Nothing answers.
    #[error("the upstream {0} could not be connected to")]
    Connect(String, #[source] io::Error),
    /// It did not answer in time.
    #[error("the upstream {0} did not answer in time")]
    Slow(String),
    /// The connection broke.
    #[error("the connection to the upstream broke")]
    Io(#[from] io::Error),
    /// It could not show who it is.
    #[error("the upstream's TLS could not be trusted")]
    Tls(#[from] UpstreamTlsError),
    /// It broke its protocol.
    #[error("the upstream broke its protocol")]
    Protocol(#[from] DecodeError),
    /// The log-in needs a credential.
    #[error("the resource has no credential for this agent: add one to resources.toml")]
    NoCredential,
    /// The keeper would not prove the credential.
    #[error("the credential could not be proven")]
    Proof(#[from] AskError),
    /// The upstream refused the log-in.
    #[error("the upstream refused the log-in: {message} ({code})")]
    Refused {
        /// The protocol's error code.
        code: String,
        /// The upstream's message.
        message: String,
        /// Its error as it came, where the client may see it.
        answer: Option<Bytes>,
    },
}

/// A session that is open upstream.
pub struct Opened {
    /// The stream.
    pub stream: Stream,
    /// Read and not decoded yet.
    pub input: BytesMut,
    /// What the upstream said.
    pub greeting: Greeting,
}

/// Connects to `upstream`, within its reach.
pub async fn connect(upstream: &Upstream) -> Result<Stream, DialError> {
    let (host, port, reach) = match upstream {
        Upstream::Network { host, port, reach } => (host, *port, *reach),
        Upstream::Socket(path) => return connect_unix(upstream, path).await,
    };
    let looked_up = tokio::net::lookup_host((host.as_str(), port));
    let addresses: Vec<SocketAddr> = tokio::time::timeout(CONNECT, looked_up)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| DialError::Name(host.clone(), error))?
        .collect();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &addresses {
        let here = address.ip().to_canonical().is_loopback() || address.ip().is_unspecified();
        if here && reach == Reach::Network {
            return Err(DialError::Loopback(upstream.to_string()));
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                return Ok(stream.into());
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect(upstream.to_string(), last))
}

async fn connect_unix(upstream: &Upstream, path: &SocketPath) -> Result<Stream, DialError> {
    match tokio::time::timeout(CONNECT, UnixStream::connect(path.as_str())).await {
        Ok(Ok(stream)) => Ok(stream.into()),
        Ok(Err(error)) => Err(DialError::Connect(upstream.to_string(), error)),
        Err(_) => Err(DialError::Slow(upstream.to_string())),
    }
}

/// A connector, and what it was made for: a resource that changed has none.
#[derive(Debug)]
struct Made {
    tls: Tls,
    upstream: Upstream,
    connector: Option<Connector>,
}

/// What is needed to log in anywhere.
#[derive(Debug)]
pub struct Dialler {
    keeper: KeeperClient,
    connectors: Mutex<HashMap<ResourceName, Made>>,
}

impl Dialler {
    /// A dialler whose secrets `keeper` holds.
    pub fn new(keeper: KeeperClient) -> Self {
        Self { keeper, connectors: Mutex::default() }
    }

    /// Forgets what was read for the inventory that was in force.
    pub fn forget(&self) {
        self.connectors.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is looked for in what `agent` reads at `resource`, behind its log-in there.
    pub async fn sought(&self, resource: &Resource, agent: &AgentIdentity) -> Result<Sought, DialError> {
        Ok(self.keeper.sought(resource.name.clone(), agent.name.clone()).await?)
    }

    /// Connects, secures and logs in for `agent`, as the `principal` that was judged.
    pub async fn open(
        &self,
        resource: &Resource,
        protocol: &dyn Protocol,
        agent: &AgentIdentity,
        principal: &Principal,
        opening: &Opening,
    ) -> Result<Opened, DialError> {
        if principal.user.is_empty() {
            return Err(DialError::NoCredential);
        }
        let stream = connect(&resource.upstream).await?;
        let login = protocol.login(principal, opening, wanted(resource));
        tokio::time::timeout(LOG_IN, self.log_in(resource, protocol, agent, stream, login))
            .await
            .map_err(|_| DialError::Slow(resource.name.to_string()))?
    }

    async fn log_in(
        &self,
        resource: &Resource,
        protocol: &dyn Protocol,
        agent: &AgentIdentity,
        mut stream: Stream,
        mut login: Box<dyn Login>,
    ) -> Result<Opened, DialError> {
        let mut input = BytesMut::new();
        let proving = self.keeper.login(resource.name.clone(), agent.name.clone());
        let mut leg = Leg::Plaintext;
        let mut step = login.step(&mut input)?;
        loop {
            step = match step {
                LoginStep::Wait => {
                    if stream.read_buf(&mut input).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    login.step(&mut input)?
                }
                LoginStep::Send(bytes) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                    login.step(&mut input)?
                }
                LoginStep::StartTls => {
                    (stream, leg) = self.secure(resource, protocol, &proving, stream).await?;
                    login.step(&mut input)?
                }
                LoginStep::Prove(challenge) => {
                    let proof = proving.prove(challenge, &leg).await?;
                    login.prove(proof)?
                }
                LoginStep::Ready(greeting) => return Ok(Opened { stream, input, greeting }),
                LoginStep::Refused { code, message, answer } => {
                    return Err(DialError::Refused { code, message, answer });
                }
            };
        }
    }

    /// Sends a cancel request for `key` on a connection of its own, secured as a log-in would be.
    pub async fn cancel(
        &self,
        resource: &Resource,
        protocol: &dyn Protocol,
        agent: &AgentIdentity,
        principal: &Principal,
        key: &CancelKey,
    ) -> Result<(), DialError> {
        let request = protocol.cancel(key).ok_or_else(|| {
            DecodeError::client(format!("asked for a cancel, which {} does not know", protocol.name()))
        })?;
        let stream = connect(&resource.upstream).await?;
        let secured = async {
            if wanted(resource) == UpstreamTls::Plaintext {
                return Ok(stream);
            }
            let login = protocol.login(principal, &nothing_asked(principal), UpstreamTls::Required);
            let stream = before_log_in(stream, login).await?;
            let proving = self.keeper.login(resource.name.clone(), agent.name.clone());
            self.secure(resource, protocol, &proving, stream).await.map(|(stream, _)| stream)
        };
        let mut stream = tokio::time::timeout(LOG_IN, secured)
            .await
            .map_err(|_| DialError::Slow(resource.name.to_string()))??;
        tokio::time::timeout(CONNECT, super::relay::say(&mut stream, &request))
            .await
            .map_err(|_| DialError::Slow(resource.name.to_string()))??;
        // The server closes when it has acted on the request.
        let mut nothing = [0; 1];
        let _ = tokio::time::timeout(CONNECT, stream.read(&mut nothing)).await;
        Ok(())
    }

    async fn secure(
        &self,
        resource: &Resource,
        protocol: &dyn Protocol,
        proving: &UpstreamLogin,
        stream: Stream,
    ) -> Result<(Stream, Leg), DialError> {
        // Only where TLS was asked for: without it nothing may go on.
        let Some(mut connector) = self.connector(resource, protocol)? else {
            return Err(DecodeError::upstream("began TLS where the inventory has none").into());
        };
        if let Some(identity) = proving.identity().await? {
            connector = connector.with_identity(identity);
        }
        let secured = connector.connect(stream).await?;
        let leg = Leg::Tls { verified: secured.verified, binding: secured.binding.map(Blob) };
        Ok((Stream::other(secured.stream), leg))
    }

    fn connector(
        &self,
        resource: &Resource,
        protocol: &dyn Protocol,
    ) -> Result<Option<Connector>, DialError> {
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = connectors.get(&resource.name)
            && (&made.tls, &made.upstream) == (&resource.tls, &resource.upstream)
        {
            return Ok(made.connector.clone());
        }
        let connector = Connector::new(resource, protocol.alpn())?;
        let (tls, upstream) = (resource.tls.clone(), resource.upstream.clone());
        connectors.insert(resource.name.clone(), Made { tls, upstream, connector: connector.clone() });
        Ok(connector)
    }
}

/// Takes a connection to the point where a log-in would begin TLS.
async fn before_log_in(mut stream: Stream, mut login: Box<dyn Login>) -> Result<Stream, DialError> {
    let mut input = BytesMut::new();
    loop {
        match login.step(&mut input)? {
            LoginStep::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            LoginStep::Wait => {
                if stream.read_buf(&mut input).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            LoginStep::StartTls => return Ok(stream),
            LoginStep::Prove(_) | LoginStep::Ready(_) | LoginStep::Refused { .. } => {
                return Err(DecodeError::upstream("went on with the log-in before TLS").into());
            }
        }
    }
}

fn wanted(resource: &Resource) -> UpstreamTls {
    match resource.tls {
        Tls::Verified { .. } | Tls::Unverified { .. } => UpstreamTls::Required,
        Tls::Plaintext { .. } => UpstreamTls::Plaintext,
    }
}

/// An opening that asks for nothing: a cancel request needs only what comes before the log-in.
fn nothing_asked(principal: &Principal) -> Opening {
    Opening {
        held: Held::new(0, Vec::new(), Bytes::new()),
        claimed: principal.clone(),
        parameters: Vec::new(),
        version: 0,
        then: Inspection::Full,
    }
}
