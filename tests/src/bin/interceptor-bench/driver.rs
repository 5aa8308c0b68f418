//! Shells that carry out one line at a time, captured and not, so that all kinds of client are started alike
//! and neither a launch nor a look-up of a run is in what is measured.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use interceptor_tests::{Installation, interrupt, places};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// What the shell does: a line in, its output and its exit code out.
const LOOP: &str =
    r#"while IFS= read -r line; do sh -c "$line" </dev/null 2>&1; code=$?; echo; echo "ended $code"; done"#;

/// How long one line may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// A shell that waits for lines; it ends with this value.
pub(crate) struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    said: String,
}

impl Driver {
    /// In a run of `installation`, in the folder `work`: what else lies in the host's temporary folder is not seen there.
    pub(crate) fn captured(installation: &Installation, work: &Path) -> Result<Self> {
        let mut command = installation.captured("release-bot", &["sh", "-c", LOOP]);
        command.current_dir(work);
        Self::start(command)
    }

    /// On the host itself.
    pub(crate) fn outside(installation: &Installation) -> Result<Self> {
        let mut command = installation.outside(Path::new("/bin/sh"));
        command.args(["-c", LOOP]);
        Self::start(command)
    }

    /// On the host, by a user without rights, attached to: no launcher stands beside its connects.
    pub(crate) fn attached(installation: &Installation) -> Result<Self> {
        let mut command = installation.outside(&places::tool("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", LOOP]);
        let mut driver = Self::start(command)?;
        // Until the shell answers, the process may be root's still, which is not attached to.
        driver.tell("true")?;
        let process = driver.child.id().to_string();
        installation.interceptor(&["attach", "--agent", "release-bot", "--pid", &process]).succeeded();
        Ok(driver)
    }

    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn().context("a shell for the clients")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the shell's output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines, said: String::new() })
    }

    /// Carries out one line and gives what it printed; fails if it does.
    pub(crate) fn tell(&mut self, line: &str) -> Result<String> {
        self.begin(line)?;
        self.end(line)
    }

    /// Starts one line.
    pub(crate) fn begin(&mut self, line: &str) -> Result<()> {
        ensure!(!line.contains('\n'), "a line is one line");
        writeln!(self.input.as_mut().context("the shell's input")?, "{line}").context("the shell has ended")
    }

    /// Waits for the end of the line that was begun.
    pub(crate) fn end(&mut self, line: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            if let Some(said) = self.ended(line)? {
                return Ok(said);
            }
            ensure!(Instant::now() < deadline, "`{line}` does not end:\n{}", self.said);
        }
    }

    /// Whether the line that was begun has ended, after a moment's wait; then what it said.
    pub(crate) fn ended(&mut self, line: &str) -> Result<Option<String>> {
        let deadline = Instant::now() + Duration::from_millis(20);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(printed) => match printed.strip_prefix("ended ") {
                    Some("0") => return Ok(Some(std::mem::take(&mut self.said))),
                    Some(code) => bail!("`{line}` ended with {code}:\n{}", std::mem::take(&mut self.said)),
                    None => self.said += &(printed + "\n"),
                },
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => bail!("the shell ended at `{line}`:\n{}", self.said),
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
