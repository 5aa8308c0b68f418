//! Guesses how many rows a statement would return or change, by EXPLAIN in a session of its own.
//!
//! Promises: the statement is not carried out, and neither is code of anybody's own: the session's search path is empty,
//! the statement's relations stand in it with their schemas, and there is no guess where they are views, foreign, or
//! have types, indexes, checks or policies that are not the server's own. Whatever goes wrong is no guess. Values are in
//! what is sent, and not in what is recorded.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Held,
    estimate::{Estimate, EstimateStep, Estimating},
    model::{
        Action, BindValue, Binds, Effect, Object, OutcomeStatus, Phase, Principal, StatementFacts,
        StatementKind, Target, Verb,
    },
    permit::Circumstances,
    protocol::{DecodeError, Done, Inspection, Opening},
    sql,
};
use serde_json::Value;
use smallvec::smallvec;

use super::{
    frame::{self, Fields},
    lookup,
    outcome::end,
    own::{self, Ends, Own, Parameter},
    upstream::ErrorFields,
};

/// The question whether a guess would run nothing of anybody's.
const CHECK: &str = include_str!("guess.sql");
/// `oid[]`.
const OIDS: u32 = 1028;
/// How long the server may take for each of the two, and wait for a lock.
const PATIENCE: &str = "1500";

