//! What policy wants of people before an exchange may go: who, how long they are waited for, and in which words the
//! agent hears of it.

use std::time::Duration;

use interceptor_core::{
    Denial, Judgement, Notice,
    approval::{OPEN_FOR, Standing, State},
    model::{OutcomeStatus, Phase, Verb},
    permit::{Held, Rule, Waits},
    policy::Flood,
};
use jiff::Timestamp;

use super::{Rules, Subject, first_id, resource_of, said};
use crate::approval::ApprovalError;

/// How long is waited on the wire when the rule does not say.
const WITHIN: u64 = 90;
/// When a client that waits is told that it does.
pub(super) const NOTICES: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(60)];

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<String>,
    /// How long the client is kept waiting.
    pub(super) wire: Duration,
    /// How long the request is open, in seconds.
    pub(super) open: u64,
    /// What becomes of a run that asks for too much.
    pub(super) flood: Flood,
    resource: String,
}

impl Wanted {
    /// What these judgements of one exchange want together. None where it needs nobody, or nobody can help.
    pub(super) fn of(rules: &Rules, subject: &Subject, judgements: &[Judgement]) -> Option<Self> {
        let (mut holding, mut groups) = (Vec::new(), Vec::new());
        for judgement in judgements {
            match judgement {
                Judgement::Allowed { .. } => {}
                Judgement::Denied { .. } => return None,
                Judgement::Held { rules, approvers, .. } => {
                    holding.extend(
                        rules.iter().filter(|rule| !holding.contains(*rule)).cloned().collect::<Vec<_>>(),
                    );
                    groups.extend(
                        approvers.iter().filter(|one| !groups.contains(*one)).cloned().collect::<Vec<_>>(),
                    );
                }
            }
        }
        let resource = resource_of(rules, subject).filter(|_| !holding.is_empty())?;
        let freezes =
            |rule: &Rule| rules.policy.rule(&rule.id).is_some_and(|rule| rule.flood == Flood::Freeze);
        let flood = if holding.iter().any(freezes) { Flood::Freeze } else { Flood::Refuse };
        let within = holding.iter().filter_map(|rule| rules.policy.rule(&rule.id)?.within).min();
        Some(Self {
            wire: Duration::from_secs(within.unwrap_or(WITHIN)).min(resource.hold_max),
            open: within.unwrap_or(0).max(OPEN_FOR),
            flood,
            resource: resource.name.to_string(),
            rules: holding,
            groups,
        })
    }

    fn people(&self) -> String {
        self.groups.join(" and ")
    }

    /// For the client that waits, `waited` after it began to.
    pub(super) fn notice(&self, standing: &Standing, waited: Duration) -> Notice {
        let word = if waited.is_zero() { "held" } else { "still held" };
        let (id, left) = (standing.id, self.wire.saturating_sub(waited).as_secs());
        Notice {
            message: format!(
                "{word}: on {} this waits for approval by {} (approval {id}, at most {left} s more)",
                self.resource,
                self.people()
            ),
            hint: said(&self.rules).unwrap_or_default(),
        }
    }

    fn denial(&self, message: String, hint: impl AsRef<str>) -> Denial {
        let say = said(&self.rules).map(|say| format!("{say} ")).unwrap_or_default();
        Denial {
            record: None,
            rule: first_id(&self.rules, "hold"),
            message,
            hint: format!("{say}Nothing was executed. {}", hint.as_ref()),
        }
    }

    /// It was waited for in vain, or not at all: the request stays open.
    pub(super) fn still_open(&self, standing: &Standing, waits: Waits) -> Denial {
        let (id, people) = (standing.id, self.people());
        let until = time(standing.closes_at);
        let later = format!("retry the same statement: it passes once when it is approved before {until}.");
        match waits {
            Waits::Here => {
                let waited = self.wire.as_secs();
                let message =
                    format!("not approved within {waited} s: approval {id} by {people} is still open");
                self.denial(message, format!("Later, {later}"))
            }
            Waits::InTransaction | Waits::Behind => self.denial(
                format!(
                    "a statement in a transaction is not kept waiting: approval {id} by {people} is open"
                ),
                format!("Run it outside of a transaction, where it waits, or later {later}"),
            ),
            Waits::OnlyAsks => self.denial(
                format!("asked: this needs approval {id} by {people}"),
                format!("Send the same statement in a session that does not only ask: it passes once when it is approved before {until}."),
            ),
            Waits::AskedNotTo | Waits::Never => {
                self.denial(format!("this needs approval {id} by {people}"), format!("Later, {later}"))
            }
        }
    }

