//! The proofs against a real PostgreSQL: a private cluster, reached over loopback, as an unprivileged user.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use interceptor_core::{
    inventory::{AuthMethod, Credential, SecretSource, Tls},
    protocol::{Challenge, Proof},
};
use nix::sys::signal::{Signal, kill};
use rcgen::{KeyPair, PublicKeyData};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    client::UpstreamLogin,
    messages::Leg,
    proof::tests::{credential, inventory},
    tests::{Bench, client_certificate},
    *,
};
use crate::tls::{server::Minter, upstream::Connector};

/// `nobody`, where the test runs as root, which PostgreSQL refuses to.
const NOBODY: u32 = 65534;

struct Cluster {
    server: Child,
    port: u16,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).expect("a pid");
        let _sent = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT);
        let _reaped = self.server.wait();
    }
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions.flatten().map(|v| v.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop()
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(path, Some(NOBODY.into()), Some(NOBODY.into())).expect("chown");
    }
}

const RULES: &str = "local all super trust
hostssl all plus 127.0.0.1/32 scram-sha-256
hostssl all cert 127.0.0.1/32 cert
hostssl all clear 127.0.0.1/32 password
host all md5 127.0.0.1/32 md5
host all scram 127.0.0.1/32 scram-sha-256
host all trust 127.0.0.1/32 trust
";

const USERS: &str = "CREATE USER scram PASSWORD 'hunter2'; CREATE USER plus PASSWORD 'hunter2'; CREATE USER \
                     clear PASSWORD 'hunter2'; CREATE USER trust; CREATE USER cert; SET password_encryption = \
                     'md5'; CREATE USER md5 PASSWORD 'hunter2';";

/// A port that nobody is given by chance before the server takes it: the connection that was closed from its side keeps it
/// from that for a minute. By its number it can be had, with `SO_REUSEADDR`.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = std::net::TcpStream::connect(address).expect("own listener");
    let (accepted, _) = listener.accept().expect("own connection");
    drop(accepted);
    drop(client);
    address.port()
}

/// Starts a cluster in `folder`, with this certificate, key and authority for clients.
fn start(bin: &Path, folder: &Path, certificate: &str, key: &str, clients: &str) -> Cluster {
    std::fs::create_dir(folder).expect("mkdir");
    own(folder);
    let data = folder.join("data");
    let made = unprivileged(&bin.join("initdb"))
        .args(["--no-sync", "-A", "trust", "-U", "super", "-E", "UTF8", "--locale=C", "-D"])
        .arg(&data)
        .status();
    assert!(made.expect("initdb").success());
    for (name, text) in
        [("server.crt", certificate), ("server.key", key), ("clients.crt", clients), ("pg_hba.conf", RULES)]
    {
        let path = data.join(name);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
        own(&path);
    }
    let port = free_port();
    let mut settings =
        std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("conf");
    writeln!(
        settings,
        "ssl=on\nssl_ca_file='clients.crt'\nfsync=off\nlisten_addresses='127.0.0.1'\nport={port}\n\
         unix_socket_directories='{}'",
        folder.display()
    )
    .expect("conf");
    let server = unprivileged(&bin.join("postgres")).arg("-D").arg(&data).spawn().expect("postgres");
    let cluster = Cluster { server, port };
    let made = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        let done = unprivileged(&bin.join("psql"))
            .args(["-X", "-q", "-U", "super", "-d", "postgres", "-p", &port.to_string(), "-c", USERS, "-h"])
            .arg(folder)
            .status();
        done.is_ok_and(|status| status.success())
    });
    assert!(made, "the cluster does not come up");
    cluster
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u8, Vec<u8>), String> {
    let kind = stream.read_u8().await.map_err(|e| e.to_string())?;
    let length = stream.read_u32().await.map_err(|e| e.to_string())?;
    let mut body = vec![0; usize::try_from(length).expect("fits").saturating_sub(4)];
    stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
    Ok((kind, body))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, kind: Option<u8>, body: &[u8]) {
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).expect("fits").to_be_bytes());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await.expect("sent");
    stream.flush().await.expect("sent");
}

fn challenge(body: &[u8], user: &str) -> Option<Challenge> {
    let (code, rest) = body.split_at(4);
    let message = || bytes::Bytes::copy_from_slice(rest);
    Some(match u32::from_be_bytes(code.try_into().expect("four")) {
        3 => Challenge::Cleartext,
        5 => Challenge::Md5 { user: user.to_owned(), salt: rest.try_into().expect("a salt") },
        10 => {
            let names = rest.split(|&b| b == 0).filter(|name| !name.is_empty());
            Challenge::SaslBegin { mechanisms: names.map(|n| String::from_utf8_lossy(n).into()).collect() }
        }
        11 => Challenge::SaslContinue { message: message() },
        12 => Challenge::SaslFinish { message: message() },
        _ => return None,
    })
}

/// Logs in as `user`; the mechanisms used, in order.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    user: &str,
    login: &UpstreamLogin,
    leg: &Leg,
) -> Result<Vec<String>, String> {
    let text = format!("\0\u{3}\0\0user\0{user}\0database\0postgres\0\0");
    send(&mut stream, None, text.as_bytes()).await;
    let mut used = Vec::new();
    loop {
        let (kind, body) = message(&mut stream).await?;
        match kind {
            b'E' => return Err(String::from_utf8_lossy(&body).into_owned()),
            b'Z' => return Ok(used),
            b'R' => {
                let asked = challenge(&body, user);
                // AuthenticationOk: whoever has proven nothing must be told.
                let asked = asked.unwrap_or(Challenge::Nothing);
                let plain = matches!(asked, Challenge::Cleartext | Challenge::Md5 { .. });
                match login.prove(asked, leg).await.map_err(|e| e.to_string())? {
                    Proof::Accepted => {}
                    Proof::Begin { mechanism, message } => {
                        let mut body = mechanism.clone().into_bytes();
                        body.push(0);
                        body.extend_from_slice(&u32::try_from(message.len()).expect("fits").to_be_bytes());
                        body.extend_from_slice(&message);
                        used.push(mechanism);
                        send(&mut stream, Some(b'p'), &body).await;
                    }
                    Proof::Response(bytes) => {
                        let mut body = bytes.to_vec();
                        body.extend(plain.then_some(0));
                        send(&mut stream, Some(b'p'), &body).await;
                    }
                }
            }
            _ => {}
        }
    }
}

