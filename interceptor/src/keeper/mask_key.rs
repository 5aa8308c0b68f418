//! The key that masks are made with: by it equal values have equal digests, across restarts of the daemon.
//!
//! Promises: it is this host's alone, so that two hosts made from one image do not share it, and digests of one tell
//! nothing at the other; it is drawn once and never changed.

use std::{fs, path::Path};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{authority::write_new, secrets::read_private};

/// The file in the keeper's own folder.
const FILE: &str = "mask.key";
/// How long what is drawn is, in bytes.
const LENGTH: usize = 32;
/// What tells hosts apart that were made from one image.
const MACHINE: &str = "/etc/machine-id";

/// The key, from what is kept in `folder`, where it is drawn if there is nothing yet.
pub(super) fn ensure(folder: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let machine = fs::read(MACHINE).ok().filter(|machine| !machine.trim_ascii().is_empty());
    of(folder, machine.as_deref())
}

/// Of a host without a name of its own nothing is kept: its key lasts as long as this process.
fn of(folder: &Path, machine: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, String> {
    let Some(machine) = machine else { return drawn() };
    if folder.join(FILE).symlink_metadata().is_err() {
        let text = Zeroizing::new(hex::encode(&*drawn()?));
        write_new(folder, FILE, text.as_bytes(), 0o600).map_err(|error| error.to_string())?;
    }
    let text = read_private(folder, Path::new(FILE), 0o077).map_err(|error| error.to_string())?;
    let text = Zeroizing::new(text);
    let kept = hex::decode(text.trim_ascii()).map(Zeroizing::new).ok().filter(|kept| kept.len() == LENGTH);
    let path = folder.join(FILE);
    let kept = kept.ok_or_else(|| {
        let path = path.display();
        format!("{path} is not {LENGTH} bytes in hexadecimal: restore it, or remove it for a new key")
    })?;
    let mac = Hmac::<Sha256>::new_from_slice(&kept).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(mac.chain_update(machine.trim_ascii()).finalize().into_bytes().to_vec()))
}

fn drawn() -> Result<Zeroizing<Vec<u8>>, String> {
    let mut key = Zeroizing::new(vec![0; LENGTH]);
    getrandom::fill(&mut key).map_err(|error| format!("no random key for masks: {error}"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lasts_on_its_host_and_is_no_other_hosts() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |machine| of(folder.path(), machine).expect("a key");
        let first = key(Some(b"a\n"));
        assert_eq!(first, key(Some(b"a")));
        assert_ne!(first, key(Some(b"b")));
        assert_ne!(key(None), key(None));
        assert_ne!(fs::read_to_string(folder.path().join(FILE)).expect("the file"), hex::encode(&*first));
        fs::write(folder.path().join(FILE), "short").expect("a file");
        assert!(
            of(folder.path(), Some(b"a")).expect_err("too short").contains("not 32 bytes in hexadecimal")
        );
    }
}
