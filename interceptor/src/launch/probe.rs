//! The last check before a run's command is executed: from inside the finished run, what must work works, and what
//! must not be had cannot be had, although the prober still has every capability.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use nix::libc;

use super::{filter::Guard, syscalls};
use crate::helper::messages::{PROBE_V4, PROBE_V6, probe_answer};

/// Why a run is not captured as it has to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("a connection to {0} did not reach the proxy")]
    NotRedirected(SocketAddr, #[source] io::Error),
    #[error("a connection to {0} was answered by something that is not the proxy")]
    WrongAnswer(SocketAddr),
    #[error("a connection to {0} shows {1} as its peer")]
    WrongPeer(SocketAddr, SocketAddr),
    #[error("{0} could be had, which is a way around the proxy")]
    SocketHad(&'static str),
    #[error("a datagram to {0} was sent, which is a way around the proxy")]
    DatagramSent(SocketAddr),
    #[error("what the kernel side does about Unix sockets cannot be told")]
    UnixUnclear(#[source] io::Error),
}

const PATIENCE: Duration = Duration::from_secs(5);
/// How long the kernel side may go on refusing because the proxy has not shown lately that it lives, as on a machine that is
/// busy: a little longer than it is believed.
const STALLED: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(50);

/// Tries what has to work.
pub(crate) fn reaches_proxy(run: RunId, v6: bool) -> Result<(), ProbeError> {
    answered(run, PROBE_V4.into())?;
    if v6 { answered(run, PROBE_V6.into()) } else { Ok(()) }
}

fn answered(run: RunId, to: SocketAddr) -> Result<(), ProbeError> {
    let unreached = |error| ProbeError::NotRedirected(to, error);
    let begun = Instant::now();
    let stream = loop {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && begun.elapsed() < STALLED => {
                thread::sleep(AGAIN);
            }
            done => break done.map_err(unreached)?,
        }
    };
    let peer = stream.peer_addr().map_err(unreached)?;
    if peer != to {
        return Err(ProbeError::WrongPeer(to, peer));
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(unreached)?;
    let mut answer = String::new();
    stream.take(64).read_to_string(&mut answer).map_err(unreached)?;
    if answer == probe_answer(run) { Ok(()) } else { Err(ProbeError::WrongAnswer(to)) }
}

/// Whether the kernel side refuses what a run does by itself on Unix sockets, found out by doing what always works without
/// it: connecting to a listener that is there.
pub(crate) fn unix_guard() -> Result<Guard, ProbeError> {
    let tried = || {
        let here = UnixAddr::from_abstract_name("interceptor-probe")?;
        let _listener = UnixListener::bind_addr(&here)?;
        UnixStream::connect_addr(&here)
    };
    match tried() {
        Ok(_) => Ok(Guard::Nothing),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Guard::Hooks),
        Err(error) => Err(ProbeError::UnixUnclear(error)),
    }
}

/// Tries what must fail: every socket that the hooks of the proxy would not see, and datagrams other than DNS.
pub(crate) fn nothing_else(v6: bool) -> Result<(), ProbeError> {
    const SOCKETS: &[(&str, i32, i32, i32)] = &[
        ("an MPTCP socket", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        ("an SCTP socket", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        ("a UDP-Lite socket", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ("a UDP-Lite socket of IPv6", libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ("an ICMP socket", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        ("an ICMPv6 socket", libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        ("a raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        ("a raw socket of IPv6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW),
    ];
    for (name, family, kind, protocol) in SOCKETS {
        if syscalls::try_socket(*family, *kind, *protocol).is_ok() {
            return Err(ProbeError::SocketHad(name));
        }
    }
    let mut destinations = vec![SocketAddr::from(([192, 0, 2, 77], 443))];
    if v6 {
        destinations.push(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 77], 443)));
    }
    let local = |to: &SocketAddr| if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    for to in destinations {
        if UdpSocket::bind(local(&to)).is_ok_and(|socket| socket.send_to(b"probe", to).is_ok()) {
            return Err(ProbeError::DatagramSent(to));
        }
    }
    Ok(())
}
