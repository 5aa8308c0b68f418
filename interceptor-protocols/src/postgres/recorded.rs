//! The rows of an answer as they are recorded, where the session's rows are.
//!
//! Promises: a row is recorded as for somebody who may see nothing of any label, whoever the client is, and without tokens.
//! What cannot be masked so with certainty is not recorded but counted. Behind the first row that is left out no other is
//! recorded; at most [`RecordedRows::MOST_ROWS`] and [`RecordedRows::MOST_BYTES`] are, of each statement. Where no rows are
//! recorded, nothing is looked at and nothing is copied.

use std::io;

use interceptor_core::{
    mask::{Hiding, Provenance},
    model::RecordedRows,
};

use super::{
    decode::PostgresDecoder,
    described::Field,
    frame::Head,
    value,
    veil::{self, Plan},
};

/// How rows are written down.
#[derive(Debug)]
pub(super) struct Writing {
    /// What becomes of the columns.
    pub(super) plan: Plan,
    /// Which of them are texts as they come; others are bytes.
    pub(super) are_texts: Vec<bool>,
}

impl Writing {
    /// That of rows with these columns.
    pub(super) fn of(
        hiding: &Hiding,
        fields: &[Field],
        provenance: Option<&Provenance>,
        formats: Option<&[i16]>,
    ) -> Self {
        let each = fields.iter().enumerate();
        let are_texts = each
            .map(|(place, field)| veil::format_of(field, place, formats) == 0 || value::is_text(field.kind));
        Self { plan: veil::plan(hiding, fields, provenance, formats), are_texts: are_texts.collect() }
    }

    /// That of rows of which not enough is known: none is.
    pub(super) fn nothing() -> Self {
        Self { plan: Plan::Closed, are_texts: Vec::new() }
    }
}

/// What was gathered of one statement's rows.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    rows: RecordedRows,
    /// Their bytes as JSON.
    bytes: usize,
    /// Whether it is copied data that comes.
    copied: bool,
}

impl Gathered {
    /// Whether a row of so many bytes may have a place.
    fn takes(&self, bytes: usize) -> bool {
        self.rows.rows_left_out == 0
            && self.rows.rows.len() < RecordedRows::MOST_ROWS
            && self.bytes.saturating_add(bytes) <= RecordedRows::MOST_BYTES
    }

    fn add(&mut self, row: Option<Vec<Option<String>>>) {
        let sized = row.and_then(|row| length(&row).map(|length| (row, length)));
        match sized.filter(|(_, length)| self.takes(*length)) {
            Some((row, length)) => {
                self.bytes = self.bytes.saturating_add(length);
                self.rows.rows.push(row);
            }
            None => self.rows.rows_left_out = self.rows.rows_left_out.saturating_add(1),
        }
    }
}

/// How long a row is as JSON, with the comma behind it.
fn length(row: &[Option<String>]) -> Option<usize> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(1);
    serde_json::to_writer(&mut count, row).ok()?;
    Some(count.0)
}

/// What is recorded of the rows of a statement that ends here, having had so many by the server's count: of a COPY they
/// came in as many messages as the server liked.
pub(super) fn ended(gathered: &mut Option<Box<Gathered>>, count: Option<u64>) -> Option<RecordedRows> {
    let Gathered { rows, copied, .. } = *gathered.take()?;
    Some(match count {
        Some(rows_left_out) if copied => RecordedRows { rows_left_out, ..rows },
        _ => rows,
    })
}

impl PostgresDecoder {
    /// Whether a row that begins so is recorded if it can be, so that it must have come whole.
    pub(super) fn is_recorded(&self, head: Head) -> bool {
        if self.recording.is_none() || head.tag != b'D' || self.meter.stopped {
            return false;
        }
        let gathered = self.queue.first().map(|entry| entry.gathered.as_ref());
        gathered.is_some_and(|gathered| match gathered {
            Some(gathered) => gathered.takes(head.total),
            None => Gathered::default().takes(head.total),
        })
    }

    /// A row, or copied data, with that body goes to the client; none where it has not come whole.
    pub(super) fn record_row(&mut self, head: Head, body: Option<&[u8]>) {
        let Some(hiding) = &self.recording else { return };
        let Some(entry) = self.queue.front() else { return };
        let mut gathered = entry.gathered.take().unwrap_or_default();
        let row = match body {
            Some(body) if head.tag == b'D' && gathered.takes(head.total) => {
                let writing = entry.veil.writing(hiding, self.bindings.copies());
                veil::written(body, writing, hiding)
            }
            _ => None,
        };
        gathered.copied |= head.tag == b'd';
        gathered.add(row);
        entry.gathered = Some(gathered);
    }

    /// Something came back that is never recorded.
    pub(super) fn unrecorded(&self) -> Option<RecordedRows> {
        self.recording.as_ref().map(|_| RecordedRows { rows: Vec::new(), rows_left_out: 1 })
    }
}
