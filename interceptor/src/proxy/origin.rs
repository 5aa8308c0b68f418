//! Where an accepted connection came from, by the kernel's word; of a Unix socket, by that of the run's porter and the helper.
//!
//! The flow that the connect hook remembered is read once and used for the decision and the dial alike. The socket
//! that the kernel's own tables show at the other end must be the one the hook saw; a connection for which either
//! is missing never came through the hooks and is rejected. Never is the local address taken in their place.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::{
    model::{ExecutableDigest, ProcessFacts, RunId},
    password,
};

use crate::{
    helper::messages::{CallerFacts, is_probe},
    identity::{Observed, ProcessId, Tree},
    kernel::{EventReader, KernelError, KernelEvent, KernelMaps, Occurrence, ProcessRef, diag},
};

/// Why a connection has no origin.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It did not come through the connect hook.
    #[error("the kernel side knows nothing of this connection: it did not come through the connect hook")]
    NoFlow,
    /// The flow belongs to another run.
    #[error("the connection belongs to another run than this listener")]
    OtherRun,
    /// The kernel's socket tables disagree with the hook.
    #[error("the socket at the other end is not the one that the connect hook saw")]
    OtherSocket,
    /// The socket tables could not be asked.
    #[error("the kernel's socket tables could not be asked")]
    Diag(#[from] KernelError),
    /// The connection's own address cannot be had.
    #[error("the connection broke at once")]
    Broken(#[from] std::io::Error),
    /// It was dialled at our own listener.
    #[error("the connection was made to the interceptor's own listener")]
    Ourselves,
    /// The launcher's self-test.
    #[error("the launcher's self-test")]
    Probe,
}

/// A connection's origin.
pub struct Origin {
    /// Where it was going.
    pub destination: SocketAddr,
    /// Who was asking.
    pub process: Arc<ProcessFacts>,
}

/// Asks for the path and digest of a process's executable; the answer comes to [`Origins::identified`].
pub(super) type AskExecutable = Box<dyn Fn(ProcessId) + Send + Sync>;

/// What is needed to tell origins.
pub struct Origins {
    maps: KernelMaps,
    events: Mutex<EventReader>,
    tree: Mutex<Tree>,
    diag: Mutex<HashMap<RunId, Arc<Mutex<OwnedFd>>>>,
    ask_executable: AskExecutable,
}

impl Origins {
    /// Over the maps that the helper handed on.
    pub fn new(maps: KernelMaps, ask_executable: AskExecutable) -> Result<Self, KernelError> {
        let events = Mutex::new(maps.events()?);
        Ok(Self { maps, events, tree: Mutex::default(), diag: Mutex::default(), ask_executable })
    }

    /// The kernel side's maps.
    pub fn maps(&self) -> &KernelMaps {
        &self.maps
    }

    /// `diag` asks the kernel's socket tables of the run's network namespace.
    pub fn begin_run(&self, run: RunId, diag: OwnedFd) {
        lock(&self.diag).insert(run, Arc::new(Mutex::new(diag)));
    }

    /// Forgets a run.
    pub fn end_run(&self, run: RunId) {
        lock(&self.diag).remove(&run);
        lock(&self.tree).forget_run(run);
    }

    /// What the helper found out about an executable.
    pub fn identified(&self, process: ProcessId, path: String, digest: Option<ExecutableDigest>) {
        lock(&self.tree).identified(process, path, digest);
    }

    /// Takes in what the kernel side saw since the last time; what concerns no process is returned.
    pub fn catch_up(&self) -> Vec<KernelEvent> {
        let mut others = Vec::new();
        let mut events = lock(&self.events);
        while let Some(event) = events.next_event() {
            match observed(&event) {
                Some(seen) => {
                    if lock(&self.tree).observe(seen) {
                        (self.ask_executable)(process_id(event.process));
                    }
                }
                None => others.push(event),
            }
        }
        others
    }

    /// A descriptor that is readable when there is something to catch up with.
    pub fn events_fd(&self) -> std::io::Result<OwnedFd> {
        lock(&self.events).as_fd().try_clone_to_owned()
    }

    /// The origin of a connection that a listener of `run` accepted; and what else the kernel side said meanwhile.
    pub fn of(&self, run: RunId, peer: SocketAddr, local: SocketAddr) -> Result<Origin, OriginError> {
        let flow = self.maps.take_flow(run, peer).ok_or(OriginError::NoFlow)?;
        let diag = lock(&self.diag).get(&run).cloned().ok_or(OriginError::OtherRun)?;
        // One question at a time: an answer belongs to the question before it.
        let found = diag::client_socket(lock(&diag).as_fd(), peer, local)?.ok_or(OriginError::OtherSocket)?;
        if found.cookie != flow.cookie {
            return Err(OriginError::OtherSocket);
        }
        if flow.destination.ip().is_loopback() && flow.destination.port() == local.port() {
            return Err(OriginError::Ourselves);
        }
        if is_probe(flow.destination) {
            return Err(OriginError::Probe);
        }
        let cgroup = format!("{}", flow.cgroup);
        let process = lock(&self.tree).facts(process_id(flow.process), flow.uid, cgroup);
        Ok(Origin { destination: flow.destination, process })
    }

    /// The process that the porter of `run` acts for, by the helper's word.
    pub fn told(&self, run: RunId, caller: &CallerFacts) -> Arc<ProcessFacts> {
        let mut tree = lock(&self.tree);
        let process = tree.find(run, caller.pid, caller.ticks);
        tree.facts(process, caller.uid, caller.cgroup.to_string())
    }
}

fn process_id(process: ProcessRef) -> ProcessId {
    ProcessId { pid: process.pid, start_time: process.start_time }
}

fn observed(event: &KernelEvent) -> Option<Observed> {
    let run = event.run?;
    let process = process_id(event.process);
    match &event.what {
        Occurrence::Fork { parent } => {
            Some(Observed::Fork { run, child: process, parent: process_id(*parent) })
        }
        Occurrence::Exec { path, argv, .. } => {
            // They are recorded and shown to approvers.
            let argv = argv.iter().map(|argument| password::hidden(argument)).collect();
            Some(Observed::Exec { run, process, path: path.clone(), argv })
        }
        Occurrence::Exit => Some(Observed::Exit { process }),
        Occurrence::Internal { .. } | Occurrence::Refused(_) | Occurrence::Released { .. } => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these whole: every change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
