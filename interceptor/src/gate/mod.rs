//! The gate: the one place where an exchange is judged, recorded and permitted.
//!
//! Order is the promise: judge, commit the request entries, then mint. Whatever fails on the way is a refusal.
//! The gate knows no sockets and no protocol; it is handed exchanges and hands back verdicts.

mod bind;
mod clock;
mod entries;
mod glass;
mod hidden;
mod hold;
mod launch;
mod ledger;
mod rescue;
mod session;
mod settled;
mod spent;
mod subject;
mod terms;
mod uncover;
mod vouched;
mod wanted;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use interceptor_core::{
    Denial, Held, Judgement, Permit, Verdict,
    estimate::Estimate,
    inventory::{Inventory, RecordLevel, Resource},
    mask::{Mask, MaskKey},
    model::{Action, Author, EventRecord, Mode, OutcomeStatus, RecordId, Spent},
    permit::Records,
    policy::{Policy, spent::is_statement},
};
use tokio::time::Instant;

use glass::Stance;
use hidden::Masks;
use hold::Passed;
use settled::{Settled, first_id, said};
use uncover::Clear;

pub use clock::now_us;
pub use glass::Glass;
pub use ledger::Ledger;
pub use rescue::Rescued;
pub use session::SessionGate;
pub use spent::{Tallies, Tally};
pub use subject::Subject;
pub use uncover::Uncovered;
pub use vouched::{Login, Vouched, Work};

use crate::{
    approval::{Approvals, Packs},
    binding::Bound,
    store::{JournalError, Producer, Receipt, RequestHead, Requests},
};

/// How many statements of a batch are judged before others get a turn.
const GIVE_WAY: usize = 16;
/// How long a record may take to be written before its statement is refused.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);
/// What an agent is told to do when its statement could not be recorded.
const UNRECORDED: &str = "Nothing was executed. Ask the operator to run `interceptor status` on this host.";

/// What was loaded from the policy folder, swapped whole.
#[derive(Debug)]
pub struct Rules {
    /// The inventory.
    pub inventory: Inventory,
    /// The policy.
    pub policy: Policy,
    /// The rescue that they are in force for, where it is one.
    pub rescue: Option<Rescued>,
}

/// When a permit may be minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// When the record outlives every process of ours: the kernel has it, and the disk within about a millisecond.
    Process,
    /// When the disk has it.
    Power,
}

/// Has a resource guess how many rows an exchange concerns: a hint for whoever is asked to approve it.
pub trait Estimator: Send + Sync {
    /// A guess at `held`, which is `subject`'s.
    fn estimate<'a>(&'a self, subject: &'a Subject, held: &'a Held) -> BoxFuture<'a, Estimate>;
}

/// Judges by the rules in force and writes to the store.
#[derive(Debug)]
pub struct PolicyGate {
    rules: Arc<ArcSwap<Rules>>,
    producer: Producer,
    durability: Durability,
    tallies: Tallies,
    approvals: Approvals,
    packs: Packs,
    bound: Bound,
    vouched: Arc<Vouched>,
    passed: Passed,
    clear: Clear,
    glass: Glass,
    masks: Masks,
}

impl PolicyGate {
    /// A gate over `rules`, which may be swapped at any time. Digests of hidden values are made with `key`.
    pub fn new(
        rules: Arc<ArcSwap<Rules>>,
        producer: Producer,
        durability: Durability,
        approvals: Approvals,
        packs: Packs,
        bound: Bound,
        key: MaskKey,
    ) -> Self {
        Self {
            rules,
            producer,
            durability,
            tallies: Tallies::default(),
            approvals,
            packs,
            bound,
            vouched: Arc::default(),
            passed: Passed::default(),
            clear: Clear::default(),
            glass: Glass::default(),
            masks: Masks::new(key),
        }
    }

    /// Requests for approval.
    pub fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// Undo packs.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Whose log-in sessions runs are.
    pub fn vouched(&self) -> &Arc<Vouched> {
        &self.vouched
    }

    /// What is bound to labels.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Where policy is not carried out for a while.
    pub fn glass(&self) -> &Glass {
        &self.glass
    }

    /// How verdicts on the subject are carried out now.
    fn stance(&self, rules: &Rules, subject: &Subject) -> Stance {
        let enforced = rules.enforced();
        if rules.out_of_rescue(subject.resource.as_ref()).is_some() {
            return enforced;
        }
        let resource = resource_of(rules, subject).map_or(Mode::Enforce, |resource| resource.mode);
        let observes = subject.run.mode == Mode::Observe || resource == Mode::Observe;
        match self.glass.at(subject.resource.as_ref()) {
            _ if observes => Stance { mode: Mode::Observe, ..enforced },
            Some(glass) => Stance { mode: Mode::Observe, glass: Some(glass), ..enforced },
            None => enforced,
        }
    }

