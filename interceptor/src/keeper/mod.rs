//! The keeper role: secrets, the CA key, and the writing of evidence. Talks to the proxy only.
//!
//! Promises: nothing that the proxy sends names a file, a program or a key: the keeper reads the inventory itself
//! and resolves (resource, agent) to a credential; it mints certificates only for names of the inventory; it ends
//! when the channel does, or when evidence can no longer be written. It never sees an agent's bytes and knows no
//! policy.
//!
//! What a compromised proxy still gets from it: proofs for log-ins on behalf of any agent of the inventory, and
//! handshakes with their client certificates, while it is compromised; certificates for the inventory's names, which
//! only captured agents trust; a password itself only where the inventory allows cleartext. Never the authority's
//! key, a client key, or a password that is proven otherwise: of that it has a fingerprint, if nobody can guess it.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac as _};
use interceptor_core::{
    inventory::{AddressPattern, Credential, Inventory, SecretSource},
    model::{ResourceName, RunId, Spent, SyntheticAddress},
};
use sha2::Sha256;

use crate::{
    channel::{Channel, ChannelError},
    places::Places,
    store::{
        bindings,
        docket::{self, Question},
        packs,
    },
};

pub mod authority;
mod certificate;
pub mod client;
pub mod credentials;
mod exec;
mod fingerprints;
mod harden;
mod mask_key;
pub mod messages;
pub mod proof;
pub mod scram;
pub mod secrets;

pub use harden::{Hardened, harden};

use authority::{Authority, AuthorityError};
use fingerprints::Fingerprints;
use messages::{Answer, Ask, Blob, Hidden, Reply, Request, Whose};
use proof::Logins;
use secrets::{Secrets, SystemdCredentials};

/// How many requests are worked on at once: more than helper programs may take.
const THREADS: usize = 8;

/// Reads the inventory from the configuration; or says, for the operator, what is wrong with it.
pub type Load = Box<dyn Fn(&Places) -> Result<Inventory, String> + Send + Sync>;

/// Writes evidence until the flag is set, then writes what is left and returns. A seam to the store: `app`
/// passes its writer's loop.
pub type Writer = Box<dyn FnOnce(&AtomicBool) -> Result<(), String> + Send>;

/// What a run's statements spent since a time, as the record has it. The second seam to the store.
pub type SpentSince = Box<dyn Fn(RunId, i64) -> Result<Vec<(i64, Spent)>, String> + Send + Sync>;

/// Answers about requests for approval. The third seam to the store.
pub type Approvals = Box<dyn Fn(Question) -> Result<docket::Answer, String> + Send + Sync>;

/// Keeps undo packs. The fourth seam to the store.
pub type Packs = Box<dyn Fn(packs::Question) -> Result<packs::Answer, String> + Send + Sync>;

/// Keeps what is bound to labels. The fifth seam to the store.
pub type Bindings = Box<dyn Fn(bindings::Question) -> Result<bindings::Answer, String> + Send + Sync>;

/// What is kept of the proxy's beside the evidence.
pub struct Kept {
    /// Requests for approval.
    pub approvals: Approvals,
    /// Undo packs.
    pub packs: Packs,
    /// What is bound to labels.
    pub bindings: Bindings,
}

/// The credential that the approvers' webhook shares with us, in the folder of credentials.
const WEBHOOK: &str = "webhook";

