//! The gate over a real journal: what is written in which order, and what is owed when somebody stops waiting.

use std::{sync::Mutex, time::Duration};

use futures::future::BoxFuture;
use interceptor_core::{
    Client, Enclosed, Enclosure, Gate as _, Notice, Terms,
    approval::{Decision, Says, Standing, Uses},
    inventory::{self, DataIn, KnownProtocol, Source},
    mask::MaskKey,
    model::{
        AgentIdentity, Binds, ClientAddress, Connection, ConnectionId, Entry, Guarantee, Object,
        OriginalDestination, Phase, ProcessFacts, RecordId, Run, RunId, Session, StatementFacts, Target,
        Verb,
    },
    permit::{Circumstances, GaveUp, Waits},
    undo::{Column, Pack, Role},
};

use super::*;
use crate::{
    approval::{Clerk, Shelf},
    binding::tests::Cabinet,
    store::{
        Config, Journal, Limits, Reader, Writer,
        docket::{self, Docket, Moment, Question},
        packs,
    },
};

pub(super) const RESOURCES: &str = r#"
[resource.orders]
protocol = "postgres"
hosts = ["db.internal"]
[[resource.orders.credential]]
user = "app"
secret = { file = "orders" }
"#;
const RULES: &str = r#"
@id("all")
permit (principal, action in [Action::"connect", Action::"data.read", Action::"data.delete"], resource);
@id("no-deletes")
@say("rows stay")
forbid (principal, action == Action::"data.delete", resource);
"#;

pub(super) fn rules(resources: &str) -> Rules {
    let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
    let known = [KnownProtocol {
        name: "postgres",
        port: 5432,
        data: DataIn::Tables,
        dialect: Some(interceptor_core::sql::Dialect::Postgres),
    }];
    let agents = source("agents.toml", "[agent.bot]\nowner = \"alice\"\n");
    let inventory = inventory::load(&source("resources.toml", resources), &agents, &known)
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    let policy =
        Policy::load(&[source("p.cedar", RULES)], &inventory).unwrap_or_else(|faults| panic!("{faults:#?}"));
    Rules { inventory, policy, rescue: None }
}

/// A docket without a keeper around it; no exchange has ended.
pub(super) struct Desk(pub(super) Mutex<Docket>);

impl Clerk for Desk {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<docket::Answer, String>> {
        let now = Moment::now().unwrap();
        let answer = self.0.lock().unwrap().answer(question, &now, &|_| Ok(None));
        Box::pin(std::future::ready(answer.map_err(|error| error.to_string())))
    }
}

struct Cupboard(Mutex<packs::Packs>);

impl Shelf for Cupboard {
    fn ask(&self, question: packs::Question) -> BoxFuture<'_, Result<packs::Answer, String>> {
        let answer = self.0.lock().unwrap().answer(question, now_us());
        Box::pin(std::future::ready(answer.map_err(|error| error.to_string())))
    }
}

/// A client that says and hears nothing.
pub(super) struct Quiet;

impl Client for Quiet {
    fn tell(&self, _: Notice) {}

    fn gave_up(&self) -> BoxFuture<'_, GaveUp> {
        Box::pin(std::future::pending())
    }
}

/// A resource that guesses that everything concerns as many rows.
pub(crate) struct Guess;

impl Estimator for Guess {
    fn estimate<'a>(&'a self, _: &'a Subject, _: &'a Held) -> BoxFuture<'a, Estimate> {
        Box::pin(std::future::ready(Estimate::Rows(12)))
    }
}

/// A gate whose rules permit everything but deletes, over a journal of its own.
pub(crate) struct Bed {
    folder: tempfile::TempDir,
    journal: Journal,
    pub(crate) gate: Arc<PolicyGate>,
}

impl Bed {
    pub(crate) fn new(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(&folder.path().join("journal"), 0).unwrap();
        let producer = Producer::attach(&journal, Limits::default(), []).unwrap();
        let rules = Arc::new(ArcSwap::from_pointee(rules(RESOURCES)));
        let docket = Desk(Mutex::new(Docket::open(folder.path()).unwrap()));
        let approvals = Approvals::new(Arc::new(docket));
        let packs = Packs::new(Arc::new(Cupboard(Mutex::new(packs::Packs::open(folder.path()).unwrap()))));
        let bound = Bound::new(Cabinet::open(folder.path()));
        let key = MaskKey::new([0; 32]);
        let gate = PolicyGate::new(rules, producer, durability, approvals, packs, bound, key);
        let gate = Arc::new(gate);
        Self { folder, journal, gate }
    }

