//! Client certificates: the chain is shown, the key signs here.
//!
//! Promises: only handshakes of TLS clients are signed, never a text of the proxy's choosing.

use std::{fs, path::Path};

use interceptor_core::inventory::{Credential, SecretSource};
use rustls::{SignatureScheme, crypto::ring::sign::any_supported_type, sign::SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    messages::{Blob, Certificate},
    secrets::Secrets,
};

/// What TLS 1.3 puts before the transcript's hash (RFC 8446, section 4.4.3).
const TLS13_CONTEXT: &[u8] = b"TLS 1.3, client CertificateVerify\0";

/// The schemes that are tried with a key, best first.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// The chain and schemes of a credential's certificate, if it has one.
pub(super) fn identity(credential: &Credential, secrets: &Secrets) -> Result<Option<Certificate>, String> {
    let Some((path, key)) = &credential.certificate else { return Ok(None) };
    let chain = chain(&secrets.folder().join(path))?;
    let key = load(key, secrets)?;
    let schemes = SCHEMES.iter().filter(|scheme| key.choose_scheme(&[**scheme]).is_some());
    Ok(Some(Certificate { chain, schemes: schemes.map(|&scheme| scheme.into()).collect() }))
}

/// Signs the handshake `message`.
pub(super) fn sign(
    credential: &Credential,
    secrets: &Secrets,
    scheme: u16,
    message: &[u8],
) -> Result<Blob, String> {
    if !is_handshake(message) {
        return Err("only handshakes of TLS clients are signed".to_owned());
    }
    let (_, key) = credential.certificate.as_ref().ok_or("the credential has no certificate")?;
    let key = load(key, secrets)?;
    let signer = key.choose_scheme(&[SignatureScheme::from(scheme)]);
    let signer = signer.ok_or("the client certificate's key cannot do this signature scheme")?;
    signer.sign(message).map(Blob).map_err(|_| "the signature failed".to_owned())
}

/// TLS 1.3 signs a text of its own over a hash; TLS 1.2 the transcript, which begins with a ClientHello.
fn is_handshake(message: &[u8]) -> bool {
    let padded = message.split_at_checked(64).is_some_and(|(padding, rest)| {
        padding.iter().all(|&byte| byte == b' ') && rest.starts_with(TLS13_CONTEXT)
    });
    padded || matches!(message, [1, _, _, _, 3, 3, ..])
}

fn chain(path: &Path) -> Result<Vec<Blob>, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|e| format!("client certificate {shown}: {e}"))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| Blob(der.to_vec())))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| format!("client certificate {shown} is not PEM"))?;
    if chain.is_empty() { Err(format!("client certificate {shown} holds no certificate")) } else { Ok(chain) }
}

fn load(source: &SecretSource, secrets: &Secrets) -> Result<std::sync::Arc<dyn SigningKey>, String> {
    let pem = secrets.fetch(source).map_err(|e| format!("client key: {e}"))?;
    // The parser's own words could quote the key.
    let der = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| "the client key is not a PEM key")?;
    let der = Zeroizing::new(der);
    any_supported_type(&der).map_err(|_| "the client key is of no kind that TLS uses here".to_owned())
}
