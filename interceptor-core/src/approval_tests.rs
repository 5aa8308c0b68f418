use super::*;
use crate::{
    inventory::Person,
    model::{Guarantee, Mode, Object, StatementKind},
    permit::Naming,
};

fn run() -> Run {
    Run {
        id: RunId::from_random(7),
        agent: AgentIdentity {
            name: "bot".parse().expect("a name"),
            owner: Some("alice".to_owned()),
            groups: Vec::new(),
        },
        cgroup: String::new(),
        guarantee: Guarantee::Structural,
        mode: Mode::Enforce,
        claims: BTreeMap::from([
            ("launcher_uid".to_owned(), "1003".to_owned()),
            ("launcher_user".to_owned(), "carol".to_owned()),
        ]),
        started_at: 0,
    }
}

fn action(text: &str, oid: u32) -> Action {
    let object = Object {
        database: "orders".to_owned(),
        schema: "public".to_owned(),
        name: "users".to_owned(),
        oid: Some(oid),
    };
    Action {
        phase: Phase::Query,
        text: text.into(),
        binds: smallvec::smallvec![BindValue {
            r#type: "int4".into(),
            value: Some("1".into()),
            cut_from: None
        }],
        facts: Arc::new(StatementFacts::single(Verb::DataDelete, Target::Table(object))),
    }
}

