//! Tokens that a client sends back: where one may stand, the server is sent what it stands for.
//!
//! Promises: what is judged and recorded has the token; what the server gets differs in nothing else. A token is replaced
//! only where the catalogue, as it is known now, says that it is compared with the very column that it was given for; and
//! what was sent with one replaced is carried out only as long as that is so. Nothing that is remembered or written down
//! here has what a token stands for.

use std::{ops::Range, sync::Arc};

use bytes::{BufMut as _, Bytes};
use interceptor_core::{
    mask::{Comparison, Operand},
    model::{Action, Phase, StatementFacts},
    permit::Clear,
    sql::{self, Statement},
};
use zeroize::Zeroizing;

use super::{
    action::{self, Basis, Prepared},
    asked::What,
    bind::Bind,
    decode::PostgresDecoder,
    frame::Writer,
    value,
};

/// Why nothing is carried out any more that had a token in it.
pub(super) const MOVED: &str =
    "a token in it stands for a value of a column that its names do not mean any more";

/// A client's message: as it came, which is what is judged, and as it is sent, where that differs.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) came: Bytes,
    pub(super) sent: Option<Clear>,
}

impl From<Bytes> for Frame {
    fn from(came: Bytes) -> Self {
        Self { came, sent: None }
    }
}

impl Frame {
    /// One of which nothing may be carried out, whatever is said of it: even where rules are not carried out, no token is
    /// compared with anything else.
    pub(super) fn failing(came: Bytes, what: &What, why: &str) -> Self {
        Self { came, sent: Some(Clear::new(Zeroizing::new(what.failing(why).to_vec()))) }
    }
}

/// A part of a text, and what it becomes.
struct Swap {
    range: Range<usize>,
    clear: Zeroizing<String>,
}

/// The comparisons of a statement that does what `facts` say.
fn comparisons(facts: &StatementFacts) -> &[Comparison] {
    facts.provenance.as_ref().map_or(&[], |provenance| &provenance.compared.each)
}

/// Whether a statement that does this has something in it that may be a token.
pub(super) fn may_have(prepared: &Prepared) -> bool {
    let compares = prepared.provenance.as_ref().is_some_and(|known| !known.compared.each.is_empty());
    compares || !prepared.replaced.is_empty()
}

impl PostgresDecoder {
    /// The message `came`, whose text begins at `at` and is carried out or prepared as `actions`, with the tokens in it
    /// replaced, and where they are compared. The action is from then on what such a statement does.
    pub(super) fn with_tokens(
        &self,
        (came, at): (Bytes, usize),
        (text, statements): (&str, &[Statement]),
        actions: &mut [Action],
    ) -> (Frame, Vec<Comparison>) {
        let ([statement], [action]) = (statements, actions) else { return (came.into(), Vec::new()) };
        let each = comparisons(&action.facts);
        if each.is_empty() {
            return (came.into(), Vec::new());
        }
        let own = text.get(statement.range.clone()).unwrap_or_default();
        let mut swaps = Vec::new();
        let mut replaced = Vec::new();
        for one in each {
            let Operand::Literal(place) = one.with else { continue };
            // Of this very text.
            if !statement.lineage.compared.iter().any(|compared| compared.with == one.with) {
                continue;
            }
            let Some((range, said)) = sql::literal(own, place) else { continue };
            if let Some(clear) = self.tokens.take(one.label, one.stands, said) {
                let begin = at.saturating_add(statement.range.start);
                let range = begin.saturating_add(range.start)..begin.saturating_add(range.end);
                swaps.push(Swap { range, clear: quoted(&clear) });
                replaced.push(one.clone());
            }
        }
        // What a parameter will be is judged with its value.
        let may_be =
            |one: &&Comparison| action.phase == Phase::Prepare && matches!(one.with, Operand::Parameter(_));
        let free: Vec<Comparison> = each.iter().filter(may_be).chain(&replaced).cloned().collect();
        if !free.is_empty() {
            let count = u32::try_from(replaced.len()).unwrap_or(u32::MAX);
            action.facts = Arc::new(sql::replacing(&action.facts, &self.labels, &free, count));
        }
        let sent = (!swaps.is_empty()).then(|| swapped(&came, swaps));
        (Frame { came, sent }, replaced)
    }

