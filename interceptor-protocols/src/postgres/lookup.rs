//! The gate's own questions to the catalogue, on the session's own connection: as whom it asks, and what the names in a
//! statement mean to this role with this search path, now.
//!
//! Promise: every name in it is qualified, so that a hostile `search_path` cannot turn it; names travel as bind
//! values, never as text; it uses a statement and portal of its own, so that the client's unnamed ones live on.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use interceptor_core::{
    mask::{Labelled, Labels},
    model::{Action, BindValue, Effect, Object, Phase, StatementFacts, StatementKind, Target, Verb},
    sql::{Answer, Besides, Consequence, Function, Name, Numbered, Question, Relation, Routine, Rows, What},
};

use super::{
    columns::Kin,
    frame::{Fields, Malformed},
    own::{self, Ends, Own, PREFIX, Parameter},
};

/// How many names are looked up at once.
pub(super) const MAX_NAMES: usize = 512;
/// How many rows an answer may have; the last line of [`TEXT`] has it too.
const MAX_ROWS: usize = 8192;
/// How many bytes an answer may have.
const MAX_ANSWER: usize = 1 << 20;
/// The types of its parameters.
const PARAMETERS: [(u32, &str); 4] = [(1009, "text[]"), (1009, "text[]"), (1009, "text[]"), (1028, "oid[]")];
const COLUMNS: usize = 7;
const NO_NUMBER: &str = "the catalogue gave no number for a function or a type";

/// The text of the look-up. What views, policies, defaults, checks and indexes name and run is taken from their stored
/// trees, which, unlike `pg_depend`, name the system's own as well.
pub(super) static TEXT: LazyLock<String> =
    LazyLock::new(|| include_str!("lookup.sql").replacen(SCOPE, include_str!("scope.sql").trim_end(), 1));
/// Where [`TEXT`] tells of the session itself.
const SCOPE: &str = "/* scope */";

/// The same with the columns of the relations, where the resource's data has labels.
static TEXT_WITH_COLUMNS: LazyLock<String> =
    LazyLock::new(|| TEXT.replacen(LIMIT, &format!("{}{LIMIT}", include_str!("columns.sql")), 1));
/// As whom the session asks, alone.
static TEXT_OF_SCOPE: LazyLock<String> =
    LazyLock::new(|| format!("/* interceptor: as whom this session asks */\n{}", include_str!("scope.sql")));
/// The last line of [`TEXT`].
const LIMIT: &str = "LIMIT 8192";

/// A look-up to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Bytes,
    pub(super) action: Action,
}

/// The messages of look-up `number` that asks as whom the session asks.
pub(super) fn scope_request(number: u64, ends: Ends) -> Request {
    sending(number, &TEXT_OF_SCOPE, Vec::new(), ends)
}

/// The messages of look-up `number`, with the columns of its relations where there are `labels`.
pub(super) fn request(number: u64, question: &Question, ends: Ends, labels: &Labels) -> Request {
    let text = if labels.is_empty() { &TEXT } else { &TEXT_WITH_COLUMNS };
    let relations = array(question.relations.iter().map(|name| Some(written(name))));
    let schemas = array(question.functions.iter().map(|name| name.schema.clone()));
    let functions = array(question.functions.iter().map(|name| Some(name.name.clone())));
    let numbers = array(question.numbers.iter().map(|number| Some(number.to_string())));
    sending(number, text, vec![relations, schemas, functions, numbers], ends)
}