    /// The same gate, whose requests are kept elsewhere.
    fn over(&self, approvals: Approvals) -> PolicyGate {
        let (rules, producer, packs) = (&self.gate.rules, &self.gate.producer, self.gate.packs());
        let key = MaskKey::new([0; 32]);
        let bound = Bound::new(Cabinet::open(self.folder.path()));
        let (rules, producer, packs) = (rules.clone(), producer.clone(), packs.clone());
        PolicyGate::new(rules, producer, Durability::Process, approvals, packs, bound, key)
    }

    /// The gate as `session` meets it.
    pub(super) fn session(&self, session: &Session) -> SessionGate {
        SessionGate::new(self.gate.clone(), Arc::new(Subject::of_session(session)), Arc::new(Guess))
    }

    /// What the keeper makes of it: statements that were recorded, and how each ended, in the order of their ends.
    pub(crate) fn outcomes(&self) -> Vec<(String, OutcomeStatus, Option<String>)> {
        let audit = self.folder.path().join("audit");
        let config = Config { free_warn: 0, free_refuse: 0, ..Config::default() };
        let (mut writer, _) = Writer::open(&audit, &self.journal, config).unwrap();
        writer.drain().unwrap();
        writer.close().unwrap();
        let mut requests = BTreeMap::new();
        let mut ended = Vec::new();
        for line in Reader::open(&audit).unwrap().tail(usize::MAX).unwrap() {
            match line.entry {
                Entry::Request(request) => drop(requests.insert(RecordId(line.seq), request.action.text)),
                Entry::Outcome(outcome) => {
                    let text = requests.remove(&outcome.request).expect("one outcome for each request");
                    ended.push((text.into(), outcome.status, outcome.message));
                }
                Entry::Event(_) => {}
            }
        }
        assert!(requests.is_empty(), "no outcome for {requests:?}");
        ended
    }
}

pub(crate) fn session() -> Session {
    let run = Run {
        id: RunId::from_random(7),
        agent: AgentIdentity { name: "bot".parse().unwrap(), owner: None, groups: Vec::new() },
        cgroup: "r7".to_owned(),
        guarantee: Guarantee::Structural,
        mode: Mode::Enforce,
        claims: BTreeMap::new(),
        started_at: 0,
    };
    let process = ProcessFacts {
        pid: 1,
        start_time: 1,
        uid: 1000,
        executable: None,
        digest: None,
        argv: Vec::new(),
        ancestry: Vec::new(),
        cgroup: "1".to_owned(),
        late: true,
        descent: None,
    };
    Session {
        connection: Arc::new(Connection {
            id: ConnectionId(1),
            run: Arc::new(run),
            process: Arc::new(process),
            client: Some(ClientAddress("127.0.0.1:40000".parse().unwrap())),
            destination: OriginalDestination::Address("198.18.0.1:5432".parse().unwrap()),
            accepted_at: 0,
        }),
        resource: "orders".parse().unwrap(),
        protocol: "postgres",
        principal: interceptor_core::model::Principal::default(),
    }
}

/// An exchange of these statements; what begins with `no` deletes.
pub(crate) fn held(number: u64, texts: &[&str], bytes: &str) -> Held {
    let action = |text: &&str| Action {
        phase: Phase::Query,
        text: (*text).into(),
        binds: Binds::new(),
        facts: StatementFacts::single(
            if text.starts_with("no") { Verb::DataDelete } else { Verb::DataRead },
            Target::Resource,
        )
        .into(),
    };
    Held::new(
        number,
        texts.iter().map(action).collect::<Vec<_>>(),
        bytes::Bytes::copy_from_slice(bytes.as_bytes()),
    )
}

