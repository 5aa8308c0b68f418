//! End to end: the built product, the real kernel, a real PostgreSQL and real clients.

mod bypass;
mod clients;
mod credentials;
mod hidden;
mod operate;
mod support;
