//! What the product is meant to reach, and how far it is.

use super::{
    measured::{Measured, Middle},
    table::aligned,
};

/// One aim.
pub(crate) struct Goal {
    what: &'static str,
    /// What must be reached, and what is aimed at. The first is the less demanding.
    bounds: [f64; 2],
    decimals: usize,
    reached: fn(&Measured, &str) -> Option<Middle>,
    /// Who else is asked the same.
    rival: Option<&'static str>,
}

const BOUNCER: Option<&str> = Some("pgbouncer");

/// Those of the product as a whole.
pub(crate) const GOALS: &[Goal] = &[
    goal(
        "simple, 1 client: rate, of the relay's",
        [0.88, 0.95],
        3,
        |m, t| rate(m, "simple, 1 client", t),
        BOUNCER,
    ),
    goal(
        "simple, 8 clients: rate, of the relay's",
        [0.90, 0.97],
        3,
        |m, t| rate(m, "simple, 8 clients", t),
        BOUNCER,
    ),
    goal(
        "extended, 8 clients: rate, of the relay's",
        [0.90, 0.97],
        3,
        |m, t| rate(m, "extended, 8 clients", t),
        BOUNCER,
    ),
    goal(
        "prepared, 8 clients: rate, of the relay's",
        [0.90, 0.97],
        3,
        |m, t| rate(m, "prepared, 8 clients", t),
        BOUNCER,
    ),
    goal(
        "simple, 8 clients: the proxy's processor time, of the relay's",
        [1.5, 1.15],
        2,
        |m, t| m.ratio("throughput", "simple, 8 clients", "processor proxy", [t, "relay"]),
        BOUNCER,
    ),
    goal(
        "simple, 1 client: system calls for each",
        [6.1, 6.0],
        2,
        |m, t| calls(m, "simple, 1 client", t),
        BOUNCER,
    ),
    goal(
        "simple, 8 clients: system calls for each",
        [5.0, 4.4],
        2,
        |m, t| calls(m, "simple, 8 clients", t),
        BOUNCER,
    ),
    goal(
        "1000 a second: p50 over direct, us",
        [60.0, 25.0],
        0,
        |m, t| m.difference("latency", "1000 simple queries a second", "p50", [t, "direct"]),
        BOUNCER,
    ),
    goal(
        "100 000 rows: rate, of the relay's",
        [0.9, 1.0],
        3,
        |m, t| m.ratio("large", "100 000 rows", "rate", [t, "relay"]),
        BOUNCER,
    ),
    goal(
        "100 000 rows, of which the first are recorded: rate, of the relay's",
        [0.7, 0.85],
        3,
        |m, _| m.ratio("large", "100 000 rows", "rate", ["rows", "relay"]),
        None,
    ),
    goal(
        "10 000 000 rows: the proxy's growth, MiB",
        [16.0, 4.0],
        1,
        |m, t| m.middle("large", "10 000 000 rows", t, "growth proxy"),
        None,
    ),
    goal(
        "an idle session, KiB",
        [12.0, 5.0],
        1,
        |m, t| m.middle("idle", "1000 idle sessions", t, "memory of a session proxy"),
        BOUNCER,
    ),
    goal(
        "the proxy at rest, MiB",
        [30.0, 15.0],
        1,
        |m, t| m.middle("idle", "at rest", t, "memory proxy"),
        BOUNCER,
    ),
    goal(
        "records on disk, 1/s",
        [20e3, 100e3],
        0,
        |m, t| m.middle("durability", "prepared, 8 clients, pipelines of 50", t, "records on disk"),
        None,
    ),
    goal("the hook of a captured connect, us", [3.0, 1.0], 2, hook, None),
    goal(
        "hooks on an uncaptured connect, us",
        [0.5, 0.2],
        2,
        |m, _| m.middle("hook", "an uncaptured connect", "direct", "time"),
        None,
    ),
    goal(
        "connects by `run`, whose launcher is asked: rate, of those by `attach`",
        [0.95, 1.0],
        3,
        |m, t| m.ratio("hook", "a captured connect", "connects", [t, "attached"]),
        None,
    ),
    goal(
        "new sessions by `run`: rate, of those by `attach`",
        [0.95, 1.0],
        3,
        |m, t| m.ratio("connects", "a session for each query", "rate", [t, "attached"]),
        None,
    ),
    goal(
        "processes that are not captured: rate, of the rate without the product",
        [0.995, 1.0],
        3,
        |m, _| m.ratio("outside", "simple, 8 clients", "rate", ["with the product", "without"]),
        None,
    ),
    goal("run -- true, ms", [50.0, 15.0], 1, |m, t| m.middle("launch", "run -- true", t, "time"), None),
    goal(
        "run -- true, fresh daemon, ms",
        [300.0, 100.0],
        1,
        |m, t| m.middle("launch", "run -- true, fresh daemon", t, "time"),
        None,
    ),
];

