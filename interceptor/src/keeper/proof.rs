//! Answers an upstream's challenges on behalf of agents, without the proxy ever holding the secret where the
//! protocol can do without it.
//!
//! Promises: a challenge of another protocol than the resource's, or weaker than the credential's minimum, is refused; a password goes out in clear only inside
//! TLS whose certificate was verified, or where the inventory dials a Unix socket of this host; an upstream that asks for nothing is refused unless nothing was the
//! minimum; the state of a log-in belongs to one resource and agent, and ends with it or after [`LOGIN_LIFE`].
//! A compromised proxy can still ask for proofs on behalf of any agent, and can lie about TLS: what it then gets
//! is a password only where the inventory allows cleartext.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use interceptor_core::{
    inventory::{AuthMethod, Credential, Inventory, Tls, Upstream},
    protocol::Proof,
};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    credentials::{NoCredential, choose},
    messages::{Leg, Question, Whose},
    scram::{Binding, Scram, ScramError},
    secrets::{Secret, SecretError, Secrets},
};

/// How long a log-in may take.
pub const LOGIN_LIFE: Duration = Duration::from_secs(60);
/// How many log-ins may be under way.
pub const LOGINS_LIMIT: usize = 4096;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why a challenge is not answered. Names the resource and the mend; never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// There is no credential to answer with.
    #[error(transparent)]
    NoCredential(#[from] NoCredential),
    /// The secret could not be had.
    #[error("resource {resource}, credential {place}: {source}")]
    Secret {
        /// The resource.
        resource: String,
        /// The credential's place, from 1.
        place: usize,
        /// Why.
        source: SecretError,
    },
    /// Everything else: who, what, mend.
    #[error("resource {resource}, credential {place}: {why}")]
    Refused {
        /// The resource.
        resource: String,
        /// The credential's place, from 1.
        place: usize,
        /// In words.
        why: String,
    },
    /// SCRAM went wrong, by the upstream's fault.
    #[error("resource {resource}: upstream: {source}")]
    Scram {
        /// The resource.
        resource: String,
        /// Why.
        source: ScramError,
    },
    /// A log-in that we do not know, or of somebody else.
    #[error("this log-in is not known (any more), or belongs to another resource or agent: log in again")]
    Stranger,
    /// Too many at once.
    #[error("more than {LOGINS_LIMIT} log-ins are under way: try again")]
    TooMany,
}

#[derive(Debug)]
enum State {
    /// Nothing has been proven.
    Fresh,
    /// SASL was begun.
    Begun(Scram),
    /// Our proof was sent; the server's is due.
    Responded(Scram),
    /// The password was proven; with SCRAM, by both sides.
    Proven,
}

#[derive(Debug)]
struct Login {
    whose: Whose,
    since: Instant,
    signed: bool,
    state: State,
}

/// The log-ins under way.
#[derive(Debug, Default)]
pub struct Logins {
    table: Mutex<HashMap<u64, Login>>,
}

/// One credential, and what an answer may depend on besides.
struct Chosen<'a> {
    resource: &'a str,
    protocol: Option<&'a str>,
    tls: &'a Tls,
    upstream: &'a Upstream,
    place: usize,
    credential: &'a Credential,
    signed: bool,
}

impl Logins {
    /// Answers `question` for `whose`.
    pub fn prove(
        &self,
        inventory: &Inventory,
        secrets: &Secrets,
        whose: &Whose,
        question: &Question,
        leg: &Leg,
    ) -> Result<Proof, ProofError> {
        let (resource, place, credential) = choose(inventory, &whose.resource, &whose.agent)?;
        let (state, signed) = self.take(whose)?;
        let name = resource.name.as_str();
        let (tls, upstream) = (&resource.tls, &resource.upstream);
        let protocol = resource.protocol.as_deref();
        let chosen = Chosen { resource: name, protocol, tls, upstream, place: place + 1, credential, signed };
        // A failure leaves the log-in fresh: nothing half-proven stays.
        let (proof, state) = chosen.answer(secrets, state, question, leg)?;
        self.put(whose, state);
        Ok(proof)
    }

