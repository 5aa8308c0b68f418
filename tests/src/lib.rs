//! What the end-to-end tests and the demo stand on: private databases, private installations, sniffers, and a check
//! that nothing stays behind.
//!
//! Promises: whatever a value here starts ends with the value, also when a test panics; values live side by side,
//! in one process or in many; a tool or capability that is missing is an error that names it, never a skip. Knows
//! the product only from outside: its binary, its files, its records.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test support that cannot go on must fail the test loudly"
)]

pub mod audit;
pub mod bed;
pub mod bypass;
pub mod certificates;
pub mod cgroup;
pub mod fuzzing;
pub mod installation;
pub mod interrupt;
pub mod leaks;
pub mod login;
pub mod machine;
pub mod model_api;
pub mod mysql;
pub mod places;
pub mod process;
pub mod redis;
pub mod rules;
pub mod seeds;
pub mod sniffer;
pub mod talk;

pub use audit::{Exchange, Records};
pub use bed::{Bed, RunningBed};
pub use cgroup::Cgroup;
pub use installation::{Installation, Setup};
pub use login::Logins;
pub use process::{Finished, Job};
pub use talk::Talker;