/// The messages of a look-up with these values for [`PARAMETERS`], from the first on.
fn sending(number: u64, text: &'static str, values: Vec<String>, ends: Ends) -> Request {
    let parameters = values.iter().zip(PARAMETERS).map(|(value, (oid, _))| Parameter {
        oid,
        format: 0,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    });
    let own = Own { text: text.into(), parameters: parameters.collect() };
    let bytes = own::messages(number, &own, ends);
    let told = values.into_iter().zip(PARAMETERS).map(|(value, (_, name))| BindValue {
        r#type: name.into(),
        value: Some(value.into()),
        cut_from: None,
    });
    let action = Action {
        phase: Phase::Execute,
        text: text.into(),
        binds: told.collect(),
        facts: StatementFacts {
            kind: StatementKind::Select,
            effects: vec![Effect {
                verb: Verb::DataRead,
                target: Target::Other { kind: "catalogue".to_owned(), name: "pg_catalog".to_owned() },
            }],
            has_where: true,
            has_limit: true,
            unknown: None,
            provenance: None,
            dialect: interceptor_core::sql::Dialect::Postgres,
        }
        .into(),
    };
    Request { bytes, action }
}

/// Whether the server's own name functions take it; what they would refuse cannot exist.
fn is_possible(name: &Name) -> bool {
    let fits = |part: &str| !part.is_empty() && !part.contains('\0');
    fits(&name.name) && name.schema.as_deref().is_none_or(fits)
}

/// A relation's name for `to_regclass`. An impossible one becomes a name that nothing has.
fn written(name: &Name) -> String {
    if !is_possible(name) {
        return format!("{PREFIX}.{PREFIX}");
    }
    let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    match &name.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&name.name)),
        None => quoted(&name.name),
    }
}

pub(super) fn array(values: impl Iterator<Item = Option<String>>) -> String {
    let mut out = String::from("{");
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(',');
        }
        match value {
            None => out.push_str("NULL"),
            Some(value) => {
                out.push('"');
                for c in value.chars().filter(|&c| c != '\0') {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    out
}

/// What the look-up said of the session itself, besides the names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    pub(super) client_encoding: String,
    pub(super) standard_strings: String,
    pub(super) isolation: String,
    /// When the server was started, the search path as it is set, and the number of the role; none where the session has
    /// temporary objects, which nobody else sees.
    pub(super) viewer: Option<(String, String, u32)>,
}

/// Gathers the rows of an answer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rows: Vec<[String; COLUMNS]>,
    bytes: usize,
    spoilt: bool,
    /// How columns are labelled, where there are any labels.
    labelled: Option<Labelled>,
}

impl Reader {
    /// For a resource whose data is labelled so.
    pub(super) fn of(labelled: Labelled) -> Self {
        Self { labelled: Some(labelled).filter(|labelled| !labelled.labels.is_empty()), ..Self::default() }
    }