    /// Notes that the client certificate's key signed the handshake of this log-in.
    pub fn signed(&self, whose: &Whose) -> Result<(), ProofError> {
        self.take(whose)?;
        if let Some(login) = self.lock().get_mut(&whose.login) {
            login.signed = true;
        }
        Ok(())
    }

    /// Forgets a log-in.
    pub fn finish(&self, login: u64) {
        self.lock().remove(&login);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Login>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log-in's state, leaving it fresh; a new log-in is noted.
    fn take(&self, whose: &Whose) -> Result<(State, bool), ProofError> {
        let mut table = self.lock();
        table.retain(|_, login| login.since.elapsed() < LOGIN_LIFE);
        if let Some(login) = table.get_mut(&whose.login) {
            if login.whose != *whose {
                return Err(ProofError::Stranger);
            }
            return Ok((std::mem::replace(&mut login.state, State::Fresh), login.signed));
        }
        if table.len() >= LOGINS_LIMIT {
            return Err(ProofError::TooMany);
        }
        let fresh = Login { whose: whose.clone(), since: Instant::now(), signed: false, state: State::Fresh };
        table.insert(whose.login, fresh);
        Ok((State::Fresh, false))
    }

    fn put(&self, whose: &Whose, state: State) {
        if let Some(login) = self.lock().get_mut(&whose.login) {
            login.state = state;
        }
    }
}

impl Chosen<'_> {
    fn answer(
        &self,
        secrets: &Secrets,
        state: State,
        question: &Question,
        leg: &Leg,
    ) -> Result<(Proof, State), ProofError> {
        self.check_protocol(question)?;
        self.check_leg(leg)?;
        match (question, state) {
            (Question::Nothing, state) => self.nothing(state),
            (Question::Cleartext, State::Fresh) => {
                self.check_minimum(AuthMethod::Cleartext, "the password in clear")?;
                self.check_clear(leg)?;
                let password = self.secret(secrets)?;
                let response = Zeroizing::new(password.expose().to_vec());
                Ok((Proof::Response(response), State::Proven))
            }
            (Question::Md5 { user, salt }, State::Fresh) => {
                self.check_minimum(AuthMethod::Md5, "md5")?;
                if *user != self.credential.user {
                    return Err(self.refused("the log-in is for another user than the credential's"));
                }
                let response = md5_response(self.secret(secrets)?.expose(), user, *salt);
                Ok((Proof::Response(response), State::Proven))
            }
            // A server may greet with one plugin and have another for the user.
            (Question::MysqlNative { scramble }, State::Fresh | State::Proven) => {
                self.check_minimum(AuthMethod::MysqlNative, "mysql_native_password")?;
                let response = mysql_native(self.secret(secrets)?.expose(), scramble);
                Ok((Proof::Response(response), State::Proven))
            }
            (Question::CachingSha2 { scramble }, State::Fresh | State::Proven) => {
                self.check_minimum(AuthMethod::CachingSha2, "caching_sha2_password")?;
                let response = caching_sha2(self.secret(secrets)?.expose(), scramble);
                Ok((Proof::Response(response), State::Proven))
            }
            (Question::CachingSha2Full, State::Proven) => {
                self.check_minimum(AuthMethod::CachingSha2, "caching_sha2_password")?;
                self.check_clear(leg)?;
                let password = self.secret(secrets)?;
                let mut response = Zeroizing::new(Vec::with_capacity(password.expose().len() + 1));
                response.extend_from_slice(password.expose());
                response.push(0);
                Ok((Proof::Response(response), State::Proven))
            }
            (Question::SaslBegin { mechanisms }, State::Fresh) => self.begin(mechanisms, leg),
            (Question::SaslContinue { message }, State::Begun(mut scram)) => {
                let password = self.secret(secrets)?;
                let response = scram.respond(password.expose(), &message.0).map_err(|e| self.scram(e))?;
                Ok((Proof::Response(response), State::Responded(scram)))
            }
            (Question::SaslFinish { message }, State::Responded(mut scram)) => {
                scram.finish(&message.0).map_err(|e| self.scram(e))?;
                Ok((Proof::Accepted, State::Proven))
            }
            (
                Question::Cleartext
                | Question::Md5 { .. }
                | Question::MysqlNative { .. }
                | Question::CachingSha2 { .. }
                | Question::CachingSha2Full
                | Question::SaslBegin { .. }
                | Question::SaslContinue { .. }
                | Question::SaslFinish { .. },
                _,
            ) => Err(self.refused("the upstream's authentication messages are out of order")),
        }
    }

