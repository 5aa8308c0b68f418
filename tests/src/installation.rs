//! A private installation of the product: its own root folder, configuration and daemon, gone with the value.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use interceptor::places::Places;
use nix::{sys::signal::Signal, unistd::User};
use serde_json::Value;

use crate::{
    audit::Records,
    bed::{HOST, RunningBed},
    cgroup, interrupt, leaks, places,
    process::{Finished, Job, PATIENCE, run, wait_until},
};

/// What most tests permit: reading and writing rows of `orders`, but for the guarded tables; nothing else.
pub const POLICY: &str = r#"
@id("work")
permit (
    principal,
    action in [Action::"connect", Action::"data", Action::"transaction", Action::"session.change", Action::"cancel"],
    resource in Resource::"orders"
);

@id("built-in-functions")
permit (principal, action == Action::"function.call", resource is Function in Resource::"orders")
when {
    resource.schema == "pg_catalog" &&
    ["generate_series", "pg_sleep", "count", "current_setting", "version", "pg_backend_pid"].contains(resource.name)
};

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };

@id("no-secrets")
@say("the secrets are not for agents")
forbid (principal, action in Action::"data", resource is Table)
when { resource.name == "secrets" || resource.schema == "private" };

@id("no-drops")
@say("tables are dropped by migrations only")
forbid (principal, action == Action::"schema.drop", resource);
"#;

/// Options of `run`: as whom.
pub const AGENT: [&str; 2] = ["--agent", "release-bot"];
/// The same, with nothing refused.
pub const OBSERVED: [&str; 5] = ["--agent", "release-bot", "--observe", "--reason", "first look"];

/// Whoever may launch at all may launch anything.
const LAUNCH: &str =
    "@id(\"launch\")\npermit (principal, action == Action::\"launch\", resource is Program);\n";

/// How the command line of the process that holds listeners ends.
const HOLDER: &str = " role holder";

/// What an installation is configured with.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    resources: String,
    agents: String,
    people: String,
    labels: String,
    policies: Vec<(String, String)>,
    credentials: Vec<(String, String)>,
    settings: String,
    namespace: Option<String>,
    product: Option<PathBuf>,
}

impl Setup {
    /// Agent `release-bot` of alice, and nothing that it could reach.
    pub fn empty() -> Self {
        Self {
            agents: "[agent.release-bot]\nowner = \"alice\"\ngroups = [\"ci\"]\n".to_owned(),
            ..Self::default()
        }
    }

    /// Agent `release-bot`, the resource `orders` at `bed` as role `app`, and [`POLICY`].
    pub fn of(bed: &RunningBed) -> Self {
        Self::empty()
            .resource(&orders(bed, "app", "scram-sha-256"))
            .credential("orders", bed.secret())
            .policy("10-test.cedar", POLICY)
    }

    /// Adds text to resources.toml.
    pub fn resource(mut self, text: &str) -> Self {
        let _ = writeln!(self.resources, "{text}");
        self
    }

    /// Adds text to agents.toml.
    pub fn agent(mut self, text: &str) -> Self {
        let _ = writeln!(self.agents, "{text}");
        self
    }

    /// Adds text to people.toml.
    pub fn people(mut self, text: &str) -> Self {
        let _ = writeln!(self.people, "{text}");
        self
    }

    /// Adds text to labels.toml.
    pub fn labels(mut self, text: &str) -> Self {
        let _ = writeln!(self.labels, "{text}");
        self
    }

