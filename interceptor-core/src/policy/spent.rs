//! What a run has spent, and at which values that may change an answer.
//!
//! Promises: the last sixty minutes count, by the minute, so that no moment begins a fresh budget; a rule compares what
//! was spent with plain numbers only, so that every value at which its answer may change is known when it is loaded.
//! Time is a value here, as everywhere in this crate.

use std::collections::{BTreeSet, VecDeque};

use cedar_policy::Policy as CedarPolicy;
use serde_json::{Map, Value};

use super::Policy;
use crate::model::{OutcomeRecord, Phase, RequestRecord, Spent, Verb};

/// The stack on which a rule is taken apart, in bytes: its text is limited, and so is its depth.
const STACK: usize = 32 * 1024 * 1024;
/// How many minutes count.
const MINUTES: i64 = 60;

/// The last hour of one run, in minutes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastHour {
    /// What each minute of the Unix epoch brought, oldest first; minutes that brought nothing are left out.
    minutes: VecDeque<(i64, Spent)>,
    total: Spent,
}

impl LastHour {
    /// Adds what was spent at `now`, in seconds of the Unix epoch.
    pub fn add(&mut self, now: i64, spent: Spent) {
        if spent.is_nothing() {
            return;
        }
        let minute = now.div_euclid(MINUTES);
        match self.minutes.back_mut() {
            // A clock that was set back does not make anything forgotten.
            Some((newest, so_far)) if *newest >= minute => *so_far = so_far.and(spent),
            _ => self.minutes.push_back((minute, spent)),
        }
        self.forget(now);
        self.count();
    }

    /// What the hour before `now` brought.
    pub fn total(&mut self, now: i64) -> Spent {
        if self.forget(now) {
            self.count();
        }
        self.total
    }

    /// Drops the minutes that are over; whether there were any.
    fn forget(&mut self, now: i64) -> bool {
        let first = now.div_euclid(MINUTES).saturating_sub(MINUTES);
        let before = self.minutes.len();
        while self.minutes.front().is_some_and(|(minute, _)| *minute <= first) {
            self.minutes.pop_front();
        }
        self.minutes.len() != before
    }

    fn count(&mut self) {
        self.total = self.minutes.iter().fold(Spent::default(), |sum, (_, spent)| sum.and(*spent));
    }
}

/// The values of what was spent at which the answer of a rule may become another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thresholds {
    rows: BTreeSet<u64>,
    changed: BTreeSet<u64>,
    statements: BTreeSet<u64>,
    bytes: BTreeSet<u64>,
}

impl Thresholds {
    /// Whether no rule reads what was spent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How much more of each can be spent before an answer may be another; `u64::MAX` where none ever may. Never 0.
    pub fn room(&self, spent: Spent) -> Spent {
        let room = |thresholds: &BTreeSet<u64>, spent: u64| {
            let next = spent.checked_add(1).and_then(|next| thresholds.range(next..).next());
            next.map_or(u64::MAX, |next| next.saturating_sub(spent))
        };
        Spent {
            rows: room(&self.rows, spent.rows),
            changed: room(&self.changed, spent.changed),
            statements: room(&self.statements, spent.statements),
            bytes: room(&self.bytes, spent.bytes),
        }
    }

    fn of(&mut self, attribute: &str) -> Option<&mut BTreeSet<u64>> {
        match attribute {
            "rows" => Some(&mut self.rows),
            "changed" => Some(&mut self.changed),
            "statements" => Some(&mut self.statements),
            "bytes" => Some(&mut self.bytes),
            _ => None,
        }
    }

