//! A process that is talked to: a line to its input, a line from its output.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{interrupt, process::PATIENCE};

/// How often a wait for a word looks whether it is to go on.
const LOOK: Duration = Duration::from_millis(100);

/// Such a process, which ends with the value, and with it its group.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    errors: tempfile::NamedTempFile,
}

impl Talker {
    /// Starts it and waits for its first word, which is `ready`.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let errors = tempfile::NamedTempFile::new().expect("a file in /tmp");
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.reopen().expect("own file"))
            .process_group(0)
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.take_while(|line| tell.send(line.clone()).is_ok()).for_each(drop);
        });
        let talker = Self { child, input, lines, errors };
        assert_eq!(talker.line(PATIENCE), "ready");
        talker
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it answers to a line.
    #[track_caller]
    pub fn say(&mut self, line: &str, patience: Duration) -> String {
        writeln!(self.input, "{line}").expect("it listens");
        self.line(patience)
    }

    #[track_caller]
    fn line(&self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => return line,
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => interrupt::pass(),
                Err(_) => {
                    panic!("no word; it said {}", fs::read_to_string(self.errors.path()).unwrap_or_default())
                }
            }
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        for _ in 0..250 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
