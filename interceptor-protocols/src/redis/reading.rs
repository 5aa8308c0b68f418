//! What a command does, from its arguments and the list of commands.
//!
//! Promise: what is not read to its end is unknown, with the reason; nothing is guessed. A command has at least one effect.

use std::collections::BTreeSet;

use interceptor_core::model::{
    Effect, Object, StatementFacts, Target,
    Verb::{self, DataDelete, DataInsert, DataRead, DataUpdate, FunctionCall, Notify, SessionChange},
};

use super::{
    table::{Course, Does, Known, Many, Rule, Thing, find},
    text::{Part, escaped},
};

/// How many things one command may do.
const MOST: usize = 1024;
/// The kind of a key, of a pattern of keys, of a channel, of a pattern of channels, of a database.
const KEY: &str = "key";
const KEYS: &str = "keys";
const CHANNEL: &str = "channel";
const CHANNELS: &str = "channels";
const DATABASE: &str = "database";

/// A command that was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) facts: StatementFacts,
    /// What each argument is.
    pub(super) parts: Vec<Part>,
    pub(super) course: Course,
    /// How many keys it may change.
    pub(super) changes: u64,
}

/// Why a command is unknown.
type Why = String;

struct Reader<'a> {
    arguments: &'a [&'a [u8]],
    effects: Vec<Effect>,
    seen: BTreeSet<Effect>,
    changed: BTreeSet<usize>,
    parts: Vec<Part>,
}

/// Reads a command, the first of whose arguments is its name.
pub(super) fn read(arguments: &[&[u8]]) -> Reading {
    let known = arguments.first().and_then(|first| find(first, arguments.get(1).copied()));
    let mut reader = Reader {
        arguments,
        effects: Vec::new(),
        seen: BTreeSet::new(),
        changed: BTreeSet::new(),
        parts: vec![Part::Value; arguments.len()],
    };
    let Some(known) = known else {
        let facts = StatementFacts::unknown("this command is not on the list of those that are known");
        return Reading { facts, parts: reader.parts, course: Course::Plain, changes: 0 };
    };
    reader.parts.iter_mut().take(known.words()).for_each(|part| *part = Part::Word);
    let all = known.family.does.iter().try_for_each(|does| reader.does(*does));
    reader.secrets(known);
    let facts = match (all, known.family.course) {
        (_, Course::Never(why)) => StatementFacts::unknown(format!("it is never sent, since {why}")),
        (Err(why), _) => StatementFacts::unknown(why),
        (Ok(()), _) if reader.effects.is_empty() => StatementFacts::unknown("what it does is not known"),
        (Ok(()), _) => {
            let first = StatementFacts::single(Verb::Unknown, Target::Resource);
            StatementFacts { effects: std::mem::take(&mut reader.effects), ..first }
        }
    };
    let changes = u64::try_from(reader.changed.len()).unwrap_or(u64::MAX);
    Reading { facts, parts: reader.parts, course: known.family.course, changes }
}

/// How a command stands in the list, for whoever holds the list against a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It is not there, or not read so, and refused.
    Unknown,
    /// What it does, and the arguments that are its keys.
    Known {
        /// Each thing that it does.
        effects: Vec<Effect>,
        /// The places of its keys, in order.
        keys: Vec<usize>,
    },
    /// It is answered or replaced, and never sent as it is.
    NotSent,
}

/// How a command with these arguments stands in the list.
pub fn listed(arguments: &[&[u8]]) -> Listed {
    let Reading { facts, parts, course, .. } = read(arguments);
    match course {
        Course::Never(_) | Course::Auth | Course::Quit => Listed::NotSent,
        _ if facts.unknown.is_some() => Listed::Unknown,
        _ => {
            let keys = parts.iter().enumerate().filter(|(_, part)| **part == Part::Name);
            Listed::Known { effects: facts.effects, keys: keys.map(|(place, _)| place).collect() }
        }
    }
}

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

fn other(kind: &str, name: &[u8]) -> Target {
    Target::Other { kind: kind.to_owned(), name: escaped(name) }
}

