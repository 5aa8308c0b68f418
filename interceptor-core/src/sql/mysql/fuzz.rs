//! What a fuzzer calls: everything of this module on one input, with the invariants that must hold.

use super::{Kind, Names, Place, facts, read, redact, without_literals};
use crate::model::Verb;

/// Reads `data` as a text. For fuzzing only; panics when an invariant is broken.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (redact(&text), without_literals(&text));
    let reading = read(&text);
    for (database, names) in [(None, Names::Exact), (Some("db"), Names::Folded)] {
        let place = Place { database, names };
        let _ = reading.tables(place);
        for kind in [None, Some(Kind::Table), Some(Kind::View)] {
            let told = facts(&reading, place, |_| kind);
            assert!(!told.effects.is_empty(), "every statement has an effect");
            let says_unknown = told.effects.iter().any(|effect| effect.verb == Verb::Unknown);
            assert_eq!(told.unknown.is_some(), says_unknown, "the reason and the effect go together");
            assert!(reading.unknown.is_none() || says_unknown, "what was not understood stays so");
        }
    }
}
