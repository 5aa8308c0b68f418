//! Rows as the client may see them.
//!
//! Promises: a masked row is a valid DataRow with as many values as before; a value that cannot be read as its type says,
//! or of whose type nothing is known, is NULL where it might hold something hidden. What nobody described is NULL. Rows
//! in which nothing can be hidden are not looked at.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    mask::{Form, Hiding, LabelSet, Mask, Provenance, Stands, Tokens},
    sql::CopyWriting,
};
use smallvec::SmallVec;

use super::{
    bind::Formats,
    copied::Copied,
    described::{Described, Field},
    frame::{Fields, Malformed, put_value},
    recorded::Writing,
    value::{self, Found},
    words::Format,
};

/// The largest row that can be masked, in bytes.
pub(super) const MAX_ROW: usize = 16 << 20;

/// What is hidden in the answer to one message.
#[derive(Debug, Clone)]
pub(super) struct Veil {
    /// None before it was judged: then everything is.
    mask: Option<Mask>,
    /// Where the values come from; a Query has one for each of its statements instead.
    provenance: Option<Arc<Provenance>>,
    /// Descriptions of the portal and of its statement, the first that there is holds.
    described: SmallVec<[Described; 2]>,
    /// As what the statement was traced when it was prepared.
    prepared_as: Option<Arc<Provenance>>,
    /// Formats of results as they were bound.
    formats: Formats,
    /// How many copies of labelled data had been made when it was judged.
    judged_at: u64,
    /// What becomes of each column, once that is known.
    plan: Option<Arc<Plan>>,
    /// How its rows are recorded, once that is known, and where they are.
    writing: Option<Arc<Writing>>,
    /// The data that is copied out.
    copied: Copying,
}

/// Data that is copied out.
#[derive(Debug, Clone)]
pub(super) enum Copying {
    /// Its rows are known.
    Rows(Box<Copied>),
    /// Only how it is written is; and the beginning of a line of text, the end of which has not come.
    Data(Format, BytesMut),
}

/// A prepared statement's part in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    pub(super) described: SmallVec<[Described; 2]>,
    pub(super) prepared_as: Option<Arc<Provenance>>,
    pub(super) formats: Formats,
}

/// What becomes of the columns of rows.
#[derive(Debug)]
pub(super) enum Plan {
    /// They pass as they are.
    Open,
    /// All are NULL.
    Closed,
    /// One by one.
    Each(Vec<Cover>),
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// It is shown.
    Show,
    /// It is looked through: its type, and whether it is binary.
    Look(u32, bool),
    /// It is NULL.
    Null,
    /// It is a document, in which these labels are borne at places.
    Within(LabelSet),
    /// The label at this place says what stands for it: it is a text.
    By(usize),
    /// The same of each element: it is an array of texts, and this says whether it is binary.
    ByElement(usize, bool),
    /// A token of the label at this place stands for it, or else what the label says.
    Token(usize, Stands),
}

impl Veil {
    /// Of what was not judged.
    pub(super) fn closed() -> Self {
        Self {
            mask: None,
            provenance: None,
            described: SmallVec::new(),
            prepared_as: None,
            formats: Formats::new(),
            judged_at: 0,
            plan: None,
            writing: None,
            copied: Copying::Data(Format::Binary, BytesMut::new()),
        }
    }

    /// Of what was judged when so many copies of labelled data had been made.
    pub(super) fn of(
        mask: Mask,
        provenance: Option<Arc<Provenance>>,
        behind: Behind,
        judged_at: u64,
    ) -> Self {
        let Behind { described, prepared_as, formats } = behind;
        Self {
            mask: Some(mask),
            provenance,
            described,
            prepared_as,
            formats,
            judged_at,
            plan: None,
            writing: None,
            copied: Copying::Data(Format::Binary, BytesMut::new()),
        }
    }

    /// What is hidden: nothing at all (`None`), what is told, or everything (an inner none).
    pub(super) fn hiding(&self) -> Option<Option<&Arc<Hiding>>> {
        match &self.mask {
            None => Some(None),
            Some(Mask::Nothing) => None,
            Some(Mask::Of(hiding)) => Some(Some(hiding)),
        }
    }

