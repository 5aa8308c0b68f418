//! The only door to the kernel programs, and the only module that says `aya`.
