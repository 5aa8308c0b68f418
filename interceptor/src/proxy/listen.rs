//! The sockets of one run, and what becomes of each connection.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use interceptor_core::{
    Held,
    inventory::{Reach, Upstream},
    model::{
        Action, Binds, ClientAddress, Connection, EventKind, OriginalDestination, Phase, Principal, Run,
        StatementFacts, Target, Text, Verb,
    },
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    Proxy,
    destination::{self, DNS_PORT, Destination},
    names, opaque,
    opaque::{Leave, Passing},
    origin::OriginError,
    ported::{self, Wanting},
    registry::OpenSession,
    relay,
    seats::{Seat, Share},
    session::Caller,
    stream::{Stream, keep_alive},
    turns::Turn,
    workers::Workers,
};
use crate::{
    gate::{Subject, now_us},
    helper::messages::probe_answer,
    telemetry,
};

/// One run's sockets, made in its network namespace.
#[derive(Debug)]
pub struct Listeners {
    /// On 127.0.0.1 and, where the namespace has it, on ::1; for each CPU.
    pub tcp: Vec<OwnedFd>,
    /// The resolver's, on both addresses.
    pub dns: Vec<OwnedFd>,
    /// What its porter asks for.
    pub unix: mpsc::Receiver<Wanting>,
}

/// Serves a run's sockets, each on its own CPU. The tasks end when they are aborted.
pub fn serve(
    proxy: &Arc<Proxy>,
    workers: &Workers,
    run: &Arc<Run>,
    listeners: Listeners,
) -> io::Result<Vec<AbortHandle>> {
    let turn = Turn::default();
    let seats = proxy.seats.share();
    let (mut tcp, mut dns) = (Vec::new(), Vec::new());
    for descriptor in listeners.tcp {
        let runtime = workers.of(descriptor.as_fd())?;
        let _here = runtime.enter();
        let listener = std::net::TcpListener::from(descriptor);
        listener.set_nonblocking(true)?;
        tcp.push((runtime, TcpListener::from_std(listener)?));
    }
    for descriptor in listeners.dns {
        let runtime = workers.of(descriptor.as_fd())?;
        let _here = runtime.enter();
        let socket = std::net::UdpSocket::from(descriptor);
        socket.set_nonblocking(true)?;
        dns.push((runtime, UdpSocket::from_std(socket)?));
    }
    // Only now: a run is served whole or not at all.
    let mut tasks = Vec::new();
    for (runtime, listener) in tcp {
        let (proxy, run, turn, seats) = (proxy.clone(), run.clone(), turn.clone(), seats.clone());
        tasks.push(runtime.spawn(accept(proxy, run, turn, seats, listener)).abort_handle());
    }
    for (runtime, socket) in dns {
        let (own, run) = (proxy.clone(), run.clone());
        let asks = move || nobody(&own.runs.as_it_is(&run));
        let served = names::serve_datagrams(Arc::new(socket), proxy.clone(), asks);
        tasks.push(runtime.spawn(served).abort_handle());
    }
    let runtimes = workers.all();
    if let Some(runtime) = runtimes.first().cloned() {
        let served = ported::accept(proxy.clone(), run.clone(), turn, seats, (listeners.unix, runtimes));
        tasks.push(runtime.spawn(served).abort_handle());
    }
    Ok(tasks)
}

/// The subject of a datagram: its run is known, its process is not.
fn nobody(run: &Arc<Run>) -> Subject {
    Subject {
        run: run.clone(),
        connection: None,
        resource: None,
        protocol: "dns",
        principal: Principal::default(),
        login: None,
        sought: Arc::default(),
    }
}

