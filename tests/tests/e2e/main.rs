//! End to end: the built product, the real kernel, a real PostgreSQL and real clients.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, for the stack trace"
)]

mod agent_sdk;
mod approvals;
mod approvers;
mod attach;
mod attach_cgroup;
mod belt;
mod bound;
mod break_glass;
mod budget;
mod bypass;
mod chaos;
mod ci;
mod ci_build;
mod ci_pull;
mod clients;
mod containers;
mod corpus;
mod cost;
mod crash;
mod credentials;
mod dump;
mod enclosed;
mod engine;
mod existing;
mod found;
mod grants;
mod held;
mod hidden;
mod kinds;
mod launch;
mod local_sockets;
mod masking;
mod migrations;
mod mysql;
mod operate;
mod past;
mod person;
mod places;
mod protocol;
mod recorded;
mod redis;
mod redis_commands;
mod release;
mod rescue;
mod rude;
mod rude_wire;
mod second_opinion;
mod sudo;
mod support;
mod tokens;
mod told;
mod tools;
mod trust;
mod undo;
mod units;
mod unix_sockets;
mod unread;
mod upgrade;
