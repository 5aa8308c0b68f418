//! What an operator can ask of a running daemon, and the command line that asks it.
//!
//! One typed, versioned request and one answer over a Unix socket that only root may connect to, and that no
//! captured process can see. Evidence and policy are read from disk instead, so that they can be read with the
//! daemon dead.

pub mod api;
pub mod approvals;
pub mod caller;
pub mod cli;
