//! Commands that always end: with output, or killed with all their children after their time.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::interrupt;

/// How long a command may take when nothing else is said. Generous: these machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
    /// Whether it had to be killed.
    pub timed_out: bool,
}

impl Finished {
    /// Standard output and error, one after the other.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The exit code; 128 and the signal's number when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics, showing everything, unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success() && !self.timed_out, "{self}");
        self
    }

    /// Panics, showing everything, if the command succeeded or hung.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.status.success() && !self.timed_out, "expected a failure: {self}");
        self
    }

    /// Panics, showing everything, unless output or error contain `needle`.
    #[track_caller]
    pub fn says(self, needle: &str) -> Self {
        assert!(self.text().contains(needle), "expected {needle:?} in: {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let late = if self.timed_out { ", killed after its time" } else { "" };
        write!(
            f,
            "{} ended with {}{late}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// A command that runs, in a process group of its own that dies with this value.
#[derive(Debug)]
pub struct Job {
    command: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    ended: bool,
}

impl Job {
    /// Starts `command` with both outputs captured and `input` on its standard input.
    pub fn start(mut command: Command, input: &str) -> Self {
        let shown = shown(&command);
        let spawned = command
            .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_owned();
            // The other end may close early; that is its right.
            std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Self { command: shown, child, stdout, stderr, ended: false }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, not to its group.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.as_pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, or makes it; panics where this program is interrupted meanwhile.
    #[track_caller]
    pub fn finish(self, patience: Duration) -> Finished {
        self.wait(patience, interrupt::pass)
    }

    /// The same for what cleans up, which nothing interrupts.
    pub fn end(self, patience: Duration) -> Finished {
        self.wait(patience, || ())
    }

    #[track_caller]
    fn wait(mut self, patience: Duration, between: impl Fn()) -> Finished {
        let deadline = Instant::now() + patience;
        let mut timed_out = false;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => {
                    between();
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(None) => {
                    timed_out = true;
                    let _ = killpg(self.as_pid(), Signal::SIGKILL);
                    break self.child.wait().expect("a killed child can be waited for");
                }
                Err(error) => panic!("{}: cannot be waited for: {error}", self.command),
            }
        };
        self.ended = true;
        // A grandchild in another group may hold the pipes: what is left of this group goes first.
        let _ = killpg(self.as_pid(), Signal::SIGKILL);
        let text = |pipe: Option<JoinHandle<Vec<u8>>>| {
            let bytes = pipe.map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Finished {
            command: self.command.clone(),
            status,
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            timed_out,
        }
    }

    fn as_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            let _ = killpg(self.as_pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end within [`PATIENCE`].
#[track_caller]
pub fn run(command: Command) -> Finished {
    Job::start(command, "").finish(PATIENCE)
}

/// A command of words.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().expect("a command has a word"));
    command.args(words);
    command
}

/// Waits until `condition` is true, asking every 20 ms; panics with `what` after `patience`.
#[track_caller]
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        interrupt::pass();
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The anonymous memory of a process, in bytes; nothing where it cannot be read.
pub fn anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
