use std::sync::{Arc, Barrier};

use interceptor_core::{
    approval::What,
    model::{AgentIdentity, Guarantee, Mode, Principal, Run},
    permit::Circumstances,
};

use super::*;

fn card(run: u64) -> Card {
    let run = Run {
        id: RunId::from_random(run),
        agent: AgentIdentity { name: "bot".parse().unwrap(), owner: None, groups: Vec::new() },
        cgroup: String::new(),
        guarantee: Guarantee::Structural,
        mode: Mode::Enforce,
        claims: Default::default(),
        started_at: 0,
    };
    let what = What {
        run: &run,
        resource: &"orders".parse().unwrap(),
        principal: &Principal::default(),
        circumstances: &Circumstances::default(),
        actions: &[],
        policy: "p1",
    };
    what.card(None, (&[], &["dba".to_owned()]), &interceptor_core::mask::Labels::none("orders"))
}

/// A docket in a folder of its own, at a time that the test chooses.
struct Desk {
    folder: tempfile::TempDir,
    docket: Docket,
    now: Moment,
    outcome: Option<OutcomeStatus>,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let docket = Docket::open(folder.path()).unwrap();
        Self { folder, docket, now: Moment::now().unwrap(), outcome: None }
    }

    fn ask(&mut self, question: Question) -> Answer {
        let outcome = self.outcome;
        self.docket.answer(question, &self.now, &|_| Ok(outcome)).unwrap()
    }

    fn file(&mut self, digest: &str) -> Standing {
        let filing = Filing { digest: digest.to_owned(), shape: None, card: card(7), seconds: 900, most: 8 };
        standing(self.ask(Question::File(Box::new(filing))))
    }

    fn decide(&mut self, id: ApprovalId, person: &str, says: Says) -> Answer {
        self.ask(Question::Decide { id, decision: decision(person, says) })
    }

    fn use_up(&mut self, id: ApprovalId, digest: &str, record: u64) -> Answer {
        self.ask(Question::Use { id, digest: digest.to_owned(), shape: None, record: RecordId(record) })
    }

    fn later(&mut self, seconds: i64) {
        self.now.wall += seconds * SECOND;
        self.now.since_boot += seconds * SECOND;
    }
}

fn decision(person: &str, says: Says) -> Decision {
    Decision { person: person.parse().unwrap(), group: "dba".to_owned(), says, at: 0 }
}

