//! Holds back events that come too fast, so that a process that tries in a loop does not fill the record.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use interceptor_core::model::RunId;

/// How many events of one run are written in one window.
const IN_A_WINDOW: u64 = 100;
/// A window's length, in microseconds.
const WINDOW: i64 = 10_000_000;

/// Whether an event is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Yes.
    Now,
    /// Yes, and so many were not before it.
    NowAfter(u64),
    /// No; it is counted.
    NotNow,
}

#[derive(Debug, Default)]
struct Window {
    since: i64,
    written: u64,
    missed: u64,
}

/// The windows of all runs.
#[derive(Debug, Default)]
pub struct Flood(Mutex<HashMap<Option<RunId>, Window>>);

impl Flood {
    /// Whether one more event of `run` is to be written at `now`, in microseconds.
    pub(super) fn one_more(&self, run: Option<RunId>, now: i64) -> Told {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(run).or_default();
        if now.saturating_sub(window.since) >= WINDOW {
            let missed = window.missed;
            *window = Window { since: now, written: 1, missed: 0 };
            return if missed > 0 { Told::NowAfter(missed) } else { Told::Now };
        }
        if window.written < IN_A_WINDOW {
            window.written += 1;
            return Told::Now;
        }
        window.missed += 1;
        Told::NotNow
    }

    /// Forgets an ended run, and says how many of its events were left out and not told yet.
    pub fn forget(&self, run: RunId) -> u64 {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.remove(&Some(run)).map_or(0, |window| window.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told() {
        let flood = Flood::default();
        let (run, other) = (Some(RunId::from_random(1)), Some(RunId::from_random(2)));
        for _ in 0..IN_A_WINDOW {
            assert_eq!(flood.one_more(run, 1), Told::Now);
        }
        assert_eq!(flood.one_more(run, 2), Told::NotNow);
        assert_eq!(flood.one_more(run, 3), Told::NotNow);
        assert_eq!(flood.one_more(other, 3), Told::Now, "a neighbour is not held back");
        assert_eq!(flood.one_more(run, 1 + WINDOW), Told::NowAfter(2));
        assert_eq!(flood.one_more(run, 2 + WINDOW), Told::Now);
    }
}
