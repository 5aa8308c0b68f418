//! The proxy's end of the keeper: questions from many connections over one channel.
//!
//! Promises: asking never blocks the runtime (but for a TLS signature, which rustls wants at once); each question
//! has a deadline; when the keeper is gone every question fails at once. Two threads do the waiting, so that an
//! answer never depends on the runtime being free.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use interceptor_core::{
    mask::{Fingerprint, Sought},
    model::{AgentName, ResourceName, RunId, Spent},
    protocol::{Challenge, Proof},
};
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{oneshot, watch},
    time::timeout,
};
use zeroize::Zeroizing;

use super::messages::{Answer, Ask, Blob, Leg, Mark, Reply, Request, Whose};
use crate::{
    channel::{Channel, ChannelError},
    tls::{
        server::{Leaf, Minter},
        upstream::{ClientIdentity, RemoteSigner},
    },
};

/// How long an answer may take: a little more than a helper program may.
pub const DEADLINE: Duration = Duration::from_secs(12);

/// How many questions may wait to be sent.
const QUEUE: usize = 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The keeper said no; its words.
    #[error("{0}")]
    Refused(String),
    /// The keeper is gone.
    #[error("the keeper is gone: see its last words in the daemon's log, and start the daemon again")]
    Gone,
    /// The keeper did not answer in time.
    #[error("the keeper did not answer within {} s", DEADLINE.as_secs())]
    Slow,
    /// Too many questions wait.
    #[error("the keeper has {QUEUE} questions waiting: try again")]
    Busy,
    /// The answer belongs to another question. A bug of ours, or a compromised keeper.
    #[error("the keeper answered another question than was asked")]
    Mixed,
}

type Then = Box<dyn FnOnce(Answer) + Send>;

struct Shared {
    questions: SyncSender<Request>,
    waiting: Mutex<Option<HashMap<u64, Then>>>,
    next: AtomicU64,
    gone: watch::Sender<bool>,
}

/// A handle to the keeper; clones share one channel.
#[derive(Clone)]
pub struct KeeperClient(Arc<Shared>);

impl fmt::Debug for KeeperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeeperClient")
    }
}

impl KeeperClient {
    /// Starts the two threads. They end with the channel.
    pub fn start(channel: Channel<Request, Reply>) -> std::io::Result<Self> {
        let (questions, queue) = mpsc::sync_channel::<Request>(QUEUE);
        let shared = Arc::new(Shared {
            questions,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            gone: watch::Sender::new(false),
        });
        let channel = Arc::new(channel);
        let sender = Arc::clone(&channel);
        thread::Builder::new().name("keeper-ask".to_owned()).spawn(move || {
            for request in queue {
                match sender.send(&request, &[]) {
                    Ok(()) => {}
                    // This one cannot be sent; its asker runs into the deadline.
                    Err(ChannelError::TooLong | ChannelError::Malformed(_)) => {
                        tracing::error!(id = request.id, "a question for the keeper does not fit a packet");
                    }
                    Err(ChannelError::Closed | ChannelError::Io(_)) => return,
                }
            }
        })?;
        let weak = Arc::downgrade(&shared);
        thread::Builder::new().name("keeper-hear".to_owned()).spawn(move || {
            loop {
                let received = channel.receive();
                let Some(shared) = weak.upgrade() else { return };
                match received {
                    Ok((reply, _descriptors)) => shared.hear(reply),
                    Err(error) => return shared.end(&error),
                }
            }
        })?;
        Ok(Self(shared))
    }

    /// Ends when the keeper is gone.
    pub async fn gone(&self) {
        // An error would mean that the sender is gone, which we hold.
        let mut watched = self.0.gone.subscribe();
        let _seen = watched.wait_for(|gone| *gone).await;
    }

