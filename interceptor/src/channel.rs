//! Typed messages, with file descriptors, between our own processes: JSON over a `SOCK_SEQPACKET` Unix socket.
//!
//! A message is one packet of at most [`LIMIT`] bytes; unknown fields are refused by the types. The kernel keeps
//! packets whole, so there is no framing to attack. Nothing here knows what the messages mean.

use std::{
    io::{self, IoSlice, IoSliceMut},
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials,
        accept4, recv, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

/// The longest message in bytes.
pub const LIMIT: usize = 128 * 1024;

/// The most descriptors that go with one message.
pub const MAX_DESCRIPTORS: usize = 32;

/// Why a message could not be had or sent.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process is gone.
    #[error("the other side closed the channel")]
    Closed,
    /// The socket failed.
    #[error("the channel failed")]
    Io(#[from] io::Error),
    /// The message is not one that this side knows.
    #[error("a message that cannot be read: {0}")]
    Malformed(String),
    /// The message is longer than [`LIMIT`].
    #[error("a message of more than {LIMIT} bytes")]
    TooLong,
}

/// One end of a channel that sends `S` and receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    receiving: Mutex<()>,
    kinds: PhantomData<fn(S) -> R>,
}

/// The process that sent a message, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its number, in our pid namespace; 0 where it has none there.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// A connected pair.
pub fn pair<A, B>() -> io::Result<(Channel<A, B>, Channel<B, A>)>
where
    A: Serialize + DeserializeOwned,
    B: Serialize + DeserializeOwned,
{
    let (left, right) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Channel::from_socket(left), Channel::from_socket(right)))
}

/// Lets the running tokio runtime wait for a descriptor.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and names the same file, for as long as it lives.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Over a socket that is already a connected `SOCK_SEQPACKET` one.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket, receiving: Mutex::default(), kinds: PhantomData }
    }

    /// Sends one message; blocks while the socket is full.
    pub fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        send_on(self.socket.as_raw_fd(), message, descriptors)
    }

    /// Waits for one message.
    pub fn receive(&self) -> Result<(R, Vec<OwnedFd>), ChannelError> {
        self.receive_whole().map(|received| (received.message, received.descriptors))
    }

    /// Waits for one message, and says who sent it where the socket asks the kernel for that (`SO_PASSCRED`).
    pub fn receive_signed(&self) -> Result<(R, Option<Sender>), ChannelError> {
        self.receive_whole().map(|received| (received.message, received.sender))
    }

    fn receive_whole(&self) -> Result<Received<R>, ChannelError> {
        // Several threads may wait on one channel: what one has measured must not be taken by another.
        let _alone = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        receive_on(self.socket.as_raw_fd())
    }

    /// Gives the channel to the running tokio runtime.
    pub fn into_async(self) -> io::Result<AsyncChannel<S, R>> {
        set_nonblocking(self.socket.as_fd())?;
        Ok(AsyncChannel { socket: watch(self.socket)?, receiving: Mutex::default(), kinds: PhantomData })
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S, R> AsFd for AsyncChannel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A [`Channel`] whose waiting is asynchronous. Both methods are cancel safe: a packet is sent or received whole.
#[derive(Debug)]
pub struct AsyncChannel<S, R> {
    socket: AsyncFd<OwnedFd>,
    receiving: Mutex<()>,
    kinds: PhantomData<fn(S) -> R>,
}

impl<S: Serialize, R: DeserializeOwned> AsyncChannel<S, R> {
    /// Sends one message.
    pub async fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        loop {
            let mut ready = self.socket.writable().await?;
            match send_on(self.socket.as_raw_fd(), message, descriptors) {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready()
                }
                done => return done,
            }
        }
    }

    /// Waits for one message.
    pub async fn receive(&self) -> Result<(R, Vec<OwnedFd>), ChannelError> {
        self.receive_whole().await.map(|received| (received.message, received.descriptors))
    }

    /// Waits for one message, and says who sent it where the socket asks the kernel for that (`SO_PASSCRED`).
    pub async fn receive_signed(&self) -> Result<(R, Option<Sender>), ChannelError> {
        self.receive_whole().await.map(|received| (received.message, received.sender))
    }

    async fn receive_whole(&self) -> Result<Received<R>, ChannelError> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = {
                let _alone = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
                receive_on(self.socket.as_raw_fd())
            };
            match received {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready()
                }
                done => return done,
            }
        }
    }
}

fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn send_on<S: Serialize>(
    socket: RawFd,
    message: &S,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    // Messages may hold secrets, which stay neither here nor in what a growing vector leaves behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    serde_json::to_writer(&mut *bytes, message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
    if bytes.len() > LIMIT || descriptors.len() > MAX_DESCRIPTORS {
        return Err(ChannelError::TooLong);
    }
    let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket, &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Io(errno.into())),
        }
    }
}

/// A message with what came along.
struct Received<R> {
    message: R,
    descriptors: Vec<OwnedFd>,
    sender: Option<Sender>,
}

fn receive_on<R: DeserializeOwned>(socket: RawFd) -> Result<Received<R>, ChannelError> {
    // No longer than the message: what held it is wiped, byte for byte.
    let mut bytes = Zeroizing::new(vec![0; next_length(socket)?.min(LIMIT)]);
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS], UnixCredentials);
    let mut sender = None;
    let (length, truncated, descriptors) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => {
                let mut descriptors = Vec::new();
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows
                        // their numbers.
                        descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    } else if let ControlMessageOwned::ScmCredentials(of) = control {
                        sender = Some(Sender { pid: of.pid(), uid: of.uid() });
                    }
                }
                let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                break (message.bytes, cut, descriptors);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Io(errno.into())),
        }
    };
    if truncated {
        return Err(ChannelError::TooLong);
    }
    if length == 0 {
        return Err(ChannelError::Closed);
    }
    let message =
        serde_json::from_slice(&bytes[..length]).map_err(|e| ChannelError::Malformed(e.to_string()))?;
    Ok(Received { message, descriptors, sender })
}

/// How long the next message is, which stays where it is.
fn next_length(socket: RawFd) -> Result<usize, ChannelError> {
    loop {
        match recv(socket, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Ok(length) => return Ok(length),
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Io(errno.into())),
        }
    }
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The next waiting caller at a listening socket, if there is one.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
        // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows its number.
        Ok(raw) => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) })),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads any bytes as a message, and asserts that one that can be read comes out the same when it is written and read
/// again: what the fuzz targets of the roles' messages are made of.
pub(crate) fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&message).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_descriptors_and_closing_is_seen() {
        let (left, right) = pair::<String, u32>().expect("socketpair");
        left.send(&"here".to_owned(), &[left.as_fd()]).expect("send");
        let (text, descriptors) = right.receive().expect("receive");
        assert_eq!((text.as_str(), descriptors.len()), ("here", 1));
        drop(descriptors);
        let long = "x".repeat(LIMIT - 2);
        left.send(&long, &[]).expect("send");
        left.send(&"after it".to_owned(), &[]).expect("send");
        assert_eq!(right.receive().expect("receive").0, long);
        assert_eq!(right.receive().expect("receive").0, "after it");
        assert!(matches!(left.send(&"x".repeat(LIMIT), &[]), Err(ChannelError::TooLong)));
        drop(left);
        assert!(matches!(right.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn threads_that_share_a_channel_each_get_whole_messages() {
        let (left, right) = pair::<String, u32>().expect("socketpair");
        let right = std::sync::Arc::new(right);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let right = right.clone();
                std::thread::spawn(move || {
                    let mut got = 0_usize;
                    loop {
                        match right.receive() {
                            Ok((text, _)) => got += text.len(),
                            Err(ChannelError::Closed) => return got,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let mut sent = 0;
        for round in 0..2000 {
            let text = "x".repeat(if round % 3 == 0 { 60_000 } else { 3 });
            sent += text.len();
            left.send(&text, &[]).expect("sent");
        }
        drop(left);
        assert_eq!(threads.into_iter().map(|thread| thread.join().expect("joined")).sum::<usize>(), sent);
    }
}
