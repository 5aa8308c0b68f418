//! Looks at all columns of a database in a session of our own: their names by one question, their labels by the look-ups
//! that sessions make, and some values of each table.
//!
//! Promises: the session is read-only; a table that cannot be read is left out, and nothing else; values are dropped when
//! the detectors have seen them.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Held,
    mask::{Detector, Detectors, Labelled, Place},
    model::{
        Action, Binds, Effect, OutcomeStatus, Phase, Principal, StatementFacts, StatementKind, Target, Verb,
    },
    protocol::{DecodeError, Done, Inspection, Opening},
    sql::{Answer, Name, Question, Relation},
    survey::{Depth, Document, RelationKind, RowPolicy, Survey, SurveyStep, SurveyedColumn},
};

use super::{
    frame::{self, Fields, MAX_WHOLE, Malformed, Writer, put_text},
    lookup::{self, Reader},
    outcome::end,
    own::Ends,
    upstream::ErrorFields,
};

/// The question for the columns.
const TEXT: &str = include_str!("survey.sql");
/// How many relations are looked up at once.
const AT_ONCE: usize = 32;
/// How many columns a database may have.
const MOST: usize = 100_000;
/// How many rows of a table are looked at, and how much of each value, in characters.
const ROWS: usize = 200;
const LENGTH: usize = 1024;

