//! The log-in upstream (the internals manual's "Connection Phase"): our user, the client's database and capabilities.
//!
//! Promise: it sends nothing but SSLRequest in clear where TLS was required, and ends in a session with just the
//! capabilities that the client took, or in words that say why not.

use bytes::{BufMut as _, Bytes, BytesMut};
use interceptor_core::{
    model::Principal,
    protocol::{Challenge, DecodeError, Greeting, Login, LoginStep, Opening, Proof, UpstreamTls},
};
use zeroize::Zeroizing;

use super::{
    answer::ErrorPacket,
    frame::{self, Fields, Malformed},
    words::{NATIVE, capability},
};

const CACHING: &str = "caching_sha2_password";
/// The longest packet of a log-in, in bytes.
const MAX_LOGIN: usize = 1 << 16;
/// The longest packet that we say we take.
const LONGEST: u32 = 1 << 24;

/// A way to prove a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    Caching,
}

impl Plugin {
    fn named(name: &[u8]) -> Result<Self, DecodeError> {
        match name {
            name if name == NATIVE.as_bytes() => Ok(Self::Native),
            name if name == CACHING.as_bytes() => Ok(Self::Caching),
            other => Err(DecodeError::upstream(format!(
                "it wants the plugin {:?}, which is not spoken; give the user {NATIVE} or {CACHING}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => NATIVE,
            Self::Caching => CACHING,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// SSLRequest was sent.
    Secure,
    /// TLS is there, or none is wanted.
    Respond,
    /// The proof for our response is being made.
    Proving,
    /// The proof for a plugin that it switched to is.
    Switching,
    Authenticate,
    Over,
}

/// One log-in.
#[derive(Debug)]
pub(super) struct MysqlLogin {
    state: State,
    user: String,
    database: String,
    capabilities: u32,
    collation: u8,
    tls: UpstreamTls,
    plugin: Plugin,
    scramble: [u8; 20],
    /// Of the next packet, whoever sends it.
    sequence: u8,
    switched: bool,
}

impl MysqlLogin {
    pub(super) fn new(principal: &Principal, opening: &Opening, tls: UpstreamTls) -> Self {
        let collation = opening.parameters.iter().find(|(name, _)| name == super::COLLATION);
        let mut capabilities = opening.version & capability::OF_SESSION
            | capability::LONG_PASSWORD
            | capability::PROTOCOL_41
            | capability::SECURE_CONNECTION
            | capability::PLUGIN_AUTH;
        if !principal.database.is_empty() {
            capabilities |= capability::CONNECT_WITH_DB;
        }
        if tls == UpstreamTls::Required {
            capabilities |= capability::SSL;
        }
        Self {
            state: State::Greeting,
            user: principal.user.clone(),
            database: principal.database.clone(),
            capabilities,
            collation: collation.and_then(|(_, value)| value.parse().ok()).unwrap_or(super::UTF8),
            tls,
            plugin: Plugin::Native,
            scramble: [0; 20],
            sequence: 0,
            switched: false,
        }
    }

    fn head(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32_le(self.capabilities);
        out.put_u32_le(LONGEST);
        out.put_u8(self.collation);
        out.put_bytes(0, 23);
        out
    }

    fn greeted(&mut self, payload: Bytes) -> Result<LoginStep, DecodeError> {
        let malformed = |_: Malformed| DecodeError::upstream("no greeting of a MySQL server");
        let mut fields = Fields::new(payload);
        if fields.u8().map_err(malformed)? != 10 {
            return Err(DecodeError::upstream("it does not greet with version 10 of the protocol"));
        }
        fields.terminated().map_err(malformed)?;
        let _thread = fields.u32().map_err(malformed)?;
        let first = fields.take(8).map_err(malformed)?;
        fields.u8().map_err(malformed)?;
        let low = fields.u16().map_err(malformed)?;
        fields.take(3).map_err(malformed)?;
        let high = fields.u16().map_err(malformed)?;
        let offered = u32::from(low) | u32::from(high) << 16;
        fields.take(11).map_err(malformed)?;
        let second = fields.take(12).map_err(malformed)?;
        let lacks = self.capabilities & !offered;
        if lacks & capability::SSL != 0 {
            return Err(DecodeError::upstream(
                "it offers no TLS; give it a certificate, or name the exception for this resource",
            ));
        }
        // The first bit says something else to MariaDB.
        if lacks & !capability::LONG_PASSWORD != 0 {
            return Err(DecodeError::upstream(format!(
                "it lacks capabilities that the client took: {lacks:#x}"
            )));
        }
        self.take_scramble(&[first, second].concat())?;
        fields.u8().map_err(malformed)?;
        // Of another one we say ours, and it will switch.
        self.plugin =
            fields.terminated().ok().and_then(|name| Plugin::named(&name).ok()).unwrap_or(Plugin::Native);
        if self.tls == UpstreamTls::Required {
            self.state = State::Secure;
            let request = frame::packet(self.sequence, &self.head());
            self.sequence = self.sequence.wrapping_add(1);
            return Ok(LoginStep::Send(request));
        }
        self.state = State::Proving;
        Ok(LoginStep::Prove(self.challenge()))
    }

    fn take_scramble(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let scramble =
            bytes.first_chunk::<20>().ok_or_else(|| DecodeError::upstream("a scramble that is too short"))?;
        self.scramble = *scramble;
        Ok(())
    }

    fn challenge(&self) -> Challenge {
        match self.plugin {
            Plugin::Native => Challenge::MysqlNative { scramble: self.scramble },
            Plugin::Caching => Challenge::CachingSha2 { scramble: self.scramble },
        }
    }

    fn answered(&mut self, payload: Bytes) -> Result<LoginStep, DecodeError> {
        let malformed = |_: Malformed| DecodeError::upstream("a malformed packet in the log-in");
        let mut fields = Fields::new(payload.clone());
        match fields.u8().map_err(malformed)? {
            0 => {
                self.state = State::Over;
                fields.integer().and_then(|_| fields.integer()).map_err(malformed)?;
                let status = fields.u16().map_err(malformed)?;
                let parameters = vec![(super::STATUS.to_owned(), status.to_string())];
                Ok(LoginStep::Ready(Greeting { bytes: Bytes::new(), parameters, cancel: None }))
            }
            0xff => {
                self.state = State::Over;
                let error = ErrorPacket::read(payload).map_err(malformed)?;
                Ok(LoginStep::Refused { code: error.code, message: error.message, answer: None })
            }
            0xfe if self.switched || fields.is_empty() => Err(DecodeError::upstream(
                "it switches to another plugin more than once, or to one without a name",
            )),
            0xfe => {
                self.switched = true;
                self.plugin = Plugin::named(&fields.terminated().map_err(malformed)?)?;
                let rest = fields.rest();
                self.take_scramble(&rest)?;
                self.state = State::Switching;
                Ok(LoginStep::Prove(self.challenge()))
            }
            // What caching_sha2_password says besides: the hash was known, or the password itself is wanted.
            1 if self.plugin == Plugin::Caching => match fields.u8().map_err(malformed)? {
                3 => Ok(LoginStep::Wait),
                4 if self.tls == UpstreamTls::Required => {
                    self.state = State::Switching;
                    Ok(LoginStep::Prove(Challenge::CachingSha2Full))
                }
                _ => Err(DecodeError::upstream(
                    "it wants the password itself, which goes out only inside TLS; turn on TLS for this resource",
                )),
            },
            other => Err(DecodeError::upstream(format!("packet {other:#x} is out of place in a log-in"))),
        }
    }
}

impl Login for MysqlLogin {
    fn step(&mut self, input: &mut BytesMut) -> Result<LoginStep, DecodeError> {
        match self.state {
            State::Secure => {
                if !input.is_empty() {
                    return Err(DecodeError::upstream(
                        "bytes in clear after our request for TLS: somebody is in between",
                    ));
                }
                self.state = State::Respond;
                return Ok(LoginStep::StartTls);
            }
            State::Respond => {
                self.state = State::Proving;
                return Ok(LoginStep::Prove(self.challenge()));
            }
            State::Proving | State::Switching | State::Over => return Ok(LoginStep::Wait),
            State::Greeting | State::Authenticate => {}
        }
        loop {
            let Some(head) = frame::head(input) else { return Ok(LoginStep::Wait) };
            if head.length > MAX_LOGIN {
                return Err(DecodeError::upstream("a packet over 64 kB in the log-in"));
            }
            if input.len() < head.total() {
                return Ok(LoginStep::Wait);
            }
            let payload = input.split_to(head.total()).freeze().slice(frame::HEAD..);
            // An error ends it, and servers that have no room for us number it as they like.
            if head.sequence != self.sequence && payload.first() != Some(&0xff) {
                return Err(DecodeError::upstream("a packet out of sequence in the log-in"));
            }
            self.sequence = head.sequence.wrapping_add(1);
            if payload.first() == Some(&0xff) || self.state == State::Authenticate {
                match self.answered(payload)? {
                    LoginStep::Wait => continue,
                    step => return Ok(step),
                }
            }
            return self.greeted(payload);
        }
    }

    fn prove(&mut self, proof: Proof) -> Result<LoginStep, DecodeError> {
        let Proof::Response(secret) = proof else {
            return Err(DecodeError::client("a proof of another protocol's"));
        };
        let mut out = Zeroizing::new(Vec::new());
        if self.state == State::Proving {
            out.extend_from_slice(&self.head());
            out.extend_from_slice(self.user.as_bytes());
            out.push(0);
            let length = u8::try_from(secret.len())
                .map_err(|_| DecodeError::client("a proof of impossible length"))?;
            out.push(length);
            out.extend_from_slice(&secret);
            if !self.database.is_empty() {
                out.extend_from_slice(self.database.as_bytes());
                out.push(0);
            }
            out.extend_from_slice(self.plugin.name().as_bytes());
            out.push(0);
        } else {
            out.extend_from_slice(&secret);
        }
        self.state = State::Authenticate;
        let length =
            u32::try_from(out.len()).map_err(|_| DecodeError::client("a proof of impossible length"))?;
        let mut message = Zeroizing::new(Vec::with_capacity(out.len().saturating_add(frame::HEAD)));
        message.extend_from_slice(length.to_le_bytes().get(..3).unwrap_or_default());
        message.push(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        message.extend_from_slice(&out);
        // Wiped when the last holder lets go.
        Ok(LoginStep::Send(Bytes::from_owner(message)))
    }
}
