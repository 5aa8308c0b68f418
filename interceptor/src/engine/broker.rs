//! The broker: a process that serves a run the engine's interface, as far as a run may have it.
//!
//! It has a user of its own and no capability, and the group that the engine's socket is for: whoever takes it over has the
//! engine, which is root. So it holds nothing else, and its work is done again by the [runtime](super::runtime). Each call is
//! told to the launcher before it goes on, which has it recorded, and judged where it is to fetch something; one that cannot be
//! recorded is refused.

use std::{
    convert::Infallible,
    io,
    os::{fd::OwnedFd, unix::net::UnixListener as PlainListener},
    sync::{
        Arc, Mutex as PlainMutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use interceptor_core::password;
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Mutex, Semaphore, mpsc, oneshot},
};

use super::{
    Asking, Cadence, Came, FromBroker, ToBroker,
    create::{self, Owner},
    images::{self, Of},
    own::{self, Container, Own, Shows},
    pull::Pull,
    refusal::Refusal,
    routes::{self, Call, OfCommand, OfContainer, Route},
    upstream::{Answer, Body, Engine, Outgoing, Streams, full},
    view,
};
use crate::channel::{AsyncChannel, Channel, ChannelError};

/// How many connections of a run are served at once; the others wait.
const AT_ONCE: usize = 256;
/// The longest body that is read here.
const LONGEST: usize = 1 << 20;
/// How long the removal of a run's containers may take.
const REMOVAL: Duration = Duration::from_secs(10);

/// By which builder a client is to have builds made: the first, the engine's own.
const BUILDER: HeaderName = HeaderName::from_static("builder-version");

type Launcher = AsyncChannel<FromBroker, ToBroker>;

/// Serves one run's broker to its end.
pub fn run(launcher: Channel<FromBroker, ToBroker>) -> Result<(), ChannelError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(live(launcher))
}

async fn live(launcher: Channel<FromBroker, ToBroker>) -> Result<(), ChannelError> {
    let launcher = launcher.into_async()?;
    let (ToBroker::Look { engine }, _) = launcher.receive().await? else {
        return Err(out_of_turn("what to look at"));
    };
    let engine = Engine::at(engine);
    let driver = match engine.driver().await {
        Ok(driver) => driver,
        Err(text) => return launcher.send(&FromBroker::Unfit { text }, &[]).await,
    };
    launcher.send(&FromBroker::Fit, &[]).await?;
    let (ToBroker::Serve { run, slice, folder }, mut descriptors) = launcher.receive().await? else {
        return Err(out_of_turn("whom to serve"));
    };
    let listener = descriptors.pop().ok_or_else(|| out_of_turn("where to listen"))?;
    let (answers, answered) = mpsc::channel(1);
    let broker = Arc::new(Broker {
        owner: Owner { run, slice, driver, folder },
        engine,
        own: PlainMutex::default(),
        building: Semaphore::new(1),
        launcher: Arc::new(launcher),
        answered: Mutex::new(answered),
        asked: AtomicU64::new(0),
    });
    let accepting = tokio::spawn(accept(Arc::clone(&broker), listening(listener)?));
    loop {
        match broker.launcher.receive().await?.0 {
            ToBroker::End => break,
            answer @ (ToBroker::Recorded | ToBroker::Unrecorded | ToBroker::Refused { .. }) => {
                if answers.send(answer).await.is_err() {
                    return Err(out_of_turn("an answer"));
                }
            }
            ToBroker::Look { .. } | ToBroker::Serve { .. } => return Err(out_of_turn("a beginning")),
        }
    }
    accepting.abort();
    // What is not gone by then, the operator finds by its label.
    let _ = tokio::time::timeout(REMOVAL, broker.engine.remove_all(broker.owner.run)).await;
    broker.launcher.send(&FromBroker::Over, &[]).await
}

fn out_of_turn(what: &str) -> ChannelError {
    ChannelError::Malformed(format!("the launcher did not say {what} when it should have"))
}

fn listening(listener: OwnedFd) -> io::Result<UnixListener> {
    let listener = PlainListener::from(listener);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(broker: Arc<Broker>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else { continue };
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            broker.serve(socket).await;
            drop(permit);
        });
    }
}

/// The broker of one run.
pub(super) struct Broker {
    pub(super) owner: Owner,
    pub(super) engine: Engine,
    own: PlainMutex<Own>,
    /// What a build is made of is held in memory: one at a time.
    pub(super) building: Semaphore,
    launcher: Arc<Launcher>,
    /// What the launcher says to each thing that it is asked, in turn.
    answered: Mutex<mpsc::Receiver<ToBroker>>,
    /// How much it was asked.
    asked: AtomicU64,
}

/// What there is to do when the engine has answered.
enum After {
    Nothing,
    /// The client is to build as a run may.
    Pinged,
    /// A list of images is to have those that the run may use.
    Images,
    /// A container is made.
    Made(Container),
    /// A command is prepared.
    Prepared,
    /// The description of a container is to say where its ports are.
    Described(String, Container),
    /// It was something of this container.
    Of(String),
    /// This container is removed.
    Removed(String),
}

