//! Every way around capture, tried for real: captured, as three kinds of user, and without capture, so that an attempt
//! that could not have worked proves nothing. A sniffer beyond the host has the last word.
//!
//! Promises: a way is told closed only where the same attempt got through without capture, nothing of it reached the
//! world, and what closed it is known; what could not be tried here is told so.

pub mod catalogue;
pub mod judge;
mod kernels;
mod page;
mod stage;

use std::{thread, time::Duration};

use serde::{Deserialize, Serialize};

pub use kernels::{Account, tables};
pub use page::{Facts, Lsm, text};
pub use stage::listeners;

use self::{
    catalogue::{ATTACHED, Attempt, OPTIONAL, ROWS, Row},
    judge::State,
    stage::{PERSON, Stage},
};
use crate::{Bed, Installation, RunningBed, Setup};

/// How the one who tries was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// By `interceptor run`.
    Launched,
    /// By `interceptor attach --pid`.
    Attached,
    /// By `interceptor attach --cgroup`.
    Enclosed,
}

impl Mode {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Launched, Self::Attached, Self::Enclosed];

    /// What leads to it, as the head of a table.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Launched => "`run`",
            Self::Attached => "`attach --pid`",
            Self::Enclosed => "`attach --cgroup`",
        }
    }

    /// As whom ways are tried, in the order of the table. Who is root is not attached to.
    pub fn identities(self) -> &'static [Identity] {
        match self {
            Self::Launched => IDENTITIES,
            Self::Attached | Self::Enclosed => &IDENTITIES[..2],
        }
    }

    /// What is to be known of a way.
    pub fn said(self, row: &Row) -> &'static str {
        match self {
            Self::Launched => row.said,
            Self::Attached | Self::Enclosed => {
                ATTACHED.iter().find(|(number, _)| *number == row.number).map_or(row.said, |(_, said)| said)
            }
        }
    }
}

/// As whom ways are tried.
#[derive(Debug)]
pub struct Identity {
    /// In the table's head.
    pub name: &'static str,
    uid: u32,
    capabilities: &'static [&'static str],
    becomes: Becomes,
}

/// Whom the run's user becomes before it tries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// Nobody else.
    Itself,
    /// Root, by a program whose file says so, with the identity's capabilities.
    Root,
}

/// Docker's default capabilities, but for `mknod`, which no run may keep.
const DOCKER: &[&str] = &[
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
];

/// What root has by sudo.
const SUDO: &[&str] = &[
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "net_bind_service",
    "sys_chroot",
    "setfcap",
];

/// A uid that nothing else on the host runs as.
const NOBODY: u32 = 65_534;

const IDENTITIES: &[Identity] = &[
    Identity { name: "nobody", uid: NOBODY, capabilities: &[], becomes: Becomes::Itself },
    Identity { name: "the person's uid", uid: PERSON, capabilities: &[], becomes: Becomes::Itself },
    Identity { name: "root, Docker's capabilities", uid: 0, capabilities: DOCKER, becomes: Becomes::Itself },
    Identity { name: "root by sudo", uid: PERSON, capabilities: SUDO, becomes: Becomes::Root },
];

impl Identity {
    /// The options of `interceptor run`.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["--user".to_owned(), self.uid.to_string()];
        match self.becomes {
            Becomes::Itself => {
                for capability in self.capabilities {
                    options.extend(["--capability".to_owned(), (*capability).to_owned()]);
                }
            }
            Becomes::Root => options.push("--sudo".to_owned()),
        }
        options
    }

    /// The options of `setpriv` that make the same without capture.
    fn outside(&self) -> Vec<String> {
        let uid = match self.becomes {
            Becomes::Itself => self.uid,
            Becomes::Root => 0,
        };
        let mut options =
            vec![format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
        if uid == 0 {
            let kept: String = self.capabilities.iter().map(|name| format!(",+{name}")).collect();
            options.push(format!("--bounding-set=-all{kept}"));
        }
        options
    }
}

/// What an attempt came to, as each identity.
#[derive(Debug)]
pub struct Tried {
    /// What was tried.
    pub attempt: &'static Attempt,
    /// In the order of [`Mode::identities`].
    pub states: Vec<State>,
    /// Whether it got through without capture as that identity, or only as root.
    pub by_itself: Vec<bool>,
}

/// What a way came to.
#[derive(Debug)]
pub struct Outcome {
    /// The way.
    pub row: &'static Row,
    /// Its attempts.
    pub tried: Vec<Tried>,
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Report {
    /// How whoever tried was captured.
    pub mode: Mode,
    /// A way each.
    pub outcomes: Vec<Outcome>,
    /// Frames that came when no attempt was under way.
    pub late: usize,
}

impl Report {
    /// Whether the page says that it is open.
    fn is_known(&self, row: &Row) -> bool {
        match self.mode {
            Mode::Launched => false,
            Mode::Attached | Mode::Enclosed => ATTACHED.iter().any(|(number, _)| *number == row.number),
        }
    }

    /// What is wrong: ways that are open and not known to be, attempts that could not be tried, late frames.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.late > 0 {
            faults.push(format!("{} frames left when no attempt was under way", self.late));
        }
        for Outcome { row, tried } in &self.outcomes {
            for (one, (identity, state)) in tried
                .iter()
                .flat_map(|one| self.mode.identities().iter().zip(&one.states).map(move |pair| (one, pair)))
            {
                let fault = match state {
                    State::Open { evidence } if !self.is_known(row) => {
                        format!("open: {evidence}")
                    }
                    State::Absent { evidence }
                        if evidence != "as in `run`" && !OPTIONAL.contains(&one.attempt.name) =>
                    {
                        evidence.clone()
                    }
                    _ => continue,
                };
                let (name, at) = (one.attempt.name, one.attempt.at);
                faults.push(format!("{} {name} ({at:?}) as {}: {fault}", row.number, identity.name));
            }
        }
        faults
    }
}

/// Tries everything.
pub fn perform(mode: Mode) -> Report {
    let bed = Bed::start();
    let plain = Setup::of(&bed).start();
    stage::make_ready(&plain);
    let columns: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = mode
            .identities()
            .iter()
            .map(|identity| scope.spawn(|| column(mode, identity, &bed, &plain)))
            .collect();
        all.into_iter().map(|column| column.join().expect("a trial ends well")).collect()
    });
    plain.finish();
    let late = columns.iter().map(|(_, late)| late).sum();
    let mut columns: Vec<_> = columns.into_iter().map(|(states, _)| states.into_iter()).collect();
    let outcomes = ROWS.iter().map(|row| {
        let tried = row.attempts.iter().map(|attempt| {
            let column = columns.iter_mut().map(|column| column.next().expect("each has all"));
            let (states, by_itself) = column.unzip();
            Tried { attempt, states, by_itself }
        });
        Outcome { row, tried: tried.collect() }
    });
    Report { mode, outcomes: outcomes.collect(), late }
}

/// All attempts as one identity, in their order, and the frames that came late.
fn column(
    mode: Mode,
    identity: &'static Identity,
    bed: &RunningBed,
    plain: &Installation,
) -> (Vec<(State, bool)>, usize) {
    let mut stage = Stage::set(mode, identity, bed, plain);
    let attempts = ROWS.iter().flat_map(|row| row.attempts);
    let states = attempts
        .map(|attempt| match stage.tried(attempt) {
            Some((captured, same, root)) => (captured.judged(mode, attempt, &root), same.worked(attempt.at)),
            None => (State::Absent { evidence: "as in `run`".to_owned() }, true),
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    (states, stage.finish())
}
