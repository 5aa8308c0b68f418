//! Finding the daemon, or starting it when nobody has.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use interceptor_core::model::RunId;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket,
            sockopt::{ReceiveTimeout, SendTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{Helper, LaunchError, Options, step, syscalls};
use crate::{
    channel::{Channel, ChannelError},
    helper::messages::{LaunchAnswer, LaunchRequest, VERSION},
    places::Places,
};

/// How long a daemon may take to serve once it is ready, and to answer a request.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_SECONDS: i64 = 60;
/// How long it may take to take in what it is told.
const HEARING_SECONDS: i64 = 5;
/// How much is read of what it says before it is ready.
const SAID: u64 = 4096;

/// The daemon that serves a run: the one that launched it, or the one that took it over.
pub(super) struct Daemon {
    helper: Mutex<Arc<Helper>>,
    places: Places,
    run: RunId,
}

impl Daemon {
    pub(super) fn of(helper: Helper, places: &Places, run: RunId) -> Self {
        Self { helper: Mutex::new(Arc::new(helper)), places: places.clone(), run }
    }

    /// The helper that was spoken to last.
    pub(super) fn helper(&self) -> Arc<Helper> {
        Arc::clone(&self.helper.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The folder of the daemon's sockets, which is root's.
    pub(super) fn folder(&self) -> &Path {
        self.places.runtime()
    }

    /// Tells it something; where that daemon is gone, another one, if there is one by now.
    pub(super) fn tell(
        &self,
        request: &LaunchRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LaunchError> {
        match self.helper().send(request, descriptors) {
            Err(ChannelError::Closed) => {}
            done => return done.map_err(|source| LaunchError::Talk { who: "the daemon", source }),
        }
        let helper = find(&self.places)?;
        let patience = setsockopt(&helper, ReceiveTimeout, &TimeVal::seconds(HEARING_SECONDS));
        patience.map_err(|errno| step("limit the wait for the daemon")(errno.into()))?;
        match super::asked(&helper, &LaunchRequest::Attend { version: VERSION, run: self.run }, &[])? {
            (LaunchAnswer::Ready, _) => {}
            _ => return Err(LaunchError::OutOfTurn("the daemon")),
        }
        let helper = Arc::new(helper);
        *self.helper.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&helper);
        helper.send(request, descriptors).map_err(|source| LaunchError::Talk { who: "the daemon", source })
    }
}

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
    try_connect(&path)?.ok_or_else(|| {
        LaunchError::Obstacle(format!(
            "nobody answers at {}: start the daemon, by `systemctl start interceptor` or `interceptor daemon`",
            path.display()
        ))
    })
}

/// Nothing, when nobody listens there.
fn try_connect(path: &Path) -> Result<Option<Helper>, LaunchError> {
    let attempt = || -> Result<_, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(HEARING_SECONDS))?;
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
