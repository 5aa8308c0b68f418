//! Redis, RESP2 and RESP3: commands, pipelines, transactions, publish and subscribe.
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

mod client;
mod command;
mod cut;
mod decode;
mod fuzz;
mod login;
mod queue;
mod reading;
mod reply;
mod subscribed;
mod table;
mod text;
mod upstream;
mod words;

#[cfg(test)]
mod tests;

pub use fuzz::{fuzz_client, fuzz_upstream};
pub use reading::{Listed, listed};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn default_port(&self) -> u16 {
        6379
    }

    fn data(&self) -> DataIn {
        DataIn::Keys
    }

    fn dialect(&self) -> Option<Dialect> {
        None
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        // It has none.
        &[]
    }

    fn open(&self, _catalogue: Arc<Catalogue>, labelled: Labelled, _tokens: Tokens) -> Box<dyn Decoder> {
        Box::new(decode::RedisDecoder::new(labelled))
    }

    fn login(&self, principal: &Principal, _opening: &Opening, tls: UpstreamTls) -> Box<dyn Login> {
        Box::new(login::RedisLogin::new(principal, tls))
    }

    fn ask(&self, _database: &str, _text: &str) -> Option<Box<dyn Asker>> {
        None
    }

    fn restore(&self, _pack: &Pack, _principal: &Principal) -> Option<Own<dyn Restore>> {
        None
    }

    fn estimate(
        &self,
        _action: &Action,
        _principal: &Principal,
        _circumstances: &Circumstances,
    ) -> Result<Own<dyn Estimating>, String> {
        Err("Redis does not guess how many keys a command concerns".to_owned())
    }

    fn survey(&self, _labelled: Labelled, _depth: Depth, _principal: &Principal) -> Option<Own<dyn Survey>> {
        None
    }

    fn cancel(&self, _key: &CancelKey) -> Option<Bytes> {
        None
    }
}
