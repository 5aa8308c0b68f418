//! How many connections there may be at once: of one run, and of all.
//!
//! Promises: no run takes more than half of what this process has descriptors for; what finds no seat is refused at once
//! and said, never left waiting for somebody who may never leave.

use std::{fmt, io, sync::Arc};

use interceptor_common::MAX_FLOWS_PER_RUN;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors for everything but connections.
const RESERVED: u64 = 500;
/// Descriptors for each connection: its own, and the one upstream.
const EACH: u64 = 2;

/// The seats of all runs.
#[derive(Debug)]
pub struct Seats {
    all: Arc<Semaphore>,
    of_one: usize,
}

/// Those of one run.
#[derive(Debug, Clone)]
pub(super) struct Share {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    most: usize,
}

/// One connection's seat, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Seat(#[expect(dead_code, reason = "held for its drop")] [OwnedSemaphorePermit; 2]);

/// There is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The run has as many connections as it may.
    Run(usize),
    /// All runs together have.
    All,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(most) => write!(f, "its run has the {most} connections that it may have at once"),
            Self::All => {
                f.write_str("all runs together have as many connections as the proxy has descriptors for")
            }
        }
    }
}

impl Seats {
    /// As many as this process's limit of descriptors allows.
    pub fn of_this_process() -> io::Result<Self> {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self::with(descriptors))
    }

    fn with(descriptors: u64) -> Self {
        let all = (descriptors.saturating_sub(RESERVED) / EACH).max(1);
        let of_one = MAX_FLOWS_PER_RUN.min(all.div_ceil(2));
        let count = |seats: u64| usize::try_from(seats).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(count(all))), of_one: count(of_one) }
    }

    /// The seats of a new run.
    pub(super) fn share(&self) -> Share {
        Share { all: self.all.clone(), own: Arc::new(Semaphore::new(self.of_one)), most: self.of_one }
    }
}

impl Share {
    /// A seat for one more connection.
    pub(super) fn take(&self) -> Result<Seat, Full> {
        let own = self.own.clone().try_acquire_owned().map_err(|_| Full::Run(self.most))?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| Full::All)?;
        Ok(Seat([own, all]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_leaves_half_to_the_others_and_seats_come_back() {
        let seats = Seats::with(RESERVED + 8);
        let (one, other) = (seats.share(), seats.share());
        let held: Vec<_> = (0..2).map(|_| one.take().expect("a seat")).collect();
        assert_eq!(one.take().expect_err("no more"), Full::Run(2));
        let others: Vec<_> = (0..2).map(|_| other.take().expect("a seat")).collect();
        assert_eq!(seats.share().take().expect_err("no more"), Full::All);
        drop((held, others));
        assert!(one.take().is_ok());
        assert_eq!(Seats::with(1 << 20).of_one as u64, MAX_FLOWS_PER_RUN);
        assert!(Seats::with(0).share().take().is_ok());
    }
}
