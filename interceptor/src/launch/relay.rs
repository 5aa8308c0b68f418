//! Standard streams between the caller and the agent.
//!
//! Files and pipes are passed as they are. A terminal is never passed: the agent gets a pseudo-terminal of its own,
//! so that it can neither type into the caller's nor be stopped by it. A socket is never passed either, since it
//! would be a connection that nobody captured: a pipe stands in. This module moves the bytes, and the signals.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{SFlag, fstat},
        termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::{isatty, pipe2},
};

use super::{LaunchError, syscalls};

/// How the agent gets one of its three streams.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As the caller has it, or one end of a pipe.
    File(File),
    /// The agent's own terminal.
    Terminal,
}

impl Stream {
    fn copy(&self) -> io::Result<Self> {
        Ok(match self {
            Self::File(file) => Self::File(file.try_clone()?),
            Self::Terminal => Self::Terminal,
        })
    }
}

/// The three streams for the agent, and what the launcher has to move.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Input, output, errors.
    agent: [Stream; 3],
    /// The caller's terminal, when one of them is one.
    pub(crate) terminal: Option<File>,
    /// Whether the agent's input comes from it.
    interactive: bool,
    flows: Vec<Flow>,
}

/// Bytes on their way from one descriptor to another.
#[derive(Debug)]
struct Flow {
    from: Option<File>,
    to: Option<File>,
    pending: Vec<u8>,
    /// Whether it carries the agent's output, which is waited for at the end.
    output: bool,
}

const CHUNK: usize = 4096;

impl Streams {
    /// Looks at the caller's streams and decides for each.
    pub(crate) fn of_caller() -> Result<Self, LaunchError> {
        let step = |source| LaunchError::Step { what: "prepare the standard streams", source };
        let callers = [
            syscalls::duplicate(io::stdin()).map_err(step)?,
            syscalls::duplicate(io::stdout()).map_err(step)?,
            syscalls::duplicate(io::stderr()).map_err(step)?,
        ];
        let mut made = Self {
            agent: [Stream::Terminal, Stream::Terminal, Stream::Terminal],
            terminal: None,
            interactive: false,
            flows: Vec::new(),
        };
        for (number, caller) in callers.into_iter().enumerate() {
            let stream = made.stream(number, caller).map_err(step)?;
            if let Some(slot) = made.agent.get_mut(number) {
                *slot = stream;
            }
        }
        Ok(made)
    }

    fn stream(&mut self, number: usize, caller: File) -> io::Result<Stream> {
        const NAMES: [&str; 3] = ["input", "output", "error"];
        if isatty(&caller).unwrap_or(false) {
            self.interactive |= number == 0;
            self.terminal.get_or_insert(caller);
            return Ok(Stream::Terminal);
        }
        let kind = SFlag::from_bits_truncate(fstat(&caller)?.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFCHR => Ok(Stream::File(caller)),
            SFlag::S_IFSOCK => {
                let (out, into) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                let (agent, from, to) =
                    if number == 0 { (out, caller, into.into()) } else { (into, out.into(), caller) };
                self.flows.push(Flow::new(from, to, number != 0));
                Ok(Stream::File(agent.into()))
            }
            _ => Err(io::Error::other(format!(
                "standard {} is neither a file, a pipe, a terminal nor a socket: redirect it, for example from or to \
                 /dev/null",
                NAMES.get(number).unwrap_or(&"stream")
            ))),
        }
    }

    /// The streams, for the plan of the run's first process.
    pub(crate) fn for_agent(&self) -> io::Result<[Stream; 3]> {
        let [input, output, errors] = &self.agent;
        Ok([input.copy()?, output.copy()?, errors.copy()?])
    }

    /// Closes the launcher's copies of the agent's ends and takes the agent's terminal, if it has one.
    pub(crate) fn hand_over(self, master: Option<OwnedFd>) -> Result<Relay, LaunchError> {
        let step = |source| LaunchError::Step { what: "connect the terminal", source };
        drop(self.agent);
        let mut relay = Relay { flows: self.flows, terminal: None, saved: None };
        let (Some(terminal), Some(master)) = (self.terminal, master.map(File::from)) else {
            return Ok(relay);
        };
        let _ = syscalls::copy_window_size(terminal.as_fd(), master.as_fd());
        let settings = tcgetattr(&terminal).map_err(|e| step(e.into()))?;
        let mut inner = settings.clone();
        if self.interactive {
            let mut raw = settings.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&terminal, SetArg::TCSADRAIN, &raw).map_err(|e| step(e.into()))?;
            relay.saved = Some((terminal.try_clone().map_err(step)?, settings));
            relay.flows.push(Flow::new(
                terminal.try_clone().map_err(step)?,
                master.try_clone().map_err(step)?,
                false,
            ));
        } else {
            // The caller's terminal still ends lines itself.
            inner.output_flags.remove(OutputFlags::OPOST);
        }
        tcsetattr(&master, SetArg::TCSANOW, &inner).map_err(|e| step(e.into()))?;
        relay.flows.push(Flow::new(
            master.try_clone().map_err(step)?,
            terminal.try_clone().map_err(step)?,
            true,
        ));
        relay.terminal = Some((terminal, master));
        Ok(relay)
    }
}

