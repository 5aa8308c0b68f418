//! The client's side: its log-in, and then its commands, one at a time.
//!
//! Promise: a command goes on as [`Step::Pass`] only if it is COM_PING, COM_STMT_CLOSE or COM_STMT_RESET; what is held is
//! COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE, COM_INIT_DB and COM_RESET_CONNECTION; nothing else goes upstream.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::{Action, Binds, Phase, StatementFacts, StatementKind, Target, Text, Unknown, Verb},
    permit::{Circumstances, Held, Naming, Waits},
    protocol::{DecodeError, Inspection, Opening, Step},
    sql::{
        Dialect,
        mysql::{self, Kind, Place, Reading},
    },
};

use super::{
    answer::{IN_TRANSACTION, Owed},
    binary::{self, Type},
    decode::{MysqlDecoder, State},
    frame::{self, Fields, HEAD, Malformed, WHOLE, text},
    lookup::{Errand, Found, Look},
    made::{self, Told},
    start::{self, First},
    words::{self, Why},
};

/// COM_QUERY.
pub(super) const QUERY: u8 = 3;
/// The longest packet of a log-in, in bytes.
const MAX_START: usize = 1 << 16;
/// How many prepared statements a session may have.
const MAX_STATEMENTS: usize = 1024;
const NOT_LOOKED_UP: &str = "how the server reads texts could not be looked up";
const NOT_READ: &str = "texts in the connection's character set cannot be read; connect with utf8mb4";
const TRIGGERS_UNSEEN: &str = "the server shows triggers of the tables that it changes to nobody without the right TRIGGER; grant it to the \
     login of this resource";
/// How long their texts may be together, in bytes.
const MAX_PREPARED: usize = 8 << 20;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    text: Text,
    /// The digest of its bytes, where it is not quite these.
    bytes: Option<String>,
    reading: Arc<Reading>,
    /// The database that its names are of.
    database: Option<String>,
    parameters: u16,
    types: Vec<Type>,
    values: Values,
}

/// How the values of a prepared statement come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    WithIt,
    /// By COM_STMT_SEND_LONG_DATA, which was thrown away.
    Lost,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum After {
    /// Nothing: it is OK or an error.
    Word,
    /// The same, and with OK the session is as it began.
    Reset,
    Nothing,
    /// The types of the values of a prepared statement.
    Executed {
        id: u32,
        types: Vec<Type>,
    },
    /// The statement that is prepared, under the number that the server gives it.
    Prepared(Option<(u32, Prepared)>),
    Gate(Errand),
}

impl After {
    /// Each parameter is a letter of the text: of more than that, types would be kept without bound.
    pub(super) fn prepared_as(&mut self, id: u32, count: u16) -> Result<(), Malformed> {
        if let Self::Prepared(Some((number, prepared))) = self {
            (*number, prepared.parameters) = (id, count);
            return if usize::from(count) > prepared.text.len() { Err(Malformed) } else { Ok(()) };
        }
        Ok(())
    }
}

/// A command that is looked at.
#[derive(Debug)]
pub(super) struct Work {
    frame: Bytes,
    command: Command,
    /// What its tables are, once that was asked.
    pub(super) found: Option<Found>,
    /// What was asked for it.
    asked: [bool; 2],
    /// Whether it does what we read in it.
    reads: Reads,
}

/// Whether the server reads a text as we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Alike,
    Otherwise,
}

impl Work {
    fn new(frame: Bytes, command: Command) -> Self {
        Self { frame, command, found: None, asked: [false; 2], reads: Reads::Otherwise }
    }

    /// The same, of which nothing is known.
    pub(super) fn anew(self) -> Self {
        Self::new(self.frame, self.command)
    }
}

#[derive(Debug)]
enum Command {
    Text { phase: Phase, text: Text, bytes: Option<String>, reading: Arc<Reading> },
    Execute { id: u32, prepared: Arc<Prepared>, binds: Binds, types: Vec<Type> },
    Database(String),
    Reset,
}

/// What the relay was asked about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Open,
    Gate(Errand),
    Command(Box<Work>),
}

impl MysqlDecoder {
    pub(super) fn client(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        match self.state {
            State::Start => {
                self.state = State::Greeted;
                self.sequence = 1;
                Ok(Step::Reply(words::greeting()))
            }
            State::Greeted => self.start(input),
            State::Opening | State::Over => Ok(Step::Wait),
            State::Session if self.asked.is_some() => Ok(Step::Wait),
            State::Session if self.owed.is_some() => {
                Ok(if input.is_empty() { Step::Wait } else { Step::Hold })
            }
            State::Session => match self.work.take() {
                Some(work) => Ok(self.judge(work)),
                None => self.next(input),
            },
        }
    }