fn person(name: &str, uid: u32, groups: &[&str]) -> Person {
    Person {
        name: name.parse().expect("a name"),
        uid,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

const YES: Says = Says::Approve { uses: Uses::Once, seconds: 60 };

#[test]
fn whatever_changes_the_meaning_changes_the_digest() {
    let (run, resource) = (run(), "orders".parse().expect("a name"));
    let principal = Principal { user: "app".to_owned(), ..Principal::default() };
    let named = |role: &str, path: &str| {
        let naming = Naming { role: role.to_owned(), search_path: vec![path.to_owned()] };
        Circumstances { naming: Some(Arc::new(naming)), ..Circumstances::default() }
    };
    let circumstances = named("app", "public");
    let actions = [action("DELETE FROM users WHERE id = $1", 5)];
    let what = What {
        run: &run,
        resource: &resource,
        principal: &principal,
        circumstances: &circumstances,
        actions: &actions,
        policy: "p1",
    };
    let same = what.digest().expect("a digest");
    assert_eq!(what.digest().expect("a digest"), same);
    let other_run = Run { id: RunId::from_random(8), ..run.clone() };
    let elsewhere = "other".parse().expect("a name");
    let somebody = Principal { user: "root".to_owned(), ..Principal::default() };
    let (role, path) = (named("admin", "public"), named("app", "evil"));
    let set = Arc::new(BTreeMap::from([("datestyle".to_owned(), "x".to_owned())]));
    let settings = Circumstances { settings: Some(set), ..circumstances.clone() };
    let again = [action("DELETE FROM users WHERE id = $1", 6)];
    let text = [action("DELETE FROM users WHERE id = $1 ", 5)];
    let mut bound = [action("DELETE FROM users WHERE id = $1", 5)];
    bound[0].binds[0].value = Some("2".into());
    let twice = [actions[0].clone(), actions[0].clone()];
    for other in [
        What { run: &other_run, ..what },
        What { resource: &elsewhere, ..what },
        What { principal: &somebody, ..what },
        What { circumstances: &role, ..what },
        What { circumstances: &path, ..what },
        What { circumstances: &settings, ..what },
        What { actions: &again, ..what },
        What { actions: &text, ..what },
        What { actions: &bound, ..what },
        What { actions: &twice, ..what },
        What { policy: "p2", ..what },
    ] {
        assert_ne!(other.digest().expect("a digest"), same, "{other:?}");
    }
}

fn card(text: &str) -> Card {
    card_of(text, &Labels::none("orders"))
}

#[test]
fn what_labelled_data_comes_into_is_shown_without_its_values() {
    let labels =
        crate::mask::labels::tests::labels("[label.mail]\ncolumns = [\"*.*.email\"]\nmask = \"redact\"\n");
    let card = card_of("DELETE FROM users WHERE email = 'zoe@example.com' AND id = $1", &labels);
    let told = serde_json::to_string(&card).expect("JSON");
    assert!(card.text().starts_with("DELETE FROM users WHERE email = "), "{told}");
    assert!(!told.contains("zoe"), "{told}");
    assert_eq!(card.statements[0].binds[0].value.as_deref(), Some(HIDDEN));
    assert!(card.whole, "it can be approved all the same");
    assert!(card_of("SELECT 'zoe'", &Labels::none("orders")).text().contains("zoe"));
}

fn card_of(text: &str, labels: &Labels) -> Card {
    let (run, resource, principal) = (run(), "orders".parse().expect("a name"), Principal::default());
    let what = What {
        run: &run,
        resource: &resource,
        principal: &principal,
        circumstances: &Circumstances::default(),
        actions: &[action(text, 5)],
        policy: "p1",
    };
    what.card(None, (&[], &["dba".to_owned(), "on-call".to_owned()]), labels)
}

#[test]
fn nobody_approves_for_themselves_for_two_or_for_a_group_that_is_not_asked() {
    let card = card("DELETE FROM users");
    let weigh = |person: &Person, group: Option<&str>, says: &Says| weigh(person, &card, group, says);
    assert_eq!(weigh(&person("bob", 1002, &["dba", "staff"]), None, &YES), Ok("dba".to_owned()));
    let both = person("bob", 1002, &["dba", "on-call"]);
    assert!(matches!(weigh(&both, None, &YES), Err(NotYours::Which { .. })));
    assert_eq!(weigh(&both, Some("on-call"), &YES), Ok("on-call".to_owned()));
    let other = person("bob", 1002, &["staff"]);
    assert!(matches!(weigh(&other, None, &YES), Err(NotYours::NotAsked { .. })));
    assert!(matches!(weigh(&other, Some("dba"), &YES), Err(NotYours::NotAsked { .. })));
    assert!(matches!(weigh(&person("alice", 1001, &["dba"]), None, &YES), Err(NotYours::Owner(_))));
    for starter in [person("carol", 9, &["dba"]), person("dave", 1003, &["dba"])] {
        assert!(matches!(weigh(&starter, None, &YES), Err(NotYours::Starter(_))));
        let no = Says::Deny { reason: "no".to_owned(), suggestion: None };
        assert_eq!(weigh(&starter, None, &no), Ok("dba".to_owned()));
    }
    let long = Says::Approve { uses: Uses::Any, seconds: LONGEST_GRANT + 1 };
    assert_eq!(weigh(&person("bob", 1002, &["dba"]), None, &long), Err(NotYours::Lasting));
    let wordy = Says::Deny { reason: "x".repeat(1 << 20), suggestion: None };
    assert_eq!(weigh(&person("bob", 1002, &["dba"]), None, &wordy), Err(NotYours::Wordy));
}

#[test]
fn what_is_not_shown_whole_cannot_be_approved() {
    let card = card(&format!("DELETE FROM users WHERE id IN ({})", "1, ".repeat(40_000)));
    assert!(!card.whole && serde_json::to_vec(&card).expect("JSON").len() <= LONGEST_CARD);
    assert_eq!(weigh(&person("bob", 1002, &["dba"]), &card, None, &YES), Err(NotYours::Cut));
}

#[test]
fn the_narrowest_approval_counts() {
    let decision = |name: &str, says| Decision {
        person: name.parse().expect("a name"),
        group: "dba".to_owned(),
        says,
        at: 0,
    };
    let any = Says::Approve { uses: Uses::Any, seconds: 60 };
    let mut standing = Standing {
        id: ApprovalId::from_random(1),
        state: State::Open,
        decisions: vec![decision("bob", any)],
        opened_at: 0,
        closes_at: 1,
        card: card("DELETE FROM users"),
    };
    assert_eq!((standing.uses(), standing.counts()["dba"]), (Uses::Any, 1));
    standing.decisions.push(decision("eve", YES));
    assert_eq!((standing.uses(), standing.counts()["dba"]), (Uses::Once, 2));
}

#[test]
fn a_shape_leaves_values_open_and_nothing_else() {
    let (run, resource, principal) = (run(), "orders".parse().expect("a name"), Principal::default());
    let digests = |text: &str, value: &str, oid: u32| {
        let mut action = action(text, oid);
        action.binds[0].value = Some(value.into());
        Arc::make_mut(&mut action.facts).kind = StatementKind::Delete;
        let what = What {
            run: &run,
            resource: &resource,
            principal: &principal,
            circumstances: &Circumstances::default(),
            actions: &[action],
            policy: "p1",
        };
        let shape = what.shape()?;
        Some((what.shape_digest(&shape).expect("a digest"), shape.free))
    };
    let one = digests("DELETE FROM users WHERE id = $1 AND name = 'x'", "1", 5).expect("a shape");
    assert_eq!(one.1, ["'x'"]);
    let same = digests("DELETE FROM users WHERE id = $1 AND name = 'y'", "2", 5).expect("a shape");
    assert_eq!(same.0, one.0);
    for (text, oid) in [
        ("DELETE FROM users WHERE id = $1 AND name = 'x'", 6),
        ("DELETE FROM users WHERE id = $1 OR name = 'x'", 5),
        ("DELETE FROM users WHERE id = $1 AND name = 5", 5),
    ] {
        assert_ne!(digests(text, "1", oid).expect("a shape").0, one.0, "{text}");
    }
    for none in [
        "WITH d AS (DELETE FROM users RETURNING id) DELETE FROM users WHERE id = 1",
        "DELETE FROM u; SELECT 1",
    ] {
        assert_eq!(digests(none, "1", 5), None, "{none}");
    }
    let shaped = Says::Approve { uses: Uses::Shape { rows: 5 }, seconds: 60 };
    let plain = card("DELETE FROM users");
    assert_eq!(weigh(&person("bob", 1002, &["dba"]), &plain, None, &shaped), Err(NotYours::Shapeless));
    assert!(Uses::Once < Uses::Any && Uses::Any < Uses::Shape { rows: 1 });
}
