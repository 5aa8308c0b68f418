//! Where an accepted connection came from, by the kernel's word and nobody else's.
//!
//! The flow that the connect hook remembered is read once and used for the decision and the dial alike. The socket
//! that the kernel's own tables show at the other end must be the one the hook saw; a connection for which either
//! is missing never came through the hooks and is rejected. Never is the local address taken in their place.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_core::model::{OriginalDestination, ProcessFacts, RunId};
use tokio::net::TcpStream;

use crate::{
    identity::{Observed, ProcessId, Tree},
    kernel::{KernelMaps, diag},
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
    Diag(#[from] std::io::Error),
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
    pub destination: OriginalDestination,
    /// Who was asking.
    pub process: ProcessFacts,
}