async fn accept(proxy: Arc<Proxy>, run: Arc<Run>, turn: Turn, seats: Share, listener: TcpListener) {
    // Connections live and die with their run's listener.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(seat) = seat(&proxy, &run, &seats, &format_args!("from {peer}")) else {
                    reset(&stream.into());
                    continue;
                };
                let (proxy, run, turn) = (proxy.clone(), proxy.runs.as_it_is(&run), turn.clone());
                connections.spawn(async move {
                    let _seat = seat;
                    handle(&proxy, &run, &turn, stream, peer).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those waiting stay in the queue.
                tracing::warn!(run = %run.id, "accept failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// A seat for a connection of `run`; that there is none is recorded.
pub(super) fn seat(proxy: &Proxy, run: &Run, seats: &Share, which: &dyn fmt::Display) -> Option<Seat> {
    match seats.take() {
        Ok(seat) => Some(seat),
        Err(full) => {
            let of = Some((run.id, &run.agent.name));
            if proxy.told_enough(Some(run.id), of) {
                let text = format!("a connection {which} found no seat: {full}");
                proxy.event(of, EventKind::ConnectionRefused, text);
            }
            None
        }
    }
}

async fn handle(proxy: &Arc<Proxy>, run: &Arc<Run>, turn: &Turn, stream: TcpStream, peer: SocketAddr) {
    let events = proxy.origins.catch_up();
    proxy.record(events);
    let origin = stream
        .local_addr()
        .map_err(OriginError::from)
        .and_then(|local| proxy.origins.of(run.id, peer, local));
    let connection = match origin {
        Ok(origin) => Arc::new(Connection {
            id: proxy.number(),
            run: run.clone(),
            process: origin.process,
            client: Some(ClientAddress(peer)),
            destination: OriginalDestination::Address(origin.destination),
            accepted_at: now_us(),
        }),
        // The launcher's self-test asks nothing.
        Err(OriginError::Probe) => {
            let mut stream = stream;
            let _ = relay::say(&mut stream, probe_answer(run.id).as_bytes()).await;
            return;
        }
        Err(error) => {
            let text = format!("{peer}: {}", telemetry::chain(&error));
            let kind = EventKind::ConnectionRefused;
            proxy.event(Some((run.id, &run.agent.name)), kind, text);
            return reset(&stream.into());
        }
    };
    let _ = stream.set_nodelay(true);
    // A client that waits for a person and is gone without a word is found out.
    let _ = keep_alive(&stream);
    attend(proxy, turn, connection, stream.into()).await;
}

/// Sees to a connection whose origin is known, to its end.
pub(super) async fn attend(proxy: &Arc<Proxy>, turn: &Turn, connection: Arc<Connection>, stream: Stream) {
    let run = &connection.run;
    let rules = proxy.gate.rules();
    let meant = destination::find(&rules.inventory, &connection.destination);
    if let Some(released) = proxy.runs.released(run.id, now_us())
        && let Some(target) = released_target(&meant, &connection.destination)
    {
        let left = u64::try_from(released.until - now_us()).unwrap_or(0);
        // At the release's end what it relayed ends with it.
        let within = Some(Duration::from_micros(left));
        return Box::pin(pass(proxy, &connection, None, (Leave::Release, within), &target, stream)).await;
    }
    match meant {
        Destination::NameServer => {
            let subject = Subject { connection: Some(connection.clone()), ..nobody(run) };
            let _ = Box::pin(names::serve_stream(stream, proxy, &subject)).await;
        }
        Destination::Unknown(why) => Box::pin(unknown(proxy, &connection, &why, stream)).await,
        Destination::Resource(resource) => {
            match resource.protocol.as_deref().and_then(interceptor_protocols::find) {
                Some(protocol) => {
                    let connection = connection.clone();
                    let caller = Caller { proxy, connection, rules: &rules, resource, protocol, turn };
                    if let Err(error) = caller.serve(stream).await {
                        proxy.refused(&caller.connection, &telemetry::chain(&error));
                    }
                }
                None => {
                    let (name, target) = (Some(resource.name.clone()), &resource.upstream);
                    Box::pin(pass(proxy, &connection, name, (Leave::Policy, None), target, stream)).await;
                }
            }
        }
    }
}

async fn pass(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    resource: Option<interceptor_core::model::ResourceName>,
    (leave, within): (Leave, Option<Duration>),
    target: &Upstream,
    stream: Stream,
) {
    let run = &connection.run;
    let subject = Subject {
        run: run.clone(),
        connection: Some(connection.clone()),
        resource: resource.clone(),
        protocol: "pass",
        principal: Principal::default(),
        login: None,
        sought: Arc::default(),
    };
    let Some(name) = resource.or_else(|| "released".parse().ok()) else { return reset(&stream) };
    let shown = OpenSession { connection: connection.id, run: run.id, resource: name, since: now_us() };
    let opening = Action {
        phase: Phase::Pass,
        text: Text::new(),
        binds: Binds::new(),
        facts: StatementFacts::single(Verb::Pass, Target::Resource).into(),
    };
    // A released connection ends with its release, not with a change of policy.
    let opening = if leave == Leave::Release { Vec::new() } else { vec![opening] };
    let (_registered, told) = proxy.registry.register(shown, Arc::new(subject.clone()), opening);
    // A refusal has no protocol to speak in: the connection closes, and the record says why.
    let passing = Passing { subject: &subject, leave, target, within };
    let _ = opaque::pass(&proxy.gate, passing, stream, told).await;
}

async fn unknown(proxy: &Proxy, connection: &Arc<Connection>, why: &str, stream: Stream) {
    let subject = Subject {
        run: connection.run.clone(),
        connection: Some(connection.clone()),
        resource: None,
        protocol: "",
        principal: Principal::default(),
        login: None,
        sought: Arc::default(),
    };
    let action = Action {
        phase: Phase::Connect,
        text: connection.destination.to_string().into(),
        binds: Binds::new(),
        facts: StatementFacts::unknown(why).into(),
    };
    let held = Held::new(0, vec![action], bytes::Bytes::new());
    let hint = "Only destinations that the operator named can be reached.";
    let _ = proxy.gate.refuse(&subject, &held, "unknown-destination", why, hint).await;
    reset(&stream);
}

/// Where a released run's connection goes: a synthetic address still stands for its resource. A path stands for nothing
/// else, and leads nowhere without one.
fn released_target(meant: &Destination<'_>, destination: &OriginalDestination) -> Option<Upstream> {
    match meant {
        Destination::Resource(resource) => Some(resource.upstream.clone()),
        Destination::NameServer | Destination::Unknown(_) => {
            let address = destination.address()?;
            let reach = if address.port() == DNS_PORT { Reach::Host } else { Reach::Network };
            Some(Upstream::Network { host: address.ip().to_string(), port: address.port(), reach })
        }
    }
}

/// Has the stream closed with a reset when it is dropped, so that the caller sees at once that nobody serves it. A Unix
/// socket's peer sees that anyway.
fn reset(stream: &Stream) {
    if let Stream::Plain(socket) = stream {
        let _ = socket.set_zero_linger();
    }
}
