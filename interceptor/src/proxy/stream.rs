//! A byte stream to a peer, with or without TLS.

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that can be read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A stream whose kind no longer matters.
pub type Stream = Box<dyn Duplex>;
