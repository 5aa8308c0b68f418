//! What is measured against what: one database, and every way to it.

use std::process::Command;

use anyhow::{Context, Result};
use interceptor_tests::{Bed, Installation, Job, RunningBed, Setup, bed, places};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{driver::Driver, usage::Watched};

/// The role of every session upstream: it needs no proof, since neither TLS nor a log-in is what is measured.
pub(crate) const USER: &str = "app";

/// How the processes lie on the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Client, server and everything between on one processor: what is compared is work.
    OneCore,
    /// Wherever the kernel puts them.
    Free,
}

impl Layout {
    /// Puts this process, and thereby whatever it starts from now on, where the layout says.
    pub(crate) fn enter(self) -> Result<()> {
        let mut set = CpuSet::new();
        match self {
            Self::OneCore => set.set(0)?,
            Self::Free => {
                for core in 0..std::fs::read_dir("/sys/devices/system/cpu")?
                    .flatten()
                    .filter(|entry| is_core(&entry.file_name().to_string_lossy()))
                    .count()
                {
                    set.set(core)?;
                }
            }
        }
        sched_setaffinity(Pid::from_raw(0), &set).context("this process cannot be placed on its processors")
    }
}

/// Whether a name is `cpu` and a number.
fn is_core(name: &str) -> bool {
    name.strip_prefix("cpu").is_some_and(|number| number.parse::<usize>().is_ok())
}

/// Which client goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// One on the host.
    Outside,
    /// One in a run.
    Captured,
}

/// A way to the database.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) host: &'static str,
    pub(crate) port: u16,
    /// What stands between, by its parts.
    pub(crate) watched: Vec<Watched>,
}

impl Target {
    /// What libpq needs to go there.
    pub(crate) fn connection(&self) -> String {
        format!("host={} port={} dbname=orders user={USER} sslmode=disable", self.host, self.port)
    }
}

/// Everything, running.
pub(crate) struct Stage {
    // Clients end before what they talk to.
    outside: Driver,
    captured: Driver,
    pub(crate) targets: Vec<Target>,
    pub(crate) ours: Installation,
    _relay: Job,
    _bed: RunningBed,
}

/// What the bench's agent may do: everything that it is measured with.
const POLICY: &str = r#"
@id("work")
permit (
    principal,
    action in [Action::"connect", Action::"data", Action::"transaction", Action::"session.change", Action::"cancel"],
    resource in Resource::"orders"
);

@id("rows")
permit (principal, action == Action::"function.call", resource is Function in Resource::"orders")
when { resource.schema == "pg_catalog" && resource.name == "generate_series" };

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };
"#;

impl Stage {
    /// Starts it all in `layout`.
    pub(crate) fn start(layout: Layout) -> Result<Self> {
        layout.enter()?;
        let bed = Bed::default()
            .open_to(USER)
            .with("log_statement", "none")
            .with("shared_buffers", "256MB")
            .with("max_connections", "200")
            .run();
        fill(&bed);
        let relay_port = bed::free_port();
        let relay = beside("raw-relay", &[&relay_port.to_string(), &bed.port().to_string()]);
        let resource = format!(
            "[resource.orders]\nprotocol = \"postgres\"\nhosts = [{:?}]\nports = [5432]\nupstream = \"127.0.0.1:{}\"\n\
             dial = \"host\"\ntls = {{ plaintext = \"TLS is not what is measured\" }}\n\n\
             [[resource.orders.credential]]\nuser = \"{USER}\"\nminimum = \"none\"\n",
            bed::HOST,
            bed.port()
        );
        let ours = Setup::empty()
            .resource(&resource)
            .policy("10-bench.cedar", POLICY)
            .settings("run-quota-mib = 1048576")
            .start();
        let outside = Driver::outside(&ours)?;
        let captured = Driver::captured(&ours)?;
        let daemon = ours.roles().into_iter().map(|(role, pid)| Watched { role, pid }).collect();
        let beside =
            |name, port, watched| Target { name, client: Client::Outside, host: "127.0.0.1", port, watched };
        let targets = vec![
            beside("direct", bed.port(), Vec::new()),
            beside("relay", relay_port, vec![Watched { role: "proxy".to_owned(), pid: relay.pid() }]),
            Target { name: "audit", client: Client::Captured, host: bed::HOST, port: 5432, watched: daemon },
        ];
        Ok(Self { outside, captured, targets, ours, _relay: relay, _bed: bed })
    }

    /// Carries out a line as the client of a target.
    pub(crate) fn tell(&mut self, client: Client, line: &str) -> Result<String> {
        match client {
            Client::Outside => self.outside.tell(line),
            Client::Captured => self.captured.tell(line),
        }
    }

    /// A file that the clients of every target can read.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        self.ours.script(name, text)
    }

    /// Ends it all in good order, and sees that the record is whole.
    pub(crate) fn finish(self) {
        let Self { outside, captured, ours, .. } = self;
        drop((outside, captured));
        ours.finish();
    }
}

/// A program that was built beside this one, pinned as this one is.
fn beside(name: &str, arguments: &[&str]) -> Job {
    let path = places::interceptor().with_file_name(name);
    let mut command = Command::new(path);
    command.args(arguments);
    Job::start(command, "")
}

/// pgbench's own tables, small enough to lie in memory.
fn fill(bed: &RunningBed) {
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));\
         INSERT INTO pgbench_accounts SELECT n, 1, 0, '' FROM generate_series(1, 100000) AS n;\
         ANALYZE pgbench_accounts",
    );
}
