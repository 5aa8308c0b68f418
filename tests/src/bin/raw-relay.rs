//! The least that a relay can do, `raw-relay LISTEN UPSTREAM`: one thread, one epoll, one read and one write for what
//! arrives. It looks at nothing, and is what the bench divides by.
//!
//! Promises: bytes go on unchanged and in order; a peer that does not read stops the other from being read, and
//! nobody else.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// What epoll calls the listener.
const LISTENER: u64 = u64::MAX;

fn main() -> ExitCode {
    match serve(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raw-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> Result<()> {
    let [listen, upstream] = arguments else {
        bail!("usage: raw-relay LISTEN UPSTREAM, both ports of 127.0.0.1")
    };
    let upstream = upstream.parse().context("the upstream's port")?;
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, listen.parse().context("the port to listen at")?))?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; CHUNK];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in events.iter().take(ready) {
            if event.data() == LISTENER {
                let (client, _) = listener.accept()?;
                let free = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                // Without an upstream the client's connection simply ends.
                if let Ok(pair) = Pair::new(client, upstream, &epoll, free) {
                    pairs.resize_with(pairs.len().max(free + 1), || None);
                    pairs[free] = Some(pair);
                }
                continue;
            }
            let (index, side) = (usize::try_from(event.data() / 2)?, usize::try_from(event.data() % 2)?);
            let Some(pair) = pairs.get_mut(index).and_then(Option::as_mut) else { continue };
            let going = pair.turn(side, event.events(), &mut buffer).is_ok() && !pair.over();
            if !(going && pair.listen(&epoll, index).is_ok()) {
                pairs[index] = None;
            }
        }
    }
}

/// A client and its upstream.
struct Pair {
    sides: [Side; 2],
}

/// One of the two, with what is on its way to it.
struct Side {
    stream: TcpStream,
    waiting: Vec<u8>,
    /// It sends no more.
    ended: bool,
    /// What epoll looks for.
    wanted: EpollFlags,
}

impl Pair {
    fn new(client: TcpStream, upstream: u16, epoll: &Epoll, index: usize) -> Result<Self> {
        let streams = [client, TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?];
        for (side, stream) in streams.iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, (index * 2 + side) as u64))?;
        }
        let side = |stream| Side { stream, waiting: Vec::new(), ended: false, wanted: EpollFlags::EPOLLIN };
        Ok(Self { sides: streams.map(side) })
    }

    /// What an event of one side asks for.
    fn turn(&mut self, side: usize, events: EpollFlags, buffer: &mut [u8]) -> Result<()> {
        let [client, upstream] = &mut self.sides;
        let (from, to) = if side == 0 { (client, upstream) } else { (upstream, client) };
        if events.contains(EpollFlags::EPOLLOUT) {
            let waiting = std::mem::take(&mut from.waiting);
            from.send(&waiting)?;
        }
        if from.wanted.contains(EpollFlags::EPOLLIN) {
            if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                return Ok(());
            }
            let length = from.stream.read(buffer)?;
            if length == 0 {
                from.ended = true;
                to.stream.shutdown(Shutdown::Write)?;
            }
            to.send(&buffer[..length])?;
        } else if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            bail!("gone in both directions");
        }
        Ok(())
    }

    fn over(&self) -> bool {
        self.sides.iter().all(|side| side.ended && side.waiting.is_empty())
    }

    /// Tells epoll what is now looked for, where that changed.
    fn listen(&mut self, epoll: &Epoll, index: usize) -> Result<()> {
        let full = [!self.sides[1].waiting.is_empty(), !self.sides[0].waiting.is_empty()];
        for (number, side) in self.sides.iter_mut().enumerate() {
            let mut wanted = EpollFlags::empty();
            wanted.set(EpollFlags::EPOLLIN, !side.ended && !full[number]);
            wanted.set(EpollFlags::EPOLLOUT, !side.waiting.is_empty());
            if wanted != side.wanted {
                epoll.modify(&side.stream, &mut EpollEvent::new(wanted, (index * 2 + number) as u64))?;
                side.wanted = wanted;
            }
        }
        Ok(())
    }
}

impl Side {
    /// Writes once, and keeps what did not go.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        self.waiting.extend_from_slice(&bytes[sent..]);
        Ok(())
    }
}
