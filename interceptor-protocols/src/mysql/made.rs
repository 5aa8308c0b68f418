//! What a session has made of itself, as far as the same text may mean something else by it.
//!
//! Promise: two sessions are told alike only where the same statements, in the same order, have changed them, so that what
//! people approved for one never goes in another that means something else by it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use interceptor_core::{
    model::BindValue,
    sql::mysql::{Change, Reading},
};
use sha2::{Digest as _, Sha256};

/// The digest of what has changed a session, in hexadecimal; none where nothing has.
#[derive(Debug, Default)]
pub(super) struct Made(Option<String>);

/// A statement as it is told apart from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) text: &'a str,
    /// The text's own bytes, where the text is not quite these.
    pub(super) bytes: Option<&'a str>,
    pub(super) binds: &'a [BindValue],
}

/// Whether a statement that is understood may change what the same text means behind it: settings, and variables of the
/// user's, which any expression assigns.
pub(super) fn changes(reading: &Reading, text: &str) -> bool {
    reading.changes.contains(&Change::Settings) || text.contains(":=")
}

/// By what a text is told that stands in a record only nearly as it was sent.
pub(super) fn digest(bytes: &Bytes) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Made {
    /// A statement may have changed it.
    pub(super) fn by(&mut self, told: Told) {
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        };
        part(self.0.as_deref().unwrap_or_default());
        part(told.text);
        part(told.bytes.unwrap_or_default());
        for bind in told.binds {
            part(&bind.r#type);
            part(if bind.value.is_some() { "value" } else { "null" });
            part(bind.value.as_deref().unwrap_or_default());
        }
        self.0 = Some(hex::encode(digest.finalize()));
    }

    /// The server has undone all of it.
    pub(super) fn undone(&mut self) {
        self.0 = None;
    }

    /// What an approval is bound to besides the statement as it is shown.
    pub(super) fn around(&self, told: Option<Told>) -> Option<Arc<BTreeMap<String, String>>> {
        let bytes = told.and_then(|told| told.bytes);
        let parts = [("session", self.0.as_deref()), ("bytes", bytes)];
        let told: BTreeMap<_, _> =
            parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?.to_owned()))).collect();
        (!told.is_empty()).then(|| Arc::new(told))
    }
}
