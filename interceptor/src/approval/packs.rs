//! Undo packs as the proxy meets them: given to whoever keeps them, in parts that fit a message, and had back.
//!
//! Promise: a pack that was given is on disk, whole, before the gate goes on.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use interceptor_core::{
    model::RecordId,
    undo::{Packed, Undo, UndoRecord},
};

use crate::{
    keeper::{
        client::{AskError, KeeperClient},
        messages::{Answer as KeeperAnswer, Ask},
    },
    store::packs::{Answer, Question},
};

/// How much of a pack goes with one message, in bytes: escaped once more it is at most twice as long.
const PART: usize = 48 << 10;

/// Keeps packs. A seam: the keeper's process, or in tests the packs themselves.
pub trait Shelf: Send + Sync {
    /// Answers a question; or says, for the operator, why it cannot.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>>;
}

impl Shelf for KeeperClient {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            match KeeperClient::ask(self, Ask::Pack(question)).await {
                Ok(KeeperAnswer::Pack(answer)) => Ok(answer),
                Ok(_) => Err(AskError::Mixed.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// A pack that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPack {
    /// The pack, and whose it is.
    pub undo: Undo,
    /// Who has used it.
    pub used: Option<String>,
}

/// All packs.
#[derive(Clone)]
pub struct Packs(Arc<dyn Shelf>);

impl fmt::Debug for Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packs").finish_non_exhaustive()
    }
}

impl Packs {
    /// Those that `shelf` keeps.
    pub fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self(shelf)
    }

    /// Keeps the pack of a record. The error is for the operator.
    pub async fn keep(&self, record: RecordId, packed: &Packed) -> Result<(), String> {
        let mut rest = std::str::from_utf8(&packed.json).map_err(|error| error.to_string())?;
        let mut place = 0;
        while !rest.is_empty() {
            let (text, more) = rest.split_at(rest.floor_char_boundary(PART));
            self.done(Question::Part { record, place, text: text.to_owned() }).await?;
            place += 1;
            rest = more;
        }
        self.done(Question::Whole { record, is: packed.record.clone() }).await
    }

    /// The pack of a record.
    pub async fn find(&self, record: RecordId) -> Result<KeptPack, String> {
        let (parts, is, used) = match self.0.ask(Question::Look(record)).await? {
            Answer::Kept { parts, is, used } => (parts, is, used),
            other => return Err(odd(other)),
        };
        let mut json = String::new();
        for place in 0..parts {
            match self.0.ask(Question::Read { record, place }).await? {
                Answer::Text(text) => json.push_str(&text),
                other => return Err(odd(other)),
            }
        }
        let undo: Undo = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        match undo.packed() {
            Ok(Packed { record: UndoRecord { sha256, .. }, .. }) if sha256 == is.sha256 => {
                Ok(KeptPack { undo, used })
            }
            _ => Err(format!("the pack of record {record} is damaged")),
        }
    }

    /// The pack of a record is about to be used, once.
    pub async fn use_up(&self, record: RecordId, by: String) -> Result<(), String> {
        self.done(Question::Use { record, by }).await
    }

    async fn done(&self, question: Question) -> Result<(), String> {
        match self.0.ask(question).await? {
            Answer::Done => Ok(()),
            other => Err(odd(other)),
        }
    }
}

fn odd(answer: Answer) -> String {
    match answer {
        Answer::No(why) => why,
        Answer::Done | Answer::Kept { .. } | Answer::Text(_) => AskError::Mixed.to_string(),
    }
}
