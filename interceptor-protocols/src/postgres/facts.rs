//! The one place where this protocol asks `core` what a text means, and reads what `core` does not tell: the names
//! of cursors.

use std::sync::{Arc, LazyLock};

use interceptor_core::{
    mask::{Compared, LabelSet, Labels, Provenance},
    model::{Action, Effect, StatementFacts, StatementKind, Target, Unknown, Verb},
    sql::{self, Answer, AskedAlready, Question, Readings, SecondOpinion, Statement, Statements},
};

/// What texts of all sessions were read to mean.
static READINGS: LazyLock<Readings> = LazyLock::new(Readings::default);

/// From now on `second` is asked, too, for what a new text means; once in a process.
pub fn ask_also(second: Box<dyn SecondOpinion>) -> Result<(), AskedAlready> {
    READINGS.ask_also(second)
}

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Statements, Unknown> {
    READINGS.analyze(text)
}

/// What must be looked up for these.
pub(super) fn question(statements: &[Statement]) -> Question {
    sql::question(statements)
}

/// Whether these need the catalogue at all, be it only for the search path.
pub(super) fn needs_catalogue(statements: &[Statement]) -> bool {
    statements.iter().any(sql::needs_answer)
}

/// What one statement does, to data with these labels.
pub(super) fn facts(statement: &Statement, answer: &Answer, labels: &Labels) -> StatementFacts {
    let mut facts = sql::facts(statement, answer);
    sql::trace(statement, answer, labels, &mut facts);
    facts
}

/// What must be looked up for a call of the function with this number.
pub(super) fn calling(number: u32) -> Question {
    sql::calling(number)
}

/// What such a call does, and the types of its parameters as far as they are known.
pub(super) fn called<'a>(number: u32, database: &str, answer: &'a Answer) -> (StatementFacts, &'a [u32]) {
    (sql::called(number, database, answer), sql::parameters(number, answer))
}

/// Where the result of such a call comes from, in a resource with these labels: nothing is known of it, unless all that
/// it does is to compute, or to read large objects.
pub(super) fn of_call(facts: &StatementFacts, labels: &Labels) -> Option<Arc<Provenance>> {
    let is_plain = |effect: &Effect| match (effect.verb, &effect.target) {
        (Verb::DataRead, Target::Resource) => true,
        (Verb::FunctionCall, Target::Function(function)) => {
            function.schema == "pg_catalog" && function.name.starts_with("lo")
        }
        _ => false,
    };
    let plain = facts.unknown.is_none() && facts.effects.iter().all(is_plain);
    let provenance = if plain { Provenance::clean() } else { Provenance::default() };
    (!labels.is_empty()).then(|| Arc::new(provenance))
}

/// Adds to what opens a session which nobody looks at that all of these labels' data may leave by it.
pub(super) fn unwatched(action: &mut Action, labels: &Labels) {
    let mut facts = (*action.facts).clone();
    let effect = |verb, name: &str| Effect { verb, target: Target::Label(name.to_owned()) };
    let effects = labels
        .iter()
        .flat_map(|label| [effect(Verb::LabelCopy, &label.name), effect(Verb::See, &label.name)]);
    facts.effects.extend(effects);
    action.facts = Arc::new(facts);
}

/// What a statement does that runs another, whose facts are `inner`, by that answer of the catalogue.
pub(super) fn running(
    own: StatementFacts,
    inner: StatementFacts,
    answer: Option<&Answer>,
    labels: &Labels,
) -> StatementFacts {
    let own_provenance = own.provenance.clone();
    let handed = |effect: &Effect| match (effect.verb, &effect.target) {
        (Verb::LabelCopy, Target::Label(name)) => labels.place(name),
        _ => None,
    };
    let handed: LabelSet = own.effects.iter().filter_map(handed).collect();
    let on = match answer {
        Some(answer) if !handed.is_empty() => sql::handed_on(&inner, answer, handed),
        _ => Vec::new(),
    };
    let mut facts = sql::executed(own, Some(inner));
    if let (Some(own), Some(inner)) = (own_provenance, &facts.provenance) {
        let carried = own.carried.iter().chain(&inner.carried).chain(&on).cloned().collect();
        // What stands in another text is compared there.
        let compared = Compared::default();
        facts.provenance = Some(Arc::new(Provenance { carried, compared, ..(**inner).clone() }));
    }
    facts
}

