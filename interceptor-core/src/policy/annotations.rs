//! What a rule carries besides its condition. Cedar checks none of it, so it is checked here: an annotation that
//! is not known, or whose value makes no sense, is a fault.

use cedar_policy::{Effect, Policy as CedarPolicy};

use crate::{inventory::Inventory, model::RuleId, permit::Rule, undo};

/// The longest `@say`, in characters: it goes into an error message of the protocol.
const LONGEST_SAY: usize = 500;

/// The longest `@within`, in seconds.
const LONGEST_WITHIN: u64 = 7 * 24 * 3600;

/// How loudly a rule that takes part in a verdict is to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alert {
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warning,
    /// Worth waking somebody.
    Critical,
}

/// What becomes of a run that asks for more than it may have open: `@flood`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flood {
    /// What is too much is refused.
    #[default]
    Refuse,
    /// The run is frozen as well, until somebody says that it may go on.
    Freeze,
}

/// A rule and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The rule.
    pub rule: Rule,
    /// Whether it permits rather than forbids.
    pub permits: bool,
    /// Groups whose approval lifts it: `@hold`. Empty for a rule that does not hold.
    pub hold: Vec<String>,
    /// How long an approval may be waited for, in seconds: `@within`.
    pub within: Option<u64>,
    /// What becomes of a run that asks for too much by it: `@flood`.
    pub flood: Flood,
    /// How loudly it is reported: `@alert`.
    pub alert: Option<Alert>,
    /// Of how many rows that a statement is about to change images are taken: `@undo`.
    pub undo: Option<u64>,
}

/// Reads the annotations of a rule that stands at `file` and `line`; adds what is wrong to `wrong`.
pub(super) fn read(
    policy: &CedarPolicy,
    file: &str,
    line: usize,
    inventory: &Inventory,
    wrong: &mut Vec<String>,
) -> Annotated {
    let mut annotated = Annotated {
        rule: Rule { id: String::new(), file: file.to_owned(), line, say: None },
        permits: policy.effect() == Effect::Permit,
        hold: Vec::new(),
        within: None,
        flood: Flood::Refuse,
        alert: None,
        undo: None,
    };
    for (key, value) in policy.annotations() {
        if let Err(message) = annotated.set(key, value, inventory) {
            wrong.push(message);
        }
    }
    if annotated.rule.id.is_empty() && policy.annotation("id").is_none() {
        wrong.push("a rule without `@id(\"...\")`: refusals and records name rules by it".to_owned());
    }
    if annotated.within.is_some() && policy.annotation("hold").is_none() {
        wrong.push("`@within` says how long `@hold` waits, and there is no `@hold`".to_owned());
    }
    if annotated.flood == Flood::Freeze && policy.annotation("hold").is_none() {
        wrong.push("`@flood` is about what `@hold` asks for, and there is no `@hold`".to_owned());
    }
    if annotated.undo.is_some() && !annotated.permits && policy.annotation("hold").is_none() {
        wrong.push(
            "`@undo` on a forbid without `@hold` does nothing: put it on what lets statements pass"
                .to_owned(),
        );
    }
    annotated
}

impl Annotated {
    fn set(&mut self, key: &str, value: &str, inventory: &Inventory) -> Result<(), String> {
        match key {
            "id" => {
                let id: RuleId = value.parse().map_err(|error| format!("`@id`: {error}"))?;
                self.rule.id = id.into();
            }
            "say" => self.rule.say = Some(say(value)?),
            "hold" if self.permits => {
                return Err(
                    "`@hold` on a permit does nothing: put it on a forbid that an approval lifts".to_owned()
                );
            }
            "hold" => self.hold = hold(value, inventory)?,
            "within" => self.within = Some(within(value)?),
            "flood" if value == "freeze" => self.flood = Flood::Freeze,
            "flood" => {
                return Err("`@flood` is \"freeze\"; without it, what is too much is refused".to_owned());
            }
            "alert" => self.alert = Some(alert(value)?),
            "undo" => self.undo = Some(undo(value)?),
            other => {
                return Err(format!(
                    "unknown annotation `@{other}`; there are @id, @say, @hold, @within, @flood, @alert and @undo"
                ));
            }
        }
        Ok(())
    }
}

fn say(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.is_empty() || value.chars().count() > LONGEST_SAY || value.chars().any(char::is_control) {
        return Err(format!("`@say` is one line of 1 to {LONGEST_SAY} characters"));
    }
    Ok(value.to_owned())
}

fn hold(value: &str, inventory: &Inventory) -> Result<Vec<String>, String> {
    let mut groups: Vec<String> = Vec::new();
    for group in value.split(',').map(str::trim) {
        if !inventory.approvers.iter().any(|known| known == group) {
            return Err(format!(
                "`@hold`: `{group}` is not among `approvers` in resources.toml; add it there"
            ));
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    Ok(groups)
}

fn within(value: &str) -> Result<u64, String> {
    let wrong =
        || "`@within` is a number and `s`, `m`, `h` or `d`, such as \"15m\", of at most 7d".to_owned();
    let unit = match value.bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = value.get(..value.len() - 1).unwrap_or_default();
    let number = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    number
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| (1..=LONGEST_WITHIN).contains(seconds))
        .ok_or_else(wrong)
}

fn undo(value: &str) -> Result<u64, String> {
    let digits = Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.map(|digits| if digits.is_empty() { Ok(undo::ROWS) } else { digits.parse() }) {
        Some(Ok(rows)) if (1..=undo::MOST_ROWS).contains(&rows) => Ok(rows),
        _ => Err(format!("`@undo` is a number of rows, such as \"1000\", of at most {}", undo::MOST_ROWS)),
    }
}

fn alert(value: &str) -> Result<Alert, String> {
    match value {
        "info" => Ok(Alert::Info),
        "warning" => Ok(Alert::Warning),
        "critical" => Ok(Alert::Critical),
        other => Err(format!("`@alert` is \"info\", \"warning\" or \"critical\", not {other:?}")),
    }
}
