//! What the proxy may ask of the keeper, and what it gets. Typed; unknown fields are refused.
//!
//! Promises: the proxy names a resource and an agent, never a file, a credential or a key; an answer holds a secret
//! only where the secret itself must be sent (a cleartext password). What carries secrets prints stars in `Debug`
//! and wipes its memory.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use interceptor_core::{
    model::{AgentName, ResourceName, RunId, Spent},
    protocol::{Challenge, Proof},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::{
    channel::survives,
    store::{bindings, docket, packs},
};

/// Bytes that are no secret; base64 on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Decoded).map(Self)
    }
}

/// Bytes that are a secret: base64 on the wire, stars in `Debug`, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Decoded).map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

struct Decoded;

impl de::Visitor<'_> for Decoded {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        // Not the decoder's own error: it quotes the text.
        STANDARD.decode(text).map_err(|_| E::custom("not base64"))
    }
}

/// A question of the proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The proxy's number for it.
    pub id: u64,
    /// The question.
    pub ask: Ask,
}

/// The answer to the request with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// [`Request::id`].
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

/// Whose log-in it is. The keeper chooses the credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// The proxy's number for this log-in; never used twice.
    pub login: u64,
    /// The resource that is logged in to.
    pub resource: ResourceName,
    /// The agent on whose behalf.
    pub agent: AgentName,
}

/// What the keeper can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Are you there?
    Ping,
    /// Read the inventory again and forget what helper programs said.
    Reload,
    /// Answer this challenge of an upstream's.
    Prove {
        /// Whose log-in.
        whose: Whose,
        /// The challenge.
        question: Question,
        /// What the challenge came over.
        leg: Leg,
    },
    /// The client certificate chain of a log-in, where its credential has one.
    Identity {
        /// Whose log-in.
        whose: Whose,
    },
    /// Sign a TLS handshake with the client certificate's key.
    Sign {
        /// Whose log-in.
        whose: Whose,
        /// The TLS signature scheme's number.
        scheme: u16,
        /// What TLS wants signed, not hashed.
        message: Blob,
    },
    /// The log-in is over; forget it.
    Finish {
        /// [`Whose::login`].
        login: u64,
    },
    /// What a run's statements spent since a time, in seconds of the Unix epoch, as the record has it: for a proxy that
    /// was started again.
    Spent {
        /// The run.
        run: RunId,
        /// Since when.
        since: i64,
    },
    /// Where requests for approval stand, and changes to them.
    Approval(docket::Question),
    /// Undo packs.
    Pack(packs::Question),
    /// What is bound to labels.
    Binding(bindings::Question),
    /// The key that masks are made with.
    MaskKey,
    /// By what the secrets of `agent` are known where they stand, in a session of its at `resource`.
    Sought {
        /// The resource.
        resource: ResourceName,
        /// The agent.
        agent: AgentName,
    },
    /// Vouch for a message to the approvers' webhook, with the secret that it shares with us.
    Vouch(Blob),
    /// Make a certificate for the proxy's own key, towards agents.
    Mint {
        /// Which resource it will stand for.
        resource: ResourceName,
        /// Host names and addresses, all of them the resource's.
        names: Vec<String>,
        /// The public key: a DER SubjectPublicKeyInfo.
        public_key: Blob,
    },
}

/// How the proxy reaches the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Leg {
    /// No TLS.
    Plaintext,
    /// TLS.
    Tls {
        /// Whether the upstream's certificate was verified.
        verified: bool,
        /// The `tls-server-end-point` data of its certificate, where it has one.
        binding: Option<Blob>,
    },
}

/// [`Challenge`] on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// [`Challenge::Cleartext`].
    Cleartext,
    /// [`Challenge::Md5`].
    Md5 {
        /// The user.
        user: String,
        /// The salt.
        salt: [u8; 4],
    },
    /// [`Challenge::SaslBegin`].
    SaslBegin {
        /// What is offered.
        mechanisms: Vec<String>,
    },
    /// [`Challenge::SaslContinue`].
    SaslContinue {
        /// The server-first-message.
        message: Blob,
    },
    /// [`Challenge::SaslFinish`].
    SaslFinish {
        /// The server-final-message.
        message: Blob,
    },
    /// [`Challenge::MysqlNative`].
    MysqlNative {
        /// The scramble.
        scramble: [u8; 20],
    },
    /// [`Challenge::CachingSha2`].
    CachingSha2 {
        /// The scramble.
        scramble: [u8; 20],
    },
    /// [`Challenge::CachingSha2Full`].
    CachingSha2Full,
    /// [`Challenge::Nothing`].
    Nothing,
}

