//! People who log in to this host: a private sshd with PAM, which gives each session the audit user that approvals
//! rest on. The people exist only inside of it; it listens nowhere, and lives as long as one log-in does.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    places,
    process::{self, Finished, Job, PATIENCE},
};

/// Users that nobody on a test host has.
const FIRST_USER: u32 = 23_001;

/// The PAM service: whoever has the key is who they say, and the session is theirs.
const PAM: &str =
    "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_loginuid.so\n";

/// People, by name.
#[derive(Debug)]
pub struct Logins {
    folder: tempfile::TempDir,
    names: Vec<String>,
}

impl Logins {
    /// These people, with a key for each log-in.
    pub fn of(names: &[&str]) -> Self {
        let folder = places::scratch("login");
        let logins = Self { folder, names: names.iter().map(|name| (*name).to_owned()).collect() };
        let mut passwd = fs::read_to_string("/etc/passwd").expect("a list of users");
        for name in names {
            let uid = logins.uid(name);
            passwd += &format!("{name}:x:{uid}:65534::/:/bin/sh\n");
        }
        if !passwd.lines().any(|line| line.starts_with("sshd:")) {
            passwd += "sshd:x:64799:65534::/run/sshd:/usr/sbin/nologin\n";
        }
        fs::create_dir(logins.path("pam.d")).expect("own folder");
        fs::write(logins.path("passwd"), passwd).expect("own folder");
        fs::write(logins.path("pam.d/sshd"), PAM).expect("own folder");
        for key in ["host", "key"] {
            let path = logins.path(key).display().to_string();
            let words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path];
            process::run(process::command(&words)).succeeded();
        }
        // The session's user reads it.
        fs::set_permissions(logins.path("key.pub"), fs::Permissions::from_mode(0o644)).expect("own file");
        fs::write(logins.path("config"), logins.config()).expect("own folder");
        fs::write(logins.path("serve"), logins.serve()).expect("own folder");
        logins
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        format!(
            "HostKey {}\nAuthorizedKeysFile {}\nUsePAM yes\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nPidFile none\nLogLevel ERROR\n",
            self.path("host").display(),
            self.path("key.pub").display()
        )
    }

    /// In a mount namespace of its own: the people, the PAM service, the folder that sshd insists on, and the product
    /// where everybody can reach it.
    fn serve(&self) -> String {
        let sshd = places::sshd();
        format!(
            "set -e\nmount --bind {0}/passwd /etc/passwd\nmount --bind {0}/pam.d /etc/pam.d\n\
             mount -t tmpfs -o mode=755 none /run\nmkdir /run/sshd /run/product\ntouch /run/product/interceptor\n\
             mount --bind {1} /run/product/interceptor\n\
             LD_LIBRARY_PATH=$(echo {2}/usr/lib/*-linux-gnu*) exec {2}/usr/sbin/sshd -i -e -f {0}/config\n",
            self.folder.path().display(),
            places::interceptor().display(),
            sshd.display()
        )
    }

    /// A person's user.
    pub fn uid(&self, name: &str) -> u32 {
        let place = self.names.iter().position(|known| known == name).expect("a person");
        FIRST_USER + u32::try_from(place).expect("few people")
    }

    /// `people.toml` for them, each in these groups.
    pub fn people(&self, groups: &[(&str, &str)]) -> String {
        let person = |(name, group): &(&str, &str)| {
            format!("[person.{name}]\nuid = {}\ngroups = [\"{group}\"]\n", self.uid(name))
        };
        groups.iter().map(person).collect()
    }

    /// Runs the product for the installation at `root` in a log-in session of `user`.
    pub fn interceptor(&self, user: &str, root: &Path, arguments: &[&str]) -> Finished {
        let root = root.display().to_string();
        let words = [&["/run/product/interceptor", "--root", &root], arguments].concat();
        Job::start(self.session(user, &words), "").finish(PATIENCE)
    }

    /// A command in a log-in session of `user`, not yet started.
    pub fn session(&self, user: &str, words: &[&str]) -> Command {
        let line: Vec<String> =
            words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let mut command = Command::new(places::tool("ssh"));
        command.args(["-F", "none", "-T", "-i"]).arg(self.path("key"));
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            command.args(["-o", option]);
        }
        let serve = self.path("serve");
        command.arg("-o").arg(format!(
            "ProxyCommand=unshare --mount --propagation private sh {} 2>{}",
            serve.display(),
            self.path("log").display()
        ));
        command.arg(format!("{user}@here")).arg(line.join(" "));
        command
    }
}
