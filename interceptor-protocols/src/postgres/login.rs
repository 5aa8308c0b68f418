//! The log-in upstream: our user, the client's database and parameters, and a secret that never passes through here
//! in any form that `Debug` prints.
//!
//! Promise: it ends in a session whose texts are read as the SQL guard reads them (UTF8, standard strings), or in a
//! refusal that says why. It never sends anything in clear where TLS was required.

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{
    model::Principal,
    protocol::{
        CancelKey, Challenge, DecodeError, Greeting, Inspection, Login, LoginStep, Opening, Proof,
        UpstreamTls,
    },
};

use zeroize::Zeroizing;

use crate::fuzzing;

use super::{
    frame::{self, Fields, MAX_LOGIN, Malformed, Writer, put_text, put_value},
    startup::{VERSION_3_0, VERSION_3_2},
    upstream::ErrorFields,
};

/// How much a server may tell before it is ready.
const MAX_GREETING: usize = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AskTls,
    AwaitTls,
    Send,
    Authenticate,
    /// A proof was asked for.
    Proving,
    Settle,
    Over,
}

/// One log-in.
#[derive(Debug)]
pub(super) struct PostgresLogin {
    state: State,
    startup: Bytes,
    /// The client's own version, and its protocol options, which we do not speak.
    wanted: u32,
    refused_options: Vec<String>,
    negotiated: u32,
    greeting: BytesMut,
    parameters: Vec<(String, String)>,
    cancel: Option<CancelKey>,
    challenged: bool,
    /// Whether a SASL exchange has begun.
    sasl: bool,
    /// Whether the server has shown that it knows the secret too.
    mutual: bool,
}

impl PostgresLogin {
    /// A log-in as `principal` for what the client asked.
    pub(super) fn new(principal: &Principal, opening: &Opening, tls: UpstreamTls) -> Self {
        let version = opening.version.clamp(VERSION_3_0, VERSION_3_2);
        let mut out = Writer::default();
        out.headless(|out| {
            out.put_u32(version);
            put_text(out, "user");
            put_text(out, &principal.user);
            put_text(out, "database");
            put_text(out, &principal.database);
            for (name, value) in opening.parameters.iter().filter(|(name, _)| !name.starts_with("_pq_.")) {
                put_text(out, name);
                put_text(out, value);
            }
            out.put_u8(0);
        });
        let options = opening.parameters.iter().map(|(name, _)| name);
        Self {
            state: if tls == UpstreamTls::Required { State::AskTls } else { State::Send },
            startup: out.finish(),
            wanted: opening.version,
            refused_options: options.filter(|name| name.starts_with("_pq_.")).cloned().collect(),
            negotiated: version,
            greeting: BytesMut::new(),
            parameters: Vec::new(),
            cancel: None,
            challenged: false,
            sasl: false,
            mutual: false,
        }
    }

    fn await_tls(&mut self, input: &mut BytesMut) -> Result<LoginStep, DecodeError> {
        match input.first() {
            None => Ok(LoginStep::Wait),
            Some(b'S') if input.len() == 1 => {
                input.clear();
                self.state = State::Send;
                Ok(LoginStep::StartTls)
            }
            Some(b'S') => {
                Err(DecodeError::upstream("bytes in clear after its consent to TLS: somebody is in between"))
            }
            Some(b'N') => Err(DecodeError::upstream(
                "it offers no TLS; switch `ssl` on there, or name the exception for this resource",
            )),
            Some(b'E') => match whole(input)? {
                None => Ok(LoginStep::Wait),
                Some((_, message)) => Ok(self.refused(&message)),
            },
            Some(_) => Err(DecodeError::upstream("no PostgreSQL answer to the TLS request")),
        }
    }

    fn refused(&mut self, error: &Bytes) -> LoginStep {
        let ErrorFields { code, message, .. } = ErrorFields::read(error.slice(5.min(error.len())..));
        let for_the_client = match self.state {
            // Logged in: what is wrong now is the database or a parameter, which the client chose. 28 is the class of
            // what may not log in.
            State::Settle => !code.starts_with("28"),
            // Starting up or shutting down, and too many connections: clients try again.
            State::Authenticate => ["57P03", "53300"].contains(&code.as_str()),
            // Before TLS anybody may have said it.
            State::AskTls | State::AwaitTls | State::Send | State::Proving | State::Over => false,
        };
        self.state = State::Over;
        LoginStep::Refused { code, message, answer: for_the_client.then(|| error.clone()) }
    }