fn standing(answer: Answer) -> Standing {
    match answer {
        Answer::Standing(standing) => *standing,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: &Answer, part: &str) -> bool {
    matches!(answer, Answer::No(why) if why.contains(part))
}

const YES: Says = Says::Approve { uses: Uses::Once, seconds: 900 };

fn no() -> Says {
    Says::Deny { reason: "no".to_owned(), suggestion: None }
}

/// Whoever lists what there is must not be refused because there is much of it.
#[test]
fn a_long_list_is_cut_to_what_fits_a_message() {
    let mut desk = Desk::new();
    let mut card = card(7);
    card.groups = vec!["g".repeat(2000)];
    for n in 0..60 {
        let filing =
            Filing { digest: n.to_string(), shape: None, card: card.clone(), seconds: 900, most: 100 };
        standing(desk.ask(Question::File(Box::new(filing))));
    }
    let Answer::All(all) = desk.ask(Question::List) else { panic!("no list") };
    assert!((10..60).contains(&all.len()), "{}", all.len());
    assert!(serde_json::to_vec(&all).unwrap().len() < crate::channel::LIMIT);
}

/// To list much must not be to read much of the record: everybody who asks waits meanwhile.
#[test]
fn a_list_does_not_ask_what_came_of_each() {
    let mut desk = Desk::new();
    for digest in ["x", "y"] {
        let id = desk.file(digest).id;
        desk.decide(id, "bob", YES);
        standing(desk.use_up(id, digest, 1));
    }
    let last = desk.file("z").id;
    let Desk { docket, now, .. } = &mut desk;
    let mut listed = |question| docket.answer(question, now, &|_| panic!("it was asked")).unwrap();
    let Answer::All(all) = listed(Question::List) else { panic!("no list") };
    assert_eq!(all.len(), 3);
    let Answer::Shown(shown) = listed(Question::Show(last)) else { panic!("no card") };
    assert_eq!(shown.similar.len(), 2);
}

#[test]
fn a_list_begins_with_what_is_open() {
    let mut desk = Desk::new();
    let filed = ["a", "b", "c", "d"].map(|digest| {
        desk.now.wall += 1;
        desk.file(digest).id
    });
    let [a, b, c, d] = filed;
    for (id, digest) in [(b, "b"), (d, "d")] {
        desk.decide(id, "bob", YES);
        standing(desk.use_up(id, digest, 1));
    }
    let listed = match desk.ask(Question::List) {
        Answer::All(all) => all.into_iter().map(|standing| standing.id).collect::<Vec<_>>(),
        answer => panic!("no list: {answer:?}"),
    };
    assert_eq!(listed, [c, a, d, b]);
}

#[test]
fn the_same_wish_is_one_request_until_it_is_over() {
    let mut desk = Desk::new();
    let one = desk.file("x");
    assert_eq!(desk.file("x").id, one.id);
    assert_ne!(desk.file("y").id, one.id);
    assert!(refused(&desk.use_up(one.id, "x", 1), "not for this"), "nobody approved");
    desk.decide(one.id, "bob", YES);
    assert!(refused(&desk.decide(one.id, "bob", YES), "nobody counts twice"));
    assert!(refused(&desk.decide(one.id, "bob", no()), "nobody counts twice"));
    assert!(refused(&desk.use_up(one.id, "y", 1), "not for this"));
    assert_eq!(desk.file("x").counts()["dba"], 1);
    standing(desk.use_up(one.id, "x", 1));
    assert!(refused(&desk.use_up(one.id, "x", 2), "used by record 1"));
    // What may have been done stands in the way; what was done does not.
    assert_eq!(desk.file("x").state, State::Used { record: RecordId(1), outcome: None });
    desk.outcome = Some(OutcomeStatus::Unknown);
    assert_eq!(desk.file("x").id, one.id);
    desk.outcome = Some(OutcomeStatus::Completed);
    assert_ne!(desk.file("x").id, one.id);
}

#[test]
fn one_no_ends_it_and_is_the_answer_for_its_time() {
    let mut desk = Desk::new();
    let one = desk.file("x");
    desk.decide(one.id, "bob", YES);
    assert_eq!(standing(desk.decide(one.id, "eve", no())).state, State::Denied);
    assert!(refused(&desk.decide(one.id, "dan", YES), "was denied"));
    assert!(refused(&desk.use_up(one.id, "x", 1), "was denied"));
    assert_eq!(desk.file("x").id, one.id);
    desk.later(900);
    assert_ne!(desk.file("x").id, one.id);
}

#[test]
fn everything_expires_by_either_clock_and_with_the_boot() {
    let mut desk = Desk::new();
    let one = desk.file("x");
    let then = desk.now.clone();
    for moment in [
        Moment { wall: then.wall + 900 * SECOND, ..then.clone() },
        Moment { since_boot: then.since_boot + 900 * SECOND, ..then.clone() },
        Moment { wall: then.wall - SECOND, ..then.clone() },
        Moment { boot: "another".to_owned(), ..then.clone() },
    ] {
        desk.now = moment;
        assert!(refused(&desk.decide(one.id, "bob", YES), "has expired"), "{:?}", desk.now);
    }
    // An approval is as short as whoever approved said, though the request was open for longer.
    desk.now = then;
    desk.decide(one.id, "bob", Says::Approve { uses: Uses::Any, seconds: 60 });
    desk.decide(one.id, "eve", Says::Approve { uses: Uses::Any, seconds: 600 });
    desk.later(59);
    for record in 1..4 {
        assert_eq!(standing(desk.use_up(one.id, "x", record)).state, State::Open);
    }
    desk.later(1);
    assert!(refused(&desk.use_up(one.id, "x", 4), "has expired"));
}

#[test]
fn another_policy_voids_what_is_open() {
    let mut desk = Desk::new();
    let one = desk.file("x");
    assert_eq!(desk.ask(Question::Void { policy: "p1".to_owned() }), Answer::Voided(0));
    assert_eq!(desk.ask(Question::Void { policy: "p2".to_owned() }), Answer::Voided(1));
    assert!(refused(&desk.decide(one.id, "bob", YES), "the policy changed"));
}

#[test]
fn a_run_has_room_for_so_many_undecided_requests() {
    let mut desk = Desk::new();
    let wish = |n: u32| {
        Question::File(Box::new(Filing {
            digest: n.to_string(),
            shape: None,
            card: card(7),
            seconds: 900,
            most: 3,
        }))
    };
    let ids: Vec<ApprovalId> = (0..3).map(|n| standing(desk.ask(wish(n))).id).collect();
    assert_eq!(desk.ask(wish(3)), Answer::TooMany(3));
    assert!(matches!(desk.ask(wish(2)), Answer::Standing(_)), "it is there already");
    let other = Filing { digest: "z".to_owned(), shape: None, card: card(8), seconds: 900, most: 3 };
    assert!(matches!(desk.ask(Question::File(Box::new(other))), Answer::Standing(_)), "a neighbour");
    desk.decide(ids[0], "bob", no());
    assert!(matches!(desk.ask(wish(3)), Answer::Standing(_)));
}

#[test]
fn what_was_answered_outlives_the_process() {
    let mut desk = Desk::new();
    let one = desk.file("x");
    desk.decide(one.id, "bob", YES);
    desk.docket = Docket::open(desk.folder.path()).unwrap();
    assert_eq!(desk.file("x").people(), ["bob".parse().unwrap()]);
    standing(desk.use_up(one.id, "x", 1));
    desk.docket = Docket::open(desk.folder.path()).unwrap();
    assert!(refused(&desk.use_up(one.id, "x", 2), "used by record 1"));
}

/// Each from a connection of its own, as processes would.
#[test]
fn of_many_at_once_one_wins() {
    const MANY: u64 = 8;
    let mut desk = Desk::new();
    let one = desk.file("x");
    let (start, folder) = (Arc::new(Barrier::new(MANY as usize)), desk.folder.path().to_owned());
    let at_once = |question: fn(ApprovalId, u64) -> Question| {
        let threads: Vec<_> = (0..MANY)
            .map(|number| {
                let (start, folder, now, id) = (start.clone(), folder.clone(), desk.now.clone(), one.id);
                std::thread::spawn(move || {
                    let mut docket = Docket::open(&folder).unwrap();
                    start.wait();
                    docket.answer(question(id, number), &now, &|_| Ok(None)).unwrap()
                })
            })
            .collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.filter(|answer| matches!(answer, Answer::Standing(_))).count()
    };
    assert_eq!(at_once(|id, _| Question::Decide { id, decision: decision("bob", YES) }), 1);
    let use_up =
        |id, number| Question::Use { id, digest: "x".to_owned(), shape: None, record: RecordId(number) };
    assert_eq!(at_once(use_up), 1);
}

#[test]
fn an_approval_of_a_shape_is_found_by_whatever_has_it() {
    let mut desk = Desk::new();
    let filing = |digest: &str, shape: &str| {
        let (digest, shape) = (digest.to_owned(), Some(shape.to_owned()));
        Question::File(Box::new(Filing { digest, shape, card: card(7), seconds: 900, most: 8 }))
    };
    let file = |desk: &mut Desk, digest: &str, shape: &str| standing(desk.ask(filing(digest, shape)));
    let use_up = |id, digest: &str, shape: &str| Question::Use {
        id,
        digest: digest.to_owned(),
        shape: Some(shape.to_owned()),
        record: RecordId(1),
    };
    let one = file(&mut desk, "x", "s");
    let waits = file(&mut desk, "y", "s");
    assert_ne!(waits.id, one.id, "nobody has approved the shape");
    desk.decide(one.id, "bob", Says::Approve { uses: Uses::Shape { rows: 3 }, seconds: 60 });
    assert_eq!(file(&mut desk, "y", "s").id, one.id, "it waits for nothing any more");
    assert_eq!(file(&mut desk, "z", "s").terms().rows, Some(3));
    assert_ne!(file(&mut desk, "z", "other").id, one.id);
    for _ in 0..2 {
        assert_eq!(standing(desk.ask(use_up(one.id, "z", "s"))).state, State::Open);
    }
    assert!(refused(&desk.ask(use_up(one.id, "z", "other")), "not for this"));
    // The narrower word of another person counts.
    desk.decide(one.id, "eve", Says::Approve { uses: Uses::Any, seconds: 60 });
    assert!(refused(&desk.ask(use_up(one.id, "z", "s")), "not for this"));
    assert_eq!(standing(desk.ask(use_up(one.id, "x", "s"))).state, State::Open);
    assert_ne!(file(&mut desk, "w", "s").id, one.id);
    desk.decide(waits.id, "bob", no());
    assert_eq!(file(&mut desk, "y", "s").state, State::Denied);
    // A docket that was begun without shapes has room for them.
    let old = tempfile::tempdir().unwrap();
    Connection::open(old.path().join("approvals.sqlite")).unwrap().execute_batch(TABLES).unwrap();
    let mut docket = Docket::open(old.path()).unwrap();
    let answer = docket.answer(filing("x", "s"), &desk.now, &|_| Ok(None)).unwrap();
    assert_eq!(standing(answer).state, State::Open);
}
