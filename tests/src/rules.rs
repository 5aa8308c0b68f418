//! Rules that the tests of more than one protocol are judged by.

/// A run has a thousand rows an hour.
pub const BUDGET: &str = r#"
@id("hourly-rows")
@say("the hour's rows are used up")
forbid (principal, action == Action::"data.read", resource)
when { context.spent.rows >= 1000 };
"#;

/// What is deleted waits for a DBA.
pub const HOLDS: &str = r#"
@id("deletes-wait")
@hold("dba")
@within("60s")
@say("Deleting waits for a DBA.")
forbid (principal, action == Action::"data.delete", resource)
unless { context.approvals.dba >= 1 };
"#;