    /// The client asked for it to be cancelled, and the request stays open.
    pub(super) fn cancelled(&self, standing: &Standing) -> Denial {
        let message = format!("cancelled while it waited for approval {} by {}", standing.id, self.people());
        let until = time(standing.closes_at);
        self.denial(
            message,
            format!("Retry the same statement: it passes once when it is approved before {until}."),
        )
    }

    /// The request is over, or stands in the way.
    pub(super) fn over(&self, standing: &Standing) -> Denial {
        let id = standing.id;
        match &standing.state {
            State::Denied => self.denied(standing),
            State::Void { why } => {
                self.denial(format!("approval {id} is void: {why}"), "Send the statement again to ask anew.")
            }
            State::Open | State::Expired => {
                self.denial(format!("approval {id} has expired"), "Send the statement again to ask anew.")
            }
            State::Used { record, outcome: None } => self.denial(
                format!(
                    "approval {id} was used for record {record}, which is under way or whose end is not known"
                ),
                UNKNOWN,
            ),
            State::Used { record, outcome: Some(outcome) } => {
                let how = match outcome {
                    OutcomeStatus::Unknown => "may have been carried out: its outcome is unknown",
                    OutcomeStatus::Refused | OutcomeStatus::Skipped => "was not carried out",
                    OutcomeStatus::Completed | OutcomeStatus::Failed => "has ended",
                };
                self.denial(format!("approval {id} was used for record {record}, which {how}"), UNKNOWN)
            }
        }
    }

    fn denied(&self, standing: &Standing) -> Denial {
        use interceptor_core::approval::{Says, words};
        let Some((person, reason, suggestion)) =
            standing.denial().and_then(|decision| match &decision.says {
                Says::Deny { reason, suggestion } => Some((&decision.person, reason, suggestion)),
                Says::Approve { .. } => None,
            })
        else {
            return self.denial(format!("approval {} was denied", standing.id), "Do not retry it unchanged.");
        };
        let suggested = suggestion.as_deref().map(|text| format!(" Suggested instead: {}", words(text)));
        self.denial(
            format!("denied by {person}: {} (approval {})", words(reason), standing.id),
            format!("Do not retry it unchanged.{}", suggested.unwrap_or_default()),
        )
    }

    /// The request cannot be had or changed.
    pub(super) fn failed(&self, error: &ApprovalError) -> Denial {
        let hint = match error {
            ApprovalError::TooMany(_) if self.flood == Flood::Freeze => {
                "This run is frozen until a person says that it may go on."
            }
            ApprovalError::TooMany(_) => "Wait until those are decided.",
            ApprovalError::No(_) => "Send the statement again to ask anew.",
            ApprovalError::Kept(_) => "Ask the operator to run `interceptor status` on this host.",
        };
        self.denial(format!("refused: this waits for approval by {}, and {error}", self.people()), hint)
    }
}

const UNKNOWN: &str = "Find out whether it took effect before it is asked for again; a new request can be made when this one has expired.";

fn time(at: i64) -> String {
    Timestamp::from_microsecond(at)
        .map_or_else(|_| "it expires".to_owned(), |at| at.strftime("%H:%M:%S UTC").to_string())
}

/// Text that is only prepared changes nothing, and has no values yet that could be shown to anybody: what is held
/// waits when it is executed. Binding values to it may run what it calls, though, so that where it calls anything
/// nothing of it goes before people have approved.
pub(super) fn prepared(held: &Held, judgements: Vec<Judgement>) -> Vec<Judgement> {
    let mut actions = held.actions().iter();
    let settle = |judgement| match (judgement, actions.next()) {
        (Judgement::Held { approvers, rules, .. }, Some(action)) if action.phase == Phase::Prepare => {
            let calls =
                action.facts.effects.iter().any(|effect| {
                    matches!(effect.verb, Verb::FunctionCall | Verb::ServerReach | Verb::Unknown)
                });
            let people = approvers.join(" and ");
            if calls {
                let reason = format!(
                    "what calls functions waits for approval by {people} only as a simple query, with its values in \
                     the text (rule {})",
                    first_id(&rules, "hold")
                );
                Judgement::Denied { rules: Vec::new(), reason }
            } else {
                let reason = format!("only prepared: when it is executed it waits for approval by {people}");
                Judgement::Allowed { rules: Vec::new(), reason }
            }
        }
        (judgement, _) => judgement,
    };
    judgements.into_iter().map(settle).collect()
}
