//! SCRAM-SHA-256, with and without channel binding (RFC 5802, 7677, 5929), as the client.
//!
//! Promises: the nonce is ours and random; the server must extend it, ask for a sane number of iterations, and show
//! in its last message that it knows the password too; that is compared in constant time. Nothing here does I/O.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

type HmacSha256 = Hmac<Sha256>;
type Key = Zeroizing<[u8; 32]>;

/// How often the password is hashed: fewer is too weak, more is an attack on our time.
pub const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// The longest message of a server.
const MESSAGE_LIMIT: usize = 16 * 1024;

/// Why an exchange failed: always the server's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not a message of SCRAM.
    #[error("its SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    /// The nonce is not ours with something added.
    #[error("its nonce does not extend ours: somebody may be between us and it")]
    Nonce,
    /// Outside of [`ITERATIONS`].
    #[error("it asks for {0} iterations, where 4096 to 1000000 are sane: set scram_iterations there")]
    Iterations(u32),
    /// It named an error instead of a proof.
    #[error("it answered the proof with {0:?}: the password is wrong, or the user does not exist")]
    Refused(String),
    /// It does not know the password.
    #[error("it could not prove that it knows the password: it is not the server that it claims to be")]
    Signature,
    /// A message out of order.
    #[error("its SCRAM messages are out of order")]
    Order,
    /// No random numbers.
    #[error("the host gives no random numbers")]
    Random,
}

/// What is told to the server about channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// `n`: we cannot bind, since there is no TLS.
    Unable,
    /// `y`: we could, and believe that the server cannot. A server that can will notice somebody in between.
    NotOffered,
    /// `p`: bound to this `tls-server-end-point`.
    EndPoint(Vec<u8>),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Unable => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    fn encoded(&self) -> String {
        let mut input = self.header().as_bytes().to_vec();
        if let Self::EndPoint(data) = self {
            input.extend_from_slice(data);
        }
        STANDARD.encode(input)
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Scram {
    binding: Binding,
    nonce: String,
    first_bare: String,
    expected: Option<Expected>,
}

struct Expected {
    server_key: Key,
    auth_message: Vec<u8>,
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(***)")
    }
}

impl Scram {
    /// Begins as `user`. PostgreSQL takes the user from its start-up message and ignores this one.
    pub fn begin(user: &str, binding: Binding) -> Result<Self, ScramError> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|_| ScramError::Random)?;
        Ok(Self::with_nonce(user, binding, STANDARD.encode(random)))
    }

    fn with_nonce(user: &str, binding: Binding, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { binding, nonce, first_bare, expected: None }
    }

    /// The client-first-message.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare).into_bytes()
    }

    /// The client-final-message for the server-first-message.
    pub fn respond(&mut self, password: &[u8], message: &[u8]) -> Result<Zeroizing<Vec<u8>>, ScramError> {
        if self.expected.is_some() {
            return Err(ScramError::Order);
        }
        let server = ServerFirst::parse(message)?;
        let added = server.nonce.strip_prefix(self.nonce.as_str()).unwrap_or_default();
        if added.is_empty() {
            return Err(ScramError::Nonce);
        }
        if !ITERATIONS.contains(&server.iterations) {
            return Err(ScramError::Iterations(server.iterations));
        }
        let without_proof = format!("c={},r={}", self.binding.encoded(), server.nonce);
        let auth_message = format!("{},{},{without_proof}", self.first_bare, server.text).into_bytes();

        let mut salted: Key = Zeroizing::new([0; 32]);
        let prepared = prepare(password);
        pbkdf2::pbkdf2_hmac::<Sha256>(&prepared, &server.salt, server.iterations, &mut *salted);
        let client_key = keyed(&*salted, b"Client Key");
        let stored_key: Key = Zeroizing::new(Sha256::digest(*client_key).into());
        let signature = keyed(&*stored_key, &auth_message);
        let mut proof = client_key;
        proof.iter_mut().zip(signature.iter()).for_each(|(p, s)| *p ^= s);

        self.expected = Some(Expected { server_key: keyed(&*salted, b"Server Key"), auth_message });
        let proof = Zeroizing::new(STANDARD.encode(*proof));
        let mut last = Zeroizing::new(Vec::with_capacity(without_proof.len() + proof.len() + 3));
        last.extend_from_slice(without_proof.as_bytes());
        last.extend_from_slice(b",p=");
        last.extend_from_slice(proof.as_bytes());
        Ok(last)
    }

    /// Whether the server-final-message proves that the server knows the password.
    pub fn finish(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let expected = self.expected.take().ok_or(ScramError::Order)?;
        let text = text_of(message)?;
        let first = text.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ScramError::Refused(error.chars().take(80).collect()));
        }
        let signature = first.strip_prefix("v=").ok_or(ScramError::Malformed("no verifier"))?;
        let signature = STANDARD.decode(signature).map_err(|_| ScramError::Malformed("verifier"))?;
        let mut mac = mac(&*expected.server_key);
        mac.update(&expected.auth_message);
        mac.verify_slice(&signature).map_err(|_| ScramError::Signature)
    }
}

