//! The log-in session that a process is in, by what the kernel says of it.
//!
//! Promise: what is told is of the very process that is named, not of another that has its number by now.

use std::{fs, io};

/// A user number, or a session's, that means none.
const UNSET: u32 = u32::MAX;
/// What a clock tick of `/proc` lasts, in nanoseconds: it has a hundred a second on every architecture of ours.
pub(super) const TICK: u64 = 10_000_000;

/// The user of the log-in session of process `pid`, which started `start_time` nanoseconds after the boot; as PAM has set
/// it. None where there is no such session, or the process cannot be looked at.
pub fn of(pid: u32, start_time: u64) -> Option<u32> {
    let read = || -> io::Result<Option<u32>> {
        let (login, session) = (number(pid, "loginuid")?, number(pid, "sessionid")?);
        // All of that was read of the process that is meant, if it is there still.
        let same = started(pid)? == start_time / TICK;
        Ok(Some(login).filter(|login| same && *login != UNSET && session != UNSET))
    };
    read().ok().flatten()
}

/// A process that a person named, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shell {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks since the boot.
    pub ticks: u64,
}

impl Shell {
    /// Whether it is the process with that number that started then, in nanoseconds since the boot.
    pub fn is(self, pid: u32, start_time: u64) -> bool {
        self.pid == pid && self.ticks == start_time / TICK
    }
}

/// The process `pid`, which must be in a log-in session of the user `uid`.
pub fn shell(pid: u32, uid: u32) -> Option<Shell> {
    let ticks = started(pid).ok()?;
    (of(pid, ticks.checked_mul(TICK)?) == Some(uid)).then_some(Shell { pid, ticks })
}

fn number(pid: u32, file: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// When it started, in ticks: the 22nd field of `stat`, counted from behind the name, which may hold anything.
fn started(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind = stat.rsplit_once(") ").map(|(_, behind)| behind);
    let field = behind.and_then(|behind| behind.split(' ').nth(19)).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("an unreadable stat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_that_number_is_nobody() {
        let own = std::process::id();
        let ticks = started(own).expect("this process");
        let logged_in = |file| number(own, file).expect("a number") != UNSET;
        let expected = (logged_in("loginuid") && logged_in("sessionid"))
            .then(|| number(own, "loginuid").expect("a number"));
        assert_eq!(of(own, ticks * TICK + 1), expected);
        assert_eq!(of(own, (ticks + 1) * TICK), None);
        assert_eq!(of(u32::MAX, 0), None);
    }
}
