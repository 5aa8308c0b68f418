//! The launch socket: one task per `interceptor run`, from its first question to the answer that it may go on.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use interceptor_core::model::RunId;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    callers::Wanted,
    cgroup::Tree,
    kept::Keep,
    messages::{LaunchAnswer, LaunchFacts, LaunchRequest, Network, VERSION},
    supervisor::Event,
};
use crate::{
    channel::{AsyncChannel, Channel},
    launch::syscalls,
};

/// How many launches are served at once; the others wait.
const AT_ONCE: usize = 64;

/// An answer, and the cgroup directory that goes with [`LaunchAnswer::Begun`].
pub(super) type Answered = (LaunchAnswer, Option<PathBuf>);

/// A launcher's question, with the place for its answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// May this be run?
    Begin(LaunchFacts, oneshot::Sender<Answered>),
    /// Serve this run: its network namespace and its first process.
    Namespaces(RunId, OwnedFd, OwnedFd, oneshot::Sender<Answered>),
    /// This run, whose processes were there before, holds; some of what they had may go on.
    Settled(RunId, Option<Keep>, oneshot::Sender<Answered>),
    /// Let go of a cgroup that is captured in its place.
    Detach(RunId, oneshot::Sender<Answered>),
    /// The launcher went away before the run was served, or before it was said to hold.
    Abandoned(RunId),
}

type Launcher = AsyncChannel<LaunchAnswer, LaunchRequest>;

/// Accepts launchers until it is dropped.
pub(super) async fn accept(listener: OwnedFd, events: mpsc::Sender<Event>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok(socket) = next(&listener).await else { continue };
        let events = events.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(socket, &events, permit).await {
                tracing::info!(%error, "a launch was not served");
            }
        });
    }
}

async fn next(listener: &OwnedFd) -> io::Result<OwnedFd> {
    syscalls::readable(listener).await?;
    syscalls::accept(listener.as_fd())
}

/// Whether the peer may launch: root, and not from inside a run.
fn check_peer(socket: BorrowedFd<'_>) -> Result<(), String> {
    let peer = getsockopt(&socket, PeerCredentials).map_err(|errno| errno.to_string())?;
    if peer.uid() != 0 {
        return Err("only root may launch".to_owned());
    }
    match Tree::is_captured(&peer.pid().to_string()) {
        Ok(false) => Ok(()),
        Ok(true) => Err("a captured process may not launch".to_owned()),
        Err(error) => Err(format!("who launches cannot be made out: {error}")),
    }
}

async fn serve(
    socket: OwnedFd,
    events: &mpsc::Sender<Event>,
    permit: OwnedSemaphorePermit,
) -> Result<(), super::Foreign> {
    let refusal = check_peer(socket.as_fd());
    let launcher: Launcher = Channel::from_socket(socket).into_async()?;
    if let Err(text) = refusal {
        launcher.send(&LaunchAnswer::Refused { text: text.clone() }, &[]).await?;
        return Err(text.into());
    }
    let facts = match launcher.receive().await? {
        (LaunchRequest::Begin { version: VERSION, facts }, _) => *facts,
        (LaunchRequest::Detach { version: VERSION, run }, _) => {
            let (answer, _) = ask(events, |reply| Asked::Detach(run, reply)).await?;
            launcher.send(&answer, &[]).await?;
            return Ok(());
        }
        (LaunchRequest::Attend { version: VERSION, run }, _) => {
            launcher.send(&LaunchAnswer::Ready, &[]).await?;
            drop(permit);
            listen(&launcher, run, events).await;
            return Ok(());
        }
        (
            LaunchRequest::Begin { version, .. }
            | LaunchRequest::Detach { version, .. }
            | LaunchRequest::Attend { version, .. },
            _,
        ) => {
            let text = format!(
                "this program speaks version {version}, the running daemon {VERSION}: restart the daemon"
            );
            launcher.send(&LaunchAnswer::Refused { text }, &[]).await?;
            return Ok(());
        }
        (
            LaunchRequest::Namespaces
            | LaunchRequest::Settled { .. }
            | LaunchRequest::TurnedAway { .. }
            | LaunchRequest::Wanted { .. }
            | LaunchRequest::Engine { .. },
            _,
        ) => return Err("a launcher spoke out of turn".into()),
    };
    let network = facts.network.clone();
    let (answer, cgroup) = ask(events, |reply| Asked::Begin(facts, reply)).await?;
    let run = match &answer {
        LaunchAnswer::Begun { run, .. } => *run,
        _ => {
            launcher.send(&answer, &[]).await?;
            return Ok(());
        }
    };
    match finish(&launcher, run, &network, (answer, cgroup), events).await {
        Ok(true) => {
            drop(permit);
            listen(&launcher, run, events).await;
            Ok(())
        }
        done => {
            let _ = events.send(Event::Asked(Asked::Abandoned(run))).await;
            done.map(drop)
        }
    }
}

/// Takes in what the launcher of a run that is served has to tell, for as long as that one lives.
async fn listen(launcher: &Launcher, run: RunId, events: &mpsc::Sender<Event>) {
    loop {
        let told = match launcher.receive().await {
            Ok((LaunchRequest::TurnedAway { process, path }, _)) => Event::TurnedAway { run, process, path },
            Ok((LaunchRequest::Wanted { uid, path }, descriptors)) => {
                Event::Wanted(Wanted { run, uid, path, descriptors })
            }
            Ok((LaunchRequest::Engine { asking }, descriptors)) => Event::Engine { run, asking, descriptors },
            Ok(_) => return tracing::error!(%run, "a launcher spoke out of turn: it is listened to no more"),
            Err(_) => return,
        };
        if events.send(told).await.is_err() {
            return;
        }
    }
}

/// From the run's beginning to its being served, or holding; says whether it does.
async fn finish(
    launcher: &Launcher,
    run: RunId,
    network: &Network,
    (begun, cgroup): Answered,
    events: &mpsc::Sender<Event>,
) -> Result<bool, super::Foreign> {
    let directory = File::open(cgroup.ok_or("a run without a cgroup")?)?;
    launcher.send(&begun, &[directory.as_fd()]).await?;
    drop(directory);
    let (LaunchRequest::Namespaces, descriptors) = launcher.receive().await? else {
        return Err("a launcher spoke out of turn".into());
    };
    let [namespace, init] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|wrong| format!("a launcher sent {} descriptors instead of 2", wrong.len()))?;
    let (answer, _) = ask(events, |reply| Asked::Namespaces(run, namespace, init, reply)).await?;
    launcher.send(&answer, &[]).await?;
    if answer != LaunchAnswer::Ready || matches!(network, Network::Own) {
        return Ok(answer == LaunchAnswer::Ready);
    }
    let (LaunchRequest::Settled { keep }, _) = launcher.receive().await? else {
        return Err("a launcher spoke out of turn".into());
    };
    let (answer, _) = ask(events, |reply| Asked::Settled(run, keep, reply)).await?;
    launcher.send(&answer, &[]).await?;
    Ok(answer == LaunchAnswer::Settled)
}

async fn ask(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<Answered>) -> Asked,
) -> Result<Answered, super::Foreign> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Asked(question(reply))).await?;
    Ok(answer.await?)
}