    /// Where the values come from, as far as the message as a whole tells.
    pub(super) fn provenance(&self) -> Option<&Arc<Provenance>> {
        self.provenance.as_ref()
    }

    /// Rows like this follow, of a statement with that provenance, when so many copies have been made; where rows are
    /// recorded, with what is hidden so.
    pub(super) fn describe(
        &mut self,
        fields: &[Field],
        provenance: Option<&Provenance>,
        copies: u64,
        recording: Option<&Hiding>,
    ) {
        let provenance = provenance.filter(|_| copies == self.judged_at);
        self.plan = Some(Arc::new(masked(self.mask.as_ref(), fields, provenance, None)));
        self.writing = recording.map(|hiding| Arc::new(Writing::of(hiding, fields, provenance, None)));
    }

    /// A CopyOutResponse with that body has come, of a statement with that provenance whose rows are written so. Where
    /// labelled data was copied since it was judged, what it reads may bear more than was known.
    pub(super) fn copies(
        &mut self,
        body: Bytes,
        writing: Option<CopyWriting>,
        provenance: Option<&Provenance>,
        made: u64,
    ) -> Result<(), Malformed> {
        let provenance = provenance.filter(|_| made == self.judged_at);
        let mut fields = Fields::new(body);
        let format = if fields.u8()? == 0 { Format::Text } else { Format::Binary };
        let count = fields.count()?;
        let hiding = self.hiding().flatten().cloned();
        let is_binary = format == Format::Binary;
        let hides_labels = hiding.as_ref().is_none_or(|hiding| hiding.hides_labels());
        let writing =
            writing.filter(|writing| hides_labels && (*writing == CopyWriting::Binary) == is_binary);
        self.copied = match writing {
            Some(writing) => {
                Copying::Rows(Box::new(Copied::new(writing, count, provenance, hiding.as_deref())))
            }
            None => Copying::Data(format, BytesMut::new()),
        };
        Ok(())
    }

    /// The data that is copied.
    pub(super) fn copied(&mut self) -> &mut Copying {
        &mut self.copied
    }

    /// Whether what was copied has ended in the middle of a row.
    pub(super) fn is_cut(&self) -> bool {
        match &self.copied {
            Copying::Rows(rows) => rows.is_cut(),
            Copying::Data(_, line) => !line.is_empty(),
        }
    }

    /// The statement has ended.
    pub(super) fn end(&mut self) {
        (self.plan, self.writing) = (None, None);
    }

    /// What becomes of the row that comes now, when so many copies have been made. Where one was made since it was
    /// judged, what it reads may bear more than was known.
    pub(super) fn plan(&mut self, copies: u64) -> &Arc<Plan> {
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => Arc::new(self.planned(copies)),
        };
        self.plan.insert(plan)
    }

    fn planned(&self, copies: u64) -> Plan {
        let hides_labels = match &self.mask {
            Some(Mask::Nothing) => return Plan::Open,
            Some(Mask::Of(hiding)) => hiding.hides_labels(),
            None => true,
        };
        match self.known(hides_labels, copies) {
            Some(fields) => {
                masked(self.mask.as_ref(), &fields, self.provenance.as_deref(), Some(&self.formats))
            }
            None => Plan::Closed,
        }
    }

    /// How the row that comes now is recorded, when so many copies have been made and that is hidden.
    pub(super) fn writing(&mut self, hiding: &Hiding, copies: u64) -> &Writing {
        let writing = match self.writing.take() {
            Some(writing) => writing,
            None => Arc::new(match self.known(hiding.hides_labels(), copies) {
                Some(fields) => Writing::of(hiding, &fields, self.provenance.as_deref(), Some(&self.formats)),
                None => Writing::nothing(),
            }),
        };
        self.writing.insert(writing)
    }

    /// The columns of rows that nobody describes now, if what described them holds.
    fn known(&self, hides_labels: bool, copies: u64) -> Option<Arc<[Field]>> {
        if hides_labels && copies != self.judged_at {
            return None;
        }
        let fields = self.described.iter().find_map(Described::get)?;
        // The description tells of the statement as it was prepared. Where its names mean something else by now, it may
        // be that of other columns.
        match (&self.provenance, &self.prepared_as) {
            (Some(now), Some(then)) if now.describes_as(then) => Some(fields),
            // Whatever column it is.
            _ if !hides_labels => Some(fields),
            _ => None,
        }
    }
}

