//! The client's log-in: Protocol::SSLRequest and Protocol::HandshakeResponse41. Its proof is read over: who it is the kernel
//! has said.

use bytes::Bytes;
use interceptor_core::model::Principal;

use super::{
    frame::{Fields, Malformed, text},
    words::capability,
};

/// What a client says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It begins TLS right behind this.
    Tls,
    /// It would compress what follows, although that was not offered.
    Compressed,
    /// It wants a session.
    Session {
        /// Whom and what it named.
        claimed: Principal,
        /// The capabilities that it took.
        capabilities: u32,
        /// The collation of its texts.
        collation: u8,
    },
}

/// Reads it.
pub(super) fn first(payload: Bytes) -> Result<First, Malformed> {
    let mut fields = Fields::new(payload);
    let asked = fields.u32()?;
    let capabilities = asked & capability::OFFERED;
    if asked & capability::PROTOCOL_41 == 0 {
        return Err(Malformed);
    }
    if asked & capability::COMPRESSED != 0 {
        return Ok(First::Compressed);
    }
    let _longest = fields.u32()?;
    let collation = fields.u8()?;
    fields.take(23)?;
    if fields.is_empty() {
        return if capabilities & capability::SSL == 0 { Err(Malformed) } else { Ok(First::Tls) };
    }
    let claimed_user = text(&fields.terminated()?)?;
    let _proof = if capabilities & capability::PLUGIN_AUTH_LENENC != 0 {
        fields.counted()?
    } else {
        let length = fields.u8()?;
        fields.take(length.into())?
    };
    let has_database = capabilities & capability::CONNECT_WITH_DB != 0 && !fields.is_empty();
    let database = if has_database { text(&fields.terminated()?)? } else { String::new() };
    // The plugin's name and what the client says of itself: nothing follows from either.
    let claimed = Principal { user: String::new(), claimed_user, database };
    Ok(First::Session { claimed, capabilities, collation })
}
