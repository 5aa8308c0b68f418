//! What is noted of a run's listeners when they are given away, and the checks of what comes back.
//!
//! The kernel gives each socket a number that no other socket has until the next boot (`SO_COOKIE`). The note has those, in
//! a folder that is root's, so that whoever held the sockets has no say in which they are. What the number says is not all that is
//! asked: kind, address, state and network namespace are looked at, too.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use interceptor_core::model::RunId;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Type};

use super::super::{
    described,
    listeners::{Listeners, cpus},
    messages::Ports,
};
use crate::{launch::syscalls, places::Places};

/// Why what was held of a run is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// Nothing came back.
    #[error("nobody holds any")]
    Nobody,
    /// It cannot be told from anything else.
    #[error("something came back, and nothing was noted of it")]
    Unnoted,
    /// The CPUs that connections are served on are others now.
    #[error("they are for other CPUs than those that this daemon serves on")]
    Cpus,
    /// One that was given away did not come back.
    #[error("{0} did not come back")]
    Missing(Expected),
    /// One is not what it was.
    #[error("{0} {1}")]
    Not(Expected, &'static str),
    /// One cannot be looked at.
    #[error("{0} cannot be looked at")]
    Look(Expected, #[source] io::Error),
    /// More came back than was given away.
    #[error("{0} descriptors came with them that nobody gave away")]
    Strangers(usize),
    /// What asks the kernel about them cannot be had.
    #[error("the network namespace that they are in cannot be entered")]
    Enter(#[source] io::Error),
}

impl Unfit {
    /// Whether it is as after a crash of whoever held, and not as if somebody had tried something.
    pub(crate) fn is_innocent(&self) -> bool {
        matches!(self, Self::Nobody | Self::Cpus)
    }
}

/// What a socket serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Connections.
    Tcp,
    /// Questions for names.
    Dns,
}

/// What a socket must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    service: Service,
    address: SocketAddr,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = match self.service {
            Service::Tcp => "TCP",
            Service::Dns => "DNS",
        };
        write!(f, "the listener for {service} at {}", self.address)
    }
}

impl Expected {
    /// Both kinds on an address of loopback, TCP first.
    fn both(ip: impl Into<std::net::IpAddr>, ports: Ports) -> (Self, Self) {
        let ip = ip.into();
        let of = |service, port| Self { service, address: (ip, port).into() };
        (of(Service::Tcp, ports.tcp), of(Service::Dns, ports.dns))
    }

    fn check(self, socket: BorrowedFd<'_>, noted: &Marks, namespace: BorrowedFd<'_>) -> Result<(), Unfit> {
        let facts = Facts::of(socket, namespace).map_err(|error| Unfit::Look(self, error))?;
        let is_listening = self.service == Service::Tcp;
        let why = if !facts.is_kind(self) {
            "is a socket of another kind"
        } else if facts.address != Some(self.address) {
            "has another address"
        } else if facts.is_listening != is_listening || facts.is_connected {
            "is in another state"
        } else if facts.cookie != noted.namespace || !facts.is_in_namespace {
            "is in another network namespace than the run"
        } else {
            return Ok(());
        };
        Err(Unfit::Not(self, why))
    }
}

/// What the kernel says of a socket.
struct Facts {
    kind: (Domain, Type, Option<Protocol>),
    address: Option<SocketAddr>,
    is_listening: bool,
    is_connected: bool,
    cookie: u64,
    is_in_namespace: bool,
}

impl Facts {
    fn of(socket: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let asked = SockRef::from(&socket);
        Ok(Self {
            kind: (asked.domain()?, asked.r#type()?, asked.protocol()?),
            address: asked.local_addr()?.as_socket(),
            is_listening: asked.is_listener()?,
            is_connected: asked.peer_addr().is_ok(),
            cookie: syscalls::namespace_cookie(socket)?,
            is_in_namespace: syscalls::same_file(syscalls::network_of(socket)?, namespace)?,
        })
    }

    fn is_kind(&self, expected: Expected) -> bool {
        let (kind, protocol) = match expected.service {
            Service::Tcp => (Type::STREAM, Protocol::TCP),
            Service::Dns => (Type::DGRAM, Protocol::UDP),
        };
        self.kind == (Domain::for_address(expected.address), kind, Some(protocol))
    }
}

/// The kernel's numbers of a run's sockets and of the network namespace that they are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marks {
    namespace: u64,
    tcp4: Vec<u64>,
    dns4: u64,
    v6: Option<(Vec<u64>, u64)>,
}

