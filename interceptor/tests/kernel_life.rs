//! The kernel side over time: process events, other users, the loader's death, restart, sweeping, removal.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel_support;

use std::{
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use interceptor::kernel::{
    Attachment, Counter, EventReader, KernelError, KernelEvent, Occurrence, ProcessRef, cgroup, diag,
    layer::Layer, probe, refusal::Refused,
};
use interceptor_core::model::RunId;
use kernel_support::{Stage, apart};
use nix::sched::{CloneFlags, setns};

#[test]
fn the_actor_plays() {
    kernel_support::actor::play();
}

/// Reads events until one fits.
fn wait_for(reader: &mut EventReader, mut fits: impl FnMut(&KernelEvent) -> bool) -> KernelEvent {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        while let Some(event) = reader.next_event() {
            if fits(&event) {
                return event;
            }
        }
        assert!(Instant::now() < end, "the event did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn forks_execs_and_exits_are_told_with_arguments() {
    let stage = Stage::new();
    let mut reader = stage.maps.events().expect("events");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "/bin/echo one 'two  three' ''; exit 0"]).stdout(Stdio::null());
    let mut shell = stage.spawn(&mut shell);
    let exec = wait_for(&mut reader, |event| {
        event.process.pid == shell.id() && matches!(event.what, Occurrence::Exec { .. })
    });
    assert_eq!((exec.run, exec.uid), (Some(stage.run), 0));
    assert_eq!(exec.cgroup, cgroup::id(&stage.cgroup).expect("id"));
    let Occurrence::Exec { parent, path, argv, cut } = exec.what else { panic!("an exec") };
    assert_eq!(parent.pid, std::process::id());
    assert_eq!(path.as_deref(), Some("/bin/sh"));
    assert_eq!(argv, ["/bin/sh", "-c", "/bin/echo one 'two  three' ''; exit 0"]);
    assert!(!cut);

    let fork = wait_for(&mut reader, |event| matches!(event.what, Occurrence::Fork { .. }));
    assert_eq!(fork.what, Occurrence::Fork { parent: exec.process });
    let child = wait_for(&mut reader, |event| matches!(event.what, Occurrence::Exec { .. }));
    assert_eq!(child.process, fork.process, "the start time is the same at fork and exec");
    let Occurrence::Exec { parent, argv, .. } = child.what else { panic!("an exec") };
    assert_eq!(parent, exec.process);
    assert_eq!(argv, ["/bin/echo", "one", "two  three", ""]);
    for process in [child.process, exec.process] {
        wait_for(&mut reader, |event| event.process == process && event.what == Occurrence::Exit);
    }
    shell.wait().expect("wait");
}

#[test]
fn long_arguments_are_cut_and_say_so() {
    let stage = Stage::new();
    let mut reader = stage.maps.events().expect("events");
    let long = "x".repeat(100_000);
    let mut command = Command::new("/bin/true");
    let mut child = stage.spawn(command.arg(&long));
    let event = wait_for(&mut reader, |event| matches!(event.what, Occurrence::Exec { .. }));
    let Occurrence::Exec { argv, cut, .. } = event.what else { panic!("an exec") };
    assert!(cut && argv.iter().map(|part| part.len() + 1).sum::<usize>() >= 8192, "{}", argv.len());
    child.wait().expect("wait");
    assert_eq!(stage.count(Counter::RingLost), 0);
}

#[test]
fn the_connecting_process_is_the_one_that_was_told_of() {
    let stage = Stage::new();
    let mut reader = stage.maps.events().expect("events");
    let playing = stage.act("connect 203.0.113.9:1");
    let (stream, flow) = stage.accept_for(&stage.namespace.tcp4, "203.0.113.9:1");
    let exec = wait_for(&mut reader, |event| matches!(event.what, Occurrence::Exec { .. }));
    assert_eq!(flow.process, exec.process);
    // The socket itself says the same.
    let namespace = stage.namespace.file.try_clone().expect("namespace");
    let netlink = apart(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("setns");
        diag::open().expect("sock_diag")
    });
    let (client, listener) = (stream.peer_addr().expect("peer"), stream.local_addr().expect("local"));
    let socket = diag::client_socket(netlink.as_fd(), client, listener)
        .expect("an answer")
        .expect("the client's socket");
    assert_eq!(socket.cookie, flow.cookie);
    assert_eq!(socket.cgroup, Some(cgroup::id(&stage.cgroup).expect("id")));
    let nobody = diag::client_socket(netlink.as_fd(), "127.0.0.1:1".parse().expect("a"), listener);
    assert_eq!(nobody.expect("an answer"), None);
    drop(stream);
    playing.says();
}

