//! One side: a fresh server, and, unless it is the direct one, an installation between it and the tests.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use interceptor_tests::{
    Bed, Finished, Installation, Job, Records, RunningBed, Setup, bed::HOST, installation::agent_user,
    places, process,
};
use nix::{sys::signal::Signal, unistd::User};

use crate::{
    approver::{self, Approver},
    suite::{self, Address, Runner, Suite, Tls, Variant},
    tally::Tally,
};

/// How long a whole suite may take.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

/// How long one test may take: many times what it takes direct on a machine that does nothing else.
const EACH: Duration = Duration::from_secs(600);

/// The policy: all that can be understood.
const POLICY: &str = include_str!("../../../suites/10-everything.cedar");

/// When the texts that are permitted by their hash no longer are.
const EXPIRY: u64 = 4_102_444_800;

/// What stands between the tests and the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Capture<'a> {
    /// Nothing.
    None,
    /// An installation that forwards whatever the verdict is, and records it.
    Observed,
    /// An installation that enforces; texts with these hashes are permitted though nobody understands them.
    Enforced(&'a BTreeSet<String>),
}

impl Capture<'_> {
    fn is_some(self) -> bool {
        !matches!(self, Self::None)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "direct",
            Self::Observed => "observed",
            Self::Enforced(_) => "enforced",
        }
    }
}

/// A server with what stands before it, and the tests in a folder of their own.
pub(crate) struct Side {
    suite: &'static Suite,
    variant: Variant,
    name: &'static str,
    folder: PathBuf,
    work: tempfile::TempDir,
    bed: RunningBed,
    installation: Option<Installation>,
    approver: Option<Approver>,
}

impl Side {
    /// Makes ready; nothing runs yet.
    pub(crate) fn start(
        suite: &'static Suite,
        variant: Variant,
        folder: &Path,
        capture: Capture<'_>,
    ) -> Self {
        let mut bed = Bed::default().with("max_connections", "200");
        for line in suite.access {
            bed = bed.admit(line);
        }
        if let Some(port) = suite.port {
            bed = bed.at(port);
        }
        for (name, value) in suite.settings {
            bed = bed.with(name, value);
        }
        let bed = bed.run();
        bed.admin("postgres", &format!("ALTER ROLE postgres PASSWORD '{}'", bed.secret()));
        for (database, sql) in suite.prepare {
            bed.admin(database, sql);
        }
        let mut approver = (variant == Variant::Approved && capture.is_some()).then(Approver::new);
        let installation = match capture {
            Capture::None => None,
            Capture::Observed => Some(install(suite, &bed, variant, ("observe", ""), approver.as_ref())),
            Capture::Enforced(unread) => {
                Some(install(suite, &bed, variant, ("enforce", &permits(unread)), approver.as_ref()))
            }
        };
        if let (Some(approver), Some(installation)) = (&mut approver, &installation) {
            approver.begin(installation);
        }
        let work = places::scratch("suite");
        for file in suite.files.iter().map(|file| folder.join(file)) {
            process::run(process::command(&[
                "cp".as_ref(),
                "-r".as_ref(),
                file.as_os_str(),
                work.path().as_os_str(),
            ]))
            .succeeded();
        }
        fs::write(work.path().join("outcomes.py"), include_str!("../../../suites/outcomes.py"))
            .expect("own folder");
        let user = user();
        let own = format!("{}:{}", user.uid, user.gid);
        process::run(process::command(&["chown", "-R", &own, &work.path().display().to_string()]))
            .succeeded();
        Self {
            suite,
            variant,
            name: capture.name(),
            folder: folder.to_owned(),
            work,
            bed,
            installation,
            approver,
        }
    }

    /// Runs the tests of these names; all when there is none.
    pub(crate) fn run(&self, only: &[&str]) -> Tally {
        println!(
            "{} of {}, {} ...",
            if only.is_empty() { "all" } else { "some" },
            self.suite.name,
            self.name
        );
        let outcomes = self.work.path().join("outcomes.jsonl");
        let _ = fs::remove_file(&outcomes);
        let finished = Job::start(self.command(only, &outcomes), "").finish(PATIENCE);
        self.keep(&finished, only);
        assert!(!finished.timed_out, "{} {} takes longer than {PATIENCE:?}", self.suite.name, self.name);
        match self.suite.runner {
            Runner::Pytest(_) => Tally::of_pytest(&fs::read_to_string(&outcomes).unwrap_or_default()),
            Runner::Libtest => Tally::of_libtest(&finished.stdout),
        }
    }

