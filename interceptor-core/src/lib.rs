//! What interceptor means, without touching the world.
//!
//! The model (agents, runs, connections, exchanges, records), the seams that cross rooms ([`Gate`],
//! [`Protocol`], [`Decoder`], [`Login`]), policy, and SQL facts.
//!
//! Promises: nothing here does I/O, reads a clock, or knows tokio or aya; a [`Permit`] can be minted only
//! here, and only with proof that the exchange's record is committed.

pub mod approval;
pub mod break_glass;
pub mod catalogue;
pub mod enclosure;
pub mod estimate;
pub mod inventory;
pub mod mask;
pub mod model;
pub mod password;
pub mod permit;
pub mod policy;
pub mod protocol;
pub mod rescue;
pub mod sql;
pub mod survey;
pub mod text;
pub mod undo;

pub use enclosure::{Enclosed, Enclosure, Terms};
pub use permit::{Client, Committed, Denial, Gate, Held, Judgement, Notice, Permit, Verdict};
pub use protocol::{Decoder, Login, LoginStep, Protocol, Side, Step};
