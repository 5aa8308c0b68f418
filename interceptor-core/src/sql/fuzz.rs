//! What a fuzzer calls: everything of this module on one input, with the invariants that must hold.

use super::{
    Answer, Function, Relation, Rows, Statement, analyze, facts, question, redact, without_literals,
};
use crate::model::{Object, SessionChange, Verb};

/// Reads `data` as a text and checks that reading, resolving and redacting it neither panic nor contradict
/// themselves. For fuzzing only; panics when an invariant is broken.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (redact(&text), without_literals(&text));
    let shown = crate::text::printable(&text);
    assert_eq!(crate::text::printable(&shown), shown, "what is printable stays as it is");
    let Ok(statements) = analyze(&text) else { return };
    assert!(!statements.is_empty(), "a text has statements");
    let mut end = 0;
    for statement in &statements {
        check(&text, statement, end);
        end = statement.range.end;
    }
}

fn check(text: &str, statement: &Statement, previous_end: usize) {
    assert!(statement.range.start >= previous_end, "statements do not overlap");
    assert!(text.get(statement.range.clone()).is_some(), "a statement is part of its text");
    let says_unknown = statement.effects.iter().any(|(verb, _)| *verb == Verb::Unknown);
    assert_eq!(statement.unknown.is_some(), says_unknown, "the reason and the effect go together");
    if let Some(SessionChange::Prepared { text: prepared, .. }) = &statement.session {
        assert!(text.contains(prepared.as_str()), "what is prepared is part of the text");
    }
    for found in [false, true] {
        let told = facts(statement, &answer(statement, found));
        assert!(!told.effects.is_empty(), "every statement has an effect");
        let says_unknown = told.effects.iter().any(|effect| effect.verb == Verb::Unknown);
        assert_eq!(told.unknown.is_some(), says_unknown, "the reason and the effect go together");
    }
    let unanswered = facts(statement, &Answer::default());
    let asked = question(std::slice::from_ref(statement));
    let asks = !asked.relations.is_empty() || !asked.functions.is_empty();
    assert!(!asks || unanswered.unknown.is_some(), "what was not looked up is unknown");
}

fn answer(statement: &Statement, found: bool) -> Answer {
    let asked = question(std::slice::from_ref(statement));
    let object = |name: &super::Name| Object {
        database: "db".to_owned(),
        schema: name.schema.clone().unwrap_or_else(|| "public".to_owned()),
        name: name.name.clone(),
        oid: Some(20_000),
    };
    let relation = |name: &super::Name| match found {
        true => Relation::Found {
            object: object(name),
            rows: Rows::Own,
            reads: Vec::new(),
            columns: Vec::new(),
            children: Vec::new(),
            consequences: Vec::new(),
            has_rules: false,
        },
        false => Relation::Missing,
    };
    let function = |name: &super::Name| Function {
        users: found.then(|| object(name)).into_iter().collect(),
        built_in: Vec::new(),
    };
    Answer {
        database: "db".to_owned(),
        database_oid: None,
        role: "agent".to_owned(),
        search_path: vec!["pg_catalog".to_owned(), "public".to_owned()],
        relations: asked.relations.iter().map(|name| (name.clone(), relation(name))).collect(),
        functions: asked.functions.iter().map(|name| (name.clone(), function(name))).collect(),
        numbers: Default::default(),
        besides: Default::default(),
    }
}
