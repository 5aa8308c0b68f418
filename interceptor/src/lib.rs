//! The shell: everything that touches the world. `ARCHITECTURE.md` says what may know what.

pub mod app;
pub mod approval;
pub mod binding;
pub mod channel;
pub mod config;
pub mod control;
pub mod engine;
pub mod gate;
pub mod helper;
pub mod identity;
pub mod keeper;
pub mod kernel;
pub mod launch;
pub mod opinion;
pub mod places;
pub mod proxy;
pub mod rescue;
pub mod store;
pub mod telemetry;
pub mod tls;
