//! Listeners inside a run's own network namespace, made from outside.
//!
//! A short-lived thread enters the namespace, binds, and ends; the sockets stay in the namespace that they were
//! made in. The helper keeps a copy of each, so that while the proxy restarts nobody in the run can have the ports, and has
//! others [hold](super::held) one, so that nobody can while it restarts itself.
//!
//! There is a TCP listener for each CPU, all on one port: the kernel gives a connection to that of the CPU where it
//! was made (Linux 6.2; older kernels give it to any), so that it is served there.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, setns},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

use super::messages::Ports;
use crate::{channel::MAX_DESCRIPTORS, launch::syscalls};

/// How many CPUs have a listener of their own: with both families, they go into one message with the others.
const MOST_CPUS: usize = (MAX_DESCRIPTORS - 3) / 2;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The CPUs that connections are served on, of those that this process may use.
pub fn cpus() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(is_allowed).take(MOST_CPUS).collect())
}

/// What a run's proxy serves.
#[derive(Debug)]
pub struct Listeners {
    /// TCP on 127.0.0.1, one for each of [`cpus`].
    pub tcp4: Vec<OwnedFd>,
    /// DNS on 127.0.0.1.
    pub dns4: OwnedFd,
    /// `NETLINK_SOCK_DIAG` in the namespace.
    pub diag: OwnedFd,
    /// TCP and DNS on `[::1]`, where the kernel has IPv6.
    pub v6: Option<(Vec<OwnedFd>, OwnedFd)>,
    /// `NETLINK_NETFILTER` in the namespace, for the run's belt; nothing where the kernel has none, and never the proxy's.
    pub netfilter: Option<OwnedFd>,
    /// The kernel's number for the namespace.
    pub cookie: u64,
}

impl Listeners {
    /// Makes them in `namespace`, which must not be this process's own: a run's.
    pub fn make(namespace: BorrowedFd<'_>, ports: Ports) -> io::Result<Self> {
        let own = std::fs::File::open("/proc/self/ns/net")?;
        if syscalls::same_file(&own, namespace)? {
            return Err(io::Error::other("the run has no network namespace of its own"));
        }
        Self::make_in(namespace, ports)
    }

    /// The same for a run that was served before: at other ports, where somebody still holds those.
    pub fn make_again(namespace: BorrowedFd<'_>, ports: Ports) -> io::Result<(Ports, Self)> {
        match Self::make(namespace, ports) {
            Ok(made) => Ok((ports, made)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Self::make_shared(namespace),
            Err(error) => Err(error),
        }
    }

    /// Makes them in a namespace that others use, too, at the first ports that are free there.
    pub fn make_shared(namespace: BorrowedFd<'_>) -> io::Result<(Ports, Self)> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for ports in Ports::shared() {
            match Self::make_in(namespace, ports) {
                Ok(made) => return Ok((ports, made)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Makes them in `namespace` at `ports`, whoever else is there.
    fn make_in(namespace: BorrowedFd<'_>, ports: Ports) -> io::Result<Self> {
        within(namespace, move || Self::here(ports))
    }

    /// Around listeners that there are. What asks the kernel about them is made anew, in `namespace`, which they are in: in an
    /// old one there may be an answer that nobody took.
    pub(super) fn around(
        namespace: BorrowedFd<'_>,
        tcp4: Vec<OwnedFd>,
        dns4: OwnedFd,
        v6: Option<(Vec<OwnedFd>, OwnedFd)>,
    ) -> io::Result<Self> {
        let cookie = syscalls::namespace_cookie(dns4.as_fd())?;
        let (diag, netfilter) = within(namespace, asking)?;
        Ok(Self { tcp4, dns4, diag, v6, netfilter, cookie })
    }

    fn here(ports: Ports) -> io::Result<Self> {
        let tcp4 = one_for_each_cpu((Ipv4Addr::LOCALHOST, ports.tcp).into())?;
        let dns4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, ports.dns))?;
        let (diag, netfilter) = asking()?;
        // Whether there is IPv6 shows at the loopback address, and nowhere else for sure.
        let v6 = match UdpSocket::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, ports.dns))) {
            Ok(dns6) => Some((one_for_each_cpu((Ipv6Addr::LOCALHOST, ports.tcp).into())?, dns6.into())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => None,
        };
        let cookie = syscalls::namespace_cookie(dns4.as_fd())?;
        Ok(Self { tcp4, dns4: dns4.into(), diag, v6, netfilter, cookie })
    }

    /// Those that the run dials, and no others.
    pub(super) fn serving(&self) -> Vec<BorrowedFd<'_>> {
        let (tcp6, dns6) = self.v6.as_ref().map_or((&[][..], None), |(tcp6, dns6)| (tcp6, Some(dns6)));
        let all = self.tcp4.iter().chain([&self.dns4]).chain(tcp6).chain(dns6);
        all.map(AsFd::as_fd).collect()
    }

    /// Copies, in the order of [`ToProxy::Started`](super::messages::ToProxy::Started).
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let mut all = vec![&self.dns4, &self.diag];
        if let Some((_, dns6)) = &self.v6 {
            all.push(dns6);
        }
        all.extend(&self.tcp4);
        all.extend(self.v6.iter().flat_map(|(tcp6, _)| tcp6));
        all.into_iter().map(OwnedFd::try_clone).collect()
    }

    /// The other side of [`Listeners::copies`], for the proxy; the cookie is of no use there and 0.
    pub fn from_copies(descriptors: Vec<OwnedFd>, v6: bool) -> io::Result<Self> {
        let wrong = || io::Error::other("a run came with the wrong number of listeners");
        let mut left = descriptors.into_iter();
        let mut next = || left.next().ok_or_else(wrong);
        let (dns4, diag) = (next()?, next()?);
        let dns6 = if v6 { Some(next()?) } else { None };
        let mut tcp4: Vec<_> = left.collect();
        let v6 = dns6.map(|dns6| (tcp4.split_off(tcp4.len() / 2), dns6));
        let even = v6.as_ref().is_none_or(|(tcp6, _)| tcp6.len() == tcp4.len());
        if tcp4.is_empty() || !even {
            return Err(wrong());
        }
        Ok(Self { tcp4, dns4, diag, v6, netfilter: None, cookie: 0 })
    }
}

/// What is made in another network namespace.
fn within<T: Send + 'static>(
    namespace: BorrowedFd<'_>,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.try_clone_to_owned()?;
    let made = thread::Builder::new().name("listeners".to_owned()).spawn(move || {
        // Only this thread changes over, and it ends here.
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        make()
    })?;
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes listeners ended early")))
}

/// What asks the kernel about a network namespace: its socket tables and, where it has one, its netfilter.
fn asking() -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let netlink = |protocol| socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let diag = netlink(SockProtocol::NetlinkSockDiag)?;
    Ok((diag, netlink(SockProtocol::NetlinkNetFilter).ok()))
}

fn one_for_each_cpu(address: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    cpus()?.into_iter().map(|cpu| listener(address, cpu)).collect()
}

/// The kernel lets nobody else join but root: sockets on one port must be of one user, and captured processes cannot bind the
/// ports of their run's listeners at all.
fn listener(address: SocketAddr, cpu: usize) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_cpu_affinity(cpu)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
