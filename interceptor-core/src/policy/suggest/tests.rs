use super::*;
use crate::{
    inventory::Source,
    model::StatementFacts,
    policy::{
        expect,
        past::tests::{record, table},
        tests::{inventory, policy, source},
    },
};

const NONE: &str = "";

fn suggest(policy: &Policy, records: &[RequestRecord]) -> Suggestion {
    let mut suggest = Suggest::new(policy);
    for (id, record) in (1..).zip(records) {
        suggest.see(RecordId(id), record);
    }
    suggest.finish()
}

/// The policy with the suggestion added.
fn with(before: &str, suggestion: &Suggestion) -> Policy {
    let sources = [source("before.cedar", before), source("suggested.cedar", &suggestion.rules)];
    Policy::load(&sources, &inventory()).unwrap_or_else(|faults| panic!("{faults:#?}\n{}", suggestion.rules))
}

fn allows(policy: &Policy, record: &RequestRecord) -> bool {
    matches!(
        policy.judge(&Past::new(policy, record, Spent::default()).asked()),
        crate::permit::Judgement::Allowed { .. }
    )
}

fn object(kind: &str, name: &str) -> Target {
    Target::Other { kind: kind.to_owned(), name: name.to_owned() }
}

#[test]
fn the_rules_permit_just_what_was_seen() {
    let seen = [
        record(&[(Verb::Connect, Target::Resource)]),
        record(&[(Verb::DataRead, table("public.a"))]),
        record(&[(Verb::DataRead, table("public.a"))]),
        record(&[(Verb::DataRead, table("public.b")), (Verb::DataInsert, table("public.c"))]),
        record(&[(Verb::SessionChange, Target::Setting("timezone".to_owned()))]),
        record(&[(Verb::SchemaCreate, object("schema", "odd \"name\" \\ '\n'"))]),
        record(&[(Verb::Resolve, Target::Name("db.internal".to_owned()))]),
    ];
    let before = policy(NONE);
    let mut suggestion = suggest(&before, &seen);
    let after = with(NONE, &suggestion);
    assert!(seen.iter().all(|record| allows(&after, record)), "{}", suggestion.rules);
    for unseen in [
        record(&[(Verb::DataInsert, table("public.a"))]),
        record(&[(Verb::DataRead, table("public.c"))]),
        record(&[(Verb::DataRead, table("private.a"))]),
        record(&[(Verb::DataRead, Target::Resource)]),
        record(&[(Verb::SessionChange, Target::Setting("role".to_owned()))]),
    ] {
        assert!(!allows(&after, &unseen), "{:?}\n{}", unseen.action.facts.effects, suggestion.rules);
    }
    // One rule for the two tables that are read, one for the one that is written.
    assert_eq!(suggestion.count, 6);
    assert!(suggestion.rules.contains("// 3 records, from 2 to 4.\n"), "{}", suggestion.rules);
    suggestion.prove(&after);
    assert_eq!(suggestion.left_out, BTreeMap::new());
    let tables: Vec<_> = suggestion.expectations.keys().map(String::as_str).collect();
    assert_eq!(tables, ["app"]);
    let table = Source { file: "t".to_owned(), text: suggestion.expectations["app"].clone() };
    let results =
        expect::run(&after, &table, &|_, _, _| Vec::new()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert!(results.iter().all(|result| result.passed), "{results:#?}");
    // Each verb on each object, and that `unknown` stays refused.
    assert_eq!(results.len(), 8);
}

#[test]
fn what_is_permitted_already_is_not_proposed_again() {
    let rules = r#"@id("reads") permit (principal, action == Action::"data.read", resource is Table);"#;
    let seen = [
        record(&[(Verb::DataRead, table("public.a"))]),
        record(&[(Verb::DataRead, table("public.a")), (Verb::DataUpdate, table("public.a"))]),
    ];
    let suggestion = suggest(&policy(rules), &seen);
    assert_eq!((suggestion.permitted, suggestion.count), (1, 1));
    assert!(!suggestion.rules.contains("data.read"), "{}", suggestion.rules);
    assert!(allows(&with(rules, &suggestion), &seen[1]));
}

#[test]
fn what_is_not_understood_or_forbidden_is_left_out_and_said() {
    let rules = r#"@id("no-b") forbid (principal, action, resource is Table) when { resource.name == "b" };"#;
    let mut unread = record(&[]);
    unread.action.facts = StatementFacts::unknown("no idea").into();
    let mut half = record(&[(Verb::DataRead, table("public.a"))]);
    std::sync::Arc::make_mut(&mut half.action.facts).unknown =
        Some(crate::model::Unknown("no idea either".to_owned()));
    let forbidden = record(&[(Verb::DataRead, table("public.c")), (Verb::DataRead, table("public.b"))]);
    let suggestion = suggest(&policy(rules), &[unread, half, forbidden]);
    assert_eq!((suggestion.count, suggestion.rules.as_str()), (0, ""));
    let left: Vec<_> = suggestion.left_out.iter().map(|(why, left)| (why.as_str(), left.records)).collect();
    assert_eq!(
        left,
        [
            ("forbidden by `no-b` (p.cedar:1)", 1),
            ("not understood, which is never permitted by a suggestion", 2)
        ]
    );
}

#[test]
fn names_of_rules_are_unique_and_long_lists_are_cut() {
    let rules =
        r#"@id("bot-orders-public-tables") permit (principal, action == Action::"connect", resource);"#;
    let many: Vec<_> = (0..400)
        .map(|n| record(&[(Verb::DataRead, table(&format!("public.a_table_with_a_long_name_{n}")))]))
        .collect();
    let suggestion = suggest(&policy(rules), &many);
    assert!(suggestion.count > 1);
    let after = with(rules, &suggestion);
    assert!(many.iter().all(|record| allows(&after, record)));
}
