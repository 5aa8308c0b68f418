//! The porter: who sees to a run's Unix sockets, on the launcher's side, for as long as the run lasts.
//!
//! Who listens behind a path is nothing that a filter or a hook can see. So every bind(2) and connect(2) of a run, and
//! every sendto(2) by name, waits until this has looked at it. What names no Unix socket goes on by itself, since the
//! hooks judge it, and end it if it is another call by then. Of a Unix socket the call is made here, in the caller's place and with the caller's rights: so
//! that it is known which files the run's own sockets are bound to, and so that it is connected to the very file that
//! was looked at. To any other file, nothing of the run is connected.
//!
//! Where there is no socket of the run's own, the path may be a resource's ([`proxied`]): then the caller's socket is connected
//! to the proxy instead, which judges what it does there.
//!
//! Promises: what is read of the caller is read once; a caller that ended meanwhile has nothing done for it; each call
//! is answered, if only by a failure; nobody's call waits for another's. If the launcher is dead, every such call fails.
//! Whoever is connected to from here sees the launcher, which is trusted: that is never anybody outside of the run.
//! Must never know what is sent.

mod call;
mod caller;
mod own;
mod proxied;
mod sockets;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc};
use tokio::sync::Semaphore;

use self::{
    call::{Answer, Asked, Listener, Waiting},
    caller::Caller,
    own::Own,
    proxied::{Door, Led},
    sockets::{Address, Destination, Found},
};
use super::{daemon::Daemon, filter::Guard, syscalls};
use crate::helper::messages::LaunchRequest;

pub(super) use call::install;

/// How many calls on Unix sockets of one run may be under way: one waits for as long as its listener is busy. One more
/// is told to try again.
const AT_ONCE: usize = 64;

/// How many of those that are turned away the daemon hears of in a second.
const TOLD: u32 = 16;

/// One run's porter.
struct Porter {
    guard: Guard,
    /// The run's network namespace: sockets of another one are none of the run's.
    network: File,
    own: Own,
    /// This process's own descriptors, as a folder.
    descriptors: OwnedFd,
    room: Arc<Semaphore>,
    daemon: Arc<Daemon>,
    door: Door,
    told: Mutex<(Instant, u32)>,
}

/// What a call is about, at a glance.
enum Glance {
    /// Unix sockets.
    Unix(Address),
    /// Something else.
    Elsewhere,
}

/// What came of a call.
enum Came {
    /// It is none on a Unix socket: it goes on.
    Elsewhere,
    /// It went as the kernel said.
    Through(i64),
    /// It would have led out of the run, or to a resource that is not served.
    TurnedAway { process: u32, path: Vec<u8> },
}

/// What a name that a caller gave came to.
enum Named {
    /// The call was made, on the run's own.
    Made(i64),
    /// There is none of the run's own: this would be said if nothing else had that name.
    Missing(Missing),
}

/// What there is in the place of a socket of the run's own.
enum Missing {
    /// Nothing that could be connected to.
    Nothing(Errno),
    /// A socket of somebody else's.
    Others,
}

/// A porter at work, for whom there may be more to answer.
pub(super) struct Attendant(Arc<Porter>);

impl Attendant {
    /// Answers the calls that wait at another listener, too: those of one of the run's containers.
    pub(super) fn attend_also(&self, listener: OwnedFd) -> io::Result<()> {
        let (porter, listener) = (Arc::clone(&self.0), Listener::new(listener));
        thread::Builder::new().name("porter".into()).spawn(move || porter.serve(&listener)).map(drop)
    }
}

/// Answers the calls that wait at `listener`, from now on. What `served` is bound to, somebody serves for the run as if it were
/// the run's own.
pub(super) fn attend(
    listener: OwnedFd,
    guard: Guard,
    network: File,
    served: Option<&OwnedFd>,
    daemon: Arc<Daemon>,
) -> io::Result<Attendant> {
    // What acts for the run is not to be looked into by others of the run's user.
    nix::sys::prctl::set_dumpable(false)?;
    let porter = Porter {
        guard,
        network,
        own: Own::default(),
        descriptors: sockets::own_descriptors()?,
        room: Arc::new(Semaphore::new(AT_ONCE)),
        door: Door::at(daemon.folder())?,
        daemon,
        told: Mutex::new((Instant::now(), 0)),
    };
    if let Some(socket) = served {
        porter.own.remember(socket)?;
    }
    let attendant = Attendant(Arc::new(porter));
    attendant.attend_also(listener)?;
    Ok(attendant)
}

impl Porter {
    fn serve(self: &Arc<Self>, listener: &Listener) {
        while let Some(waiting) = listener.next() {
            match self.glance(&waiting) {
                Ok(Glance::Unix(address)) => self.send_to_work(waiting, address),
                Ok(Glance::Elsewhere) => waiting.answer(Answer::GoOn),
                Err(errno) => waiting.answer(Answer::Failed(errno)),
            }
        }
    }

    fn glance(&self, waiting: &Waiting) -> nix::Result<Glance> {
        let address = Address::read(waiting.thread, &waiting.address)?;
        let is_unix = match self.guard {
            // Whatever it has become when it goes on, the hooks let no Unix socket pass.
            Guard::Hooks => address.is_unix(),
            // The address may change, the family of a socket does not. (That the number is another socket's by then, nobody
            // sees on such a kernel.)
            Guard::Nothing => address.is_unix() || socket_of(waiting)?.is_some(),
        };
        Ok(if is_unix { Glance::Unix(address) } else { Glance::Elsewhere })
    }