    /// Adds those of a rule; why it cannot be used, if so.
    pub(super) fn add(&mut self, policy: &CedarPolicy) -> Option<&'static str> {
        // A condition may be nested deeply.
        stacker::grow(STACK, || self.add_compared(policy)).then_some(
            "`context.spent` is compared with plain numbers only, such as `context.spent.rows < 1000`: \
             the gate asks again when one of them is reached",
        )
    }

    /// Whether it reads what was spent otherwise than by comparing it with a number.
    fn add_compared(&mut self, policy: &CedarPolicy) -> bool {
        let json = policy.to_json().unwrap_or_default();
        let (mut read, mut compared) = (0_usize, 0_usize);
        let mut left: Vec<_> = json.get("conditions").into_iter().collect();
        while let Some(value) = left.pop() {
            read += usize::from(is_spent(value));
            match value {
                Value::Object(fields) => {
                    compared += self.compared(fields);
                    left.extend(fields.values());
                }
                Value::Array(list) => left.extend(list),
                _ => {}
            }
        }
        read != compared
    }

    /// Collects a comparison with a number; how many there are in this one expression.
    fn compared(&mut self, fields: &Map<String, Value>) -> usize {
        let mut count = 0;
        for operator in ["<", "<=", ">", ">=", "==", "!="] {
            let Some(sides) = fields.get(operator) else { continue };
            let (left, right) = (sides.get("left"), sides.get("right"));
            let (attribute, number) = match (left.and_then(spent), right.and_then(spent)) {
                (Some(attribute), None) => (attribute, right),
                (None, Some(attribute)) => (attribute, left),
                _ => continue,
            };
            let number = number.and_then(|side| side.get("Value")).and_then(Value::as_i64);
            let (Some(number), Some(thresholds)) = (number, self.of(attribute)) else { continue };
            count += 1;
            // The answer may change when the number is reached, or when it is passed.
            let reached = u64::try_from(number).unwrap_or(0);
            thresholds.extend([reached, reached.saturating_add(1)]);
        }
        count
    }
}

/// The attribute of `context.spent` that an expression is.
fn spent(value: &Value) -> Option<&str> {
    let access = value.get(".")?;
    is_spent(access.get("left")?).then_some(())?;
    access.get("attr")?.as_str()
}

fn is_spent(value: &Value) -> bool {
    value.pointer("/./left/Var").and_then(Value::as_str) == Some("context")
        && value.pointer("/./attr").and_then(Value::as_str) == Some("spent")
}

/// What a recorded statement spent. A statement that changes rows may also have sent them back, and the record counts
/// them once: they count as both.
pub fn of_record(request: &RequestRecord, outcome: Option<&OutcomeRecord>) -> Spent {
    if !request.verdict.allowed {
        return Spent::default();
    }
    let writes = request
        .action
        .facts
        .effects
        .iter()
        .any(|effect| matches!(effect.verb, Verb::DataInsert | Verb::DataUpdate | Verb::DataDelete));
    let rows = outcome.and_then(|outcome| outcome.rows).unwrap_or(0);
    Spent {
        rows,
        changed: if writes { rows } else { 0 },
        statements: u64::from(is_statement(request.action.phase)),
        bytes: outcome.map_or(0, |outcome| outcome.bytes),
    }
}

/// Whether an exchange in this form counts as a statement.
pub fn is_statement(phase: Phase) -> bool {
    matches!(phase, Phase::Query | Phase::Execute)
}

impl Policy {
    /// At which values of what a run has spent an answer may be another.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: u64) -> Spent {
        Spent { rows, ..Spent::default() }
    }

    #[test]
    fn an_hour_is_sixty_minutes_and_slides() {
        let mut hour = LastHour::default();
        hour.add(0, rows(5));
        hour.add(59, rows(1));
        hour.add(30 * 60, rows(10));
        assert_eq!(hour.total(59 * 60 + 59), rows(16));
        assert_eq!(hour.total(60 * 60), rows(10));
        assert_eq!(hour.total(90 * 60), rows(0));
        assert_eq!(hour, LastHour::default());
    }

    #[test]
    fn a_clock_that_was_set_back_forgets_nothing_and_memory_is_bounded() {
        let mut hour = LastHour::default();
        hour.add(10_000, rows(5));
        hour.add(0, rows(5));
        assert_eq!(hour.total(0), rows(10));
        for second in 0..100_000 {
            hour.add(20_000 + second, rows(1));
        }
        assert!(hour.minutes.len() <= 61);
        assert!((3540..=3600).contains(&hour.total(120_000 - 1).rows));
    }

    #[test]
    fn the_next_threshold_is_never_where_we_stand() {
        let mut thresholds = Thresholds::default();
        thresholds.rows.extend([1000, 1001]);
        assert_eq!(thresholds.room(rows(0)).rows, 1000);
        assert_eq!(thresholds.room(rows(999)).rows, 1);
        assert_eq!(thresholds.room(rows(1000)).rows, 1);
        assert_eq!(thresholds.room(rows(1001)).rows, u64::MAX);
        assert_eq!(thresholds.room(rows(u64::MAX)).rows, u64::MAX);
        assert_eq!(thresholds.room(rows(0)).bytes, u64::MAX);
    }
}