    /// A Bind of `prepared` with its tokens replaced, none where it has none; and where all that stand in what it binds are
    /// compared. An error says why it cannot be bound.
    pub(super) fn bind_tokens(
        &self,
        bind: &Bind,
        prepared: &Prepared,
        basis: &Basis,
    ) -> Result<(Option<Clear>, Vec<Comparison>), &'static str> {
        if !may_have(prepared) {
            return Ok((None, Vec::new()));
        }
        let reading = &prepared.reading;
        let statements = reading.statements.as_deref().unwrap_or_default();
        let expansion = self.names.expand(&reading.text, statements, self.segment_op);
        let undecided = self.turns.undecided();
        let (phase, items) = (Phase::Execute, &expansion.items);
        let actions = action::actions(phase, &reading.text, items, basis, &[], undecided, &self.labels);
        let each = actions.first().map_or(&[][..], |action| comparisons(&action.facts));
        if !prepared.replaced.iter().all(|one| each.contains(one)) {
            return Err(MOVED);
        }
        let mut replaced = prepared.replaced.clone();
        let mut values = Vec::new();
        for one in each {
            let Operand::Parameter(number) = one.with else { continue };
            let Some(place) = number.checked_sub(1) else { continue };
            let kind = prepared.types.get(place).copied().unwrap_or(0);
            let Some((Some(said), _)) = bind.given.raw(place).filter(|_| kind == 0 || value::is_text(kind))
            else {
                continue;
            };
            let said = std::str::from_utf8(&said).ok();
            if let Some(clear) = said.and_then(|said| self.tokens.take(one.label, one.stands, said)) {
                values.push((place, clear));
                replaced.push(one.clone());
            }
        }
        let sent = (!values.is_empty() && bind.given.omitted == 0).then(|| bind.written_with(&values));
        match sent {
            None if !values.is_empty() => Err("it has too many values for tokens among them"),
            sent => Ok((sent, replaced)),
        }
    }

    /// What `action` does where these were replaced before; or why it is not carried out.
    pub(super) fn still_replaced(
        &self,
        action: &mut Action,
        replaced: &[Comparison],
    ) -> Result<(), &'static str> {
        if replaced.is_empty() {
            return Ok(());
        }
        let each = comparisons(&action.facts);
        if !replaced.iter().all(|one| each.contains(one)) {
            return Err(MOVED);
        }
        let count = u32::try_from(replaced.len()).unwrap_or(u32::MAX);
        action.facts = Arc::new(sql::replacing(&action.facts, &self.labels, replaced, count));
        Ok(())
    }
}

/// A value as a string of SQL that every server reads alike, whatever its settings are.
fn quoted(value: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(value.len().saturating_mul(2).saturating_add(4)));
    // A letter before it would be a part of it.
    out.push_str(if value.contains('\\') { " E'" } else { " '" });
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

/// A message with these parts of it changed, in any order.
fn swapped(frame: &[u8], mut swaps: Vec<Swap>) -> Clear {
    swaps.sort_by_key(|swap| swap.range.start);
    let room: usize = swaps.iter().map(|swap| swap.clear.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(frame.len().saturating_add(room)));
    let mut at = 0;
    for swap in &swaps {
        out.extend_from_slice(frame.get(at..swap.range.start).unwrap_or_default());
        out.extend_from_slice(swap.clear.as_bytes());
        at = swap.range.end;
    }
    out.extend_from_slice(frame.get(at..).unwrap_or_default());
    let length = u32::try_from(out.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(1..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *place = length.to_be_bytes();
    }
    Clear::new(out)
}

impl Bind {
    /// The message anew with other values at these places, from 0.
    fn written_with(&self, values: &[(usize, Zeroizing<String>)]) -> Clear {
        let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let mut out = Writer::default();
        out.message(b'B', |out| {
            for name in [&self.portal, &self.statement] {
                out.put_slice(name.as_bytes());
                out.put_u8(0);
            }
            let (formats, given) = self.given.parts();
            out.put_u16(count(formats.len()));
            formats.iter().for_each(|format| out.put_i16(*format));
            out.put_u16(count(given.len()));
            for (place, value) in given.iter().enumerate() {
                let clear = values.iter().find(|(at, _)| *at == place).map(|(_, clear)| clear.as_bytes());
                super::frame::put_value(out, clear.or(value.as_ref().map(|value| &*value.head)));
            }
            out.put_u16(count(self.formats.len()));
            self.formats.iter().for_each(|format| out.put_i16(*format));
        });
        Clear::new(out.finish_wiped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_string_whatever_is_in_it() {
        for (value, written) in [
            ("123-45", " '123-45'"),
            ("", " ''"),
            ("O'Brien", " 'O''Brien'"),
            (r"a\'; DROP TABLE t --", r" E'a\\''; DROP TABLE t --'"),
        ] {
            assert_eq!(quoted(value).as_str(), written);
        }
    }

    #[test]
    fn nothing_but_the_parts_changes() {
        let swap = |range, clear: &str| Swap { range, clear: Zeroizing::new(clear.to_owned()) };
        let frame = b"Q\0\0\0\x0ba 't' b\0";
        let changed = swapped(frame, vec![swap(11..12, "cd"), swap(7..10, " 'longer'")]).into_bytes();
        assert_eq!(&changed[..], b"Q\0\0\0\x13a  'longer' cd\0");
    }
}
