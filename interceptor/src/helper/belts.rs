//! Belts, from the helper's side: put on before a run is served, asked what they caught, taken off with the run.
//!
//! The guarantee does not rest on them: where the kernel has no nftables a run goes without, and `doctor` and the log say so.

use std::{os::fd::AsFd, path::Path};

use interceptor_core::model::{Guarantee, Run, RunId};

use super::{
    Around, Foreign, described::Described, listeners::Listeners, messages::ToProxy, runs::network_of,
    supervisor::Supervisor,
};
use crate::telemetry;

impl Supervisor {
    /// Puts a belt on a run in the network namespace that its listeners are in.
    pub(super) fn put_belt_on(&self, run: &Run, listeners: &Listeners) {
        let cgroup = self.tree.directory(&run.cgroup);
        let around = match run.guarantee {
            Guarantee::Structural => Around::Namespace,
            Guarantee::Enforced | Guarantee::Observed => Around::Cgroup(&cgroup),
        };
        let keeping = Described::find(&self.places, run.id).and_then(|described| described.keeping);
        let kept = keeping.map_or_else(Vec::new, |keeping| keeping.keep.connections);
        let put_on = match &listeners.netfilter {
            Some(netfilter) => netfilter
                .try_clone()
                .map_err(Foreign::from)
                .and_then(|netfilter| self.capture.put_belt_on(run.id, netfilter, around, &kept)),
            None => Err("the kernel has no netfilter that could be spoken to".into()),
        };
        if let Err(error) = put_on {
            let error = telemetry::chain(error.as_ref());
            tracing::warn!(run = %run.id, "the run has no belt: {error}; the kernel programs hold it by themselves");
        }
    }

    /// Takes the belt off a run whose cgroup is let go of, wherever an earlier daemon put it.
    pub(super) fn take_belt_off(&self, run: RunId, directory: &Path) -> Result<(), Foreign> {
        let namespace = network_of(directory)?;
        self.capture.take_belt_off(run, Some(namespace.as_fd()))
    }

    /// Raises the alarm for what belts caught. Without a proxy nobody could record it: then it stays in the kernel's counters.
    pub(super) fn inspect_belts(&self) {
        if self.is_up() {
            self.alarm(None);
        }
    }

    /// The same for one run, whose belt is about to be taken off.
    pub(super) fn inspect_last(&self, run: RunId) {
        self.alarm(Some(run));
    }

    fn alarm(&self, only: Option<RunId>) {
        for (run, text) in self.capture.inspect_belts(only) {
            tracing::error!(%run, "{text}");
            self.tell(ToProxy::Belt { run, text }, Vec::new());
        }
    }
}
