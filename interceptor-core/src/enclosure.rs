//! Enclosure: an exchange that may go only within terms, which are held before what it does lasts.
//!
//! The gate names the [`Terms`]; the protocol carries its own exchanges around the client's, looks at what came of it,
//! and lets it last or takes it back. Promise: an exchange for which there are terms is sent as it is only where its
//! protocol says that it is enclosed in them. Nothing here knows how a protocol does that.

use std::{borrow::Cow, sync::Arc};

use crate::{
    model::{StatementFacts, StatementKind, Verb},
    permit::Denial,
    undo::Pack,
};

/// What an exchange must keep to before it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The most rows that it may change, or return.
    pub rows: Option<u64>,
    /// The most rows that it may change because images of them are taken before.
    pub undo: Option<u64>,
}

impl Terms {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether an exchange can be enclosed where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enclosure {
    /// It cannot: why, and what to do, in words for the agent.
    Impossible(Cow<'static, str>),
    /// It can, when it is asked anew.
    Possible,
    /// It is.
    Within(Arc<Enclosed>),
}

/// What an exchange is enclosed in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Enclosed {
    /// The terms.
    pub terms: Terms,
    /// The rows that it will change, as they are: where the terms want that.
    pub pack: Option<Pack>,
}

impl Default for Enclosure {
    fn default() -> Self {
        Self::Impossible(Cow::Borrowed("its protocol cannot look at what it does before that lasts"))
    }
}

impl StatementFacts {
    /// Whether, by its facts, the number of rows that the server tells at its end is all that it changes: it reads, or
    /// changes one table, and runs nothing of anybody's. What the text alone tells is
    /// [`writes_once`](crate::sql::writes_once)'s to say.
    pub fn is_counted(&self) -> bool {
        use StatementKind::{Delete, Insert, Merge, Select, Update};
        let mut written = None;
        self.unknown.is_none()
            && matches!(self.kind, Select | Insert | Update | Delete | Merge)
            && self.effects.iter().all(|effect| match effect.verb {
                Verb::DataRead | Verb::DataLock => true,
                Verb::DataInsert | Verb::DataUpdate | Verb::DataDelete => {
                    *written.get_or_insert(&effect.target) == &effect.target
                }
                _ => false,
            })
    }

    /// Whether it changes rows, so that there is something to take back.
    pub fn changes_rows(&self) -> bool {
        self.effects
            .iter()
            .any(|effect| matches!(effect.verb, Verb::DataInsert | Verb::DataUpdate | Verb::DataDelete))
    }
}

impl Enclosed {
    /// The refusal of what turned out to change `count` rows, where that breaks the terms or is not what images were
    /// taken of.
    pub fn broken(&self, count: Option<u64>) -> Option<Denial> {
        let imaged = self.pack.as_ref().map(|pack| u64::try_from(pack.rows.len()).unwrap_or(u64::MAX));
        match (self.terms.rows, imaged) {
            (Some(most), _) if count.is_none_or(|count| count > most) => Some(exceeded(count, most)),
            (_, Some(imaged)) if count != Some(imaged) => Some(Denial {
                record: None,
                rule: "undo".to_owned(),
                message: format!("rows came or went while it was under way: images were taken of {imaged}"),
                hint: "Nothing that it changed lasts. Send it again.".to_owned(),
            }),
            _ => None,
        }
    }
}

/// The refusal of what changes, or returns, more rows than its terms allow; `count` is what it came to, where that is
/// known.
pub fn exceeded(count: Option<u64>, most: u64) -> Denial {
    let came = count.map_or_else(|| "more rows".to_owned(), |count| format!("{count} rows"));
    Denial {
        record: None,
        rule: "ceiling".to_owned(),
        message: format!("it comes to {came}, and was approved for at most {most}"),
        hint: "Nothing that it changed lasts. Narrow it, or ask for approval of just this statement."
            .to_owned(),
    }
}
