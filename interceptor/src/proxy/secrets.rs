//! The proxy's side of the keeper's channel: proofs, signatures and certificates, never the secrets behind them.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use interceptor_core::{
    inventory::Resource,
    model::{AgentIdentity, ResourceName},
    protocol::{Challenge, Proof},
};
use rustls::SignatureScheme;
use tokio::sync::oneshot;

use crate::{
    channel::{AsyncChannel, Channel, ChannelError},
    keeper::messages::{Answer, Ask, Blob, Leg, Reply, Request, Whose},
    tls::{
        server::{Leaf, Minter},
        upstream::{ClientIdentity, RemoteSigner},
    },
};

/// How long the keeper may take: an exec helper has ten seconds of its own.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the keeper gave no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It will not; its words are for the operator.
    #[error("{0}")]
    Refused(String),
    /// It did not answer.
    #[error("the keeper did not answer: look at the daemon's log")]
    Silent,
    /// It answered something else.
    #[error("the keeper answered another question than was asked")]
    Confused,
    /// The channel to it broke.
    #[error("the channel to the keeper broke")]
    Channel(#[from] ChannelError),
}

/// Asks the keeper.
#[derive(Debug)]
pub struct KeeperClient {
    channel: AsyncChannel<Request, Reply>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

impl KeeperClient {
    /// Over the channel that the helper gave. [`KeeperClient::listen`] must run for answers to arrive.
    pub fn new(channel: Channel<Request, Reply>) -> io::Result<Self> {
        Ok(Self { channel: channel.into_async()?, waiting: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// Hands answers to those who wait for them, until the keeper is gone.
    pub async fn listen(&self) -> ChannelError {
        loop {
            match self.channel.receive().await {
                Ok((reply, _)) => {
                    if let Some(waiting) = self.lock().remove(&reply.id) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(reply.answer);
                    }
                }
                Err(error) => {
                    self.lock().clear();
                    return error;
                }
            }
        }
    }

    /// Asks one question.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, ProofError> {
        let id = self.number();
        let (answer, answered) = oneshot::channel();
        self.lock().insert(id, answer);
        let asked = async {
            self.channel.send(&Request { id, ask }, &[]).await?;
            answered.await.map_err(|_| ProofError::Silent)
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        self.lock().remove(&id);
        match answer.map_err(|_| ProofError::Silent)?? {
            Answer::Refused(why) => Err(ProofError::Refused(why)),
            answer => Ok(answer),
        }
    }

    /// Begins a log-in to `resource` for `agent`.
    pub fn proving(self: &Arc<Self>, resource: &Resource, agent: &AgentIdentity) -> Proving {
        let whose = Whose { login: self.number(), resource: resource.name.clone(), agent: agent.name.clone() };
        Proving { keeper: self.clone(), whose, leg: Leg::Plaintext }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minter for KeeperClient {
    fn mint<'a>(
        &'a self,
        resource: &'a ResourceName,
        names: &'a [String],
        public_key: &'a [u8],
    ) -> BoxFuture<'a, Result<Leaf, String>> {
        Box::pin(async move {
            let ask = Ask::Mint {
                resource: resource.clone(),
                names: names.to_vec(),
                public_key: Blob(public_key.to_vec()),
            };
            match self.ask(ask).await {
                Ok(Answer::Minted { chain, not_after }) => {
                    Ok(Leaf { chain: chain.into_iter().map(|one| one.0.into()).collect(), not_after })
                }
                Ok(_) => Err(ProofError::Confused.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// One log-in, as the keeper sees it. It is forgotten there when this is dropped.
#[derive(Debug)]
pub struct Proving {
    keeper: Arc<KeeperClient>,
    whose: Whose,
    leg: Leg,
}

impl Proving {
    /// The upstream is now reached by TLS.
    pub fn secured(&mut self, verified: bool, binding: Option<Vec<u8>>) {
        self.leg = Leg::Tls { verified, binding: binding.map(Blob) };
    }

    /// The answer to one challenge.
    pub async fn prove(&self, challenge: Challenge) -> Result<Proof, ProofError> {
        let ask =
            Ask::Prove { whose: self.whose.clone(), question: challenge.into(), leg: self.leg.clone() };
        match self.keeper.ask(ask).await? {
            Answer::Response(bytes) => Ok(Proof::Response(bytes.0)),
            Answer::Begin { mechanism, message } => Ok(Proof::Begin { mechanism, message: message.0 }),
            Answer::Accepted => Ok(Proof::Accepted),
            _ => Err(ProofError::Confused),
        }
    }

    /// The client certificate of this log-in, if its credential has one.
    pub async fn identity(&self) -> Result<Option<ClientIdentity>, ProofError> {
        match self.keeper.ask(Ask::Identity { whose: self.whose.clone() }).await? {
            Answer::Identity(certificate) => Ok(certificate.map(|certificate| ClientIdentity {
                chain: certificate.chain.into_iter().map(|one| one.0.into()).collect(),
                schemes: certificate.schemes.into_iter().map(SignatureScheme::from).collect(),
                signer: Arc::new(Signer { keeper: self.keeper.clone(), whose: self.whose.clone() }),
            })),
            _ => Err(ProofError::Confused),
        }
    }
}

impl Drop for Proving {
    fn drop(&mut self) {
        let (keeper, login) = (self.keeper.clone(), self.whose.login);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The keeper forgets by itself in the end; this only makes it sooner.
            runtime.spawn(async move { keeper.ask(Ask::Finish { login }).await.ok() });
        }
    }
}

#[derive(Debug)]
struct Signer {
    keeper: Arc<KeeperClient>,
    whose: Whose,
}

impl RemoteSigner for Signer {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let ask =
            Ask::Sign { whose: self.whose.clone(), scheme: scheme.into(), message: Blob(message.to_vec()) };
        let runtime = tokio::runtime::Handle::current();
        match tokio::task::block_in_place(|| runtime.block_on(self.keeper.ask(ask))) {
            Ok(Answer::Signature(signature)) => Ok(signature.0),
            Ok(_) => Err(ProofError::Confused.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
