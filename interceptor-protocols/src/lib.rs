//! A folder per protocol; [`ALL`] is the registry.
//!
//! Every protocol here takes bytes and returns steps. None of them does I/O, reads a clock, or knows what policy or
//! a record is.

use interceptor_core::protocol::Protocol;

mod fuzzing;
mod meter;
pub mod mysql;
pub mod postgres;
pub mod redis;

#[cfg(test)]
mod conformance;

/// Every protocol, in the order that people are shown.
pub static ALL: &[&dyn Protocol] = &[&postgres::Postgres, &mysql::Mysql, &redis::Redis];

/// The protocol of this name in `resources.toml`.
pub fn find(name: &str) -> Option<&'static dyn Protocol> {
    ALL.iter().copied().find(|protocol| protocol.name() == name)
}
