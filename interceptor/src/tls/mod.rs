//! TLS on both legs: minted certificates towards the agent, verified ones upstream, and what agents must trust.
//!
//! Promises: the authority's key and clients' keys are never here, only ways to ask for certificates and
//! signatures; TLS 1.2 and 1.3 only; a handshake has a deadline; what fails names the guilty side and the mend.
//! Nothing here knows a protocol, policy, or where secrets are kept.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub mod anchors;
pub mod server;
pub mod trust;
pub mod upstream;

/// How long either handshake may take.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The one set of algorithms.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A stream whose first bytes were read already, such as a ClientHello that a decoder recognised.
#[derive(Debug)]
pub struct Prefixed<IO> {
    first: Bytes,
    rest: IO,
}

impl<IO> Prefixed<IO> {
    /// `first`, then what `rest` gives.
    pub fn new(first: Bytes, rest: IO) -> Self {
        Self { first, rest }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        &self.rest
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        let taken = self.first.copy_to_bytes(count);
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(context)
    }
}

/// The error of rustls inside an I/O error, where there is one.
fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

#[cfg(test)]
mod tests;