    /// Asks and waits.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, AskError> {
        let (answered, answer) = oneshot::channel();
        let id = self.0.begin(ask, Box::new(move |answer| drop(answered.send(answer))))?;
        match timeout(DEADLINE, answer).await {
            Ok(Ok(Answer::Refused(why))) => Err(AskError::Refused(why)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Gone),
            Err(_) => {
                self.0.forget(id);
                Err(AskError::Slow)
            }
        }
    }

    /// Asks and blocks; tells a multi-threaded runtime, so that it gives the thread's other work away.
    pub fn ask_blocking(&self, ask: Ask) -> Result<Answer, AskError> {
        let many = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        if many { tokio::task::block_in_place(|| self.block(ask)) } else { self.block(ask) }
    }

    fn block(&self, ask: Ask) -> Result<Answer, AskError> {
        let (answered, answer) = mpsc::sync_channel(1);
        let id = self.0.begin(ask, Box::new(move |answer| drop(answered.try_send(answer))))?;
        match answer.recv_timeout(DEADLINE) {
            Ok(Answer::Refused(why)) => Err(AskError::Refused(why)),
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(AskError::Gone),
            Err(RecvTimeoutError::Timeout) => {
                self.0.forget(id);
                Err(AskError::Slow)
            }
        }
    }

    /// Whether the keeper is there and answers.
    pub async fn ping(&self) -> Result<(), AskError> {
        match self.ask(Ask::Ping).await? {
            Answer::Pong => Ok(()),
            _ => Err(AskError::Mixed),
        }
    }

    /// What a run's statements spent since a time, as the record has it; times in seconds of the Unix epoch.
    pub async fn spent(&self, run: RunId, since: i64) -> Result<Vec<(i64, Spent)>, AskError> {
        match self.ask(Ask::Spent { run, since }).await? {
            Answer::Spent(spent) => Ok(spent),
            _ => Err(AskError::Mixed),
        }
    }

    /// The code by which the approvers' webhook knows that a message is ours.
    pub async fn vouch(&self, message: &[u8]) -> Result<Vec<u8>, AskError> {
        match self.ask(Ask::Vouch(Blob(message.to_vec()))).await? {
            Answer::Signature(code) => Ok(code.0),
            _ => Err(AskError::Mixed),
        }
    }

    /// What is looked for in what `agent` reads at `resource`.
    pub async fn sought(&self, resource: ResourceName, agent: AgentName) -> Result<Sought, AskError> {
        let Answer::Sought { key, each } = self.ask(Ask::Sought { resource, agent }).await? else {
            return Err(AskError::Mixed);
        };
        let read = |mark: Mark| {
            let digest = <[u8; 32]>::try_from(mark.digest.0).ok()?;
            Some(Fingerprint { length: mark.length, pair: mark.pair, offset: mark.offset, digest })
        };
        let key = <[u8; 32]>::try_from(key.0.as_slice()).map_err(|_| AskError::Mixed)?;
        let each = each.into_iter().map(read).collect::<Option<_>>().ok_or(AskError::Mixed)?;
        Ok(Sought::new(Zeroizing::new(key), each))
    }

    /// Has the keeper read the inventory again.
    pub async fn reload(&self) -> Result<(), AskError> {
        match self.ask(Ask::Reload).await? {
            Answer::Reloaded => Ok(()),
            _ => Err(AskError::Mixed),
        }
    }

    /// Begins a log-in at `resource` on behalf of `agent`.
    pub fn login(&self, resource: ResourceName, agent: AgentName) -> UpstreamLogin {
        let login = self.0.next.fetch_add(1, Ordering::Relaxed);
        UpstreamLogin(Arc::new(LoginInner { keeper: self.clone(), whose: Whose { login, resource, agent } }))
    }
}