#[test]
fn refusals_are_told() {
    let stage = Stage::new();
    let mut reader = stage.maps.events().expect("events");
    stage.act("ask 192.0.2.1:443").says();
    let event = wait_for(&mut reader, |event| matches!(event.what, Occurrence::Refused(_)));
    let destination = Some("192.0.2.1:443".parse().expect("an address"));
    assert_eq!(
        event.what,
        Occurrence::Refused(Refused { reason: Counter::RefusedUdp, destination, protocol: 17, port: 443 })
    );
    assert_ne!(event.process, ProcessRef { pid: 0, start_time: 0 });
}

/// The proxy has no privilege: descriptors are all it needs.
#[test]
fn another_user_can_work_with_what_was_handed_over() {
    let stage = Stage::new();
    let playing = stage.act("connect 203.0.113.9:1");
    let (stream, client) = loop {
        if let Ok(accepted) = stage.namespace.tcp4.accept() {
            break accepted;
        }
    };
    let descriptors =
        stage.attachment.as_ref().expect("attachment").proxy_maps().descriptors().expect("descriptors");
    let run = stage.run;
    let (found, beaten, counted) = apart(move || {
        // This thread alone: no library call, which would change the whole process.
        // SAFETY: no pointers but null.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), 0);
            assert_eq!(libc::syscall(libc::SYS_setresgid, 65_534, 65_534, 65_534), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534), 0);
        }
        let maps = interceptor::kernel::KernelMaps::from_descriptors(descriptors).expect("maps");
        let mut events = maps.events().expect("events");
        assert!(events.next_event().is_some());
        (maps.take_flow(run, client), maps.beat().is_ok(), maps.counters().is_ok())
    });
    assert_eq!(found.expect("the flow").destination, "203.0.113.9:1".parse().expect("an address"));
    assert!(beaten && counted);
    drop(stream);
    playing.says();
}

