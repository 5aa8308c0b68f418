//! What a RowDescription said, kept for rows that come later and tell nothing themselves.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::frame::{Fields, Malformed};

/// One column of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// The relation that it comes from; 0 where it is computed.
    pub(super) relation: u32,
    /// The column there; 0 is the whole row.
    pub(super) column: i16,
    /// The type's number.
    pub(super) kind: u32,
    /// 0 for text, 1 for binary.
    pub(super) format: i16,
}

/// Reads a RowDescription's body.
pub(super) fn read(body: Bytes) -> Result<Arc<[Field]>, Malformed> {
    let mut fields = Fields::new(body);
    let count = fields.count()?;
    let mut read = Vec::with_capacity(count.min(1664));
    for _ in 0..count {
        fields.text()?;
        let (relation, column, kind) = (fields.u32()?, fields.i16()?, fields.u32()?);
        fields.i16()?;
        fields.i32()?;
        read.push(Field { relation, column, kind, format: fields.i16()? });
    }
    fields.end()?;
    Ok(read.into())
}

/// A place for the description of a statement or portal, shared by all that wait for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Described(Arc<Mutex<Option<Arc<[Field]>>>>);

impl Described {
    pub(super) fn set(&self, fields: Arc<[Field]>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }

    pub(super) fn get(&self) -> Option<Arc<[Field]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
