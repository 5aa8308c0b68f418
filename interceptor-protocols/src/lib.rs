//! A folder per protocol; `ALL` is the registry.
