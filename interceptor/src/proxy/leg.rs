//! One peer's side of a relay: what was read from it and is not decoded, and what is on its way to it.
//!
//! Promises: both are bounded by whoever asks [`Out::is_full`] and counts the input; a peer that is idle holds no
//! buffer; long runs of bytes go on as they came, without being copied.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::stream::Stream;

/// Input is not read while this much of it waits to be decoded or sent, in bytes.
pub(super) const FULL: usize = 256 * 1024;
/// How much is read at once from a peer that has not shown that it has more, in bytes.
const CHUNK: usize = 16 * 1024;
/// How much more at once each time a read was filled.
const GROWTH: usize = 4;
/// Shorter runs than this are gathered, so that what they came in is free again, in bytes.
const SHORT: usize = 4 * 1024;
/// How many long runs may wait, whatever their length.
const RUNS: usize = 256;
/// How many buffers a thread keeps for its peers.
const SPARE: usize = 32;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with room for [`CHUNK`] bytes, of those that this thread keeps: the newest of which nothing is held any more, such
/// as the text of a statement that is under way.
fn take_buffer() -> BytesMut {
    BUFFERS.with(|spare| {
        let mut spare = spare.borrow_mut();
        let free =
            (0..spare.len()).rev().find(|&at| spare.get_mut(at).is_some_and(|one| one.try_reclaim(CHUNK)));
        match free {
            Some(at) => spare.remove(at),
            None => BytesMut::with_capacity(CHUNK),
        }
    })
}

fn give_back(buffer: BytesMut) {
    BUFFERS.with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}

/// One peer.
pub(super) struct Leg {
    stream: Stream,
    /// Read and not decoded.
    pub(super) input: BytesMut,
    /// Whether more may come from it.
    pub(super) open: bool,
    /// How much is read at once.
    chunk: usize,
    /// On its way to it.
    pub(super) out: Out,
}

impl Leg {
    /// A peer of whose input this much was read already.
    pub(super) fn new(stream: Stream, input: BytesMut) -> Self {
        Self { stream, input, open: true, chunk: CHUNK, out: Out::default() }
    }

    /// Reads once; 0 at its end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = take_buffer();
        }
        let room = self.input.capacity() - self.input.len();
        if room < self.chunk / 2 {
            self.input.reserve(self.chunk);
        }
        let room = self.input.capacity() - self.input.len();
        let Self { stream, input, .. } = self;
        match pin!(stream.read_buf(input)).poll(cx) {
            Poll::Pending => {
                self.rest();
                Poll::Pending
            }
            Poll::Ready(read) => {
                if read.as_ref().is_ok_and(|&read| read == room) {
                    self.chunk = (self.chunk * GROWTH).min(FULL);
                }
                Poll::Ready(read)
            }
        }
    }

    /// Nothing comes: whatever room it has is for others.
    fn rest(&mut self) {
        if self.input.is_empty() {
            let buffer = std::mem::take(&mut self.input);
            if self.chunk == CHUNK {
                give_back(buffer);
            }
            self.chunk = CHUNK;
        }
    }

    /// Moves what is on its way to it. Pending when the rest must wait.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_drive(&mut self.stream, cx)
    }

    /// Sends everything, then closes this direction.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        std::future::poll_fn(|cx| self.poll_send(cx)).await?;
        self.stream.shutdown().await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Shut {
    #[default]
    No,
    Wanted,
    Done,
    Broken,
}

/// Bytes on their way to one peer.
#[derive(Default)]
pub(super) struct Out {
    /// Long runs, and what was gathered before them.
    runs: VecDeque<Bytes>,
    /// How many bytes `runs` has.
    length: usize,
    /// Short runs behind them.
    gathered: BytesMut,
    dirty: bool,
    shut: Shut,
}

impl Out {
    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.shut == Shut::Broken || bytes.is_empty() {
            return;
        }
        if bytes.len() < SHORT {
            if self.gathered.capacity() == 0 {
                self.gathered = take_buffer();
            }
            self.gathered.extend_from_slice(&bytes);
            return;
        }
        if !self.gathered.is_empty() {
            let gathered = self.gathered.split().freeze();
            self.length += gathered.len();
            self.runs.push_back(gathered);
        }
        self.length += bytes.len();
        self.runs.push_back(bytes);
    }

    /// Forgets what is not sent.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.length = 0;
        self.gathered.clear();
    }

    /// The peer takes nothing more. What it said before that may still be read.
    pub(super) fn give_up(&mut self) {
        self.clear();
        self.dirty = false;
        self.shut = Shut::Broken;
    }

    /// Whether no more should be added.
    pub(super) fn is_full(&self) -> bool {
        self.length + self.gathered.len() >= FULL || self.runs.len() >= RUNS
    }

    /// Closes this direction once everything is sent.
    pub(super) fn close(&mut self) {
        if self.shut == Shut::No {
            self.shut = Shut::Wanted;
        }
    }

    /// Whether there is anything to do.
    pub(super) fn wants(&self) -> bool {
        self.has_bytes() || self.dirty || self.shut == Shut::Wanted
    }

    fn has_bytes(&self) -> bool {
        !self.runs.is_empty() || !self.gathered.is_empty()
    }

    fn poll_drive(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        loop {
            if self.has_bytes() {
                match ready!(self.poll_write(stream.as_mut(), cx))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.advance(written),
                }
                self.dirty = stream.holds_back();
            } else if self.dirty {
                ready!(stream.as_mut().poll_flush(cx))?;
                self.dirty = false;
            } else if self.shut == Shut::Wanted {
                ready!(stream.as_mut().poll_shutdown(cx))?;
                self.shut = Shut::Done;
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write(&self, stream: Pin<&mut Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.runs.is_empty() {
            return stream.poll_write(cx, &self.gathered);
        }
        const AT_ONCE: usize = 16;
        let mut parts = [IoSlice::new(&[]); AT_ONCE];
        let all = self.runs.iter().map(Bytes::as_ref).chain([self.gathered.as_ref()]);
        let mut count = 0;
        for (part, run) in parts.iter_mut().zip(all) {
            *part = IoSlice::new(run);
            count += 1;
        }
        stream.poll_write_vectored(cx, parts.get(..count).unwrap_or_default())
    }

    /// Takes away what was written.
    fn advance(&mut self, mut written: usize) {
        while let Some(run) = self.runs.front_mut() {
            let part = written.min(run.len());
            run.advance(part);
            self.length -= part;
            written -= part;
            if !run.is_empty() {
                return;
            }
            self.runs.pop_front();
        }
        self.gathered.advance(written.min(self.gathered.len()));
        if self.gathered.is_empty() {
            let buffer = std::mem::take(&mut self.gathered);
            // One that had to grow is not kept.
            if (1..=2 * CHUNK).contains(&buffer.capacity()) {
                give_back(buffer);
            }
        }
    }
}
