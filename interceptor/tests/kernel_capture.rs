//! Capture against the running kernel: what a captured process's sockets do. Needs root; nothing here is a mock.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel_support;

use std::{
    io::{Read, Write},
    net::UdpSocket,
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    thread,
};

use interceptor::{
    kernel::{
        Counter,
        probe::{Finding, Outcome, probe},
    },
    places::Places,
};
use interceptor_common::names::UNIX_LINKS;
use kernel_support::{Playing, Stage};

#[test]
fn the_actor_plays() {
    kernel_support::actor::play();
}

fn serve(mut stream: std::net::TcpStream) {
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).expect("the client's bytes");
    assert_eq!(&hello, b"hello");
    stream.write_all(b"seen").expect("write");
}

fn answer(socket: &UdpSocket) {
    let mut question = [0; 64];
    let (length, from) = socket.recv_from(&mut question).expect("a question");
    assert_eq!(&question[..length], b"question");
    socket.send_to(b"answer", from).expect("answer");
}

#[test]
fn tcp_is_redirected_and_its_destination_is_known_however_it_was_written() {
    let stage = Stage::new();
    let (v4, v6) = (&stage.namespace.tcp4, &stage.namespace.tcp6);
    for (asked, listener, destination, peer) in [
        ("203.0.113.7:5432", v4, "203.0.113.7:5432", "203.0.113.7:5432"),
        ("[2001:db8::7]:5432", v6, "[2001:db8::7]:5432", "[2001:db8::7]:5432"),
        ("[::ffff:203.0.113.7]:80", v4, "203.0.113.7:80", "[::ffff:203.0.113.7]:80"),
        ("[::203.0.113.7]:80", v6, "203.0.113.7:80", "[::cb00:7107]:80"),
        ("0.0.0.0:81", v4, "127.0.0.1:81", "127.0.0.1:81"),
        ("[::]:81", v6, "[::1]:81", "[::1]:81"),
        ("127.0.0.1:5432", v4, "127.0.0.1:5432", "127.0.0.1:5432"),
        ("[fe80::1]:22", v6, "[fe80::1]:22", "[fe80::1]:22"),
        ("[64:ff9b::cb00:7107]:22", v6, "[64:ff9b::cb00:7107]:22", "[64:ff9b::cb00:7107]:22"),
    ] {
        let playing = stage.act(&format!("connect {asked}"));
        let pid = playing.0.id();
        let (stream, flow) = stage.accept_for(listener, destination);
        assert_eq!((flow.process.pid, flow.uid), (pid, 0), "{asked}");
        assert!(flow.process.start_time > 0);
        assert!(stage.maps.take_flow(stage.run, stream.peer_addr().expect("peer")).is_none(), "read twice");
        serve(stream);
        assert_eq!(playing.says(), format!("{peer} seen"), "{asked}");
    }
    assert_eq!(stage.count(Counter::Redirected), 9);
}

