//! Our programs beside those of others on the same hooks: before ours, after them, above, below, and such as want no other
//! beside them. Whatever they do, nothing gets out that ours did not let out, and they stay in force.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel_support;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use interceptor::kernel::{Attachment, Counter, cgroup, layer::Layer, probe};
use interceptor_core::model::RunId;
use kernel_support::{
    Stage, apart,
    stranger::{ALONE, CONNECT4, MULTI, NAME, OVERRIDE, SENDMSG4, Stranger},
};
use nix::sched::{CloneFlags, setns};

#[test]
fn the_actor_plays() {
    kernel_support::actor::play();
}

const ASKED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 5432);
const INSTEAD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 8), 5433);
/// Beyond the interface of a stage that leads out.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 2), 80);

/// The listener of the run as our programs write it.
fn ours(stage: &Stage) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, stage.settings.tcp_port)
}

fn slice(stage: &Stage) -> PathBuf {
    stage.attachment.as_ref().expect("attachment").slice().to_owned()
}

/// Puts fresh programs of ours in force behind whatever is there.
fn restart(stage: &mut Stage) {
    stage.attachment = None;
    stage.attachment = Some(Attachment::establish(&stage.places, Layer::OFF).expect("a restart"));
}

/// A connection that `stage` captures, to `destination` whatever was asked for.
fn is_captured(stage: &Stage, destination: SocketAddrV4) {
    let playing = stage.act(&format!("connect {ASKED}"));
    let (mut stream, _) = stage.accept_for(&stage.namespace.tcp4, &destination.to_string());
    stream.read_exact(&mut [0; 5]).expect("the client's bytes");
    stream.write_all(b"seen").expect("write");
    drop(stream);
    assert_eq!(playing.says(), format!("{destination} seen"));
}

#[test]
fn what_is_rewritten_before_ours_is_captured_as_it_was_rewritten() {
    let mut stage = Stage::new();
    let below = Stranger::that_redirects(CONNECT4, ASKED, INSTEAD, &stage.cgroup, MULTI).expect("attached");
    is_captured(&stage, INSTEAD);
    drop(below);
    is_captured(&stage, ASKED);
    let earlier =
        Stranger::that_redirects(CONNECT4, ASKED, INSTEAD, &slice(&stage), MULTI).expect("attached");
    restart(&mut stage);
    is_captured(&stage, INSTEAD);
    drop(earlier);
    is_captured(&stage, ASKED);
}

/// Dials from the run's namespace without being captured.
fn dial_uncaptured(stage: &Stage) {
    let namespace = stage.namespace.file.try_clone().expect("namespace");
    let dialled = apart(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("setns");
        TcpStream::connect_timeout(&OUTSIDE.into(), Duration::from_millis(300))
    });
    assert!(dialled.is_err(), "nobody answers there");
}

#[test]
fn what_is_rewritten_after_ours_goes_nowhere() {
    let stage = Stage::new();
    let root = cgroup::root().expect("cgroup2");
    let sniffer = kernel_support::sniffer(&stage, "out1");
    let is_seen =
        || sniffer.packets().iter().any(|packet| packet.windows(4).any(|part| part == OUTSIDE.ip().octets()));
    dial_uncaptured(&stage);
    assert!((0..100).any(|_| is_seen()), "the interface leads out");
    let resolver = SocketAddrV4::new(Ipv4Addr::LOCALHOST, stage.settings.dns_port);
    // The guards on the root run after whatever is on the slice, and the filter of packets after everything.
    for (place, counter) in [(slice(&stage), Counter::RefusedForeign), (root, Counter::DroppedEgress)] {
        for (hook, from, script) in [
            (CONNECT4, ours(&stage), format!("connect {ASKED}")),
            (SENDMSG4, resolver, "ask 192.0.2.53:53".to_owned()),
        ] {
            let stranger = Stranger::that_redirects(hook, from, OUTSIDE, &place, MULTI).expect("attached");
            let before = stage.count(counter);
            let said = stage.act(&script).says();
            assert!(said.starts_with("error"), "{script}: {said}");
            assert!(!is_seen(), "{script}, {}: it got out", place.display());
            assert!(stage.count(counter) > before, "{script}, {}: {said}", place.display());
            stage.assert_idle();
            drop(stranger);
        }
        is_captured(&stage, ASKED);
    }
}

