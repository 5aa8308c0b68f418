//! One inspected connection, from its first byte to its end.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Decoder, Denial, Gate as _, Held, Protocol, Side, Step, Verdict,
    inventory::Resource,
    mask::{Labelled, Labels},
    model::{
        Action, Author, Binds, Connection, OutcomeStatus, Phase, Principal, Session, StatementFacts,
        SyntheticAddress, Target, Text, Verb,
    },
    protocol::{CancelKey, DecodeError, Greeting, Inspection, Opening},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Proxy,
    budget::{Budget, Cancelling},
    dial::{DialError, Opened},
    opaque,
    patient::Nobody,
    registry::{Ending, OpenSession, Registered, Told},
    relay::{End, Legs, Relay, fresh_key},
    stream::Stream,
    turns::Turn,
};
use crate::{
    gate::{Ledger, Login, Rules, SessionGate, Subject, now_us},
    identity::login,
    keeper::credentials,
    telemetry,
    tls::{
        Prefixed,
        server::{AgentTlsError, Offer},
    },
};

/// How long a client may take from connecting to asking for a session.
const START_UP: Duration = Duration::from_secs(60);
/// How long a client may take to accept a last word.
const LAST_WORD: Duration = Duration::from_secs(5);
/// The longest start-up input, in bytes.
const START_UP_INPUT: usize = 64 * 1024;