    fn send_to_work(self: &Arc<Self>, waiting: Waiting, address: Address) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return waiting.answer(Answer::Failed(Errno::EAGAIN));
        };
        let porter = Arc::clone(self);
        // Where no thread can be had, the call fails as it is dropped.
        let _ = thread::Builder::new().spawn(move || {
            porter.carry_out(waiting, &address);
            drop(permit);
        });
    }

    fn carry_out(&self, waiting: Waiting, address: &Address) {
        match self.tried(&waiting, address) {
            Ok(Came::Elsewhere) => waiting.answer(Answer::GoOn),
            Ok(Came::Through(value)) => waiting.answer(Answer::Done(value)),
            Ok(Came::TurnedAway { process, path }) => {
                // As where nobody listens.
                waiting.answer(Answer::Failed(Errno::ECONNREFUSED));
                self.tell(process, &path);
            }
            Err(errno) => waiting.answer(Answer::Failed(errno)),
        }
    }

    fn tried(&self, waiting: &Waiting, address: &Address) -> nix::Result<Came> {
        let Some(socket) = socket_of(waiting)? else { return Ok(Came::Elsewhere) };
        let caller = Caller::look(waiting.thread)?;
        let data = match &waiting.asked {
            Asked::Send { data, .. } => sockets::datagram(waiting.thread, data)?,
            Asked::Bind | Asked::Connect => Vec::new(),
        };
        // Whatever was read so far was the caller's, if that one waits still.
        waiting.check()?;
        if !sockets::is_of(&socket, &self.network)? {
            return Err(Errno::EPERM);
        }
        if let Asked::Bind = waiting.asked {
            return self.bound(&caller, &socket, address);
        }
        let named = caller.perform(|| {
            let destination = match self.destination(address)? {
                Ok(destination) => destination,
                Err(missing) => return Ok(Named::Missing(missing)),
            };
            Ok(Named::Made(match waiting.asked {
                Asked::Send { flags, .. } => sockets::send(&socket, &data, flags, &destination.address)?,
                Asked::Bind | Asked::Connect => sockets::connect(&socket, &destination.address)?,
            }))
        })?;
        let missing = match named {
            Named::Made(value) => return Ok(Came::Through(value)),
            Named::Missing(missing) => missing,
        };
        let path = address.path().unwrap_or_default();
        let led = match waiting.asked {
            Asked::Connect => self.door.leads(&self.daemon, waiting, (&caller, &socket), path)?,
            Asked::Bind | Asked::Send { .. } => Led::Nowhere,
        };
        match (led, missing) {
            (Led::Through, _) => Ok(Came::Through(0)),
            (Led::Nowhere, Missing::Nothing(errno)) => Err(errno),
            (Led::Nowhere, Missing::Others) | (Led::Unserved, _) => {
                Ok(Came::TurnedAway { process: caller.process, path: path.to_vec() })
            }
        }
    }

    fn bound(&self, caller: &Caller, socket: &OwnedFd, address: &Address) -> nix::Result<Came> {
        let named = address.path().is_some();
        if named {
            self.own.make_room()?;
        }
        caller.perform(|| sockets::bind(socket, address))?;
        if named {
            self.own.remember(socket)?;
        }
        Ok(Came::Through(0))
    }

    /// Where the calling thread, which stands where the caller does, is to connect; what there is instead, where that is not
    /// the run's.
    fn destination(&self, address: &Address) -> nix::Result<Result<Destination, Missing>> {
        let Some(path) = address.path() else {
            // A name in the run's own network, or none.
            return Ok(Ok(Destination::named(address.clone())));
        };
        let file = match sockets::look_up(path)? {
            Found::Socket(file) => file,
            Found::Nothing(errno) => return Ok(Err(Missing::Nothing(errno))),
        };
        if !self.own.has(&file)? {
            return Ok(Err(Missing::Others));
        }
        Destination::file(file, &self.descriptors).map(Ok)
    }

    fn tell(&self, process: u32, path: &[u8]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.elapsed() > Duration::from_secs(1) {
            *told = (Instant::now(), 0);
        }
        told.1 += 1;
        if told.1 <= TOLD {
            let path = String::from_utf8_lossy(path).into_owned();
            // A daemon that is gone records nothing; it is refused all the same.
            let _ = self.daemon.tell(&LaunchRequest::TurnedAway { process, path }, &[]);
        }
    }
}

/// The caller's socket, if it is one of the Unix family.
fn socket_of(waiting: &Waiting) -> nix::Result<Option<OwnedFd>> {
    let process = caller::handle(waiting.thread)?;
    let socket = number(syscalls::pidfd_descriptor(process.as_fd(), waiting.socket))?;
    let (family, ..) = number(syscalls::socket_kind(socket.as_fd()))?;
    Ok((family == libc::AF_UNIX).then_some(socket))
}

/// The number of an error, for the caller.
fn number<T>(result: io::Result<T>) -> nix::Result<T> {
    result.map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}
