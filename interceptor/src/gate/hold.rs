//! Exchanges that policy holds for people: filed, waited for, and let go when enough have approved.
//!
//! Promises: the request is on disk, and the exchange's record committed, before the client hears that it waits; an
//! approval counts only by policy's own judgement of it, for just what was approved; it is used up on disk before a
//! permit is minted, behind the record that it is used for, so that whatever dies in between, nothing is done twice;
//! a client that has left is never executed for; whatever fails is a refusal.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use interceptor_core::{
    Client, Committed as _, Denial, Held, Judgement, Terms, Verdict,
    approval::{About, Card, LONGEST_GRANT, Standing, State, What},
    model::{ApprovalId, ApprovalRecord, Author, Mode, Phase, RecordId},
    permit::{GaveUp, Records, Waits},
    policy::Flood,
};
use tokio::time::{Instant, sleep_until};

use super::{
    Estimator, NOBODY, PolicyGate, Rules, Settled, Subject, Unsent,
    terms::{self, Way},
    wanted::{NOTICES, Wanted, prepared},
};
use crate::{approval::ApprovalError, store::docket::Filing};

/// How many undecided requests one run may have.
const PENDING: u32 = 8;

/// After which pauses it is looked again whether the end of an exchange is on record, before it counts as under way.
const RECORDING: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(75),
    Duration::from_millis(200),
    Duration::from_millis(700),
];

/// How many exchanges that went by an approval are remembered while they are under way.
const REMEMBERED: usize = 1024;

/// The approvals by which exchanges went lately, for whoever judges them again while they are under way.
#[derive(Debug, Default)]
pub(super) struct Passed(Mutex<VecDeque<(RecordId, BTreeMap<String, u32>)>>);

impl Passed {
    fn add(&self, records: Records, counts: &BTreeMap<String, u32>) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passed.extend(records.iter().map(|record| (record, counts.clone())));
        let over = passed.len().saturating_sub(REMEMBERED);
        passed.drain(..over);
    }

    /// How many had approved the exchange with this record.
    pub(super) fn counts(&self, record: Option<RecordId>) -> BTreeMap<String, u32> {
        let passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = passed.iter().rev().find(|(of, _)| Some(*of) == record);
        found.map(|(_, counts)| counts.clone()).unwrap_or_default()
    }
}

/// How a wait ended.
enum Ending {
    /// Enough people approved.
    Approved(Standing),
    /// The request is over without that.
    Over(Standing),
    /// Nobody said enough in time.
    Late,
    /// The client does not wait any more.
    GaveUp(GaveUp),
    /// What was asked means something else now.
    PolicyChanged,
    /// The request cannot be looked at.
    Failed(ApprovalError),
}

impl PolicyGate {
    /// Judges, records and permits `held` for the session `subject`, whose exchanges may wait for people.
    pub(super) async fn judge_waiting(
        &self,
        subject: &Subject,
        (held, author): (&Held, Author),
        client: &dyn Client,
        estimator: &dyn Estimator,
    ) -> Verdict {
        let rules = self.rules();
        let judgements = self.judgements(&rules, subject, (held, author), &NOBODY).await;
        let judgements = prepared(held, judgements);
        let only_asks = held.circumstances().waits == Waits::OnlyAsks && author == Author::Agent;
        let stance = if only_asks { rules.enforced() } else { self.stance(&rules, subject) };
        let wanted = match stance.mode {
            Mode::Observe => None,
            Mode::Enforce => Wanted::of(&rules, subject, &judgements),
        };
        match wanted {
            None if only_asks && would_be_carried_out(held, &judgements) => {
                let (why, hint) = ("this needs no approval, and its session only asks", ONLY_ASKED);
                Verdict::Deny(self.refuse(subject, held, "only-asked", why, hint).await)
            }
            None if author == Author::Agent && judgements.iter().all(Judgement::allows) => {
                self.within(&rules, (subject, stance), held, judgements).await
            }
            None => self.settle(&rules, (subject, stance), held, author, judgements).await,
            Some(wanted) => {
                Hold { gate: self, rules, subject, held, client, estimator, wanted }.judge(judgements).await
            }
        }
    }
}

