//! Words of our own in MySQL's form, and the capabilities that we offer and take.

use bytes::{BufMut as _, Bytes, BytesMut};
use interceptor_core::permit::Denial;

use super::frame::packet;

/// Capability flags (the internals manual's "Capability Flags").
pub(super) mod capability {
    pub(in super::super) const LONG_PASSWORD: u32 = 1;
    pub(in super::super) const FOUND_ROWS: u32 = 1 << 1;
    pub(in super::super) const LONG_FLAG: u32 = 1 << 2;
    pub(in super::super) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(in super::super) const PROTOCOL_41: u32 = 1 << 9;
    pub(in super::super) const INTERACTIVE: u32 = 1 << 10;
    pub(in super::super) const SSL: u32 = 1 << 11;
    pub(in super::super) const TRANSACTIONS: u32 = 1 << 13;
    pub(in super::super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(in super::super) const MULTI_RESULTS: u32 = 1 << 17;
    pub(in super::super) const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub(in super::super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(in super::super) const CONNECT_ATTRS: u32 = 1 << 20;
    pub(in super::super) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    /// CLIENT_COMPRESS and CLIENT_ZSTD_COMPRESSION_ALGORITHM.
    pub(in super::super) const COMPRESSED: u32 = 1 << 5 | 1 << 26;

    /// What becomes of the session, and so is asked of the upstream as the client took it.
    pub(in super::super) const OF_SESSION: u32 =
        FOUND_ROWS | LONG_FLAG | INTERACTIVE | TRANSACTIONS | MULTI_RESULTS | PS_MULTI_RESULTS;
    /// What the client is offered. Neither compression nor LOCAL INFILE, nor several statements in a text, nor answers
    /// without EOF, nor changes of state in OK; with the first, none of MariaDB's own.
    pub(in super::super) const OFFERED: u32 = LONG_PASSWORD
        | OF_SESSION
        | CONNECT_WITH_DB
        | PROTOCOL_41
        | SSL
        | SECURE_CONNECTION
        | PLUGIN_AUTH
        | CONNECT_ATTRS
        | PLUGIN_AUTH_LENENC;
}

/// The version that we greet with, before anybody knows the upstream's.
const VERSION: &[u8] = b"5.7.0-interceptor";
/// What clients mix with their password. It may be the same for all: what they make of it proves nothing here, and is
/// thrown away unread; who they are the kernel has said.
const SCRAMBLE: &[u8; 20] = b"interceptor-scramble";
/// The plugin that clients use for it, which all know.
pub(super) const NATIVE: &str = "mysql_native_password";
/// `utf8mb4_general_ci`.
const COLLATION: u8 = 45;
/// SERVER_STATUS_AUTOCOMMIT.
const AUTOCOMMIT: u16 = 2;

/// ER_TABLEACCESS_DENIED_ERROR, which drivers take for a lack of rights.
const REFUSED: (u16, &str) = (1142, "42000");
/// ER_ACCESS_DENIED_ERROR.
const NO_SESSION: (u16, &str) = (1045, "28000");
/// ER_SERVER_SHUTDOWN.
const SHUTDOWN: (u16, &str) = (1053, "08S01");

/// Why a command is not taken. None of their states begins with 08, with which drivers give up a session that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// ER_NOT_SUPPORTED_YET.
    NotSpoken,
    /// ER_UNKNOWN_STMT_HANDLER.
    NotPrepared,
    /// ER_MAX_PREPARED_STMT_COUNT_REACHED.
    TooMuchPrepared,
}

impl Why {
    fn code(self) -> (u16, &'static str) {
        match self {
            Self::NotSpoken => (1235, "42000"),
            Self::NotPrepared => (1243, "HY000"),
            Self::TooMuchPrepared => (1461, "42000"),
        }
    }
}

/// The greeting (Protocol::HandshakeV10).
pub(super) fn greeting() -> Bytes {
    let (low, high) = (capability::OFFERED & 0xffff, capability::OFFERED >> 16);
    let mut out = BytesMut::new();
    out.put_u8(10);
    out.put_slice(VERSION);
    out.put_u8(0);
    // Its number: by none that a server gives, so that what clients kill by it (`mariadb` on an interrupt) is nobody's.
    out.put_u32_le(0);
    out.put_slice(SCRAMBLE.get(..8).unwrap_or_default());
    out.put_u8(0);
    out.put_uint_le(low.into(), 2);
    out.put_u8(COLLATION);
    out.put_u16_le(AUTOCOMMIT);
    out.put_uint_le(high.into(), 2);
    out.put_u8(21);
    out.put_bytes(0, 10);
    out.put_slice(SCRAMBLE.get(8..).unwrap_or_default());
    out.put_u8(0);
    out.put_slice(NATIVE.as_bytes());
    out.put_u8(0);
    packet(0, &out)
}

/// An OK that says nothing.
pub(super) fn ok(sequence: u8, status: u16) -> Bytes {
    let [low, high] = status.to_le_bytes();
    packet(sequence, &[0, 0, 0, low, high, 0, 0])
}

fn error(sequence: u8, (code, state): (u16, &str), message: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0xff);
    out.put_u16_le(code);
    out.put_u8(b'#');
    out.put_slice(state.as_bytes());
    let message: String = message.chars().filter(|character| *character != '\0').take(2000).collect();
    out.put_slice(message.as_bytes());
    packet(sequence, &out)
}

fn shown(denial: &Denial) -> String {
    let record = denial.record.map_or(String::new(), |record| format!(", record {record}"));
    format!("interceptor: {} (rule {}{record}). {}", denial.message, denial.rule, denial.hint)
}

/// The refusal of an exchange.
pub(super) fn refusal(sequence: u8, denial: &Denial) -> Bytes {
    error(sequence, REFUSED, &shown(denial))
}

/// The refusal of a whole session before it began.
pub(super) fn no_session(sequence: u8, denial: &Denial) -> Bytes {
    error(sequence, NO_SESSION, &shown(denial))
}

/// The last word of a session that we end.
pub(super) fn farewell(sequence: u8, denial: &Denial) -> Bytes {
    error(sequence, SHUTDOWN, &shown(denial))
}

/// A command that is not taken, and what to do instead.
pub(super) fn not_taken(why: Why, what: &str, instead: &str) -> Bytes {
    error(1, why.code(), &format!("interceptor: {what}. Nothing was executed. {instead}"))
}