/// A packet that only our filter keeps from leaving.
fn is_dropped(stage: &Stage) {
    let before = stage.count(Counter::DroppedEgress);
    let said = stage.act("ask-by-device 192.0.2.53:53 out0").says();
    assert_eq!(said, format!("error {}", libc::EPERM));
    assert_eq!(stage.count(Counter::DroppedEgress), before + 1);
}

#[test]
fn a_filter_that_lets_everything_out_lets_nothing_of_ours_out() {
    let mut stage = Stage::new();
    let root = cgroup::root().expect("cgroup2");
    for place in [stage.cgroup.clone(), slice(&stage), root] {
        let stranger = Stranger::that_lets_out(&place, MULTI).expect("attached");
        is_dropped(&stage);
        is_captured(&stage, ASKED);
        restart(&mut stage);
        is_dropped(&stage);
        drop(stranger);
    }
    is_dropped(&stage);
}

#[test]
fn nobody_takes_the_place_of_ours() {
    let stage = Stage::new();
    for flags in [ALONE, OVERRIDE] {
        let refused = Stranger::that_lets_out(&slice(&stage), flags);
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied), "{flags}");
        // Below, one may want to be alone; what stands above and is not willing to yield runs all the same.
        let filter = Stranger::that_lets_out(&stage.cgroup, flags).expect("attached");
        let redirect = Stranger::that_redirects(CONNECT4, ASKED, INSTEAD, &stage.cgroup, flags);
        let redirect = redirect.expect("attached");
        is_dropped(&stage);
        is_captured(&stage, INSTEAD);
        drop((filter, redirect));
    }
}

/// A cgroup that is somebody else's, gone with the value.
struct Service(PathBuf);

impl Service {
    fn new(name: &str) -> Self {
        let path = cgroup::root().expect("cgroup2").join(format!("kernel-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("inner")).expect("a cgroup");
        Self(path)
    }

    fn inner(&self) -> PathBuf {
        self.0.join("inner")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.0);
    }
}

#[test]
fn a_cgroup_with_a_program_that_wants_no_other_is_refused_and_the_program_named() {
    let service = Service::new("service");
    let stage = Stage::new();
    let attachment = stage.attachment.as_ref().expect("attachment");
    let run = RunId::from_random(cgroup::id(&service.0).expect("id") * 7919);
    let refused = |at: &Path, of: &Path| {
        let error = attachment.enclose(run, at).expect_err("refused").to_string();
        let place = of.display().to_string();
        assert!(error.contains(NAME) && error.contains(&place), "{error}");
        attachment.release(run, at).expect("nothing stays");
    };
    let stranger = Stranger::that_lets_out(&service.0, ALONE).expect("attached");
    refused(&service.0, &service.0);
    refused(&service.inner(), &service.0);
    drop(stranger);
    // One that yields to programs below does not keep ours away from there.
    let stranger = Stranger::that_lets_out(&service.0, OVERRIDE).expect("attached");
    refused(&service.0, &service.0);
    attachment.enclose(run, &service.inner()).expect("enclosed");
    attachment.release(run, &service.inner()).expect("released");
    drop(stranger);
    attachment.enclose(run, &service.0).expect("enclosed");
    attachment.release(run, &service.0).expect("released");
}

#[test]
fn doctor_names_the_programs_of_others() {
    let stage = Stage::new();
    let told = || {
        let findings = probe::probe(&stage.places);
        let finding = findings.into_iter().find(|finding| finding.what == "other programs");
        finding.expect("it is looked for").detail
    };
    let slice = slice(&stage);
    let shown = format!("{NAME} at {} (egress)", slice.display());
    assert!(!told().contains(&shown));
    let stranger = Stranger::that_lets_out(&slice, MULTI).expect("attached");
    assert!(told().contains(&shown), "{}", told());
    drop(stranger);
    assert!(!told().contains(&shown));
}
