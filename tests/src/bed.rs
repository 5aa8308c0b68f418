//! A private PostgreSQL: its own cluster, port, roles, secrets and certificates, gone with the value.
//!
//! The cluster is copied from a template that is made once per build folder, since `initdb` is slow. The server runs
//! as an unprivileged user, logs every statement as JSON, and takes SCRAM over TLS alone, but for the roles whose
//! name says otherwise.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use serde_json::Value;

use crate::{
    certificates::Authority,
    interrupt, places,
    process::{self, Finished, wait_until},
};

/// The name that the server's certificate carries, and that agents dial.
pub const HOST: &str = "db.internal";

/// Changes whenever [`SCHEMA`] or the way a template is made does.
const TEMPLATE: &str = "bed-template-1";

/// What is in the database `orders`.
const SCHEMA: &str = r"
CREATE ROLE app LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE md5_user LOGIN;
CREATE ROLE clear_user LOGIN;
CREATE ROLE cert_user LOGIN;
CREATE DATABASE orders OWNER app;
\connect orders
SET ROLE app;
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL);
INSERT INTO users SELECT n, 'user' || n, 'user' || n || '@example.org' FROM generate_series(1, 100) AS n;
CREATE TABLE orders (id int, user_id int REFERENCES users, amount numeric NOT NULL, placed date NOT NULL,
    PRIMARY KEY (id, placed)) PARTITION BY RANGE (placed);
CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE orders ALTER amount SET DEFAULT 0;
INSERT INTO orders SELECT n, 1 + n % 100, n, date '2025-01-01' + n FROM generate_series(1, 500) AS n;
CREATE TABLE secrets (id int PRIMARY KEY, value text NOT NULL);
INSERT INTO secrets VALUES (1, 'the-guarded-value');
CREATE VIEW innocent AS SELECT id, value AS name FROM secrets;
CREATE SCHEMA private;
CREATE TABLE private.users (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO private.users VALUES (1, 'the-guarded-value');
CREATE TABLE notes (id bigserial PRIMARY KEY, body text NOT NULL);
CREATE FUNCTION peek() RETURNS text LANGUAGE sql STABLE AS 'SELECT value FROM secrets LIMIT 1';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
";

const HBA: &str = "\
local   all all                       trust
hostssl all md5_user   127.0.0.1/32   md5
hostssl all clear_user 127.0.0.1/32   password
hostssl all cert_user  127.0.0.1/32   cert
hostssl all all        127.0.0.1/32   scram-sha-256
hostssl replication all 127.0.0.1/32  scram-sha-256
host    all all        127.0.0.1/32   reject
";

/// Which server a bed runs.
#[derive(Debug, Clone, Copy, Default)]
enum Release {
    /// The distribution's.
    #[default]
    Distribution,
    /// PostgreSQL 18, from a package of Node's.
    Newest,
}

impl Release {
    /// The name of the template that it made.
    fn template(self) -> String {
        match self {
            Self::Distribution => TEMPLATE.to_owned(),
            Self::Newest => format!("{TEMPLATE}-newest"),
        }
    }

    /// The folder of its programs. The server's user may not be able to pass through the build folder, so what is
    /// there is copied below `folder`.
    fn programs(self, folder: &Path) -> PathBuf {
        match self {
            Self::Distribution => {
                places::postgres_tool("postgres").parent().map(Path::to_owned).unwrap_or_default()
            }
            Self::Newest => {
                let copied = folder.join("server");
                copy(&places::newest_postgres(), &copied);
                copied.join("bin")
            }
        }
    }
}

/// How to make a [`Bed`].
#[derive(Debug, Clone, Default)]
pub struct Bed {
    release: Release,
    settings: Vec<(String, String)>,
    access: String,
    port: Option<u16>,
}

impl Bed {
    /// A server with the usual settings.
    pub fn start() -> RunningBed {
        Self::default().run()
    }

    /// The newest PostgreSQL in the place of the distribution's.
    pub fn newest() -> Self {
        Self { release: Release::Newest, ..Self::default() }
    }

    /// With another setting, as in postgresql.conf.
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// At this port, which clients insist on.
    pub fn at(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Lets `role` in without TLS and without any proof, where neither is what is looked at.
    pub fn open_to(self, role: &str) -> Self {
        self.admit(&format!("host all {role} 127.0.0.1/32 trust"))
    }

    /// With a line of pg_hba.conf before the usual ones.
    pub fn admit(mut self, line: &str) -> Self {
        self.access += line;
        self.access.push('\n');
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn run(self) -> RunningBed {
        interrupt::listen();
        interrupt::pass();
        let user = account();
        let template = template(&user, self.release);
        let folder = places::scratch("bed");
        copy(&template, &folder.path().join("data"));
        let programs = self.release.programs(folder.path());
        own(folder.path(), &user);
        let authority = Authority::new("test database root");
        let leaf = authority.leaf(&[HOST]);
        let client = authority.leaf(&["cert_user"]);
        let files = [
            ("data/root.crt", &authority.certificate, 0o644),
            ("data/server.crt", &leaf.certificate, 0o644),
            ("data/server.key", &leaf.key, 0o600),
            ("roots.pem", &authority.certificate, 0o644),
            ("client.pem", &client.certificate, 0o644),
            ("client.key", &client.key, 0o600),
            ("data/pg_hba.conf", &format!("{}{HBA}", self.access), 0o600),
        ];
        for (name, text, mode) in files {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file in own folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
            own(&path, &user);
        }
        let mut bed = RunningBed {
            folder,
            programs,
            user,
            port: self.port.unwrap_or_else(free_port),
            server: None,
            secret: random_text(24),
            settings: self.settings,
        };
        bed.restart();
        for role in ["app", "reader"] {
            bed.admin("orders", &format!("ALTER ROLE {role} PASSWORD '{}'", bed.secret));
        }
        bed.admin(
            "orders",
            &format!("SET password_encryption = 'md5'; ALTER ROLE md5_user PASSWORD '{0}'; RESET password_encryption;\
                      ALTER ROLE clear_user PASSWORD '{0}'", bed.secret),
        );
        bed
    }
}

/// A PostgreSQL that runs.
#[derive(Debug)]
pub struct RunningBed {
    folder: tempfile::TempDir,
    programs: PathBuf,
    user: User,
    port: u16,
    server: Option<Child>,
    secret: String,
    settings: Vec<(String, String)>,
}

impl RunningBed {
    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of every role that has one. It must never be seen anywhere else than between server and keeper.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The PEM file of the root that signed its certificate.
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// The client certificate of `cert_user`, and its key.
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("client.pem"), self.folder.path().join("client.key"))
    }

    /// The folder of its Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs SQL as the superuser, past everything that is tested; gives what psql printed, unaligned.
    #[track_caller]
    pub fn admin(&self, database: &str, sql: &str) -> String {
        self.try_admin(database, sql).succeeded().stdout.trim_end().to_owned()
    }

    fn try_admin(&self, database: &str, sql: &str) -> Finished {
        psql(self.socket_folder(), self.port, ("postgres", database), sql)
    }

    /// What psql says to `role`, which is trusted, beside the proxy.
    pub fn as_role(&self, database: &str, role: &str, sql: &str) -> Finished {
        psql(self.socket_folder(), self.port, (role, database), sql)
    }

    /// Stops the server if it runs, and starts it.
    pub fn restart(&mut self) {
        self.stop(Signal::SIGINT);
        let mut command = Command::new(self.programs.join("postgres"));
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(self.folder.path());
        for setting in [
            "ssl=on",
            "ssl_ca_file=root.crt",
            "fsync=off",
            "max_connections=60",
            "shared_buffers=16MB",
            "log_statement=all",
            "log_destination=jsonlog",
            "logging_collector=on",
            "log_directory=log",
            "log_filename=server",
            "log_rotation_age=0",
            "log_rotation_size=0",
            "jit=off",
        ] {
            command.args(["-c", setting]);
        }
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        let errors = File::create(self.folder.path().join("stderr")).expect("a file in own folder");
        let child = command
            .uid(self.user.uid.as_raw())
            .gid(self.user.gid.as_raw())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .expect("postgres can be started");
        self.server = Some(child);
        wait_until("PostgreSQL to answer", Duration::from_secs(60), || {
            self.try_admin("postgres", "SELECT 1").status.success()
        });
    }

    /// Stops the server, which `SIGQUIT` does at once and `SIGINT` in good order.
    pub fn stop(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let _ = kill(Pid::from_raw(server.id().cast_signed()), signal);
            let _ = server.wait();
        }
    }

    /// Every statement that the server says it began to carry out for `role`, oldest first: text alone. An Execute
    /// of the extended protocol counts as one.
    pub fn statements(&self, role: &str) -> Vec<String> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line.get("user").and_then(Value::as_str) == Some(role))
            .filter_map(|line| {
                let message = line.get("message")?.as_str()?;
                let (kind, statement) = message.split_once(": ")?;
                (kind == "statement" || kind.starts_with("execute ")).then(|| statement.to_owned())
            })
            .collect()
    }

    /// Everything that the server logged until now. A process of its own writes that down, in its order: while the server
    /// runs, it is waited for until it has come to a last word of ours.
    pub fn log(&self) -> String {
        let read = || {
            let bytes = fs::read(self.folder.path().join("data/log/server.json")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        if self.server.is_none() {
            return read();
        }
        let last = random_text(24);
        self.admin("postgres", &format!("SELECT '{last}'"));
        let mut text = String::new();
        wait_until("the server's log", process::PATIENCE, || {
            text = read();
            text.contains(&last)
        });
        text
    }
}

impl Drop for RunningBed {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
    }
}