#[test]
fn fast_open_and_io_uring_do_not_go_around() {
    let stage = Stage::new();
    let playing = stage.act("fastopen 203.0.113.7:443");
    serve(stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:443").0);
    assert_eq!(playing.says(), "203.0.113.7:443 seen");

    let playing = stage.act("ring-connect 203.0.113.7:444");
    drop(stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:444"));
    assert_eq!(playing.says(), "connected");
}

#[test]
fn dns_is_redirected_and_answers_come_from_the_server_that_was_asked() {
    let stage = Stage::new();
    let (v4, v6) = (&stage.namespace.dns4, &stage.namespace.dns6);
    for (script, resolver, from) in [
        ("ask 192.0.2.53:53", v4, "192.0.2.53:53"),
        ("ask-connected 192.0.2.53:53", v4, "192.0.2.53:53"),
        ("ask [2001:db8::53]:53", v6, "[2001:db8::53]:53"),
        ("ask-connected [2001:db8::53]:53", v6, "[2001:db8::53]:53"),
        ("ask [::ffff:192.0.2.53]:53", v4, "[::ffff:192.0.2.53]:53"),
        ("ask-connected [::ffff:192.0.2.53]:53", v4, "[::ffff:192.0.2.53]:53"),
    ] {
        let playing = stage.act(script);
        answer(resolver);
        assert_eq!(playing.says(), format!("{from} answer"), "{script}");
    }
    let playing = stage.act("ask-unspecified 192.0.2.53:53");
    answer(v4);
    assert_eq!(playing.says(), "sent");
}

/// musl connects a UDP socket there before it looks up a name. A run's own listener goes before.
#[test]
fn a_look_for_a_family_goes_to_the_resolver() {
    let stage = Stage::new();
    for (at, resolver) in [("127.0.0.1:65535", &stage.namespace.dns4), ("[::1]:65535", &stage.namespace.dns6)]
    {
        let playing = stage.act(&format!("ask-connected {at}"));
        answer(resolver);
        assert_eq!(playing.says(), format!("{at} answer"));
        assert_eq!(stage.act(&format!("own-udp {at}")).says(), "mine");
    }
    let elsewhere = stage.act("ask-connected 192.0.2.1:65535");
    assert_eq!(elsewhere.says(), format!("error {}", libc::ECONNREFUSED));
}

#[test]
fn other_datagrams_are_refused() {
    let stage = Stage::new();
    for script in [
        "ask 192.0.2.1:443",
        "ask-connected 192.0.2.1:443",
        "ask [2001:db8::1]:443",
        "ask [::ffff:192.0.2.1]:443",
        "ask-unspecified 192.0.2.1:443",
        "ask 127.0.0.1:9",
        "ask 239.1.1.1:5353",
        "ask 255.255.255.255:67",
    ] {
        assert_eq!(stage.act(script).says(), format!("error {}", libc::ECONNREFUSED), "{script}");
    }
    assert_eq!(stage.count(Counter::RefusedUdp), 8);
    let direct = format!("ask 127.0.0.1:{}", stage.settings.dns_port);
    assert_eq!(stage.act(&direct).says(), format!("error {}", libc::ECONNREFUSED));
}

/// Whether this kernel has the hooks that see Unix sockets (Linux 6.7), as the product finds it out; some distributions may have
/// brought them to older ones.
fn sees_unix_sockets(places: &Places) -> bool {
    let is_one =
        |finding: &&Finding| UNIX_LINKS.iter().any(|(name, _)| finding.what == format!("hook {name}"));
    let findings = probe(places);
    let hooks: Vec<_> = findings.iter().filter(is_one).collect();
    assert_eq!(hooks.len(), UNIX_LINKS.len(), "{hooks:?}");
    assert!(hooks.iter().all(|hook| hook.outcome != Outcome::Missing), "{hooks:?}");
    hooks.iter().all(|hook| hook.outcome == Outcome::Works)
}

/// Their launcher connects them, where that may be. A run without a network of its own has its sockets to itself. Where the
/// kernel has no such hooks, nothing here keeps a run from it, and the launcher has to.
#[test]
fn runs_with_a_network_of_their_own_reach_no_unix_socket_by_themselves() {
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().expect("folder");
    let (stream, datagram) = (folder.path().join("stream"), folder.path().join("datagram"));
    let _listener = UnixListener::bind(&stream).expect("bind");
    let _receiver = UnixDatagram::bind(&datagram).expect("bind");
    let scripts = [format!("unix {}", stream.display()), format!("unix-datagram {}", datagram.display())];
    let (said, refused) = match sees_unix_sockets(&stage.places) {
        true => (format!("error {}", libc::ECONNREFUSED), 2),
        false => ("ok".to_owned(), 0),
    };
    for script in &scripts {
        assert_eq!(stage.act(script).says(), said, "{script}");
    }
    assert_eq!(stage.count(Counter::RefusedUnix), refused);
    UnixStream::connect(&stream).expect("nobody else is kept from it");
    stage.share_the_network();
    for script in &scripts {
        assert_eq!(stage.act(script).says(), "ok", "{script}");
    }
    assert_eq!(stage.count(Counter::RefusedUnix), refused);
}

#[test]
fn sockets_of_other_kinds_cannot_be_had() {
    let stage = Stage::new();
    for (script, what) in [
        ("socket 2 1 262", "MPTCP"),
        ("socket 10 1 262", "MPTCP over IPv6"),
        ("socket 2 2 136", "UDP-Lite"),
        ("socket 10 2 136", "UDP-Lite over IPv6"),
        ("socket 2 2 1", "ICMP"),
        ("socket 10 2 58", "ICMPv6"),
        ("socket 2 3 1", "raw ICMP"),
        ("socket 2 3 255", "raw"),
        ("socket 10 3 6", "raw TCP"),
        ("socket 2 1 132", "SCTP"),
        ("socket 2 5 132", "SCTP packets"),
        ("socket 2 6 33", "DCCP"),
    ] {
        let said = stage.act(script).says();
        assert!(said.starts_with("error"), "{what}: {said}");
    }
    assert!(stage.count(Counter::RefusedSocket) >= 7, "{}", stage.count(Counter::RefusedSocket));
    for script in ["socket 2 1 0", "socket 2 1 6", "socket 10 2 0", "socket 10 2 17", "socket 1 1 0"] {
        assert_eq!(stage.act(script).says(), "ok", "{script}");
    }
}

#[test]
fn options_that_lead_elsewhere_cannot_be_set() {
    let stage = Stage::new();
    for (script, what) in [
        ("option 2 2 1 25 out0", "SO_BINDTODEVICE"),
        ("option 2 2 1 62 0000", "SO_BINDTOIFINDEX"),
        ("option 2 1 1 36 0000", "SO_MARK"),
        ("option 2 1 0 4 0000", "IP_OPTIONS"),
        ("option 2 1 0 19 0000", "IP_TRANSPARENT"),
        ("option 10 1 41 57 0000", "IPV6_RTHDR"),
        ("option 10 1 41 5 0000", "IPV6_2292RTHDR"),
        ("option 10 1 41 75 0000", "IPV6_TRANSPARENT"),
        ("option 2 1 6 19 0000", "TCP_REPAIR"),
        ("option 2 1 6 31 smc", "TCP_ULP"),
    ] {
        assert_eq!(stage.act(script).says(), format!("error {}", libc::EPERM), "{what}");
    }
    assert_eq!(stage.count(Counter::RefusedOption), 10);
    assert_eq!(stage.act("option 2 1 1 9 0000").says(), "ok", "SO_KEEPALIVE");
    let tls = stage.act("option 2 1 6 31 tls").says();
    assert_ne!(tls, format!("error {}", libc::EPERM), "TLS in the kernel is the kernel's to refuse: {tls}");
}

#[test]
fn our_ports_cannot_be_bound() {
    let stage = Stage::new();
    for address in ["127.0.0.2", "0.0.0.0", "[::]"] {
        let said = stage.act(&format!("bind {address}:{}", stage.settings.tcp_port)).says();
        assert!(said.starts_with("error"), "{address}: {said}");
    }
    let said = stage.act(&format!("bind 127.0.0.2:{}", stage.settings.tcp_port)).says();
    assert_eq!(said, format!("error {}", libc::EPERM));
    let said = stage.act(&format!("bind-udp 127.0.0.2:{}", stage.settings.dns_port)).says();
    assert_eq!(said, format!("error {}", libc::EPERM));
    assert_eq!(stage.act("bind 127.0.0.2:0").says(), "ok");
}

#[test]
fn the_runs_own_listeners_are_left_alone() {
    let stage = Stage::new();
    assert_eq!(stage.act("own-listener 127.0.0.1:0").says(), "mine");
    assert_eq!(stage.act("own-listener [::]:0").says(), "mine");
    assert_eq!(stage.act("own-listener 10.99.0.1:0").says(), "mine");
    assert_eq!(stage.act("own-udp 127.0.0.1:0").says(), "mine");
    assert_eq!(stage.act("own-udp [::1]:0").says(), "mine");
    assert!(stage.count(Counter::Internal) >= 5);
    stage.assert_idle();
    // Our own listener is no listener of the run's.
    let own = format!("127.0.0.1:{}", stage.settings.tcp_port);
    let playing = stage.act(&format!("connect {own}"));
    serve(stage.accept_for(&stage.namespace.tcp4, &own).0);
    assert_eq!(playing.says(), format!("{own} seen"));
}

#[test]
fn packets_by_another_interface_are_dropped() {
    let stage = Stage::new();
    let sniffer = kernel_support::sniffer(&stage, "out1");
    let said = stage.act("ask-by-device 192.0.2.53:53 out0").says();
    sniffer.assert_nothing_of(b"question");
    assert_eq!(said, format!("error {}", libc::EPERM));
    assert_eq!(stage.count(Counter::DroppedEgress), 1);
}

/// What a kernel does by itself with BBR, or where its administrator lets it: more than 64 KiB in one packet.
#[test]
fn segments_that_the_kernel_hands_on_in_one_piece_are_not_dropped() {
    let stage = Stage::new();
    let namespace = stage.namespace.file.try_clone().expect("namespace");
    let larger = kernel_support::apart(move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        let mut ip = std::process::Command::new("ip");
        ip.args(["link", "set", "lo", "gso_max_size", "200000"]).status().expect("ip")
    });
    assert!(larger.success());
    for (asked, listener) in
        [("203.0.113.7:5432", &stage.namespace.tcp4), ("[2001:db8::7]:5432", &stage.namespace.tcp6)]
    {
        let playing = stage.act(&format!("upload {asked} 64"));
        let (mut stream, _) = stage.accept_for(listener, asked);
        let read = std::io::copy(&mut stream, &mut std::io::sink()).expect("all that is sent");
        assert_eq!(read, 64 << 20, "{asked}");
        stream.write_all(b"had").expect("write");
        drop(stream);
        assert_eq!(playing.says(), "had");
        assert_eq!(stage.count(Counter::DroppedEgress), 0, "{asked}");
    }
}

#[test]
fn a_socket_from_before_the_run_has_no_way_out() {
    let stage = Stage::new();
    let namespace = stage.namespace.file.try_clone().expect("namespace");
    let socket = kernel_support::apart(move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        kernel_support::actor::socket(libc::AF_INET, libc::SOCK_STREAM, 0).expect("socket")
    });
    let said = stage.act_with("passed 203.0.113.7:5432", Some(socket)).says();
    assert_eq!(said, format!("error {}", libc::EPERM));
    assert_eq!(stage.count(Counter::RefusedForeign), 1);
}

