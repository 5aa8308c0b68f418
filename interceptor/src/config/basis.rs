//! Whose files decide: those that are configured or, while a rescue lasts, those that were saved for it.
//!
//! Promise: every process of the daemon finds the same, from root's note alone; what was saved is read only where it is
//! what was saved.

use std::time::Duration;

use interceptor_core::inventory::{InRescue, Inventory};

use super::{Folder, RulesError, Settings, SettingsError, Trust};
use crate::{
    gate::{Rescued, Rules},
    places::Places,
    rescue::{Begun, RescueError, Saved, Scope},
};

/// Whose files decide now.
#[derive(Debug)]
pub enum Basis {
    /// The configured ones.
    Configured,
    /// The saved ones, for a rescue of which so much is left.
    Saved(Begun, Duration),
}

impl Basis {
    /// What root's note says.
    pub fn now(places: &Places) -> Result<Self, RescueError> {
        let lasting = Begun::lasting(places)?;
        Ok(lasting.map_or(Self::Configured, |(begun, left)| Self::Saved(begun, left)))
    }

    fn folder(&self, places: &Places) -> Result<Folder, RulesError> {
        match self {
            Self::Configured => Folder::in_force(places),
            Self::Saved(begun, _) => Folder::read(&saved(places, begun)?.configuration(), Trust::InForce),
        }
    }

    /// The rules.
    pub fn rules(&self, places: &Places) -> Result<Rules, RulesError> {
        let rules = self.folder(places)?.load()?;
        Ok(match self {
            Self::Configured => rules,
            Self::Saved(begun, left) => {
                Rules { rescue: Some(Rescued::new(begun.rescue.clone(), *left)), ..rules }
            }
        })
    }

    /// The inventory for whoever gives credentials: in a rescue it has them only of what was chosen for one.
    pub fn inventory(&self, places: &Places) -> Result<Inventory, RulesError> {
        let mut inventory = self.folder(places)?.inventory()?;
        if let Self::Saved(..) = self {
            // The resource stays, so that an agent is refused in its own protocol.
            let all = inventory.resources.values_mut();
            all.filter(|one| one.rescue == InRescue::Refused).for_each(|one| one.credentials.clear());
        }
        Ok(inventory)
    }

    /// The daemon's own settings.
    pub fn settings(&self, places: &Places) -> Result<Settings, SettingsError> {
        match self {
            Self::Configured => Settings::read(places.configuration()),
            Self::Saved(begun, _) => Settings::read(&saved(places, begun)?.configuration()),
        }
    }
}

/// What was saved, if it is what that rescue was begun with.
fn saved(places: &Places, begun: &Begun) -> Result<Saved, RescueError> {
    let saved = Saved::open(places)?;
    if saved.digest() != begun.saved {
        let path = saved.configuration();
        return Err(RescueError::Changed { path, why: "is not what the rescue was begun with" });
    }
    saved.verify(Scope::Configuration)?;
    Ok(saved)
}