fn psql(folder: &Path, port: u16, (role, database): (&str, &str), sql: &str) -> Finished {
    let mut command = Command::new(places::postgres_tool("psql"));
    command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", role, "-p", &port.to_string()])
        .args(["-d", database, "-h"])
        .arg(folder);
    process::Job::start(command, sql).finish(process::PATIENCE)
}

/// Whom the server runs as: it refuses to be root.
fn account() -> User {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .expect("this host has neither a user postgres nor nobody")
}

fn own(path: &Path, user: &User) {
    std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .expect("the tests run as root: use `cargo xtask test`");
}

/// The folder of a cluster that is made, filled and stopped.
fn template(user: &User, release: Release) -> PathBuf {
    let base = places::target().join("clients");
    fs::create_dir_all(&base).expect("the build folder can be written");
    let name = release.template();
    let ready = base.join(&name);
    let lock = File::create(base.join("bed-template.lock")).expect("the build folder can be written");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("a lock");
    if ready.exists() {
        return ready;
    }
    // The user may not be able to pass through the build folder: made elsewhere, then copied by root.
    let folder = places::scratch("initdb");
    own(folder.path(), user);
    let programs = release.programs(folder.path());
    let data = folder.path().join("data");
    as_user(
        user,
        folder.path(),
        &programs.join("initdb"),
        &["-D", "data", "--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"],
    );
    let port = free_port();
    let options = format!("-p {port} -h '' -k {} -c fsync=off", folder.path().display());
    as_user(
        user,
        folder.path(),
        &programs.join("pg_ctl"),
        &["-D", "data", "-w", "-l", "log", "-o", &options, "start"],
    );
    let filled = psql(folder.path(), port, ("postgres", "postgres"), SCHEMA);
    as_user(user, folder.path(), &programs.join("pg_ctl"), &["-D", "data", "-w", "-m", "fast", "stop"]);
    filled.succeeded();
    let half = base.join(format!("{name}.half"));
    let _ = fs::remove_dir_all(&half);
    copy(&data, &half);
    fs::rename(&half, &ready).expect("the build folder can be written");
    ready
}

/// Copies a folder, owners and modes included.
fn copy(from: &Path, to: &Path) {
    let words = ["cp".as_ref(), "-a".as_ref(), "--reflink=auto".as_ref(), from.as_os_str(), to.as_os_str()];
    process::run(process::command(&words)).succeeded();
}

fn as_user(user: &User, folder: &Path, program: &Path, arguments: &[&str]) {
    let tool = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir(folder)
        .stdin(Stdio::null());
    // A server started by pg_ctl keeps the outputs that it inherits, so these must be no pipes.
    let log = File::create(folder.join(format!("{tool}.out"))).expect("own folder");
    let status = command.stdout(log.try_clone().expect("own file")).stderr(log).status();
    let said = fs::read_to_string(folder.join(format!("{tool}.out"))).unwrap_or_default();
    assert!(status.is_ok_and(|status| status.success()), "{tool} failed: {said}");
}

/// A port that nobody listens on, and that nobody is given by chance for the next minute: the connection that was closed
/// from its side keeps it from that. Whoever asks for it by its number gets it, with `SO_REUSEADDR`, as servers do.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    let client = TcpStream::connect(address).expect("own listener");
    let (accepted, _) = listener.accept().expect("own connection");
    drop(accepted);
    drop(client);
    address.port()
}

/// Letters and digits that nobody can guess, so that finding them means a leak.
pub fn random_text(length: usize) -> String {
    let mut bytes = vec![0; length.div_ceil(2)];
    getrandom::fill(&mut bytes).expect("the kernel's random numbers");
    let mut text = hex::encode(bytes);
    text.truncate(length);
    text
}
