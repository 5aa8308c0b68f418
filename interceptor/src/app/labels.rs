//! The daemon towards operators who look after labels.
//!
//! Promise: what takes a label from something is recorded before it is done.

use interceptor_core::{
    approval::words,
    mask::Which,
    model::{EventKind, ResourceName},
};

use super::proxy::Daemon;
use crate::control::api::Answer;

impl Daemon {
    /// Takes labels from columns that bear them for what they were called, or for what was copied into them.
    pub(super) async fn forget_labels(&self, resource: &ResourceName, what: Which) -> Answer {
        let failed = |text: String| Answer::Failed { text };
        if !self.rules.load().inventory.resources.contains_key(resource) {
            return failed(format!("resources.toml has no `{resource}`: nothing was forgotten"));
        }
        let name = [Some(&what.schema), Some(&what.relation), what.column.as_ref()];
        let name = name.into_iter().flatten().map(|part| words(part)).collect::<Vec<_>>().join(".");
        let text = format!("{name} at {resource} is not bound to labels any more, by an operator");
        if !self.proxy.event(None, EventKind::LabelForgotten, text) {
            return failed(
                "nothing was forgotten: it could not be recorded; see `interceptor status`".to_owned(),
            );
        }
        match self.proxy.gate.bound().forget(resource, what).await {
            Ok(0) => failed(format!("nothing at {resource} that is called {name} was bound to a label")),
            Ok(count) => Answer::Done {
                text: format!(
                    "forgot {count} bindings of {name} at {resource}; what its name says in labels.toml holds as before"
                ),
            },
            Err(error) => failed(format!("nothing was forgotten: {error}")),
        }
    }
}
