//! Finding the daemon, or starting it when nobody has.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{Helper, LaunchError, Options, step, syscalls};
use crate::{channel::Channel, places::Places};

/// How long a daemon may take to serve once it is ready, and to answer a request.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_SECONDS: i64 = 60;
/// How much is read of what it says before it is ready.
const SAID: u64 = 4096;

/// A channel to the helper, which is started when it does not run.
pub(super) fn connect_or_start(options: &Options) -> Result<Helper, LaunchError> {
    let path = options.places.launch_socket();
    if let Some(helper) = try_connect(&path)? {
        return Ok(helper);
    }
    let failed = start(Path::new("/proc/self/exe"), &options.places, &options.daemon)?;
    // Another launcher's daemon may have won: then ours has ended, and that one answers.
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(helper) = try_connect(&path)? {
            return Ok(helper);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(LaunchError::Daemon(failed.unwrap_or_else(|| format!("nobody answers at {}", path.display()))))
}

/// A channel to the helper that runs.
pub(super) fn find(places: &Places) -> Result<Helper, LaunchError> {
    let path = places.launch_socket();
    try_connect(&path)?.ok_or_else(|| LaunchError::Daemon(format!("nobody answers at {}", path.display())))
}

/// Nothing, when nobody listens there.
fn try_connect(path: &Path) -> Result<Option<Helper>, LaunchError> {
    let attempt = || -> Result<_, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
        Ok(socket)
    };
    match attempt() {
        Ok(socket) => Ok(Some(Channel::from_socket(socket))),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(step("reach the daemon")(errno.into())),
    }
}

/// Starts `program` as the daemon, which `arguments` tell it to be, and waits until it says that it is ready; says how it
/// failed, if it did.
pub fn start(program: &Path, places: &Places, arguments: &[OsString]) -> Result<Option<String>, LaunchError> {
    let runtime = places.runtime();
    fs::create_dir_all(runtime).map_err(step("create the daemon's runtime folder"))?;
    let log = runtime.join("daemon.log");
    let errors = File::create(&log).map_err(step("create the daemon's log"))?;
    let mut command = Command::new(program);
    command
        .arg0("interceptor")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    syscalls::before_exec(&mut command, || {
        nix::unistd::setsid()?;
        Ok(())
    });
    let mut child = command.spawn().map_err(step("start the daemon"))?;
    let output = child.stdout.take().map(|output| BufReader::new(output.take(SAID)).lines());
    if output.is_some_and(|lines| lines.map_while(Result::ok).any(|line| line == "ready")) {
        return Ok(None);
    }
    let status = child.wait().map_err(step("wait for the daemon"))?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Ok(Some(last.map_or_else(|| format!("it ended with {status}; see {}", log.display()), str::to_owned)))
}
