//! What processes use, as the kernel counts it.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use interceptor_tests::{Job, interrupt, places};
use nix::{
    sys::signal::Signal,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::stage::Stage;

/// Which memory is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// All that is in memory, files included.
    Resident,
    /// What is backed by no file.
    Anonymous,
}

/// A process with the part that it plays.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// `proxy` for whatever stands between client and server; of the daemon also `keeper` and `helper`.
    pub(crate) role: String,
    pub(crate) pid: u32,
}

impl Watched {
    /// The processor time that it has used, threads that have ended included.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid.cast_signed()))
            .with_context(|| format!("the clock of {}, process {}", self.role, self.pid))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// The memory that it holds, in KiB.
    pub(crate) fn memory(&self, memory: Memory) -> Result<u64> {
        let key = match memory {
            Memory::Resident => "VmRSS:",
            Memory::Anonymous => "RssAnon:",
        };
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let found =
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
        found.with_context(|| format!("{key} of {}, process {}", self.role, self.pid))
    }
}

/// Does something with a target, and gives how much processor time each part of it used meanwhile.
pub(crate) fn spent<T>(
    stage: &mut Stage,
    target: usize,
    work: impl FnOnce(&mut Stage) -> Result<T>,
) -> Result<(T, Vec<(String, Duration)>)> {
    interrupt::check()?;
    let watched: Vec<Watched> = stage.targets.get(target).context("no such target")?.watched.clone();
    let before = watched.iter().map(Watched::processor).collect::<Result<Vec<_>>>()?;
    let done = work(stage)?;
    let used = watched
        .iter()
        .zip(before)
        .map(|(watched, before)| Ok((watched.role.clone(), watched.processor()?.saturating_sub(before))));
    Ok((done, used.collect::<Result<_>>()?))
}

/// Counts the system calls of a process while `work` runs, by name.
pub(crate) fn system_calls(
    watched: &Watched,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<(String, u64)>> {
    let folder = places::scratch("strace");
    let file = folder.path().join("counts");
    let mut command = Command::new(places::tool("strace"));
    command.args(["-f", "-c", "-U", "calls,name", "-p", &watched.pid.to_string(), "-o"]).arg(&file);
    let mut strace = Job::start(command, "");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !traced(watched.pid) {
        ensure!(strace.is_running() && Instant::now() < deadline, "strace cannot trace {}", watched.role);
        std::thread::sleep(Duration::from_millis(20));
    }
    let worked = work();
    strace.signal(Signal::SIGINT);
    let finished = strace.finish(Duration::from_secs(20));
    worked?;
    let text = fs::read_to_string(&file).with_context(|| format!("strace left no counts: {finished}"))?;
    let counts: Vec<(String, u64)> =
        text.lines().filter_map(count).filter(|(name, _)| name != "total").collect();
    if counts.is_empty() { bail!("strace counted nothing: {finished}") } else { Ok(counts) }
}

/// A line such as `  1234 epoll_wait`.
fn count(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_ascii_whitespace();
    let calls = words.next()?.parse().ok()?;
    Some((words.next()?.to_owned(), calls))
}

/// Whether every thread of a process is traced.
fn traced(pid: u32) -> bool {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    !threads.is_empty()
        && threads.iter().all(|thread| {
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            status
                .lines()
                .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
        })
}
