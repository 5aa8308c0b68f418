//! What a captured process does to reach past its sockets' hooks: Unix sockets, passed ones, processes outside, rights.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{
            net::{UnixDatagram, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::Command,
    ptr,
};

use nix::{
    cmsg_space,
    pty::openpty,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use super::actor::{PASSED, SCRIPT, check, socket};

/// Nobody's user and group.
const NOBODY: u32 = 65_534;

pub fn perform(words: &[&str]) -> io::Result<String> {
    match words {
        ["unix-own", folder] => own_unix(folder),
        ["receive"] => receive(),
        ["trace", pid] => trace(pid.parse().expect("a number")),
        ["memory", pid] => File::open(format!("/proc/{pid}/mem")).map(|_| "ok".into()),
        ["take", pid] => take(pid.parse().expect("a number")),
        ["ring"] => ring(),
        ["execute", program] => execute(program),
        ["type"] => typed(),
        ["leave", cgroup] => leave(cgroup),
        ["later", family] => later(family.parse().expect("a number")),
        _ => panic!("unknown script {words:?}"),
    }
}

/// Sockets of its own, by their paths.
fn own_unix(folder: &str) -> io::Result<String> {
    let (stream, datagram) = (format!("{folder}/own-stream"), format!("{folder}/own-datagram"));
    let listener = UnixListener::bind(&stream)?;
    let mut client = UnixStream::connect(&stream)?;
    client.write_all(b"mine")?;
    drop(client);
    let mut text = String::new();
    listener.accept()?.0.read_to_string(&mut text)?;
    let receiver = UnixDatagram::bind(&datagram)?;
    UnixDatagram::unbound()?.send_to(b" too", &datagram)?;
    let mut bytes = [0; 16];
    let length = receiver.recv(&mut bytes)?;
    Ok(format!("{text}{}", String::from_utf8_lossy(&bytes[..length])))
}

/// What comes by the descriptor that was given to us: how many descriptors, and whether some were kept back.
fn receive() -> io::Result<String> {
    let mut bytes = [0; 16];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!([i32; 4]);
    let message = recvmsg::<()>(PASSED, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let mut count = 0;
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(all) = part {
            count += all.len();
        }
    }
    let cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
    Ok(format!("{count}{}", if cut { " cut" } else { "" }))
}

fn trace(pid: i32) -> io::Result<String> {
    // SAFETY: no pointers that are followed.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) }
        as isize)?;
    Ok("ok".into())
}

/// The standard input of another process.
fn take(pid: i32) -> io::Result<String> {
    // SAFETY: no pointers; what is taken ends with this process.
    unsafe {
        let handle = check(libc::syscall(libc::SYS_pidfd_open, pid, 0) as isize)?;
        check(libc::syscall(libc::SYS_pidfd_getfd, handle, 0, 0) as isize)?;
    }
    Ok("ok".into())
}

fn ring() -> io::Result<String> {
    let mut parameters = [0_u8; 120];
    // SAFETY: the parameters are as long as the kernel's.
    check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) } as isize)?;
    Ok("ok".into())
}

/// A program, as somebody without any rights.
fn execute(program: &str) -> io::Result<String> {
    let status = Command::new(program).uid(NOBODY).gid(NOBODY).status()?;
    Ok(if status.success() { "ok".into() } else { status.to_string() })
}

fn typed() -> io::Result<String> {
    let terminal = openpty(None, None)?;
    // SAFETY: one byte is read.
    check(unsafe { libc::ioctl(terminal.slave.as_raw_fd(), libc::TIOCSTI, b"x".as_ptr()) } as isize)?;
    Ok("ok".into())
}

/// Makes a socket, moves to another cgroup, and makes one there, and has a child make one; says what came of each.
fn leave(cgroup: &str) -> io::Result<String> {
    let said = |result: io::Result<()>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |code| code.to_string()),
    };
    let make = || socket(libc::AF_INET, libc::SOCK_STREAM, 0).map(drop);
    let before = said(make());
    fs::write(format!("{cgroup}/cgroup.procs"), "0")?;
    let after = said(make());
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--exact", "the_actor_plays", "--nocapture", "--test-threads=1"]);
    let child = child.env(SCRIPT, "socket 2 1 0").output()?;
    let child = String::from_utf8_lossy(&child.stderr).into_owned();
    let child = child.lines().find_map(|line| line.strip_prefix(super::actor::ANSWER)).unwrap_or("nothing");
    Ok(format!("{before}, {after}, child {child}"))
}

/// Makes a socket when something comes by the descriptor that was given to us.
fn later(family: i32) -> io::Result<String> {
    // SAFETY: it was given to us, and stays open.
    let given = unsafe { BorrowedFd::borrow_raw(PASSED) };
    nix::unistd::read(given, &mut [0; 1])?;
    socket(family, libc::SOCK_STREAM, 0).map(|_| "ok".into())
}
