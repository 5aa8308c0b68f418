//! Brings the rows of a pack back, in one transaction of a session of our own.
//!
//! Promises: nothing is committed unless the statement's own transaction was, its table is still the same one, and each
//! restoring statement has changed just one row; what goes wrong ends before COMMIT is asked for. Values are in the
//! texts that are sent, and not in those that are recorded.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Held,
    model::{
        Action, Actions, Binds, Effect, OutcomeStatus, Phase, Principal, StatementFacts, StatementKind,
        Target, Verb,
    },
    protocol::{DecodeError, Done, Inspection, Opening},
    sql,
    undo::{Pack, Restore, RestoreStep, literal},
};

use super::{
    frame::{self, Fields, Writer, put_text},
    outcome::end,
    upstream::ErrorFields,
};

/// How many rows are brought back with one message, and how many bytes it may have before the last of them.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 256 << 10;

/// What the session asks for: values are read as they were written, whatever the role's own settings are.
pub(super) fn opening(principal: &Principal) -> Opening {
    let parameters =
        [("application_name", "interceptor undo"), ("DateStyle", "ISO"), ("IntervalStyle", "postgres")];
    Opening {
        held: Held::new(0, Vec::new(), Bytes::new()),
        claimed: principal.clone(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        version: 3 << 16,
        then: Inspection::Full,
    }
}

/// One message, and what must be said of each of its statements.
#[derive(Debug)]
struct Sending {
    kind: Kind,
    texts: Vec<String>,
    facts: Arc<StatementFacts>,
    tag: &'static str,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin,
    /// Whether the statement lasted, and on the same table.
    Check,
    Rows,
    Commit,
}

/// See above.
#[derive(Debug)]
pub(super) struct PostgresRestore {
    to_send: VecDeque<Sending>,
    /// What the check must say.
    expected: [String; 2],
    under_way: Option<UnderWay>,
    number: u64,
    /// Why it came to nothing.
    failed: Option<String>,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    sent: Sending,
    at: usize,
    checked: bool,
    done: Vec<Done>,
}

impl PostgresRestore {
    pub(super) fn new(pack: &Pack) -> Self {
        let facts = |kind, verb, target| StatementFacts {
            kind,
            effects: vec![Effect { verb, target }],
            has_where: true,
            has_limit: false,
            unknown: None,
            provenance: None,
            dialect: sql::Dialect::Postgres,
        };
        let turning = Arc::new(facts(StatementKind::Transaction, Verb::Transaction, Target::Resource));
        let table = Target::Table(pack.table.clone());
        let (tag, rows) = match pack.verb {
            Verb::DataUpdate => ("UPDATE 1", facts(StatementKind::Update, Verb::DataUpdate, table.clone())),
            _ => ("INSERT 0 1", facts(StatementKind::Insert, Verb::DataInsert, table.clone())),
        };
        let turn = |kind, text: &'static str| Sending {
            kind,
            texts: vec![text.to_owned()],
            facts: turning.clone(),
            tag: text,
        };
        let check = format!(
            "SELECT pg_catalog.txid_status('{}'::pg_catalog.int8), pg_catalog.to_regclass({})::pg_catalog.oid",
            pack.transaction,
            literal(Some(&pack.table_name()))
        );
        let reads = Target::Other { kind: "catalogue".to_owned(), name: "pg_catalog".to_owned() };
        let check = Sending {
            kind: Kind::Check,
            texts: vec![check],
            facts: Arc::new(facts(StatementKind::Select, Verb::DataRead, reads)),
            tag: "SELECT 1",
        };
        let mut to_send = VecDeque::from([turn(Kind::Begin, "BEGIN"), check]);
        let rows = Arc::new(rows);
        let mut texts: Vec<String> = Vec::new();
        let mut bytes = 0_usize;
        for text in pack.statements() {
            if texts.len() >= BATCH || bytes > BATCH_BYTES {
                let texts = std::mem::take(&mut texts);
                to_send.push_back(Sending { kind: Kind::Rows, texts, facts: rows.clone(), tag });
                bytes = 0;
            }
            bytes = bytes.saturating_add(text.len());
            texts.push(text);
        }
        to_send.push_back(Sending { kind: Kind::Rows, texts, facts: rows, tag });
        to_send.push_back(turn(Kind::Commit, "COMMIT"));
        let oid = pack.table.oid.map(|oid| oid.to_string()).unwrap_or_default();
        Self { to_send, expected: ["committed".to_owned(), oid], under_way: None, number: 0, failed: None }
    }

    fn send(&mut self) -> RestoreStep {
        if let Some(why) = self.failed.take() {
            self.to_send.clear();
            return RestoreStep::Failed(why);
        }
        let Some(sent) = self.to_send.pop_front() else { return RestoreStep::Restored };
        self.number = self.number.saturating_add(1);
        let action = |text: &String| Action {
            phase: Phase::Query,
            text: sql::without_literals(text).into_owned().into(),
            binds: Binds::new(),
            facts: sent.facts.clone(),
        };
        let actions: Actions = sent.texts.iter().map(action).collect();
        let mut out = Writer::default();
        out.message(b'Q', |out| put_text(out, &sent.texts.join(";\n")));
        let held = Held::new(self.number, actions, out.finish());
        let commits = sent.kind == Kind::Commit;
        let (number, done) = (self.number, Vec::new());
        self.under_way = Some(UnderWay { number, sent, at: 0, checked: false, done });
        if commits { RestoreStep::Commit(held) } else { RestoreStep::Send(held) }
    }

    fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    /// Takes one message; whether it was the last one that answers what is under way.
    fn take(&mut self, tag: u8, body: Bytes) -> Result<bool, DecodeError> {
        let odd =
            || DecodeError::upstream(format!("message {:?} answers nothing that was asked", char::from(tag)));
        let Some(under_way) = &mut self.under_way else {
            // Notices and settings come at any time.
            return if matches!(tag, b'N' | b'S' | b'A') { Ok(false) } else { Err(odd()) };
        };
        match tag {
            b'N' | b'S' | b'A' | b'T' => {}
            b'D' => {
                let mut fields = Fields::new(body);
                let count = fields.count().map_err(|_| odd())?;
                let values: Vec<_> =
                    (0..count).map(|_| fields.value()).collect::<Result<_, _>>().map_err(|_| odd())?;
                let said = values.iter().map(|value| value.as_deref().unwrap_or_default());
                under_way.checked = said.eq(self.expected.iter().map(String::as_bytes));
            }
            b'C' => {
                let said = String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(&body)).into_owned();
                let rows = said.rsplit(' ').next().and_then(|count| count.parse().ok());
                let done = end(under_way.number, under_way.at, OutcomeStatus::Completed, 0);
                under_way.done.push(Done { rows, ..done });
                under_way.at = under_way.at.saturating_add(1);
                let why = match under_way.sent.kind {
                    Kind::Check if !under_way.checked => {
                        Some("its transaction did not last, is too old to tell, or its table is another one by now".to_owned())
                    }
                    _ if said == under_way.sent.tag => None,
                    Kind::Rows => Some("a row was changed since, or is there again".to_owned()),
                    Kind::Begin | Kind::Check | Kind::Commit => Some(format!("the server answered {said}")),
                };
                why.into_iter().for_each(|why| self.fail(why));
            }
            b'E' => {
                let error = ErrorFields::read(body);
                if error.fatal {
                    return Err(DecodeError::upstream(format!("it ended the session: {}", error.message)));
                }
                let done = end(under_way.number, under_way.at, OutcomeStatus::Failed, 0);
                under_way.done.push(Done { code: Some(error.code.clone()), ..done });
                let rest = under_way.at.saturating_add(1)..under_way.sent.texts.len();
                let number = under_way.number;
                under_way.done.extend(rest.map(|place| end(number, place, OutcomeStatus::Skipped, 0)));
                self.fail(format!("the server refused it: {} ({})", error.message, error.code));
            }
            b'Z' => return Ok(true),
            _ => return Err(odd()),
        }
        Ok(false)
    }
}

