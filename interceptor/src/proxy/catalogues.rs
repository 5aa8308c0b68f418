//! The catalogue of each resource, as far as all its sessions share it: when one of them changes it, the others look their
//! names up again; and at least once in the resource's `facts_max_age`, for changes that nobody told us of.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use interceptor_core::{
    catalogue::{Catalogue, PARTS},
    inventory::Resource,
    model::ResourceName,
};

/// The catalogues of the resources that have had sessions: one session may have what the last one was told.
#[derive(Debug, Default)]
pub struct Catalogues {
    known: Mutex<HashMap<ResourceName, (Duration, Arc<Catalogue>)>>,
}

impl Catalogues {
    /// The catalogue of a resource. Sessions under a former `facts_max_age` have the former one.
    pub fn of(&self, resource: &Resource) -> Arc<Catalogue> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let age = resource.facts_max_age;
        if let Some((_, catalogue)) = known.get(&resource.name).filter(|(then, _)| *then == age) {
            return catalogue.clone();
        }
        let catalogue = Arc::new(Catalogue::new(parts(age)));
        known.insert(resource.name.clone(), (age, catalogue.clone()));
        catalogue
    }
}

/// Counts the parts of `age` that have passed. For none at all each look at it is a whole age, so that nothing is ever
/// kept.
fn parts(age: Duration) -> impl Fn() -> u64 + Send + Sync + 'static {
    let (start, looks) = (Instant::now(), AtomicU64::new(0));
    move || {
        let passed = start.elapsed().as_nanos().saturating_mul(u128::from(PARTS));
        match passed.checked_div(age.as_nanos()) {
            Some(passed) => u64::try_from(passed).unwrap_or(u64::MAX),
            None => looks.fetch_add(PARTS, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_at_age_zero_and_something_below_an_age() {
        let none = Catalogue::new(parts(Duration::ZERO));
        assert!(!none.stage().holds(none.stage()));
        let long = Catalogue::new(parts(Duration::from_secs(3600)));
        assert!(long.stage().holds(long.stage()));
    }
}