/// Why a session never opened. The client has been told, where it could be.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client broke the protocol.
    #[error("the start-up could not be read")]
    Decode(#[from] DecodeError),
    /// The client's TLS failed.
    #[error("TLS towards the agent failed")]
    Tls(#[from] AgentTlsError),
    /// The connection broke, or closed before it asked for anything.
    #[error("the connection broke during start-up")]
    Io(#[from] io::Error),
    /// The client took too long.
    #[error("the client did not finish its start-up in time")]
    Slow,
}

/// Everything about one connection that is known before its first byte.
pub(super) struct Caller<'a> {
    /// The daemon's shared parts.
    pub proxy: &'a Arc<Proxy>,
    /// The connection.
    pub connection: Arc<Connection>,
    /// The rules in force when it was accepted.
    pub rules: &'a Arc<Rules>,
    /// Where it goes, by these rules.
    pub resource: &'a Resource,
    /// Its protocol.
    pub protocol: &'static dyn Protocol,
    /// The run's share of decoding time.
    pub turn: &'a Turn,
}

/// A session that is open upstream, and not yet for the client.
struct Inspected {
    decoder: Box<dyn Decoder>,
    client: Stream,
    client_input: BytesMut,
    opened: Opened,
    gate: Arc<SessionGate>,
    subject: Arc<Subject>,
    registered: Registered,
    told: Told,
    ledger: Ledger,
}

/// What a client asked for.
enum Wish {
    Session(Box<Opening>),
    Cancel(CancelKey),
    Nothing,
}

impl Caller<'_> {
    /// Serves the connection to its end.
    pub(super) async fn serve(&self, client: Stream) -> Result<(), StartError> {
        let labels = self.proxy.gate.rules().inventory.labels(&self.resource.name);
        // Before anything is decided about a relation.
        let bindings = match labels.is_empty() {
            true => self.proxy.gate.bound().of(&self.resource.name),
            false => self.proxy.gate.bound().had(&self.resource.name).await,
        };
        let labelled = Labelled { labels: labels.clone(), bindings };
        let tokens = self.proxy.gate.tokens(&labels, self.connection.run.id);
        let mut decoder = self.protocol.open(self.proxy.catalogues.of(self.resource), labelled, tokens);
        let mut input = BytesMut::new();
        // Boxed, here and below: what opening a session takes is given back before it is idle.
        let start = Box::pin(self.start(decoder.as_mut(), client, &mut input));
        let started = tokio::time::timeout(START_UP, start).await;
        let (wish, mut client) = started.map_err(|_| StartError::Slow)??;
        match wish {
            Wish::Nothing => Ok(()),
            Wish::Cancel(key) => {
                Box::pin(self.cancel(&key)).await;
                client.shutdown().await.map_err(StartError::Io)
            }
            Wish::Session(opening) => {
                match Box::pin(self.open((decoder, labels), client, input, *opening)).await? {
                    Some(session) => self.relay(session).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn start(
        &self,
        decoder: &mut dyn Decoder,
        mut client: Stream,
        input: &mut BytesMut,
    ) -> Result<(Wish, Stream), StartError> {
        loop {
            let step = match decoder.step(Side::Client, input) {
                Ok(step) => step,
                Err(error) => {
                    last(&mut client, &decoder.farewell(&broken(&error))).await?;
                    return Err(error.into());
                }
            };
            match step {
                Step::Wait if input.len() > START_UP_INPUT => {
                    return Err(DecodeError::client("sent a start-up of more than 64 kB").into());
                }
                Step::Wait => {
                    if client.read_buf(input).await? == 0 {
                        return Ok((Wish::Nothing, client));
                    }
                }
                Step::Reply(bytes) => write(&mut client, &bytes).await?,
                Step::StartTls(bytes) => {
                    write(&mut client, &bytes).await?;
                    let plain = Prefixed::new(input.split().freeze(), client);
                    client = Stream::other(self.proxy.client_tls.accept(plain, &self.offer()).await?);
                }
                Step::Open(opening) => return Ok((Wish::Session(Box::new(opening)), client)),
                Step::Cancel(key) => return Ok((Wish::Cancel(key), client)),
                Step::Close(_) => return Ok((Wish::Nothing, client)),
                Step::Hold
                | Step::Pass(_)
                | Step::Ask(_)
                | Step::Enquire(_)
                | Step::Await(_)
                | Step::Answer { .. }
                | Step::Pause { .. }
                | Step::Exceeds { .. } => {
                    return Err(DecodeError::client("sent a command before the session was open").into());
                }
            }
        }
    }

    /// Opens a session upstream. None where there is nothing left to do: it was refused, or it was relayed to its end
    /// without being looked at.
    async fn open(
        &self,
        (mut decoder, labels): (Box<dyn Decoder>, Arc<Labels>),
        mut client: Stream,
        client_input: BytesMut,
        opening: Opening,
    ) -> Result<Option<Box<Inspected>>, StartError> {
        let principal = self.principal(&opening.claimed);
        let session = self.session(principal.clone());
        let subject = Arc::new(Subject { login: self.login(), ..Subject::of_session(&session) });
        // Registered before it is judged: a policy that changes in between still finds it.
        let (registered, told) = self.proxy.registry.register(
            OpenSession {
                connection: self.connection.id,
                run: self.connection.run.id,
                resource: self.resource.name.clone(),
                since: now_us(),
            },
            subject.clone(),
            opening.held.actions().to_vec(),
        );
        // The start-up took its time: what was true at accept may not be any more.
        let in_force = self.proxy.gate.rules().inventory.labels(&self.resource.name);
        if !self.proxy.gate.knows_as(&subject, self.resource) || in_force != labels {
            return last(&mut client, &decoder.farewell(&Ending::Policy.denial())).await.map(|()| None);
        }
        let number = opening.held.number();
        let gate = Arc::new(SessionGate::new(self.proxy.gate.clone(), subject.clone(), self.proxy.clone()));
        let permit = match gate.judge(&opening.held, Author::Agent, &Nobody).await {
            Verdict::Allow(permit, _) => permit,
            refused => return no_session(decoder.as_mut(), &mut client, number, &refused).await,
        };
        let mut ledger = Ledger::new(self.proxy.gate.producer().clone());
        ledger.sent(number, permit.records());
        let record = permit.records().get(0);
        // The agent's own log-in is never sent: the permit is consumed by ours.
        let _permitted = permit;
        let dialled = tokio::select! {
            biased;
            ending = told.wait() => {
                let denial = ending.denial();
                let message = format!("before the log-in was done, {}", denial.message);
                ledger.ended_whole(number, OutcomeStatus::Unknown, 0, Some(message));
                return last(&mut client, &decoder.farewell(&denial)).await.map(|()| None);
            }
            dialled = self.dial(&labels, &subject, &opening) => dialled,
        };
        match dialled {
            Ok(opened) if opening.then == Inspection::None => {
                self.greet(decoder.as_mut(), &mut client, &opened.greeting, &registered).await?;
                let client = Prefixed::new(client_input.freeze(), client);
                let upstream = Prefixed::new(opened.input.freeze(), opened.stream);
                opaque::relay(Stream::other(client), Stream::other(upstream), ledger, number, told).await;
                Ok(None)
            }
            Ok(opened) => {
                ledger.ended_whole(number, OutcomeStatus::Completed, 0, None);
                if let Some(hiding) = self.proxy.gate.recording(&subject, &labels) {
                    decoder.record_rows(hiding);
                }
                Ok(Some(Box::new(Inspected {
                    decoder,
                    client,
                    client_input,
                    opened,
                    gate,
                    subject,
                    registered,
                    told,
                    ledger,
                })))
            }
            Err(error) => {
                tracing::warn!(resource = %self.resource.name, "{}", telemetry::chain(&error));
                let message = telemetry::chain(&error);
                ledger.ended_whole(number, OutcomeStatus::Failed, 0, Some(message));
                let word = match error {
                    DialError::Refused { answer: Some(answer), .. } => answer,
                    other => decoder.farewell(&unreachable_upstream(&other, record.map(|id| id.to_string()))),
                };
                last(&mut client, &word).await.map(|()| None)
            }
        }
    }

    /// Logs in upstream, and finds out what is looked for in what comes from there.
    async fn dial(&self, labels: &Labels, subject: &Subject, opening: &Opening) -> Result<Opened, DialError> {
        let (dialler, agent) = (&self.proxy.dialler, &self.connection.run.agent);
        let opened = dialler.open(self.resource, self.protocol, agent, &subject.principal, opening).await?;
        if !labels.is_empty() {
            let sought = dialler.sought(self.resource, agent).await?;
            let sought = self.proxy.gate.sought(self.connection.run.id, &self.resource.name, sought);
            // Nothing was asked before: it is set once.
            let _ = subject.sought.set(sought);
        }
        Ok(opened)
    }

    /// The log-in session that the process is in, unless what agents are known by stands above it.
    fn login(&self) -> Option<Login> {
        let process = &self.connection.process;
        let above = process.ancestry.iter().map(|ancestor| &ancestor.executable);
        let inventory = &self.rules.inventory;
        let is_an_agents = |executable: &Option<String>| {
            executable.as_deref().is_some_and(|executable| inventory.is_an_agents(executable))
        };
        if std::iter::once(&process.executable).chain(above).any(is_an_agents) {
            return None;
        }
        let uid = login::of(process.pid, process.start_time)?;
        let descent = process.descent.clone()?;
        Some(Login { uid, descent, vouched: self.proxy.gate.vouched().clone() })
    }

    /// Who the session will be upstream, whoever it claims to be.
    fn principal(&self, claimed: &Principal) -> Principal {
        // The keeper chooses by the same rule. Nobody's credential has no user, and opens nothing.
        let rules = self.proxy.gate.rules();
        let agent = &self.connection.run.agent.name;
        let chosen = credentials::choose(&rules.inventory, &self.resource.name, agent);
        let user = chosen.map(|(.., credential)| credential.user.clone()).unwrap_or_default();
        Principal { user, ..claimed.clone() }
    }

    async fn relay(&self, mut session: Box<Inspected>) -> Result<(), StartError> {
        let greeting = &session.opened.greeting;
        self.greet(session.decoder.as_mut(), &mut session.client, greeting, &session.registered).await?;
        let Inspected { decoder, client, client_input, opened, gate, subject, registered, told, ledger } =
            unboxed(session);
        let Opened { stream, input, greeting } = opened;
        let legs = Legs { client, client_input, upstream: stream, upstream_input: input };
        let budget = self.budget(subject.clone(), theirs(greeting));
        let relay = Relay { gate, ledger, turn: self.turn, budget };
        let end = relay.run(decoder, legs, told).await;
        self.proxy.gate.record_found(&subject);
        drop(registered);
        match end {
            End::Closed => {}
            End::Told(ending) => tracing::debug!(connection = %self.connection.id, ?ending, "ended"),
            End::Io(side, error) => {
                tracing::debug!(connection = %self.connection.id, ?side, "a socket failed: {error}");
            }
            End::Broken(error) => self.proxy.broken(&self.connection, &error),
            End::Internal(what) => tracing::error!(connection = %self.connection.id, "{what}"),
        }
        Ok(())
    }

    /// Tells the client that its session is open.
    async fn greet(
        &self,
        decoder: &mut dyn Decoder,
        client: &mut Stream,
        greeting: &Greeting,
        registered: &Registered,
    ) -> Result<(), StartError> {
        let given = fresh_key(greeting.cancel.as_ref())?;
        registered.keyed(given.clone(), greeting.cancel.clone());
        write(client, &decoder.opened(greeting, &given)).await
    }

    /// The session's budget. What it cancels is the gate's own exchange, and recorded as such.
    fn budget(&self, subject: Arc<Subject>, theirs: Option<CancelKey>) -> Budget {
        let (proxy, rules, protocol) = (self.proxy.clone(), self.rules.clone(), self.protocol);
        let whom = subject.clone();
        let cancel = move || -> Cancelling {
            let (proxy, rules, subject, theirs) =
                (proxy.clone(), rules.clone(), whom.clone(), theirs.clone());
            Box::pin(async move {
                // By the rules that it was opened by: the key is for nobody else. An upstream that gave none cannot
                // be asked; its answer is swallowed to its end.
                let resource = subject.resource.as_ref().and_then(|name| rules.inventory.resources.get(name));
                if let (Some(resource), Some(key)) = (resource, theirs) {
                    cancel(&proxy, resource, protocol, &subject, &key, Author::Gate).await;
                }
            })
        };
        Budget::new(self.proxy.gate.clone(), subject, Box::new(cancel))
    }

    /// Forwards a cancel request of the session's own run. Like the server itself, it never answers.
    async fn cancel(&self, key: &CancelKey) {
        let run = self.connection.run.id;
        if self.proxy.registry.cancel_wait(run, &self.resource.name, key) {
            return;
        }
        let Some((subject, theirs)) = self.proxy.registry.owner(run, &self.resource.name, key) else {
            self.proxy.refused(
                &self.connection,
                "a cancel request with a key that no session of this run at this resource was given",
            );
            return;
        };
        cancel(self.proxy, self.resource, self.protocol, &subject, &theirs, Author::Agent).await;
    }

    /// Whom we may stand for towards this client.
    fn offer(&self) -> Offer {
        let dialled = self.connection.destination.address().map(|address| address.ip());
        Offer {
            resource: self.resource.name.clone(),
            hosts: self.resource.hosts.clone(),
            dialled: dialled.filter(|dialled| SyntheticAddress::from_ip(*dialled).is_none()),
            alpn: self.protocol.alpn().iter().map(|name| name.to_vec()).collect(),
        }
    }

    fn session(&self, principal: Principal) -> Arc<Session> {
        Arc::new(Session {
            connection: self.connection.clone(),
            resource: self.resource.name.clone(),
            protocol: self.protocol.name(),
            principal,
        })
    }
}

/// Judges, records and sends a cancel request for the session that the upstream knows by `theirs`.
async fn cancel(
    proxy: &Proxy,
    resource: &Resource,
    protocol: &dyn Protocol,
    subject: &Subject,
    theirs: &CancelKey,
    author: Author,
) {
    let action = Action {
        phase: Phase::Cancel,
        text: Text::new(),
        binds: Binds::new(),
        facts: StatementFacts::single(Verb::Cancel, Target::Resource).into(),
    };
    let held = Held::new(0, vec![action], Bytes::copy_from_slice(&theirs.process.to_be_bytes()));
    let Verdict::Allow(permit, _) = proxy.gate.judge_for(subject, &held, author).await else { return };
    let mut ledger = Ledger::new(proxy.gate.producer().clone());
    ledger.sent(0, permit.records());
    if held.release(permit).is_err() {
        return;
    }
    let agent = &subject.run.agent;
    match proxy.dialler.cancel(resource, protocol, agent, &subject.principal, theirs).await {
        Ok(()) => ledger.ended_whole(0, OutcomeStatus::Completed, 0, None),
        Err(error) => ledger.ended_whole(0, OutcomeStatus::Failed, 0, Some(telemetry::chain(&error))),
    }
}

/// The last word to a client that gets no session. Only what waits is asked again, and an opening does not.
async fn no_session(
    decoder: &mut dyn Decoder,
    client: &mut Stream,
    number: u64,
    verdict: &Verdict,
) -> Result<Option<Box<Inspected>>, StartError> {
    let word = match verdict {
        Verdict::Deny(denial) => decoder.refuse(number, denial).client,
        Verdict::Again | Verdict::Enclose(_) | Verdict::Allow(..) => {
            decoder.farewell(&Ending::Stopping.denial())
        }
    };
    last(client, &word).await.map(|()| None)
}

/// What was in a box, which is given back at once and not when whoever took it out is done.
#[expect(clippy::boxed_local, reason = "to take it out of its box is all that this is for")]
fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

/// All that a greeting is for once the client has had it.
fn theirs(greeting: Greeting) -> Option<CancelKey> {
    greeting.cancel
}

async fn write(client: &mut Stream, bytes: &Bytes) -> Result<(), StartError> {
    client.write_all(bytes).await?;
    client.flush().await?;
    Ok(())
}

/// Says a last word and closes in good order; a client that does not take it is not waited for.
async fn last(client: &mut Stream, bytes: &Bytes) -> Result<(), StartError> {
    tokio::time::timeout(LAST_WORD, async {
        write(client, bytes).await?;
        client.shutdown().await.map_err(StartError::Io)
    })
    .await
    .map_err(|_| StartError::Slow)?
}

fn broken(error: &DecodeError) -> Denial {
    Denial {
        record: None,
        rule: "protocol".to_owned(),
        message: format!("the connection was ended: {error}"),
        hint: "This client asks for something that is not supported yet; see the protocol's README."
            .to_owned(),
    }
}

/// What the agent is told: not where or as whom we dialled.
fn unreachable_upstream(error: &DialError, record: Option<String>) -> Denial {
    let message = match error {
        DialError::NoCredential => "the interceptor has no credential for this agent on this resource",
        DialError::Refused { .. } | DialError::Proof(_) => "the resource refused the interceptor's log-in",
        DialError::Tls(_) => "the resource could not show that it is who it should be",
        DialError::Name(..)
        | DialError::Loopback(_)
        | DialError::Connect(..)
        | DialError::Slow(_)
        | DialError::Io(_)
        | DialError::Protocol(_) => "the resource could not be reached",
    };
    let seen = record.map_or(String::new(), |id| format!(" with `interceptor why {id}`"));
    Denial {
        record: None,
        rule: "upstream".to_owned(),
        message: message.to_owned(),
        hint: format!(
            "Nothing was executed. This is not for you to mend; the operator sees the cause{seen}."
        ),
    }
}
