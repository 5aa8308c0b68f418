//! An epoch per resource, shared by all sessions to it: when one of them changes the catalogue, the others look
//! their names up again; and at least once in the resource's `facts_max_age`, for changes that nobody told us of.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use interceptor_core::{inventory::Resource, model::ResourceName, protocol::Epoch};

/// The epochs of the resources that have sessions.
#[derive(Debug, Default)]
pub struct Epochs {
    known: Mutex<HashMap<ResourceName, (Duration, Weak<Epoch>)>>,
}

impl Epochs {
    /// The epoch of a resource. Sessions under a former `facts_max_age` have the former one.
    pub fn of(&self, resource: &Resource) -> Arc<Epoch> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let age = resource.facts_max_age;
        if let Some((_, epoch)) = known.get(&resource.name).filter(|(then, _)| *then == age)
            && let Some(epoch) = epoch.upgrade()
        {
            return epoch;
        }
        let epoch = Arc::new(Epoch::new(ages(age)));
        known.insert(resource.name.clone(), (age, Arc::downgrade(&epoch)));
        epoch
    }
}

/// Counts how often `age` has passed. For none at all it counts every look at it, so that nothing is ever kept.
fn ages(age: Duration) -> impl Fn() -> u64 + Send + Sync + 'static {
    let (start, looks) = (Instant::now(), AtomicU64::new(0));
    move || match start.elapsed().as_nanos().checked_div(age.as_nanos()) {
        Some(passed) => u64::try_from(passed).unwrap_or(u64::MAX),
        None => looks.fetch_add(1, Ordering::Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_at_age_zero_and_something_below_an_age() {
        let none = ages(Duration::ZERO);
        assert_ne!(none(), none());
        let long = ages(Duration::from_secs(3600));
        assert_eq!(long(), long());
    }
}
