//! What an agent must trust: files and variables for `run` and `ca env`.
//!
//! Rules:
//! - a variable that *replaces* a runtime's roots gets the host's roots and our authority; one that *adds* gets our
//!   authority alone;
//! - the agent's own settings stay: a variable that it has set already is not pointed elsewhere, but at a copy of
//!   **its** file with our authority added. `PGSSLROOTCERT=system` and other words that are no file stay as they are;
//! - only certificates are ever copied, whatever else a named file holds: the launcher may be able to read more
//!   than the agent, and the copies can be read by everybody.
//!
//! Java (which wants a key store) and NSS (Chromium) are not served by variables; the system's bundle, mounted over
//! [`bundle_paths`], serves what reads it. A directory of hashed certificates (`SSL_CERT_DIR`) is left alone.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// The longest bundle that is read.
const BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

/// Where distributions keep their bundle, most common first.
const BUNDLES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
];

/// What a variable does to the roots that its runtime has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It replaces them.
    Replaces,
    /// It adds to them.
    Adds,
}

/// Every variable that is set, and what it does.
pub const VARIABLES: [(&str, Effect); 20] = [
    ("SSL_CERT_FILE", Effect::Replaces),
    ("CURL_CA_BUNDLE", Effect::Replaces),
    ("REQUESTS_CA_BUNDLE", Effect::Replaces),
    ("GIT_SSL_CAINFO", Effect::Replaces),
    ("NODE_EXTRA_CA_CERTS", Effect::Adds),
    ("DENO_CERT", Effect::Adds),
    ("PIP_CERT", Effect::Replaces),
    ("CARGO_HTTP_CAINFO", Effect::Replaces),
    ("CODEX_CA_CERTIFICATE", Effect::Replaces),
    ("AWS_CA_BUNDLE", Effect::Replaces),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", Effect::Replaces),
    ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", Effect::Replaces),
    ("NIX_SSL_CERT_FILE", Effect::Replaces),
    ("NPM_CONFIG_CAFILE", Effect::Replaces),
    ("npm_config_cafile", Effect::Replaces),
    ("YARN_HTTPS_CA_FILE_PATH", Effect::Replaces),
    ("PERL_LWP_SSL_CA_FILE", Effect::Replaces),
    ("HTTPS_CA_FILE", Effect::Replaces),
    ("HEX_CACERTS_PATH", Effect::Replaces),
    (LIBPQ, Effect::Replaces),
];

/// libpq's variable, which has a default file and a word of its own.
const LIBPQ: &str = "PGSSLROOTCERT";

/// The files that the variables name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our authority alone.
    pub authority: PathBuf,
    /// The host's roots and our authority.
    pub bundle: PathBuf,
    folder: PathBuf,
}

/// Writes both files into `folder`, which must exist, and which the agent must be able to read and not to write.
pub fn files(ca_pem: &[u8], folder: &Path) -> io::Result<TrustFiles> {
    let ours = certificates(ca_pem)?;
    if ours.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the authority's file holds no certificate"));
    }
    let system = bundle_paths().first().map(|path| read_bundle(path)).transpose()?.unwrap_or_default();
    let found = TrustFiles {
        authority: folder.join("interceptor-ca.pem"),
        bundle: folder.join("bundle.pem"),
        folder: folder.to_owned(),
    };
    write_whole(&found.authority, &merged([&ours]))?;
    write_whole(&found.bundle, &merged([&system, &ours]))?;
    Ok(found)
}

/// The variables for an agent whose environment is `existing`; to be set over it. A file that `existing` names is
/// merged with our authority; one that cannot be read, or holds no certificate, gives way to the common bundle.
pub fn environment(files: &TrustFiles, existing: &[(String, String)]) -> Vec<(String, String)> {
    let value = |name: &str| existing.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let mut variables = Vec::new();
    // Several variables mostly name one file, and mostly the host's own bundle.
    let mut known: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
    let mut own_and_ours = |own: &Path| {
        let own = fs::canonicalize(own).ok()?;
        let made = known.entry(own).or_insert_with_key(|own| {
            let host = bundle_paths().first().is_some_and(|host| host == own);
            if host { Some(files.bundle.clone()) } else { own_and_ours(files, own).ok() }
        });
        made.clone()
    };
    for (name, effect) in VARIABLES {
        let own = value(name).filter(|value| !value.is_empty());
        let common = match effect {
            Effect::Replaces => &files.bundle,
            Effect::Adds => &files.authority,
        };
        let path = match own {
            Some("system") if name == LIBPQ => continue,
            Some(own) => own_and_ours(Path::new(own)).unwrap_or_else(|| common.clone()),
            // npm takes either spelling; a second one is set only where the agent uses it.
            None if name == "npm_config_cafile" => continue,
            None if name == LIBPQ => value("HOME")
                .and_then(|home| own_and_ours(&Path::new(home).join(".postgresql/root.crt")))
                .unwrap_or_else(|| common.clone()),
            None => common.clone(),
        };
        if let Some(text) = path.to_str() {
            variables.push((name.to_owned(), text.to_owned()));
        }
    }
    variables
}

/// Whether the authority in `ca_pem` is among those that this host's programs trust.
pub fn is_trusted(ca_pem: &[u8]) -> bool {
    let Ok(ours) = certificates(ca_pem) else { return false };
    let trusted =
        bundle_paths().iter().filter_map(|path| read_bundle(path).ok()).flatten().collect::<HashSet<_>>();
    !ours.is_empty() && ours.iter().all(|certificate| trusted.contains(certificate))
}

/// The bundles of this host, each once, symbolic links resolved: what to mount [`TrustFiles::bundle`] over.
pub fn bundle_paths() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in BUNDLES.iter().filter_map(|path| fs::canonicalize(path).ok()) {
        if path.is_file() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// A file with the certificates of `own` and our authority, named by its content.
fn own_and_ours(files: &TrustFiles, own: &Path) -> io::Result<PathBuf> {
    let already = [&files.bundle, &files.authority];
    if already.contains(&&own.to_path_buf()) || own.parent() == Some(&files.folder) {
        return Ok(own.to_owned());
    }
    let theirs = read_bundle(own)?;
    if theirs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"));
    }
    let text = merged([&theirs, &read_bundle(&files.authority)?]);
    let digest = hex::encode(Sha256::digest(&text));
    let path = files.folder.join(format!("own-{digest:.16}.pem"));
    write_whole(&path, &text)?;
    Ok(path)
}

/// The certificates of a file that somebody else may have named: a regular one, of bounded length.
fn read_bundle(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() || facts.len() > BUNDLE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a bundle of certificates"));
    }
    let mut bytes = Vec::new();
    file.take(BUNDLE_LIMIT).read_to_end(&mut bytes)?;
    certificates(&bytes)
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Each certificate once, in order, as PEM.
fn merged<const N: usize>(lists: [&Vec<CertificateDer<'static>>; N]) -> String {
    let mut seen = HashSet::new();
    let mut text = String::new();
    for certificate in lists.into_iter().flatten() {
        if !seen.insert(certificate.as_ref()) {
            continue;
        }
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Never half: others may be reading it. It is made anew each time, so that it need not outlive the power.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644))?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