    /// Where outcomes and events go.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// What live runs have spent.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// What the subject's run has spent. Where no rule reads it, it makes no difference.
    fn spent(&self, rules: &Rules, subject: &Subject) -> Spent {
        let counts = !rules.policy.thresholds().is_empty();
        if counts { self.tallies.of(subject.run.id).total() } else { Spent::default() }
    }

    /// How much more a run whose tally it is can spend before a rule may answer otherwise.
    pub fn room(&self, tally: &Tally) -> Spent {
        let rules = self.rules.load();
        let thresholds = rules.policy.thresholds();
        if thresholds.is_empty() { Spent::UNLIMITED } else { thresholds.room(tally.total()) }
    }

    /// Whether a statement under way may go on, now that `spent` includes what of its answer has passed. It was
    /// recorded as `record` and is the `place`th of its frame. Otherwise the words for the agent, and the operator's.
    pub fn goes_on(
        &self,
        subject: &Subject,
        actions: &[Action],
        place: usize,
        record: Option<RecordId>,
        spent: Spent,
    ) -> Result<(), (Denial, String)> {
        let rules = self.rules();
        let judgement = match actions.get(place) {
            Some(action) => {
                let approvals = self.passed.counts(record);
                ask(&rules, subject, action, (place, actions.len()), spent, &approvals)
            }
            None => Judgement::Denied {
                rules: Vec::new(),
                reason: "what it does is not known any more".to_owned(),
            },
        };
        let reason = match &judgement {
            Judgement::Allowed { .. } => return Ok(()),
            _ if self.stance(&rules, subject).mode == Mode::Observe => return Ok(()),
            Judgement::Denied { reason, .. } | Judgement::Held { reason, .. } => {
                format!("ended by the interceptor in the middle of its answer: {reason}")
            }
        };
        let mut denial = Settled::new(rules.enforced(), vec![judgement]).denial(subject, record);
        denial.hint = "The answer ends here; an open transaction has failed. Do not retry it unchanged; the operator sees why"
            .to_owned()
            + &record.map_or_else(|| ".".to_owned(), |id| format!(" with `interceptor why {id}`."));
        Err((denial, reason))
    }

    /// Whether the inventory in force still says of the subject's resource what `resource` says: what it speaks,
    /// where it is, how it shows who it is, and who may log in.
    pub fn knows_as(&self, subject: &Subject, resource: &Resource) -> bool {
        resource_of(&self.rules(), subject).is_some_and(|now| is_the_same(now, resource))
    }

    /// What policy would say of `actions` now, without recording anything: for sessions that were opened when
    /// `before` was in force.
    pub fn still_allows(&self, before: &Rules, subject: &Subject, actions: &[Action]) -> bool {
        if let Some(then) = resource_of(before, subject)
            && !self.knows_as(subject, then)
        {
            return false;
        }
        let rules = self.rules();
        // A session's decoder knows its labels from its beginning.
        if Self::labels(before, subject) != Self::labels(&rules, subject) {
            return false;
        }
        // What it was shown unmasked, and may still be shown, ends with the rescue.
        if before.unmasks(subject.resource.as_ref()) != rules.unmasks(subject.resource.as_ref()) {
            return false;
        }
        // And from when on it records rows.
        let records = |rules| level_of(rules, subject) == RecordLevel::Rows;
        if records(before) != records(&rules) {
            return false;
        }
        self.stance(&rules, subject).mode == Mode::Observe
            || actions.iter().enumerate().all(|(place, action)| {
                // A budget that is used up refuses statements; it does not end sessions.
                let judgement =
                    ask(&rules, subject, action, (place, actions.len()), Spent::default(), &NOBODY);
                matches!(judgement, Judgement::Allowed { .. })
            })
    }

    /// Judges, records and permits `held` for `subject`, which waits for nobody.
    pub async fn judge_for(&self, subject: &Subject, held: &Held, author: Author) -> Verdict {
        let rules = self.rules();
        let judgements = self.judgements(&rules, subject, (held, author), &NOBODY).await;
        self.settle(&rules, (subject, self.stance(&rules, subject)), held, author, judgements).await
    }

