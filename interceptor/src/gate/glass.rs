//! Where the glass is broken: policy is asked and recorded there, and not carried out.
//!
//! Promise: it ends by the clock that nobody sets as well as by the calendar, whoever has or has not said so.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use interceptor_core::{
    break_glass::BreakGlass,
    model::{BreakGlassId, Mode, RescueId, ResourceName},
};
use tokio::time::Instant;

use super::now_us;

/// How verdicts are carried out, and why so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stance {
    pub(super) mode: Mode,
    /// The break-glass that it is by.
    pub(super) glass: Option<BreakGlassId>,
    /// The rescue that lasts.
    pub(super) rescue: Option<RescueId>,
}

/// The one break-glass that there may be.
#[derive(Debug, Default)]
pub struct Glass(ArcSwapOption<Broken>);

#[derive(Debug)]
struct Broken {
    id: BreakGlassId,
    resource: ResourceName,
    opened_at: i64,
    closes_at: i64,
    deadline: Instant,
}

impl Glass {
    /// What is broken from now on; nothing where that is over.
    pub fn set(&self, broken: Option<&BreakGlass>) {
        let lasting = broken.and_then(|broken| Some((broken, broken.left?)));
        self.0.store(lasting.map(|(broken, left)| {
            Broken {
                id: broken.id,
                resource: broken.resource.clone(),
                opened_at: broken.opened_at,
                closes_at: broken.closes_at,
                deadline: Instant::now() + Duration::from_secs(left),
            }
            .into()
        }));
    }

    /// Whether it is this one that was set last.
    pub fn is(&self, id: BreakGlassId) -> bool {
        self.0.load().as_ref().is_some_and(|broken| broken.id == id)
    }

    /// The break-glass at `resource` now.
    pub fn at(&self, resource: Option<&ResourceName>) -> Option<BreakGlassId> {
        let broken = self.0.load();
        let broken = broken.as_ref().filter(|broken| Some(&broken.resource) == resource)?;
        let lasts =
            Instant::now() < broken.deadline && (broken.opened_at..broken.closes_at).contains(&now_us());
        lasts.then_some(broken.id)
    }
}