impl<'a> Reader<'a> {
    fn at(&self, place: usize) -> Result<&'a [u8], Why> {
        self.arguments.get(place).copied().ok_or_else(|| "it has too few arguments".to_owned())
    }

    fn add(&mut self, verb: Verb, target: Target) -> Result<(), Why> {
        let effect = Effect { verb, target };
        if self.seen.insert(effect.clone()) {
            self.effects.push(effect);
        }
        if self.effects.len() > MOST {
            return Err(format!("it does more than {MOST} things at once: send several that do less"));
        }
        Ok(())
    }

    fn key(&mut self, place: usize, verbs: &[Verb]) -> Result<(), Why> {
        let target = other(KEY, self.at(place)?);
        if let Some(part) = self.parts.get_mut(place) {
            *part = Part::Name;
        }
        if verbs.iter().any(|verb| [DataInsert, DataUpdate, DataDelete].contains(verb)) {
            self.changed.insert(place);
        }
        verbs.iter().try_for_each(|verb| self.add(*verb, target.clone()))
    }

    fn does(&mut self, does: Does) -> Result<(), Why> {
        match does {
            Does::Keys { verbs, first, last, step } => {
                let last = match usize::try_from(last) {
                    Ok(last) => last,
                    Err(_) => self.arguments.len().saturating_sub(last.unsigned_abs()),
                };
                // Only what is read besides a key that is there may be none.
                if first > last && self.effects.is_empty() {
                    return Err("it has too few arguments".to_owned());
                }
                (first..=last).step_by(step).try_for_each(|place| self.key(place, verbs))
            }
            Does::Counted { verbs, at } => {
                let count = self.number(at)?;
                let first = at.saturating_add(1);
                let behind = first.saturating_add(count);
                if behind > self.arguments.len() {
                    return Err("it has fewer keys than it says".to_owned());
                }
                (first..behind).try_for_each(|place| self.key(place, verbs))
            }
            Does::On { verb, thing } => {
                let target = match thing {
                    Thing::Resource => Target::Resource,
                    Thing::AllKeys => other(KEYS, b"*"),
                    Thing::Setting(name) => Target::Setting(name.to_owned()),
                };
                self.add(verb, target)
            }
            Does::By(rule) => self.by(rule),
        }
    }

    /// A number as everybody writes it: what could be read in two ways is not read.
    fn number(&self, place: usize) -> Result<usize, Why> {
        let text = std::str::from_utf8(self.at(place)?).ok();
        let number =
            text.and_then(|text| text.parse::<usize>().ok().filter(|number| number.to_string() == text));
        number.ok_or_else(|| format!("its argument {place} should be a plain number"))
    }

    fn by(&mut self, rule: Rule) -> Result<(), Why> {
        let count = self.arguments.len();
        match rule {
            Rule::Set => {
                let options = self.arguments.get(3..).unwrap_or_default();
                if options.iter().any(|option| is(option, "get")) {
                    self.key(1, &[DataRead])?;
                }
                Ok(())
            }
            Rule::Xadd => {
                let options = self.arguments.get(2..count.min(5)).unwrap_or_default();
                if options.iter().any(|option| is(option, "maxlen") || is(option, "minid")) {
                    self.key(1, &[DataDelete])?;
                }
                Ok(())
            }
            Rule::Geo { from } => {
                let stores = |place: &usize| {
                    self.at(*place).is_ok_and(|word| is(word, "store") || is(word, "storedist"))
                };
                let places: Vec<usize> = (from..count).filter(stores).collect();
                let store = [DataInsert, DataUpdate, DataDelete];
                places.into_iter().try_for_each(|place| self.key(place.saturating_add(1), &store))
            }
            Rule::Sort => self.sort(),
            Rule::Xread => self.streams(1, &[DataRead]),
            Rule::Xreadgroup => {
                if !is(self.at(1)?, "group") {
                    return Err("GROUP should be its first argument".to_owned());
                }
                self.streams(4, &[DataRead, DataUpdate])
            }
            Rule::Migrate => self.migrate(),
            Rule::Channels { verbs } => {
                let (kind, last) = match verbs {
                    Many::One => (CHANNEL, 2),
                    Many::All => (CHANNEL, count),
                    Many::Patterns => (CHANNELS, count),
                };
                self.at(1)?;
                (1..last).try_for_each(|place| {
                    let target = other(kind, self.at(place)?);
                    if let Some(part) = self.parts.get_mut(place) {
                        *part = Part::Name;
                    }
                    self.add(Notify, target)
                })
            }
            Rule::KeysPattern => {
                let target = other(KEYS, self.at(1)?);
                self.add(DataRead, target)
            }
            Rule::Scan => self.scan(),
            Rule::Select => {
                let target = other(DATABASE, self.at(1)?);
                self.add(SessionChange, target)
            }
            Rule::Fcall => {
                let name = escaped(self.at(1)?);
                let object = Object { database: String::new(), schema: String::new(), name, oid: None };
                self.add(FunctionCall, Target::Function(object))
            }
        }
    }

    fn scan(&mut self) -> Result<(), Why> {
        self.at(1)?;
        let mut pattern: &[u8] = b"*";
        let mut place = 2;
        while let Ok(word) = self.at(place) {
            let value = self.at(place.saturating_add(1))?;
            if is(word, "match") {
                pattern = value;
            } else if !is(word, "count") && !is(word, "type") {
                return Err(format!("its argument {place} is no option that is known"));
            }
            place = place.saturating_add(2);
        }
        self.add(DataRead, other(KEYS, pattern))
    }

    fn sort(&mut self) -> Result<(), Why> {
        let mut place = 2;
        while let Ok(word) = self.at(place) {
            let next = place.saturating_add(1);
            let taken = if ["asc", "desc", "alpha"].iter().any(|known| is(word, known)) {
                1
            } else if is(word, "limit") {
                3
            } else if is(word, "by") || is(word, "get") {
                let pattern = self.at(next)?;
                // Without a star it is no pattern of other keys.
                if pattern.contains(&b'*') {
                    self.add(DataRead, other(KEYS, pattern))?;
                }
                2
            } else if is(word, "store") {
                self.key(next, &[DataInsert, DataUpdate, DataDelete])?;
                2
            } else {
                return Err(format!("its argument {place} is no option that is known"));
            };
            place = place.saturating_add(taken);
        }
        Ok(())
    }

    /// Options from `place` on, then STREAMS, keys, and as many ids.
    fn streams(&mut self, mut place: usize, verbs: &[Verb]) -> Result<(), Why> {
        loop {
            let word = self.at(place)?;
            let taken = if is(word, "streams") {
                break;
            } else if is(word, "noack") {
                1
            } else if is(word, "count") || is(word, "block") {
                2
            } else {
                return Err(format!("its argument {place} is no option that is known"));
            };
            place = place.saturating_add(taken);
        }
        let first = place.saturating_add(1);
        let both = self.arguments.len().saturating_sub(first);
        if both == 0 || !both.is_multiple_of(2) {
            return Err("it should have as many ids as keys".to_owned());
        }
        (first..first.saturating_add(both / 2)).try_for_each(|place| self.key(place, verbs))
    }

    fn migrate(&mut self) -> Result<(), Why> {
        let (mut copies, mut keys) = (false, None);
        let mut place = 6;
        while let Ok(word) = self.at(place) {
            let taken = if is(word, "copy") {
                copies = true;
                1
            } else if is(word, "replace") {
                1
            } else if is(word, "auth") {
                2
            } else if is(word, "auth2") {
                3
            } else if is(word, "keys") {
                keys = Some(place.saturating_add(1));
                break;
            } else {
                return Err(format!("its argument {place} is no option that is known"));
            };
            let behind = place.saturating_add(taken);
            if behind > self.arguments.len() {
                return Err("it has too few arguments".to_owned());
            }
            place = behind;
        }
        let verbs: &[Verb] = if copies { &[DataRead] } else { &[DataRead, DataDelete] };
        match (keys, self.at(3)?.is_empty()) {
            (None, false) => self.key(3, verbs),
            (Some(first), true) if first < self.arguments.len() => {
                (first..self.arguments.len()).try_for_each(|place| self.key(place, verbs))
            }
            _ => Err("it should have one key, or an empty one and KEYS".to_owned()),
        }
    }

    /// Marks the passwords among the arguments. It errs on their side.
    fn secrets(&mut self, known: Known) {
        let count = self.arguments.len();
        let named = |word: &[u8], names: &[&str]| names.iter().any(|name| is(word, name));
        let mut secret: Vec<usize> = Vec::new();
        match known.name {
            "auth" => secret.extend(1..count),
            "hello" | "migrate" => {
                for (place, word) in self.arguments.iter().enumerate() {
                    if named(word, &["auth", "auth2"]) {
                        secret.extend([1, 2].map(|more| place.saturating_add(more)));
                    }
                }
            }
            "acl setuser" => {
                let marks = |word: &[u8]| word.first().is_some_and(|mark| b"><#!".contains(mark));
                secret.extend((2..count).filter(|place| self.at(*place).is_ok_and(marks)));
            }
            "config set" => {
                let carries = |word: &[u8]| {
                    let lower = word.to_ascii_lowercase();
                    [&b"pass"[..], b"auth", b"user"]
                        .iter()
                        .any(|part| lower.windows(part.len()).any(|w| w == *part))
                };
                let places = (2..count).step_by(2).filter(|place| self.at(*place).is_ok_and(carries));
                secret.extend(places.map(|place| place.saturating_add(1)));
            }
            _ => {}
        }
        for place in secret {
            if let Some(part) = self.parts.get_mut(place) {
                *part = Part::Secret;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::text, *};

    fn reading(line: &str) -> (Reading, String) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let reading = read(&words);
        let text = text::command(reading.parts.iter().copied().zip(words), None);
        (reading, text)
    }

    /// Effects as `verb kind:name`.
    fn effects(line: &str) -> Vec<String> {
        let (reading, _) = reading(line);
        let shown = |effect: &Effect| {
            let target = match &effect.target {
                Target::Other { kind, name } => format!(" {kind}:{name}"),
                Target::Setting(name) => format!(" setting:{name}"),
                Target::Function(object) => format!(" function:{}", object.name),
                _ => String::new(),
            };
            format!("{}{target}", effect.verb.as_str())
        };
        reading.facts.effects.iter().map(shown).collect()
    }

    #[test]
    fn keys_are_found_where_the_arguments_say() {
        for (line, expected) in [
            ("GET a", &["data.read key:a"][..]),
            ("SET a b", &["data.insert key:a", "data.update key:a"]),
            ("SET a b GET", &["data.insert key:a", "data.update key:a", "data.read key:a"]),
            (
                "MSET a 1 b 2",
                &["data.insert key:a", "data.update key:a", "data.insert key:b", "data.update key:b"],
            ),
            ("DEL a b a", &["data.delete key:a", "data.delete key:b"]),
            (
                "BLPOP a b 0",
                &["data.read key:a", "data.delete key:a", "data.read key:b", "data.delete key:b"],
            ),
            ("ZUNION 2 a b WEIGHTS 1 2", &["data.read key:a", "data.read key:b"]),
            ("EVAL_RO x 1 a b", &["function.call", "data.read key:a"]),
            ("FCALL_RO f 0", &["function.call function:f"]),
            (
                "SORT a BY w_* GET # STORE c",
                &[
                    "data.read key:a",
                    "data.read keys:w_*",
                    "data.insert key:c",
                    "data.update key:c",
                    "data.delete key:c",
                ],
            ),
            ("XREAD COUNT 1 STREAMS a b 0 0", &["data.read key:a", "data.read key:b"]),
            ("KEYS users:*", &["data.read keys:users:*"]),
            ("SCAN 0", &["data.read keys:*"]),
            ("SCAN 0 COUNT 5 MATCH x*", &["data.read keys:x*"]),
            ("PUBLISH c m", &["notify channel:c"]),
            ("PSUBSCRIBE a* b*", &["notify channels:a*", "notify channels:b*"]),
            ("MIGRATE h 1 k 0 5", &["server.reach", "data.read key:k", "data.delete key:k"]),
            (
                "MIGRATE h 1  0 5 COPY AUTH s KEYS a b",
                &["server.reach", "data.read key:a", "data.read key:b"],
            ),
            ("SELECT 3", &["session.change database:3"]),
            ("FLUSHALL", &["data.truncate keys:*"]),
            ("PING", &["data.read"]),
            ("CONFIG SET a b", &["access.change"]),
            ("PFMERGE a", &["data.read key:a", "data.insert key:a", "data.update key:a"]),
        ] {
            assert_eq!(effects(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_read_to_its_end_is_unknown() {
        for line in [
            "NONSENSE a",
            "GET",
            "DEL",
            "ZUNION 02 a b",
            "ZUNION 9 a",
            "EVAL x -1",
            "XREAD a STREAMS b 0",
            "XREAD STREAMS a",
            "SORT a NONSENSE",
            "SCAN 0 MATCH",
            "MIGRATE h 1 k 0 5 KEYS a",
            "MIGRATE h 1 k 0 5 AUTH",
            "MONITOR",
            "CLIENT REPLY OFF",
            "RESET",
            "CONFIG NONSENSE",
            "PUBLISH",
        ] {
            let (reading, _) = reading(line);
            assert!(reading.facts.unknown.is_some(), "{line}: {:?}", reading.facts);
            assert!(reading.facts.effects.iter().any(|effect| effect.verb == Verb::Unknown), "{line}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (line, shown) in [
            ("AUTH u p", "AUTH *** ***"),
            ("HELLO 3 AUTH u p SETNAME n", "HELLO '3' 'AUTH' *** *** 'SETNAME' 'n'"),
            ("ACL SETUSER u on >p ~*", "ACL SETUSER 'u' 'on' *** '~*'"),
            ("CONFIG SET requirepass p maxmemory 1", "CONFIG SET 'requirepass' *** 'maxmemory' '1'"),
            ("MIGRATE h 1 k 0 5 AUTH2 u p", "MIGRATE 'h' '1' \"k\" '0' '5' 'AUTH2' *** ***"),
        ] {
            assert_eq!(reading(line).1, shown);
        }
    }

    #[test]
    fn a_command_that_does_too_much_is_unknown() {
        let line = format!("DEL {}", (0..2000).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
        assert!(reading(&line).0.facts.unknown.is_some());
    }

    #[test]
    fn written_keys_are_counted() {
        for (line, changes) in
            [("SET a b", 1), ("MSET a 1 b 2", 2), ("GET a", 0), ("LMOVE a b LEFT RIGHT", 2)]
        {
            assert_eq!(reading(line).0.changes, changes, "{line}");
        }
    }
}