/// An aim: what, at least and what is aimed at, how it is shown and read, and who else is asked the same.
pub(crate) const fn goal(
    what: &'static str,
    bounds: [f64; 2],
    decimals: usize,
    reached: fn(&Measured, &str) -> Option<Middle>,
    rival: Option<&'static str>,
) -> Goal {
    Goal { what, bounds, decimals, reached, rival }
}

fn rate(measured: &Measured, load: &str, target: &str) -> Option<Middle> {
    measured.ratio("throughput", load, "rate", [target, "relay"])
}

fn calls(measured: &Measured, load: &str, target: &str) -> Option<Middle> {
    measured.middle("throughput", load, target, "system calls proxy")
}

/// The program that a connect runs, by whichever family of addresses.
fn hook(measured: &Measured, target: &str) -> Option<Middle> {
    let of = |program: &str| measured.middle("hook", "a captured connect", target, program);
    of("a run of connect6").or_else(|| of("a run of connect4"))
}

/// A row for each of `goals` that was measured of `target`, with another one's beside it.
pub(crate) fn table(goals: &[Goal], measured: &Measured, target: &str, beside: &str) -> String {
    let mut rows = vec![["what", "at least", "aim", "measured", "verdict", beside].map(str::to_owned)];
    for goal in goals {
        let Some(middle) = (goal.reached)(measured, target) else { continue };
        let decimals = goal.decimals;
        let number = |value: f64| format!("{value:.decimals$}");
        let [least, aim] = goal.bounds;
        let meets = |bound: f64| if least < aim { middle.median >= bound } else { middle.median <= bound };
        let verdict = match (meets(aim), meets(least)) {
            (true, _) => "aim",
            (false, true) => "reached",
            // Nothing is said that the next run may say otherwise.
            (false, false) if (middle.median - least).abs() <= 2.0 * middle.spread => "unclear",
            (false, false) => "missed",
        };
        let rival = goal.rival.and_then(|rival| (goal.reached)(measured, rival));
        rows.push([
            goal.what.to_owned(),
            number(least),
            number(aim),
            format!("{} ±{}", number(middle.median), number(middle.spread)),
            verdict.to_owned(),
            rival.map_or_else(String::new, |rival| number(rival.median)),
        ]);
    }
    if rows.len() == 1 { String::new() } else { aligned(&rows) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verdicts_follow_the_bounds() {
        let rest = |memory: f64| {
            json!([{"part": "idle", "load": "at rest", "target": "audit", "quantity": "memory proxy", "unit": "MiB",
                "values": [memory]}])
        };
        for (memory, verdict) in [(10.0, "aim"), (20.0, "reached"), (31.0, "missed")] {
            let table = table(
                GOALS,
                &serde_json::from_value(rest(memory)).expect("well-formed"),
                "audit",
                "pgbouncer",
            );
            assert!(table.contains(verdict), "{memory}: {table}");
        }
    }
}