    /// What policy says of each statement, where so many people have approved.
    async fn judgements(
        &self,
        rules: &Rules,
        subject: &Subject,
        (held, author): (&Held, Author),
        approvals: &BTreeMap<String, u32>,
    ) -> Vec<Judgement> {
        let spent = self.spent(rules, subject);
        let mut judgements = Vec::with_capacity(held.actions().len());
        for (place, action) in held.actions().iter().enumerate() {
            if place > 0 && place % GIVE_WAY == 0 {
                tokio::task::yield_now().await;
            }
            judgements.push(match author {
                Author::Gate => {
                    Judgement::Allowed { rules: Vec::new(), reason: "the gate's own exchange".to_owned() }
                }
                Author::Agent => ask(rules, subject, action, (place, held.actions().len()), spent, approvals),
            });
        }
        judgements
    }

    /// Records and permits what needs no rule, for `reason`: what the inventory itself answers, and what an operator
    /// released.
    pub async fn allow(&self, subject: &Subject, held: &Held, reason: &str) -> Verdict {
        let rules = self.rules();
        let judgements = held
            .actions()
            .iter()
            .map(|_| Judgement::Allowed { rules: Vec::new(), reason: reason.to_owned() })
            .collect();
        let stance = self.stance(&rules, subject);
        self.settle(&rules, (subject, stance), held, Author::Agent, judgements).await
    }

    /// Records and permits an exchange of the gate's own, for `reason`.
    pub async fn own(&self, subject: &Subject, held: &Held, reason: &str) -> Verdict {
        let rules = self.rules();
        let yes = Judgement::Allowed { rules: Vec::new(), reason: reason.to_owned() };
        let stance = rules.enforced();
        self.settle(&rules, (subject, stance), held, Author::Gate, vec![yes; held.actions().len()]).await
    }

    /// Refuses something that never came as far as policy, and records it.
    pub async fn refuse(
        &self,
        subject: &Subject,
        held: &Held,
        rule: &str,
        reason: &str,
        hint: &str,
    ) -> Denial {
        let rules = self.rules();
        let judgements = held
            .actions()
            .iter()
            .map(|_| Judgement::Denied { rules: Vec::new(), reason: reason.to_owned() })
            .collect();
        let settled = Settled::new(rules.enforced(), judgements);
        match self.commit(&rules, subject, held, Author::Agent, &settled).await {
            Ok(receipt) => {
                use interceptor_core::Committed as _;
                self.record_refusals(receipt.records());
                Denial {
                    record: receipt.records().get(0),
                    rule: rule.to_owned(),
                    message: format!("refused: {reason}"),
                    hint: hint.to_owned(),
                }
            }
            Err(denial) => denial,
        }
    }

    /// Records an event that something waits for, as durably as a permit needs its record.
    pub async fn note(&self, event: &EventRecord) -> Result<(), JournalError> {
        let number = self.producer.append_event(event)?;
        match self.durability {
            Durability::Process => Ok(()),
            Durability::Power => self.producer.wait_synced(number, Instant::now() + RECORD_PATIENCE).await,
        }
    }

    async fn settle(
        &self,
        rules: &Rules,
        (subject, stance): (&Subject, Stance),
        held: &Held,
        author: Author,
        judgements: Vec<Judgement>,
    ) -> Verdict {
        let mut settled = Settled::new(stance, judgements);
        settled.mask = Some(match author {
            // Its answer goes nowhere.
            Author::Gate => Mask::Nothing,
            Author::Agent => self.mask(rules, subject, held),
        });
        match self.commit(rules, subject, held, author, &settled).await {
            Ok(receipt) => self.verdict(subject, (held, author), &settled, &receipt),
            Err(denial) => Verdict::Deny(denial),
        }
    }

    /// The verdict on what is settled and recorded.
    fn verdict(
        &self,
        subject: &Subject,
        (held, author): (&Held, Author),
        settled: &Settled,
        receipt: &Receipt,
    ) -> Verdict {
        use interceptor_core::Committed as _;
        match Permit::mint(&settled.judgement, receipt) {
            Some(permit) => {
                if author == Author::Agent {
                    self.count(subject, held);
                }
                let mask = match &settled.mask {
                    Some(mask) => mask.clone(),
                    None => self.mask(&self.rules(), subject, held),
                };
                Verdict::Allow(permit, mask)
            }
            None => {
                self.record_refusals(receipt.records());
                Verdict::Deny(settled.denial(subject, settled.of_records(receipt.records())))
            }
        }
    }