fn masked(
    mask: Option<&Mask>,
    fields: &[Field],
    provenance: Option<&Provenance>,
    formats: Option<&[i16]>,
) -> Plan {
    match mask {
        Some(Mask::Nothing) => Plan::Open,
        None => Plan::Closed,
        Some(Mask::Of(hiding)) => plan(hiding, fields, provenance, formats),
    }
}

/// In which format the column at `place` comes, where these were bound: 0 is text.
pub(super) fn format_of(field: &Field, place: usize, formats: Option<&[i16]>) -> i16 {
    match formats {
        None => field.format,
        Some([]) => 0,
        Some([all]) => *all,
        Some(each) => each.get(place).copied().unwrap_or(1),
    }
}

pub(super) fn plan(
    hiding: &Hiding,
    fields: &[Field],
    provenance: Option<&Provenance>,
    formats: Option<&[i16]>,
) -> Plan {
    let covers: Vec<Cover> = fields
        .iter()
        .enumerate()
        .map(|(place, field)| {
            let labels = match (provenance, field.relation) {
                (None, _) => LabelSet::ALL,
                (Some(provenance), 0) => provenance.of_output(place, fields.len()),
                (Some(provenance), relation) => provenance.of_column(relation, field.column),
            };
            let format = format_of(field, place, formats);
            let is_plain = field.relation != 0 && field.column > 0;
            let parts = hiding.in_parts(labels).filter(|_| is_plain && value::is_document(field.kind));
            if let Some(parts) = parts {
                return Cover::Within(parts);
            }
            match hiding.by(labels) {
                Some(label) if field.relation != 0 && field.column != 0 && value::is_text(field.kind) => {
                    let is_table =
                        provenance.is_some_and(|provenance| provenance.tables.contains(&field.relation));
                    match hiding.form(label) {
                        Form::Null => Cover::Null,
                        Form::Token if is_table => {
                            Cover::Token(label, Stands { relation: field.relation, column: field.column })
                        }
                        Form::Redact | Form::Token | Form::Hash | Form::Fake | Form::Partial => {
                            Cover::By(label)
                        }
                    }
                }
                Some(label)
                    if field.relation != 0
                        && field.column != 0
                        && value::is_array_of_texts(field.kind)
                        && hiding.form(label) != Form::Null =>
                {
                    Cover::ByElement(label, format != 0)
                }
                Some(_) => Cover::Null,
                None if hiding.looks() && value::may_hold(field.kind) => Cover::Look(field.kind, format != 0),
                None => Cover::Show,
            }
        })
        .collect();
    if covers.iter().all(|cover| *cover == Cover::Show) { Plan::Open } else { Plan::Each(covers) }
}

/// Adds the DataRow with that body to `out` as `plan` says; values before `shown` are known to be shown as they are.
pub(super) fn row(
    body: &[u8],
    shown: usize,
    plan: &Plan,
    (hiding, tokens): (Option<&Hiding>, &Tokens),
    out: &mut BytesMut,
) -> Result<(), Malformed> {
    let (count, mut values) = values(body)?;
    let covers = match (plan, hiding) {
        (Plan::Each(covers), Some(hiding)) if covers.len() == count => Some((covers, hiding)),
        _ => None,
    };
    out.put_u8(b'D');
    let start = out.len();
    out.put_i32(0);
    out.put_u16(u16::try_from(count).map_err(|_| Malformed)?);
    for place in 0..count {
        match (values.next()?, &covers) {
            (Some(value), Some(_)) if place < shown => put_value(out, Some(value)),
            (Some(value), Some((covers, hiding))) => {
                let cover = covers.get(place).copied().unwrap_or(Cover::Null);
                match covered(value, cover, hiding, Some(tokens)) {
                    Now::Same => put_value(out, Some(value)),
                    Now::Null => put_value(out, None),
                    Now::Text(text) => put_value(out, Some(&text)),
                }
            }
            _ => put_value(out, None),
        }
    }
    values.end()?;
    let length = u32::try_from(out.len().saturating_sub(start)).map_err(|_| Malformed)?;
    if let Some(place) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *place = length.to_be_bytes();
    }
    Ok(())
}