impl Marks {
    /// Those of sockets that were just made, or taken over.
    pub(super) fn of(listeners: &Listeners) -> io::Result<Self> {
        let mark = |socket: &OwnedFd| SockRef::from(socket).cookie();
        let marks = |sockets: &[OwnedFd]| sockets.iter().map(mark).collect::<io::Result<Vec<_>>>();
        let v6 = match &listeners.v6 {
            Some((tcp6, dns6)) => Some((marks(tcp6)?, mark(dns6)?)),
            None => None,
        };
        Ok(Self {
            namespace: listeners.cookie,
            tcp4: marks(&listeners.tcp4)?,
            dns4: mark(&listeners.dns4)?,
            v6,
        })
    }

    /// Notes them.
    pub(super) fn write(&self, places: &Places, run: RunId) -> io::Result<()> {
        described::write_whole(&places.marks(run), &serde_json::to_vec(self)?)
    }

    /// What was noted of a run.
    pub(super) fn find(places: &Places, run: RunId) -> Option<Self> {
        serde_json::from_slice(&fs::read(places.marks(run)).ok()?).ok()
    }

    /// Whether a socket is in the network namespace that was noted.
    pub(super) fn is_of_namespace(&self, socket: BorrowedFd<'_>) -> bool {
        syscalls::namespace_cookie(socket).is_ok_and(|cookie| cookie == self.namespace)
    }

    /// The listeners that were noted, if `sockets` are these, all of them, and nothing else.
    pub(super) fn recognise(
        &self,
        sockets: Vec<OwnedFd>,
        ports: Ports,
        namespace: BorrowedFd<'_>,
    ) -> Result<Listeners, Unfit> {
        // One and the same, twice, is one. What is no socket has no number, and is none of them.
        let (mut left, mut strangers) = (BTreeMap::new(), 0);
        for socket in sockets {
            match SockRef::from(&socket).cookie() {
                Ok(mark) => drop(left.insert(mark, socket)),
                Err(_) => strangers += 1,
            }
        }
        let mut tell = |mark: u64, expected: Expected| {
            let socket = left.remove(&mark).ok_or(Unfit::Missing(expected))?;
            expected.check(socket.as_fd(), self, namespace).map(|()| socket)
        };
        let (tcp, dns) = Expected::both(Ipv4Addr::LOCALHOST, ports);
        let dns4 = tell(self.dns4, dns)?;
        let tcp4 = self.tcp4.iter().map(|mark| tell(*mark, tcp)).collect::<Result<Vec<_>, _>>()?;
        let v6 = match &self.v6 {
            Some((tcp6, dns6)) => {
                let (tcp, dns) = Expected::both(Ipv6Addr::LOCALHOST, ports);
                let tcp6 = tcp6.iter().map(|mark| tell(*mark, tcp)).collect::<Result<Vec<_>, _>>()?;
                Some((tcp6, tell(*dns6, dns)?))
            }
            None => None,
        };
        strangers += left.len();
        if strangers > 0 {
            return Err(Unfit::Strangers(strangers));
        }
        for each in [Some(&tcp4), v6.as_ref().map(|(tcp6, _)| tcp6)].into_iter().flatten() {
            check_cpus(each)?;
        }
        Listeners::around(namespace, tcp4, dns4, v6).map_err(Unfit::Enter)
    }
}

