//! Listeners that outlive the helper: who holds them, and what comes back from there.

use super::*;

#[test]
fn listeners_are_held_while_no_helper_lives() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.role(HOLDER), None, "there is nothing to hold");
    let sleeper = Sleeper::launch(&daemon);
    let before = sleeper.sockets();
    assert!(before.len() >= 4, "TCP and DNS, twice: {before:?}");
    let status = daemon.role(HOLDER).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let status = status.expect("who holds");
    for line in ["CapPrm:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"] {
        assert!(status.contains(line), "{status}");
    }
    for _ in 0..2 {
        daemon.kill();
        assert!(sleeper.has_its_ports(), "nobody serves them, and nobody else has them");
        assert_eq!(sleeper.sockets(), before);
        daemon.start_again();
        assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
        assert_eq!(sleeper.sockets(), before, "they are the same");
    }
    kill(pid(daemon.child.id()), Signal::SIGTERM).expect("kill");
    assert!(daemon.child.wait().expect("wait").success());
    assert!(sleeper.has_its_ports());
    daemon.start_again();
    assert_eq!(sleeper.sockets(), before, "they are the same");
    drop(sleeper);
    until("nothing is held any more", || daemon.role(HOLDER).is_none());
    assert!(!daemon.places().holder_socket().exists());
}

#[test]
fn who_holds_is_replaced_and_without_one_listeners_are_made_anew() {
    let mut daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    let before = sleeper.sockets();
    let first = daemon.role(HOLDER).expect("who holds");
    kill(pid(first), Signal::SIGKILL).expect("kill");
    // It has them a moment after it began.
    until("another one holds", || {
        daemon.role(HOLDER).is_some_and(|now| now != first && has_all(now, &before))
    });
    let second = daemon.role(HOLDER).expect("who holds");
    daemon.kill();
    assert!(sleeper.has_its_ports());
    daemon.start_again();
    assert_eq!(sleeper.sockets(), before, "the other one had them all");
    assert!(has_ended(second), "each daemon has one of its own");

    let third = daemon.role(HOLDER).expect("who holds");
    daemon.kill();
    kill(pid(third), Signal::SIGKILL).expect("kill");
    until("it is gone", || sleeper.sockets().is_empty());
    daemon.start_again();
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    let anew = sleeper.sockets();
    assert!(anew.len() == before.len() && !anew.iter().any(|socket| before.contains(socket)), "{anew:?}");

    // One that hangs is no better than none, and is ended.
    let fourth = daemon.role(HOLDER).expect("who holds");
    kill(pid(fourth), Signal::SIGSTOP).expect("stop");
    daemon.kill();
    daemon.start_again();
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    assert!(has_ended(fourth));
    assert!(!sleeper.sockets().iter().any(|socket| anew.contains(socket)));
}

/// Whoever has taken over the process that holds, or came by its socket as root.
#[test]
fn what_is_false_among_what_was_held_is_refused() {
    let mut daemon = Daemon::start();
    let sleeper = Sleeper::launch(&daemon);
    let port = sleeper.ports.tcp;
    let of_others =
        || -> OwnedFd { sleeper.inside(|| TcpListener::bind("127.0.0.1:0").expect("a port").into()) };
    let false_twin = || {
        sleeper.inside(move || {
            let twin =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            twin.set_reuse_port(true).expect("root may");
            let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
            twin.bind(&address.into()).expect("root may");
            twin.listen(1).expect("root may");
            OwnedFd::from(twin)
        })
    };
    let nothing = || OwnedFd::from(File::open("/dev/null").expect("a file"));
    let tamper: [Tamper<'_>; 4] =
        [&|held| held.push(of_others()), &|held| held[0] = false_twin(), &|held| drop(held.pop()), &|held| {
            *held = vec![nothing()]
        }];
    for with in tamper {
        let before = sleeper.sockets();
        daemon.kill();
        hold_falsely(&daemon.places(), sleeper.id, with);
        daemon.start_again();
        assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
        let anew = sleeper.sockets();
        assert!(anew.len() == before.len() && !anew.iter().any(|socket| before.contains(socket)), "{anew:?}");
    }
}

/// Where nobody can be made to let go of what was held, the run is served at other ports.
#[test]
fn a_port_that_somebody_keeps_is_given_up() {
    let mut daemon = Daemon::start();
    let mut sleeper = Sleeper::launch(&daemon);
    daemon.kill();
    let kept = held(&to_holder(&daemon.places()), sleeper.id);
    fs::remove_file(daemon.places().marks(sleeper.id)).expect("noted");
    daemon.start_again();
    let described = fs::read(daemon.places().runs().join(format!("{}.json", sleeper.id))).expect("described");
    let described: serde_json::Value = serde_json::from_slice(&described).expect("JSON");
    let ports: Ports = serde_json::from_value(described["ports"].clone()).expect("ports");
    assert_ne!(ports, sleeper.ports);
    sleeper.ports = ports;
    assert_eq!(sleeper.answered(), probe_answer(sleeper.id));
    drop(kept);
}

/// Whether the process has these sockets open.
fn has_all(pid: u32, sockets: &[String]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let numbers = sockets.iter().filter_map(|socket| socket.split_whitespace().last());
    numbers.map(|number| format!("socket:[{number}]")).all(|socket| open.contains(&PathBuf::from(socket)))
}

/// What is done to what is held.
type Tamper<'a> = &'a dyn Fn(&mut Vec<OwnedFd>);
type ToHolder = Channel<serde_json::Value, serde_json::Value>;

fn to_holder(places: &Places) -> ToHolder {
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(&places.holder_socket()).expect("path")).expect("connect");
    Channel::from_socket(socket)
}

/// What is held of a run.
fn held(channel: &ToHolder, run: RunId) -> Vec<OwnedFd> {
    channel.send(&serde_json::json!("GiveBack"), &[]).expect("send");
    let (what, held) = channel.receive().expect("receive");
    assert_eq!(what, serde_json::json!({ "Held": { "run": run } }));
    assert_eq!(channel.receive().expect("receive").0, serde_json::json!("Done"));
    held
}

/// Puts something else into the hands of who holds.
fn hold_falsely(places: &Places, run: RunId, with: Tamper<'_>) {
    let channel = to_holder(places);
    let mut all = held(&channel, run);
    with(&mut all);
    let borrowed: Vec<_> = all.iter().map(AsFd::as_fd).collect();
    channel.send(&serde_json::json!({ "Hold": { "run": run } }), &borrowed).expect("send");
    assert_eq!(held(&channel, run).len(), all.len());
}
