//! The daemon where somebody asks for approval of a statement ahead of whoever will send it.

use std::sync::Arc;

use interceptor_core::model::{ProcessFacts, ResourceName, Run, RunId};

use super::proxy::Daemon;
use crate::{
    control::{approvals::Answer, caller::Caller},
    proxy, telemetry,
};

/// For what is asked, as far as it was said.
pub(super) struct Place {
    pub(super) run: Option<RunId>,
    pub(super) resource: Option<ResourceName>,
    pub(super) database: Option<String>,
}

impl Daemon {
    pub(super) async fn ask(&self, caller: &Caller, place: Place, text: &str) -> Answer {
        let failed = |text: String| Answer::Failed { text };
        let (run, resource, database) = match self.place(place) {
            Ok(place) => place,
            Err(text) => return failed(text),
        };
        let told = proxy::ask(&self.proxy, run, asker(caller), (&resource, &database), text).await;
        match told {
            Ok(text) => {
                let words = text.lines().next().unwrap_or_default().split_ascii_whitespace();
                let id = words.filter_map(|word| word.parse().ok()).next();
                Answer::Asked { text, id }
            }
            Err(error) => failed(format!("nothing was asked: {}", telemetry::chain(&error))),
        }
    }

    /// Where it is asked for; what was not said is what it can only be.
    fn place(&self, place: Place) -> Result<(Arc<Run>, ResourceName, String), String> {
        let live: Vec<Arc<Run>> = self.proxy.runs.list().into_iter().map(|seen| seen.run).collect();
        let run = match (place.run, live.as_slice()) {
            (Some(id), live) => live.iter().find(|run| run.id == id).ok_or_else(|| {
                format!(
                    "there is no live run {id}: an approval is for a run, and `interceptor ps` lists them"
                )
            })?,
            (None, [only]) => only,
            (None, live) => {
                return Err(format!("{} runs are live: say for which with --run", live.len()));
            }
        };
        let sessions: Vec<_> = self.proxy.registry.principals(run.id);
        let rules = self.rules.load();
        let resource = match (place.resource, sessions.as_slice()) {
            (Some(resource), _) => resource,
            (None, [(resource, _), rest @ ..]) if rest.iter().all(|(other, _)| other == resource) => {
                resource.clone()
            }
            (None, _) => match rules.inventory.resources.keys().collect::<Vec<_>>().as_slice() {
                [only] => (*only).clone(),
                _ => return Err("say at which resource with --resource".to_owned()),
            },
        };
        let mut databases: Vec<String> = sessions
            .into_iter()
            .filter(|(of, _)| *of == resource)
            .map(|(_, principal)| principal.database)
            .collect();
        databases.dedup();
        let database = match (place.database, databases.as_slice()) {
            (Some(database), _) => database,
            (None, [only]) => only.clone(),
            (None, _) => {
                return Err(format!("run {} has no one session at {resource}: say --database", run.id));
            }
        };
        Ok((run.clone(), resource, database))
    }
}

/// The process that asks, as the record has it: not one of the run's.
fn asker(caller: &Caller) -> ProcessFacts {
    ProcessFacts {
        pid: caller.pid,
        start_time: 0,
        uid: caller.uid,
        executable: None,
        digest: None,
        argv: ["interceptor", "approvals", "ask"].map(str::to_owned).to_vec(),
        ancestry: Vec::new(),
        cgroup: String::new(),
        late: true,
        descent: None,
    }
}
