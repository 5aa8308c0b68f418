//! A private MariaDB: its own port, Unix socket, data, users, secret and certificates, gone with the value.
//!
//! `app` proves its secret by `mysql_native_password`, and over TLS alone where it comes by TCP. The server writes each
//! statement that reaches it to a log of its own.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
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
pub const HOST: &str = "shop.internal";

/// A MariaDB that runs.
#[derive(Debug)]
pub struct RunningMysql {
    folder: tempfile::TempDir,
    port: u16,
    server: Child,
    secret: String,
}

impl RunningMysql {
    /// Makes its system tables, and `app`, then starts it.
    pub fn start() -> Self {
        let folder = places::scratch("mysql");
        let (port, secret) = (free_port(), random_text(24));
        for name in ["data", "temporary"] {
            fs::create_dir(folder.path().join(name)).expect("a folder in own folder");
        }
        make_tables(folder.path(), &secret);
        let authority = Authority::new("test shop root");
        let leaf = authority.leaf(&[HOST]);
        for (name, text) in [
            ("roots.pem", &authority.certificate),
            ("server.pem", &leaf.certificate),
            ("server.key", &leaf.key),
        ] {
            fs::write(folder.path().join(name), text).expect("a file in own folder");
        }
        let log = File::create(folder.path().join("log")).expect("a file in own folder");
        let server = mariadbd(folder.path())
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", folder.path().join("socket").display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .arg(format!("--general-log-file={}", folder.path().join("general.log").display()))
            .args(["--bind-address=127.0.0.1", "--general-log", "--require-secure-transport"])
            .arg(format!("--ssl-ca={}", folder.path().join("roots.pem").display()))
            .arg(format!("--ssl-cert={}", folder.path().join("server.pem").display()))
            .arg(format!("--ssl-key={}", folder.path().join("server.key").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("own file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("mariadbd can be started");
        let mysql = Self { folder, port, server, secret };
        wait_until("MariaDB to answer", Duration::from_secs(30), || {
            mysql.try_admin("SELECT 1").stdout == "1\n"
        });
        mysql
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `app`'s password. It must never be seen anywhere else than between server, proxy and keeper.
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

    /// The resource `shop`: [`HOST`] at its usual port, over TLS, with the credential `shop`.
    pub fn by_name(&self) -> String {
        resource(
            "shop",
            &format!(
                "hosts = [\"{HOST}\"]\nupstream = \"127.0.0.1:{}\"\ndial = \"host\"\n\
                 tls = {{ roots = {:?}, server_name = \"{HOST}\" }}",
                self.port,
                self.roots()
            ),
        )
    }

    /// The resource `local`: the same server, by Debian's socket and with the same credential.
    pub fn by_socket(&self) -> String {
        resource(
            "local",
            &format!(
                "sockets = [\"/run/mysqld/mysqld.sock\"]\nupstream = \"unix:{}\"\n\
                 tls = {{ plaintext = \"its folder is the server's own\" }}",
                self.socket().display()
            ),
        )
    }

    /// What has reached it, as it wrote it down: a line for each command, with the text.
    pub fn general_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("general.log")).expect("the server's log")
    }

    /// What it answers to a text, past everything that is tested: values with tabs between them.
    #[track_caller]
    pub fn admin(&self, sql: &str) -> String {
        self.try_admin(sql).succeeded().stdout.trim_end().to_owned()
    }

    fn try_admin(&self, sql: &str) -> Finished {
        let (folder, libraries) = places::mariadb();
        let mut command = Command::new(folder.join("bin/mariadb"));
        command.env("LD_LIBRARY_PATH", libraries).args(["--no-defaults", "--batch", "--skip-column-names"]);
        command.args(["--user=admin", "--execute", sql]);
        command.arg(format!("--socket={}", self.socket().display())).env("MYSQL_PWD", &self.secret);
        process::run(command)
    }
}

impl Drop for RunningMysql {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGKILL);
        let _ = self.server.wait();
    }
}

fn resource(name: &str, leads: &str) -> String {
    format!(
        "[resource.{name}]\nprotocol = \"mysql\"\n{leads}\n[[resource.{name}.credential]]\nuser = \"app\"\n\
         secret = {{ file = \"shop\" }}\nminimum = \"mysql-native-password\"\n"
    )
}

/// The server's own command line client, as agents would start it, with `words` behind its log-in.
pub fn client(words: &[&str]) -> Vec<String> {
    let (folder, libraries) = places::mariadb();
    let start = [
        "env".to_owned(),
        format!("LD_LIBRARY_PATH={libraries}"),
        folder.join("bin/mariadb").display().to_string(),
    ];
    let log_in = ["--no-defaults", "--host", HOST, "--user=whoever", "--password=the-agents-own"];
    start.into_iter().chain(log_in.iter().chain(words).map(|word| (*word).to_owned())).collect()
}

/// The server, in `folder` and with nothing of this host's.
fn mariadbd(folder: &Path) -> Command {
    let (programs, libraries) = places::mariadb();
    let mut command = Command::new(programs.join("sbin/mariadbd"));
    command.env("LD_LIBRARY_PATH", libraries).current_dir(folder);
    command.args([
        "--no-defaults",
        "--user=root",
        "--innodb-log-file-size=8M",
        "--character-set-server=utf8mb4",
    ]);
    command.arg(format!("--datadir={}", folder.join("data").display()));
    // A server that starts removes what others have where it keeps its temporary tables.
    command.arg(format!("--tmpdir={}", folder.join("temporary").display()));
    command.arg(format!("--lc-messages-dir={}", programs.join("share/mysql").display()));
    command.arg(format!("--plugin-dir={}", programs.join("lib/mysql/plugin").display()));
    command
}

/// Has the server carry out what its package makes the system tables by.
fn make_tables(folder: &Path, secret: &str) {
    let scripts = places::mariadb().0.join("share/mysql");
    let script = |name: &str| fs::read_to_string(scripts.join(name)).expect("a script of the package");
    let text = format!(
        "CREATE DATABASE mysql;\nUSE mysql;\n{}{}\nFLUSH PRIVILEGES;\nCREATE DATABASE shop;\n\
         CREATE USER admin@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('{secret}');\n\
         GRANT ALL ON *.* TO admin@localhost WITH GRANT OPTION;\n\
         CREATE USER app@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('{secret}');\n\
         GRANT ALL ON shop.* TO app@'%';\n",
        script("mysql_system_tables.sql"),
        script("mysql_system_tables_data.sql"),
    );
    let path = folder.join("first.sql");
    fs::write(&path, text).expect("a file in own folder");
    let mut command = mariadbd(folder);
    let output = command.arg("--bootstrap").stdin(File::open(&path).expect("own file")).output();
    let output = output.expect("mariadbd can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(path).expect("own file");
}
