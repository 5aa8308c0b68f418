//! The layer of LSM programs against a kernel that calls them, which most hosts of developers do not: but for the first, the tests
//! are the machines' of `cargo xtask vm capture`. Each act is also done where the layer does not forbid it, and goes well there.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel_support;

use std::{
    fs::{self, File},
    io::{IoSlice, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use interceptor::kernel::{
    Attachment, Counter, KernelError, Occurrence, cgroup,
    layer::{self, Labels, Layer, Seen, Standing, Wanted},
    probe::{self, Outcome},
    refusal::Refused,
};
use kernel_support::Stage;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const NOT_PERMITTED: &str = "error 1";
const REFUSED: &str = "error 111";

#[test]
fn the_actor_plays() {
    kernel_support::actor::play();
}

fn required() -> Layer {
    Layer { wanted: Wanted::Required, ..Layer::AVAILABLE }
}

fn strict() -> Layer {
    Layer { labels: Labels::Strict, ..required() }
}

/// On any kernel.
#[test]
fn where_the_kernel_does_not_call_them_that_is_said_and_whoever_requires_them_is_refused() {
    let mut stage = Stage::with(Layer::AVAILABLE);
    let standing = stage.attachment.take().expect("attachment").layer();
    let seen = layer::seen(&stage.places);
    let again = |layer| Attachment::establish(&stage.places, layer);
    match seen {
        Seen::Absent(why) => {
            assert_eq!(standing, Standing::Absent(why.clone()));
            let refused = again(required());
            assert!(matches!(&refused, Err(KernelError::Layer(said)) if *said == why), "{refused:?}");
            let refused = again(strict());
            assert!(matches!(&refused, Err(KernelError::Layer(said)) if *said == why), "{refused:?}");
        }
        Seen::InForce(some, all) => {
            assert_eq!((some, standing), (all, Standing::InForce(Vec::new())));
            drop(again(required()).expect("all of them are there"));
            drop(again(Layer::OFF).expect("and can be taken off"));
            assert_eq!(layer::seen(&stage.places), Seen::InForce(0, all));
        }
    }
    drop(again(Layer::AVAILABLE).expect("nothing hangs on them"));
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn each_is_in_force_and_said_to_be() {
    let stage = Stage::with(strict());
    let findings = probe::probe(&stage.places);
    let layer: Vec<_> = findings
        .iter()
        .filter(|finding| finding.what.starts_with("hook layer_") || finding.what.starts_with("hook label_"))
        .collect();
    assert!(layer.len() >= 15, "{layer:?}");
    assert!(layer.iter().all(|one| one.outcome == Outcome::Works && one.attached == Some(true)), "{layer:?}");
}

/// Does each act in a run with a network of its own, which the layer leaves to the run's own views, and in one without.
fn tell_apart(stage: &mut Stage, acts: &[(String, &str, Counter)]) {
    for (act, _, counter) in acts {
        assert_eq!(stage.act(act).says(), "ok", "{act}, which the layer does not forbid");
        assert_eq!(stage.count(*counter), 0, "{act}");
    }
    stage.share_the_network();
    for (act, said, counter) in acts {
        let before = stage.count(*counter);
        assert_eq!(stage.act(act).says(), *said, "{act}");
        assert!(stage.count(*counter) > before, "{act}");
    }
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn families_that_no_hook_of_a_cgroup_sees_cannot_be_had() {
    let mut stage = Stage::with(required());
    let acts = [("16 3 15", "the kernel's events"), ("16 3 9", "audit"), ("17 3 0", "packets")];
    let acts = acts.map(|(of, _)| (format!("socket {of}"), NOT_PERMITTED, Counter::RefusedFamily));
    tell_apart(&mut stage, &acts);
    for allowed in ["socket 1 1 0", "socket 2 1 0", "socket 10 2 0", "socket 16 3 0"] {
        assert_eq!(stage.act(allowed).says(), "ok", "{allowed}");
    }
    let mut events = stage.maps.events().expect("events");
    let refusals = std::iter::from_fn(|| events.next_event());
    let told = refusals.filter_map(|event| match event.what {
        Occurrence::Refused(Refused { reason: Counter::RefusedFamily, port, .. }) => Some((event.run, port)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [16, 16, 17].map(|family| (Some(stage.run), family)));
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn unix_sockets_lead_to_the_runs_own_and_to_what_is_left_open() {
    let folder = tempfile::tempdir_in("/run").expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (stream, datagram, open) = (path("stream"), path("datagram"), path("open"));
    let _listener = UnixListener::bind(&stream).expect("bind");
    let _receiver = UnixDatagram::bind(&datagram).expect("bind");
    let mut stage = Stage::with(Layer { open: vec![open.clone()], ..required() });
    // Unix sockets that a run with a network of its own connects are another hook's.
    stage.share_the_network();
    for act in [format!("unix {}", stream.display()), format!("unix-datagram {}", datagram.display())] {
        let before = stage.count(Counter::RefusedPeer);
        assert_eq!(stage.act(&act).says(), REFUSED, "{act}");
        assert_eq!(stage.count(Counter::RefusedPeer), before + 1, "{act}");
    }
    UnixStream::connect(&stream).expect("nobody else is kept from it");
    UnixDatagram::unbound().expect("a socket").send_to(b"x", &datagram).expect("nor from this");
    assert_eq!(stage.act(&format!("unix-own {}", folder.path().display())).says(), "mine too");

    let log = UnixDatagram::bind(&open).expect("bind");
    let act = format!("unix-datagram {}", open.display());
    assert_eq!(stage.act(&act).says(), REFUSED, "it was made a moment ago");
    let attachment = stage.attachment.as_ref().expect("attachment");
    assert!(!attachment.maintain(&stage.places).expect("the slice is there"));
    assert_eq!(stage.act(&act).says(), "ok");
    drop(log);
    fs::remove_file(&open).expect("own file");
    let _another = UnixDatagram::bind(&open).expect("bind");
    attachment.maintain(&stage.places).expect("once more");
    assert_eq!(stage.act(&act).says(), "ok", "whoever serves it now");
    attachment.forget_run(cgroup::id(&stage.cgroup).expect("id")).expect("forget");
    assert_eq!(stage.act(&format!("unix {}", stream.display())).says(), "ok", "it is captured no more");
}

/// Passes `file` over a pair of sockets to an actor and says what that had of it.
fn passed(stage: &Stage, file: &impl AsRawFd) -> String {
    let (near, far) = UnixStream::pair().expect("a pair");
    let files = [file.as_raw_fd()];
    let parts = [IoSlice::new(b"x")];
    let rights = [ControlMessage::ScmRights(&files)];
    sendmsg::<()>(near.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).expect("sent");
    stage.act_with("receive", Some(OwnedFd::from(far))).says()
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn a_passed_socket_is_not_had_by_any_run() {
    let mut stage = Stage::with(required());
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let file = File::open("/proc/self/status").expect("a file");
    for _ in ["with a network of its own", "without"] {
        let before = stage.count(Counter::RefusedPassed);
        assert_eq!(passed(&stage, &socket), "0 cut");
        assert_eq!(stage.count(Counter::RefusedPassed), before + 1);
        assert_eq!(passed(&stage, &file), "1", "a file is no socket");
        stage.share_the_network();
    }
    let attachment = stage.attachment.as_ref().expect("attachment");
    attachment.forget_run(cgroup::id(&stage.cgroup).expect("id")).expect("forget");
    assert_eq!(passed(&stage, &socket), "1", "it is captured no more");
}

/// A process outside of the run, ended with the value.
struct Outside(Child);

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("/bin/sleep");
        Self(command.arg("600").stdin(Stdio::null()).spawn().expect("sleep"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn processes_outside_are_not_looked_into() {
    let mut stage = Stage::with(required());
    let outside = Outside::new();
    let pid = outside.0.id();
    let acts = [("take", NOT_PERMITTED), ("memory", "error 13"), ("trace", NOT_PERMITTED)];
    let acts = acts.map(|(act, said)| (format!("{act} {pid}"), said, Counter::RefusedTrace));
    tell_apart(&mut stage, &acts);
    let mut inside = stage.spawn(Command::new("/bin/sleep").arg("600").stdin(Stdio::null()));
    for act in ["take", "memory", "trace"] {
        assert_eq!(stage.act(&format!("{act} {}", inside.id())).says(), "ok", "its own: {act}");
    }
    inside.kill().expect("kill");
    inside.wait().expect("wait");
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn rings_and_typing_cannot_be_had() {
    let mut stage = Stage::with(required());
    let acts = [("ring", Counter::RefusedRing), ("type", Counter::RefusedTyping)];
    tell_apart(&mut stage, &acts.map(|(act, counter)| (act.to_owned(), NOT_PERMITTED, counter)));
}

/// A copy of a program that anybody may execute, with these bits.
fn program(folder: &Path, name: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::copy("/bin/true", &path).expect("a copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
    path
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn programs_give_nobody_rights() {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let [user, group, plain] = [("user", 0o4755), ("group", 0o2755), ("plain", 0o755)]
        .map(|(name, mode)| format!("execute {}", program(folder.path(), name, mode).display()));
    let mut stage = Stage::with(required());
    let acts = [user, group].map(|act| (act, NOT_PERMITTED, Counter::RefusedRights));
    tell_apart(&mut stage, &acts);
    assert_eq!(stage.act(&plain).says(), "ok");
}

/// A cgroup beside the slice, which is removed again.
struct Beside(PathBuf);

impl Beside {
    fn new(name: &str) -> Self {
        let name = format!("kernel-lsm-{}-{name}", std::process::id());
        let path = cgroup::root().expect("cgroup2").join(name);
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        while self.0.exists() && cgroup::remove(&self.0).is_err() {
            std::thread::yield_now();
        }
    }
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn whoever_is_moved_out_of_a_run_has_no_sockets_while_the_run_is_known() {
    let beside = Beside::new("left-for");
    let leave = format!("leave {}", beside.0.display());
    let free = Stage::with(required());
    assert_eq!(free.act(&leave).says(), "ok, ok, child ok", "without strict labels");
    drop(free);
    let stage = Stage::with(strict());
    assert_eq!(stage.act(&leave).says(), "ok, 1, child error 1");
    assert!(stage.count(Counter::RefusedStray) >= 2);
    TcpListener::bind("127.0.0.1:0").expect("nobody else is kept from it");
    let attachment = stage.attachment.as_ref().expect("attachment");
    attachment.forget_run(cgroup::id(&stage.cgroup).expect("id")).expect("forget");
    assert_eq!(stage.act(&leave).says(), "ok, ok, child ok", "the run is known no more");
}

#[test]
#[ignore = "wants a kernel that calls LSM programs: cargo xtask vm capture"]
fn whoever_was_there_before_the_run_or_is_moved_in_bears_the_label_too() {
    let beside = Beside::new("moved-to");
    let stage = Stage::with(strict());
    let (attachment, id) =
        (stage.attachment.as_ref().expect("attachment"), cgroup::id(&stage.cgroup).expect("id"));
    for is_there_before in [false, true] {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let playing = kernel_support::act_outside("later 2", OwnedFd::from(far));
        let moved = |to: &Path| {
            fs::write(to.join("cgroup.procs"), playing.0.id().to_string()).expect("moved");
        };
        if is_there_before {
            attachment.forget_run(id).expect("forget");
        }
        // As processes are attached: into a cgroup below the run's.
        let below = stage.cgroup.join("attached");
        fs::create_dir_all(&below).expect("a cgroup");
        moved(&below);
        if is_there_before {
            attachment.register_run(id, stage.settings).expect("register");
        }
        // Out of it, and told to make a socket: its first.
        moved(&beside.0);
        near.write_all(b"x").expect("told");
        assert_eq!(playing.says(), NOT_PERMITTED, "there before the run: {is_there_before}");
    }
}
