//! From an accepted connection to its end: origin, resource, session, relay.