impl Broker {
    async fn serve(self: &Arc<Self>, socket: UnixStream) {
        let service = service_fn(|request| {
            let broker = Arc::clone(self);
            async move { Ok::<_, Infallible>(broker.answer(request).await) }
        });
        // How a connection of the run's ends is of no interest.
        let _ = server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let path: String = request.uri().path().chars().take(200).collect();
        let answered = self.answered_by_engine(request).await;
        match answered {
            Ok(answer) => answer,
            Err(refusal) => {
                let text = format!("{method} {path}: refused: {}", refusal.text);
                // It is refused whether or not that can be told.
                let _ = self.tell(Cadence::Loop, text).await;
                refused(&method, &refusal)
            }
        }
    }

    async fn answered_by_engine(self: &Arc<Self>, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
        let call = routes::route(request.method(), request.uri().path())?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        if call.route == Route::Build {
            return self.build(&call, &query, request).await;
        }
        let parameters = call.route.parameters(&query)?;
        match &call.route {
            Route::Pull => {
                return self.pull(&call.version, Pull::read(&parameters, request.headers())?).await;
            }
            Route::Tag { name } => return self.tag(name, &parameters).await,
            Route::Untag { name } => return self.untag(&call.version, name, parameters).await,
            _ => {}
        }
        let cadence = call.route.cadence(request.method());
        let has_streams = matches!(
            call.route,
            Route::Container { what: OfContainer::Attach, .. }
                | Route::Command { what: OfCommand::Start, .. }
        );
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let streams = match has_streams && wants_upgrade {
            true => Streams::Joined(hyper::upgrade::on(&mut request)),
            false => Streams::None,
        };
        let (outgoing, after, what) = self.outgoing(call, parameters, request).await?;
        self.tell(cadence, format!("{what}: passed")).await?;
        let answer = self.engine.ask(outgoing, streams).await?;
        self.noted(after, answer).await
    }

    /// What is sent to the engine, what there is to do afterwards, and the call in words.
    async fn outgoing(
        &self,
        call: Call,
        mut parameters: Vec<(String, String)>,
        request: Request<Incoming>,
    ) -> Result<(Outgoing, After, String), Refusal> {
        let Call { version, rest, route } = call;
        let (method, whole) =
            (request.method().clone(), request.headers().get(header::CONTENT_TYPE).cloned());
        let mut what = format!("{method} {rest}");
        let empty = || full(Bytes::new());
        let (path, body, after) = match route {
            Route::Pull | Route::Build | Route::Tag { .. } | Route::Untag { .. } => {
                return Err(Refusal::forbidden("this goes another way"));
            }
            Route::Look => (rest, empty(), After::Nothing),
            Route::Ping => (rest, empty(), After::Pinged),
            Route::Images => (rest, empty(), After::Images),
            Route::Image { name } => {
                let found = self.image(&name).await?;
                (image_renamed(&rest, &name, &found.id), empty(), After::Nothing)
            }
            Route::List => {
                view::only_own(&mut parameters, self.owner.run)?;
                (rest, empty(), After::Nothing)
            }
            Route::Events => {
                view::only_own(&mut parameters, self.owner.run)?;
                view::only_of_containers(&mut parameters)?;
                (rest, empty(), After::Nothing)
            }
            Route::Create => {
                self.own().make_room()?;
                let name = parameters.iter().find(|(name, _)| name == "name").map(|(_, name)| name.clone());
                let body = read(request).await?;
                let mut made = self.owner.container(&body, name)?;
                let found = self.image(&made.image).await?;
                if found.of == Of::Run || self.own().image(&made.image).is_some() {
                    // The engine does not know it by the run's name for it.
                    made.body["Image"] = Value::String(format!("sha256:{}", found.id));
                }
                what = format!("{what} of image {:?}", made.image);
                (rest, json(&made.body), After::Made(made.container))
            }
            Route::Container { name, what: of } => {
                let (id, container) = self.own().find(&name)?;
                let path = renamed(&rest, &name, &id);
                what = format!("{method} {}", renamed(&rest, &name, id.get(..12).unwrap_or(&id)));
                match of {
                    OfContainer::Inspect => (path, empty(), After::Described(id, container)),
                    OfContainer::Copy if container.shows == Shows::Folder => {
                        return Err(Refusal::forbidden(
                            "files of a container that shows the working folder are not copied by the engine, which would follow \
                             links of the host's: put them into the folder, or use `docker exec`",
                        ));
                    }
                    OfContainer::Copy => (path, request.into_body().boxed(), After::Of(id)),
                    OfContainer::Read | OfContainer::Act | OfContainer::Attach => {
                        (path, empty(), After::Of(id))
                    }
                    OfContainer::Remove => (path, empty(), After::Removed(id)),
                }
            }
            Route::Prepare { name } => {
                let (id, _) = self.own().find(&name)?;
                let body = create::command(&read(request).await?)?;
                let short = renamed(&rest, &name, id.get(..12).unwrap_or(&id));
                what = format!("{method} {short} of {}", body["Cmd"]);
                (renamed(&rest, &name, &id), json(&body), After::Prepared)
            }
            Route::Command { id, what: of } => {
                self.own().has_command(&id)?;
                let body = match of {
                    OfCommand::Start => json(&create::start(&read(request).await?)?),
                    OfCommand::Act => empty(),
                };
                (rest, body, After::Nothing)
            }
        };
        let outgoing = Outgoing { method, path: format!("{version}{path}"), parameters, kind: whole, body };
        Ok((outgoing, after, what))
    }

