//! The project's chores: `cargo xtask TASK`, a file per task.

fn main() {}