impl From<Challenge> for Question {
    fn from(challenge: Challenge) -> Self {
        match challenge {
            Challenge::Cleartext => Self::Cleartext,
            Challenge::Md5 { user, salt } => Self::Md5 { user, salt },
            Challenge::SaslBegin { mechanisms } => Self::SaslBegin { mechanisms },
            Challenge::SaslContinue { message } => Self::SaslContinue { message: Blob(message.to_vec()) },
            Challenge::SaslFinish { message } => Self::SaslFinish { message: Blob(message.to_vec()) },
            Challenge::MysqlNative { scramble } => Self::MysqlNative { scramble },
            Challenge::CachingSha2 { scramble } => Self::CachingSha2 { scramble },
            Challenge::CachingSha2Full => Self::CachingSha2Full,
            Challenge::Nothing => Self::Nothing,
        }
    }
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// Here I am.
    Pong,
    /// The inventory was read again.
    Reloaded,
    /// The log-in is forgotten.
    Finished,
    /// [`Proof::Response`].
    Response(Hidden),
    /// [`Proof::Begin`].
    Begin {
        /// The chosen mechanism.
        mechanism: String,
        /// The client-first-message.
        message: Blob,
    },
    /// [`Proof::Accepted`].
    Accepted,
    /// The client certificate, leaf first, and the TLS schemes that its key can sign with; `None` where the
    /// credential has no certificate.
    Identity(Option<Certificate>),
    /// A signature.
    Signature(Blob),
    /// A minted certificate.
    Minted {
        /// DER, leaf first, without the root.
        chain: Vec<Blob>,
        /// The end of its life, in seconds of the Unix epoch.
        not_after: i64,
    },
    /// What was spent, with the times in seconds of the Unix epoch, oldest first.
    Spent(Vec<(i64, Spent)>),
    /// To [`Ask::MaskKey`].
    MaskKey(Hidden),
    /// To [`Ask::Sought`].
    Sought {
        /// The key of the digests.
        key: Hidden,
        /// What each secret is known by.
        each: Vec<Mark>,
    },
    /// To [`Ask::Approval`].
    Approval(docket::Answer),
    /// To [`Ask::Pack`].
    Pack(packs::Answer),
    /// To [`Ask::Binding`].
    Binding(bindings::Answer),
    /// No, in words for the operator: who is guilty, of what, and the mend. Never holds a secret.
    Refused(String),
}

/// What a secret is known by: a [`Fingerprint`](interceptor_core::mask::Fingerprint) on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// How many bytes it has.
    pub length: usize,
    /// Two of them.
    pub pair: [u8; 2],
    /// Where these stand.
    pub offset: usize,
    /// The digest of all.
    pub digest: Blob,
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(***)")
    }
}

/// A client certificate whose key stays with the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// DER, leaf first.
    pub chain: Vec<Blob>,
    /// Numbers of the TLS signature schemes that its key can do.
    pub schemes: Vec<u16>,
}

impl From<Proof> for Answer {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Response(bytes) => Self::Response(Hidden(bytes)),
            Proof::Begin { mechanism, message } => Self::Begin { mechanism, message: Blob(message) },
            Proof::Accepted => Self::Accepted,
        }
    }
}

/// Reads any bytes as what the proxy sends and as what it gets: the fuzz target's whole body.
pub fn fuzz(bytes: &[u8]) {
    survives::<Request>(bytes);
    survives::<Reply>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_begins_with_are_messages() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/keeper");
        for seed in std::fs::read_dir(corpus).expect("the corpus") {
            let path = seed.expect("a seed").path();
            let bytes = std::fs::read(&path).expect("a seed");
            let is_one = serde_json::from_slice::<Request>(&bytes).is_ok()
                || serde_json::from_slice::<Reply>(&bytes).is_ok();
            assert!(is_one, "{}", path.display());
        }
    }

    #[test]
    fn a_secret_crosses_and_is_not_printed() {
        let reply = Reply { id: 1, answer: Answer::Response(Hidden(Zeroizing::new(b"hunter2".to_vec()))) };
        assert!(!format!("{reply:?}").contains("hunter2"));
        let text = serde_json::to_string(&reply).expect("serialises");
        assert_eq!(serde_json::from_str::<Reply>(&text).expect("reads"), reply);
    }

    #[test]
    fn unknown_fields_and_questions_are_refused() {
        for text in [
            r#"{"id":1,"ask":"ping","more":1}"#,
            r#"{"id":1,"ask":"dump"}"#,
            r#"{"id":1,"ask":{"finish":{"login":1,"file":"/etc/shadow"}}}"#,
            r#"{"id":1,"ask":{"identity":{"whose":{"login":1,"resource":"../x","agent":"a"}}}}"#,
            r#"{"id":1,"ask":{"mint":{"resource":"a","names":[],"public_key":"!!"}}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"id":1,"ask":"ping"}"#).is_ok());
    }
}