/// How long the writer may take for what is left when the proxy is gone.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why the keeper ended, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The process could not be hardened.
    #[error("the keeper cannot forbid core dumps")]
    Harden(#[from] nix::errno::Errno),
    /// The authority cannot be had.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The inventory is wrong.
    #[error("{0}")]
    Inventory(String),
    /// The system has no randomness.
    #[error("{0}")]
    Random(String),
    /// A thread could not be started.
    #[error("the keeper cannot start its threads")]
    Threads(#[from] std::io::Error),
    /// The evidence cannot be written.
    #[error("the evidence cannot be written: {0}")]
    Writer(String),
    /// A bug of ours.
    #[error("a thread of the keeper panicked: see the log")]
    Panicked,
    /// The channel to the proxy ended.
    #[error("the channel to the proxy ended: {0}")]
    Channel(#[from] ChannelError),
}

/// What the role is given when it starts.
pub struct Role {
    /// The end of the channel to the proxy.
    pub channel: Channel<Reply, Request>,
    /// Where things are.
    pub places: Places,
    /// What systemd gave the service.
    pub systemd: SystemdCredentials,
    /// How the inventory is read.
    pub load: Load,
    /// How what was spent is read from the evidence.
    pub spent: SpentSince,
    /// How requests for approval and undo packs are kept.
    pub kept: Kept,
    /// The writing of evidence, run on a thread of its own.
    pub writer: Writer,
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("places", &self.places).finish_non_exhaustive()
    }
}

/// The role's main. The process is to end when it returns, whatever it returns.
pub fn run(role: Role) -> Result<Infallible, KeeperError> {
    let hardened = harden()?;
    if !hardened.memory_locked {
        tracing::warn!("memory is not locked against swapping: start the daemon with LimitMEMLOCK=infinity");
    }
    let Role { channel, places, systemd, load, spent, kept, writer } = role;
    let keeper = Arc::new(Keeper::new(places, systemd, load, spent, kept)?);
    let channel = Arc::new(channel);
    let (ended, end) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let crashed = KeeperError::Writer("the writer panicked: see the log".to_owned());
    start("evidence", &ended, crashed, move || {
        KeeperError::Writer(writer(&stopped).err().unwrap_or_else(|| "the writer ended".to_owned()))
    })?;
    for _ in 0..THREADS {
        let (keeper, channel) = (Arc::clone(&keeper), Arc::clone(&channel));
        start("keeper", &ended, KeeperError::Panicked, move || KeeperError::Channel(keeper.serve(&channel)))?;
    }
    drop(ended);
    let why = end.recv().unwrap_or(KeeperError::Channel(ChannelError::Closed));
    stop.store(true, Ordering::Release);
    if !matches!(why, KeeperError::Writer(_)) {
        let deadline = Instant::now() + LAST_WORDS;
        // The other threads end too; only the writer has something left to do.
        while let Ok(other) = end.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if matches!(other, KeeperError::Writer(_)) {
                break;
            }
        }
    }
    Err(why)
}

/// Starts a thread whose end, by a panic too, is the end of the role.
fn start(
    name: &str,
    ended: &Sender<KeeperError>,
    panicked: KeeperError,
    body: impl FnOnce() -> KeeperError + Send + 'static,
) -> std::io::Result<()> {
    let ended = ended.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let why = catch_unwind(AssertUnwindSafe(body)).unwrap_or(panicked);
        drop(ended.send(why));
    })?;
    Ok(())
}

/// Everything that requests are answered from.
pub struct Keeper {
    places: Places,
    load: Load,
    spent: SpentSince,
    kept: Kept,
    inventory: RwLock<Arc<Inventory>>,
    authority: Authority,
    secrets: Secrets,
    logins: Logins,
    fingerprints: Fingerprints,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Reads the inventory and has the authority, which is made where there is none.
    pub fn new(
        places: Places,
        systemd: SystemdCredentials,
        load: Load,
        spent: SpentSince,
        kept: Kept,
    ) -> Result<Self, KeeperError> {
        let inventory = load(&places).map_err(KeeperError::Inventory)?;
        let authority = Authority::ensure(&places.authority())?;
        let secrets = Secrets::new(places.credentials(), systemd);
        let inventory = RwLock::new(Arc::new(inventory));
        let fingerprints = Fingerprints::new().map_err(KeeperError::Random)?;
        let logins = Logins::default();
        Ok(Self { places, load, spent, kept, inventory, authority, secrets, logins, fingerprints })
    }

