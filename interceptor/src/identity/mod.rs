//! Which process it was: from kernel events to `ProcessFacts`.
//!
//! The kernel side says who forked, executed and ended in every captured run; this keeps the tree, with the dead
//! above the living, so that a connection's ancestry is what was recorded and never what a pid means later.
//! Executable and argv are hints. Nothing here decides anything.

pub mod login;
mod tree;

pub use tree::{Observed, ProcessId, Tree};