    fn start(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let Some(head) = frame::head(input) else { return Ok(Step::Wait) };
        if head.length > MAX_START || head.sequence != self.sequence {
            self.sequence = head.sequence.wrapping_add(1);
            return Err(DecodeError::client("a log-in that is too long, or out of sequence"));
        }
        if input.len() < head.total() {
            return Ok(Step::Wait);
        }
        let payload = input.split_to(head.total()).freeze().slice(HEAD..);
        self.sequence = self.sequence.wrapping_add(1);
        let first = start::first(payload).map_err(|_| DecodeError::client("a log-in that cannot be read"))?;
        match first {
            First::Compressed => Err(DecodeError::client(
                "compression is not spoken; turn it off in the client (`compress`, `compression-algorithms`)",
            )),
            First::Tls if self.secured => Err(DecodeError::client("asked for TLS inside TLS")),
            First::Tls => {
                self.secured = true;
                Ok(Step::StartTls(Bytes::new()))
            }
            First::Session { claimed, capabilities, collation } => {
                self.state = State::Opening;
                let number = self.number();
                self.asked = Some(Asked { number, what: What::Open });
                let facts =
                    StatementFacts::single(Verb::Connect, Target::Resource).written_in(Dialect::MySql);
                let action = Action {
                    phase: Phase::Connect,
                    text: Text::new(),
                    binds: Binds::new(),
                    facts: Arc::new(facts),
                };
                Ok(Step::Open(Opening {
                    held: Held::new(number, vec![action], Bytes::new()),
                    claimed,
                    parameters: vec![(super::COLLATION.to_owned(), collation.to_string())],
                    version: capabilities,
                    then: Inspection::Full,
                }))
            }
        }
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Step, DecodeError> {
        let Some(head) = frame::head(input) else { return Ok(Step::Wait) };
        if head.sequence != 0 || head.length == 0 {
            return Err(DecodeError::client("a command that is out of sequence, or empty"));
        }
        if head.length == WHOLE {
            return Err(DecodeError::client("a command of 16 MB or more; at most 16 MB are taken"));
        }
        if input.len() < head.total() {
            return Ok(Step::Wait);
        }
        let frame = input.split_to(head.total()).freeze();
        let mut fields = Fields::new(frame.slice(HEAD..));
        let malformed = |_: Malformed| DecodeError::client("a malformed command");
        let command = fields.u8().map_err(malformed)?;
        let refused = |what: &str, instead: &str| {
            Ok(Step::Reply(words::not_taken(Why::NotSpoken, &format!("{what} is not spoken here"), instead)))
        };
        let is_passed_over = matches!(command, 0x01 | 0x0e | 0x19 | 0x1a | 0x1f);
        let has_id = matches!(command, 0x19 | 0x1a);
        if is_passed_over && fields.rest().len() != if has_id { 4 } else { 0 } {
            return Err(malformed(Malformed));
        }
        match command {
            0x01 => {
                self.state = State::Over;
                Ok(Step::Close(frame))
            }
            0x02 => {
                let name = text(&fields.rest()).map_err(malformed)?;
                Ok(self.judge(Work::new(frame, Command::Database(name))))
            }
            QUERY => Ok(self.text(Phase::Query, frame, &fields)),
            0x16 if !self.has_room_for(&fields) => Ok(Step::Reply(words::not_taken(
                Why::TooMuchPrepared,
                "a session may have 1024 prepared statements, and 8 MB of their texts",
                "Close some, or send the statement as a text.",
            ))),
            0x16 => Ok(self.text(Phase::Prepare, frame, &fields)),
            0x17 => self.execute(frame, fields),
            // It has no answer: the statement has, when it is executed.
            0x18 => {
                let id = fields.u32().map_err(malformed)?;
                self.values_come(id, Values::Lost);
                Ok(Step::Reply(Bytes::new()))
            }
            0x19 => {
                let id = fields.u32().map_err(malformed)?;
                self.statements.remove(&id);
                Ok(Step::Pass(frame))
            }
            0x1a => {
                let id = fields.u32().map_err(malformed)?;
                self.values_come(id, Values::WithIt);
                self.owed = Some(Owed::new(None, After::Word));
                Ok(Step::Pass(frame))
            }
            0x0e => {
                self.owed = Some(Owed::new(None, After::Word));
                Ok(Step::Pass(frame))
            }
            0x1f => Ok(self.judge(Work::new(frame, Command::Reset))),
            0x04 => refused("COM_FIELD_LIST", "Use SHOW COLUMNS; `mariadb` takes --no-auto-rehash."),
            0x0c => refused("COM_PROCESS_KILL", "Use KILL."),
            0x11 => refused("COM_CHANGE_USER", "Open a new connection."),
            0x1b => refused("COM_SET_OPTION", "Send each statement on its own."),
            0x1c => refused("COM_STMT_FETCH", "Do not use cursors."),
            0xfa => refused("COM_STMT_BULK_EXECUTE", "Execute the statement once for each row."),
            other => refused(&format!("command {other:#04x}"), "Use a statement."),
        }
    }

    fn has_room_for(&self, text: &Fields) -> bool {
        let held = self.statements.values().map(|prepared| prepared.text.len());
        let held = held.fold(text.rest().len(), usize::saturating_add);
        self.statements.len() < MAX_STATEMENTS && held <= MAX_PREPARED
    }

    fn values_come(&mut self, id: u32, values: Values) {
        if let Some(prepared) = self.statements.get_mut(&id) {
            Arc::make_mut(prepared).values = values;
        }
    }

    fn text(&mut self, phase: Phase, frame: Bytes, fields: &Fields) -> Step {
        let sent = fields.rest();
        let (text, bytes, reading) = match text(&sent) {
            Ok(text) => {
                let reading = mysql::read(&text);
                (text, None, reading)
            }
            Err(Malformed) => {
                let reading = Reading {
                    kind: StatementKind::Unknown,
                    effects: vec![(Verb::Unknown, mysql::Reference::Resource)],
                    has_where: true,
                    has_limit: false,
                    changes: Vec::new(),
                    unknown: Some("its text is not UTF-8".to_owned()),
                };
                (String::from_utf8_lossy(&sent).into_owned(), Some(made::digest(&sent)), reading)
            }
        };
        let reading = Arc::new(reading);
        self.judge(Work::new(frame, Command::Text { phase, text: text.into(), bytes, reading }))
    }

    fn execute(&mut self, frame: Bytes, mut fields: Fields) -> Result<Step, DecodeError> {
        let malformed = |_: Malformed| DecodeError::client("a malformed COM_STMT_EXECUTE");
        let id = fields.u32().map_err(malformed)?;
        let cursor = fields.u8().map_err(malformed)?;
        let count = fields.u32().map_err(malformed)?;
        let not_spoken =
            |what: &str, instead: &str| Ok(Step::Reply(words::not_taken(Why::NotSpoken, what, instead)));
        let Some(prepared) = self.statements.get(&id).cloned() else {
            return Ok(Step::Reply(words::not_taken(
                Why::NotPrepared,
                "this session did not prepare that statement, or closed it",
                "Prepare it first.",
            )));
        };
        if prepared.values == Values::Lost {
            // As after an error of the server's own.
            self.values_come(id, Values::WithIt);
            return not_spoken(
                "COM_STMT_SEND_LONG_DATA is not spoken here",
                "Send all values with the statement.",
            );
        }
        if cursor != 0 || count != 1 {
            return not_spoken("a cursor is not spoken here", "Fetch all rows at once.");
        }
        let parameters = usize::from(prepared.parameters);
        let (mut types, mut binds) = (prepared.types.clone(), Binds::new());
        if parameters > 0 {
            let nulls = fields.take(parameters.div_ceil(8)).map_err(malformed)?;
            match fields.u8().map_err(malformed)? {
                0 => {}
                1 => types = binary::types(&mut fields, parameters).map_err(malformed)?,
                _ => return Err(malformed(Malformed)),
            }
            if let Some(kind) = binary::ambiguous(&types) {
                let what =
                    format!("a value of type {kind:#04x} is not spoken here: servers read it differently");
                return not_spoken(&what, "Send it as an integer or a string.");
            }
            if types.len() != parameters {
                return not_spoken(
                    "it is not known of which types the values are",
                    "Prepare the statement anew.",
                );
            }
            binds = match binary::values(&mut fields, &types, &nulls) {
                Ok(binds) => binds,
                Err(binary::Unread::Malformed) => return Err(malformed(Malformed)),
                Err(binary::Unread::OutOfBounds) => {
                    return not_spoken(
                        "a date or time that servers cut, or take for nothing, is not spoken here",
                        "Send one within the bounds of its type, or as a string.",
                    );
                }
            };
        } else if fields.rest().len() > 1 {
            // Some say even of no parameters that their types come.
            return Err(malformed(Malformed));
        }
        Ok(self.judge(Work::new(frame, Command::Execute { id, prepared, binds, types })))
    }

    /// How the statement of a command is told apart from others.
    fn told(command: &Command) -> Option<Told<'_>> {
        match command {
            Command::Text { text, bytes, .. } => Some(Told { text, bytes: bytes.as_deref(), binds: &[] }),
            Command::Execute { prepared, binds, .. } => {
                Some(Told { text: &prepared.text, bytes: prepared.bytes.as_deref(), binds })
            }
            Command::Database(_) | Command::Reset => None,
        }
    }