    /// Takes one DataRow's body.
    pub(super) fn row(&mut self, body: Bytes) -> Result<(), Malformed> {
        self.bytes = self.bytes.saturating_add(body.len());
        if self.rows.len() >= MAX_ROWS || self.bytes > MAX_ANSWER {
            return Err(Malformed);
        }
        let mut fields = Fields::new(body);
        if fields.count()? != COLUMNS {
            return Err(Malformed);
        }
        let mut row: [String; COLUMNS] = Default::default();
        for column in &mut row {
            let value = fields.value()?.unwrap_or_default();
            *column = String::from_utf8(value.to_vec()).map_err(|_| Malformed)?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// A row could not be taken: the answer is none.
    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
        self.rows = Vec::new();
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The answer to `question`, or why there is none.
    pub(super) fn finish(self, question: &Question) -> Result<(Answer, Settings), String> {
        if self.spoilt || self.rows.len() >= MAX_ROWS {
            return Err("the catalogue's answer is too long".to_owned());
        }
        let mut answer = Answer::default();
        let (mut settings, mut viewer) = (None, None);
        let mut besides = Besides::default();
        let relations: Vec<&Name> = question.relations.iter().collect();
        let functions: Vec<&Name> = question.functions.iter().collect();
        answer.relations.extend(relations.iter().map(|name| ((*name).clone(), Relation::Missing)));
        answer.functions.extend(functions.iter().map(|name| ((*name).clone(), Function::default())));
        answer.numbers.extend(question.numbers.iter().map(|number| (*number, None)));
        let mut kin: HashMap<&str, Kin> = HashMap::new();
        // The session's own row comes first: objects need the database's name.
        for row in &self.rows {
            let [what, place, schema, name, oid, number, more] = row;
            match what.as_str() {
                "s" => settings = Some(session(row, &mut answer)?),
                "w" => viewer = viewer_of(row),
                "p" => answer.search_path.push(schema.clone()),
                "r" => relation(row, &relations, &mut answer)?,
                "v" | "h" | "m" | "l" | "c" => other(row, &relations, &mut answer)?,
                "x" => runs(row, &relations, &mut answer, &mut besides)?,
                "o" => {
                    let [_, name, ..] = row;
                    besides.operators.entry(name.clone()).or_default().push(routine(row, &answer));
                }
                "f" => function(row, &functions, &mut answer)?,
                "n" => numbered(row, &mut answer)?,
                "t" | "a" | "d" | "q" if self.labelled.is_some() => {
                    kin.entry(place).or_default().row(what, [schema, name, oid, number, more])?;
                }
                _ => return Err("the catalogue's answer has an unknown row".to_owned()),
            }
        }
        if let Some(labelled) = &self.labelled {
            kin.values_mut().for_each(Kin::complete);
            label(&kin, &relations, labelled, &mut answer)?;
        }
        let settings = settings.ok_or("the catalogue did not answer")?;
        answer.besides = Arc::new(besides);
        Ok((answer, Settings { viewer, ..settings }))
    }
}

/// Takes note of what was seen, and gives each relation its columns.
fn label(
    kin: &HashMap<&str, Kin>,
    names: &[&Name],
    labelled: &Labelled,
    answer: &mut Answer,
) -> Result<(), String> {
    let number = answer.database_oid.ok_or("the catalogue did not answer")?;
    // Whatever is bound is bound before anything is told of it.
    for kin in kin.values() {
        kin.note(labelled, (number, &answer.database));
    }
    for (place, kin) in kin {
        if let Some(Relation::Found { object, columns, .. }) = answer.relations.get_mut(asked(place, names)?)
        {
            *columns = object.oid.map(|oid| kin.columns(oid, labelled, number)).unwrap_or_default();
        }
    }
    Ok(())
}

type Row = [String; COLUMNS];

fn session(row: &Row, answer: &mut Answer) -> Result<Settings, String> {
    let [_, number, database, role, encoding, strings, isolation] = row;
    answer.database.clone_from(database);
    answer.database_oid = Some(number.parse().map_err(|_| "the catalogue gave no number for the database")?);
    answer.role.clone_from(role);
    Ok(Settings {
        client_encoding: encoding.clone(),
        standard_strings: strings.clone(),
        isolation: isolation.clone(),
        viewer: None,
    })
}

fn viewer_of(row: &Row) -> Option<(String, String, u32)> {
    let [_, _, server, setting, role, temporary, _] = row;
    let role = role.parse().ok().filter(|_| temporary == "0" && !server.is_empty())?;
    Some((server.clone(), setting.clone(), role))
}

fn asked<'a>(place: &str, names: &[&'a Name]) -> Result<&'a Name, String> {
    let place = place.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
    place
        .and_then(|place| names.get(place).copied())
        .ok_or_else(|| "the catalogue answered what was not asked".to_owned())
}

fn object(row: &Row, answer: &Answer) -> Object {
    let [_, _, schema, name, oid, ..] = row;
    Object {
        database: answer.database.clone(),
        schema: schema.clone(),
        name: name.clone(),
        oid: oid.parse().ok(),
    }
}

fn relation(row: &Row, names: &[&Name], answer: &mut Answer) -> Result<(), String> {
    let [_, place, _, _, _, kind, rules] = row;
    let found = Relation::Found {
        object: object(row, answer),
        // A table, and one that is in parts.
        rows: if matches!(kind.as_str(), "r" | "p") { Rows::Own } else { Rows::Others },
        reads: Vec::new(),
        columns: Vec::new(),
        children: Vec::new(),
        consequences: Vec::new(),
        has_rules: rules != "false",
    };
    answer.relations.insert(asked(place, names)?.clone(), found);
    Ok(())
}

