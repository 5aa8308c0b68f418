//! Logs of the daemon itself. Never a secret, never a statement.
