//! What is measured against what: one database, and every way to it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use anyhow::{Context, Result};
use interceptor_tests::{Bed, Installation, Job, RunningBed, Setup, bed, places};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    driver::Driver,
    rivals::{self, Rival},
    usage::Watched,
};

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
                for core in 0..fs::read_dir("/sys/devices/system/cpu")?
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

/// What lies on the wire, on both sides of whatever stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The protocol as it is.
    Clear,
    /// TLS, ended by whoever reads the protocol, and carried on by whoever copies bytes.
    Tls,
}

impl Transport {
    /// libpq's words for it. Roots that are not there are not asked: who ends TLS is another one each time.
    fn mode(self) -> &'static str {
        match self {
            Self::Clear => "disable",
            Self::Tls => "require sslrootcert=/none",
        }
    }
}

/// Which client goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// One on the host.
    Outside,
    /// One in a run.
    Captured,
    /// One in a run of the installation whose permits wait for the disk.
    CapturedDurable,
    /// One that was attached to.
    Attached,
}

/// A way to the database.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) host: &'static str,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    /// What stands between, by its parts.
    pub(crate) watched: Vec<Watched>,
}

impl Target {
    /// What libpq needs to go there.
    pub(crate) fn connection(&self) -> String {
        let Self { host, port, transport, .. } = self;
        format!("host={host} port={port} dbname=orders user={USER} sslmode={}", transport.mode())
    }
}

/// Everything, running.
pub(crate) struct Stage {
    // Clients end before what they talk to.
    outside: Driver,
    captured: Driver,
    captured_durable: Driver,
    attached: Driver,
    pub(crate) targets: Vec<Target>,
    pub(crate) ours: Installation,
    durable: Installation,
    _relay: Job,
    _rivals: Vec<Rival>,
    _bed: RunningBed,
}

/// What the bench's agent may do: everything that it is measured with.
const POLICY: &str = r#"
@id("work")
permit (
    principal,
    action in [Action::"connect", Action::"data", Action::"transaction", Action::"session.change", Action::"cancel"],
    resource in Env::"bench"
);

@id("rows")
permit (principal, action == Action::"function.call", resource is Function in Env::"bench")
when { resource.schema == "pg_catalog" && resource.name == "generate_series" };

@id("look-up")
permit (principal, action == Action::"resolve", resource is Name) when { resource.inventory };

@id("pass")
permit (principal, action == Action::"pass", resource == Resource::"opaque");
"#;

impl Stage {
    /// Starts it all in `layout`.
    pub(crate) fn start(layout: Layout, transport: Transport) -> Result<Self> {
        layout.enter()?;
        let bed = bed();
        let relay_port = bed::free_port();
        let relay = beside("raw-relay", &[&relay_port.to_string(), &bed.port().to_string()]);
        let rivals = rivals::start(bed.port(), transport)?;
        let ours = installation(&bed, transport).start();
        let durable = installation(&bed, transport).settings("durability = \"power\"").start();
        let outside = Driver::outside(&ours)?;
        let captured = Driver::captured(&ours, ours.work())?;
        let captured_durable = Driver::captured(&durable, ours.work())?;
        let attached = Driver::attached(&ours)?;
        let beside = |name, port, pid: Option<u32>| {
            let watched = pid.map(|pid| Watched { role: "proxy".to_owned(), pid }).into_iter().collect();
            Target { name, client: Client::Outside, host: "127.0.0.1", port, transport, watched }
        };
        let within = |name, host, client, installation| Target {
            name,
            client,
            host,
            port: 5432,
            transport,
            watched: daemon(installation),
        };
        let mut targets =
            vec![beside("direct", bed.port(), None), beside("relay", relay_port, Some(relay.pid()))];
        targets.extend(rivals.iter().map(|rival| beside(rival.name, rival.port, Some(rival.job.pid()))));
        targets.extend([
            within("pass", "opaque.internal", Client::Captured, &ours),
            within("metadata", "metadata.internal", Client::Captured, &ours),
            within("audit", bed::HOST, Client::Captured, &ours),
            within("rows", "rows.internal", Client::Captured, &ours),
            within("power", bed::HOST, Client::CapturedDurable, &durable),
        ]);
        let (_relay, _rivals, _bed) = (relay, rivals, bed);
        Ok(Self {
            outside,
            captured,
            captured_durable,
            attached,
            targets,
            ours,
            durable,
            _relay,
            _rivals,
            _bed,
        })
    }

    /// One way more, for what hangs on how a client was captured: as `audit`, by one that was attached to.
    pub(crate) fn with_attached(&mut self) -> Result<()> {
        let audit = self.targets.get(self.target("audit")?).context("no such target")?;
        let attached = Target { name: "attached", client: Client::Attached, ..audit.clone() };
        self.targets.push(attached);
        Ok(())
    }

