//! The process that holds listeners while no daemon lives, on a host without a service manager that would; and how a helper
//! starts it, speaks to it, and has back what an earlier one gave it.
//!
//! Promises: it outlives the helper; only root can reach it, at a socket that the helper made; it has no privilege and a filter
//! that leaves it with accepting at that socket, hearing and answering who is there, and closing: it cannot use what it holds.
//! Each helper starts one of its own and ends the one before, by the cgroup that it is in, whatever that one does. What it says is
//! not believed: [`Marks`](super::marks::Marks) tells what comes back.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
            sockopt::{PeerCredentials, ReceiveTimeout, SendTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    super::{Foreign, cgroup::Tree, ground, roles},
    Become, GOING,
};
use crate::{
    channel::{Channel, ChannelError},
    launch::{filter::Filter, syscalls},
    places::Places,
};

/// How long it may take to take in, or to say, one thing.
const PATIENCE_SECONDS: i64 = 2;
/// How long it may take to give everything back.
const ALL: Duration = Duration::from_secs(5);

/// From a helper to the process that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum ToHolder {
    /// Hold these, in place of what there may be of that run.
    Hold {
        /// Whose they are.
        run: RunId,
    },
    /// Hold nothing of that run any more.
    LetGo {
        /// Which.
        run: RunId,
    },
    /// Send a copy of everything: [`FromHolder::Held`] for each run, then [`FromHolder::Done`].
    GiveBack,
}

/// From the process that holds to a helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum FromHolder {
    /// What is held of a run. Carries it.
    Held {
        /// Whose it is.
        run: RunId,
    },
    /// That was all.
    Done,
}

type ToOne = Channel<ToHolder, FromHolder>;

/// One that this helper started.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    channel: ToOne,
    path: PathBuf,
}

impl Holder {
    /// Starts one, in the place of any that there may be.
    pub(super) fn start(places: &Places, tree: &Tree, as_what: &Become) -> Result<Self, Foreign> {
        tree.end_holder(GOING)?;
        let path = places.holder_socket();
        let listener = ground::listener(&path)?;
        let entry = tree.make_holder()?;
        let child = roles::start_lasting(&as_what.arguments, as_what.account, listener.as_fd(), entry)?;
        // It need not have come to accepting: what is said waits for it.
        match reach(&path) {
            Ok(Some(channel)) => Ok(Self { child, channel, path }),
            failed => {
                roles::end(child);
                Err(failed.err().unwrap_or_else(|| "it ended at once".into()))
            }
        }
    }

    /// Whether it lives.
    pub(super) fn is_there(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn hold(&self, run: RunId, sockets: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.channel.send(&ToHolder::Hold { run }, sockets)
    }

    pub(super) fn let_go(&self, run: RunId) -> Result<(), ChannelError> {
        self.channel.send(&ToHolder::LetGo { run }, &[])
    }

    /// Ends it, and with it everything that it alone holds.
    pub(super) fn end(self) {
        roles::end(self.child);
        // What cannot be removed now is when the next one is made.
        let _ = ground::remove_socket(&self.path);
    }
}

/// What an earlier helper gave to one. It still holds that.
pub(super) fn take_back(places: &Places) -> Result<BTreeMap<RunId, Vec<OwnedFd>>, Foreign> {
    let mut found = BTreeMap::new();
    let Some(channel) = reach(&places.holder_socket())? else { return Ok(found) };
    let begun = Instant::now();
    channel.send(&ToHolder::GiveBack, &[])?;
    while begun.elapsed() < ALL {
        match channel.receive()? {
            (FromHolder::Held { run }, sockets) => {
                if found.insert(run, sockets).is_some() {
                    return Err(format!("it gave back what it holds of {run} twice").into());
                }
            }
            (FromHolder::Done, _) => return Ok(found),
        }
    }
    Err("it does not come to an end".into())
}

/// A channel to who accepts at `path`, if anybody does.
fn reach(path: &Path) -> Result<Option<ToOne>, Foreign> {
    let reached = (|| -> Result<OwnedFd, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(socket)
    })();
    let socket = match reached {
        Ok(socket) => socket,
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // Who made it listen: an earlier helper, and nobody who came by the name.
    if getsockopt(&socket, PeerCredentials)?.uid() != 0 {
        return Err(format!("{} was not made by root", path.display()).into());
    }
    Ok(Some(Channel::from_socket(socket)))
}

/// What `main` of this process is: holds until nothing is to be held, and nobody is there who could say so.
pub fn hold() -> io::Result<()> {
    let listener = UnixListener::from(syscalls::take_standard_input()?);
    listener.set_nonblocking(false)?;
    let listener = OwnedFd::from(listener);
    // The lowest number that is free: each connection will have it, one after the other, and nothing that is held ever does.
    let spoken_on = listener.try_clone()?.as_raw_fd();
    Filter::of_holder(listener.as_fd(), spoken_on)?.install()?;
    let mut held = BTreeMap::new();
    loop {
        let helper = syscalls::accept(listener.as_fd())?;
        if getsockopt(&helper, PeerCredentials)?.uid() == 0 {
            serve(&Channel::from_socket(helper), &mut held);
        }
        if held.is_empty() {
            return Ok(());
        }
    }
}

/// Until the helper is gone, or says what no helper says.
fn serve(helper: &Channel<FromHolder, ToHolder>, held: &mut BTreeMap<RunId, Vec<OwnedFd>>) {
    while let Ok((message, sockets)) = helper.receive() {
        match message {
            ToHolder::Hold { run } => drop(held.insert(run, sockets)),
            ToHolder::LetGo { run } => drop(held.remove(&run)),
            ToHolder::GiveBack => {
                if give_back(helper, held).is_err() {
                    return;
                }
            }
        }
    }
}

fn give_back(
    helper: &Channel<FromHolder, ToHolder>,
    held: &BTreeMap<RunId, Vec<OwnedFd>>,
) -> Result<(), ChannelError> {
    for (run, sockets) in held {
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        helper.send(&FromHolder::Held { run: *run }, &sockets)?;
    }
    helper.send(&FromHolder::Done, &[])
}
