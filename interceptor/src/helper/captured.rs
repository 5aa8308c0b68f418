//! The real kernel side behind the helper's [`Capture`].

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use super::{Capture, Foreign, RunNetwork};
use crate::{
    kernel::{Attachment, RunAddresses, RunSettings, cgroup},
    places::Places,
};

/// How long an accepted connection may stay unasked for.
const UNCLAIMED: Duration = Duration::from_secs(30);

struct Kernel {
    attachment: Attachment,
    places: Places,
}

/// Puts the kernel programs in force, refusing everything until the roles work.
pub fn capture(places: &Places) -> Result<Arc<dyn Capture>, Foreign> {
    let attachment = Attachment::establish(places)?;
    attachment.deny_all(true)?;
    Ok(Arc::new(Kernel { attachment, places: places.clone() }))
}

impl Capture for Kernel {
    fn deny_all(&self, deny: bool) -> Result<(), Foreign> {
        Ok(self.attachment.deny_all(deny)?)
    }

    fn register(&self, path: &Path, network: RunNetwork) -> Result<(), Foreign> {
        let settings = RunSettings {
            run: network.run,
            tcp_port: network.ports.tcp,
            dns_port: network.ports.dns,
            own_namespace: Some(network.namespace),
            addresses: RunAddresses { v4: Some(network.v4), v6: network.v6 },
        };
        Ok(self.attachment.register_run(cgroup::id(path)?, settings)?)
    }

    fn forget(&self, path: &Path) -> Result<(), Foreign> {
        Ok(self.attachment.forget_run(cgroup::id(path)?)?)
    }

    fn descriptors(&self) -> Result<Vec<OwnedFd>, Foreign> {
        Ok(self.attachment.proxy_maps().descriptors()?)
    }

    fn sweep(&self) {
        let swept = self.attachment.sweep(UNCLAIMED);
        if swept > 0 {
            tracing::debug!(swept, "entries that nobody will ask for");
        }
    }

    fn remove(&self) -> Result<(), Foreign> {
        Ok(Attachment::teardown(&self.places)?)
    }
}