    /// Takes note of what came of a call, and shows what the run is to see of it.
    async fn noted(&self, after: After, answer: Answer) -> Result<Answer, Refusal> {
        let is_missing = answer.status() == hyper::StatusCode::NOT_FOUND;
        match after {
            After::Nothing => {}
            After::Pinged => {
                let mut answer = answer;
                answer.headers_mut().insert(BUILDER, HeaderValue::from_static("1"));
                return Ok(answer);
            }
            After::Images => {
                let names = self.own().image_names().clone();
                return view::changed(answer, |told| images::show_usable(told, self.owner.run, &names)).await;
            }
            After::Of(id) if is_missing => self.own().remove(&id),
            After::Removed(id) if is_missing || answer.status().is_success() => self.own().remove(&id),
            After::Of(_) | After::Removed(_) => {}
            After::Described(id, _) if is_missing => self.own().remove(&id),
            After::Described(_, container) => {
                return view::changed(answer, |told| view::show_ports(told, &container.published)).await;
            }
            After::Made(container) if answer.status().is_success() => {
                return view::changed(answer, |told| match told["Id"].as_str().and_then(own::id) {
                    Some(id) => self.own().add(id, container),
                    None => tracing::error!("the engine made a container and gave no id that can be read"),
                })
                .await;
            }
            After::Prepared if answer.status().is_success() => {
                return view::changed(answer, |told| {
                    if let Some(id) = told["Id"].as_str().and_then(own::id) {
                        self.own().add_command(id);
                    }
                })
                .await;
            }
            After::Made(_) | After::Prepared => {}
        }
        Ok(answer)
    }

    /// Has a call recorded.
    pub(super) async fn tell(self: &Arc<Self>, cadence: Cadence, text: String) -> Result<(), Refusal> {
        // Commands may have passwords in them.
        let text: String = password::hidden(&text).chars().take(1000).collect();
        self.asked(Asking::Call { cadence, text }).await.map(drop)
    }

    /// Has the daemon asked whether something may be done, to its end, whatever becomes of who asks: answers come in turn. What came
    /// of something that takes a while goes into what this gives; what is dropped was broken off.
    pub(super) async fn asked(self: &Arc<Self>, asking: Asking) -> Result<oneshot::Sender<Came>, Refusal> {
        let broker = Arc::clone(self);
        let asked = tokio::spawn(async move {
            let takes_a_while = matches!(asking, Asking::Pull { .. });
            let number = broker.asked.fetch_add(1, Ordering::Relaxed);
            let mut answered = broker.answered.lock().await;
            broker.launcher.send(&FromBroker::Asked { number, asking }, &[]).await.ok()?;
            let answer = answered.recv().await?;
            drop(answered);
            let (ended, end) = oneshot::channel();
            if takes_a_while && answer == ToBroker::Recorded {
                tokio::spawn(async move {
                    let ended = FromBroker::Ended { number, came: end.await.ok() };
                    // A launcher that is gone needs no word.
                    let _ = broker.launcher.send(&ended, &[]).await;
                });
            }
            Some((answer, ended))
        });
        match asked.await {
            Ok(Some((ToBroker::Recorded, ended))) => Ok(ended),
            Ok(Some((ToBroker::Refused { text }, _))) => Err(Refusal::forbidden(text)),
            _ => Err(Refusal::unable(
                "this cannot be recorded, so it is not done: the daemon may be gone; try again when it is back",
            )),
        }
    }

    pub(super) fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(method: &Method, refusal: &Refusal) -> Answer {
    let body = if *method == Method::HEAD { Vec::new() } else { refusal.body() };
    let mut answer = Response::new(full(body));
    *answer.status_mut() = refusal.status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let read = Limited::new(request.into_body(), LONGEST).collect().await;
    let read = read.map_err(|error| Refusal::malformed(format!("the body cannot be read: {error}")))?;
    Ok(read.to_bytes())
}

/// The path of a container's call, by another name of its.
fn renamed(rest: &str, name: &str, other: &str) -> String {
    let tail = rest.strip_prefix("/containers/").and_then(|rest| rest.strip_prefix(name));
    format!("/containers/{other}{}", tail.unwrap_or_default())
}

/// The path of an image's call, by its id.
fn image_renamed(rest: &str, name: &str, id: &str) -> String {
    let tail = rest.strip_prefix("/images/").and_then(|rest| rest.strip_prefix(name));
    format!("/images/{id}{}", tail.unwrap_or_default())
}

fn json(value: &Value) -> Body {
    full(value.to_string())
}
