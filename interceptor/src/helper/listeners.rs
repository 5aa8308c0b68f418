//! Listeners inside a run's own network namespace, made from outside.
//!
//! A short-lived thread enters the namespace, binds, and ends; the sockets stay in the namespace that they were
//! made in. The helper keeps a copy of each, so that while the proxy restarts nobody in the run can have the ports.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};

use super::messages::Ports;
use crate::launch::syscalls;

/// What a run's proxy serves.
#[derive(Debug)]
pub struct Listeners {
    /// TCP on 127.0.0.1.
    pub tcp4: OwnedFd,
    /// DNS on 127.0.0.1.
    pub dns4: OwnedFd,
    /// `NETLINK_SOCK_DIAG` in the namespace.
    pub diag: OwnedFd,
    /// TCP and DNS on `[::1]`, where the kernel has IPv6.
    pub v6: Option<(OwnedFd, OwnedFd)>,
    /// The kernel's number for the namespace.
    pub cookie: u64,
}

impl Listeners {
    /// Makes them in `namespace`, which must not be this process's own.
    pub fn make(namespace: BorrowedFd<'_>, ports: Ports) -> io::Result<Self> {
        let own = std::fs::File::open("/proc/self/ns/net")?;
        if syscalls::same_file(&own, namespace)? {
            return Err(io::Error::other("the run has no network namespace of its own"));
        }
        let namespace = namespace.try_clone_to_owned()?;
        let made = thread::Builder::new().name("listeners".to_owned()).spawn(move || {
            // Only this thread changes over, and it ends here.
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Self::here(ports)
        })?;
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes listeners ended early")))
    }

    fn here(ports: Ports) -> io::Result<Self> {
        let tcp4 = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.tcp))?;
        let dns4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, ports.dns))?;
        let diag = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        // Whether there is IPv6 shows at the loopback address, and nowhere else for sure.
        let v6 = match UdpSocket::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, ports.dns))) {
            Ok(dns6) => Some((TcpListener::bind((Ipv6Addr::LOCALHOST, ports.tcp))?.into(), dns6.into())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => None,
        };
        let cookie = syscalls::namespace_cookie(tcp4.as_fd())?;
        Ok(Self { tcp4: tcp4.into(), dns4: dns4.into(), diag, v6, cookie })
    }

    /// Copies, in the order of [`ToProxy::Started`](super::messages::ToProxy::Started).
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let mut all = vec![self.tcp4.as_fd(), self.dns4.as_fd(), self.diag.as_fd()];
        if let Some((tcp6, dns6)) = &self.v6 {
            all.extend([tcp6.as_fd(), dns6.as_fd()]);
        }
        all.into_iter().map(|fd| fd.try_clone_to_owned()).collect()
    }

    /// The other side of [`Listeners::copies`], for the proxy; the cookie is of no use there and 0.
    pub fn from_copies(descriptors: Vec<OwnedFd>, v6: bool) -> io::Result<Self> {
        let wrong = || io::Error::other("a run came with the wrong number of listeners");
        let mut left = descriptors.into_iter();
        let mut next = || left.next().ok_or_else(wrong);
        let (tcp4, dns4, diag) = (next()?, next()?, next()?);
        let v6 = if v6 { Some((next()?, next()?)) } else { None };
        if left.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { tcp4, dns4, diag, v6, cookie: 0 })
    }
}
