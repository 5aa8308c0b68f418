//! Exchanges that may go only within terms: which those are, whether their protocol holds them to these, and the refusal
//! of those that cannot be held to any.
//!
//! Promises: what has terms is permitted only once its protocol says that it is enclosed in just these; images that were
//! taken for it are on disk before its permit is minted, behind the record that names them.

use interceptor_core::{
    Committed as _, Denial, Enclosed, Enclosure, Held, Judgement, Terms, Verdict,
    model::{Action, Author, Mode, Phase, Verb},
    permit::Rule,
    undo::{Packed, Undo},
};

use super::{PolicyGate, Rules, Settled, Subject, UNRECORDED, Unsent, glass::Stance};

/// What becomes of an exchange that may go within terms.
#[derive(Debug)]
pub(super) enum Way {
    /// It is as it must be; what is to be kept first.
    On(Option<Packed>),
    /// It is to be enclosed first.
    First(Verdict),
    /// It cannot be: why, in words for the agent.
    Never(String),
}

/// What the rules that let these statements pass, or that held them, want of them.
pub(super) fn wanted<'a>(
    rules: &Rules,
    stance: Stance,
    actions: &[Action],
    deciding: impl IntoIterator<Item = &'a Rule>,
) -> Terms {
    if stance.mode == Mode::Observe || !actions.iter().any(changes) {
        return Terms::default();
    }
    let asked = deciding.into_iter().filter_map(|rule| rules.policy.rule(&rule.id)?.undo);
    Terms { undo: asked.min(), ..Terms::default() }
}

/// The rules that these judgements name.
pub(super) fn deciding(judgements: &[Judgement]) -> impl Iterator<Item = &Rule> {
    judgements.iter().flat_map(|judgement| match judgement {
        Judgement::Allowed { rules, .. }
        | Judgement::Denied { rules, .. }
        | Judgement::Held { rules, .. } => rules,
    })
}

/// Whether carrying it out may take rows away, or what was in them.
fn changes(action: &Action) -> bool {
    let takes = |verb| matches!(verb, Verb::DataUpdate | Verb::DataDelete | Verb::DataTruncate);
    action.phase != Phase::Prepare && action.facts.effects.iter().any(|effect| takes(effect.verb))
}

/// What becomes of `held`, which may go within `terms`.
pub(super) fn way(subject: &Subject, held: &Held, terms: Terms) -> Way {
    match &held.circumstances().enclosure {
        _ if terms.is_empty() => Way::On(None),
        Enclosure::Within(kept) if kept.terms == terms => packed(subject, kept),
        Enclosure::Possible => Way::First(Verdict::Enclose(terms)),
        Enclosure::Within(_) => never("it was enclosed for something that has changed since: send it again"),
        Enclosure::Impossible(why) => Way::Never(why.to_string()),
    }
}

fn packed(subject: &Subject, kept: &Enclosed) -> Way {
    if kept.terms.undo.is_none() {
        return Way::On(None);
    }
    let (Some(pack), Some(resource)) = (&kept.pack, &subject.resource) else {
        return never("no images of its rows were taken");
    };
    let undo = Undo {
        run: (*subject.run).clone(),
        resource: resource.clone(),
        principal: subject.principal.clone(),
        pack: pack.clone(),
    };
    match undo.packed() {
        Ok(packed) => Way::On(Some(packed)),
        Err(error) => never(&format!("the images of its rows cannot be written: {error}")),
    }
}

fn never(why: &str) -> Way {
    Way::Never(why.to_owned())
}

impl PolicyGate {
    /// Records and refuses what cannot be held to its terms, and says why.
    pub(super) async fn cannot(
        &self,
        rules: &Rules,
        subject: &Subject,
        held: &Held,
        (terms, why): (Terms, String),
    ) -> Verdict {
        let what = match terms.undo {
            Some(_) => "it may go only when it can be undone",
            None => "it may go only within a ceiling on its rows",
        };
        let reason = format!("{what}, and {why}");
        let no = Judgement::Denied { rules: Vec::new(), reason: reason.clone() };
        let each = vec![no; held.actions().len()];
        match self.settle(rules, (subject, rules.enforced()), held, Author::Agent, each).await {
            Verdict::Deny(denial) => Verdict::Deny(Denial {
                rule: if terms.undo.is_some() { "undo" } else { "ceiling" }.to_owned(),
                message: format!("refused: {reason}"),
                hint: denial.record.map_or_else(String::new, |record| {
                    format!(
                        "Nothing was executed. Send it so that it can be, or ask the operator, who sees it with \
                         `interceptor why {record}`."
                    )
                }),
                ..denial
            }),
            other => other,
        }
    }

    /// Records and permits what policy allows by these judgements, within the terms of its rules.
    pub(super) async fn within(
        &self,
        rules: &Rules,
        (subject, stance): (&Subject, Stance),
        held: &Held,
        judgements: Vec<Judgement>,
    ) -> Verdict {
        let terms = wanted(rules, stance, held.actions(), deciding(&judgements));
        let (packed, judgements) = match way(subject, held, terms) {
            Way::First(verdict) => return verdict,
            Way::On(packed) => (packed, judgements),
            Way::Never(why) => return self.cannot(rules, subject, held, (terms, why)).await,
        };
        let Some(packed) = packed else {
            return self.settle(rules, (subject, stance), held, Author::Agent, judgements).await;
        };
        let settled =
            Settled { undo: Some(packed.record.clone()), ..Settled::new(rules.enforced(), judgements) };
        let receipt = match self.commit(rules, subject, held, Author::Agent, &settled).await {
            Ok(receipt) => receipt,
            Err(denial) => return Verdict::Deny(denial),
        };
        let mut unsent = Unsent { producer: &self.producer, records: receipt.records(), why: None };
        match self.keep(&receipt, &packed).await {
            Ok(()) => {
                unsent.sent();
                self.verdict(subject, (held, Author::Agent), &settled, &receipt)
            }
            Err(denial) => {
                unsent.why = Some(denial.message.clone());
                Verdict::Deny(denial)
            }
        }
    }

    /// Has the images kept of what is recorded so.
    pub(super) async fn keep(
        &self,
        receipt: &impl interceptor_core::Committed,
        packed: &Packed,
    ) -> Result<(), Denial> {
        let record = receipt.records().get(0);
        let kept = match record {
            Some(record) => self.packs.keep(record, packed).await,
            None => Err("it has no record".to_owned()),
        };
        kept.map_err(|error| Denial {
            record,
            rule: "undo".to_owned(),
            message: format!("refused: the images of what it would change cannot be kept ({error})"),
            hint: UNRECORDED.to_owned(),
        })
    }
}

/// Whether an answer may be given again: no terms hang on it.
pub(super) fn has_none(rules: &Rules, stance: Stance, action: &Action, judgement: &Judgement) -> bool {
    let one = std::slice::from_ref(judgement);
    wanted(rules, stance, std::slice::from_ref(action), deciding(one)).is_empty()
}
