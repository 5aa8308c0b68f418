//! The record held against the server's own log: every statement that the server began to carry out has exactly one
//! record, and what is recorded as completed was carried out.

use std::collections::{BTreeMap, BTreeSet};

use interceptor_core::sql;
use interceptor_tests::{Exchange, Records};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the comparison came to.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// How many statements of the agent's the server logged; a Query message counts as one.
    pub(crate) logged: usize,
    /// How many of them are recorded.
    pub(crate) recorded: usize,
    /// Statements that the server saw more often than the record says, with both counts.
    pub(crate) missing: Vec<String>,
    /// Statements that the record says were completed more often than the server saw them, with both counts.
    pub(crate) unseen: Vec<String>,
    /// The gate's own statements: logged, and recorded.
    pub(crate) own: (usize, usize),
}

/// What a statement is known by on both sides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A Query message, by its digest: a text with a password in it is not recorded as it was.
    Query(String),
    /// A Query message that was not in UTF-8, by what is the same in its text here and in the server's.
    Foreign(String),
    /// An Execute, by its text as it may be recorded.
    Execute(String),
    /// A FunctionCall.
    Call,
}

#[derive(Debug, Default)]
struct Counts {
    logged: usize,
    sent: usize,
    completed: usize,
    text: String,
}

impl Account {
    /// Holds `records` against `log`, the server's log in JSON.
    pub(crate) fn of(log: &str, records: &Records) -> Self {
        let mut account = Self::default();
        let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
        account.own.1 = records.0.iter().filter(|exchange| exchange.is_gates_own()).count();
        for exchange in records.agents().filter(|exchange| exchange.allowed()) {
            let Some(key) = recorded(exchange) else { continue };
            let entry = counts.entry(key).or_default();
            entry.sent += 1;
            entry.completed += usize::from(exchange.status() == "completed");
            exchange.statement().clone_into(&mut entry.text);
        }
        for (key, text) in log.lines().filter_map(logged) {
            if text.starts_with("/* interceptor:") {
                account.own.0 += 1;
                continue;
            }
            // Logged is what the server made of it, in UTF-8.
            let known = text.is_ascii() || !matches!(key, Key::Query(_)) || counts.contains_key(&key);
            let key = if known { key } else { Key::Foreign(the_same(&text)) };
            let entry = counts.entry(key).or_default();
            entry.logged += 1;
            entry.text = text;
        }
        for Counts { logged, sent, completed, text } in counts.values() {
            account.logged += logged;
            account.recorded += logged.min(sent);
            if logged > sent {
                account.missing.push(format!("logged {logged} times, recorded {sent}: {}", brief(text)));
            }
            if completed > logged {
                let text = brief(text);
                account.unseen.push(format!("completed {completed} times, logged {logged}: {text}"));
            }
        }
        account
    }

    /// Whether record and log agree.
    pub(crate) fn agrees(&self) -> bool {
        self.missing.is_empty() && self.unseen.is_empty() && self.own.0 <= self.own.1
    }
}

/// The beginning of a text.
fn brief(text: &str) -> &str {
    const MOST: usize = 200;
    text.char_indices().nth(MOST).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// The statement that a line of the log says was begun for a client over TCP.
fn logged(line: &str) -> Option<(Key, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line.get("remote_host")?.as_str()? != "127.0.0.1" {
        return None;
    }
    let message = line.get("message")?.as_str()?;
    let (kind, text) =
        message.split_once(": ").or_else(|| message.strip_suffix(':').map(|kind| (kind, "")))?;
    let key = match kind {
        "statement" => {
            let mut frame = vec![b'Q'];
            frame.extend_from_slice(&u32::try_from(text.len() + 5).ok()?.to_be_bytes());
            frame.extend_from_slice(text.as_bytes());
            frame.push(0);
            Key::Query(hex::encode(Sha256::digest(&frame)))
        }
        _ if kind.starts_with("execute ") => Key::Execute(sql::redact(bare(text)).into_owned()),
        "fastpath function call" => Key::Call,
        _ => return None,
    };
    Some((key, text.to_owned()))
}

/// What is recorded of a statement is without the semicolon behind it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c == ';' || c.is_whitespace())
}

/// What every encoding has.
fn the_same(text: &str) -> String {
    bare(text).chars().filter(char::is_ascii).collect()
}

/// What a record says was sent; the first of a Query message's statements stands for all. The server logs no Execute of
/// an empty statement.
fn recorded(exchange: &Exchange) -> Option<Key> {
    let text = exchange.statement();
    match exchange.phase() {
        "query" if exchange.at("/request/place/0") != 0 => None,
        "query" if text.contains(char::REPLACEMENT_CHARACTER) => Some(Key::Foreign(the_same(text))),
        "query" => Some(Key::Query(exchange.at("/request/frame_sha256").as_str()?.to_owned())),
        "execute" if !text.is_empty() => Some(Key::Execute(text.to_owned())),
        "execute" if exchange.at("/request/action/facts/kind") != "empty" => Some(Key::Call),
        _ => None,
    }
}

/// The hashes of the texts that observing let through though nobody understood them: as the record names them, in the
/// rules that would have permitted these texts. The texts themselves may be recorded without their secrets, or cut.
pub(crate) fn unread(records: &Records) -> BTreeSet<String> {
    let reasons = records.agents().filter_map(|exchange| exchange.at("/request/verdict/reason").as_str());
    let named = reasons.flat_map(|reason| reason.split("context.sha256 == \"").skip(1));
    named.filter_map(|rest| rest.split_once('"')).map(|(hash, _)| hash.to_owned()).collect()
}