/// What the session asks for, as the role that the statement's session has.
pub(super) fn opening(principal: &Principal, circumstances: &Circumstances) -> Opening {
    let mut parameters = vec![
        ("application_name", "interceptor estimate"),
        ("search_path", "\"\""),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", PATIENCE),
        ("lock_timeout", PATIENCE),
    ];
    if let Some(naming) = circumstances.naming.as_deref().filter(|naming| naming.role != principal.user) {
        parameters.push(("role", &naming.role));
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Opening {
        held: Held::new(0, Vec::new(), Bytes::new()),
        claimed: principal.clone(),
        parameters: parameters.into_iter().map(owned).collect(),
        version: 3 << 16,
        then: Inspection::Full,
    }
}

/// See above.
#[derive(Debug)]
pub(super) struct PostgresEstimate {
    to_send: VecDeque<(Own<'static>, Action)>,
    number: u64,
    under_way: Option<UnderWay>,
    over: Option<Estimate>,
}

/// An exchange that is under way.
#[derive(Debug)]
struct UnderWay {
    explains: bool,
    answer: Option<String>,
    done: Vec<Done>,
}

impl PostgresEstimate {
    /// Guesses at `action`; or says why nothing can be.
    pub(super) fn new(action: &Action) -> Result<Self, String> {
        if action.facts.has_tokens() {
            return Err("there is a token in it".to_owned());
        }
        let tables = tables(&action.facts)?;
        if action.binds.iter().any(|bind| bind.cut_from.is_some()) {
            return Err("its values are too long".to_owned());
        }
        let meaning = |name: &sql::Name| {
            let mut all = tables.values().copied().filter(|table| is_named(table, name));
            let one = all.next()?;
            all.next().is_none().then(|| (one.schema.clone(), one.name.clone()))
        };
        let text = sql::qualified(&action.text, meaning)?;
        let text = format!("/* interceptor: a guess for people */ EXPLAIN (FORMAT JSON) {text}");
        let value = |bind: &BindValue| bind.value.clone().map(|value| Bytes::from(String::from(value)));
        let parameters = action.binds.iter().map(|bind| Parameter { oid: 0, format: 0, value: value(bind) });
        let explain = Own { text: Cow::Owned(text.clone()), parameters: parameters.collect() };
        let reads = tables.values().map(|table| Target::Table((*table).clone())).collect();
        let numbers = lookup::array(tables.keys().map(|oid| Some(oid.to_string())));
        let check = Own {
            text: CHECK.into(),
            parameters: vec![Parameter {
                oid: OIDS,
                format: 0,
                value: Some(Bytes::from(numbers.clone().into_bytes())),
            }],
        };
        let numbers = BindValue { r#type: "oid[]".into(), value: Some(numbers.into()), cut_from: None };
        let catalogue = Target::Other { kind: "catalogue".to_owned(), name: "pg_catalog".to_owned() };
        let check_action =
            reading(CHECK.to_owned(), smallvec![numbers], (StatementKind::Select, vec![catalogue]));
        let text = sql::without_literals(&text).into_owned();
        let explain_action = reading(text, Binds::new(), (StatementKind::Explain, reads));
        let to_send = VecDeque::from([(check, check_action), (explain, explain_action)]);
        Ok(Self { to_send, number: 0, under_way: None, over: None })
    }

    fn send(&mut self) -> EstimateStep {
        if let Some(over) = self.over.take() {
            return EstimateStep::Over(over);
        }
        let Some((own, action)) = self.to_send.pop_front() else {
            return EstimateStep::Over(Estimate::None("the server gave none".to_owned()));
        };
        self.number = self.number.saturating_add(1);
        let bytes = own::messages(self.number, &own, Ends::Sync);
        let explains = action.facts.kind == StatementKind::Explain;
        self.under_way = Some(UnderWay { explains, answer: None, done: Vec::new() });
        EstimateStep::Send(Box::new(Held::new(self.number, [action], bytes)))
    }

    /// Takes one message; whether it was the last one that answers what is under way.
    fn take(&mut self, tag: u8, body: Bytes) -> Result<bool, DecodeError> {
        let odd =
            || DecodeError::upstream(format!("message {:?} answers nothing that was asked", char::from(tag)));
        let Some(under_way) = &mut self.under_way else { return Err(odd()) };
        let ended = |status| end(self.number, 0, status, 0);
        match tag {
            b'1' | b'2' | b'3' | b'N' | b'S' | b'A' => {}
            b'D' => {
                let mut fields = Fields::new(body);
                let cell = fields.count().and_then(|_| fields.value()).map_err(|_| odd())?;
                let cell = cell.unwrap_or_default();
                under_way.answer = Some(String::from_utf8_lossy(&cell).into_owned());
            }
            b'C' => {
                under_way.done.push(ended(OutcomeStatus::Completed));
                self.over = match (under_way.explains, &under_way.answer) {
                    (true, answer) => Some(planned(answer.as_deref().unwrap_or_default())),
                    (false, None) => None,
                    (false, Some(relation)) => Some(Estimate::None(format!(
                        "{relation} is a view or foreign, or has what is not the server's own"
                    ))),
                };
            }
            b'E' => {
                let error = ErrorFields::read(body);
                // Its words may quote values.
                let why = format!("the server cannot plan it ({})", error.code);
                under_way.done.push(Done { code: Some(error.code), ..ended(OutcomeStatus::Failed) });
                self.over = Some(Estimate::None(why));
                if error.fatal {
                    return Ok(true);
                }
            }
            b'Z' => return Ok(true),
            _ => return Err(odd()),
        }
        Ok(false)
    }
}

impl Estimating for PostgresEstimate {
    fn step(&mut self, input: &mut BytesMut) -> Result<EstimateStep, DecodeError> {
        if self.under_way.is_none() {
            return Ok(self.send());
        }
        loop {
            let Some((tag, body)) = frame::answer(input)? else { return Ok(EstimateStep::Wait) };
            if self.take(tag, body)?
                && let Some(under_way) = self.under_way.take()
            {
                return Ok(EstimateStep::Ended(under_way.done));
            }
        }
    }
}

/// The tables of a statement at which can be guessed, by their numbers.
fn tables(facts: &StatementFacts) -> Result<BTreeMap<u32, &Object>, String> {
    use StatementKind::{Delete, Insert, Merge, Select, Update};
    if facts.unknown.is_some() || !matches!(facts.kind, Select | Insert | Update | Delete | Merge) {
        return Err("it is no plain statement".to_owned());
    }
    let mut tables = BTreeMap::new();
    for effect in &facts.effects {
        match (effect.verb, &effect.target) {
            (
                Verb::DataRead | Verb::DataLock | Verb::DataInsert | Verb::DataUpdate | Verb::DataDelete,
                Target::Table(table),
            ) => {
                let oid = table.oid.ok_or("what a name in it means is not clear")?;
                tables.insert(oid, table);
            }
            // What labels are about runs nothing.
            (_, Target::Label(_)) => {}
            _ => return Err("it runs what is not the server's own".to_owned()),
        }
    }
    Ok(tables)
}

/// Whether a name that was written may mean the table.
fn is_named(table: &Object, name: &sql::Name) -> bool {
    table.name == name.name && name.schema.as_ref().is_none_or(|schema| *schema == table.schema)
}

/// How many rows a plan guesses at: those that its top returns, or those that are there to be changed.
fn planned(json: &str) -> Estimate {
    let plans: Value = serde_json::from_str(json).unwrap_or_default();
    let rows = |plan: &Value| plan.get("Plan Rows").and_then(Value::as_f64);
    let feeds = |part: &&Value| matches!(part["Parent Relationship"].as_str(), Some("Outer" | "Member"));
    let guess = plans.pointer("/0/Plan").and_then(|plan| match plan["Node Type"].as_str() {
        Some("ModifyTable") => plan["Plans"].as_array()?.iter().filter(feeds).map(rows).sum(),
        _ => rows(plan),
    });
    match guess {
        // As the planner rounds; what is no number is 0.
        Some(guess) => Estimate::Rows(guess.round().max(0.0) as u64),
        None => Estimate::None("the server's plan cannot be read".to_owned()),
    }
}

fn reading(text: String, binds: Binds, (kind, reads): (StatementKind, Vec<Target>)) -> Action {
    let reads: BTreeSet<Target> = reads.into_iter().collect();
    let effects = reads.into_iter().map(|target| Effect { verb: Verb::DataRead, target }).collect();
    let facts = StatementFacts {
        kind,
        effects,
        has_where: true,
        has_limit: true,
        unknown: None,
        provenance: None,
        dialect: sql::Dialect::Postgres,
    };
    Action { phase: Phase::Execute, text: text.into(), binds, facts: Arc::new(facts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(text: &str, effects: &[(Verb, &str, Option<u32>)]) -> Action {
        let table = |name: &str, oid| Object {
            database: "d".to_owned(),
            schema: "s".to_owned(),
            name: name.to_owned(),
            oid,
        };
        let kind = if text.starts_with("DELETE") { StatementKind::Delete } else { StatementKind::Select };
        let effects = effects
            .iter()
            .map(|(verb, name, oid)| Effect { verb: *verb, target: Target::Table(table(name, *oid)) });
        let mut action = reading(text.to_owned(), Binds::new(), (kind, Vec::new()));
        Arc::make_mut(&mut action.facts).effects = effects.collect();
        action
    }

    #[test]
    fn what_is_sent_has_schemas_and_what_is_recorded_no_values() {
        let delete = action(
            "DELETE FROM t WHERE a = 'secret'",
            &[(Verb::DataDelete, "t", Some(7)), (Verb::DataRead, "t", Some(7))],
        );
        let mut estimate = PostgresEstimate::new(&delete).expect("a plain statement");
        let mut input = BytesMut::new();
        let EstimateStep::Send(check) = estimate.step(&mut input).expect("a step") else {
            panic!("no check")
        };
        assert_eq!(check.actions()[0].binds[0].value.as_deref(), Some("{\"7\"}"));
        input.extend_from_slice(
            b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0dSELECT 0\x003\0\0\0\x043\0\0\0\x04Z\0\0\0\x05I",
        );
        assert!(matches!(estimate.step(&mut input), Ok(EstimateStep::Ended(done)) if done.len() == 1));
        let EstimateStep::Send(explain) = estimate.step(&mut input).expect("a step") else {
            panic!("no plan")
        };
        let text = &explain.actions()[0].text;
        assert!(text.contains("EXPLAIN (FORMAT JSON) DELETE FROM \"s\".\"t\" WHERE a = "), "{text}");
        assert!(!text.contains("secret"), "{text}");
        input.extend_from_slice(b"E\0\0\0\x0cC42P01\0\0Z\0\0\0\x05I");
        assert!(
            matches!(estimate.step(&mut input), Ok(EstimateStep::Ended(done)) if done[0].status == OutcomeStatus::Failed)
        );
        let step = estimate.step(&mut input);
        assert!(matches!(step, Ok(EstimateStep::Over(Estimate::None(why))) if why.contains("42P01")));
    }

    #[test]
    fn a_relation_that_is_not_the_servers_own_work_ends_it() {
        let select = action("SELECT * FROM t", &[(Verb::DataRead, "t", Some(7))]);
        let mut estimate = PostgresEstimate::new(&select).expect("a plain statement");
        let mut input = BytesMut::new();
        let _ = estimate.step(&mut input).expect("a step");
        input.extend_from_slice(b"D\0\0\0\x0b\0\x01\0\0\0\x01tC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
        assert!(matches!(estimate.step(&mut input), Ok(EstimateStep::Ended(_))));
        let step = estimate.step(&mut input);
        assert!(
            matches!(step, Ok(EstimateStep::Over(Estimate::None(why))) if why.starts_with("t is a view"))
        );
    }

    #[test]
    fn nothing_is_guessed_where_it_is_not_plain() {
        for (text, effects) in [
            ("SELECT f() FROM t", vec![(Verb::FunctionCall, "t", Some(7))]),
            ("SELECT * FROM t", vec![(Verb::DataRead, "t", None)]),
            ("SELECT * FROM t, x.t", vec![(Verb::DataRead, "t", Some(7))]),
            ("WITH t AS (SELECT 1) SELECT * FROM t", vec![(Verb::DataRead, "t", Some(7))]),
            ("SELECT * FROM t", vec![(Verb::DataRead, "t", Some(7)), (Verb::DataRead, "t", Some(8))]),
        ] {
            assert!(PostgresEstimate::new(&action(text, &effects)).is_err(), "{text}");
        }
    }

    #[test]
    fn plans_are_read() {
        for (json, told) in [
            (
                r#"[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 12, "Plan Width": 4}}]"#,
                Estimate::Rows(12),
            ),
            (
                r#"[{"Plan": {"Node Type": "ModifyTable", "Plan Rows": 0, "Plans": [
                    {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Plan Rows": 3},
                    {"Node Type": "Result", "Parent Relationship": "InitPlan", "Plan Rows": 100}]}}]"#,
                Estimate::Rows(3),
            ),
            ("[]", Estimate::None("the server's plan cannot be read".to_owned())),
            ("", Estimate::None("the server's plan cannot be read".to_owned())),
        ] {
            assert_eq!(planned(json), told, "{json}");
        }
    }
}