#[tokio::test]
async fn one_refused_statement_refuses_its_batch_and_each_is_recorded() {
    let bed = Bed::new(Durability::Process);
    let verdict =
        bed.session(&session()).judge(&held(1, &["a", "no b", "c"], "x"), Author::Agent, &Quiet).await;
    let Verdict::Deny(denial) = verdict else { panic!("{verdict:?}") };
    assert_eq!((denial.rule.as_str(), denial.message.as_str()), ("no-deletes", "rows stay"));
    let outcomes = bed.outcomes();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|(_, status, _)| *status == OutcomeStatus::Refused), "{outcomes:?}");
}

#[tokio::test]
async fn a_record_that_the_disk_never_gets_is_a_refusal_with_an_outcome() {
    let bed = Bed::new(Durability::Power);
    let verdict = bed.session(&session()).judge(&held(1, &["a"], "a"), Author::Agent, &Quiet).await;
    assert!(matches!(&verdict, Verdict::Deny(denial) if denial.rule == "record"), "{verdict:?}");
    assert_eq!(bed.gate.producer().open_requests(), 0);
    // A caller that stops waiting sends nothing either.
    let (gate, held) = (bed.session(&session()), held(2, &["b"], "b"));
    let judged = gate.judge(&held, Author::Agent, &Quiet);
    assert!(tokio::time::timeout(Duration::from_millis(50), judged).await.is_err());
    assert_eq!(bed.gate.producer().open_requests(), 0);
    let ends: Vec<_> = bed.outcomes().into_iter().map(|(text, status, _)| (text, status)).collect();
    assert_eq!(ends, [("a".to_owned(), OutcomeStatus::Refused), ("b".to_owned(), OutcomeStatus::Refused)]);
}

#[tokio::test]
async fn an_outcome_is_written_once_whatever_ends_the_exchange() {
    let bed = Bed::new(Durability::Process);
    let one = held(1, &["a", "b"], "x");
    let Verdict::Allow(permit, _) = bed.session(&session()).judge(&one, Author::Agent, &Quiet).await else {
        panic!()
    };
    let mut ledger = Ledger::new(bed.gate.producer().clone());
    ledger.sent(1, permit.records());
    ledger.ended_whole(1, OutcomeStatus::Completed, 3, None);
    ledger.ended_whole(1, OutcomeStatus::Failed, 3, None);
    ledger.ended_whole(9, OutcomeStatus::Failed, 3, None);
    drop(ledger);
    let ends: Vec<_> = bed.outcomes().into_iter().map(|(text, status, _)| (text, status)).collect();
    assert_eq!(ends, [("a".to_owned(), OutcomeStatus::Completed), ("b".to_owned(), OutcomeStatus::Unknown)]);
}

#[tokio::test]
async fn each_exchange_ends_as_its_own_in_whatever_order() {
    let bed = Bed::new(Durability::Process);
    let gate = bed.session(&session());
    let mut ledger = Ledger::new(bed.gate.producer().clone());
    let text = |number: u64| format!("s{number}");
    // 7 has no divisor with 40: each number once, hardly any in its place. The last comes when the room was given back.
    let in_disorder = || (0..40).map(|step| step * 7 % 40);
    for numbers in [in_disorder().collect(), vec![40]] {
        for &number in &numbers {
            let held = held(number, &[&text(number)], &text(number));
            let verdict = gate.judge(&held, Author::Agent, &Quiet).await;
            let Verdict::Allow(permit, _) = verdict else { panic!("{verdict:?}") };
            ledger.sent(number, permit.records());
        }
        for &number in numbers.iter().rev() {
            ledger.ended_whole(number, OutcomeStatus::Completed, 0, Some(text(number)));
        }
    }
    drop(ledger);
    let ended = bed.outcomes();
    assert_eq!(ended.len(), 41);
    for (asked, status, said) in ended {
        assert_eq!((status, said), (OutcomeStatus::Completed, Some(asked)));
    }
}