/// What the session asks for: it changes nothing, and does not stay.
pub(super) fn opening(principal: &Principal) -> Opening {
    let parameters = [
        ("application_name", "interceptor labels"),
        ("client_encoding", "UTF8"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "30s"),
    ];
    Opening {
        held: Held::new(0, Vec::new(), Bytes::new()),
        claimed: principal.clone(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        version: 3 << 16,
        then: Inspection::Full,
    }
}

/// What is asked next.
#[derive(Debug)]
enum Asking {
    Columns,
    Labels(Question),
    /// Some rows of the relation with that number.
    Rows(u32),
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    asking: Asking,
    reader: Option<Reader>,
    done: Vec<Done>,
    rows: u64,
    failed: Option<String>,
}

/// See above.
#[derive(Debug)]
pub(super) struct PostgresSurvey {
    labelled: Labelled,
    depth: Depth,
    detectors: Detectors,
    columns: Vec<Raw>,
    to_ask: VecDeque<Asking>,
    under_way: Option<UnderWay>,
    number: u64,
    failed: Option<String>,
}

#[derive(Debug)]
struct Raw {
    column: SurveyedColumn,
    readable: bool,
}

impl PostgresSurvey {
    pub(super) fn new(labelled: Labelled, depth: Depth) -> Self {
        let all: Vec<Detector> = Detector::WORDS.iter().map(|(_, detector)| *detector).collect();
        // The patterns are ours: were they wrong, labels would not load.
        let detectors = Detectors::new(&all).unwrap_or_else(|_| Detectors::none());
        let to_ask = VecDeque::from([Asking::Columns]);
        Self {
            labelled,
            depth,
            detectors,
            columns: Vec::new(),
            to_ask,
            under_way: None,
            number: 0,
            failed: None,
        }
    }

    fn send(&mut self) -> SurveyStep {
        if let Some(why) = self.failed.take() {
            self.to_ask.clear();
            return SurveyStep::Failed(why);
        }
        let Some(asking) = self.to_ask.pop_front() else {
            let columns = std::mem::take(&mut self.columns);
            return SurveyStep::Surveyed(columns.into_iter().map(|raw| raw.column).collect());
        };
        self.number = self.number.saturating_add(1);
        let (held, reader) = match &asking {
            Asking::Labels(question) => {
                let request = lookup::request(self.number, question, Ends::Sync, &self.labelled.labels);
                let held = Held::new(self.number, vec![request.action], request.bytes);
                (held, Some(Reader::of(self.labelled.clone())))
            }
            Asking::Columns => (self.query(TEXT, catalogue()), None),
            Asking::Rows(relation) => {
                let (text, target) = self.sample(*relation);
                (self.query(&text, target), None)
            }
        };
        let number = self.number;
        self.under_way = Some(UnderWay { number, asking, reader, done: Vec::new(), rows: 0, failed: None });
        SurveyStep::Send(Box::new(held))
    }

    fn query(&self, text: &str, target: Target) -> Held {
        let facts = StatementFacts {
            kind: StatementKind::Select,
            effects: vec![Effect { verb: Verb::DataRead, target }],
            has_where: true,
            has_limit: true,
            unknown: None,
            provenance: None,
            dialect: interceptor_core::sql::Dialect::Postgres,
        };
        let action =
            Action { phase: Phase::Query, text: text.into(), binds: Binds::new(), facts: facts.into() };
        let mut out = Writer::default();
        out.message(b'Q', |out| put_text(out, text));
        Held::new(self.number, vec![action], out.finish())
    }

    /// The statement that gives some rows of a relation, and what it reads.
    fn sample(&self, relation: u32) -> (String, Target) {
        let of = || self.readable(relation);
        let columns: Vec<String> = of()
            .map(|column| {
                let name = quoted(&column.name);
                format!("pg_catalog.left({name}::pg_catalog.text, {LENGTH})")
            })
            .collect();
        let (schema, name) = of().next().map_or(("", ""), |column| (&column.schema, &column.relation));
        let text =
            format!("SELECT {} FROM {}.{} LIMIT {ROWS}", columns.join(", "), quoted(schema), quoted(name));
        let object = interceptor_core::model::Object {
            database: String::new(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            oid: Some(relation),
        };
        (text, Target::Table(object))
    }

    fn readable(&self, relation: u32) -> impl Iterator<Item = &SurveyedColumn> {
        let of = move |raw: &&Raw| raw.column.place.relation == relation && raw.readable;
        self.columns.iter().filter(of).map(|raw| &raw.column)
    }

    /// A row of the answer to what is under way.
    fn row(&mut self, body: Bytes) -> Result<(), Malformed> {
        let Some(under_way) = &mut self.under_way else { return Err(Malformed) };
        under_way.rows = under_way.rows.saturating_add(1);
        match (&under_way.asking, &mut under_way.reader) {
            (Asking::Labels(_), Some(reader)) => {
                if reader.row(body).is_err() {
                    reader.spoil();
                }
                Ok(())
            }
            (Asking::Columns, _) => {
                let raw = raw(body)?;
                if self.columns.len() >= MOST {
                    self.failed = Some(format!("the database has more than {MOST} columns"));
                    return Ok(());
                }
                self.columns.push(raw);
                Ok(())
            }
            (Asking::Rows(relation), _) => {
                let relation = *relation;
                self.look(relation, body)
            }
            (Asking::Labels(_), None) => Err(Malformed),
        }
    }

    /// Looks at the values of a row.
    fn look(&mut self, relation: u32, body: Bytes) -> Result<(), Malformed> {
        let mut fields = Fields::new(body);
        let count = fields.count()?;
        let mut columns =
            self.columns.iter_mut().filter(|raw| raw.column.place.relation == relation && raw.readable);
        for _ in 0..count {
            let value = fields.value()?;
            let Raw { column, .. } = columns.next().ok_or(Malformed)?;
            let Some(value) = value else { continue };
            column.sampled = column.sampled.saturating_add(1);
            let mut found: Vec<Detector> =
                self.detectors.find(&value).into_iter().map(|hit| hit.detector).collect();
            found.dedup();
            for detector in found {
                match column.found.iter_mut().find(|(one, _)| *one == detector) {
                    Some((_, times)) => *times = times.saturating_add(1).min(column.sampled),
                    None => column.found.push((detector, 1)),
                }
            }
        }
        Ok(())
    }

    /// What follows from the answer that has come.
    fn answered(&mut self, under_way: UnderWay) -> Vec<Done> {
        let UnderWay { asking, reader, done, failed, .. } = under_way;
        match (asking, reader, failed) {
            // A table that cannot be read after all tells nothing of its values.
            (Asking::Rows(_), _, Some(_)) => {}
            (_, _, Some(why)) => self.failed = Some(why),
            (Asking::Columns, ..) => self.plan(),
            (Asking::Labels(question), Some(reader), None) => match reader.finish(&question) {
                Ok((answer, _)) => self.learn(&answer),
                // Relations of very many columns are asked for one by one.
                Err(_) if question.relations.len() > 1 => {
                    let each = question.relations.into_iter().map(|name| {
                        Asking::Labels(Question { relations: [name].into(), ..Question::default() })
                    });
                    each.rev().for_each(|one| self.to_ask.push_front(one));
                }
                Err(why) => self.failed = Some(why),
            },
            (Asking::Labels(_), None, None) | (Asking::Rows(_), ..) => {}
        }
        done
    }

    /// What else is to be asked about the columns that there are.
    fn plan(&mut self) {
        let mut relations: BTreeMap<u32, (Name, RelationKind)> = BTreeMap::new();
        for Raw { column, .. } in &self.columns {
            let name = Name { schema: Some(column.schema.clone()), name: column.relation.clone() };
            relations.entry(column.place.relation).or_insert((name, column.kind));
        }
        if !self.labelled.labels.is_empty() {
            let names: Vec<Name> = relations.values().map(|(name, _)| name.clone()).collect();
            for names in names.chunks(AT_ONCE) {
                let relations = names.iter().cloned().collect();
                self.to_ask.push_back(Asking::Labels(Question { relations, ..Question::default() }));
            }
        }
        if self.depth == Depth::Values {
            let tables = relations.into_iter().filter(|(relation, (_, kind))| {
                // What others show stands in them, and what stands on other servers is theirs.
                matches!(kind, RelationKind::Table | RelationKind::Partition)
                    && self.readable(*relation).next().is_some()
            });
            let asking: Vec<Asking> = tables.map(|(relation, _)| Asking::Rows(relation)).collect();
            self.to_ask.extend(asking);
        }
    }

    fn learn(&mut self, answer: &Answer) {
        for relation in answer.relations.values() {
            let Relation::Found { object, columns, .. } = relation else { continue };
            for Raw { column, .. } in &mut self.columns {
                if Some(column.place.relation) == object.oid {
                    column.place.database = answer.database_oid.unwrap_or_default();
                    let seen = columns.iter().find(|seen| seen.number == column.place.column);
                    column.labels = seen.map(|seen| seen.labels).unwrap_or_default();
                }
            }
        }
    }

    /// Takes one message; whether it was the last one that answers what is under way.
    fn take(&mut self, tag: u8, body: Bytes) -> Result<bool, DecodeError> {
        let odd =
            || DecodeError::upstream(format!("message {:?} answers nothing that was asked", char::from(tag)));
        let Some(under_way) = &mut self.under_way else {
            return if matches!(tag, b'N' | b'S' | b'A') { Ok(false) } else { Err(odd()) };
        };
        match tag {
            b'N' | b'S' | b'A' | b'T' | b'1' | b'2' | b'3' | b's' => {}
            b'D' => self.row(body).map_err(|_| odd())?,
            b'C' => {
                let done = end(under_way.number, 0, OutcomeStatus::Completed, 0);
                under_way.done.push(Done { rows: Some(under_way.rows), ..done });
            }
            b'E' => {
                let error = ErrorFields::read(body);
                if error.fatal {
                    return Err(DecodeError::upstream("it ended the session"));
                }
                let done = end(under_way.number, 0, OutcomeStatus::Failed, 0);
                under_way.done.push(Done { code: Some(error.code.clone()), ..done });
                // Its words may tell of values.
                under_way.failed = Some(format!("the server refused the question ({})", error.code));
            }
            b'Z' => return Ok(true),
            _ => return Err(odd()),
        }
        Ok(false)
    }
}

impl Survey for PostgresSurvey {
    fn step(&mut self, input: &mut BytesMut) -> Result<SurveyStep, DecodeError> {
        if self.under_way.is_none() {
            return Ok(self.send());
        }
        loop {
            let head =
                frame::head(input).map_err(|_| DecodeError::upstream("a message of impossible length"))?;
            let Some(head) = head else { return Ok(SurveyStep::Wait) };
            if head.total > MAX_WHOLE {
                return Err(DecodeError::upstream("a message longer than any that is taken"));
            }
            if input.len() < head.total {
                return Ok(SurveyStep::Wait);
            }
            let body = input.split_to(head.total).freeze().slice(5..);
            if self.take(head.tag, body)?
                && let Some(under_way) = self.under_way.take()
            {
                return Ok(SurveyStep::Ended(self.answered(under_way)));
            }
        }
    }
}

fn catalogue() -> Target {
    Target::Other { kind: "catalogue".to_owned(), name: "pg_catalog".to_owned() }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn raw(body: Bytes) -> Result<Raw, Malformed> {
    let mut fields = Fields::new(body);
    let count = fields.count()?;
    let mut next = || -> Result<String, Malformed> {
        let value = fields.value()?.ok_or(Malformed)?;
        String::from_utf8(value.to_vec()).map_err(|_| Malformed)
    };
    if count != 10 {
        return Err(Malformed);
    }
    let (schema, relation, oid, kind) = (next()?, next()?, next()?, next()?);
    let (public, number, name, readable) = (next()?, next()?, next()?, next()?);
    let document = match next()?.as_str() {
        "json" => Some(Document::Json),
        "jsonb" => Some(Document::Jsonb),
        "" => None,
        _ => return Err(Malformed),
    };
    let secured: Option<Vec<RowPolicy>> = serde_json::from_str(&next()?).map_err(|_| Malformed)?;
    let kind = match kind.as_str() {
        "r" | "p" => RelationKind::Table,
        "partition" => RelationKind::Partition,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::Foreign,
        _ => return Err(Malformed),
    };
    let place = Place {
        database: 0,
        relation: oid.parse().map_err(|_| Malformed)?,
        column: number.parse().map_err(|_| Malformed)?,
    };
    Ok(Raw {
        column: SurveyedColumn {
            place,
            schema,
            relation,
            kind,
            public: public == "true",
            secured,
            name,
            document,
            labels: interceptor_core::mask::LabelSet::NONE,
            sampled: 0,
            found: Vec::new(),
        },
        readable: readable == "true",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::frame::put_value;

    fn message(tag: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut out = Writer::default();
        out.message(tag, body);
        out.finish()
    }

    fn row(values: &[Option<&str>]) -> Bytes {
        use bytes::BufMut as _;
        message(b'D', |out| {
            out.put_u16(u16::try_from(values.len()).expect("few"));
            values.iter().for_each(|value| put_value(out, value.map(str::as_bytes)));
        })
    }

    fn ended(tag: &str) -> Vec<u8> {
        use bytes::BufMut as _;
        [message(b'C', |out| put_text(out, tag)), message(b'Z', |out| out.put_u8(b'I'))].concat()
    }

    #[test]
    fn columns_and_the_kinds_of_their_values_are_told_and_no_values() {
        let mut survey = PostgresSurvey::new(Labelled::nothing("r"), Depth::Values);
        let mut input = BytesMut::new();
        let mut texts = Vec::new();
        let columns = loop {
            match survey.step(&mut input).expect("a step") {
                SurveyStep::Send(held) => {
                    let text = held.actions()[0].text.clone();
                    let rows: Vec<Vec<Option<&str>>> = match texts.len() {
                        0 => [("1", "id", "true"), ("2", "a\"b", "true"), ("3", "no", "false")]
                            .map(|(number, name, readable)| {
                                ["s", "t", "20000", "r", "false", number, name, readable, "", "null"]
                                    .map(Some)
                                    .to_vec()
                            })
                            .to_vec(),
                        _ => vec![
                            vec![Some("1"), Some("walter@example.org")],
                            vec![Some("2"), None],
                            vec![Some("3"), Some("plain")],
                        ],
                    };
                    rows.iter().for_each(|values| input.extend_from_slice(&row(values)));
                    input.extend_from_slice(&ended("SELECT"));
                    texts.push(text);
                }
                SurveyStep::Ended(done) => assert_eq!(done[0].status, OutcomeStatus::Completed),
                SurveyStep::Surveyed(columns) => break columns,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            texts[1],
            "SELECT pg_catalog.left(\"id\"::pg_catalog.text, 1024), pg_catalog.left(\"a\"\"b\"::pg_catalog.text, 1024) \
             FROM \"s\".\"t\" LIMIT 200"
        );
        let told: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.sampled, c.found.as_slice())).collect();
        assert_eq!(told, [("id", 3, &[][..]), ("a\"b", 2, &[(Detector::Email, 1)]), ("no", 0, &[])]);
        assert!(!format!("{columns:?}").contains("walter"));
    }

    #[test]
    fn a_table_that_cannot_be_read_is_left_out_and_a_catalogue_that_cannot_be_is_the_end() {
        let mut survey = PostgresSurvey::new(Labelled::nothing("r"), Depth::Catalogue);
        let mut input = BytesMut::new();
        assert!(matches!(survey.step(&mut input), Ok(SurveyStep::Send(_))));
        let error = message(b'E', |out| {
            use bytes::BufMut as _;
            for (field, text) in [(b'S', "ERROR"), (b'C', "42501"), (b'M', "secret words")] {
                out.put_u8(field);
                put_text(out, text);
            }
            out.put_u8(0);
        });
        input.extend_from_slice(&error);
        input.extend_from_slice(&ended("x")[ended("x").len() - 6..]);
        assert!(matches!(survey.step(&mut input), Ok(SurveyStep::Ended(_))));
        match survey.step(&mut input) {
            Ok(SurveyStep::Failed(why)) => assert!(why.contains("42501") && !why.contains("secret")),
            other => panic!("{other:?}"),
        }
    }
}