    /// The client of a kind.
    pub(crate) fn client(&mut self, client: Client) -> &mut Driver {
        match client {
            Client::Outside => &mut self.outside,
            Client::Captured => &mut self.captured,
            Client::CapturedDurable => &mut self.captured_durable,
            Client::Attached => &mut self.attached,
        }
    }

    /// The number of a target.
    pub(crate) fn target(&self, name: &str) -> Result<usize> {
        self.targets
            .iter()
            .position(|target| target.name == name)
            .with_context(|| format!("no target {name}"))
    }

    /// The installation that a target of ours belongs to.
    pub(crate) fn installation(&self, name: &str) -> Result<&Installation> {
        let target = self.targets.get(self.target(name)?).context("no such target")?;
        Ok(match target.client {
            Client::Outside | Client::Captured | Client::Attached => &self.ours,
            Client::CapturedDurable => &self.durable,
        })
    }

    /// A file that the clients of every target can read.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        self.ours.script(name, text)
    }

    /// A folder that the clients of every target can write.
    pub(crate) fn folder(&self, stem: &str) -> Result<TempDir> {
        // What lies in the host's temporary folder is not seen in a run, but for where it was started.
        let folder = TempDir::with_prefix_in(stem, self.ours.work())?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        Ok(folder)
    }

    /// Ends it all in good order, and sees that the record is whole.
    pub(crate) fn finish(self) {
        let Self { outside, captured, captured_durable, attached, ours, durable, .. } = self;
        drop((outside, captured, captured_durable, attached));
        ours.finish();
        durable.finish();
    }
}

/// The database, with pgbench's own table, small enough to lie in memory.
pub(crate) fn bed() -> RunningBed {
    let bed = Bed::default()
        .open_to(USER)
        .with("log_statement", "none")
        .with("shared_buffers", "256MB")
        .with("max_connections", "2400")
        .run();
    bed.admin(
        "orders",
        "SET ROLE app; CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));\
         INSERT INTO pgbench_accounts SELECT n, 1, 0, '' FROM generate_series(1, 100000) AS n;\
         CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, tbalance int) WITH (fillfactor = 10);\
         INSERT INTO pgbench_tellers SELECT n, 0 FROM generate_series(1, 10) AS n;\
         CREATE TABLE pgbench_history (tid int, aid int, delta int, mtime timestamp);\
         CREATE UNLOGGED TABLE copied (LIKE pgbench_accounts);\
         ANALYZE pgbench_accounts, pgbench_tellers",
    );
    bed
}

/// Of the answers at `rows` the first rows are recorded; that needs a word that what is labelled there was looked at.
const LABELS: &str = "[label.none]\nresources = [\"rows\"]\ncolumns = [\"public.nothing.here\"]\nmask = \"redact\"\n\n\
                      [reviewed]\nrows = { by = \"alice\", on = \"2026-11-26\" }\n";

/// The product before `bed`, by four resources: looked at and recorded as by default, with the rows that come back as
/// well, without literals and bind values, and passed unseen.
pub(crate) fn installation(bed: &RunningBed, transport: Transport) -> Setup {
    let upstream = format!("upstream = \"127.0.0.1:{}\"\ndial = \"host\"\nports = [5432]\n", bed.port());
    let tls = match transport {
        Transport::Clear => "{ plaintext = \"TLS is not what is measured\" }".to_owned(),
        Transport::Tls => format!("{{ roots = {:?}, server_name = {:?} }}", bed.roots(), bed::HOST),
    };
    let inspected = |name: &str, host: &str, record: &str| {
        format!(
            "[resource.{name}]\nprotocol = \"postgres\"\nenv = \"bench\"\nhosts = [{host:?}]\nrecord = {record:?}\n\
             {upstream}tls = {tls}\n\n\
             [[resource.{name}.credential]]\nuser = \"{USER}\"\nminimum = \"none\"\n"
        )
    };
    Setup::empty()
        .resource(&inspected("orders", bed::HOST, "binds"))
        .resource(&inspected("metadata", "metadata.internal", "metadata"))
        .resource(&inspected("rows", "rows.internal", "rows"))
        .labels(LABELS)
        .resource(&format!("[resource.opaque]\nhosts = [\"opaque.internal\"]\n{upstream}"))
        .policy("10-bench.cedar", POLICY)
        .settings("run-quota-mib = 1048576")
}

/// A daemon's processes.
pub(crate) fn daemon(installation: &Installation) -> Vec<Watched> {
    installation.roles().into_iter().map(|(role, pid)| Watched { role, pid }).collect()
}

/// A program that was built beside this one, pinned as this one is.
pub(crate) fn beside(name: &str, arguments: &[&str]) -> Job {
    let mut command = Command::new(places::interceptor().with_file_name(name));
    command.args(arguments);
    Job::start(command, "")
}
