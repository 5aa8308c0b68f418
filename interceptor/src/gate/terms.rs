//! Exchanges that may go only within terms: whether their protocol holds them to these, and the refusal of those that
//! cannot be held to any.
//!
//! Promise: what has terms is permitted only once its protocol says that it is enclosed in just these.

use interceptor_core::{Enclosure, Held, Judgement, Terms, Verdict};

/// What becomes of an exchange that may go within terms.
#[derive(Debug)]
pub(super) enum Way {
    /// It is as it must be.
    On,
    /// It is to be enclosed first.
    First(Verdict),
    /// It cannot be.
    Never(Judgement),
}

/// What becomes of `held`, which may go within `terms`.
pub(super) fn way(held: &Held, terms: Terms) -> Way {
    match &held.circumstances().enclosure {
        _ if terms.is_empty() => Way::On,
        Enclosure::Within(kept) if *kept == terms => Way::On,
        Enclosure::Possible => Way::First(Verdict::Enclose(terms)),
        Enclosure::Within(_) => never("it was enclosed for something that has changed since: send it again"),
        Enclosure::Impossible(why) => never(why),
    }
}

fn never(why: &str) -> Way {
    Way::Never(Judgement::Denied {
        rules: Vec::new(),
        reason: format!("it may go only when what it does can be taken back, and {why}"),
    })
}
