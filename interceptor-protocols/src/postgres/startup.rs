//! The first packet of a connection: TLS, cancel, or a session, and what opening that session would do.
//!
//! Promise: a start-up parameter that is not on the short list of harmless ones is an effect of its own, whether it
//! was sent plainly or hidden in `options`; what would change how texts are read is refused here.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::{Action, Binds, Effect, Phase, Principal, StatementFacts, Target, Verb},
    protocol::{CancelKey, DecodeError, Inspection},
    sql::{named_role, says_who},
};

use super::frame::{Fields, MAX_STARTUP, Malformed};

/// Protocol 3.0.
pub(super) const VERSION_3_0: u32 = 3 << 16;
/// Protocol 3.2, the newest that is spoken here.
pub(super) const VERSION_3_2: u32 = (3 << 16) | 2;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const MAX_SECRET: usize = 256;

/// What a connection begins with.
#[derive(Debug)]
pub(super) enum First {
    /// SSLRequest.
    Tls,
    /// A TLS ClientHello without a word before it.
    DirectTls,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel(CancelKey),
    /// StartupMessage.
    Session(Box<Wish>),
}

/// What a StartupMessage asks for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) claimed: Principal,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) version: u32,
    pub(super) action: Action,
    pub(super) then: Inspection,
}

/// Takes the first packet from `input` once it is whole.
pub(super) fn first(input: &mut BytesMut) -> Result<Option<First>, DecodeError> {
    // A TLS record of type handshake; a start-up packet that begins so would be over 350 MB.
    if input.first() == Some(&0x16) {
        return Ok(Some(First::DirectTls));
    }
    let Some(length) = input.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err(DecodeError::client(
            "this is no PostgreSQL start-up packet: it must be 8 to 10000 bytes; is this a PostgreSQL client?",
        ));
    }
    if input.len() < length {
        return Ok(None);
    }
    let packet = input.split_to(length).freeze();
    let mut fields = Fields::new(packet.slice(4..));
    let code = fields.u32().map_err(|_| DecodeError::client("a start-up packet without a version"))?;
    match code {
        SSL_REQUEST if fields.is_empty() => Ok(Some(First::Tls)),
        GSS_REQUEST if fields.is_empty() => Ok(Some(First::Gss)),
        CANCEL_REQUEST => cancel(fields).map(First::Cancel).map(Some),
        version if version >> 16 == 3 => {
            session(fields, version).map(|wish| Some(First::Session(Box::new(wish))))
        }
        version => Err(DecodeError::client(format!(
            "protocol version {}.{} is not spoken; use 3.0 or 3.2",
            version >> 16,
            version & 0xffff
        ))),
    }
}

fn cancel(mut fields: Fields) -> Result<CancelKey, DecodeError> {
    let malformed = |_: Malformed| DecodeError::client("a CancelRequest whose key is not 4 to 256 bytes");
    let process = fields.u32().map_err(malformed)?;
    let secret = fields.rest();
    if (4..=MAX_SECRET).contains(&secret.len()) {
        Ok(CancelKey { process, secret })
    } else {
        Err(malformed(Malformed))
    }
}

fn session(mut fields: Fields, version: u32) -> Result<Wish, DecodeError> {
    let malformed =
        |_: Malformed| DecodeError::client("a StartupMessage whose parameters are cut or not UTF-8");
    let mut claimed = Principal::default();
    let mut parameters = Vec::new();
    let mut encoding = "UTF8".to_owned();
    loop {
        let name = fields.string().map_err(malformed)?;
        if name.is_empty() {
            break;
        }
        let value = fields.string().map_err(malformed)?;
        match name.as_str() {
            "user" => claimed.claimed_user = value,
            "database" => claimed.database = value,
            "client_encoding" => encoding = value,
            _ => parameters.push((name, value)),
        }
    }
    fields.end().map_err(malformed)?;
    if claimed.claimed_user.is_empty() {
        return Err(DecodeError::client("a StartupMessage without a user"));
    }
    if claimed.database.is_empty() {
        claimed.database.clone_from(&claimed.claimed_user);
    }
    check_encoding(&encoding)?;
    // Always said, so that the server's own default never decides how a text is read.
    parameters.push(("client_encoding".to_owned(), "UTF8".to_owned()));
    let mut facts = StatementFacts::single(Verb::Connect, Target::Resource);
    for (name, value) in &parameters {
        judge(name, value, &mut facts)?;
    }
    let replicates = facts.effects.iter().any(|effect| effect.verb == Verb::Replicate);
    let (phase, text, then) = if replicates {
        (Phase::Pass, "uninspected: replication", Inspection::None)
    } else {
        (Phase::Connect, "", Inspection::Full)
    };
    let action = Action { phase, text: text.into(), binds: Binds::new(), facts: facts.into() };
    Ok(Wish { claimed, parameters, version, action, then })
}