/// Moves bytes and signals until the run's first process ends.
#[derive(Debug)]
pub(crate) struct Relay {
    flows: Vec<Flow>,
    terminal: Option<(File, File)>,
    saved: Option<(File, Termios)>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some((terminal, settings)) = &self.saved {
            let _ = tcsetattr(terminal, SetArg::TCSADRAIN, settings);
        }
    }
}

/// The signals that are for the agent.
pub(crate) fn forwarded() -> SigSet {
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGWINCH,
    ]
    .into_iter()
    .collect()
}

impl Relay {
    /// Runs until the process behind `init` is gone and its output is out. The signals of [`forwarded`] must be
    /// blocked.
    pub(crate) fn until_end(&mut self, init: BorrowedFd<'_>) -> io::Result<()> {
        let signals = SignalFd::with_flags(&forwarded(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut over = false;
        loop {
            self.flows.retain(|flow| flow.is_open() && (flow.output || !over));
            if over && self.flows.is_empty() {
                return Ok(());
            }
            let ready = {
                let mut waits: Vec<PollFd<'_>> = self.flows.iter().filter_map(Flow::wait).collect();
                if !over {
                    waits.push(PollFd::new(init, PollFlags::POLLIN));
                    waits.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
                }
                // All writers are dead once the run is over: what is left is there already.
                let patience = if over { PollTimeout::from(1000u16) } else { PollTimeout::NONE };
                match poll(&mut waits, patience) {
                    Ok(0) if over => return Ok(()),
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
                waits.iter().map(|wait| wait.any().unwrap_or(true)).collect::<Vec<bool>>()
            };
            let (flows, others) = ready.split_at(self.flows.len().min(ready.len()));
            for (flow, _) in self.flows.iter_mut().zip(flows).filter(|(_, ready)| **ready) {
                flow.advance();
            }
            if let [ended, signalled] = others {
                over = *ended;
                if *signalled {
                    self.pass_on(&signals, init)?;
                }
            }
        }
    }

    fn pass_on(&self, signals: &SignalFd, init: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(signal) = signals.read_signal()? {
            let Ok(signal) = i32::try_from(signal.ssi_signo)
                .map_err(io::Error::other)
                .and_then(|number| Signal::try_from(number).map_err(io::Error::from))
            else {
                continue;
            };
            match (&self.terminal, signal) {
                // The agent's terminal tells its foreground processes itself.
                (Some((outer, inner)), Signal::SIGWINCH) => {
                    let _ = syscalls::copy_window_size(outer.as_fd(), inner.as_fd());
                }
                // A run that has just ended needs no signal.
                _ => drop(syscalls::pidfd_signal(init, signal)),
            }
        }
        Ok(())
    }
}

impl Flow {
    fn new(from: File, to: File, output: bool) -> Self {
        Self { from: Some(from), to: Some(to), pending: Vec::new(), output }
    }

    fn is_open(&self) -> bool {
        self.from.is_some() && self.to.is_some()
    }

    fn wait(&self) -> Option<PollFd<'_>> {
        let (file, flags) = match self.pending.is_empty() {
            true => (self.from.as_ref()?, PollFlags::POLLIN),
            false => (self.to.as_ref()?, PollFlags::POLLOUT),
        };
        Some(PollFd::new(file.as_fd(), flags))
    }

    /// One read or one write, whichever was waited for. Any failure ends the flow and closes both ends.
    fn advance(&mut self) {
        let (Some(from), Some(to)) = (&mut self.from, &mut self.to) else { return };
        let goes_on = if self.pending.is_empty() {
            let mut chunk = [0; CHUNK];
            let read = from.read(&mut chunk);
            self.pending
                .extend(read.as_ref().ok().and_then(|length| chunk.get(..*length)).unwrap_or_default());
            read.is_ok_and(|length| length > 0)
        } else {
            to.write(&self.pending).map(|length| drop(self.pending.drain(..length))).is_ok()
        };
        if !goes_on {
            self.close();
        }
    }

    fn close(&mut self) {
        self.from = None;
        self.to = None;
    }
}
