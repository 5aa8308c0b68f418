//! Which part of the past a command is about.

use std::str::FromStr;

use clap::Args;
use interceptor_core::model::{AgentName, ResourceName, RunId};
use jiff::{Span, Timestamp, Zoned, civil};

use crate::store::Filter;

/// Which of the agents' own records; all that is given must match.
#[derive(Debug, Args)]
pub(super) struct Past {
    /// An agent.
    #[arg(long)]
    agent: Option<AgentName>,
    /// A resource.
    #[arg(long)]
    resource: Option<ResourceName>,
    /// A run.
    #[arg(long)]
    run: Option<RunId>,
    /// Not before: a time span ago (`2h`, `7d`) or a time (`2026-01-31`, `2026-01-31T12:00`).
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
}

impl Past {
    /// What to look for in the record.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            author: Some("agent".to_owned()),
            agent: self.agent.as_ref().map(ToString::to_string),
            resource: self.resource.as_ref().map(ToString::to_string),
            run: self.run,
            since: self.since.as_ref().map(|since| since.0),
            ..Filter::default()
        }
    }
}

/// A time, in microseconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since(i64);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let now = Zoned::now();
        let local = |time: civil::DateTime| time.to_zoned(now.time_zone().clone()).map(|at| at.timestamp());
        let at = if let Ok(ago) = text.parse::<Span>() {
            now.checked_sub(ago).map(|at| at.timestamp()).map_err(|error| error.to_string())
        } else if let Ok(at) = text.parse::<Timestamp>() {
            Ok(at)
        } else {
            let time = text.parse::<civil::DateTime>().and_then(local);
            time.map_err(|_| {
                "give a time span such as `2h` or `7d`, or a time such as `2026-01-31T12:00`".to_owned()
            })
        }?;
        Ok(Self(at.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_span_ago_or_a_time() {
        let now = Timestamp::now().as_microsecond();
        let since = |text: &str| text.parse::<Since>().map(|since| since.0);
        let day = 24 * 3600 * 1_000_000;
        assert!(since("2h").is_ok_and(|at| at > now - day && at < now));
        assert!(since("7d").is_ok_and(|at| at < now - 6 * day && at > now - 8 * day));
        assert_eq!(since("2026-01-31T12:00:00Z"), Ok(1_769_860_800_000_000));
        assert!(since("2026-01-31").is_ok_and(|at| (at - 1_769_817_600_000_000_i64).abs() <= day));
        assert!(since("yesterday").is_err());
        assert!(since("").is_err());
    }
}
