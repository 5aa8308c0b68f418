//! Judges exchanges: facts to policy, record, permit. Knows no sockets and no protocol.