    fn authenticate(&mut self, body: Bytes) -> Result<Option<LoginStep>, DecodeError> {
        let malformed = |_: Malformed| DecodeError::upstream("a malformed authentication message");
        let mut fields = Fields::new(body);
        let challenge = match fields.u32().map_err(malformed)? {
            0 if self.sasl && !self.mutual => {
                return Err(DecodeError::upstream(
                    "it accepted the log-in without proving that it knows the secret",
                ));
            }
            0 => {
                self.state = State::Settle;
                return Ok((!self.challenged).then_some(LoginStep::Prove(Challenge::Nothing)));
            }
            3 => Challenge::Cleartext,
            5 => {
                let salt = fields.take(4).map_err(malformed)?;
                let salt = *salt.first_chunk::<4>().ok_or(Malformed).map_err(malformed)?;
                Challenge::Md5 { user: self.user().map_err(malformed)?, salt }
            }
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = fields.string().map_err(malformed)?;
                    if name.is_empty() {
                        break;
                    }
                    mechanisms.push(name);
                }
                Challenge::SaslBegin { mechanisms }
            }
            11 => Challenge::SaslContinue { message: fields.rest() },
            12 => {
                self.challenged = true;
                self.mutual = true;
                self.state = State::Proving;
                return Ok(Some(LoginStep::Prove(Challenge::SaslFinish { message: fields.rest() })));
            }
            7..=9 => {
                return Err(DecodeError::upstream(
                    "it wants GSSAPI or SSPI, which are not spoken; allow scram-sha-256 for this user in pg_hba.conf",
                ));
            }
            other => {
                return Err(DecodeError::upstream(format!("authentication method {other} is not spoken")));
            }
        };
        self.challenged = true;
        self.state = State::Proving;
        Ok(Some(LoginStep::Prove(challenge)))
    }

    /// The user as it stands in the start-up packet, so that an md5 response is for the same one.
    fn user(&self) -> Result<String, Malformed> {
        let mut fields = Fields::new(self.startup.slice(8.min(self.startup.len())..));
        fields.text()?;
        fields.string()
    }

    fn settle(&mut self, tag: u8, whole: &[u8], body: Bytes) -> Result<Option<LoginStep>, DecodeError> {
        let malformed = |_: Malformed| DecodeError::upstream("a malformed message after the log-in");
        let mut fields = Fields::new(body);
        match tag {
            b'S' => {
                let name = fields.string().map_err(malformed)?;
                let value = fields.string().map_err(malformed)?;
                self.parameters.push((name, value));
                self.keep(whole)?;
            }
            b'N' => self.keep(whole)?,
            b'K' => {
                let process = fields.u32().map_err(malformed)?;
                self.cancel = Some(CancelKey { process, secret: fields.rest() });
            }
            b'Z' => return self.ready().map(Some),
            other => return Err(unexpected(other)),
        }
        Ok(None)
    }

    fn keep(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        self.greeting.put_slice(message);
        if self.greeting.len() > MAX_GREETING {
            return Err(DecodeError::upstream("it tells more than 256 kB before it is ready"));
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<LoginStep, DecodeError> {
        let setting = |name: &str| {
            self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        if setting("standard_conforming_strings") != Some("on") {
            return Err(DecodeError::upstream(
                "standard_conforming_strings is not on for this user or database; ALTER ROLE or ALTER DATABASE ... RESET it",
            ));
        }
        if setting("client_encoding") != Some("UTF8") {
            return Err(DecodeError::upstream("it does not speak client_encoding UTF8"));
        }
        let mut out = Writer::default();
        if self.negotiated < self.wanted || !self.refused_options.is_empty() {
            let (version, options) = (self.negotiated, &self.refused_options);
            out.message(b'v', |out| {
                out.put_u32(version);
                out.put_u32(u32::try_from(options.len()).unwrap_or(0));
                options.iter().for_each(|option| put_text(out, option));
            });
        }
        let mut bytes = BytesMut::from(&*out.finish());
        bytes.put_slice(&self.greeting);
        self.state = State::Over;
        Ok(LoginStep::Ready(Greeting {
            bytes: bytes.freeze(),
            parameters: std::mem::take(&mut self.parameters),
            cancel: self.cancel.take(),
        }))
    }

    fn message(&mut self, tag: u8, message: &Bytes) -> Result<Option<LoginStep>, DecodeError> {
        let body = message.slice(5.min(message.len())..);
        match (tag, self.state) {
            (b'E', _) => Ok(Some(self.refused(message))),
            (b'v', State::Authenticate) => {
                let version = Fields::new(body)
                    .u32()
                    .map_err(|_| DecodeError::upstream("a malformed NegotiateProtocolVersion"))?;
                self.negotiated = version.clamp(VERSION_3_0, self.negotiated.max(VERSION_3_0));
                Ok(None)
            }
            (b'N', State::Authenticate) => self.keep(message).map(|()| None),
            (b'R', State::Authenticate) => self.authenticate(body),
            (_, State::Settle) => self.settle(tag, message, body),
            (other, _) => Err(unexpected(other)),
        }
    }
}

fn unexpected(tag: u8) -> DecodeError {
    DecodeError::upstream(format!("message {:?} is out of place in a log-in", char::from(tag)))
}

/// Takes one whole message.
fn whole(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, DecodeError> {
    let head = frame::head(input)
        .map_err(|_| DecodeError::upstream("a message of impossible length in the log-in"))?;
    match head {
        Some(head) if head.total > MAX_LOGIN => {
            Err(DecodeError::upstream("a message over 64 kB in the log-in"))
        }
        Some(head) if input.len() >= head.total => Ok(Some((head.tag, input.split_to(head.total).freeze()))),
        _ => Ok(None),
    }
}

impl Login for PostgresLogin {
    fn step(&mut self, input: &mut BytesMut) -> Result<LoginStep, DecodeError> {
        loop {
            match self.state {
                State::AskTls => {
                    self.state = State::AwaitTls;
                    // SSLRequest: length 8, code 80877103.
                    return Ok(LoginStep::Send(Bytes::from_static(&[0, 0, 0, 8, 4, 210, 22, 47])));
                }
                State::AwaitTls => return self.await_tls(input),
                State::Send => {
                    self.state = State::Authenticate;
                    return Ok(LoginStep::Send(self.startup.clone()));
                }
                State::Proving | State::Over => return Ok(LoginStep::Wait),
                State::Authenticate | State::Settle => {}
            }
            let Some((tag, message)) = whole(input)? else { return Ok(LoginStep::Wait) };
            if let Some(step) = self.message(tag, &message)? {
                return Ok(step);
            }
        }
    }

    fn prove(&mut self, proof: Proof) -> Result<LoginStep, DecodeError> {
        if self.state == State::Proving {
            self.state = State::Authenticate;
        }
        let body = match proof {
            // PasswordMessage ends with a zero byte, SASLResponse does not.
            Proof::Response(secret) => {
                let mut body = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(1)));
                body.extend_from_slice(&secret);
                if !self.sasl {
                    body.push(0);
                }
                body
            }
            Proof::Begin { mechanism, message } => {
                self.sasl = true;
                let mut body = BytesMut::new();
                put_text(&mut body, &mechanism);
                put_value(&mut body, Some(&message));
                Zeroizing::new(body.to_vec())
            }
            Proof::Accepted => return Ok(LoginStep::Wait),
        };
        let length = u32::try_from(body.len().saturating_add(4))
            .map_err(|_| DecodeError::client("a proof of impossible length"))?;
        let mut message = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(5)));
        message.push(b'p');
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&body);
        // Wiped when the last holder lets go.
        Ok(LoginStep::Send(Bytes::from_owner(message)))
    }
}

/// Gives a log-in `data` as the upstream's words.
pub(super) fn fuzz(data: &[u8]) {
    for tls in [UpstreamTls::Required, UpstreamTls::Plaintext] {
        let opening = Opening {
            held: interceptor_core::permit::Held::new(0, Vec::new(), Bytes::new()),
            claimed: Principal::default(),
            parameters: Vec::new(),
            version: VERSION_3_0,
            then: Inspection::Full,
        };
        fuzzing::log_in(&mut PostgresLogin::new(&Principal::default(), &opening, tls), data);
    }
}