    /// Answers requests until the channel fails. Several threads may do it on one channel: packets stay whole.
    pub fn serve(&self, channel: &Channel<Reply, Request>) -> ChannelError {
        loop {
            let (request, descriptors) = match channel.receive() {
                Ok(received) => received,
                // The kernel keeps packets apart: the next one may be whole again. Nobody waits for this one.
                Err(ChannelError::Malformed(why)) => {
                    tracing::warn!(why, "the proxy sent what is no request");
                    continue;
                }
                Err(error) => return error,
            };
            drop(descriptors);
            let reply = Reply { id: request.id, answer: self.answer(request.ask) };
            match channel.send(&reply, &[]) {
                Ok(()) => {}
                // One answer that does not fit is one refusal, not the end of everything.
                Err(error @ ChannelError::TooLong) => {
                    let reply = Reply { id: request.id, answer: Answer::Refused(error.to_string()) };
                    if let Err(error) = channel.send(&reply, &[]) {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Answers one request.
    pub fn answer(&self, ask: Ask) -> Answer {
        self.try_answer(ask).unwrap_or_else(Answer::Refused)
    }

    fn try_answer(&self, ask: Ask) -> Result<Answer, String> {
        let inventory = self.inventory();
        match ask {
            Ask::Ping => Ok(Answer::Pong),
            Ask::Reload => self.reload(),
            Ask::Prove { whose, question, leg } => self
                .logins
                .prove(&inventory, &self.secrets, &whose, &question, &leg)
                .map(Answer::from)
                .map_err(|e| e.to_string()),
            Ask::Identity { whose } => {
                let identity = certificate::identity(credential(&inventory, &whose)?, &self.secrets);
                identity.map(Answer::Identity).map_err(|why| format!("resource {}: {why}", whose.resource))
            }
            Ask::Sign { whose, scheme, message } => {
                let credential = credential(&inventory, &whose)?;
                let signature = certificate::sign(credential, &self.secrets, scheme, &message.0)
                    .map_err(|why| format!("resource {}: {why}", whose.resource))?;
                self.logins.signed(&whose).map_err(|e| e.to_string())?;
                Ok(Answer::Signature(signature))
            }
            Ask::Finish { login } => {
                self.logins.finish(login);
                Ok(Answer::Finished)
            }
            Ask::Spent { run, since } => (self.spent)(run, since).map(Answer::Spent),
            Ask::Approval(question) => (self.kept.approvals)(question).map(Answer::Approval),
            Ask::Pack(question) => (self.kept.packs)(question).map(Answer::Pack),
            Ask::Binding(question) => (self.kept.bindings)(question).map(Answer::Binding),
            Ask::MaskKey => {
                mask_key::ensure(&self.places.authority()).map(|key| Answer::MaskKey(Hidden(key)))
            }
            Ask::Sought { resource, agent } => {
                self.fingerprints.of(&inventory, &self.secrets, &resource, &agent)
            }
            Ask::Vouch(message) => {
                let secret =
                    self.secrets.fetch(&SecretSource::File(WEBHOOK.into())).map_err(|e| e.to_string())?;
                let mac = Hmac::<Sha256>::new_from_slice(secret.expose()).map_err(|e| e.to_string())?;
                let code = mac.chain_update(&message.0).finalize().into_bytes();
                Ok(Answer::Signature(Blob(code.to_vec())))
            }
            Ask::Mint { resource, names, public_key } => {
                check_names(&inventory, &resource, &names)?;
                let minted = self.authority.mint(&names, &public_key.0).map_err(|e| e.to_string())?;
                let chain = minted.chain.iter().map(|der| Blob(der.to_vec())).collect();
                Ok(Answer::Minted { chain, not_after: minted.not_after })
            }
        }
    }

    fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The old inventory stays where the new one is wrong.
    fn reload(&self) -> Result<Answer, String> {
        let fresh = Arc::new((self.load)(&self.places)?);
        *self.inventory.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.secrets.forget();
        Ok(Answer::Reloaded)
    }
}

fn credential<'a>(inventory: &'a Inventory, whose: &Whose) -> Result<&'a Credential, String> {
    let chosen = credentials::choose(inventory, &whose.resource, &whose.agent);
    chosen.map(|(_, _, credential)| credential).map_err(|e| e.to_string())
}

/// A certificate stands only for names by which agents reach the resource.
fn check_names(inventory: &Inventory, resource: &ResourceName, names: &[String]) -> Result<(), String> {
    let found = inventory.resources.get(resource);
    let found = found.ok_or_else(|| format!("resources.toml has no resource {resource}"))?;
    for name in names {
        let fits = match name.parse::<IpAddr>() {
            Ok(ip) => {
                SyntheticAddress::from_ip(ip).is_some() || found.addresses.iter().any(|p| contains(p, ip))
            }
            Err(_) => found.hosts.contains(name),
        };
        if !fits {
            return Err(format!("{name:?} is no host or address of resource {resource}: add it there"));
        }
    }
    Ok(())
}

fn contains(pattern: &AddressPattern, ip: IpAddr) -> bool {
    match (pattern, ip) {
        (AddressPattern::Exact(address), ip) => address.ip() == ip,
        (AddressPattern::Network(IpAddr::V4(network), length), IpAddr::V4(ip)) => {
            let shift = 32_u32.saturating_sub(u32::from(*length));
            let cut = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
            cut(network.to_bits()) == cut(ip.to_bits())
        }
        (AddressPattern::Network(IpAddr::V6(network), length), IpAddr::V6(ip)) => {
            let shift = 128_u32.saturating_sub(u32::from(*length));
            let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
            cut(network.to_bits()) == cut(ip.to_bits())
        }
        (AddressPattern::Network(..), _) => false,
    }
}

#[cfg(test)]
mod postgres_tests;
#[cfg(test)]
mod tests;