#[test]
fn no_heartbeat_means_refused_at_once() {
    let mut stage = Stage::new();
    stage.let_the_heartbeat_expire();
    assert_eq!(stage.act("connect 203.0.113.7:5432").says(), format!("error {}", libc::ECONNREFUSED));
    assert_eq!(stage.act("ask 192.0.2.53:53").says(), format!("error {}", libc::ECONNREFUSED));
    assert_eq!(stage.act("connect [2001:db8::7]:5432").says(), format!("error {}", libc::ECONNREFUSED));
    assert_eq!(stage.count(Counter::RefusedHeartbeat), 3);
    stage.assert_idle();
}

#[test]
fn an_unknown_run_and_deny_all_are_refused() {
    let stage = Stage::new();
    let attachment = stage.attachment.as_ref().expect("attachment");
    attachment.deny_all(true).expect("mode");
    assert_eq!(stage.act("connect 203.0.113.7:1").says(), format!("error {}", libc::EPERM));
    assert_eq!(stage.count(Counter::RefusedMode), 1);
    attachment.deny_all(false).expect("mode");
    let id = interceptor::kernel::cgroup::id(&stage.cgroup).expect("id");
    attachment.forget_run(id).expect("forget");
    assert_eq!(stage.act("connect 203.0.113.7:1").says(), format!("error {}", libc::EPERM));
    assert_eq!(stage.count(Counter::RefusedUnknownRun), 1);
    attachment.register_run(id, stage.settings).expect("register");
    let playing = stage.act("connect 203.0.113.7:1");
    serve(stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:1").0);
    assert!(playing.says().ends_with("seen"));
}

#[test]
fn another_namespace_is_no_way_out() {
    let stage = Stage::new();
    for destination in ["203.0.113.7:1", "127.0.0.1:1"] {
        let said = stage.act(&format!("connect-from-elsewhere {destination}")).says();
        assert_eq!(said, format!("error {}", libc::EPERM), "{destination}");
    }
    assert_eq!(stage.count(Counter::RefusedNamespace), 2);
    stage.assert_idle();
}

#[test]
fn many_connections_at_once_each_find_their_own_destination() {
    let stage = Stage::new();
    let playing: Vec<(u32, Playing)> =
        (1..=20).map(|n| (n, stage.act(&format!("connect 203.0.113.{n}:{}", 1000 + n)))).collect();
    let mut servers = Vec::new();
    for _ in 0..playing.len() {
        let (stream, flow) = stage.accept(&stage.namespace.tcp4);
        let destination = flow.expect("flow").destination;
        servers.push(thread::spawn(move || {
            let mut stream = stream;
            stream.read_exact(&mut [0; 5]).expect("hello");
            write!(stream, "for {destination}").expect("write");
        }));
    }
    for (n, playing) in playing {
        let address = format!("203.0.113.{n}:{}", 1000 + n);
        assert_eq!(playing.says(), format!("{address} for {address}"));
    }
    servers.into_iter().for_each(|server| server.join().expect("server"));
}