/// One exchange that is held.
struct Hold<'a> {
    gate: &'a PolicyGate,
    rules: Arc<Rules>,
    subject: &'a Subject,
    held: &'a Held,
    client: &'a dyn Client,
    estimator: &'a dyn Estimator,
    wanted: Wanted,
}

impl Hold<'_> {
    async fn judge(&self, judgements: Vec<Judgement>) -> Verdict {
        if self.held.circumstances().waits == Waits::Behind {
            return Verdict::Again;
        }
        let filing = match self.filing() {
            Ok(filing) => filing,
            Err(why) => return self.refuse(judgements, self.wanted.failed(&why)).await,
        };
        let (digest, shape) = (filing.digest.clone(), filing.shape.clone());
        let standing = match self.filed(filing).await {
            Ok(standing) => standing,
            Err(why) => {
                if matches!(why, ApprovalError::TooMany(_)) && self.wanted.flood == Flood::Freeze {
                    self.flooded().await;
                }
                return self.refuse(judgements, self.wanted.failed(&why)).await;
            }
        };
        self.gate.clear.remember(standing.id, &standing.card, self.subject, self.held);
        if standing.state != State::Open {
            let denial = self.wanted.over(&standing);
            return self
                .record(judgements, &standing, async |_| (denial.message.clone(), Verdict::Deny(denial)))
                .await;
        }
        let only_asks = self.held.circumstances().waits == Waits::OnlyAsks;
        match self.enough(&standing).await.filter(|_| !only_asks) {
            Some(judgements) => self.pass(judgements, &standing, (digest, shape)).await,
            None => self.wait(judgements, &standing, shape).await,
        }
    }

    /// What is asked of people.
    fn filing(&self) -> Result<Filing, ApprovalError> {
        let no = |why: &str| ApprovalError::Kept(why.to_owned());
        let what = What {
            run: &self.subject.run,
            resource: self.subject.resource.as_ref().ok_or_else(|| no("it names no resource"))?,
            principal: &self.subject.principal,
            circumstances: self.held.circumstances(),
            actions: self.held.actions(),
            policy: self.rules.policy.hash(),
        };
        let shape = what.shape().map(|shape| what.shape_digest(&shape)).transpose();
        let labels = PolicyGate::labels(&self.rules, self.subject);
        Ok(Filing {
            shape: shape.map_err(|error| no(&error.to_string()))?,
            digest: what.digest().map_err(|error| no(&error.to_string()))?,
            card: what.card(self.subject.process(), (&self.wanted.rules, &self.wanted.groups), &labels),
            seconds: self.wanted.open,
            most: PENDING,
        })
    }

    /// Files it. What went by an earlier request for the same may have ended a moment ago, and its end be on the way to the
    /// record: that is waited for.
    async fn filed(&self, filing: Filing) -> Result<Standing, ApprovalError> {
        let mut pauses = RECORDING.into_iter();
        loop {
            let standing = self.file(filing.clone()).await?;
            match (&standing.state, pauses.next()) {
                (State::Used { outcome: None, .. }, Some(pause)) => tokio::time::sleep(pause).await,
                _ => return Ok(standing),
            }
        }
    }

    /// Files it. Where it is asked for the first time, its resource guesses first how many rows it concerns.
    async fn file(&self, filing: Filing) -> Result<Standing, ApprovalError> {
        if let Some(standing) = self.gate.approvals.in_place_of(filing.clone()).await? {
            return Ok(standing);
        }
        let estimate = Some(self.estimator.estimate(self.subject, self.held).await);
        self.gate.approvals.file(Filing { card: Card { estimate, ..filing.card }, ..filing }).await
    }

    /// The run asks for too much: whether it may go on is one request, however much it asks.
    async fn flooded(&self) {
        let Ok(filing) = self.filing() else { return };
        let run = self.subject.run.id;
        let filing = Filing {
            digest: format!("flood {run}"),
            shape: None,
            card: Card { about: About::Flood, whole: true, ..filing.card },
            seconds: LONGEST_GRANT,
            most: u32::MAX,
        };
        if let Err(error) = self.gate.approvals.flooded(filing).await {
            tracing::error!(%run, "it asks for too much, and is not frozen: {error}");
        }
    }

    /// What policy says with the approvals that there are, where it says yes.
    async fn enough(&self, standing: &Standing) -> Option<Vec<Judgement>> {
        let counts: BTreeMap<String, u32> = standing.counts();
        if counts.is_empty() {
            return None;
        }
        let asked = (self.held, Author::Agent);
        let judgements = self.gate.judgements(&self.rules, self.subject, asked, &counts).await;
        judgements.iter().all(|one| matches!(one, Judgement::Allowed { .. })).then_some(judgements)
    }

    /// Enough people have approved just this: it goes.
    async fn pass(
        &self,
        judgements: Vec<Judgement>,
        standing: &Standing,
        (digest, shape): (String, Option<String>),
    ) -> Verdict {
        let gate = self.gate;
        let deciding = self.wanted.rules.iter().chain(terms::deciding(&judgements));
        let wanted = terms::wanted(&self.rules, self.rules.enforced(), self.held.actions(), deciding);
        let terms = Terms { rows: standing.terms().rows, ..wanted };
        let (judgements, packed) = match terms::way(self.subject, self.held, terms) {
            Way::On(packed) => (judgements, packed),
            Way::First(verdict) => return verdict,
            Way::Never(why) => return gate.cannot(&self.rules, self.subject, self.held, (terms, why)).await,
        };
        let undo = packed.as_ref().map(|packed| packed.record.clone());
        let settled =
            Settled { undo, ..Settled::new(self.rules.enforced(), judgements).with(approval(standing)) };
        let receipt = match gate.commit(&self.rules, self.subject, self.held, Author::Agent, &settled).await {
            Ok(receipt) => receipt,
            Err(denial) => return Verdict::Deny(denial),
        };
        // Until the request is used up for just this record, nothing is sent.
        let mut unsent = Unsent { producer: &gate.producer, records: receipt.records(), why: None };
        let record = receipt.records().get(0);
        if let Some(packed) = &packed
            && let Err(denial) = gate.keep(&receipt, packed).await
        {
            unsent.why = Some(denial.message.clone());
            return Verdict::Deny(denial);
        }
        let used = match record {
            _ if self.client.gave_up().now_or_never().is_some() => {
                Err(ApprovalError::No("its client had left".to_owned()))
            }
            Some(record) => gate.approvals.use_up(standing.id, digest, shape, record).await,
            None => Err(ApprovalError::Kept("it has no record".to_owned())),
        };
        match used {
            Ok(()) => {
                unsent.sent();
                gate.passed.add(receipt.records(), &standing.counts());
                gate.verdict(self.subject, (self.held, Author::Agent), &settled, &receipt)
            }
            Err(error) => {
                unsent.why = Some(error.to_string());
                Verdict::Deny(Denial { record, ..self.wanted.failed(&error) })
            }
        }
    }

    /// Records that it waits, then waits.
    async fn wait(&self, judgements: Vec<Judgement>, standing: &Standing, shape: Option<String>) -> Verdict {
        self.record(judgements, standing, async |record| {
            let deny = |denial: Denial| {
                let why = denial.message.clone();
                (why, Verdict::Deny(Denial { record, ..denial }))
            };
            let waits = self.held.circumstances().waits;
            if waits != Waits::Here || self.wanted.wire.is_zero() {
                let waits = if waits == Waits::Here { Waits::AskedNotTo } else { waits };
                return deny(self.wanted.still_open(standing, waits));
            }
            match self.people(standing, shape.as_deref()).await {
                Ending::Approved(standing) => {
                    let people: Vec<String> = standing.people().iter().map(ToString::to_string).collect();
                    (format!("approved by {}, and asked once more", people.join(" and ")), Verdict::Again)
                }
                Ending::Over(standing) => deny(self.wanted.over(&standing)),
                Ending::Late => deny(self.wanted.still_open(standing, Waits::Here)),
                Ending::GaveUp(GaveUp::Cancelled) => deny(self.wanted.cancelled(standing)),
                Ending::GaveUp(GaveUp::Left) => {
                    let (_, verdict) = deny(self.wanted.cancelled(standing));
                    ("its client left while it waited".to_owned(), verdict)
                }
                Ending::PolicyChanged => {
                    let why = "the policy changed".to_owned();
                    deny(self.wanted.over(&Standing { state: State::Void { why }, ..standing.clone() }))
                }
                Ending::Failed(error) => deny(self.wanted.failed(&error)),
            }
        })
        .await
    }

    /// Waits for people, and tells the client so.
    async fn people(&self, standing: &Standing, shape: Option<&str>) -> Ending {
        let mut changes = self.gate.approvals.changes();
        let begun = Instant::now();
        let deadline = begun + self.wanted.wire;
        let mut notices = NOTICES.into_iter();
        let mut next = notices.next();
        self.client.tell(self.wanted.notice(standing, Duration::ZERO));
        let mut gave_up = self.client.gave_up();
        loop {
            // Before looking, so that what changes meanwhile is looked at too.
            changes.borrow_and_update();
            if let Some(ending) = self.look(standing.id, shape).await {
                return ending;
            }
            loop {
                let notice = begun + next.unwrap_or(self.wanted.wire);
                tokio::select! {
                    biased;
                    why = &mut gave_up => return Ending::GaveUp(why),
                    () = sleep_until(deadline) => return Ending::Late,
                    () = sleep_until(notice) => {
                        self.client.tell(self.wanted.notice(standing, begun.elapsed()));
                        next = notices.next();
                    }
                    // The sender lives as long as the gate.
                    _ = changes.changed() => break,
                }
            }
        }
    }

    /// How the wait ends by where the request stands now, or one for all of its shape; none where it goes on.
    async fn look(&self, id: ApprovalId, shape: Option<&str>) -> Option<Ending> {
        let standing = match self.gate.approvals.look(id).await {
            Ok(standing) => standing,
            Err(error) => return Some(Ending::Failed(error)),
        };
        if self.gate.rules().policy.hash() != self.rules.policy.hash() {
            return Some(Ending::PolicyChanged);
        }
        if standing.state != State::Open {
            return Some(Ending::Over(standing));
        }
        if self.enough(&standing).await.is_some() {
            return Some(Ending::Approved(standing));
        }
        // Its own request says more than another's, once somebody has decided on it.
        let shape = shape.filter(|_| standing.decisions.is_empty())?;
        match self.gate.approvals.of_shape(shape.to_owned()).await {
            Ok(Some(other)) if self.enough(&other).await.is_some() => Some(Ending::Approved(other)),
            Ok(_) => None,
            Err(error) => Some(Ending::Failed(error)),
        }
    }

    /// Refuses what could not even be filed.
    async fn refuse(&self, judgements: Vec<Judgement>, denial: Denial) -> Verdict {
        let settled = Settled::new(self.rules.enforced(), judgements);
        let committed = self.gate.commit(&self.rules, self.subject, self.held, Author::Agent, &settled).await;
        match committed {
            Ok(receipt) => {
                let why = Some(denial.message.clone());
                drop(Unsent { producer: &self.gate.producer, records: receipt.records(), why });
                Verdict::Deny(Denial { record: settled.of_records(receipt.records()), ..denial })
            }
            Err(denial) => Verdict::Deny(denial),
        }
    }

    /// Commits that it is held by this request, and then its end: what `then` says, or that the connection ended.
    async fn record(
        &self,
        judgements: Vec<Judgement>,
        standing: &Standing,
        then: impl AsyncFnOnce(Option<RecordId>) -> (String, Verdict),
    ) -> Verdict {
        let settled = Settled::new(self.rules.enforced(), judgements).with(approval(standing));
        let committed = self.gate.commit(&self.rules, self.subject, self.held, Author::Agent, &settled).await;
        let receipt = match committed {
            Ok(receipt) => receipt,
            Err(denial) => return Verdict::Deny(denial),
        };
        let why = Some("the connection ended while it waited".to_owned());
        let mut unsent = Unsent { producer: &self.gate.producer, records: receipt.records(), why };
        let (why, verdict) = then(settled.of_records(receipt.records())).await;
        unsent.why = Some(why);
        verdict
    }
}

const ONLY_ASKED: &str = "Nothing was executed. Send it in a session without `interceptor.hold=ask`.";

/// Whether the judgements let it be carried out. What is only prepared is not, yet.
fn would_be_carried_out(held: &Held, judgements: &[Judgement]) -> bool {
    let allowed = judgements.iter().all(|one| matches!(one, Judgement::Allowed { .. }));
    allowed && held.actions().iter().any(|action| action.phase != Phase::Prepare)
}

fn approval(standing: &Standing) -> ApprovalRecord {
    ApprovalRecord { id: standing.id, by: standing.people() }
}