    /// Adds a policy file.
    pub fn policy(mut self, name: &str, text: &str) -> Self {
        self.policies.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Adds a credential file.
    pub fn credential(mut self, name: &str, secret: &str) -> Self {
        self.credentials.push((name.to_owned(), secret.to_owned()));
        self
    }

    /// Adds text to interceptor.toml.
    pub fn settings(mut self, text: &str) -> Self {
        let _ = writeln!(self.settings, "{text}");
        self
    }

    /// Puts the daemon and all that it runs into a named network namespace.
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Takes another build of the product than the one under test.
    pub fn product(mut self, binary: PathBuf) -> Self {
        self.product = Some(binary);
        self
    }

    /// Writes the configuration without starting anything.
    #[track_caller]
    pub fn write(self) -> Installation {
        interrupt::listen();
        interrupt::pass();
        let product = self.product.clone().unwrap_or_else(places::interceptor);
        let installation = Installation::new(product, self.namespace.clone());
        let etc = installation.places.configuration().to_owned();
        folder(&etc, 0o755);
        folder(&installation.places.policies(), 0o755);
        folder(&installation.places.credentials(), 0o755);
        file(&etc.join("resources.toml"), &self.resources, 0o644);
        file(&etc.join("agents.toml"), &self.agents, 0o644);
        if !self.people.is_empty() {
            file(&etc.join("people.toml"), &self.people, 0o644);
        }
        if !self.labels.is_empty() {
            file(&etc.join("labels.toml"), &self.labels, 0o644);
        }
        if !self.settings.is_empty() {
            file(&etc.join("interceptor.toml"), &self.settings, 0o644);
        }
        for (name, text) in &self.policies {
            file(&installation.places.policies().join(name), text, 0o644);
        }
        if !self.policies.iter().any(|(_, text)| text.contains("Action::\"launch\"")) {
            // Most tests are about what comes after it.
            file(&installation.places.policies().join("00-launch.cedar"), LAUNCH, 0o644);
        }
        for (name, secret) in &self.credentials {
            installation.put_credential(name, secret);
        }
        installation
    }

    /// Writes the configuration and starts the daemon.
    #[track_caller]
    pub fn start(self) -> Installation {
        let mut installation = self.write();
        installation.start();
        installation
    }
}

/// The resource `orders`: the host `db.internal` at its usual port, served by `bed`.
pub fn orders(bed: &RunningBed, user: &str, minimum: &str) -> String {
    format!(
        "[resource.orders]\nprotocol = \"postgres\"\nenv = \"prod\"\nhosts = [\"{HOST}\"]\nports = [5432]\n\
         upstream = \"127.0.0.1:{}\"\ndial = \"host\"\ntls = {{ roots = {:?}, server_name = \"{HOST}\" }}\n\n\
         [[resource.orders.credential]]\nuser = \"{user}\"\nsecret = {{ file = \"orders\" }}\nminimum = \"{minimum}\"\n",
        bed.port(),
        bed.roots()
    )
}

/// A private installation.
#[derive(Debug)]
pub struct Installation {
    product: PathBuf,
    root: tempfile::TempDir,
    work: tempfile::TempDir,
    places: Places,
    daemon: Option<Job>,
    namespace: Option<String>,
}

impl Installation {
    fn new(product: PathBuf, namespace: Option<String>) -> Self {
        let root = places::scratch("root");
        let work = places::scratch("work");
        let user = User::from_name(&agent_user()).ok().flatten().expect("the agents' user");
        chown(work.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("the tests run as root");
        let places = Places::under(root.path());
        Self { product, root, work, places, daemon: None, namespace }
    }

    /// Puts another build in the place of the one so far, for whatever is started from now on.
    pub fn replace_product(&mut self, binary: PathBuf) {
        self.product = binary;
    }

    /// Where its things are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Its root folder, as `--root` wants it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A folder that the agents' user may write.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// Writes a credential as the keeper wants it.
    pub fn put_credential(&self, name: &str, secret: &str) {
        let path = self.places.credentials().join(name);
        file(&path, secret, 0o600);
        let (uid, gid) = interceptor::helper::Accounts::find().keeper;
        chown(&path, Some(uid.as_raw()), Some(gid.as_raw())).expect("the tests run as root");
    }

    /// Replaces a policy file; in force after `reload`.
    pub fn put_policy(&self, name: &str, text: &str) {
        file(&self.places.policies().join(name), text, 0o644);
    }

    /// A command line of the product for this installation.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.outside(&self.product);
        command.arg("--root").arg(self.root.path()).args(arguments);
        command
    }