    /// The same command on every side, but for the address and for `run` before it.
    fn command(&self, only: &[&str], outcomes: &Path) -> Command {
        let direct = Address { host: "127.0.0.1", port: self.bed.port(), password: self.bed.secret() };
        // The agent's own password is not looked at.
        let captured = Address { host: HOST, port: 5432, password: "whatever" };
        let address = if self.installation.is_some() { captured } else { direct };
        let mut words = vec!["/usr/bin/env".to_owned(), "-i".to_owned()];
        let home = self.work.path().display();
        for setting in
            ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1"]
        {
            words.push(setting.to_owned());
        }
        words.extend([format!("HOME={home}"), format!("PYTHONPATH={home}")]);
        words.push(format!("OUTCOMES={}", outcomes.display()));
        words.extend(
            (self.suite.environment)(address).into_iter().map(|(name, value)| format!("{name}={value}")),
        );
        if self.suite.tls == Tls::Told {
            let mode = match self.variant {
                Variant::Plain | Variant::Approved => "disable",
                Variant::Tls => "require",
            };
            words.push(format!("PGSSLMODE={mode}"));
        }
        match self.suite.runner {
            Runner::Pytest(arguments) => {
                words.push(suite::python(&self.folder));
                let plugins =
                    ["-m", "pytest", "-q", "-p", "outcomes", "-p", "no:cacheprovider", "-p", "no:randomly"];
                words.extend(plugins.map(str::to_owned));
                words.extend([format!("--timeout={}", EACH.as_secs()), "--timeout-method=signal".to_owned()]);
                let all = arguments.iter().filter(|word| only.is_empty() || word.starts_with('-'));
                words.extend(all.map(|word| (*word).to_owned()));
            }
            Runner::Libtest => {
                // Sessions that ask for the same at once ask for one approval: where a person is asked, one test runs
                // after the other.
                let threads = if self.variant == Variant::Approved { 1 } else { 2 };
                words.extend([
                    self.folder.join("tests").display().to_string(),
                    format!("--test-threads={threads}"),
                ]);
                words.extend((!only.is_empty()).then(|| "--exact".to_owned()));
            }
        }
        for name in self.suite.left_out(self.variant) {
            words.extend(match self.suite.runner {
                Runner::Pytest(_) => ["--deselect".to_owned(), name.to_owned()],
                Runner::Libtest => ["--skip".to_owned(), name.to_owned()],
            });
        }
        words.extend(only.iter().map(|name| (*name).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = match &self.installation {
            Some(installation) => installation.captured("suite", &words),
            None => {
                let user = user();
                let mut command = process::command(&words);
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
                command
            }
        };
        command.current_dir(self.work.path());
        command
    }

    /// Leaves what the tests printed where it can be read.
    fn keep(&self, finished: &Finished, only: &[&str]) {
        let again = if only.is_empty() { "" } else { ".again" };
        let path = self.folder.join(format!("{}-{}{again}.out", self.variant.name(), self.name));
        fs::write(&path, finished.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What is recorded, once everything has ended; nothing on the direct side.
    pub(crate) fn records(&self) -> Records {
        let ended = |records: &Records| records.0.iter().all(|exchange| !exchange.status().is_empty());
        self.installation
            .as_ref()
            .map(|installation| installation.records_once("every outcome", ended))
            .unwrap_or_default()
    }

    /// Ends everything, checks the record, and gives what the server logged.
    pub(crate) fn finish(mut self) -> String {
        self.bed.stop(Signal::SIGINT);
        if let Some(approver) = &mut self.approver {
            approver.check();
        }
        if let Some(installation) = self.installation {
            installation.finish();
        }
        if let Some(approver) = self.approver {
            approver.end();
        }
        self.bed.log()
    }
}

fn user() -> User {
    User::from_name(&agent_user()).ok().flatten().expect("the agents' user")
}

/// The product in this mode, with these rules for what cannot be read, and with the approver, where there is one.
fn install(
    suite: &Suite,
    bed: &RunningBed,
    variant: Variant,
    (mode, permits): (&str, &str),
    approver: Option<&Approver>,
) -> Installation {
    let tls = match variant {
        Variant::Plain | Variant::Approved => "{ plaintext = \"a server of the test's own\" }".to_owned(),
        Variant::Tls => format!("{{ roots = {:?}, server_name = \"{HOST}\" }}", bed.roots()),
    };
    // Where the tests insist on a port of this host's, that is where they are met, and let in without a proof.
    let (addresses, proof) = match suite.port {
        None => (String::new(), "secret = { file = \"suite\" }\nminimum = \"scram-sha-256\""),
        Some(port) => (format!("\"127.0.0.1:{port}\", \"[::1]:{port}\""), "minimum = \"none\""),
    };
    let resource = format!(
        "[resource.suite]\nprotocol = \"postgres\"\nhosts = [\"{HOST}\"]\nports = [5432]\nmode = \"{mode}\"\n\
         addresses = [{addresses}]\nupstream = \"127.0.0.1:{}\"\ndial = \"host\"\ntls = {tls}\n\n\
         [[resource.suite.credential]]\nuser = \"postgres\"\n{proof}\n",
        bed.port()
    );
    let setup = match approver {
        None => Setup::empty(),
        Some(approver) => Setup::empty()
            .resource(&format!("approvers = [{:?}]\n", approver::GROUP))
            .people(&approver.people())
            .policy("30-hold.cedar", &approver::rule())
            .settings("local-approval = \"on\""),
    };
    setup
        .agent("[agent.suite]\nowner = \"alice\"\n")
        .resource(&resource)
        .credential("suite", bed.secret())
        .policy("10-everything.cedar", POLICY)
        .policy("20-unread.cedar", permits)
        .start()
}

/// A rule for each text that nobody understands: the only way to permit one.
fn permits(unread: &BTreeSet<String>) -> String {
    let mut rules = String::new();
    for (number, hash) in unread.iter().enumerate() {
        let _ = writeln!(
            rules,
            "@id(\"unread-{number}\")\npermit (principal == Agent::\"suite\", action == Action::\"unknown\", \
             resource == Resource::\"suite\")\n\
             when {{ context.sha256 == \"{hash}\" && context.now < {EXPIRY} }};\n"
        );
    }
    rules
}
