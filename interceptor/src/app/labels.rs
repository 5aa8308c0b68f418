//! The daemon towards operators who look after labels.
//!
//! Promise: what takes a label from something is recorded before it is done.

use std::collections::{BTreeMap, BTreeSet};

use interceptor_core::{
    approval::words,
    mask::{Cause, Detector, LabelSet, Labels, Path, Place, Which},
    model::{AgentName, EventKind, ResourceName},
    survey::{Depth, SurveyedColumn},
};

use super::proxy::Daemon;
use crate::{
    control::api::{Answer, ColumnStatus, Errand, LabelStatus, Sight, Through},
    proxy::{Surveyed, Surveying},
    store::bindings::KeptBinding,
};

/// What is kept of columns, by their numbers.
type Kept = BTreeMap<Place, Vec<KeptBinding>>;

impl Daemon {
    /// Looks at databases of a resource: their columns, and what became of it.
    pub(super) async fn survey(
        &self,
        resource: ResourceName,
        database: Option<String>,
        agent: Option<AgentName>,
        (depth, errand): (Depth, Errand),
    ) -> (Vec<ColumnStatus>, Answer) {
        let mut all = Vec::new();
        match self.surveyed(&resource, database, agent, (depth, errand), &mut all).await {
            Ok(answer) => (all, answer),
            Err(text) => (Vec::new(), Answer::Failed { text }),
        }
    }

    async fn surveyed(
        &self,
        resource: &ResourceName,
        database: Option<String>,
        agent: Option<AgentName>,
        (depth, errand): (Depth, Errand),
        all: &mut Vec<ColumnStatus>,
    ) -> Result<Answer, String> {
        if !self.rules.load().inventory.resources.contains_key(resource) {
            return Err(format!("resources.toml has no `{resource}`"));
        }
        let bound = self.proxy.gate.bound();
        let databases: BTreeSet<String> = match database {
            Some(database) => [database].into(),
            None => {
                bound.kept(resource).await?.0.into_iter().map(|kept| kept.binding.called.database).collect()
            }
        };
        if databases.is_empty() {
            return Err(format!("nothing is bound at {resource} yet: say which database with --database"));
        }
        let (mut user, mut found_anywhere) = (String::new(), Vec::new());
        for database in &databases {
            let surveying = Surveying {
                resource: resource.clone(),
                database: database.clone(),
                agent: agent.clone(),
                depth,
                command: errand.words(),
            };
            let surveyed = surveying.run(&self.proxy).await;
            let surveyed =
                surveyed.map_err(|why| format!("{database} at {resource} cannot be looked at: {why}"))?;
            let mut kept = Kept::new();
            for one in bound.kept(resource).await?.0 {
                kept.entry(one.binding.place).or_default().push(one);
            }
            user.clone_from(&surveyed.user);
            found_anywhere = found(&surveyed);
            all.extend(surveyed.columns.iter().map(|column| status(column, database, &surveyed, &kept)));
        }
        Ok(Answer::Surveyed { databases: databases.into_iter().collect(), user, found_anywhere })
    }

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

fn status(column: &SurveyedColumn, database: &str, surveyed: &Surveyed, kept: &Kept) -> ColumnStatus {
    let Surveyed { labels, hidden, .. } = surveyed;
    let word = |detector: Detector| {
        Detector::WORDS.iter().find(|(_, one)| *one == detector).map_or("", |(word, _)| *word).to_owned()
    };
    ColumnStatus {
        database: database.to_owned(),
        schema: column.schema.clone(),
        relation: column.relation.clone(),
        kind: column.kind,
        public: column.public,
        secured: column.secured.clone(),
        column: column.name.clone(),
        document: column.document,
        labels: borne(column, labels, kept),
        sight: sight(column.labels, labels, *hidden),
        sampled: column.sampled,
        found: column.found.iter().map(|(detector, times)| (word(*detector), *times)).collect(),
    }
}

/// What of a column may be seen from whoever these labels are hidden.
fn sight(borne: LabelSet, labels: &Labels, hidden: LabelSet) -> Sight {
    if borne.and(hidden).is_empty() {
        return Sight::All;
    }
    if !borne.is_in_parts(hidden) {
        return Sight::Nothing;
    }
    let places = borne.parts().map(|number| labels.part(number));
    let hidden_there =
        |(label, path): (usize, &Path)| hidden.contains(LabelSet::of(label)).then(|| path.to_string());
    match places.collect::<Option<Vec<_>>>() {
        Some(places) => Sight::Without(places.into_iter().filter_map(hidden_there).collect()),
        None => Sight::Nothing,
    }
}

/// The labels hidden from the agent whose values are found wherever they stand.
fn found(surveyed: &Surveyed) -> Vec<String> {
    let Surveyed { labels, hidden, .. } = surveyed;
    let all = labels.iter().enumerate();
    let found =
        all.filter(|(place, label)| !label.detect.is_empty() && hidden.contains(LabelSet::of(*place)));
    found.map(|(_, label)| label.name.clone()).collect()
}

/// The labels that a column bears, each with the best reason that is known.
fn borne(column: &SurveyedColumn, labels: &Labels, kept: &Kept) -> Vec<LabelStatus> {
    let whole = Place { column: 0, ..column.place };
    let known = || [column.place, whole].into_iter().filter_map(|place| kept.get(&place)).flatten();
    let all = labels.iter().enumerate().filter(|(place, _)| column.labels.contains(LabelSet::of(*place)));
    let each = all.map(|(_, label)| {
        let own = known().filter(|kept| kept.binding.label == label.name);
        let active = own.filter(|kept| match &kept.binding.cause {
            Cause::Pattern(pattern) => label.columns.iter().any(|one| one.to_string() == *pattern),
            Cause::Copied(_) => true,
        });
        let first = active.min_by_key(|kept| kept.since);
        let through = first.map_or(Through::Another, |kept| match &kept.binding.cause {
            Cause::Pattern(pattern) => Through::Pattern(pattern.clone()),
            Cause::Copied(record) => Through::Copied(*record),
        });
        LabelStatus { label: label.name.clone(), through, since: first.map(|kept| kept.since) }
    });
    each.collect()
}