    fn nothing(&self, state: State) -> Result<(Proof, State), ProofError> {
        let minimum = self.credential.minimum;
        let enough = match state {
            State::Proven => true,
            State::Fresh => {
                minimum == AuthMethod::None || (minimum == AuthMethod::Certificate && self.signed)
            }
            // The server let us in without showing that it knows the password.
            State::Begun(_) | State::Responded(_) => false,
        };
        if enough {
            return Ok((Proof::Accepted, State::Proven));
        }
        Err(self.refused(&format!(
            "the upstream let us in without the proof that `minimum` wants ({}): it may be a false one, or its rules \
             say `trust` or `peer`; make it ask (pg_hba.conf), or lower `minimum`",
            named(minimum)
        )))
    }

    fn begin(&self, mechanisms: &[String], leg: &Leg) -> Result<(Proof, State), ProofError> {
        let offered = |name: &str| mechanisms.iter().any(|m| m == name);
        let data = match leg {
            Leg::Tls { binding: Some(data), .. } => Some(&data.0),
            Leg::Tls { binding: None, .. } | Leg::Plaintext => None,
        };
        let (mechanism, binding) = match data {
            Some(data) if offered(PLUS) => (PLUS, Binding::EndPoint(data.clone())),
            Some(_) if offered(PLAIN) => (PLAIN, Binding::NotOffered),
            None if offered(PLAIN) => (PLAIN, Binding::Unable),
            _ => {
                return Err(self.refused(
                    "the upstream offers no mechanism that we speak: set its password_encryption to scram-sha-256",
                ));
            }
        };
        let method = if mechanism == PLUS { AuthMethod::ScramSha256Plus } else { AuthMethod::ScramSha256 };
        self.check_minimum(method, mechanism)?;
        // PostgreSQL takes the user from the start-up message and wants this one empty or ignored.
        let scram = Scram::begin("", binding).map_err(|e| self.scram(e))?;
        let proof = Proof::Begin { mechanism: mechanism.to_owned(), message: scram.first() };
        Ok((proof, State::Begun(scram)))
    }

    /// What a proof is good for is the protocol's: that of one may be what another's server accepts.
    fn check_protocol(&self, question: &Question) -> Result<(), ProofError> {
        let of: &[&str] = match question {
            Question::Nothing | Question::Cleartext => &["postgres", "redis"],
            Question::Md5 { .. }
            | Question::SaslBegin { .. }
            | Question::SaslContinue { .. }
            | Question::SaslFinish { .. } => &["postgres"],
            Question::MysqlNative { .. } | Question::CachingSha2 { .. } | Question::CachingSha2Full => {
                &["mysql"]
            }
        };
        if self.protocol.is_some_and(|protocol| of.contains(&protocol)) {
            return Ok(());
        }
        Err(self.refused(&format!(
            "the proxy asks for a proof of {}, and the resource's `protocol` is {}: nothing is proven; if the inventory \
             was changed, log in again",
            of.join(" or "),
            self.protocol.unwrap_or("none"),
        )))
    }

    /// The proxy must have done what the inventory says about TLS before any proof is given.
    fn check_leg(&self, leg: &Leg) -> Result<(), ProofError> {
        let fits = match (self.tls, leg) {
            (Tls::Verified { .. }, Leg::Tls { verified, .. }) => *verified,
            (Tls::Unverified { .. }, Leg::Tls { .. }) | (Tls::Plaintext { .. }, _) => true,
            (Tls::Verified { .. } | Tls::Unverified { .. }, Leg::Plaintext) => false,
        };
        if fits {
            return Ok(());
        }
        Err(self.refused(
            "the connection is less secure than `tls` in resources.toml says: nothing is proven over it",
        ))
    }

