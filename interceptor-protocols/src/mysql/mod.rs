//! MySQL and MariaDB, client/server protocol with the handshake of version 10: texts and prepared statements.
//!
//! What is judged, what passes, and what is not spoken stands in this folder's `README.md`.

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

mod answer;
mod binary;
mod client;
mod decode;
mod frame;
mod fuzz;
mod login;
mod lookup;
mod made;
#[cfg(test)]
mod session_tests;
mod start;
#[cfg(test)]
mod tests;
mod words;

pub use fuzz::{fuzz_client, fuzz_upstream};

/// The parameter of an opening that says in which collation the client's texts are.
const COLLATION: &str = "collation";
/// The parameter of a greeting that says which status flags the server told.
const STATUS: &str = "status";
/// `utf8mb4_general_ci`.
const UTF8: u8 = 45;

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Mysql;

impl Protocol for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn default_port(&self) -> u16 {
        3306
    }

    fn data(&self) -> DataIn {
        DataIn::Unread
    }

    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::MySql)
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        &[]
    }

    fn open(&self, _: Arc<Catalogue>, _: Labelled, _: Tokens) -> Box<dyn Decoder> {
        Box::new(decode::MysqlDecoder::default())
    }

    fn login(&self, principal: &Principal, opening: &Opening, tls: UpstreamTls) -> Box<dyn Login> {
        Box::new(login::MysqlLogin::new(principal, opening, tls))
    }

    fn ask(&self, _: &str, _: &str) -> Option<Box<dyn Asker>> {
        None
    }

    fn restore(&self, _: &Pack, _: &Principal) -> Option<Own<dyn Restore>> {
        None
    }

    fn estimate(&self, _: &Action, _: &Principal, _: &Circumstances) -> Result<Own<dyn Estimating>, String> {
        Err("nothing is guessed for MySQL".to_owned())
    }

    fn survey(&self, _: Labelled, _: Depth, _: &Principal) -> Option<Own<dyn Survey>> {
        None
    }

    /// There is no such request: an answer that is cut is read to its end, and goes nowhere.
    fn cancel(&self, _: &CancelKey) -> Option<Bytes> {
        None
    }
}
