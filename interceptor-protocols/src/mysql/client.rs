//! The client's side: its log-in, and then its commands, one at a time.
//!
//! Promise: a command goes on as [`Step::Pass`] only if it is COM_PING, COM_STMT_CLOSE or COM_STMT_RESET; what is held is
//! COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE, COM_INIT_DB and COM_RESET_CONNECTION; nothing else goes upstream.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::{Action, Binds, Phase, StatementFacts, StatementKind, Target, Text, Verb},
    permit::{Circumstances, Held, Naming, Waits},
    protocol::{DecodeError, Inspection, Opening, Step},
    sql::{
        Dialect,
        mysql::{self, Place, Reading},
    },
};

use super::{
    answer::{IN_TRANSACTION, Owed},
    binary::{self, Type},
    decode::{MysqlDecoder, State},
    frame::{self, Fields, HEAD, Malformed, WHOLE, text},
    lookup::{Errand, Found, MOST},
    start::{self, First},
    words,
};

/// COM_QUERY.
pub(super) const QUERY: u8 = 3;
/// The longest packet of a log-in, in bytes.
const MAX_START: usize = 1 << 16;
/// How many prepared statements a session may have.
const MAX_STATEMENTS: usize = 1024;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    text: Text,
    reading: Arc<Reading>,
    /// The database that its names are of.
    database: Option<String>,
    parameters: u16,
    types: Vec<Type>,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum After {
    Nothing,
    /// The statement that is prepared, under the number that the server gives it.
    Prepared(Option<(u32, Prepared)>),
    Gate(Errand),
}

impl After {
    pub(super) fn prepared_as(&mut self, id: u32, count: u16) {
        if let Self::Prepared(Some((number, prepared))) = self {
            (*number, prepared.parameters) = (id, count);
        }
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
}

impl Work {
    fn new(frame: Bytes, command: Command) -> Self {
        Self { frame, command, found: None, asked: [false; 2] }
    }