#[tokio::test]
async fn a_run_that_owes_many_outcomes_leaves_room_for_the_others() {
    let bed = Bed::new(Durability::Process);
    let all: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut refused = None;
    for number in 0..50 {
        let verdict = bed.session(&session()).judge(&held(number, &texts, "x"), Author::Agent, &Quiet).await;
        if let Verdict::Deny(denial) = verdict {
            refused = Some(denial);
            break;
        }
    }
    let denial = refused.expect("a limit");
    assert!(denial.message.contains("under way"), "{denial:?}");
    let mut neighbour = session();
    let mut connection = (*neighbour.connection).clone();
    connection.run = Arc::new(Run { id: RunId::from_random(8), ..(*connection.run).clone() });
    neighbour.connection = Arc::new(connection);
    let verdict = bed.session(&neighbour).judge(&held(1, &["a"], "a"), Author::Agent, &Quiet).await;
    assert!(matches!(verdict, Verdict::Allow(..)), "{verdict:?}");
}

#[test]
fn a_session_ends_when_its_resource_is_another() {
    let bed = Bed::new(Durability::Process);
    let (subject, opening) = (Subject::of_session(&session()), held(1, &["a"], "a"));
    let allows = |before: &Rules| bed.gate.still_allows(before, &subject, opening.actions());
    assert!(allows(&rules(RESOURCES)));
    // What is elsewhere in the file makes no difference.
    assert!(allows(&rules(&format!("approvers = []\n{RESOURCES}"))));
    let elsewhere = RESOURCES.replace("hosts", "upstream = \"other.internal:5432\"\nhosts");
    assert!(!allows(&rules(&elsewhere)));
    assert!(!allows(&rules(&RESOURCES.replace("\"app\"", "\"owner\""))));
    let before = bed.gate.rules();
    bed.gate.rules.store(Arc::new(rules("")));
    assert!(!allows(&before), "a resource that is gone");
}

#[test]
fn a_yes_is_remembered_for_the_same_facts_and_the_same_rules_alone() {
    let bed = Bed::new(Durability::Process);
    let gate = bed.session(&session());
    let mut ledger = Ledger::new(bed.gate.producer().clone());
    let mut allowed = |number, text| match gate.judge_now(&held(number, &[text], text), Author::Agent) {
        Some(Verdict::Allow(permit, _)) => {
            ledger.sent(number, permit.records());
            true
        }
        Some(Verdict::Deny(_)) => false,
        Some(other @ (Verdict::Again | Verdict::Enclose(_))) => panic!("it did not wait: {other:?}"),
        None => panic!("it need not wait"),
    };
    assert!(allowed(1, "a"));
    assert!(allowed(2, "b"), "other text, the same facts");
    assert!(!allowed(3, "no"), "other facts");
    let policy = Policy::load(&[], &Inventory::default()).unwrap();
    bed.gate.rules.store(Arc::new(Rules { policy, ..rules(RESOURCES) }));
    assert!(!allowed(4, "a"), "other rules");
    drop(ledger);
    let mut ends: Vec<_> = bed.outcomes().into_iter().map(|(text, status, _)| (text, status)).collect();
    ends.sort_by_key(|(text, status)| (format!("{status:?}"), text.clone()));
    // Each has a record of its own.
    let unknown = |text: &str| (text.to_owned(), OutcomeStatus::Unknown);
    let refused = |text: &str| (text.to_owned(), OutcomeStatus::Refused);
    assert_eq!(ends, [refused("a"), refused("no"), unknown("a"), unknown("b")]);
}

#[tokio::test]
async fn what_must_wait_decides_nothing_at_once() {
    let bed = Bed::new(Durability::Power);
    let gate = bed.session(&session());
    assert!(gate.judge_now(&held(1, &["a"], "a"), Author::Agent).is_none(), "the disk");
    let bed = Bed::new(Durability::Process);
    let gate = bed.session(&session());
    assert!(gate.judge_now(&held(1, &["a", "b"], "a"), Author::Agent).is_none(), "a batch");
    assert!(gate.judge_now(&held(1, &["a"], "a"), Author::Gate).is_none(), "the gate's own");
    assert_eq!(bed.gate.producer().open_requests(), 0);
}

/// A client that notes what it hears, and leaves when it is told to.
struct Noting {
    heard: Mutex<Vec<Notice>>,
    leaves: tokio::sync::Notify,
}

impl Client for Noting {
    fn tell(&self, notice: Notice) {
        self.heard.lock().unwrap().push(notice);
    }

    fn gave_up(&self) -> BoxFuture<'_, GaveUp> {
        Box::pin(async {
            self.leaves.notified().await;
            GaveUp::Left
        })
    }
}

