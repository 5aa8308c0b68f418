//! Processes of runs that want to be connected to a Unix socket, on their way from the porter to the proxy.
//!
//! Promises: the proxy is told of no process but one that is in the run's own cgroup, by what the kernel says of it while
//! it lives; whatever stands against that closes the channel to the porter, which refuses. What the path says is not
//! looked at here.

use std::os::fd::OwnedFd;

use interceptor_core::model::{Guarantee, RunId};

use super::{
    Foreign,
    executable::start_ticks,
    messages::{CallerFacts, ToProxy},
    runs::process_of,
    supervisor::{Stage, Supervisor},
};

/// What a porter says of a caller, and a pidfd and a channel, in this order.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) run: RunId,
    pub(super) uid: u32,
    pub(super) path: String,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Supervisor {
    /// Takes it to the proxy, or to nobody.
    pub(super) fn introduce(&self, wanted: Wanted) {
        let run = wanted.run;
        if let Err(error) = self.try_introduce(wanted) {
            // As often as the run tries.
            tracing::debug!(%run, %error, "a process was not connected to a Unix socket");
        }
    }

    fn try_introduce(&self, wanted: Wanted) -> Result<(), Foreign> {
        let Wanted { run, uid, path, descriptors } = wanted;
        let [process, porter] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|wrong| format!("a porter sent {} descriptors instead of 2", wrong.len()))?;
        let Some(Stage::Starting { served, .. } | Stage::Served(served)) = self.runs.get(&run) else {
            return Err("its run is not served".into());
        };
        if served.run.guarantee != Guarantee::Structural {
            return Err("its run has no porter".into());
        }
        let pid = process_of(&process)?;
        let directory = self.tree.directory(&served.run.cgroup);
        let cgroup = self.tree.number_of(&directory, pid).ok_or("it is not in the run's cgroup")?;
        let ticks = start_ticks(pid).ok_or("it is gone")?;
        // Whatever was read, was read of this one.
        if process_of(&process)? != pid {
            return Err("it is gone".into());
        }
        let caller = CallerFacts { pid, ticks, uid, cgroup };
        if self.is_up() && self.offer(ToProxy::Wanted { run, caller, path }, vec![porter]) {
            Ok(())
        } else {
            Err("the proxy does not take it".into())
        }
    }
}