impl Restore for PostgresRestore {
    fn step(&mut self, input: &mut BytesMut) -> Result<RestoreStep, DecodeError> {
        if self.number == 0 || self.under_way.is_none() {
            return Ok(self.send());
        }
        loop {
            let Some((tag, body)) = frame::answer(input)? else { return Ok(RestoreStep::Wait) };
            if self.take(tag, body)?
                && let Some(under_way) = self.under_way.take()
            {
                return Ok(RestoreStep::Ended(under_way.done));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::{
        model::Object,
        undo::{Column, Role},
    };

    use super::*;
    use crate::postgres::frame::put_value;

    fn pack(rows: usize) -> Pack {
        Pack {
            verb: Verb::DataDelete,
            table: Object {
                database: "d".to_owned(),
                schema: "s".to_owned(),
                name: "t".to_owned(),
                oid: Some(7),
            },
            transaction: 12,
            columns: vec![Column { name: "id".to_owned(), role: Role::Key }],
            rows: (0..rows).map(|row| vec![Some(format!("secret-{row}"))]).collect(),
        }
    }

    fn message(tag: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut out = Writer::default();
        out.message(tag, body);
        out.finish()
    }

    /// Says `answers` to each message in turn, and `check` to the check; what came of it, and how many asked to commit.
    fn restored(rows: usize, check: [&str; 2], tags: &dyn Fn(usize) -> &'static str) -> (RestoreStep, usize) {
        use bytes::BufMut as _;
        let mut restore = PostgresRestore::new(&pack(rows));
        let (mut input, mut commits, mut sent) = (BytesMut::new(), 0, 0);
        loop {
            let step = restore.step(&mut input).expect("a step");
            let held = match step {
                RestoreStep::Send(held) => held,
                RestoreStep::Commit(held) => {
                    commits += 1;
                    held
                }
                RestoreStep::Ended(done) => {
                    assert!(!done.is_empty());
                    continue;
                }
                other => return (other, commits),
            };
            for action in held.actions() {
                assert!(!action.text.contains("secret"), "values are not recorded: {}", action.text);
                if action.facts.kind == StatementKind::Select {
                    input.put_slice(&message(b'D', |out| {
                        out.put_u16(2);
                        check.iter().for_each(|value| put_value(out, Some(value.as_bytes())));
                    }));
                }
                let tag = match action.facts.kind {
                    StatementKind::Select => "SELECT 1",
                    StatementKind::Transaction if sent == 0 => "BEGIN",
                    StatementKind::Transaction => "COMMIT",
                    _ => tags(sent),
                };
                sent += 1;
                input.put_slice(&message(b'C', |out| put_text(out, tag)));
            }
            input.put_slice(&message(b'Z', |out| out.put_u8(b'T')));
        }
    }

    #[test]
    fn rows_come_back_all_or_none() {
        let right = ["committed", "7"];
        assert!(matches!(restored(250, right, &|_| "INSERT 0 1"), (RestoreStep::Restored, 1)));
        for (check, tag) in
            [(["aborted", "7"], "INSERT 0 1"), (["committed", "8"], "INSERT 0 1"), (right, "INSERT 0 0")]
        {
            let (step, commits) = restored(3, check, &|_| tag);
            assert!(matches!(step, RestoreStep::Failed(_)) && commits == 0, "{check:?} {tag}: {step:?}");
        }
    }
}
