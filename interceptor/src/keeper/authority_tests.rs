use std::os::unix::fs::PermissionsExt;

use x509_parser::{extensions::ParsedExtension, prelude::*};

use super::*;

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_authority_is_made_once_and_closed_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("ca");
    Authority::ensure(&folder).expect("made");
    let mode = |name: &str| fs::metadata(folder.join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(KEY_FILE), mode(CERTIFICATE_FILE)), (0o600, 0o644));
    let before = fs::read(folder.join(CERTIFICATE_FILE)).expect("the certificate");
    let again = Authority::ensure(&folder).expect("found");
    assert_eq!(fs::read(folder.join(CERTIFICATE_FILE)).expect("the certificate"), before);
    assert!(!format!("{again:?}").contains("PRIVATE"));

    let (_, pem) = parse_x509_pem(&before).expect("PEM");
    let ca = pem.parse_x509().expect("a certificate");
    let constraints = ca.basic_constraints().expect("parsed").expect("there").value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    assert!(ca.key_usage().expect("parsed").expect("there").value.key_cert_sign());
}

#[test]
fn half_an_authority_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("ca");
    Authority::ensure(&folder).expect("made");
    let key = fs::read(folder.join(KEY_FILE)).expect("the key");
    fs::remove_file(folder.join(CERTIFICATE_FILE)).expect("removed");
    Authority::ensure(&folder).expect("the key is used again");
    assert_eq!(fs::read(folder.join(KEY_FILE)).expect("the key"), key);

    fs::remove_file(folder.join(KEY_FILE)).expect("removed");
    let said = Authority::ensure(&folder).expect_err("no key").to_string();
    assert!(said.contains("remove both"), "{said}");

    fs::write(folder.join(KEY_FILE), self::key().serialize_pem()).expect("another key");
    fs::set_permissions(folder.join(KEY_FILE), PermissionsExt::from_mode(0o600)).expect("chmod");
    let said = Authority::ensure(&folder).expect_err("another key").to_string();
    assert!(said.contains("not that of the certificate"), "{said}");
    fs::set_permissions(folder.join(KEY_FILE), PermissionsExt::from_mode(0o644)).expect("chmod");
    let said = Authority::ensure(&folder).expect_err("an open key").to_string();
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn a_leaf_says_exactly_what_it_is_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::ensure(&folder.path().join("ca")).expect("made");
    let key = key();
    let minted = authority
        .mint(&names(&["db.internal", "198.18.0.1", "fd69:6e74:6572::1"]), &key.subject_public_key_info())
        .expect("minted");
    let [leaf] = minted.chain.as_slice() else { panic!("one certificate") };
    let (_, leaf) = parse_x509_certificate(leaf).expect("a certificate");
    assert_eq!(leaf.public_key().subject_public_key.as_ref(), key.public_key_raw());
    assert!(!leaf.is_ca());
    let alternatives = leaf.subject_alternative_name().expect("parsed").expect("there");
    assert_eq!(
        alternatives.value.general_names,
        [
            GeneralName::DNSName("db.internal"),
            GeneralName::IPAddress(&[198, 18, 0, 1]),
            GeneralName::IPAddress(&[0xfd, 0x69, 0x6e, 0x74, 0x65, 0x72, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ]
    );
    let usage = leaf.extended_key_usage().expect("parsed").expect("there").value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    let validity = leaf.validity();
    let life = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(life, 7 * 24 * 3600);
    assert_eq!(validity.not_after.timestamp(), minted.not_after);
    let age = ASN1Time::now().timestamp() - validity.not_before.timestamp();
    assert!((3600..3700).contains(&age), "{age}");
    let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
        leaf.extensions().iter().any(|e| wanted(e.parsed_extension()))
    };
    assert!(has(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_))));
    assert!(has(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))));
    let other = authority.mint(&names(&["db.internal"]), &key.subject_public_key_info()).expect("minted");
    let (_, other) = parse_x509_certificate(other.chain[0].as_ref()).expect("a certificate");
    assert_ne!(leaf.raw_serial(), other.raw_serial());
}

#[test]
fn nonsense_is_not_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::ensure(&folder.path().join("ca")).expect("made");
    let public = key().subject_public_key_info();
    let other =
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").subject_public_key_info();
    let many = vec!["a.b".to_owned(); 17];
    for (names, key) in [
        (names(&[]), &public),
        (many, &public),
        (names(&["a b"]), &public),
        (names(&[""]), &public),
        (names(&["*.example.com\0"]), &public),
        (names(&["db"]), &vec![1, 2, 3]),
        (names(&["db"]), &other),
    ] {
        assert!(matches!(authority.mint(&names, key), Err(AuthorityError::Request(_))), "{names:?}");
    }
}

#[test]
fn openssl_finds_nothing_to_object_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::ensure(&folder.path().join("ca")).expect("made");
    let minted = authority.mint(&names(&["db.internal"]), &key().subject_public_key_info()).expect("minted");
    let leaf = folder.path().join("leaf.der");
    fs::write(&leaf, &minted.chain[0]).expect("write");
    let verify = |name: &str| {
        std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", name, "-CAfile"])
            .args([&folder.path().join("ca").join(CERTIFICATE_FILE), &leaf])
            .output()
            .expect("openssl is in every distribution")
    };
    let output = verify("db.internal");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!verify("db2.internal").status.success());
}
