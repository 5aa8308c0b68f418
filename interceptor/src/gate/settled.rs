//! What was settled of an exchange: the judgements of its statements, what is recorded of them, and the words for the
//! agent where it is refused.

use interceptor_core::{
    Denial, Judgement,
    mask::{Mask, Provenance},
    model::{ApprovalRecord, Mode, RecordId, StatementFacts, VerdictRecord, WouldBe},
    permit::{Records, Rule},
    policy::{BECAUSE_OF_ANOTHER, WOULD},
    undo::UndoRecord,
};

use super::{Subject, glass::Stance};
use crate::store::RequestRuling;

/// The judgements of a batch, and the one that holds for all of it.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) stance: Stance,
    pub(super) each: Vec<Judgement>,
    pub(super) judgement: Judgement,
    pub(super) approval: Option<ApprovalRecord>,
    pub(super) undo: Option<UndoRecord>,
    /// What is hidden in the answer, where that was asked already.
    pub(super) mask: Option<Mask>,
}

impl Settled {
    pub(super) fn new(stance: Stance, each: Vec<Judgement>) -> Self {
        let refused = each.iter().find(|one| !matches!(one, Judgement::Allowed { .. }));
        let judgement = match (refused, stance.mode) {
            (None, _) => each.first().cloned().unwrap_or(Judgement::Denied {
                rules: Vec::new(),
                reason: "an exchange without any statement".to_owned(),
            }),
            (Some(_), Mode::Observe) => Judgement::Allowed {
                rules: Vec::new(),
                reason: match stance.glass {
                    Some(glass) => format!("break-glass {glass}: forwarded all the same"),
                    None => "observe mode: forwarded all the same".to_owned(),
                },
            },
            (Some(refused), Mode::Enforce) => refused.clone(),
        };
        Self { stance, each, judgement, approval: None, undo: None, mask: None }
    }

    /// The same, where it waits for this request or goes by it.
    pub(super) fn with(self, approval: ApprovalRecord) -> Self {
        Self { approval: Some(approval), ..self }
    }

    /// The part of the entry at `place` that says what was settled, by the policy with that hash, upon `facts`.
    pub(super) fn ruling(
        &self,
        place: usize,
        facts: &StatementFacts,
        policy: &str,
        mask: Option<&Mask>,
    ) -> Result<RequestRuling, serde_json::Error> {
        let mut record = self.record(place, policy);
        if let (Some(Mask::Of(hiding)), true) = (mask, record.allowed) {
            let unknown = Provenance::default();
            record.masked = hiding.in_answer_of(facts.provenance.as_deref().unwrap_or(&unknown));
        }
        record.tokens = facts.provenance.as_ref().map_or(0, |provenance| provenance.replaced);
        RequestRuling::new(&record, facts)
    }

    /// What is written of the statement at `place`.
    fn record(&self, place: usize, policy: &str) -> VerdictRecord {
        let one = self.each.get(place).unwrap_or(&self.judgement);
        let allowed = matches!(self.judgement, Judgement::Allowed { .. });
        let (rules, reason, held_for) = match one {
            Judgement::Allowed { rules, reason } => (rules, reason, &[][..]),
            Judgement::Denied { rules, reason } => (rules, reason, &[][..]),
            Judgement::Held { rules, reason, approvers } => (rules, reason, approvers.as_slice()),
        };
        let would_be = (self.stance.mode == Mode::Observe).then_some(match one {
            Judgement::Allowed { .. } => WouldBe::Allowed,
            Judgement::Denied { .. } => WouldBe::Denied,
            Judgement::Held { .. } => WouldBe::Held,
        });
        let because_of_another = !allowed && matches!(one, Judgement::Allowed { .. });
        VerdictRecord {
            allowed,
            mode: self.stance.mode,
            would_be,
            rules: rules.iter().map(|rule| format!("{} ({}:{})", rule.id, rule.file, rule.line)).collect(),
            reason: if because_of_another { BECAUSE_OF_ANOTHER.to_owned() } else { reason.clone() },
            said: rules.iter().find_map(|rule| rule.say.clone()),
            policy: policy.to_owned(),
            held_for: held_for.to_vec(),
            approval: self.approval.clone(),
            break_glass: self.stance.glass,
            rescue: self.stance.rescue,
            undo: self.undo.clone(),
            masked: Vec::new(),
            tokens: 0,
        }
    }

    /// The record that stands for it among those of its statements.
    pub(super) fn of_records(&self, records: Records) -> Option<RecordId> {
        let at = self.each.iter().position(|one| *one == self.judgement).unwrap_or(0);
        records.get(at).or(records.get(0))
    }

    pub(super) fn denial(&self, subject: &Subject, record: Option<RecordId>) -> Denial {
        let id = record.map_or_else(|| "?".to_owned(), |record| record.to_string());
        let resource = subject.resource.as_ref().map_or("this destination", |name| name.as_str());
        match &self.judgement {
            Judgement::Held { rules, approvers, .. } => Denial {
                record,
                rule: first_id(rules, "hold"),
                message: said(rules).unwrap_or_else(|| {
                    format!("refused: on {resource} this waits for approval by {}", approvers.join(", "))
                }),
                hint: format!(
                    "Nothing was executed. This cannot wait for {}: ask the operator, who sees it with \
                     `interceptor why {id}`.",
                    approvers.join(", ")
                ),
            },
            Judgement::Denied { rules, .. } if !rules.is_empty() => Denial {
                record,
                rule: first_id(rules, "rule"),
                message: said(rules)
                    .unwrap_or_else(|| format!("refused by rule {} on {resource}", first_id(rules, "rule"))),
                hint: format!(
                    "Nothing was executed. Do not retry it unchanged; the operator sees why with `interceptor why {id}`."
                ),
            },
            Judgement::Denied { reason, .. } => Denial {
                record,
                rule: "default-deny".to_owned(),
                // What would permit it is for the operator alone.
                message: format!("refused: {}", first_line(reason.split(WOULD).next().unwrap_or(reason))),
                hint: format!(
                    "Nothing was executed. No rule permits this; the operator sees what would with `interceptor why {id}`."
                ),
            },
            Judgement::Allowed { .. } => Denial {
                record,
                rule: "internal".to_owned(),
                message: "refused: the gate could not mint a permit".to_owned(),
                hint: "Nothing was executed. This is a fault of the interceptor; please report it."
                    .to_owned(),
            },
        }
    }
}

pub(super) fn first_id(rules: &[Rule], or: &str) -> String {
    rules.first().map_or_else(|| or.to_owned(), |rule| rule.id.clone())
}

pub(super) fn said(rules: &[Rule]) -> Option<String> {
    rules.iter().find_map(|rule| rule.say.clone())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("no rule permits it")
}