    /// The statement of a command, and the database that its names are of.
    fn statement<'a>(
        &'a self,
        command: &'a Command,
    ) -> Option<(&'a Text, &'a Arc<Reading>, Option<&'a str>)> {
        let current = self.settings.as_ref().and_then(|settings| settings.database.as_deref());
        match command {
            Command::Text { text, reading, .. } => Some((text, reading, current)),
            Command::Execute { prepared, .. } => {
                Some((&prepared.text, &prepared.reading, prepared.database.as_deref()))
            }
            Command::Database(_) | Command::Reset => None,
        }
    }

    fn judge(&mut self, mut work: Work) -> Step {
        if self.statement(&work.command).is_some() && self.settings.is_none() && !work.asked[0] {
            work.asked[0] = true;
            return self.enquire(Errand::Settings, work);
        }
        if let (Some((_, reading, database)), Some(settings)) =
            (self.statement(&work.command), &self.settings)
        {
            let tables: Vec<_> =
                reading.tables(Place { database, names: settings.names }).into_iter().collect();
            if tables.is_empty() {
                work.found = Some(BTreeMap::new());
            } else if !work.asked[1]
                && reading.unknown.is_none()
                && let Some(errand) = Errand::for_tables(tables)
            {
                work.asked[1] = true;
                return self.enquire(errand, work);
            }
        }
        let action = self.action(&work);
        work.reads = if action.facts.unknown.is_some() { Reads::Otherwise } else { Reads::Alike };
        let current = self.settings.as_ref().and_then(|settings| settings.database.as_deref());
        let database = self.statement(&work.command).map_or(current, |(_, _, database)| database);
        let naming =
            Naming { role: String::new(), search_path: database.iter().map(ToString::to_string).collect() };
        let waits = if self.status & IN_TRANSACTION == 0 { Waits::Here } else { Waits::InTransaction };
        let settings = self.made.around(Self::told(&work.command));
        let circumstances =
            Circumstances { naming: Some(Arc::new(naming)), settings, waits, ..Circumstances::default() };
        let number = self.number();
        let held = Held::new(number, vec![action], work.frame.clone()).under(circumstances);
        self.asked = Some(Asked { number, what: What::Command(Box::new(work)) });
        Step::Ask(held)
    }

    fn enquire(&mut self, errand: Errand, work: Work) -> Step {
        let (bytes, action) = errand.command();
        let number = self.number();
        self.work = Some(work);
        self.asked = Some(Asked { number, what: What::Gate(errand) });
        Step::Enquire(Held::new(number, vec![action], bytes))
    }

    fn action(&self, work: &Work) -> Action {
        let setting = |name: &str| {
            let facts = StatementFacts::single(Verb::SessionChange, Target::Setting(name.to_owned()));
            StatementFacts { kind: StatementKind::Set, ..facts }.written_in(Dialect::MySql)
        };
        let (phase, text, binds, facts) = match &work.command {
            Command::Database(name) => (
                Phase::Query,
                format!("USE `{}`", name.replace('`', "``")).into(),
                Binds::new(),
                setting("database"),
            ),
            Command::Reset => (Phase::Query, Text::new(), Binds::new(), setting("connection")),
            Command::Text { phase, text, .. } => (*phase, text.clone(), Binds::new(), self.facts(work)),
            Command::Execute { prepared, binds, .. } => {
                (Phase::Execute, prepared.text.clone(), binds.clone(), self.facts(work))
            }
        };
        Action { phase, text, binds, facts: Arc::new(facts) }
    }

    fn facts(&self, work: &Work) -> StatementFacts {
        let unknown = |why: String| StatementFacts::unknown(why).written_in(Dialect::MySql);
        let Some((text, reading, database)) = self.statement(&work.command) else {
            return unknown("there is no statement in it".to_owned());
        };
        if let Some(why) = self.reads_otherwise(text) {
            return unknown(why);
        }
        let Some(settings) = &self.settings else { return unknown(NOT_LOOKED_UP.to_owned()) };
        if let Command::Execute { binds, .. } = &work.command {
            let is_read = |value: &str| settings.charset.reads(value);
            if !binds.iter().filter_map(|bind| bind.value.as_deref()).all(is_read) {
                return unknown(NOT_READ.to_owned());
            }
        }
        let place = Place { database, names: settings.names };
        let facts = |unseen: Kind| {
            mysql::facts(reading, place, |object| {
                match work.found.as_ref()?.get(&(object.database.clone(), object.name.clone()))? {
                    Look::Is(kind) => Some(*kind),
                    Look::TriggersUnseen => Some(unseen),
                }
            })
        };
        let mut facts_if_there_are = facts(Kind::Triggered);
        if facts_if_there_are.unknown.is_some() && facts(Kind::Table).unknown.is_none() {
            facts_if_there_are.unknown = Some(Unknown(TRIGGERS_UNSEEN.to_owned()));
        }
        facts_if_there_are
    }

    /// Why the server may read a text otherwise than we do.
    fn reads_otherwise(&self, text: &str) -> Option<String> {
        let Some(settings) = &self.settings else { return Some(NOT_LOOKED_UP.to_owned()) };
        if let Some(word) = &settings.otherwise {
            return Some(format!("`sql_mode` has {word}, with which texts mean something else; reconnect"));
        }
        (!settings.charset.reads(text)).then(|| NOT_READ.to_owned())
    }

    /// The relay has sent what it was asked about.
    pub(super) fn asked_was_sent(&mut self, asked: Asked) {
        let exchange = Some(asked.number);
        let after = match asked.what {
            What::Open => return,
            What::Gate(errand) => After::Gate(errand),
            What::Command(work) => self.follow(*work),
        };
        self.owed = Some(Owed::new(exchange, after));
    }

    fn follow(&mut self, work: Work) -> After {
        let current = self.settings.as_ref().and_then(|settings| settings.database.clone());
        self.forget(&work);
        match work.command {
            Command::Text { phase: Phase::Prepare, text, bytes, mut reading } => {
                // The server keeps what it reads now, and no setting changes it later.
                if let Some(why) = self.reads_otherwise(&text) {
                    Arc::make_mut(&mut reading).unknown.get_or_insert(format!("when it was prepared, {why}"));
                }
                let (parameters, types, values) = (0, Vec::new(), Values::WithIt);
                After::Prepared(Some((
                    0,
                    Prepared { text, bytes, reading, database: current, parameters, types, values },
                )))
            }
            Command::Text { .. } => After::Nothing,
            Command::Execute { id, types, .. } => After::Executed { id, types },
            Command::Database(_) => {
                self.settings = None;
                After::Word
            }
            Command::Reset => {
                self.settings = None;
                self.statements.clear();
                After::Reset
            }
        }
    }

    /// What a statement that is carried out may have changed is asked for again, and told from now on: of one that was not
    /// understood, or calls a routine, anything.
    fn forget(&mut self, work: &Work) {
        if matches!(work.command, Command::Text { phase: Phase::Prepare, .. }) {
            return;
        }
        let Some((text, reading, _)) = self.statement(&work.command) else { return };
        let calls = reading.effects.iter().any(|(verb, _)| *verb == Verb::FunctionCall);
        let anything = work.reads == Reads::Otherwise || calls;
        let (is_told, is_asked) =
            (anything || made::changes(reading, text), anything || !reading.changes.is_empty());
        if let Some(told) = Self::told(&work.command).filter(|_| is_told) {
            self.made.by(told);
        }
        if is_asked {
            self.settings = None;
        }
    }

    /// A server that refuses a statement may have taken its types, or not: where that makes a difference, they are unknown.
    pub(super) fn keep_types(&mut self, id: u32, types: Vec<Type>, failed: bool) {
        if let Some(prepared) = self.statements.get_mut(&id) {
            let prepared = Arc::make_mut(prepared);
            let is_in_doubt = failed && !prepared.types.is_empty() && prepared.types != types;
            prepared.types = if is_in_doubt { Vec::new() } else { types };
        }
    }

    /// A statement was prepared, or was not.
    pub(super) fn keep(&mut self, made: Option<(u32, Prepared)>, failed: bool) {
        if let Some((id, prepared)) = made.filter(|_| !failed) {
            self.statements.insert(id, Arc::new(prepared));
        }
    }
}