    fn check_clear(&self, leg: &Leg) -> Result<(), ProofError> {
        // Between this host's processes nobody listens; who answers there, the inventory has said why that is enough.
        let by_socket = matches!((self.upstream, leg), (Upstream::Socket(_), Leg::Plaintext));
        if by_socket || matches!(leg, Leg::Tls { verified: true, .. }) {
            return Ok(());
        }
        Err(self.refused(
            "the upstream wants the password in clear, which goes out only inside TLS with a verified certificate, \
             or by a Unix socket: turn on verified TLS, or let the upstream ask for scram-sha-256",
        ))
    }

    fn check_minimum(&self, method: AuthMethod, asked: &str) -> Result<(), ProofError> {
        let minimum = self.credential.minimum;
        // With a certificate shown, a password is an addition to it.
        let by_certificate = minimum == AuthMethod::Certificate && self.signed;
        let enough = method >= minimum || (by_certificate && method >= AuthMethod::ScramSha256);
        if enough {
            return Ok(());
        }
        Err(self.refused(&format!(
            "the upstream asks for {asked}, which is weaker than `minimum` ({}): let it ask for more (pg_hba.conf, \
             password_encryption), or lower `minimum`",
            named(minimum)
        )))
    }

    fn secret(&self, secrets: &Secrets) -> Result<Secret, ProofError> {
        let source = self.credential.secret.as_ref().ok_or_else(|| {
            self.refused("the upstream wants a password, and the credential has no `secret`: add one")
        })?;
        secrets.fetch(source).map_err(|source| ProofError::Secret {
            resource: self.resource.to_owned(),
            place: self.place,
            source,
        })
    }

    fn refused(&self, why: &str) -> ProofError {
        ProofError::Refused { resource: self.resource.to_owned(), place: self.place, why: why.to_owned() }
    }

    fn scram(&self, source: ScramError) -> ProofError {
        ProofError::Scram { resource: self.resource.to_owned(), source }
    }
}

fn named(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::None => "none",
        AuthMethod::Cleartext => "cleartext",
        AuthMethod::Md5 => "md5",
        AuthMethod::MysqlNative => "mysql-native-password",
        AuthMethod::CachingSha2 => "caching-sha2-password",
        AuthMethod::ScramSha256 => "scram-sha-256",
        AuthMethod::ScramSha256Plus => "scram-sha-256-plus",
        AuthMethod::Certificate => "certificate",
    }
}

/// `md5` and the hexadecimal md5 of (the hexadecimal md5 of password and user) and the salt.
fn md5_response(password: &[u8], user: &str, salt: [u8; 4]) -> Zeroizing<Vec<u8>> {
    let inner = Md5::new().chain_update(password).chain_update(user).finalize();
    let inner = Zeroizing::new(hex::encode(inner));
    let outer = Md5::new().chain_update(inner.as_bytes()).chain_update(salt).finalize();
    Zeroizing::new(format!("md5{}", hex::encode(outer)).into_bytes())
}

/// The SHA-1 of the password, hidden by one of the scramble and of that SHA-1's own.
fn mysql_native(password: &[u8], scramble: &[u8]) -> Zeroizing<Vec<u8>> {
    let stage = Zeroizing::new(<[u8; 20]>::from(Sha1::digest(password)));
    let mask = Sha1::new().chain_update(scramble).chain_update(Sha1::digest(&stage[..])).finalize();
    hidden_by(&stage[..], &mask, password)
}

/// The SHA-256 of the password, hidden by one of that SHA-256's own and of the scramble.
fn caching_sha2(password: &[u8], scramble: &[u8]) -> Zeroizing<Vec<u8>> {
    let stage = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(password)));
    let mask = Sha256::new().chain_update(Sha256::digest(&stage[..])).chain_update(scramble);
    hidden_by(&stage[..], &mask.finalize(), password)
}

/// An empty password has no response.
fn hidden_by(stage: &[u8], mask: &[u8], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let each = stage.iter().zip(mask).map(|(left, right)| left ^ right);
    Zeroizing::new(if password.is_empty() { Vec::new() } else { each.collect() })
}

#[cfg(test)]
#[path = "proof_tests.rs"]
pub(super) mod tests;