/// The place of the first value of the DataRow with that body that is not known to be shown as it is; none where all
/// are.
pub(super) fn first_hidden(body: &[u8], plan: &Plan, hiding: Option<&Hiding>) -> Option<usize> {
    let (Plan::Each(covers), Some(hiding)) = (plan, hiding) else {
        return (!matches!(plan, Plan::Open)).then_some(0);
    };
    if !covers.iter().all(|cover| matches!(cover, Cover::Show | Cover::Look(..))) {
        return Some(0);
    }
    let first = || -> Result<Option<usize>, Malformed> {
        let (count, mut values) = values(body)?;
        if covers.len() != count {
            return Ok(Some(0));
        }
        for (place, cover) in covers.iter().enumerate() {
            if let (Some(value), Cover::Look(kind, binary)) = (values.next()?, cover)
                && value::look(value, *kind, *binary, hiding) != Found::Nothing
            {
                return Ok(Some(place));
            }
        }
        values.end().map(|()| None)
    };
    first().unwrap_or(Some(0))
}

/// The DataRow with that body as it is recorded; none where that is not certain.
pub(super) fn written(body: &[u8], writing: &Writing, hiding: &Hiding) -> Option<Vec<Option<String>>> {
    let (count, mut values) = values(body).ok()?;
    let covers = match &writing.plan {
        Plan::Closed => return None,
        Plan::Open => None,
        Plan::Each(covers) if covers.len() == count => Some(covers),
        Plan::Each(_) => return None,
    };
    if writing.are_texts.len() != count {
        return None;
    }
    let mut row = Vec::with_capacity(count);
    for (place, is_text) in writing.are_texts.iter().enumerate() {
        let cover = covers.map_or(Cover::Show, |covers| covers.get(place).copied().unwrap_or(Cover::Null));
        row.push(values.next().ok()?.and_then(|value| match covered(value, cover, hiding, None) {
            Now::Same => Some(word(value, *is_text)),
            Now::Null => None,
            Now::Text(text) => Some(word(&text, *is_text)),
        }));
    }
    values.end().ok().map(|()| row)
}

/// A value as it is written down.
fn word(value: &[u8], is_text: bool) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if is_text => text.to_owned(),
        _ => format!("\\x{}", hex::encode(value)),
    }
}

/// The values of a DataRow: how many, and each.
fn values(body: &[u8]) -> Result<(usize, Values<'_>), Malformed> {
    let (count, rest) = body.split_first_chunk::<2>().ok_or(Malformed)?;
    Ok((u16::from_be_bytes(*count).into(), Values { rest }))
}

/// Values that have not been read yet.
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// The next one; none is NULL.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
        self.rest = rest;
        match i32::from_be_bytes(*length) {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (value, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
                self.rest = rest;
                Ok(Some(value))
            }
        }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// What a value has become.
enum Now {
    Same,
    Null,
    Text(Vec<u8>),
}

fn covered(value: &[u8], cover: Cover, hiding: &Hiding, tokens: Option<&Tokens>) -> Now {
    let text = |with: &dyn Fn(&str) -> Option<String>| {
        let text = std::str::from_utf8(value).ok().and_then(with);
        text.map_or(Now::Null, |text| Now::Text(text.into_bytes()))
    };
    match cover {
        Cover::Show => Now::Same,
        Cover::Null => Now::Null,
        Cover::By(label) => text(&|value| hiding.cover(label, value)),
        Cover::Token(label, stands) => {
            let token = |value: &str| tokens.and_then(|tokens| tokens.give(label, stands, value));
            text(&|value| token(value).or_else(|| hiding.cover(label, value)))
        }
        Cover::Within(labels) => value::cover_places(value, labels, hiding).map_or(Now::Null, Now::Text),
        Cover::ByElement(label, binary) => match value::cover_elements(value, binary, label, hiding) {
            Some(array) => Now::Text(array),
            None => Now::Null,
        },
        Cover::Look(kind, binary) => match value::look(value, kind, binary, hiding) {
            Found::Nothing => Now::Same,
            Found::Covered(text) => Now::Text(text),
            Found::Hidden => Now::Null,
        },
    }
}
