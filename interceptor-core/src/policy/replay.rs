//! What a candidate policy would have said of the past.
//!
//! Promise: both sides are measured alike. A frame stands for its worst statement, before and now, whether or not
//! the verdict was carried out at the time.

use super::{Policy, WOULD, past::Past};
use crate::{
    model::{RequestRecord, Spent, VerdictRecord, WouldBe},
    permit::{Judgement, Rule},
};

/// The reason in the record of a statement that was refused only because its batch was.
pub const BECAUSE_OF_ANOTHER: &str = "refused because another statement of the same batch was";

/// What in a reason shows that policy was asked, although no rule decided.
const ASKED: [&str; 3] =
    [WOULD, ": a rule failed, which means no: ", "the question could not be put to policy: "];

/// How a recorded frame comes out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Policy was not asked at the time: a release, a name of the inventory, an unknown destination.
    NotJudged,
    /// The verdict is the same.
    Same(WouldBe),
    /// The verdict is another.
    Changed(Change),
}

/// A verdict that is another now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The statement of the frame that decides, from 0.
    pub place: usize,
    /// What policy said then.
    pub before: WouldBe,
    /// What it says now.
    pub after: WouldBe,
    /// The rules that decide now; empty where nothing permits it.
    pub rules: Vec<Rule>,
    /// Why, for the operator.
    pub reason: String,
}

/// Judges the statements of one recorded frame, in order, by `policy`; `spent` is what its run had spent by then.
pub fn replay(policy: &Policy, frame: &[&RequestRecord], spent: Spent) -> Replayed {
    let then: Vec<_> = frame.iter().map(|request| before(&request.verdict)).collect();
    let Some(then) = then.into_iter().collect::<Option<Vec<WouldBe>>>().filter(|then| !then.is_empty())
    else {
        return Replayed::NotJudged;
    };
    let now: Vec<_> =
        frame.iter().map(|request| policy.judge(&Past::new(policy, request, spent).asked())).collect();
    let (was, before) = worst(then);
    let (is, after) = worst(now.iter().map(word));
    if before == after {
        return Replayed::Same(after);
    }
    let place = if severity(after) > severity(before) { is } else { was };
    let (rules, reason) = match now.into_iter().nth(place) {
        Some(
            Judgement::Allowed { rules, reason }
            | Judgement::Denied { rules, reason }
            | Judgement::Held { rules, reason, .. },
        ) => (rules, reason),
        None => (Vec::new(), String::new()),
    };
    Replayed::Changed(Change { place, before, after, rules, reason })
}

/// What policy said of a statement at the time; `None` where it was not asked.
fn before(verdict: &VerdictRecord) -> Option<WouldBe> {
    if !was_judged(verdict) {
        return None;
    }
    Some(match verdict.would_be {
        Some(would_be) => would_be,
        None if verdict.allowed || verdict.reason == BECAUSE_OF_ANOTHER => WouldBe::Allowed,
        None if verdict.held_for.is_empty() => WouldBe::Denied,
        None => WouldBe::Held,
    })
}

/// Whether policy was asked, rather than an operator, the inventory or the gate itself.
pub(super) fn was_judged(verdict: &VerdictRecord) -> bool {
    !verdict.rules.is_empty() || ASKED.iter().any(|part| verdict.reason.contains(part))
}

fn word(judgement: &Judgement) -> WouldBe {
    match judgement {
        Judgement::Allowed { .. } => WouldBe::Allowed,
        Judgement::Denied { .. } => WouldBe::Denied,
        Judgement::Held { .. } => WouldBe::Held,
    }
}

fn severity(verdict: WouldBe) -> u8 {
    match verdict {
        WouldBe::Allowed => 0,
        WouldBe::Held => 1,
        WouldBe::Denied => 2,
    }
}

