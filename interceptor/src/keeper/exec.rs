//! A secret from a program: argv without a shell, an empty environment, ten seconds, one JSON object.
//!
//! Promises: the program is one that only root or the keeper can change; what it prints on its error output is
//! thrown away, since it may hold secrets; it does not outlive its deadline; at most [`WAITERS`] requests wait for
//! programs at any time, so that a slow one cannot take all of the keeper's threads.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{Pid, geteuid, read},
};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::secrets::{SECRET_LIMIT, Secret, SecretError, Source, trimmed};

/// How long a program may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How many requests may wait for programs at once.
pub(super) const WAITERS: usize = 4;

/// The whole environment of a program.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    #[serde(deserialize_with = "wiped")]
    secret: Zeroizing<String>,
    expires_at: Option<Timestamp>,
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// One program, and what it said last while that is valid.
#[derive(Debug)]
pub(super) struct Helper {
    argv: Vec<String>,
    deadline: Duration,
    room: Arc<WaitingRoom>,
    last: Mutex<Option<(Secret, Timestamp)>>,
}

/// Counts the requests that wait for any program.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom(AtomicUsize);

struct Seat<'a>(&'a WaitingRoom);

impl WaitingRoom {
    fn enter(&self) -> Option<Seat<'_>> {
        let more = |n| (n < WAITERS).then_some(n + 1);
        // Only who was counted in may make a seat: dropping one counts out.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Seat(self))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Source for Helper {
    fn fetch(&self) -> Result<Secret, SecretError> {
        // A log-in must not begin with a secret that ends before it does.
        let soon = Timestamp::now() + Duration::from_secs(5);
        if let Ok(last) = self.last.try_lock()
            && let Some((secret, expires_at)) = &*last
            && *expires_at > soon
        {
            return Ok(secret.clone());
        }
        let _seat = self
            .room
            .enter()
            .ok_or_else(|| self.fault("too many log-ins wait for helper programs: make it faster"))?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((secret, expires_at)) = &*last
            && *expires_at > soon
        {
            return Ok(secret.clone());
        }
        *last = None;
        let (secret, expires_at) = self.run()?;
        *last = expires_at.map(|at| (secret.clone(), at));
        Ok(secret)
    }
}

impl Helper {
    pub(super) fn new(argv: Vec<String>, room: Arc<WaitingRoom>) -> Self {
        Self { argv, deadline: DEADLINE, room, last: Mutex::new(None) }
    }

    /// What the program said last, as long as it holds; nothing while it is being asked.
    pub(super) fn said(&self) -> Option<Secret> {
        let last = self.last.try_lock().ok()?;
        last.as_ref().filter(|(_, until)| *until > Timestamp::now()).map(|(secret, _)| secret.clone())
    }

    #[cfg(test)]
    pub(super) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn fault(&self, why: &str) -> SecretError {
        // Arguments may hold what is nobody's business.
        let program = self.argv.first().map_or("", String::as_str);
        SecretError::Unusable { what: format!("helper {program:?}"), why: why.to_owned() }
    }

    fn run(&self) -> Result<(Secret, Option<Timestamp>), SecretError> {
        let end = Instant::now() + self.deadline;
        let mut child = self.spawn()?;
        let printed = match child.stdout.take() {
            Some(output) => self.listen(&output, end),
            None => Err(self.fault("has no output")),
        };
        let status = printed.and_then(|bytes| self.wait(&mut child, end).map(|()| bytes));
        // Whatever happened, nothing of it stays.
        if let Ok(group) = i32::try_from(child.id()) {
            let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _reaped = child.wait();
        self.read(&status?)
    }

    fn spawn(&self) -> Result<Child, SecretError> {
        let (program, arguments) = self.argv.split_first().ok_or_else(|| self.fault("names no program"))?;
        if !program.starts_with('/') {
            return Err(self.fault("not an absolute path: write the whole path of the program"));
        }
        let facts =
            fs::metadata(Path::new(program)).map_err(|e| self.fault(&format!("cannot be run: {e}")))?;
        if facts.mode() & 0o022 != 0 || ![0, geteuid().as_raw()].contains(&facts.uid()) {
            return Err(self.fault("others may change this program: `chown root` and `chmod go-w` it"));
        }
        Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| self.fault(&format!("cannot be run: {e}")))
    }

    fn listen(&self, output: &ChildStdout, end: Instant) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * SECRET_LIMIT));
        let mut part = Zeroizing::new([0_u8; 4096]);
        loop {
            let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, self.remaining(end)?) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(self.fault(&format!("its output cannot be read: {errno}"))),
            }
            match read(output, &mut *part) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.fault(&format!("its output cannot be read: {errno}"))),
            }
            if bytes.len() > SECRET_LIMIT {
                return Err(self.fault("printed more than 64 KiB: print one JSON object"));
            }
        }
    }

    fn remaining(&self, end: Instant) -> Result<PollTimeout, SecretError> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = self.deadline.as_secs();
            return Err(self.fault(&format!("took more than {seconds} s and was stopped: make it faster")));
        }
        // Rounded up, so that the last wait is not a busy one.
        Ok(PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX))
    }

    fn wait(&self, child: &mut Child, end: Instant) -> Result<(), SecretError> {
        loop {
            let left = self.remaining(end);
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(self.fault(&format!("failed ({status}): run it by hand to see why")));
                }
                Ok(None) => drop(left?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault(&format!("cannot be waited for: {error}"))),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<(Secret, Option<Timestamp>), SecretError> {
        // The parser's own words could quote the secret.
        let printed: Printed = serde_json::from_slice(bytes).map_err(|e| {
            let place = format!("line {}, column {}", e.line(), e.column());
            self.fault(&format!(
                "printed something else than {{\"secret\": \"...\", \"expires_at\": \"RFC 3339\"}} ({place})"
            ))
        })?;
        if printed.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return Err(self.fault("gave a secret that has expired already: check its clock or cache"));
        }
        let program = self.argv.first().map_or("", String::as_str);
        let secret = trimmed(printed.secret.as_bytes(), &format!("helper {program:?}"))?;
        Ok((Secret::new(secret), printed.expires_at))
    }
}
