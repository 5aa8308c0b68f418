//! Asks the kernel which socket is at the other end of an accepted connection.
//!
//! This is the cross-check of a handshake's entry: the answer comes from the socket itself, by sock_diag, over a
//! netlink socket that was opened in the run's network namespace and works there whoever holds it.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    time::TimeVal,
};

use super::KernelError;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const CGROUP_ID: u16 = 21;
const HEADER: usize = 16;
/// `nlmsg_seq`, which an answer has of its question.
const NUMBER: usize = 8;
/// `struct inet_diag_msg`
const ANSWER: usize = 72;
/// How many answers may lie there that nobody took: to questions of a proxy that died, or that came too late.
const MOST_STALE: usize = 256;

/// The number of the next question. A proxy that is started anew has the same socket, and begins elsewhere.
static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one(()) as u32));

/// What the kernel says of the client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSocket {
    /// Its cookie: must be that of the flow.
    pub cookie: u64,
    /// Its owner; 0 also for a socket that nobody owns any more.
    pub uid: u32,
    /// Its cgroup, where the kernel says.
    pub cgroup: Option<u64>,
}

/// Opens a netlink socket in the caller's network namespace, to be used from anywhere.
pub fn open() -> Result<OwnedFd, KernelError> {
    let opened = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    );
    opened.map_err(KernelError::refused("a sock_diag socket"))
}

/// The socket that connected from `client` to `listener`, or none when it is gone.
pub fn client_socket(
    diag: BorrowedFd<'_>,
    client: SocketAddr,
    listener: SocketAddr,
) -> Result<Option<ClientSocket>, KernelError> {
    exchange(diag, client, listener).map_err(KernelError::refused("to say whose socket is connected"))
}

fn exchange(
    diag: BorrowedFd<'_>,
    client: SocketAddr,
    listener: SocketAddr,
) -> io::Result<Option<ClientSocket>> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let Some(request) = request(number, client, listener) else { return Ok(None) };
    setsockopt(&diag.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    send(diag.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 1024];
    for _ in 0..MOST_STALE {
        let length = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        if word(answer, NUMBER).is_none_or(|answered| answered == number) {
            return parse(answer);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "sock_diag answers what nobody asked"))
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(number: u32, client: SocketAddr, listener: SocketAddr) -> Option<Vec<u8>> {
    let (client_ip, listener_ip) = (client.ip().to_canonical(), listener.ip().to_canonical());
    let family = match (client_ip, listener_ip) {
        (IpAddr::V4(_), IpAddr::V4(_)) => libc::AF_INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => libc::AF_INET6,
        _ => return None,
    };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([u8::try_from(family).ok()?, IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(listener.port().to_be_bytes());
    for ip in [client_ip, listener_ip] {
        match ip {
            IpAddr::V4(v4) => {
                bytes.extend(v4.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    // Any interface, any cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    Some(bytes)
}

fn parse(answer: &[u8]) -> io::Result<Option<ClientSocket>> {
    let malformed =
        || io::Error::new(io::ErrorKind::InvalidData, "an answer of sock_diag that cannot be read");
    let kind = half(answer, 4).ok_or_else(malformed)?;
    if kind == NLMSG_ERROR {
        let code = word(answer, HEADER).ok_or_else(malformed)?.cast_signed();
        return match -code {
            libc::ENOENT => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    if kind != SOCK_DIAG_BY_FAMILY {
        return Err(malformed());
    }
    let found = read_socket(answer).ok_or_else(malformed)?;
    Ok(Some(found))
}

fn read_socket(answer: &[u8]) -> Option<ClientSocket> {
    let message = answer.get(HEADER..HEADER + ANSWER)?;
    let cookie = u64::from(word(message, 44)?) | u64::from(word(message, 48)?) << 32;
    let uid = word(message, 64)?;
    let mut attributes = answer.get(HEADER + ANSWER..)?;
    let mut cgroup = None;
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let length = usize::from(length);
        if length < 4 {
            return None;
        }
        if kind == CGROUP_ID {
            cgroup = attributes.get(4..12).and_then(|id| id.try_into().ok()).map(u64::from_ne_bytes);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(ClientSocket { cookie, uid, cgroup })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question that somebody died over is not answered to the next one.
    #[test]
    fn an_answer_is_to_its_own_question() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        let [first, second] = [(), ()].map(|()| std::net::TcpStream::connect(at).expect("own listener"));
        let of = |stream: &std::net::TcpStream| stream.local_addr().expect("connected");
        let cookie =
            |stream: &std::net::TcpStream| socket2::SockRef::from(stream).cookie().expect("a socket");
        let diag = open().expect("sock_diag");
        let unread = request(NEXT.fetch_add(1, Ordering::Relaxed), of(&first), at).expect("a question");
        send(diag.as_raw_fd(), &unread, MsgFlags::empty()).expect("asked");
        for stream in [&second, &first] {
            let found = client_socket(diag.as_fd(), of(stream), at).expect("answered").expect("there");
            assert_eq!(found.cookie, cookie(stream));
        }
    }

    #[test]
    fn cut_answers_are_errors() {
        assert!(parse(&[]).is_err());
        assert!(parse(&[0; 16]).is_err());
        let mut short = [0; 40];
        short[4] = 20;
        assert!(parse(&short).is_err());
    }
}