    async fn commit(
        &self,
        rules: &Rules,
        subject: &Subject,
        held: &Held,
        author: Author,
        settled: &Settled,
    ) -> Result<Receipt, Denial> {
        let labels = Self::labels(rules, subject);
        let level = level_of(rules, subject);
        let written = entries::head(subject, level, &labels).and_then(|head| {
            let mut requests = Requests::default();
            let asks = author == Author::Agent && settled.mask.is_none();
            let mask = settled.mask.clone().or_else(|| asks.then(|| self.mask(rules, subject, held)));
            for (place, action) in held.actions().iter().enumerate() {
                let ruling = settled.ruling(place, &action.facts, rules.policy.hash(), mask.as_ref())?;
                entries::write(&mut requests, &head, held, author, (place, level, &labels), &ruling)?;
            }
            Ok((head, requests))
        });
        let (head, requests) = written.map_err(|error| unrecorded(&error.into()))?;
        self.commit_written(held, &head, &requests).await
    }

    /// Publishes what is written, and waits for the disk where it must.
    async fn commit_written(
        &self,
        held: &Held,
        head: &RequestHead,
        requests: &Requests,
    ) -> Result<Receipt, Denial> {
        use interceptor_core::Committed as _;
        let deadline = Instant::now() + RECORD_PATIENCE;
        let written = self.producer.commit_by(held.digest(), head, requests, deadline).await;
        let receipt = written.map_err(|error| unrecorded(&error))?;
        let records = receipt.records();
        if let (Durability::Power, Some(newest)) = (self.durability, records.iter().last()) {
            // Refused, and recorded so, unless the disk has it in time: a caller that stops waiting included.
            let unsent = Unsent { producer: &self.producer, records, why: None };
            self.producer.wait_synced(newest.0, deadline).await.map_err(|error| Denial {
                record: Some(newest),
                rule: "record".to_owned(),
                message: format!("refused: the record of this statement did not reach the disk ({error})"),
                hint: UNRECORDED.to_owned(),
            })?;
            unsent.sent();
        }
        Ok(receipt)
    }

    /// Statements count when they are permitted.
    fn count(&self, subject: &Subject, held: &Held) {
        let statements = held.actions().iter().filter(|action| is_statement(action.phase)).count();
        let statements = u64::try_from(statements).unwrap_or(u64::MAX);
        if statements > 0 {
            self.tallies.of(subject.run.id).add(Spent { statements, ..Spent::default() });
        }
    }

    fn record_refusals(&self, records: Records) {
        drop(Unsent { producer: &self.producer, records, why: None });
    }
}

/// The refusal of what cannot be recorded. The operator hears of it at most once a second: it may be all that comes.
fn unrecorded(error: &JournalError) -> Denial {
    static TOLD_AT: AtomicI64 = AtomicI64::new(0);
    let (now, last) = (now_us(), TOLD_AT.load(Ordering::Relaxed));
    let is_new = now.saturating_sub(last) >= 1_000_000;
    if is_new && TOLD_AT.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tracing::error!("refused, and so may others be: the record cannot be written ({error})");
    }
    Denial {
        record: None,
        rule: "record".to_owned(),
        message: format!("refused: the record of this statement could not be written ({error})"),
        hint: UNRECORDED.to_owned(),
    }
}

/// Requests that will never be sent: their outcome is written when this is dropped.
struct Unsent<'a> {
    producer: &'a Producer,
    records: Records,
    /// For the operator.
    why: Option<String>,
}

impl Unsent<'_> {
    /// They will be after all.
    fn sent(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        for request in self.records.iter() {
            ledger::write(self.producer, request, OutcomeStatus::Refused, self.why.as_deref());
        }
    }
}

fn resource_of<'a>(rules: &'a Rules, subject: &Subject) -> Option<&'a Resource> {
    subject.resource.as_ref().and_then(|name| rules.inventory.resources.get(name))
}

fn is_the_same(one: &Resource, other: &Resource) -> bool {
    let place = |resource: &Resource| (resource.protocol.clone(), resource.upstream.clone());
    place(one) == place(other) && one.tls == other.tls && one.credentials == other.credentials
}

/// Nobody has approved.
const NOBODY: BTreeMap<String, u32> = BTreeMap::new();

fn ask(
    rules: &Rules,
    subject: &Subject,
    action: &Action,
    (place, statements): (usize, usize),
    spent: Spent,
    approvals: &BTreeMap<String, u32>,
) -> Judgement {
    if let Some(refusal) = rules.out_of_rescue(subject.resource.as_ref()) {
        return refusal;
    }
    rules.policy.judge(&subject.asks(action, (place, statements), spent, approvals))
}

/// Of a resource that is gone nothing is known, what may be written down of it included.
fn level_of(rules: &Rules, subject: &Subject) -> RecordLevel {
    match (resource_of(rules, subject), &subject.resource) {
        (Some(resource), _) => resource.record,
        (None, Some(_)) => RecordLevel::Metadata,
        (None, None) => RecordLevel::Binds,
    }
}

#[cfg(test)]
pub(crate) mod tests;
