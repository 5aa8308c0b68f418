//! The log-in upstream: our user, and a password that never passes through here in any form that `Debug` prints.
//!
//! Promise: it ends as the user that was asked for, or in a refusal that says why. It never sends anything in clear where TLS
//! was required, and the password only where the keeper gives it.

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    model::Principal,
    protocol::{Challenge, DecodeError, Greeting, Login, LoginStep, Proof, UpstreamTls},
};
use zeroize::Zeroizing;

use super::command::written;

/// The longest answer to a log-in, in bytes.
const LONGEST: usize = 64 * 1024;
/// Whom a server takes a client for that did not log in.
const DEFAULT: &str = "default";
/// Codes of errors that pass by themselves: the client may see them, and try again.
const PASSING: [&str; 3] = ["LOADING", "MASTERDOWN", "BUSY"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BeginTls,
    /// To find out whether a password is wanted.
    Ping,
    AwaitPing,
    /// A proof was asked for.
    Proving,
    /// It is not needed for the server to let us in.
    LetIn,
    AwaitAuth,
    Over,
}

/// One log-in.
#[derive(Debug)]
pub(super) struct RedisLogin {
    state: State,
    user: String,
}

impl RedisLogin {
    /// A log-in as `principal`.
    pub(super) fn new(principal: &Principal, tls: UpstreamTls) -> Self {
        let state = match tls {
            UpstreamTls::Required => State::BeginTls,
            UpstreamTls::Plaintext => State::Ping,
        };
        Self { state, user: principal.user.clone() }
    }

    fn ready(&mut self) -> LoginStep {
        self.state = State::Over;
        LoginStep::Ready(Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None })
    }

    fn refused(&mut self, line: &[u8]) -> LoginStep {
        self.state = State::Over;
        let message = String::from_utf8_lossy(line).into_owned();
        let code = message.split(' ').next().unwrap_or_default().to_owned();
        let passing = PASSING.contains(&code.as_str());
        let answer = passing.then(|| Bytes::from([b"-", line, b"\r\n"].concat()));
        LoginStep::Refused { code, message, answer }
    }

    /// What the server said to PING says whether it lets anybody in.
    fn pinged(&mut self, line: &Line) -> LoginStep {
        match line {
            Line::Error(error) if PASSING.iter().any(|code| error.starts_with(code.as_bytes())) => {
                self.refused(error)
            }
            Line::Error(error) if error.starts_with(b"DENIED") => self.refused(error),
            // It lets in whoever comes, as the user that is wanted, who may not PING perhaps.
            Line::Status | Line::Error(_) if self.user == DEFAULT && !line.wants_password() => {
                self.state = State::LetIn;
                LoginStep::Prove(Challenge::Nothing)
            }
            Line::Status | Line::Error(_) => {
                self.state = State::Proving;
                LoginStep::Prove(Challenge::Cleartext)
            }
        }
    }
}

/// One line of the server's.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Status,
    Error(Vec<u8>),
}

impl Line {
    fn wants_password(&self) -> bool {
        matches!(self, Self::Error(error) if error.starts_with(b"NOAUTH"))
    }
}

fn line(input: &mut BytesMut) -> Result<Option<Line>, DecodeError> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LONGEST {
            Err(DecodeError::upstream("its answer to the log-in is too long"))
        } else {
            Ok(None)
        };
    };
    let whole = input.split_to(end.saturating_add(1));
    let text = whole.strip_suffix(b"\r\n");
    match text.and_then(<[u8]>::split_first) {
        Some((b'+', _)) => Ok(Some(Line::Status)),
        Some((b'-', error)) => Ok(Some(Line::Error(error.to_vec()))),
        _ => Err(DecodeError::upstream("its answer to the log-in is not Redis'")),
    }
}

impl Login for RedisLogin {
    fn step(&mut self, input: &mut BytesMut) -> Result<LoginStep, DecodeError> {
        match self.state {
            State::BeginTls => {
                self.state = State::Ping;
                return Ok(LoginStep::StartTls);
            }
            State::Ping => {
                self.state = State::AwaitPing;
                return Ok(LoginStep::Send(written(&[b"PING"])));
            }
            State::LetIn => return Ok(self.ready()),
            State::Proving | State::Over => return Ok(LoginStep::Wait),
            State::AwaitPing | State::AwaitAuth => {}
        }
        let Some(line) = line(input)? else { return Ok(LoginStep::Wait) };
        if self.state == State::AwaitPing {
            return Ok(self.pinged(&line));
        }
        match line {
            Line::Status => Ok(self.ready()),
            Line::Error(error) => Ok(self.refused(&error)),
        }
    }

    fn prove(&mut self, proof: Proof) -> Result<LoginStep, DecodeError> {
        match (self.state, proof) {
            (State::LetIn, Proof::Accepted) => Ok(self.ready()),
            (State::Proving, Proof::Response(secret)) => {
                self.state = State::AwaitAuth;
                let head = format!(
                    "*3\r\n$4\r\nAUTH\r\n${}\r\n{}\r\n${}\r\n",
                    self.user.len(),
                    self.user,
                    secret.len()
                );
                let length = head.len().saturating_add(secret.len()).saturating_add(2);
                let mut message = Zeroizing::new(Vec::with_capacity(length));
                message.extend_from_slice(head.as_bytes());
                message.extend_from_slice(&secret);
                message.extend_from_slice(b"\r\n");
                // Wiped when the last holder lets go.
                Ok(LoginStep::Send(Bytes::from_owner(message)))
            }
            _ => Err(DecodeError::client("a proof that was not asked for")),
        }
    }
}
