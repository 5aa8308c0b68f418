use rcgen::{CertificateParams, KeyPair};

use super::*;

fn certificate(name: &str) -> String {
    let pair = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("params");
    params.self_signed(&pair).expect("a certificate").pem()
}

struct Bench {
    folder: tempfile::TempDir,
    ours: String,
    files: TrustFiles,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = certificate("ours");
        let trust = folder.path().join("trust");
        fs::create_dir(&trust).expect("mkdir");
        let files = files(ours.as_bytes(), &trust).expect("written");
        Self { folder, ours, files }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn environment(&self, existing: &[(&str, &str)]) -> Vec<(String, String)> {
        let existing: Vec<_> = existing.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        environment(&self.files, &existing)
    }
}

fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn held(path: &str) -> Vec<CertificateDer<'static>> {
    certificates(&fs::read(path).expect("read")).expect("PEM")
}

#[test]
fn what_replaces_gets_everything_and_what_adds_gets_ours() {
    let bench = Bench::new();
    let variables = bench.environment(&[]);
    let bundle = held(value(&variables, "SSL_CERT_FILE").expect("set"));
    let ours = certificates(bench.ours.as_bytes()).expect("PEM");
    assert!(bundle.ends_with(&ours));
    assert_eq!(held(value(&variables, "NODE_EXTRA_CA_CERTS").expect("set")), ours);
    let system = bundle_paths().first().map(|path| read_bundle(path).expect("read").len()).unwrap_or(0);
    assert!(bundle.len() > system.min(1), "{} of {system}", bundle.len());
    assert_eq!(value(&variables, "SSL_CERT_DIR"), None);
    assert_eq!(value(&variables, "npm_config_cafile"), None);
    let mode = fs::metadata(&bench.files.bundle).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
}

#[test]
fn the_agents_own_file_is_kept_and_ours_added() {
    let bench = Bench::new();
    let theirs = certificate("theirs");
    let own = bench.path("own.pem");
    // A key beside the certificate is never copied.
    let key = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(&own, format!("# comment\n{key}{theirs}")).expect("write");
    let variables = bench.environment(&[
        ("CURL_CA_BUNDLE", &own),
        ("NODE_EXTRA_CA_CERTS", &own),
        ("npm_config_cafile", &own),
        ("PGSSLROOTCERT", "system"),
    ]);
    let expected: Vec<_> =
        [&theirs, &bench.ours].iter().flat_map(|pem| certificates(pem.as_bytes()).expect("PEM")).collect();
    for name in ["CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "npm_config_cafile"] {
        let path = value(&variables, name).expect("set");
        assert_eq!(held(path), expected, "{name}");
        assert!(!fs::read_to_string(path).expect("read").contains("PRIVATE"));
    }
    assert_eq!(value(&variables, "PGSSLROOTCERT"), None, "`system` stays");
    assert_eq!(value(&variables, "SSL_CERT_FILE"), bench.files.bundle.to_str());
}

#[test]
fn a_file_that_is_no_bundle_gives_way() {
    let bench = Bench::new();
    fs::write(bench.path("secret"), "root:*:19000:0\n").expect("write");
    nix::unistd::mkfifo(Path::new(&bench.path("pipe")), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    for own in [bench.path("secret"), bench.path("pipe"), bench.path("gone"), "/dev/zero".to_owned()] {
        let variables = bench.environment(&[("SSL_CERT_FILE", &own)]);
        assert_eq!(value(&variables, "SSL_CERT_FILE"), bench.files.bundle.to_str(), "{own}");
    }
}

#[test]
fn libpqs_default_file_is_kept_too() {
    let bench = Bench::new();
    let home = bench.folder.path().join("home");
    fs::create_dir_all(home.join(".postgresql")).expect("mkdir");
    let theirs = certificate("theirs");
    fs::write(home.join(".postgresql/root.crt"), &theirs).expect("write");
    let variables = bench.environment(&[("HOME", home.to_str().expect("text"))]);
    let list = held(value(&variables, "PGSSLROOTCERT").expect("set"));
    assert_eq!(list.len(), 2);
    assert_eq!(list[..1], certificates(theirs.as_bytes()).expect("PEM")[..]);
}

#[test]
fn nesting_runs_changes_nothing() {
    let bench = Bench::new();
    let first = bench.environment(&[]);
    let again = environment(&bench.files, &first);
    assert_eq!(first, again);
}