#[test]
fn capture_outlives_its_loader_and_a_restart_takes_over() {
    let mut stage = Stage::new();
    // As if the daemon had been killed: nothing of it is left but pins.
    stage.attachment = None;
    stage.let_the_heartbeat_expire();
    let refused = format!("error {}", libc::ECONNREFUSED);
    assert_eq!(stage.act("connect 203.0.113.7:5432").says(), refused);
    let counted = stage.count(Counter::RefusedHeartbeat);

    // What an earlier version left goes when the new programs are in force.
    let stale = stage.places.pins().join("maps-v0");
    std::fs::create_dir(&stale).expect("a folder");
    let attachment = Attachment::establish(&stage.places, Layer::OFF).expect("a restart");
    assert!(!stale.exists());
    attachment.take_log().expect("the programs' diagnostics").flush();
    assert_eq!(attachment.runs(), [(cgroup::id(&stage.cgroup).expect("id"), stage.run)]);
    assert_eq!(stage.act("connect 203.0.113.7:5432").says(), refused, "still no heartbeat");
    assert_eq!(stage.count(Counter::RefusedHeartbeat), counted + 1, "once: the old program is gone");
    let descriptors = attachment.proxy_maps().descriptors().expect("descriptors");
    stage.beat_again(interceptor::kernel::KernelMaps::from_descriptors(descriptors).expect("maps"));
    let playing = stage.act("connect 203.0.113.7:5432");
    drop(stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:5432"));
    playing.says();
    stage.attachment = Some(attachment);
}

#[test]
fn there_is_no_moment_without_capture_during_restarts() {
    let stage = Stage::new();
    // A UDP-Lite socket must never be had.
    let mut playing = stage.act("try-until-had 2 2 136");
    let wait_for_more = |than: u64| {
        let end = Instant::now() + Duration::from_secs(60);
        while stage.count(Counter::RefusedSocket) < than + 100 {
            assert!(Instant::now() < end, "the actor does not try");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for_more(0);
    for _ in 0..3 {
        Attachment::establish(&stage.places, Layer::OFF).expect("a restart");
        wait_for_more(stage.count(Counter::RefusedSocket));
    }
    assert!(playing.0.try_wait().expect("wait").is_none(), "{}", playing.says());
    playing.0.kill().expect("kill");
    playing.0.wait().expect("wait");
}

#[test]
fn what_nobody_took_is_swept() {
    let stage = Stage::new();
    let attachment = stage.attachment.as_ref().expect("attachment");
    for _ in 0..3 {
        // Connects and is gone before anybody accepts.
        let mut playing = stage.act("ring-connect 203.0.113.7:1");
        playing.0.wait().expect("wait");
    }
    assert_eq!(attachment.sweep(Duration::from_secs(60)), 0, "all of it is fresh");
    assert_eq!(attachment.sweep(Duration::ZERO), 3, "three handshakes; closing has removed the flows");
    attachment.forget_run(cgroup::id(&stage.cgroup).expect("id")).expect("forget");
    assert!(attachment.runs().is_empty());
}

#[test]
fn removal_is_refused_while_a_run_lives_and_leaves_nothing() {
    let stage = Stage::new();
    let mut sleeper = stage.spawn(Command::new("/bin/sleep").arg("60"));
    assert!(matches!(Attachment::teardown(&stage.places), Err(KernelError::Populated(_))));
    sleeper.kill().expect("kill");
    sleeper.wait().expect("wait");
    let places = stage.places.clone();
    assert!(places.pins().exists());
    drop(stage);
    assert!(!places.pins().exists());
    assert!(!cgroup::slice(&places).expect("slice").exists());
}

/// A cgroup beside the slice, deeper than runs lie there, which is removed again.
struct Beside(PathBuf);

impl Beside {
    fn new() -> Self {
        let name = format!("kernel-beside-{}", std::process::id());
        let path = cgroup::root().expect("cgroup2").join(name);
        std::fs::create_dir_all(path.join("one/two/three")).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.0);
    }
}

#[test]
fn a_cgroup_beside_the_slice_is_captured_over_restarts_until_it_is_released() {
    let beside = Beside::new();
    let mut stage = Stage::new();
    let attachment = stage.attachment.take().expect("attachment");
    let (own, deep) = (stage.cgroup.clone(), beside.0.join("one/two/three"));
    let run = RunId::from_random(cgroup::id(&deep).expect("id") * 7919);
    attachment.enclose(run, &deep).expect("enclosed");
    stage.cgroup.clone_from(&deep);
    assert_eq!(stage.act("connect 203.0.113.7:1").says(), "error 1", "no run is registered there");
    stage.settings.run = run;
    attachment.register_run(cgroup::id(&deep).expect("id"), stage.settings).expect("register");
    let (first, second) = (stage.run, run);
    let mut attachment = Some(attachment);
    for _ in ["before a restart", "after it"] {
        for (cgroup, run) in [(&own, first), (&deep, second)] {
            stage.cgroup.clone_from(cgroup);
            stage.run = run;
            let playing = stage.act("connect 203.0.113.7:5432");
            drop(stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:5432"));
            drop(playing.says());
        }
        if let Some(before) = attachment.take() {
            drop(before);
            drop(Attachment::establish(&stage.places, Layer::OFF).expect("a restart"));
        }
    }
    assert!(matches!(Attachment::teardown(&stage.places), Err(KernelError::Enclosed(of)) if of == run));

    let attachment = Attachment::establish(&stage.places, Layer::OFF).expect("a restart");
    attachment.enclose(run, &deep).expect("taken over");
    attachment.release(run, &deep).expect("released");
    stage.cgroup = deep;
    assert_eq!(stage.act("connect 203.0.113.7:5432").says(), "error 101", "as if nothing had been");
    stage.cgroup = own;
}

#[test]
fn pins_are_private_and_a_stranger_is_refused() {
    let stage = Stage::new();
    let data = std::fs::metadata(stage.places.pins()).expect("pins");
    assert_eq!((data.uid(), data.mode() & 0o777), (0, 0o700));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.places.pins(), open).expect("chmod");
    let again = Attachment::establish(&stage.places, Layer::OFF);
    assert!(matches!(again, Err(KernelError::Untrusted { .. })), "{again:?}");
}

#[test]
fn this_host_can_capture() {
    let stage = Stage::with(Layer::AVAILABLE);
    let findings = probe::probe(&stage.places);
    for finding in &findings {
        assert_ne!(finding.outcome, probe::Outcome::Missing, "{finding:?}");
        assert_ne!(finding.outcome, probe::Outcome::Broken, "{finding:?}");
        assert_ne!(finding.attached, Some(false), "{finding:?}");
    }
    assert!(findings.iter().filter(|finding| finding.attached == Some(true)).count() >= 18, "{findings:?}");
}