    /// The same, of which nothing is known.
    pub(super) fn anew(self) -> Self {
        Self::new(self.frame, self.command)
    }
}

#[derive(Debug)]
enum Command {
    Text { phase: Phase, text: Text, reading: Arc<Reading> },
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
            return Err(DecodeError::client("a log-in that is too long, or out of sequence"));
        }
        if input.len() < head.total() {
            return Ok(Step::Wait);
        }
        let payload = input.split_to(head.total()).freeze().slice(HEAD..);
        self.sequence = self.sequence.wrapping_add(1);
        let first = start::first(payload).map_err(|_| DecodeError::client("a log-in that cannot be read"))?;
        match first {
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
        let refused = |what: &str, instead: &str| Ok(Step::Reply(words::not_spoken(1, what, instead)));
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
            0x16 if self.statements.len() >= MAX_STATEMENTS => {
                refused("more than 1024 prepared statements", "Close some.")
            }
            0x16 => Ok(self.text(Phase::Prepare, frame, &fields)),
            0x17 => self.execute(frame, fields),
            // It has no answer.
            0x18 => Err(DecodeError::client(
                "COM_STMT_SEND_LONG_DATA is not spoken; send values with the statement",
            )),
            0x19 => {
                let id = fields.u32().map_err(malformed)?;
                self.statements.remove(&id);
                Ok(Step::Pass(frame))
            }
            0x0e | 0x1a => {
                self.owed = Some(Owed::new(None, After::Nothing));
                Ok(Step::Pass(frame))
            }
            0x1f => Ok(self.judge(Work::new(frame, Command::Reset))),
            0x04 => refused("COM_FIELD_LIST", "Use SHOW COLUMNS; `mariadb` takes --no-auto-rehash."),
            0x0c => refused("COM_PROCESS_KILL", "Use KILL."),
            0x11 => refused("COM_CHANGE_USER", "Open a new connection."),
            0x1b => refused("COM_SET_OPTION", "Send each statement on its own."),
            0x1c => refused("COM_STMT_FETCH", "Do not use cursors."),
            other => refused(&format!("command {other:#04x}"), "Use a statement."),
        }
    }

    fn text(&mut self, phase: Phase, frame: Bytes, fields: &Fields) -> Step {
        let (text, reading) = match text(&fields.rest()) {
            Ok(text) => {
                let reading = mysql::read(&text);
                (text, reading)
            }
            Err(Malformed) => {
                let text = String::from_utf8_lossy(&fields.rest()).into_owned();
                (
                    text,
                    Reading {
                        kind: StatementKind::Unknown,
                        effects: vec![(Verb::Unknown, mysql::Reference::Resource)],
                        has_where: true,
                        has_limit: false,
                        changes: Vec::new(),
                        unknown: Some("its text is not UTF-8".to_owned()),
                    },
                )
            }
        };
        self.judge(Work::new(frame, Command::Text { phase, text: text.into(), reading: Arc::new(reading) }))
    }

    fn execute(&mut self, frame: Bytes, mut fields: Fields) -> Result<Step, DecodeError> {
        let malformed = |_: Malformed| DecodeError::client("a malformed COM_STMT_EXECUTE");
        let id = fields.u32().map_err(malformed)?;
        let cursor = fields.u8().map_err(malformed)?;
        let count = fields.u32().map_err(malformed)?;
        let Some(prepared) = self.statements.get(&id).cloned() else {
            return Ok(Step::Reply(words::not_spoken(
                1,
                "a statement that this session did not prepare",
                "Prepare it first.",
            )));
        };
        if cursor != 0 || count != 1 {
            return Ok(Step::Reply(words::not_spoken(1, "a cursor", "Fetch all rows at once.")));
        }
        let parameters = usize::from(prepared.parameters);
        let (mut types, mut binds) = (prepared.types.clone(), Binds::new());
        if parameters > 0 {
            let nulls = fields.take(parameters.div_ceil(8)).map_err(malformed)?;
            if fields.u8().map_err(malformed)? == 1 {
                types = binary::types(&mut fields, parameters).map_err(malformed)?;
            }
            if types.len() != parameters {
                return Err(DecodeError::client("values whose types were never told"));
            }
            binds = binary::values(&mut fields, &types, &nulls).map_err(malformed)?;
        }
        Ok(self.judge(Work::new(frame, Command::Execute { id, prepared, binds, types })))
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
            } else if !work.asked[1] && tables.len() <= MOST && reading.unknown.is_none() {
                work.asked[1] = true;
                return self.enquire(Errand::Tables(tables), work);
            }
        }
        let action = self.action(&work);
        let naming = Naming {
            role: String::new(),
            search_path: self.settings.iter().filter_map(|settings| settings.database.clone()).collect(),
        };
        let waits = if self.status & IN_TRANSACTION == 0 { Waits::Here } else { Waits::InTransaction };
        let circumstances =
            Circumstances { naming: Some(Arc::new(naming)), waits, ..Circumstances::default() };
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
        let Some(settings) = &self.settings else {
            return unknown("how the server reads texts could not be looked up".to_owned());
        };
        if let Some(word) = &settings.otherwise {
            return unknown(format!(
                "`sql_mode` has {word}, with which texts mean something else; reconnect"
            ));
        }
        if !settings.charset.reads(text) {
            return unknown(
                "texts in the connection's character set cannot be read; connect with utf8mb4".to_owned(),
            );
        }
        let place = Place { database, names: settings.names };
        mysql::facts(reading, place, |object| {
            work.found.as_ref()?.get(&(object.database.clone(), object.name.clone())).copied()
        })
    }

    /// The relay has sent what it was asked about.
    pub(super) fn asked_was_sent(&mut self, asked: Asked) {
        let exchange = Some(asked.number);
        let after = match asked.what {
            What::Open => return,
            What::Gate(errand) => After::Gate(errand),
            What::Command(work) => self.follow(work.command),
        };
        self.owed = Some(Owed::new(exchange, after));
    }

    fn follow(&mut self, command: Command) -> After {
        let current = self.settings.as_ref().and_then(|settings| settings.database.clone());
        match command {
            Command::Text { phase: Phase::Prepare, text, reading } => {
                let prepared =
                    Prepared { text, reading, database: current, parameters: 0, types: Vec::new() };
                After::Prepared(Some((0, prepared)))
            }
            Command::Text { reading, .. } => {
                self.forget(&reading);
                After::Nothing
            }
            Command::Execute { id, prepared, binds: _, types } => {
                self.forget(&prepared.reading);
                self.statements.insert(id, Arc::new(Prepared { types, ..(*prepared).clone() }));
                After::Nothing
            }
            Command::Database(_) => {
                self.settings = None;
                After::Nothing
            }
            Command::Reset => {
                self.settings = None;
                self.statements.clear();
                After::Nothing
            }
        }
    }

    /// What a statement may have changed is asked for again: of one that was not understood, anything.
    fn forget(&mut self, reading: &Reading) {
        if reading.unknown.is_some() || !reading.changes.is_empty() {
            self.settings = None;
        }
    }

    /// A statement was prepared, or was not.
    pub(super) fn keep(&mut self, made: Option<(u32, Prepared)>, failed: bool) {
        if let Some((id, prepared)) = made.filter(|_| !failed) {
            self.statements.insert(id, Arc::new(prepared));
        }
    }
}
