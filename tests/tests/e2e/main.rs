//! End to end: the built product, the real kernel, a real PostgreSQL and real clients.

mod agent_sdk;
mod bypass;
mod clients;
mod crash;
mod credentials;
mod hidden;
mod operate;
mod rude;
mod support;