impl Shared {
    fn begin(&self, ask: Ask, then: Then) -> Result<u64, AskError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting().as_mut().ok_or(AskError::Gone)?.insert(id, then);
        let sent = self.questions.try_send(Request { id, ask });
        sent.map_err(|error| {
            self.forget(id);
            match error {
                TrySendError::Full(_) => AskError::Busy,
                TrySendError::Disconnected(_) => AskError::Gone,
            }
        })?;
        Ok(id)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, Then>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: u64) {
        drop(self.waiting().as_mut().and_then(|waiting| waiting.remove(&id)));
    }

    fn hear(&self, reply: Reply) {
        let then = self.waiting().as_mut().and_then(|waiting| waiting.remove(&reply.id));
        if let Some(then) = then {
            then(reply.answer);
        }
    }

    /// Dropping what waits tells every asker.
    fn end(&self, error: &ChannelError) {
        tracing::error!(%error, "the keeper is gone");
        drop(self.waiting().take());
        self.gone.send_replace(true);
    }
}

impl Minter for KeeperClient {
    fn mint<'a>(
        &'a self,
        resource: &'a ResourceName,
        names: &'a [String],
        public_key: &'a [u8],
    ) -> BoxFuture<'a, Result<Leaf, String>> {
        let ask = Ask::Mint {
            resource: resource.clone(),
            names: names.to_vec(),
            public_key: Blob(public_key.to_vec()),
        };
        Box::pin(async move {
            match self.ask(ask).await.map_err(|e| e.to_string())? {
                Answer::Minted { chain, not_after } => Ok(Leaf { chain: ders(chain), not_after }),
                _ => Err(AskError::Mixed.to_string()),
            }
        })
    }
}

fn ders(chain: Vec<Blob>) -> Vec<CertificateDer<'static>> {
    chain.into_iter().map(|der| CertificateDer::from(der.0)).collect()
}

/// One log-in at an upstream. The keeper forgets it when this is dropped.
#[derive(Debug)]
pub struct UpstreamLogin(Arc<LoginInner>);

#[derive(Debug)]
struct LoginInner {
    keeper: KeeperClient,
    whose: Whose,
}

impl UpstreamLogin {
    /// The answer to a challenge that came over `leg`.
    pub async fn prove(&self, challenge: Challenge, leg: &Leg) -> Result<Proof, AskError> {
        let whose = self.0.whose.clone();
        let ask = Ask::Prove { whose, question: challenge.into(), leg: leg.clone() };
        match self.0.keeper.ask(ask).await? {
            Answer::Response(bytes) => Ok(Proof::Response(bytes.0)),
            Answer::Begin { mechanism, message } => Ok(Proof::Begin { mechanism, message: message.0 }),
            Answer::Accepted => Ok(Proof::Accepted),
            _ => Err(AskError::Mixed),
        }
    }

    /// The client certificate of the log-in's credential, where it has one, signed for by the keeper.
    pub async fn identity(&self) -> Result<Option<ClientIdentity>, AskError> {
        match self.0.keeper.ask(Ask::Identity { whose: self.0.whose.clone() }).await? {
            Answer::Identity(None) => Ok(None),
            Answer::Identity(Some(certificate)) => Ok(Some(ClientIdentity {
                chain: ders(certificate.chain),
                schemes: certificate.schemes.into_iter().map(SignatureScheme::from).collect(),
                signer: Arc::clone(&self.0) as Arc<dyn RemoteSigner>,
            })),
            _ => Err(AskError::Mixed),
        }
    }
}

impl RemoteSigner for LoginInner {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let whose = self.whose.clone();
        let ask = Ask::Sign { whose, scheme: scheme.into(), message: Blob(message.to_vec()) };
        match self.keeper.ask_blocking(ask).map_err(|e| e.to_string())? {
            Answer::Signature(signature) => Ok(signature.0),
            _ => Err(AskError::Mixed.to_string()),
        }
    }
}

impl Drop for LoginInner {
    fn drop(&mut self) {
        // Nobody waits for the answer; where it cannot be sent, the keeper's own time limit does it.
        let _id = self.keeper.0.begin(Ask::Finish { login: self.whose.login }, Box::new(drop));
    }
}