/// Whether there is one listener for each CPU that is served on.
fn check_cpus(listeners: &[OwnedFd]) -> Result<(), Unfit> {
    let own = listeners.iter().map(|socket| SockRef::from(socket).cpu_affinity());
    let mut own = own.collect::<io::Result<Vec<_>>>().map_err(|_| Unfit::Cpus)?;
    own.sort_unstable();
    if cpus().is_ok_and(|cpus| cpus == own) { Ok(()) } else { Err(Unfit::Cpus) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Listeners in this process's network, with what was noted of them.
    struct Stage {
        namespace: File,
        ports: Ports,
        listeners: Listeners,
        marks: Marks,
    }

    impl Stage {
        fn set() -> Self {
            let namespace = File::open("/proc/self/ns/net").expect("a namespace");
            let (ports, listeners) = Listeners::make_shared(namespace.as_fd()).expect("free ports");
            let marks = Marks::of(&listeners).expect("numbers");
            Self { namespace, ports, listeners, marks }
        }

        fn held(&self) -> Vec<OwnedFd> {
            let copies = self.listeners.serving().into_iter().map(|socket| socket.try_clone_to_owned());
            copies.collect::<io::Result<_>>().expect("copies")
        }

        fn why(&self, marks: &Marks, held: Vec<OwnedFd>) -> String {
            marks.recognise(held, self.ports, self.namespace.as_fd()).expect_err("refused").to_string()
        }

        /// Why a socket is refused that was noted, and is not what a listener for names is.
        fn why_not_dns(&self, socket: impl Into<OwnedFd>) -> String {
            let socket = socket.into();
            let marks = Marks { dns4: mark(&socket), ..self.marks.clone() };
            let others = self.held().into_iter().filter(|other| mark(other) != self.marks.dns4);
            self.why(&marks, others.chain([socket]).collect())
        }
    }

    fn mark(socket: &OwnedFd) -> u64 {
        SockRef::from(socket).cookie().expect("a number")
    }

    #[test]
    fn what_was_noted_is_recognised_and_is_the_same() {
        let stage = Stage::set();
        // In whatever order, and twice.
        let held = stage.held().into_iter().rev().chain(stage.held()).collect();
        let again =
            stage.marks.recognise(held, stage.ports, stage.namespace.as_fd()).expect("they are these");
        assert_eq!(Marks::of(&again).expect("numbers"), stage.marks);
        assert_eq!(again.cookie, stage.listeners.cookie);
    }

    #[test]
    fn what_is_missing_or_was_never_noted_is_refused() {
        let stage = Stage::set();
        let mut held = stage.held();
        drop(held.pop());
        assert!(stage.why(&stage.marks, held).contains("did not come back"));
        assert!(stage.why(&stage.marks, Vec::new()).contains("did not come back"));
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for stranger in [OwnedFd::from(stranger), File::open("/dev/null").expect("a file").into()] {
            let held = stage.held().into_iter().chain([stranger]).collect();
            assert!(stage.why(&stage.marks, held).contains("1 descriptors came with them"));
        }
        // One of the same kind and address, in the place of one of ours.
        let other = Stage::set();
        assert!(stage.why(&stage.marks, other.held()).contains("did not come back"));
    }

    #[test]
    fn what_is_not_what_it_was_is_refused_whatever_its_number() {
        let stage = Stage::set();
        let any = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
        assert!(
            stage.why_not_dns(TcpListener::bind("127.0.0.1:0").expect("a socket")).contains("another kind")
        );
        assert!(stage.why_not_dns(UdpSocket::bind("[::1]:0").expect("a socket")).contains("another kind"));
        assert!(stage.why_not_dns(any()).contains("another address"));
        // The very one, but led to somebody.
        let peer = any();
        let own = stage.listeners.dns4.try_clone().expect("a copy");
        UdpSocket::from(own).connect(peer.local_addr().expect("bound")).expect("connected");
        assert!(stage.why(&stage.marks, stage.held()).contains("another state"));
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let stage = Stage::set();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, stage.ports.tcp).into();
        let first = *stage.marks.tcp4.first().expect("a CPU");
        let others = stage.held().into_iter().filter(|other| mark(other) != first);
        let bound = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bound.set_reuse_port(true).expect("root may");
        bound.bind(&address.into()).expect("root may");
        let bound = OwnedFd::from(bound);
        let tcp4 = [mark(&bound)].into_iter().chain(stage.marks.tcp4.iter().skip(1).copied()).collect();
        let marks = Marks { tcp4, ..stage.marks.clone() };
        assert!(stage.why(&marks, others.chain([bound]).collect()).contains("another state"));
        assert!(TcpStream::connect(address).is_ok(), "the true ones listen");
    }

    #[test]
    fn what_is_in_another_network_is_refused() {
        let stage = Stage::set();
        let elsewhere = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace: are you root?");
            File::open("/proc/thread-self/ns/net").expect("a namespace")
        });
        let elsewhere = elsewhere.join().expect("it does not panic");
        let refused = stage.marks.recognise(stage.held(), stage.ports, elsewhere.as_fd());
        assert!(refused.expect_err("refused").to_string().contains("another network namespace"));
        let marks = Marks { namespace: stage.marks.namespace + 1, ..stage.marks.clone() };
        assert!(stage.why(&marks, stage.held()).contains("another network namespace"));
    }

    #[test]
    fn what_is_for_other_cpus_is_made_anew() {
        let stage = Stage::set();
        let mut marks = stage.marks.clone();
        let first = marks.tcp4.remove(0);
        let held = stage.held().into_iter().filter(|socket| mark(socket) != first).collect();
        let refused = marks.recognise(held, stage.ports, stage.namespace.as_fd()).expect_err("refused");
        assert!(matches!(refused, Unfit::Cpus) && refused.is_innocent());
    }
}