fn test_inventory() -> Result<Inventory, String> {
    let mut all = inventory(Tls::Plaintext { reason: "a test".to_owned() }, Vec::new());
    let model = all.resources.values().next().cloned().ok_or("no resource")?;
    for (user, minimum) in [
        ("scram", AuthMethod::ScramSha256),
        ("plus", AuthMethod::ScramSha256Plus),
        ("md5", AuthMethod::Md5),
        ("clear", AuthMethod::Cleartext),
        ("trust", AuthMethod::ScramSha256),
        ("cert", AuthMethod::Certificate),
        ("wrong", AuthMethod::ScramSha256),
    ] {
        let mut found = Credential { user: user.to_owned(), ..credential(minimum) };
        if user == "cert" {
            found.certificate = Some(("client.pem".into(), SecretSource::File("client.key".into())));
        }
        if user == "wrong" {
            found.secret = Some(SecretSource::File("wrong".into()));
        }
        let name: ResourceName = user.parse().map_err(|_| "a name")?;
        let mut resource = model.clone();
        resource.name = name.clone();
        resource.credentials = vec![found];
        all.resources.insert(name, resource);
    }
    Ok(all)
}

struct Real {
    bench: Bench,
    cluster: Cluster,
}

impl Real {
    async fn plain(&self, resource: &str, user: &str) -> Result<Vec<String>, String> {
        let stream = TcpStream::connect(("127.0.0.1", self.cluster.port)).await.expect("connected");
        log_in(stream, user, &self.login(resource), &Leg::Plaintext).await
    }

    fn login(&self, resource: &str) -> UpstreamLogin {
        self.bench.client.login(resource.parse().expect("a name"), "bot".parse().expect("a name"))
    }

    async fn secured(&self, resource: &str, user: &str) -> Result<Vec<String>, String> {
        let login = self.login(resource);
        let mut stream = TcpStream::connect(("127.0.0.1", self.cluster.port)).await.expect("connected");
        send(&mut stream, None, &80_877_103_u32.to_be_bytes()).await;
        assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
        let mut settings =
            test_inventory()?.resources.remove(&resource.parse().expect("a name")).expect("there");
        let roots = self.bench.places().authority().join(authority::CERTIFICATE_FILE);
        settings.tls = Tls::Verified { roots: Some(roots), server_name: "db.internal".to_owned() };
        let mut connector = Connector::new(&settings, &[]).expect("settings").expect("TLS");
        if let Some(identity) = login.identity().await.map_err(|e| e.to_string())? {
            connector = connector.with_identity(identity);
        }
        let secured = connector.connect(stream).await.expect("TLS");
        let binding = secured.binding.map(Blob);
        let leg = Leg::Tls { verified: secured.verified, binding };
        log_in(secured.stream, user, &login, &leg).await
    }
}

async fn real(bin: &Path) -> Real {
    let bench = Bench::new(test_inventory);
    let (chain, key, _, clients) = client_certificate("cert");
    bench.secret("client.pem", chain.as_bytes());
    bench.secret("client.key", key.as_bytes());
    bench.secret("wrong", b"hunter3");
    // The cluster's user must be able to walk to its folder.
    std::fs::set_permissions(bench.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let pair = KeyPair::generate().expect("a key");
    let names = ["db.internal".to_owned()];
    let (resource, public) = ("scram".parse().expect("a name"), pair.subject_public_key_info());
    let leaf = bench.client.mint(&resource, &names, &public).await.expect("minted");
    let pem = x509_pem(&leaf.chain[0]);
    let folder = bench.folder.path().join("pg");
    let cluster = start(bin, &folder, &pem, &pair.serialize_pem(), &clients);
    Real { bench, cluster }
}

fn x509_pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_postgresql_accepts_our_proofs() {
    let Some(bin) = binaries() else { panic!("install postgresql: this test needs its server") };
    let real = real(&bin).await;

    assert_eq!(real.plain("scram", "scram").await, Ok(vec!["SCRAM-SHA-256".to_owned()]));
    assert_eq!(real.secured("scram", "scram").await, Ok(vec!["SCRAM-SHA-256-PLUS".to_owned()]));
    assert_eq!(real.secured("plus", "plus").await, Ok(vec!["SCRAM-SHA-256-PLUS".to_owned()]));
    assert_eq!(real.plain("md5", "md5").await, Ok(Vec::new()));
    assert_eq!(real.secured("clear", "clear").await, Ok(Vec::new()));
    assert_eq!(real.secured("cert", "cert").await, Ok(Vec::new()));

    let refused = real.plain("wrong", "scram").await.expect_err("a wrong password");
    assert!(refused.contains("28P01"), "{refused}");
    let refused = real.plain("trust", "trust").await.expect_err("no proof was asked for");
    assert!(refused.contains("without the proof"), "{refused}");
    let refused = real.plain("plus", "scram").await.expect_err("below the minimum");
    assert!(refused.contains("scram-sha-256-plus"), "{refused}");
    let refused = real.secured("scram", "md5").await.expect_err("below the minimum");
    assert!(refused.contains("weaker") || refused.contains("another user"), "{refused}");
}
