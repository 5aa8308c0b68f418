//! Policy: Cedar with the meanings of `docs/policy.md`, loaded whole or not at all.