struct ServerFirst<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let text = text_of(message)?;
        let mut parts = text.split(',');
        let mut next = |prefix: &str, what| {
            parts.next().and_then(|part| part.strip_prefix(prefix)).ok_or(ScramError::Malformed(what))
        };
        // A mandatory extension (`m=`) stands first, and is thereby refused, as RFC 5802 wants it.
        let nonce = next("r=", "no nonce")?;
        let salt = next("s=", "no salt")?;
        let iterations = next("i=", "no iteration count")?;
        if !nonce.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            return Err(ScramError::Malformed("nonce"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::Malformed("salt"))?;
        if salt.is_empty() {
            return Err(ScramError::Malformed("empty salt"));
        }
        let iterations = iterations.parse().map_err(|_| ScramError::Malformed("iteration count"))?;
        Ok(Self { text, nonce, salt, iterations })
    }
}

fn text_of(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_LIMIT {
        return Err(ScramError::Malformed("too long"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

/// SASLprep where the password allows it, and the very bytes where not: as PostgreSQL does on both sides.
fn prepare(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .map(|text| Zeroizing::new(text.into_owned()));
    match prepared {
        Some(text) if !text.is_empty() => Zeroizing::new(text.as_bytes().to_vec()),
        _ => Zeroizing::new(password.to_vec()),
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length; its constructor only looks fallible")]
fn mac(key: &[u8]) -> HmacSha256 {
    <HmacSha256 as Mac>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn keyed(key: &[u8], message: &[u8]) -> Key {
    let mut mac = mac(key);
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let mut scram = Scram::with_nonce("user", Binding::Unable, "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = scram.respond(b"pencil", server).expect("a proof");
        assert_eq!(
            String::from_utf8_lossy(&last),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").expect("the server knows it");
    }

    fn begun() -> Scram {
        Scram::with_nonce("", Binding::NotOffered, "abc".to_owned())
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let mut scram = begun();
        scram.respond(b"x", b"r=abcdef,s=AAAA,i=4096").expect("a proof");
        let wrong = format!("v={}", STANDARD.encode([7; 32]));
        assert_eq!(scram.finish(wrong.as_bytes()), Err(ScramError::Signature));
        assert_eq!(scram.finish(wrong.as_bytes()), Err(ScramError::Order), "one try only");
    }

    #[test]
    fn a_doubtful_server_is_refused() {
        let cases: [(&[u8], ScramError); 9] = [
            (b"r=abd,s=AAAA,i=4096", ScramError::Nonce),
            (b"r=abc,s=AAAA,i=4096", ScramError::Nonce),
            (b"r=abcd,s=AAAA,i=4095", ScramError::Iterations(4095)),
            (b"r=abcd,s=AAAA,i=1000001", ScramError::Iterations(1_000_001)),
            (b"r=abcd,s=AAAA,i=-1", ScramError::Malformed("iteration count")),
            (b"r=abcd,s=,i=4096", ScramError::Malformed("empty salt")),
            (b"m=x,r=abcd,s=AAAA,i=4096", ScramError::Malformed("no nonce")),
            (b"\xff", ScramError::Malformed("not UTF-8")),
            (b"", ScramError::Malformed("no nonce")),
        ];
        for (message, error) in cases {
            assert_eq!(begun().respond(b"x", message).map(|_| ()), Err(error), "{message:?}");
        }
        let mut scram = begun();
        scram.respond(b"x", b"r=abcdef,s=AAAA,i=4096").expect("a proof");
        assert_eq!(scram.finish(b"e=invalid-proof"), Err(ScramError::Refused("invalid-proof".to_owned())));
    }

    #[test]
    fn binding_is_told_and_bound() {
        let bound = Binding::EndPoint(vec![1, 2, 3]);
        let mut scram = Scram::with_nonce("a=b,c", bound, "abc".to_owned());
        assert_eq!(scram.first(), b"p=tls-server-end-point,,n=a=3Db=2Cc,r=abc");
        let last = scram.respond(b"x", b"r=abcd,s=AAAA,i=4096").expect("a proof");
        let expected = format!("c={},", STANDARD.encode(b"p=tls-server-end-point,,\x01\x02\x03"));
        assert!(last.starts_with(expected.as_bytes()));
        assert_eq!(Binding::Unable.encoded(), "biws");
        assert_eq!(Binding::NotOffered.encoded(), "eSws");
    }

    /// The examples of RFC 4013, section 3, and what PostgreSQL does with what is prohibited.
    #[test]
    fn passwords_are_prepared() {
        assert_eq!(*prepare("I\u{AD}X".as_bytes()), b"IX");
        assert_eq!(*prepare("\u{2168}".as_bytes()), b"IX");
        assert_eq!(*prepare(b"a\x07b"), b"a\x07b");
        assert_eq!(*prepare(b"\xff\xfe"), b"\xff\xfe");
    }

    #[test]
    fn no_key_is_printed() {
        let mut scram = begun();
        scram.respond(b"hunter2", b"r=abcdef,s=AAAA,i=4096").expect("a proof");
        assert!(format!("{scram:?}").contains("Expected(***)"));
    }
}