/// The cursor that DECLARE, FETCH, MOVE or CLOSE names, folded; `None` where it cannot be read for sure, and for
/// CLOSE ALL.
pub(super) fn cursor(kind: StatementKind, text: &str) -> Option<String> {
    match kind {
        StatementKind::Declare => words(text)?.get(1).cloned(),
        // FETCH and MOVE end with the name, whatever stands before it.
        StatementKind::Fetch => words(text).filter(|words| words.len() > 1)?.pop(),
        StatementKind::Close => words(text).filter(|words| words.len() == 2)?.pop(),
        _ => None,
    }
}

/// The words of a text up to the first thing that is neither a name, a number nor a sign, without its comments.
fn words(text: &str) -> Option<Vec<String>> {
    /// Enough for every form of the four statements.
    const MAX_WORDS: usize = 12;
    let mut rest = text;
    let mut words = Vec::new();
    loop {
        rest = skip_blank(rest)?;
        let Some(first) = rest.chars().next() else { return Some(words) };
        if words.len() >= MAX_WORDS {
            // A DECLARE is as long as its query; its name stands at the beginning.
            words.push(String::new());
            return Some(words);
        }
        let length = match first {
            '"' => quoted(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len())
            }
            c if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            '+' | '-' => 1,
            // Something else: only the words before it are told, and none of them is the last.
            _ => {
                words.push(String::new());
                return Some(words);
            }
        };
        let (word, after) = rest.split_at_checked(length)?;
        if word.eq_ignore_ascii_case("u") && after.starts_with('&') {
            return None;
        }
        words.push(match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            // How other letters fold hangs on the server's locale.
            None if word.is_ascii() => word.to_ascii_lowercase(),
            None => return None,
        });
        rest = after;
    }
}

fn quoted(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '"' && chars.next_if(|(_, next)| *next == '"').is_none() {
            return at.checked_add(1);
        }
    }
    None
}

fn skip_blank(mut text: &str) -> Option<&str> {
    loop {
        let trimmed = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        text = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or_default()
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            block_comment(comment)?
        } else {
            return Some(trimmed);
        };
    }
}

/// What stands behind a comment whose beginning has been taken; comments nest.
fn block_comment(mut text: &str) -> Option<&str> {
    let mut depth = 1_usize;
    while depth > 0 {
        let at = text.find(['*', '/'])?;
        text = text.get(at..)?;
        if let Some(rest) = text.strip_prefix("*/") {
            depth = depth.checked_sub(1)?;
            text = rest;
        } else if let Some(rest) = text.strip_prefix("/*") {
            depth = depth.checked_add(1)?;
            text = rest;
        } else {
            text = text.get(1..)?;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_named_by_their_place() {
        let name = |kind, text| cursor(kind, text);
        assert_eq!(name(StatementKind::Declare, "DECLARE C CURSOR FOR SELECT ';'").as_deref(), Some("c"));
        assert_eq!(
            name(StatementKind::Declare, "/* a /* b */ */ declare \"A\"\"b\" cursor").as_deref(),
            Some("A\"b")
        );
        assert_eq!(name(StatementKind::Fetch, "FETCH ALL FROM c -- x").as_deref(), Some("c"));
        assert_eq!(name(StatementKind::Fetch, "move relative -3 c").as_deref(), Some("c"));
        assert_eq!(name(StatementKind::Fetch, "FETCH 99999999999 FROM c").as_deref(), Some("c"));
        assert_eq!(name(StatementKind::Fetch, "FETCH - - - - - - - - - - - 1 FROM c").as_deref(), Some(""));
        assert_eq!(name(StatementKind::Close, "close c").as_deref(), Some("c"));
        assert_eq!(name(StatementKind::Fetch, "FETCH U&\"\\0063\""), None);
        assert_eq!(name(StatementKind::Fetch, "FETCH FROM /* c"), None);
    }
}
