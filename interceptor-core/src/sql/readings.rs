//! What texts mean, kept by their shape, so that a text which differs from an earlier one in plain literals alone is
//! not parsed again.
//!
//! Promise: kept is only the meaning of texts with one statement, of kinds whose reading looks at no literal's value;
//! it is the same that [`analyze`] tells. No text is kept, and no literal. Where there is somebody to give a second opinion,
//! a text that is read goes there too, and one that the two do not agree on means nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use smallvec::smallvec;

use super::{
    Meaning, Name, Reference, SecondOpinion, Statement, Statements, analyze, compare,
    shape::{self, Key, Keys},
};
use crate::model::{StatementKind, Unknown};

/// How much one half of what is kept weighs at most, by a rough count of its bytes.
const HALF: usize = 1 << 20;

/// Meanings by shape; any number of sessions may share them.
#[derive(Debug, Default)]
pub struct Readings {
    keys: Keys,
    kept: Mutex<Kept>,
    second: OnceLock<Box<dyn SecondOpinion>>,
}

/// Somebody is asked for a second opinion already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("somebody is asked for a second opinion already")]
pub struct AskedAlready;

/// The half that is being filled, and the one that was filled before it. What is asked for moves to the former, so
/// that what nobody asks for is forgotten.
#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Key, Arc<Meaning>>,
    old: HashMap<Key, Arc<Meaning>>,
    weight: usize,
}

impl Readings {
    /// From now on `second` is asked for an opinion of what is read; once for all.
    pub fn ask_also(&self, second: Box<dyn SecondOpinion>) -> Result<(), AskedAlready> {
        self.second.set(second).map_err(|_| AskedAlready)
    }

    /// The same as [`analyze`], which is not asked where a text of this shape has been read.
    pub fn analyze(&self, text: &str) -> Result<Statements, Unknown> {
        let Some((key, range)) = shape::of(text, &self.keys) else { return self.read(text) };
        if let Some(meaning) = self.kept().find(key) {
            return Ok(smallvec![Statement { range, meaning }]);
        }
        let statements = self.read(text)?;
        if let [statement] = statements.as_slice()
            && ignores_literals(statement)
        {
            self.kept().keep(key, statement.meaning.clone());
        }
        Ok(statements)
    }

    fn read(&self, text: &str) -> Result<Statements, Unknown> {
        let statements = analyze(text)?;
        if let Some(second) = self.second.get() {
            let opinion = second.of(text).map_err(|why| Unknown(format!("no second opinion: {why}")))?;
            compare(&statements, &opinion)
                .map_err(|why| Unknown(format!("the second opinion differs: {why}")))?;
        }
        Ok(statements)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, key: Key) -> Option<Arc<Meaning>> {
        if let Some(meaning) = self.young.get(&key) {
            return Some(meaning.clone());
        }
        let meaning = self.old.remove(&key)?;
        self.keep(key, meaning.clone());
        Some(meaning)
    }

