//! What an attempt came to, from what the agent, the kernel side's counters and the sniffer say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Mode,
    catalogue::{Aim, Attempt, Means},
};

/// What an attempt itself says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Whether the kernel let it.
    pub done: bool,
    /// What it got.
    pub said: String,
    /// The call that failed.
    #[serde(default)]
    pub call: String,
    /// How.
    #[serde(default)]
    pub errno: String,
}

/// Everything that was seen of an attempt.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its own word.
    pub answer: Answer,
    /// Frames that reached the world.
    pub frames: usize,
    /// The kernel side's counters that rose.
    pub counters: BTreeMap<String, u64>,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It was closed, by this, and so it showed.
    Closed {
        /// By what.
        by: String,
        /// How it showed.
        evidence: String,
    },
    /// This host has no such way, captured or not.
    Absent {
        /// How that showed.
        evidence: String,
    },
    /// It is open, or it cannot be said what closed it.
    Open {
        /// How that showed.
        evidence: String,
    },
}

/// Which hook counts under which name.
const HOOKS: &[(&str, &str)] = &[
    ("dropped-egress", "egress hook"),
    ("dropped-ingress", "ingress hook"),
    ("refused-socket", "sock_create hook"),
    ("refused-option", "setsockopt hook"),
    ("refused-bind", "post_bind hook"),
    ("refused-listen", "post_bind hook"),
    ("refused-udp", "connect and sendmsg hooks"),
    ("refused-protocol", "connect and sendmsg hooks"),
    ("refused-namespace", "connect and sendmsg hooks"),
    ("refused-quota", "connect and sendmsg hooks"),
    ("refused-unix", "connect_unix hook"),
    ("refused-family", "LSM"),
    ("refused-peer", "LSM"),
    ("refused-passed", "LSM"),
    ("refused-trace", "LSM"),
    ("refused-ring", "LSM"),
    ("refused-rights", "LSM"),
    ("refused-typing", "LSM"),
    ("redirected", "connect hook, proxy"),
    ("dns-redirected", "connect and sendmsg hooks, resolver"),
];

impl Seen {
    /// Whether it got what it wanted, without capture.
    pub fn worked(&self, at: Aim) -> bool {
        if at == Aim::World || at == Aim::Inherited || at == Aim::StandardInput {
            self.frames > 0
        } else {
            self.answer.done || self.frames > 0
        }
    }

    /// What it came to in capture, given what it came to without, by somebody who may do anything.
    pub fn judged(&self, mode: Mode, attempt: &Attempt, control: &Self) -> State {
        let answer = &self.answer;
        if self.frames > 0 {
            return State::Open { evidence: format!("{} frames left", self.frames) };
        }
        if matches!(answer.errno.as_str(), "BROKEN" | "TIMEOUT") {
            return State::Open { evidence: format!("not tried: {} {}", answer.errno, answer.said) };
        }
        if !control.worked(attempt.at) {
            let without = if control.answer.done { "nothing left".to_owned() } else { control.evidence() };
            return State::Absent { evidence: format!("not on this host: {without}") };
        }
        let hook = HOOKS.iter().find(|(counter, _)| self.counters.contains_key(*counter));
        if let Some((counter, hook)) = hook.filter(|_| !answer.done || attempt.at == Aim::World) {
            // What the proxy turns away shows now so, now so: what counts is that it got there.
            let evidence = if answer.done || counter.ends_with("redirected") {
                (*counter).to_owned()
            } else {
                format!("{}, {counter}", self.evidence())
            };
            return State::Closed { by: (*hook).to_owned(), evidence };
        }
        if answer.done {
            return State::Open { evidence: answer.said.clone() };
        }
        let shows = |means: &Means| means.shows_as().contains(&answer.errno.as_str());
        let by = match mode {
            Mode::Launched => attempt.by.iter().copied().filter(|means| means.is_of_runs()).find(shows),
            Mode::Attached | Mode::Enclosed => {
                let own = attempt.by.iter().copied().filter(|means| means.without_view());
                own.chain([Means::Reset, Means::Rights]).find(shows)
            }
        };
        match by {
            Some(means) => State::Closed { by: means.name().to_owned(), evidence: self.evidence() },
            None => State::Open { evidence: format!("unexplained: {}", self.evidence()) },
        }
    }

    /// The call and how it failed.
    fn evidence(&self) -> String {
        format!("{}: {}", self.answer.call, self.answer.errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Attempt = Attempt { name: "x", at: Aim::World, by: &[Means::Filter] };

    fn seen(done: bool, frames: usize, errno: &str, counters: &[&str]) -> Seen {
        let answer = Answer { done, said: String::new(), call: "socket".into(), errno: errno.into() };
        Seen { answer, frames, counters: counters.iter().map(|name| ((*name).to_owned(), 1)).collect() }
    }

    #[test]
    fn a_way_is_closed_only_where_it_was_real_and_something_explains_it() {
        let real = seen(true, 1, "", &[]);
        let judged = |captured: &Seen, control: &Seen| captured.judged(Mode::Launched, &ATTEMPT, control);
        let open = |state: &State| matches!(state, State::Open { .. });
        assert!(open(&judged(&seen(true, 1, "", &["redirected"]), &real)), "a frame is the last word");
        assert!(open(&judged(&seen(true, 0, "", &[]), &real)), "done, and nothing says why nothing left");
        assert!(open(&judged(&seen(false, 0, "EIO", &[]), &real)), "an errno that nobody expects");
        assert!(open(&judged(&seen(false, 0, "BROKEN", &[]), &real)), "a broken attempt proves nothing");
        let absent = judged(&seen(false, 0, "EPERM", &[]), &seen(false, 0, "EAFNOSUPPORT", &[]));
        assert!(matches!(absent, State::Absent { .. }), "no control, no proof");
        let closed = judged(&seen(false, 0, "EPERM", &["refused-socket"]), &real);
        assert_eq!(
            closed,
            State::Closed { by: "sock_create hook".into(), evidence: "socket: EPERM, refused-socket".into() }
        );
        let closed = judged(&seen(false, 0, "EPERM", &[]), &real);
        assert_eq!(closed, State::Closed { by: "seccomp".into(), evidence: "socket: EPERM".into() });
    }
}
