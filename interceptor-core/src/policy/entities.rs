//! What a question is made of: the entities and the context that Cedar sees.

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{Context, Entity, EntityUid, RestrictedExpression};
use sha2::{Digest, Sha256};

use super::{
    Asked, Policy,
    schema::{Types, uid},
};
use crate::{
    inventory::{NO_ENV, Person, Resource},
    model::{AgentIdentity, Guarantee, Image, Mode, Object, Phase, Program, StatementKind, Target},
    sql::Dialect,
};

/// Schemas that belong to the server.
const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "pg_toast"];
/// The same where there are no schemas.
const SYSTEM_DATABASES: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// Why a question could not be put. The answer is then no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the question could not be put to policy: {0}")]
pub(super) struct Unaskable(pub(super) String);

impl Unaskable {
    pub(super) fn from(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

fn text(value: impl Into<String>) -> RestrictedExpression {
    RestrictedExpression::new_string(value.into())
}

fn entity(
    uid: EntityUid,
    attributes: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    parents: HashSet<EntityUid>,
) -> Result<Entity, Unaskable> {
    let attributes: HashMap<_, _> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid, attributes, parents).map_err(Unaskable::from)
}

/// A resource of the inventory.
pub(super) fn resource(types: &Types, resource: &Resource) -> Result<Entity, Unaskable> {
    let env = resource.env.as_deref().unwrap_or(NO_ENV);
    entity(
        uid(&types.resource, resource.name.as_str()),
        [
            ("name", text(resource.name.as_str())),
            ("protocol", text(resource.protocol.as_deref().unwrap_or_default())),
        ],
        HashSet::from([uid(&types.env, env)]),
    )
}

/// An agent, in its groups.
pub(super) fn agent(types: &Types, agent: &AgentIdentity) -> Result<Entity, Unaskable> {
    entity(
        uid(&types.agent, agent.name.as_str()),
        [("owner", text(agent.owner.as_deref().unwrap_or_default()))],
        agent.groups.iter().map(|group| uid(&types.group, group)).collect(),
    )
}

/// A person, in their groups.
pub(super) fn person(types: &Types, person: &Person) -> Result<Entity, Unaskable> {
    entity(
        uid(&types.person, person.name.as_str()),
        [("name", text(person.name.as_str()))],
        person.groups.iter().map(|group| uid(&types.group, group)).collect(),
    )
}

/// A part of a name as SQL would write it, so that no two objects share a name.
fn quoted(part: &str) -> String {
    let plain = part.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain { part.to_owned() } else { format!("\"{}\"", part.replace('"', "\"\"")) }
}

fn object_name(object: &Object) -> String {
    let parts = [&object.database, &object.schema, &object.name];
    parts.map(|part| quoted(part)).join(".")
}

impl Policy {
    /// The entity that an effect acts on, and those that it is in.
    pub(super) fn target(
        &self,
        asked: &Asked<'_>,
        target: &Target,
    ) -> Result<(EntityUid, Vec<Entity>), Unaskable> {
        match target {
            Target::Name(name) => return self.name(name),
            Target::Program(program) => return self.program(program),
            Target::Image(image) => return self.image(image),
            _ => {}
        }
        let name = asked.resource.ok_or_else(|| Unaskable("it names no resource".to_owned()))?;
        let resource = self
            .resources
            .get(name)
            .ok_or_else(|| Unaskable(format!("resources.toml has no resource `{name}`")))?
            .clone();
        let types = &self.types;
        let own = |suffix: &str| format!("{name}/{suffix}");
        let inside = HashSet::from([resource.uid()]);
        let object = match target {
            Target::Resource | Target::Name(_) | Target::Program(_) | Target::Image(_) => {
                return Ok((resource.uid(), vec![resource]));
            }
            Target::Table(object) => entity(
                uid(&types.table, own(&object_name(object))),
                attributes(object, asked.action.facts.dialect),
                inside,
            )?,
            Target::Function(object) => entity(
                uid(&types.function, own(&object_name(object))),
                attributes(object, asked.action.facts.dialect),
                inside,
            )?,
            Target::Other { kind, name } => entity(
                uid(&types.object, own(&format!("{}/{name}", quoted(kind)))),
                [("kind", text(kind)), ("name", text(name))],
                inside,
            )?,
            Target::Setting(setting) => {
                entity(uid(&types.setting, own(setting)), [("name", text(setting))], inside)?
            }
            Target::Label(label) => entity(uid(&types.label, own(label)), [("name", text(label))], inside)?,
        };
        Ok((object.uid(), vec![object, resource]))
    }

    fn name(&self, name: &str) -> Result<(EntityUid, Vec<Entity>), Unaskable> {
        let mut entities: Vec<Entity> = self
            .inventory
            .at_host(name)
            .filter_map(|resource| self.resources.get(&resource.name).cloned())
            .collect();
        let attributes =
            [("name", text(name)), ("inventory", RestrictedExpression::new_bool(!entities.is_empty()))];
        let inside = entities.iter().map(Entity::uid).collect();
        let entity = entity(uid(&self.types.name, name), attributes, inside)?;
        let uid = entity.uid();
        entities.push(entity);
        Ok((uid, entities))
    }