    /// A command that is not captured, in the network namespace of this installation.
    pub fn outside(&self, program: &Path) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new(places::tool("nsenter"));
                command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
                command
            }
        };
        command.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8").env_remove("INTERCEPTOR_ROOT");
        for (name, _) in std::env::vars() {
            // What the host's own session carries is no part of a test.
            if name.starts_with("PG") || name.to_lowercase().ends_with("_proxy") || name.starts_with("SUDO_")
            {
                command.env_remove(name);
            }
        }
        command
    }

    /// What waits for people, or did lately, newest first.
    #[track_caller]
    pub fn approvals(&self) -> Vec<Value> {
        let list = self.interceptor(&["--json", "approvals", "list"]).succeeded();
        serde_json::from_str(&list.stdout).expect("JSON")
    }

    /// The newest request for approval whose statement contains `part`, once there is one that is open.
    #[track_caller]
    pub fn open_approval(&self, part: &str) -> String {
        let mut found = None;
        wait_until(&format!("a request for approval of {part:?}"), PATIENCE, || {
            found = self.find_approval(part);
            found.is_some()
        });
        found.expect("just found")
    }

    /// The same, asked for by `job`, which must not end before.
    #[track_caller]
    pub fn approval_of(&self, mut job: Job, part: &str) -> (Job, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.find_approval(part) {
                return (job, found);
            }
            if !job.is_running() || Instant::now() > deadline {
                job.signal(Signal::SIGKILL);
                let ended = job.finish(PATIENCE);
                let tail = self.interceptor(&["audit", "tail", "--all", "-n", "40"]).stdout;
                panic!("nothing was asked with {part:?}: {ended}\n{tail}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find_approval(&self, part: &str) -> Option<String> {
        // The daemon may be on its way back.
        let list = self.interceptor(&["--json", "approvals", "list"]);
        let all: Vec<Value> = serde_json::from_str(&list.stdout).unwrap_or_default();
        let found = all.into_iter().filter(|approval| approval["state"] == "open").find(|approval| {
            approval["card"]["statements"][0]["text"].as_str().is_some_and(|t| t.contains(part))
        });
        found.and_then(|approval| approval["id"].as_str().map(str::to_owned))
    }

    /// Runs the product to its end.
    pub fn interceptor(&self, arguments: &[&str]) -> Finished {
        run(self.command(arguments))
    }

    /// Starts the daemon and waits until it answers. One that was killed before is waited for: it has its lock until the
    /// kernel has taken everything from it.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_as(self.command(&["daemon"]));
    }

    /// Starts the daemon with a bpffs of its own, in a mount namespace of its own.
    #[track_caller]
    pub fn start_apart(&mut self) {
        let mut command = self.outside(&places::tool("unshare"));
        command.args(["--mount", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]);
        command.arg(&self.product).arg("--root").arg(self.root.path()).arg("daemon");
        self.start_as(command);
    }

    #[track_caller]
    fn start_as(&mut self, command: Command) {
        if let Some(before) = self.daemon.take() {
            let finished = before.finish(Duration::from_secs(10));
            assert!(!finished.timed_out, "the daemon runs already: {finished}");
        }
        let mut daemon = Job::start(command, "");
        let mut answers = false;
        for _ in 0..600 {
            answers = self.interceptor(&["status"]).status.success();
            if answers || !daemon.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if !answers {
            daemon.signal(Signal::SIGTERM);
            panic!("the daemon does not serve: {}", daemon.finish(Duration::from_secs(10)));
        }
        self.daemon = Some(daemon);
    }

    /// The daemon's first process.
    pub fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Job::pid)
    }

    /// Every process of the daemon that ends with it, by its role as the command line names it.
    pub fn roles(&self) -> Vec<(String, u32)> {
        let all = leaks::processes_of(&self.places.daemon_cgroup()).into_iter();
        all.filter(|process| !process.command.ends_with(HOLDER))
            .map(|process| {
                let role = ["proxy", "keeper"].iter().find(|role| process.command.contains(*role));
                (role.map_or("helper", |role| role).to_owned(), process.pid)
            })
            .collect()
    }

    /// The process that holds listeners when no daemon lives.
    pub fn holder(&self) -> Option<u32> {
        let mut all = leaks::processes_of(&self.places.daemon_cgroup()).into_iter();
        all.find(|process| process.command.ends_with(HOLDER)).map(|process| process.pid)
    }

    /// Ends the daemon in good order.
    #[track_caller]
    pub fn stop(&mut self) -> Option<Finished> {
        let daemon = self.daemon.take()?;
        daemon.signal(Signal::SIGTERM);
        let finished = daemon.finish(Duration::from_secs(60));
        assert!(!finished.timed_out, "the daemon does not stop: {finished}");
        Some(finished)
    }

    /// A captured command, not yet started.
    pub fn captured(&self, agent: &str, command: &[&str]) -> Command {
        self.captured_with(&["--agent", agent], command)
    }

    /// A captured command with options of `run`, not yet started.
    pub fn captured_with(&self, options: &[&str], words: &[&str]) -> Command {
        let user = agent_user();
        let mut arguments = vec!["run", "--user", &user];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(words);
        let mut command = self.command(&arguments);
        command.current_dir(self.work.path());
        command
    }

    /// Runs a captured command of `agent` to its end.
    pub fn run(&self, agent: &str, command: &[&str]) -> Finished {
        run(self.captured(agent, command))
    }

    /// Runs captured psql of `release-bot` with `sql` on its standard input, going on after errors.
    pub fn psql(&self, sql: &str) -> Finished {
        Job::start(self.captured("release-bot", &self.psql_words(&["-f", "-"])), sql).finish(PATIENCE)
    }

    /// psql as an agent calls it: any user, any password, over TLS that it verifies.
    pub fn psql_words<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec!["psql", "-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d", DSN];
        words.extend(more);
        words
    }

    /// Writes a file into the agents' folder and gives its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.work.path().join(name);
        file(&path, text, 0o755);
        path.display().to_string()
    }

    /// All records.
    #[track_caller]
    pub fn records(&self) -> Records {
        let export = self.interceptor(&["--json", "audit", "export", "--format", "jsonl"]);
        if !export.status.success() && export.stderr.contains("no record") {
            return Records::default();
        }
        Records::parse(&export.succeeded().stdout)
    }

    /// All records, once `condition` holds of them: a record is readable a moment after it is committed.
    #[track_caller]
    pub fn records_once(&self, what: &str, mut condition: impl FnMut(&Records) -> bool) -> Records {
        let mut records = Records::default();
        for _ in 0..250 {
            records = self.records();
            if condition(&records) {
                return records;
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        panic!("waited in vain for {what}; the records are {:#?}", records.brief());
    }

    /// The records of the agent's with `part` in their statement, all of them ended.
    #[track_caller]
    pub fn ended(&self, part: &str) -> Records {
        self.records_once(&format!("the end of {part:?}"), |records| {
            let found = records.with(part);
            !found.is_empty() && found.iter().all(|exchange| !exchange.status().is_empty())
        })
    }

    /// What `status` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        let status = self.interceptor(&["--json", "status"]).succeeded();
        serde_json::from_str(&status.stdout).expect("JSON")
    }

    /// The live runs.
    #[track_caller]
    pub fn runs(&self) -> Vec<Value> {
        let list = self.interceptor(&["--json", "ps"]).succeeded();
        serde_json::from_str(&list.stdout).expect("JSON")
    }

    /// Ends everything in good order and checks that the record is whole, nothing is left in the kernel, and no run's belt
    /// ever caught anything.
    #[track_caller]
    pub fn finish(mut self) {
        self.end();
        assert_eq!(self.alarms(), Vec::<String>::new(), "the kernel programs let something by");
    }

    /// The same where belts had something to catch.
    #[track_caller]
    pub fn finish_after_alarms(mut self) {
        self.end();
        assert_ne!(self.alarms(), Vec::<String>::new(), "belts are heard of");
    }

    /// What the record says of belts, as it stands on disk.
    fn alarms(&self) -> Vec<String> {
        let files = fs::read_dir(self.places.audit()).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| fs::read(file.path()).ok());
        let texts: Vec<_> = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.filter(|line| line.contains("\"kind\":\"belt\"")).map(str::to_owned).collect()
    }

    /// The same where it does not matter.
    #[track_caller]
    pub fn end(&mut self) {
        if self.daemon.is_some() {
            self.stop();
        }
        if self.places.audit().exists() {
            self.interceptor(&["audit", "verify"]).succeeded();
        }
        self.remove_kernel_side();
        let mark = self.mark();
        wait_until("the kernel to let go", PATIENCE, || leaks::traces_of(&mark).is_empty());
    }

    /// What is in the names of everything that belongs to this installation and to no other.
    pub fn mark(&self) -> String {
        self.places.slice().trim_start_matches("interceptor-").trim_end_matches(".slice").to_owned()
    }

    fn remove_kernel_side(&self) {
        let root = leaks::cgroup_root();
        for name in [self.places.slice(), self.places.daemon_cgroup()] {
            cgroup::remove(&root.join(name));
        }
        let _ = fs::remove_dir_all(self.places.pins());
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            let said = daemon.end(Duration::from_secs(20));
            if std::thread::panicking() {
                eprintln!("the daemon said:\n{}", said.text());
            }
        }
        self.remove_kernel_side();
        if std::thread::panicking() {
            // A cgroup in its place, whose end the daemon did not live to see, leaves its belt.
            leaks::remove_tables_of(&self.mark());
        }
    }
}

/// The data source of an agent: whatever user and password, and the server's certificate verified against `run`'s
/// roots.
pub const DSN: &str =
    "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=verify-full";

/// Whom agents run as: the user behind `sudo`, else `nobody`; root only where nobody cannot reach the build folder.
pub fn agent_user() -> String {
    if let Some(user) = std::env::var("SUDO_USER").ok().filter(|user| user != "root") {
        return user;
    }
    let open = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    if places::workspace().ancestors().all(open) { "nobody".to_owned() } else { "root".to_owned() }
}

fn folder(path: &Path, mode: u32) {
    fs::create_dir_all(path).expect("own folder");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own folder");
}

fn file(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("own folder");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}