fn noting() -> Noting {
    Noting { heard: Mutex::default(), leaves: tokio::sync::Notify::new() }
}

const HOLDS: &str = r#"
@id("all")
permit (principal, action in [Action::"connect", Action::"data.read", Action::"data.delete", Action::"function.call"], resource);
@id("two-of-them")
@hold("dba") @within("2s")
forbid (principal, action in [Action::"data.delete", Action::"function.call"], resource)
unless { context.approvals.dba >= 2 };
"#;

/// A bed whose rules hold what deletes for two of the DBAs.
fn holding() -> Bed {
    let bed = Bed::new(Durability::Process);
    bed.gate.rules.store(Arc::new(held_rules(HOLDS)));
    bed
}

fn held_rules(text: &str) -> Rules {
    let before = rules(&format!("approvers = [\"dba\"]\n{RESOURCES}"));
    let source = Source { file: "p.cedar".to_owned(), text: text.to_owned() };
    let policy = Policy::load(&[source], &before.inventory).unwrap_or_else(|faults| panic!("{faults:#?}"));
    Rules { policy, ..before }
}

fn waiting(number: u64, text: &str) -> Held {
    let circumstances = Circumstances { waits: Waits::Here, ..Circumstances::default() };
    held(number, &[text], text).under(circumstances)
}

impl Bed {
    async fn newest(&self) -> Standing {
        self.gate.approvals.list().await.unwrap().remove(0)
    }

    async fn says(&self, person: &str, says: Says) {
        let decision =
            Decision { person: person.parse().unwrap(), group: "dba".to_owned(), says, at: now_us() };
        self.gate.approvals.decide(self.newest().await.id, decision).await.unwrap();
    }

