//! Fingerprints of the secrets in use, by which the proxy finds them in what agents read without having them.
//!
//! Promises: only a secret that nobody can guess has a fingerprint, since whoever has that can hold guesses against it; the
//! key is drawn for this process and in nobody's hands but the proxy's. Of a weaker secret the operator hears, once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use interceptor_core::{
    inventory::{Inventory, SecretSource},
    mask::Fingerprint,
    model::{AgentName, ResourceName},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    credentials::choose,
    messages::{Answer, Blob, Hidden, Mark},
    secrets::{Secret, Secrets},
};

/// The shortest secret that is looked for, in bytes.
const SHORTEST: usize = 20;
/// The longest: what is longer is no password.
const LONGEST: usize = 1024;
/// How many secrets' fingerprints are kept ready.
const KEPT: usize = 1024;

/// Makes fingerprints.
#[derive(Debug)]
pub(super) struct Fingerprints {
    key: Hidden,
    /// By a digest of the secret, so that each is weighed once; none for one that can be guessed.
    ready: Mutex<HashMap<[u8; 32], Option<Fingerprint>>>,
    /// The resources whose weak secrets were told of.
    told: Mutex<BTreeSet<ResourceName>>,
}

impl Fingerprints {
    /// Those with a key that is drawn now.
    pub(super) fn new() -> Result<Self, String> {
        let mut key = Zeroizing::new(vec![0; 32]);
        getrandom::fill(&mut key).map_err(|error| format!("no random key for fingerprints: {error}"))?;
        Ok(Self { key: Hidden(key), ready: Mutex::default(), told: Mutex::default() })
    }

    /// The fingerprints of the secrets that `agent` uses at `resource` and at others, as far as they are at hand.
    pub(super) fn of(
        &self,
        inventory: &Inventory,
        secrets: &Secrets,
        resource: &ResourceName,
        agent: &AgentName,
    ) -> Result<Answer, String> {
        let mut each = Vec::new();
        for name in inventory.resources.keys() {
            let source = choose(inventory, name, agent).ok().and_then(|(.., chosen)| chosen.secret.as_ref());
            let Some(source) = source else { continue };
            match secrets.at_hand(source) {
                Ok(Some(secret)) => each.extend(self.weighed(name, &secret)),
                Ok(None) => {}
                // Another one's may be missing for now.
                Err(error) if name == resource => return Err(format!("resource {name}: {error}")),
                Err(_) => {}
            }
        }
        let mark = |one: Fingerprint| Mark {
            length: one.length,
            pair: one.pair,
            offset: one.offset,
            digest: Blob(one.digest.to_vec()),
        };
        Ok(Answer::Sought { key: self.key.clone(), each: each.into_iter().map(mark).collect() })
    }

    fn weighed(&self, resource: &ResourceName, secret: &Secret) -> Option<Fingerprint> {
        let of = <[u8; 32]>::from(Sha256::digest(secret.expose()));
        // A panic elsewhere leaves it whole: every change is one call.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= KEPT {
            ready.clear();
        }
        let found = ready.entry(of).or_insert_with(|| {
            let key = <&[u8; 32]>::try_from(self.key.0.as_slice()).ok()?;
            cannot_be_guessed(secret.expose()).then(|| Fingerprint::of(secret.expose(), key)).flatten()
        });
        if found.is_none()
            && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(resource.clone())
        {
            tracing::warn!(
                "resource {resource}: its password could be guessed, so that it is not looked for in what agents read: \
                 give it a generated one of 24 characters or more"
            );
        }
        found.clone()
    }
}

/// Whether nobody guesses it, who can try as often as zxcvbn counts: 2^64 times.
fn cannot_be_guessed(secret: &[u8]) -> bool {
    let text = std::str::from_utf8(secret).ok().filter(|text| (SHORTEST..=LONGEST).contains(&text.len()));
    text.is_some_and(|text| zxcvbn::zxcvbn(text, &[]).guesses() == u64::MAX)
}

impl Secrets {
    /// The secret that `source` names, if it can be had without asking a program.
    fn at_hand(&self, source: &SecretSource) -> Result<Option<Secret>, super::secrets::SecretError> {
        match source {
            SecretSource::File(_) | SecretSource::Systemd(_) => self.fetch(source).map(Some),
            SecretSource::Exec(argv) => Ok(self.said(argv)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_guesses_has_a_fingerprint() {
        for (secret, cannot) in [
            ("vQ7#kd82Lmz!pX04tRw9Hs3c", true),
            ("3f1c9a7e5b2d8046c1e9f7a35d2b8e60", true),
            ("b1c6e7f0-93d4-4f7e-a2b8-5c0d9e1f3a76", true),
            ("hunter2", false),
            ("vQ7#kd82Lmz!pX04tR", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("passwordpasswordpassword", false),
            ("qwertyuiopasdfghjklzxcvbnm", false),
            ("correcthorsebatterystaple", false),
        ] {
            assert_eq!(cannot_be_guessed(secret.as_bytes()), cannot, "{secret}");
        }
        assert!(!cannot_be_guessed(&[0xff; 40]));
    }
}