/// Another relation that comes into what is done to one that was asked for. The latter's row comes before.
fn other(row: &Row, names: &[&Name], answer: &mut Answer) -> Result<(), String> {
    let [how, place, _, _, _, event, _] = row;
    let object = object(row, answer);
    let Some(Relation::Found { reads, children, consequences, .. }) =
        answer.relations.get_mut(asked(place, names)?)
    else {
        return Err("the catalogue answered what was not asked".to_owned());
    };
    let on_change = vec![Verb::DataUpdate];
    match (how.as_str(), event.as_str()) {
        ("v", _) => reads.push(object),
        ("h", _) => children.push(object),
        ("m", _) => {
            consequences.push(Consequence { of: on_change, what: What::Does(Verb::DataRead, object) })
        }
        ("l", _) => consequences.push(Consequence { of: verbs("riudts")?, what: What::Reaches }),
        ("c", "d" | "u") => {
            let verb = if event == "d" { Verb::DataDelete } else { Verb::DataUpdate };
            consequences.push(Consequence { of: vec![Verb::DataDelete], what: What::Does(verb, object) });
        }
        _ => return Err("the catalogue's answer has an unknown row".to_owned()),
    }
    Ok(())
}

/// Code that is run without being named.
fn runs(row: &Row, names: &[&Name], answer: &mut Answer, besides: &mut Besides) -> Result<(), String> {
    let [_, place, _, _, _, _, at] = row;
    let routine = routine(row, answer);
    match at.as_str() {
        "k" => besides.conversions.push(routine),
        "e" => besides.event_triggers.push(routine),
        at => match answer.relations.get_mut(asked(place, names)?) {
            Some(Relation::Found { consequences, .. }) => {
                consequences.push(Consequence { of: verbs(at)?, what: What::Runs(routine) });
            }
            _ => return Err("the catalogue answered what was not asked".to_owned()),
        },
    }
    Ok(())
}

fn routine(row: &Row, answer: &Answer) -> Routine {
    let [_, _, _, _, _, built_in, _] = row;
    Routine { object: object(row, answer), built_in: built_in == "true" }
}

/// The verbs that the letters of [`TEXT`] stand for.
fn verbs(letters: &str) -> Result<Vec<Verb>, String> {
    let mut verbs = Vec::new();
    for letter in letters.chars() {
        match letter {
            'r' => verbs.push(Verb::DataRead),
            'i' => verbs.push(Verb::DataInsert),
            'u' => verbs.push(Verb::DataUpdate),
            'd' => verbs.push(Verb::DataDelete),
            't' => verbs.push(Verb::DataTruncate),
            's' => verbs.extend([Verb::SchemaAlter, Verb::Maintenance]),
            _ => return Err("the catalogue's answer has an unknown row".to_owned()),
        }
    }
    Ok(verbs)
}

fn function(row: &Row, names: &[&Name], answer: &mut Answer) -> Result<(), String> {
    let [_, place, _, _, oid, built_in, _] = row;
    let name = asked(place, names)?;
    let candidate = object(row, answer);
    let Function { users, built_in: own } = answer.functions.entry(name.clone()).or_default();
    if built_in == "true" {
        own.push(oid.parse().map_err(|_| NO_NUMBER)?);
    } else if !users.iter().any(|user| (&user.schema, &user.name) == (&candidate.schema, &candidate.name)) {
        users.push(candidate);
    }
    Ok(())
}

/// A function that was asked for by its number.
fn numbered(row: &Row, answer: &mut Answer) -> Result<(), String> {
    let [_, _, _, _, oid, _, types] = row;
    let number = |text: &str| text.parse::<u32>().map_err(|_| NO_NUMBER.to_owned());
    let parameters = types.split_ascii_whitespace().map(number).collect::<Result<_, _>>()?;
    let function = Numbered { routine: routine(row, answer), parameters };
    match answer.numbers.get_mut(&number(oid)?) {
        Some(asked) => *asked = Some(function),
        None => return Err("the catalogue answered what was not asked".to_owned()),
    }
    Ok(())
}