    async fn told(&self, client: &Noting) {
        while client.heard.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

const YES: Says = Says::Approve { uses: Uses::Once, seconds: 60 };

#[tokio::test]
async fn what_stands_behind_answers_under_way_is_put_off_and_nobody_is_asked() {
    let bed = holding();
    let (gate, client) = (bed.session(&session()), noting());
    let circumstances = Circumstances { waits: Waits::Behind, ..Circumstances::default() };
    let asked = held(1, &["no more"], "no more").under(circumstances);
    let verdict = gate.judge(&asked, Author::Agent, &client).await;
    assert!(matches!(verdict, Verdict::Again), "{verdict:?}");
    assert!(bed.gate.approvals.list().await.unwrap().is_empty());
    assert!(client.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn enough_people_let_it_go_once_and_not_before() {
    let bed = holding();
    let (gate, client) = (bed.session(&session()), noting());
    let asked = waiting(1, "no more");
    let judged = gate.judge(&asked, Author::Agent, &client);
    let people = async {
        bed.told(&client).await;
        bed.says("bob", YES).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        bed.says("eve", YES).await;
    };
    let (verdict, ()) = tokio::join!(judged, people);
    assert!(matches!(verdict, Verdict::Again), "{verdict:?}");
    assert!(client.heard.lock().unwrap()[0].message.contains("waits for approval by dba"));
    let asked = waiting(2, "no more");
    let Verdict::Allow(permit, _) = gate.judge(&asked, Author::Agent, &client).await else { panic!() };
    let mut ledger = Ledger::new(bed.gate.producer().clone());
    ledger.sent(2, permit.records());
    // It is under way or ended unseen: not again by the same approval.
    let verdict = gate.judge(&waiting(3, "no more"), Author::Agent, &client).await;
    assert!(
        matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("was used for record")),
        "{verdict:?}"
    );
    drop(ledger);
    let ends: Vec<_> =
        bed.outcomes().into_iter().map(|(_, status, why)| (status, why.unwrap_or_default())).collect();
    assert!(ends[0].1.contains("approved by bob and eve, and asked once more"), "{ends:?}");
}

#[tokio::test]
async fn a_no_an_end_of_patience_and_a_client_that_leaves_are_refusals_with_outcomes() {
    let bed = holding();
    let (gate, client) = (bed.session(&session()), noting());
    let no = Says::Deny { reason: "r\u{1b}[31m".to_owned(), suggestion: Some("SELECT 1".to_owned()) };
    let asked = waiting(1, "no 1");
    let (verdict, ()) = tokio::join!(gate.judge(&asked, Author::Agent, &client), async {
        bed.told(&client).await;
        bed.says("bob", no).await;
    });
    let Verdict::Deny(denial) = verdict else { panic!("{verdict:?}") };
    assert!(denial.message.starts_with("denied by bob: r\\u{1b}[31m"), "{denial:?}");
    assert!(denial.hint.contains("Suggested instead: SELECT 1"), "{denial:?}");
    let late = waiting(2, "no 2");
    let Verdict::Deny(denial) = gate.judge(&late, Author::Agent, &client).await else { panic!() };
    assert!(denial.message.contains("not approved within 2 s"), "{denial:?}");
    let (client, asked) = (noting(), waiting(3, "no 3"));
    let (verdict, ()) = tokio::join!(gate.judge(&asked, Author::Agent, &client), async {
        bed.told(&client).await;
        client.leaves.notify_one();
    });
    assert!(matches!(verdict, Verdict::Deny(_)));
    // Nobody waits, and then nobody is executed for, whatever is approved.
    bed.says("bob", YES).await;
    bed.says("eve", YES).await;
    let gone = noting();
    gone.leaves.notify_one();
    let verdict = gate.judge(&waiting(4, "no 3"), Author::Agent, &gone).await;
    assert!(
        matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("client had left")),
        "{verdict:?}"
    );
    let whys: Vec<_> =
        bed.outcomes().into_iter().map(|(_, status, why)| (status, why.unwrap_or_default())).collect();
    assert!(whys.iter().all(|(status, _)| *status == OutcomeStatus::Refused), "{whys:?}");
    assert!(whys[2].1.contains("its client left while it waited"), "{whys:?}");
}

#[tokio::test]
async fn a_policy_that_changes_voids_what_waits() {
    let bed = holding();
    let (gate, client) = (bed.session(&session()), noting());
    let asked = waiting(1, "no more");
    let (verdict, ()) = tokio::join!(gate.judge(&asked, Author::Agent, &client), async {
        bed.told(&client).await;
        bed.gate.rules.store(Arc::new(held_rules(&HOLDS.replace(">= 2", ">= 1"))));
        let policy = bed.gate.rules().policy.hash().to_owned();
        assert_eq!(bed.gate.approvals.void(&policy).await, Ok(1));
    });
    assert!(
        matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("the policy changed")),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn only_preparing_does_not_wait_unless_binding_may_run_something() {
    let bed = holding();
    let gate = bed.session(&session());
    let prepared = |number, verb| {
        let action = Action {
            phase: Phase::Prepare,
            text: "p".into(),
            binds: Binds::new(),
            facts: StatementFacts::single(verb, Target::Resource).into(),
        };
        Held::new(number, vec![action], bytes::Bytes::from_static(b"p"))
    };
    assert!(gate.judge_now(&prepared(1, Verb::DataDelete), Author::Agent).is_none());
    let verdict = gate.judge(&prepared(1, Verb::DataDelete), Author::Agent, &Quiet).await;
    assert!(matches!(verdict, Verdict::Allow(..)), "{verdict:?}");
    let verdict = gate.judge(&prepared(2, Verb::FunctionCall), Author::Agent, &Quiet).await;
    assert!(
        matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("as a simple query")),
        "{verdict:?}"
    );
    assert!(bed.gate.approvals.list().await.unwrap().is_empty());
}

/// Keeps nothing.
struct Broken;

impl Clerk for Broken {
    fn ask(&self, _: Question) -> BoxFuture<'_, Result<docket::Answer, String>> {
        Box::pin(std::future::ready(Err("disk full".to_owned())))
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let mut bed = holding();
    bed.gate = Arc::new(bed.over(Approvals::new(Arc::new(Broken))));
    let verdict = bed.session(&session()).judge(&waiting(1, "no more"), Author::Agent, &Quiet).await;
    assert!(matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("disk full")), "{verdict:?}");
    assert_eq!(bed.outcomes()[0].1, OutcomeStatus::Refused);
}

/// A docket whose disk fills up once people have decided.
struct Tired(Desk);

impl Clerk for Tired {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<docket::Answer, String>> {
        match question {
            Question::Use { .. } => Box::pin(std::future::ready(Err("disk full".to_owned()))),
            other => self.0.ask(other),
        }
    }
}

#[tokio::test]
async fn what_is_approved_and_cannot_be_used_up_is_not_sent() {
    let mut bed = holding();
    let docket = Docket::open(bed.folder.path()).unwrap();
    let approvals = Approvals::new(Arc::new(Tired(Desk(Mutex::new(docket)))));
    bed.gate = Arc::new(bed.over(approvals));
    let (gate, client) = (bed.session(&session()), noting());
    let asked = waiting(1, "no more");
    let (verdict, ()) = tokio::join!(gate.judge(&asked, Author::Agent, &client), async {
        bed.told(&client).await;
        bed.says("bob", YES).await;
        bed.says("eve", YES).await;
    });
    assert!(matches!(verdict, Verdict::Again), "{verdict:?}");
    let verdict = gate.judge(&waiting(2, "no more"), Author::Agent, &client).await;
    assert!(matches!(&verdict, Verdict::Deny(denial) if denial.message.contains("disk full")), "{verdict:?}");
    assert!(bed.outcomes().iter().all(|(_, status, _)| *status == OutcomeStatus::Refused));
}

const UNDOES: &str = r#"
@id("all") @undo("7")
permit (principal, action in [Action::"connect", Action::"data.read", Action::"data.delete"], resource);
"#;

/// What a rule wants undone goes only with its images, which are kept behind the record that names them.
#[tokio::test]
async fn what_can_be_undone_waits_for_its_images() {
    let bed = Bed::new(Durability::Process);
    bed.gate.rules.store(Arc::new(held_rules(UNDOES)));
    let gate = bed.session(&session());
    let asked = |number, enclosure| {
        let circumstances = Circumstances { enclosure, ..Circumstances::default() };
        held(number, &["no rows"], "no rows").under(circumstances)
    };
    let terms = Terms { rows: None, undo: Some(7) };
    assert!(gate.judge_now(&asked(1, Enclosure::Possible), Author::Agent).is_none(), "not without waiting");
    let verdict = gate.judge(&asked(1, Enclosure::Possible), Author::Agent, &Quiet).await;
    assert!(matches!(verdict, Verdict::Enclose(wanted) if wanted == terms), "{verdict:?}");
    // By default, with the reason of whoever knows it, without images, and within other terms: no.
    let within = |terms, pack| Enclosure::Within(Arc::new(Enclosed { terms, pack }));
    let other = Terms { rows: Some(3), ..terms };
    for (enclosure, part) in [
        (Enclosure::default(), "its protocol cannot"),
        (Enclosure::Impossible("it has a query inside".into()), "it has a query inside"),
        (within(terms, None), "no images"),
        (within(other, None), "has changed since"),
    ] {
        let verdict = gate.judge(&asked(2, enclosure), Author::Agent, &Quiet).await;
        let Verdict::Deny(denial) = verdict else { panic!("{part}: {verdict:?}") };
        assert_eq!(denial.rule, "undo");
        assert!(denial.message.contains(part) && denial.hint.contains("interceptor why"), "{denial:?}");
    }
    let table =
        Object { database: "d".to_owned(), schema: "s".to_owned(), name: "t".to_owned(), oid: Some(1) };
    let long = "it's \\ \u{e9}\n".repeat(20_000);
    let pack = Pack {
        verb: Verb::DataDelete,
        table,
        transaction: 1,
        columns: vec![Column { name: "a".to_owned(), role: Role::Plain }],
        rows: vec![vec![Some(long)]],
    };
    let asked = asked(3, within(terms, Some(pack.clone())));
    let Verdict::Allow(permit, _) = gate.judge(&asked, Author::Agent, &Quiet).await else {
        panic!("it is enclosed")
    };
    let kept = bed.gate.packs().find(permit.records().get(0).unwrap()).await.unwrap();
    assert_eq!((kept.undo.pack, kept.used), (pack, None));
    // What reads is free.
    assert!(matches!(gate.judge_now(&held(4, &["a"], "a"), Author::Agent), Some(Verdict::Allow(..))));
}
