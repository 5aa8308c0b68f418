//! A private Redis: its own port, Unix socket, users, secret and certificates, gone with the value.
//!
//! It speaks TLS alone on its port, as `app`, and takes the default user's password by its socket; both have one secret.

use std::{
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    bed::{free_port, random_text},
    certificates::Authority,
    places,
    process::{self, Finished, wait_until},
};

/// The name that the server's certificate carries, and that agents dial.
pub const HOST: &str = "cache.internal";

/// A Redis that runs.
#[derive(Debug)]
pub struct RunningRedis {
    folder: tempfile::TempDir,
    port: u16,
    server: Child,
    secret: String,
}

impl RunningRedis {
    /// Starts it.
    pub fn start() -> Self {
        let folder = places::scratch("redis");
        let (port, secret) = (free_port(), random_text(24));
        let authority = Authority::new("test cache root");
        let leaf = authority.leaf(&[HOST]);
        let configuration = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-cert-file server.pem\ntls-key-file server.key\n\
             tls-ca-cert-file roots.pem\ntls-auth-clients no\nunixsocket {}\nunixsocketperm 777\nsave \"\"\n\
             requirepass {secret}\nuser app on >{secret} ~* &* +@all\n",
            folder.path().join("socket").display()
        );
        for (name, text) in [
            ("roots.pem", &authority.certificate),
            ("server.pem", &leaf.certificate),
            ("server.key", &leaf.key),
            ("redis.conf", &configuration),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file in own folder");
            let mode = if name == "roots.pem" { 0o644 } else { 0o600 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("own file");
        }
        let (program, libraries) = places::redis_tool("redis-server");
        let log = File::create(folder.path().join("log")).expect("a file in own folder");
        let server = Command::new(program)
            .arg("redis.conf")
            .env("LD_LIBRARY_PATH", libraries)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("own file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("redis-server can be started");
        let redis = Self { folder, port, server, secret };
        wait_until("Redis to answer", Duration::from_secs(30), || {
            redis.try_admin(&["PING"]).stdout.trim() == "PONG"
        });
        redis
    }

    /// The port on 127.0.0.1 at which it speaks TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of both users. It must never be seen anywhere else than between server, proxy and keeper.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The PEM file of the root that signed its certificate.
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The resource `local`, by `path`: this server's own socket, whose user is `default`, with the credential `cache`.
    pub fn by_socket(&self, path: &str) -> String {
        format!(
            "[resource.local]\nprotocol = \"redis\"\nsockets = [\"{path}\"]\nupstream = \"unix:{}\"\n\
             tls = {{ plaintext = \"its folder is the server's own\" }}\n[[resource.local.credential]]\nuser = \"default\"\n\
             secret = {{ file = \"cache\" }}\nminimum = \"cleartext\"\n",
            self.socket().display()
        )
    }

    /// What it answers to a command, past everything that is tested, as `redis-cli` prints it.
    #[track_caller]
    pub fn admin(&self, words: &[&str]) -> String {
        self.try_admin(words).succeeded().stdout.trim_end().to_owned()
    }

    fn try_admin(&self, words: &[&str]) -> Finished {
        let (program, libraries) = places::redis_tool("redis-cli");
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", libraries).env("REDISCLI_AUTH", &self.secret);
        command.arg("-s").arg(self.socket()).args(words);
        process::run(command)
    }
}

/// Its command line client, as agents would start it.
pub fn client(words: &[&str]) -> Vec<String> {
    let (program, libraries) = places::redis_tool("redis-cli");
    let start =
        ["env".to_owned(), format!("LD_LIBRARY_PATH={}", libraries.display()), program.display().to_string()];
    start.into_iter().chain(words.iter().map(|word| (*word).to_owned())).collect()
}

impl Drop for RunningRedis {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGKILL);
        let _ = self.server.wait();
    }
}