/// UTF8 by any of its names. SQL_ASCII is what libpq asks for in the C locale: it means no conversion, and is
/// served as UTF8.
fn check_encoding(value: &str) -> Result<(), DecodeError> {
    let plain: String =
        value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if matches!(plain.as_str(), "utf8" | "unicode" | "sqlascii") {
        return Ok(());
    }
    Err(DecodeError::client(format!("client_encoding {value:?} is not spoken; use UTF8")))
}

fn judge(name: &str, value: &str, facts: &mut StatementFacts) -> Result<(), DecodeError> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "application_name" | "client_encoding" | "datestyle" | "timezone" | "extra_float_digits"
        | "intervalstyle" => {}
        "replication" if is_off(value) => {}
        "replication" => add(Verb::Replicate, Target::Resource, facts),
        "options" => {
            for (name, value) in options(value) {
                judge_option(&name, &value, facts)?;
            }
        }
        protocol if protocol.starts_with("_pq_.") => {}
        _ => judge_option(&name, value, facts)?,
    }
    Ok(())
}

fn judge_option(name: &str, value: &str, facts: &mut StatementFacts) -> Result<(), DecodeError> {
    match name {
        "client_encoding" => return check_encoding(value),
        "standard_conforming_strings" if is_off(value) => {
            return Err(DecodeError::client("standard_conforming_strings must stay on"));
        }
        "application_name"
        | "datestyle"
        | "timezone"
        | "extra_float_digits"
        | "intervalstyle"
        | "standard_conforming_strings" => return Ok(()),
        _ => {}
    }
    add(Verb::SessionChange, Target::Setting(name.to_owned()), facts);
    if says_who(name)
        && let Some(role) = named_role(value)
    {
        add(Verb::SessionChange, Target::Other { kind: "role".to_owned(), name: role.to_owned() }, facts);
    }
    Ok(())
}

fn add(verb: Verb, target: Target, facts: &mut StatementFacts) {
    let effect = Effect { verb, target };
    if !facts.effects.contains(&effect) {
        facts.effects.push(effect);
    }
}

/// The server takes any unambiguous beginning of these words.
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value == "0"
        || ["off", "false", "no"]
            .iter()
            .any(|word| !value.is_empty() && word.starts_with(&value) && value != "o")
}

/// The settings in the `options` parameter. A flag that sets nothing by name counts as the setting `options`.
fn options(text: &str) -> Vec<(String, String)> {
    let words = words(text);
    let mut found = Vec::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let assignment = match word {
            "-c" => words.next(),
            _ => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")),
        };
        match assignment.and_then(|text| text.split_once('=')) {
            // The server takes `-` for `_` in names here.
            Some((name, value)) if !name.is_empty() => {
                found.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
            }
            _ => found.push(("options".to_owned(), String::new())),
        }
    }
    found
}

/// Words between white space; a backslash makes the next character an ordinary one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            c if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The bytes of a CancelRequest.
pub(super) fn cancel_request(key: &CancelKey) -> Bytes {
    use bytes::BufMut as _;
    let mut out = super::frame::Writer::default();
    out.headless(|out| {
        out.put_u32(CANCEL_REQUEST);
        out.put_u32(key.process);
        out.put_slice(&key.secret);
    });
    out.finish()
}