/// The first of the worst, and where it stands.
fn worst(verdicts: impl IntoIterator<Item = WouldBe>) -> (usize, WouldBe) {
    let first = (0, WouldBe::Allowed);
    verdicts.into_iter().enumerate().fold(first, |worst, (place, verdict)| {
        if severity(verdict) > severity(worst.1) { (place, verdict) } else { worst }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Mode, Target, Verb},
        policy::{
            past::tests::{judged, record, table},
            tests::policy,
        },
    };

    const READS: &str = r#"@id("reads") permit (principal == Agent::"bot", action == Action::"data.read", resource in Resource::"orders");"#;
    const HOLDS: &str = r#"@id("holds") @hold("dba") forbid (principal, action, resource is Table) when { resource.name == "a" } unless { context.approvals.dba >= 1 };"#;
    const NO_B: &str =
        r#"@id("no-b") forbid (principal, action, resource is Table) when { resource.name == "b" };"#;

    fn read(name: &str) -> RequestRecord {
        record(&[(Verb::DataRead, table(name))])
    }

    fn change(policy: &Policy, frame: &[&RequestRecord]) -> Change {
        match replay(policy, frame, Spent::default()) {
            Replayed::Changed(change) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_policy_changes_nothing_and_another_one_just_what_it_says() {
        let old = policy(&format!("{READS}\n{HOLDS}"));
        let new = policy(&format!("{READS}\n{NO_B}"));
        let (a, b) = (judged(&old, read("public.a")), judged(&old, read("public.b")));
        let other = judged(&old, record(&[(Verb::DataDelete, table("public.a"))]));
        assert_eq!(replay(&old, &[&a], Spent::default()), Replayed::Same(WouldBe::Held));
        assert_eq!(replay(&old, &[&b], Spent::default()), Replayed::Same(WouldBe::Allowed));
        assert_eq!(replay(&old, &[&other], Spent::default()), Replayed::Same(WouldBe::Denied));
        let freed = change(&new, &[&a]);
        assert_eq!((freed.before, freed.after), (WouldBe::Held, WouldBe::Allowed));
        let refused = change(&new, &[&b]);
        assert_eq!((refused.before, refused.after), (WouldBe::Allowed, WouldBe::Denied));
        assert_eq!(refused.rules.first().map(|rule| rule.id.as_str()), Some("no-b"));
        assert_eq!(replay(&new, &[&other], Spent::default()), Replayed::Same(WouldBe::Denied));
    }

    #[test]
    fn a_frame_is_its_worst_statement() {
        let old = policy(&format!("{READS}\n{NO_B}"));
        let (mut a, b) = (judged(&old, read("public.a")), judged(&old, read("public.b")));
        (a.verdict.allowed, a.verdict.reason) = (false, BECAUSE_OF_ANOTHER.to_owned());
        assert_eq!(replay(&old, &[&a, &b], Spent::default()), Replayed::Same(WouldBe::Denied));
        let freed = change(&policy(READS), &[&a, &b]);
        assert_eq!((freed.place, freed.before, freed.after), (1, WouldBe::Denied, WouldBe::Allowed));
    }

    #[test]
    fn what_was_only_observed_counts_as_what_it_would_have_been() {
        let old = policy(READS);
        let mut delete = judged(&old, record(&[(Verb::DataDelete, table("public.a"))]));
        delete.verdict.mode = Mode::Observe;
        (delete.verdict.allowed, delete.verdict.would_be) = (true, Some(WouldBe::Denied));
        assert_eq!(replay(&old, &[&delete], Spent::default()), Replayed::Same(WouldBe::Denied));
    }

    #[test]
    fn what_policy_was_not_asked_about_is_not_replayed() {
        let mut released = record(&[(Verb::Pass, Target::Resource)]);
        released.verdict.rules.clear();
        released.verdict.reason = "released by an operator".to_owned();
        assert_eq!(replay(&policy(READS), &[&released], Spent::default()), Replayed::NotJudged);
        assert_eq!(replay(&policy(READS), &[], Spent::default()), Replayed::NotJudged);
    }

    #[test]
    fn an_agent_or_resource_that_is_gone_is_refused() {
        let old = policy(READS);
        let a = judged(&old, read("public.a"));
        let mut other = a.clone();
        other.agent.name = "gone".parse().expect("a name");
        assert_eq!(change(&old, &[&other]).after, WouldBe::Denied);
        let mut other = a;
        other.resource = Some("gone".parse().expect("a name"));
        assert_eq!(change(&old, &[&other]).after, WouldBe::Denied);
    }
}
