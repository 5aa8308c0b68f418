//! `interceptor daemon`: the helper, with the kernel side and the journal that it drives.

use std::{
    fs,
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::chown,
    },
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use interceptor_core::model::RunId;

use crate::{
    config::Basis,
    helper::{self, Accounts, Around, Capture, Connection, Foreign, Options, Roles, RunNetwork},
    kernel::{
        Attachment, Belts, Girth, KernelLog, Passing, RunAddresses, RunSettings, cgroup, layer::Standing,
    },
    places::Places,
    store::Journal,
    telemetry,
};

/// How old a handshake may be before it is swept: longer than any client waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of `daemon`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write `ready` to standard output when the daemon serves, and close it then.
    #[arg(long)]
    announce: bool,
}

/// Runs the daemon until it is told to end.
pub fn run(places: &Places, root: Option<&Path>, arguments: &Arguments) -> ExitCode {
    telemetry::start();
    if let Err(error) = super::rescue::hand_over(places) {
        eprintln!("interceptor daemon: {}", telemetry::chain(&error));
        return ExitCode::from(3);
    }
    let role = |name: &str| super::own_arguments(root, ["role", name]);
    let ended = helper::run(Options {
        places: places.clone(),
        roles: Roles { proxy: role("proxy"), keeper: role("keeper"), holder: role("holder") },
        announce: arguments.announce,
        capture: Box::new(|places| {
            let layer = Basis::now(places)?.settings(places)?.layer();
            let attachment = Attachment::establish(places, layer)?;
            say(&attachment.layer());
            let log = Mutex::new(attachment.take_log());
            Ok(Arc::new(Kernel { attachment, log, belts: Belts::of(places), places: places.clone() }))
        }),
        journal: Box::new(journal),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interceptor daemon: {}", telemetry::chain(&error));
            ExitCode::from(3)
        }
    }
}

/// What there is of the LSM programs, for whoever wonders what is closed here.
fn say(layer: &Standing) {
    match layer {
        Standing::Off => tracing::info!("no LSM programs: interceptor.toml says `lsm = \"off\"`"),
        Standing::Absent(why) => tracing::info!("no LSM programs: {why}"),
        Standing::InForce(lacking) if lacking.is_empty() => tracing::info!("the LSM programs are in force"),
        Standing::InForce(lacking) => lacking.iter().for_each(|(name, why)| {
            tracing::error!(
                "an LSM program is not in force, and what it would close stays open: {name}: {why}"
            );
        }),
    }
}

/// Opens the journal, which is the keeper's, as its folder is.
fn journal(places: &Places, accounts: Accounts) -> Result<OwnedFd, Foreign> {
    let settings = Basis::now(places)?.settings(places)?;
    let path = places.audit().join("journal");
    drop(Journal::open_or_create(&path, settings.journal_mib * 1024 * 1024)?);
    let (uid, gid) = accounts.keeper;
    chown(&path, Some(uid.as_raw()), Some(gid.as_raw()))?;
    Ok(fs::OpenOptions::new().read(true).write(true).open(&path)?.into())
}

fn ends(connections: &[Connection]) -> Vec<(SocketAddr, SocketAddr)> {
    connections.iter().map(|connection| (connection.own, connection.peer)).collect()
}

struct Kernel {
    attachment: Attachment,
    log: Mutex<Option<KernelLog>>,
    belts: Belts,
    places: Places,
}

impl Capture for Kernel {
    fn deny_all(&self, deny: bool) -> Result<(), Foreign> {
        Ok(self.attachment.deny_all(deny)?)
    }

    fn maintain(&self) -> Result<(), Foreign> {
        if self.attachment.maintain(&self.places)? {
            let slice = self.attachment.slice().display();
            tracing::error!(
                "{slice} was removed by somebody: it was made anew, and the programs are in force again"
            );
            *self.log.lock().unwrap_or_else(PoisonError::into_inner) = self.attachment.take_log();
        }
        Ok(())
    }

    fn register(&self, cgroup: &Path, network: RunNetwork) -> Result<(), Foreign> {
        let settings = RunSettings {
            run: network.run,
            tcp_port: network.ports.tcp,
            dns_port: network.ports.dns,
            namespace: network.namespace,
            own: network.own.map(|(v4, v6)| RunAddresses { v4: Some(v4), v6 }),
        };
        Ok(self.attachment.register_run(cgroup::id(cgroup)?, settings)?)
    }

    fn forget(&self, cgroup: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.forget_run(cgroup::id(cgroup)?)?)
    }

    fn enclose(&self, run: RunId, cgroup: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.enclose(run, cgroup)?)
    }

    fn release(&self, run: RunId, cgroup: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.release(run, cgroup)?)
    }

    fn put_belt_on(
        &self,
        run: RunId,
        netfilter: OwnedFd,
        around: Around<'_>,
        kept: &[Connection],
    ) -> Result<(), Foreign> {
        let girth = match around {
            Around::Namespace => Girth::Namespace,
            Around::Cgroup(path) => Girth::of_cgroup(path)?,
        };
        let passing = Passing {
            released: self.attachment.released_for(run),
            kept: ends(kept),
            kept_for: self.attachment.kept_for(run).unwrap_or_default(),
        };
        Ok(self.belts.put_on(run, netfilter, girth, passing)?)
    }

    fn keep(&self, run: RunId, cookies: &[u64], time: Duration) -> Result<(), Foreign> {
        Ok(self.attachment.keep(run, cookies, time)?)
    }

    fn unkeep(&self, run: RunId, gone: &[Connection]) -> Result<(), Foreign> {
        self.attachment.unkeep(run, &helper::cookies(gone))?;
        Ok(self.belts.unkeep(run, &ends(gone))?)
    }

    fn kept_for(&self, run: RunId) -> Option<Duration> {
        self.attachment.kept_for(run)
    }

    fn take_belt_off(&self, run: RunId, elsewhere: Option<BorrowedFd<'_>>) -> Result<(), Foreign> {
        Ok(self.belts.take_off(run, elsewhere)?)
    }

    fn inspect_belts(&self, only: Option<RunId>) -> Vec<(RunId, String)> {
        self.belts.inspect(only)
    }

    fn shed_belts(&self) -> Result<(), Foreign> {
        Ok(self.belts.shed()?)
    }

    fn descriptors(&self) -> Result<Vec<OwnedFd>, Foreign> {
        Ok(self.attachment.proxy_maps().descriptors()?)
    }

    fn sweep(&self) {
        if let Some(log) = self.log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.flush();
        }
        let swept = self.attachment.sweep(PATIENCE);
        if swept > 0 {
            tracing::debug!(swept, "removed what nobody asked for");
        }
    }

    fn remove(&self) -> Result<(), Foreign> {
        Ok(Attachment::teardown(&self.places)?)
    }
}
