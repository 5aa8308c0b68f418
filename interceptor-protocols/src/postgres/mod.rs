//! PostgreSQL, protocol 3.0 and 3.2: start-up, simple and extended query, pipelines, COPY, cancellation.
//!
//! What is judged, what passes, and what is not spoken yet stands in this folder's `README.md`.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_core::{
    catalogue::Catalogue,
    estimate::Estimating,
    inventory::DataIn,
    mask::{Labelled, Tokens},
    model::{Action, Principal},
    permit::Circumstances,
    protocol::{Asker, CancelKey, Decoder, Login, Opening, Own, Protocol, UpstreamTls},
    sql::Dialect,
    survey::{Depth, Survey},
    undo::{Pack, Restore},
};

mod action;
mod ask;
mod asked;
mod binary;
mod bind;
mod circumstances;
mod client;
mod columns;
mod copied;
mod copy;
mod decode;
mod described;
mod enclose;
mod estimate;
mod facts;
mod frame;
mod fuzz;
mod image;
mod known;
mod large;
mod login;
mod lookup;
mod meter;
mod names;
mod need;
mod numerals;
mod outcome;
mod own;
mod part;
mod places;
mod queue;
mod recorded;
mod refuse;
mod restore;
mod shown;
mod startup;
mod survey;
mod token;
mod turn;
mod unveil;
mod upstream;
mod value;
mod veil;
mod within;
mod words;
mod work;

#[cfg(test)]
mod tests;

pub use facts::ask_also;
pub use fuzz::{frames, fuzz_client, fuzz_upstream};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Postgres;

impl Protocol for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn default_port(&self) -> u16 {
        5432
    }

    fn data(&self) -> DataIn {
        DataIn::Tables
    }

    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::Postgres)
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        &[b"postgresql"]
    }

    fn open(&self, catalogue: Arc<Catalogue>, labelled: Labelled, tokens: Tokens) -> Box<dyn Decoder> {
        Box::new(decode::PostgresDecoder::new(catalogue, labelled, tokens))
    }

    fn login(&self, principal: &Principal, opening: &Opening, tls: UpstreamTls) -> Box<dyn Login> {
        Box::new(login::PostgresLogin::new(principal, opening, tls))
    }

    fn ask(&self, database: &str, text: &str) -> Option<Box<dyn Asker>> {
        // A text with a zero byte in it would end there.
        (!text.contains('\0') && !database.contains('\0'))
            .then(|| Box::new(ask::Inquiry::new(database, text)) as Box<dyn Asker>)
    }

    fn restore(&self, pack: &Pack, principal: &Principal) -> Option<Own<dyn Restore>> {
        let opening = restore::opening(principal);
        Some(Own { opening, work: Box::new(restore::PostgresRestore::new(pack)) })
    }

    fn estimate(
        &self,
        action: &Action,
        principal: &Principal,
        circumstances: &Circumstances,
    ) -> Result<Own<dyn Estimating>, String> {
        let work = Box::new(estimate::PostgresEstimate::new(action)?);
        Ok(Own { opening: estimate::opening(principal, circumstances), work })
    }

    fn survey(&self, labelled: Labelled, depth: Depth, principal: &Principal) -> Option<Own<dyn Survey>> {
        let opening = survey::opening(principal);
        Some(Own { opening, work: Box::new(survey::PostgresSurvey::new(labelled, depth)) })
    }

    fn cancel(&self, key: &CancelKey) -> Option<Bytes> {
        Some(startup::cancel_request(key))
    }
}
