//! The captured process: this test's own binary, started again with a script.

use std::{
    io::{self, Read, Write},
    mem::size_of_val,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    time::Duration,
};

/// The number of the descriptor that is passed to an actor: one that no test has, as those of one program run beside each other.
pub const PASSED: RawFd = 900;
/// The variable that holds the script.
pub const SCRIPT: &str = "KERNEL_ACTOR_SCRIPT";
/// What precedes the answer.
pub const ANSWER: &str = "actor: ";

/// Plays the script if there is one.
pub fn play() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    let words: Vec<&str> = script.split(' ').collect();
    let answer = perform(&words).unwrap_or_else(|error| {
        format!("error {}", error.raw_os_error().map_or_else(|| error.to_string(), |code| code.to_string()))
    });
    eprintln!("\n{ANSWER}{answer}");
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn number(text: &str) -> i32 {
    text.parse().expect("a number")
}

fn perform(words: &[&str]) -> io::Result<String> {
    match words {
        ["connect", to] => connect(&address(to)),
        ["upload", to, megabytes] => upload(&address(to), number(megabytes)),
        ["fastopen", to] => fast_open(&address(to)),
        ["ask", to] => ask(&address(to), false),
        ["ask-connected", to] => ask(&address(to), true),
        ["ask-unspecified", to] => ask_unspecified(&address(to)),
        ["ask-by-device", to, device] => ask_by_device(&address(to), device),
        ["socket", family, kind, protocol] => {
            socket(number(family), number(kind), number(protocol)).map(|_| "ok".into())
        }
        ["option", family, kind, level, name, value] => {
            option(number(family), number(kind), number(level), number(name), value)
        }
        ["bind", to] => TcpListener::bind(address(to)).map(|_| "ok".into()),
        ["bind-udp", to] => UdpSocket::bind(address(to)).map(|_| "ok".into()),
        ["own-listener", at] => own_listener(&address(at)),
        ["own-udp", at] => own_udp(&address(at)),
        ["try-until-had", family, kind, protocol] => loop {
            if socket(number(family), number(kind), number(protocol)).is_ok() {
                return Ok("had".into());
            }
        },
        ["connect-from-elsewhere", to] => {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            connect(&address(to))
        }
        ["unix", path] => UnixStream::connect(path).map(|_| "ok".into()),
        ["unix-datagram", path] => UnixDatagram::unbound()?.send_to(b"x", path).map(|_| "ok".into()),
        ["passed", to] => passed(&address(to)),
        ["ring-connect", to] => super::uring::connect(&address(to)),
        _ => super::reach::perform(words),
    }
}

fn connect(to: &SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(to, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let peer = stream.peer_addr()?;
    stream.write_all(b"hello")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(format!("{peer} {reply}"))
}

fn upload(to: &SocketAddr, megabytes: i32) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(to, Duration::from_secs(3))?;
    let part = vec![b'u'; 1 << 20];
    for _ in 0..megabytes {
        stream.write_all(&part)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// A socket of any kind.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is ours.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// What a system call gave, or why it failed.
pub fn check(result: isize) -> io::Result<isize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An IPv4 address as the kernel wants it, with a family of one's choice.
pub fn sockaddr_v4(to: &SocketAddr, family: i32) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = to else { panic!("an IPv4 address") };
    libc::sockaddr_in {
        sin_family: family as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn fast_open(to: &SocketAddr) -> io::Result<String> {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let to = sockaddr_v4(to, libc::AF_INET);
    // SAFETY: pointers and lengths fit.
    check(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            b"hello".as_ptr().cast(),
            5,
            libc::MSG_FASTOPEN,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    })?;
    let mut stream = TcpStream::from(fd);
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(format!("{} {reply}", stream.peer_addr()?))
}

fn ask(to: &SocketAddr, connected: bool) -> io::Result<String> {
    let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reply = [0; 64];
    let (length, from) = if connected {
        socket.connect(to)?;
        socket.send(b"question")?;
        (socket.recv(&mut reply)?, socket.peer_addr()?)
    } else {
        socket.send_to(b"question", to)?;
        socket.recv_from(&mut reply)?
    };
    Ok(format!("{from} {}", String::from_utf8_lossy(&reply[..length])))
}

fn ask_unspecified(to: &SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let to = sockaddr_v4(to, libc::AF_UNSPEC);
    // SAFETY: pointers and lengths fit.
    check(unsafe {
        let to_pointer = (&raw const to).cast();
        libc::sendto(
            socket.as_raw_fd(),
            b"question".as_ptr().cast(),
            8,
            0,
            to_pointer,
            size_of_val(&to) as u32,
        )
    })?;
    Ok("sent".into())
}

fn ask_by_device(to: &SocketAddr, device: &str) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut to = sockaddr_v4(to, libc::AF_INET);
    let device = std::ffi::CString::new(device).expect("a name");
    let mut control = [0_u64; 8];
    let mut part = libc::iovec { iov_base: b"question".as_ptr().cast_mut().cast(), iov_len: 8 };
    // SAFETY: a message of one part with one control message, all of it alive through the call.
    check(unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut to).cast();
        message.msg_namelen = size_of_val(&to) as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(12) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::IPPROTO_IP;
        (*header).cmsg_type = libc::IP_PKTINFO;
        (*header).cmsg_len = libc::CMSG_LEN(12) as usize;
        let info = libc::in_pktinfo {
            ipi_ifindex: libc::if_nametoindex(device.as_ptr()) as i32,
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    })?;
    Ok("sent".into())
}

fn option(family: i32, kind: i32, level: i32, name: i32, value: &str) -> io::Result<String> {
    let fd = socket(family, kind, 0)?;
    let value = value.as_bytes();
    // SAFETY: the value is as long as said.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as u32) as isize
    })?;
    Ok("ok".into())
}

fn own_listener(at: &SocketAddr) -> io::Result<String> {
    let listener = TcpListener::bind(at)?;
    let mut to = listener.local_addr()?;
    if to.ip().is_unspecified() {
        // A listener on `::` serves IPv4 too.
        to.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let server = std::thread::spawn(move || -> io::Result<()> { listener.accept()?.0.write_all(b"mine") });
    let mut reply = String::new();
    TcpStream::connect(to)?.read_to_string(&mut reply)?;
    server.join().expect("server")?;
    Ok(reply)
}

fn own_udp(at: &SocketAddr) -> io::Result<String> {
    let server = UdpSocket::bind(at)?;
    let client = UdpSocket::bind((at.ip(), 0))?;
    client.connect(server.local_addr()?)?;
    client.send(b"question")?;
    let mut bytes = [0; 16];
    let (_, from) = server.recv_from(&mut bytes)?;
    server.send_to(b"mine", from)?;
    let length = client.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn passed(to: &SocketAddr) -> io::Result<String> {
    let to = sockaddr_v4(to, libc::AF_INET);
    // SAFETY: the address is as long as said; the descriptor was given to us.
    check(unsafe { libc::connect(PASSED, (&raw const to).cast(), size_of_val(&to) as u32) as isize })?;
    Ok("connected".into())
}
