//! The certificate authority of one installation: ECDSA P-256, made once, never leaving the keeper.
//!
//! Promises: it signs only certificates for servers, for names that it is given, for public keys whose private
//! keys it never sees, and for at most seven days; it can sign no further authority.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::secrets::{SecretError, read_private};

/// The certificate's file, which everybody may read.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// The key's file, which only the keeper may read.
pub const KEY_FILE: &str = "ca.key";

/// How long a minted certificate lives, from its back-dated beginning.
pub const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far certificates are back-dated, for clients whose clocks are slow.
const BACKDATED: Duration = Duration::from_secs(3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(3652 * 24 * 3600);
/// The most names in one certificate.
const NAMES_LIMIT: usize = 16;

/// Why the authority cannot be had, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key's file is not as it must be.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// A file or folder cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files do not make an authority.
    #[error(
        "{folder}: {why}: restore both {KEY_FILE} and {CERTIFICATE_FILE}, or remove both for a new authority"
    )]
    Broken {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What was asked for is not what we sign.
    #[error("no certificate for that: {0}")]
    Request(String),
}

/// The authority, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).field("key", &"***").finish()
    }
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The end of its life, in seconds of the Unix epoch.
    pub not_after: i64,
}

impl Authority {
    /// The authority in `folder`, made there if there is none yet. `folder` must belong to the keeper or root.
    pub fn ensure(folder: &Path) -> Result<Self, AuthorityError> {
        let (key, certificate) = (folder.join(KEY_FILE), folder.join(CERTIFICATE_FILE));
        let there = |path: &Path| path.symlink_metadata().is_ok();
        match (there(&key), there(&certificate)) {
            (true, true) => {}
            (false, true) => return Err(broken(folder, "the certificate is there, but not the key")),
            // The key is written first: a crash between the two leaves it alone, and it is used.
            (true, false) => write_certificate(folder, &load_key(folder)?)?,
            (false, false) => {
                make_folder(folder)?;
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                    .map_err(|e| broken(folder, &e.to_string()))?;
                let pem = Zeroizing::new(pair.serialize_pem());
                write_new(folder, KEY_FILE, pem.as_bytes(), 0o600)?;
                write_certificate(folder, &pair)?;
            }
        }
        Self::load(folder)
    }

    /// The authority that is in `folder`.
    pub fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let pair = load_key(folder)?;
        let path = folder.join(CERTIFICATE_FILE);
        let pem = fs::read(&path).map_err(|source| AuthorityError::Io { path, source })?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|e| broken(folder, &e.to_string()))?;
        let not_after = check_certificate(folder, &der, &pair)?;
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|e| broken(folder, &e.to_string()))?;
        Ok(Self { issuer, not_after })
    }

    /// Signs a server certificate for `names` (host names and addresses) and the DER SubjectPublicKeyInfo
    /// `public_key`.
    pub fn mint(&self, names: &[String], public_key: &[u8]) -> Result<Minted, AuthorityError> {
        let refuse = |why: String| AuthorityError::Request(why);
        if names.is_empty() || names.len() > NAMES_LIMIT {
            return Err(refuse(format!("{} names, where 1 to {NAMES_LIMIT} can be", names.len())));
        }
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(|e| refuse(e.to_string()))?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(refuse("the public key is not one of ECDSA P-256".to_owned()));
        }
        let begin = now().saturating_sub(BACKDATED);
        let end = (begin + LEAF_LIFE).min(Duration::from_secs(self.not_after.unsigned_abs()));
        let mut params = dated(begin, end).map_err(|e| refuse(e.to_string()))?;
        params.subject_alt_names = names.iter().map(|n| alternative(n)).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(|e| refuse(e.to_string()))?;
        let not_after = i64::try_from(end.as_secs()).unwrap_or(i64::MAX);
        Ok(Minted { chain: vec![leaf.der().clone()], not_after })
    }
}

fn alternative(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let host = rustls_pki_types::DnsName::try_from(name)
        .map_err(|_| AuthorityError::Request(format!("{name:?} is neither a host name nor an address")))?;
    let text = host.as_ref().to_owned();
    text.try_into().map(SanType::DnsName).map_err(|e: rcgen::Error| AuthorityError::Request(e.to_string()))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Parameters that every certificate of ours shares.
fn dated(begin: Duration, end: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(begin.as_secs());
    params.not_after = epoch + Duration::from_secs(end.as_secs());
    // Nobody may rely on a common name; an organisation keeps the subject from being empty.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "interceptor");
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn write_certificate(folder: &Path, pair: &KeyPair) -> Result<(), AuthorityError> {
    let begin = now().saturating_sub(BACKDATED);
    let failed = |e: rcgen::Error| broken(folder, &e.to_string());
    let mut params = dated(begin, begin + AUTHORITY_LIFE).map_err(failed)?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "this host".to_owned());
    params.distinguished_name.push(DnType::CommonName, format!("interceptor authority of {host:.40}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.self_signed(pair).map_err(failed)?;
    write_new(folder, CERTIFICATE_FILE, certificate.pem().as_bytes(), 0o644)
}

fn load_key(folder: &Path) -> Result<KeyPair, AuthorityError> {
    let pem = Zeroizing::new(read_private(folder, Path::new(KEY_FILE), 0o077)?);
    let text = std::str::from_utf8(&pem).map_err(|_| broken(folder, "the key is not PEM"))?;
    KeyPair::from_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| broken(folder, "the key is not one of ECDSA P-256 in PEM"))
}

fn check_certificate(folder: &Path, der: &[u8], pair: &KeyPair) -> Result<i64, AuthorityError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|e| broken(folder, &e.to_string()))?;
    if certificate.public_key().subject_public_key.as_ref() != pair.public_key_raw() {
        return Err(broken(folder, "the key is not that of the certificate"));
    }
    if !certificate.is_ca() {
        return Err(broken(folder, "the certificate is not one of an authority"));
    }
    if !certificate.validity().is_valid() {
        return Err(broken(folder, "the certificate is out of date (or the host's clock is)"));
    }
    Ok(certificate.validity().not_after.timestamp())
}

fn make_folder(folder: &Path) -> Result<(), AuthorityError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|source| AuthorityError::Io { path: folder.to_owned(), source })
}

/// Writes a file that is either there whole, or not at all.
pub(super) fn write_new(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let path = folder.join(name);
    let unfinished = folder.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| AuthorityError::Io { path: path.clone(), source })?;
    // The umask may have closed what everybody is to read.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(&path, permissions).map_err(|source| AuthorityError::Io { path, source })
}

fn broken(folder: &Path, why: &str) -> AuthorityError {
    AuthorityError::Broken { folder: folder.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