    fn keep(&mut self, key: Key, meaning: Arc<Meaning>) {
        let weight = weight(&meaning);
        if self.weight.saturating_add(weight) > HALF {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if self.young.insert(key, meaning).is_none() {
            self.weight = self.weight.saturating_add(weight);
        }
    }
}

/// Whether nothing that is told of a statement hangs on the value of a literal in it. Names in literals
/// (`set_config`), texts in literals (`PREPARE`, `DO`) and reasons that quote what was not understood do.
fn ignores_literals(meaning: &Meaning) -> bool {
    let kind = matches!(
        meaning.kind,
        StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::Explain
            | StatementKind::Execute
            | StatementKind::Declare
            | StatementKind::Fetch
            | StatementKind::Close
            | StatementKind::Deallocate
            | StatementKind::Show
            | StatementKind::Transaction
    );
    let names = |(_, reference): &(_, Reference)| matches!(reference, Reference::SetConfig { .. });
    kind && meaning.unknown.is_none() && !meaning.effects.iter().any(names)
}

fn weight(meaning: &Meaning) -> usize {
    /// Of an effect, and of a meaning with its places in the maps.
    const EACH: usize = 160;
    let of_name = |name: &Name| name.name.len().saturating_add(name.schema.as_ref().map_or(0, String::len));
    let of_reference = |reference: &Reference| match reference {
        Reference::Resource => 0,
        Reference::Relation(name)
        | Reference::Alone(name)
        | Reference::NewRelation(name)
        | Reference::Function(name) => of_name(name),
        Reference::SetConfig { function, setting, value } => [setting, value]
            .into_iter()
            .flatten()
            .map(String::len)
            .fold(of_name(function), usize::saturating_add),
        Reference::Attribute(name) | Reference::Setting(name) => name.len(),
        Reference::Other { kind, name } => kind.len().saturating_add(name.len()),
    };
    let effects = meaning.effects.iter().map(|(_, reference)| of_reference(reference).saturating_add(EACH));
    let operators = meaning.operators.iter().map(|_| EACH / 4);
    effects.chain(operators).fold(EACH, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Opinion, Told};

    #[test]
    fn a_text_of_a_known_shape_means_the_same() {
        let readings = Readings::default();
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
            "  SELECT abalance FROM pgbench_accounts WHERE aid = 22 -- x",
            "UPDATE t SET a = 'x' WHERE b = 1.5",
            "UPDATE t SET a = 'yy' WHERE b = 2.25",
            "FETCH 10 FROM c",
            "FETCH 11 FROM c ;",
        ] {
            assert_eq!(readings.analyze(text), analyze(text), "{text}");
        }
        assert_eq!(readings.kept().young.len(), 3);
    }

    #[test]
    fn what_hangs_on_literals_is_not_kept() {
        let readings = Readings::default();
        for text in [
            "PREPARE p AS SELECT 'x'",
            "SELECT set_config('x', '1', false)",
            "DO 'x'",
            "SET search_path TO 'x'",
            "COPY t TO 'x'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'x'",
            "ALTER ROLE r PASSWORD 'x'",
            "SELECT 1; SELECT 2",
            "SELECT (",
        ] {
            let _ = readings.analyze(text);
        }
        assert!(readings.kept().young.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let readings = Readings::default();
        let used = "SELECT * FROM used WHERE a = 1";
        let first = readings.analyze(used).expect("it can be read")[0].meaning.clone();
        for round in 0..20_000 {
            let _ = readings.analyze(&format!("SELECT * FROM t{round}"));
            if round % 100 == 0 {
                let now = readings.analyze(used).expect("it can be read")[0].meaning.clone();
                assert!(Arc::ptr_eq(&now, &first), "it was read again");
            }
        }
        let kept = readings.kept();
        let all = kept.young.values().chain(kept.old.values()).map(|meaning| weight(meaning)).sum::<usize>();
        assert!(all <= 2 * HALF);
    }

    /// It says that every text is one SELECT from nothing, but for one which it has nothing to say of.
    #[derive(Debug)]
    struct Selects;

    impl SecondOpinion for Selects {
        fn of(&self, text: &str) -> Result<Opinion, String> {
            let told = Told { kind: "SelectStmt".to_owned(), ..Told::default() };
            if text.contains("nothing") {
                Err("it fell over".to_owned())
            } else {
                Ok(Opinion::Read(vec![told]))
            }
        }
    }

    #[test]
    fn what_the_second_opinion_differs_on_means_nothing() {
        let readings = Readings::default();
        readings.ask_also(Box::new(Selects)).expect("the first");
        assert_eq!(readings.ask_also(Box::new(Selects)), Err(AskedAlready));
        assert!(readings.analyze("SELECT 1 FROM t").is_ok());
        for (text, why) in [
            ("DELETE FROM t", "the second opinion differs: it reads SelectStmt, not Delete"),
            ("SELECT 1 FROM t; SELECT 2", "the second opinion differs: it reads 1 statements, not 2"),
            ("SELECT 1 FROM nothing", "no second opinion: it fell over"),
        ] {
            assert_eq!(readings.analyze(text), Err(Unknown(why.to_owned())), "{text}");
        }
        assert_eq!(readings.kept().young.len(), 1, "it is not kept either");
    }
}