    fn program(&self, program: &Program) -> Result<(EntityUid, Vec<Entity>), Unaskable> {
        let capabilities = program.capabilities.iter().map(text);
        let attributes = [
            ("path", text(&program.path)),
            ("user", text(&program.user)),
            ("capabilities", RestrictedExpression::new_set(capabilities)),
            ("profile", text(&program.profile)),
        ];
        let entity = entity(uid(&self.types.program, &program.path), attributes, HashSet::new())?;
        Ok((entity.uid(), vec![entity]))
    }

    fn image(&self, image: &Image) -> Result<(EntityUid, Vec<Entity>), Unaskable> {
        let attributes = [
            ("registry", text(&image.registry)),
            ("repository", text(&image.repository)),
            ("reference", text(&image.reference)),
        ];
        let entity = entity(uid(&self.types.image, image.to_string()), attributes, HashSet::new())?;
        Ok((entity.uid(), vec![entity]))
    }

    /// The context of a statement. It is the same for all of its effects.
    pub(super) fn context(
        &self,
        asked: &Asked<'_>,
        approvals: &BTreeMap<String, u32>,
    ) -> Result<Context, Unaskable> {
        let (types, facts, process) = (&self.types, &asked.action.facts, asked.process);
        let resource = asked.resource.and_then(|name| self.inventory.resources.get(name));
        let observed = asked.run.mode == Mode::Observe || resource.is_some_and(|r| r.mode == Mode::Observe);
        let one_of = |of, word: &str| RestrictedExpression::new_entity_uid(uid(of, word));
        let (long, bool) = (RestrictedExpression::new_long, RestrictedExpression::new_bool);
        let approvals = self
            .inventory
            .approvers
            .iter()
            .map(|group| (group.clone(), long(approvals.get(group).copied().unwrap_or(0).into())));
        let spent = asked.spent.attributes();
        let spent =
            spent.map(|(name, value)| (name.to_owned(), long(i64::try_from(value).unwrap_or(i64::MAX))));
        let launcher = asked.run.claims.get("launcher_user").map_or("", String::as_str);
        let hint = |hint: Option<&String>| text(hint.map_or("", String::as_str));
        let pairs = [
            ("phase", one_of(&types.phase, phase(asked.action.phase))),
            ("kind", one_of(&types.kind, &kind(facts.kind))),
            ("parsed", bool(facts.unknown.is_none())),
            ("statements", long(i64::try_from(asked.statements).unwrap_or(i64::MAX))),
            ("has_where", bool(facts.has_where)),
            ("has_limit", bool(facts.has_limit)),
            ("sha256", text(format!("{:x}", Sha256::digest(asked.action.text.as_bytes())))),
            ("now", long(asked.now)),
            ("approvals", RestrictedExpression::new_record(approvals).map_err(Unaskable::from)?),
            ("spent", RestrictedExpression::new_record(spent).map_err(Unaskable::from)?),
            ("database", text(&asked.principal.database)),
            ("user", text(&asked.principal.user)),
            ("env", text(resource.and_then(|resource| resource.env.as_deref()).unwrap_or(NO_ENV))),
            ("guarantee", one_of(&types.guarantee, guarantee(asked.run.guarantee))),
            ("mode", one_of(&types.mode, if observed { "observe" } else { "enforce" })),
            ("launcher_user", text(launcher)),
            (
                "person",
                text(
                    asked
                        .person
                        .and_then(|uid| self.inventory.by_uid(uid))
                        .map_or("", |person| person.name.as_str()),
                ),
            ),
            ("executable", hint(process.and_then(|process| process.executable.as_ref()))),
            ("argv0", hint(process.and_then(|process| process.argv.first()))),
        ];
        Context::from_pairs(pairs.map(|(name, value)| (name.to_owned(), value))).map_err(Unaskable::from)
    }
}

fn attributes(object: &Object, dialect: Dialect) -> [(&'static str, RestrictedExpression); 4] {
    let system = match dialect {
        Dialect::Postgres => SYSTEM_SCHEMAS.contains(&object.schema.as_str()),
        Dialect::MySql => SYSTEM_DATABASES.contains(&object.database.as_str()),
    };
    [
        ("database", text(&object.database)),
        ("schema", text(&object.schema)),
        ("name", text(&object.name)),
        ("system", RestrictedExpression::new_bool(system)),
    ]
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::Query => "query",
        Phase::Prepare => "prepare",
        Phase::Execute => "execute",
        Phase::Cancel => "cancel",
        Phase::Pass => "pass",
        Phase::Resolve => "resolve",
        Phase::Launch => "launch",
        Phase::Pull => "pull",
    }
}

fn guarantee(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::Structural => "structural",
        Guarantee::Enforced => "enforced",
        Guarantee::Observed => "observed",
    }
}

/// The word that the record uses too. One that the schema does not list is refused with the question.
fn kind(kind: StatementKind) -> String {
    serde_json::to_value(kind)
        .ok()
        .and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
