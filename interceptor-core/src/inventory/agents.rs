//! `agents.toml`: who is who.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Agent, Hint, Inventory,
    load::{Item, Reader},
};
use crate::model::{AgentName, GroupName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    owner: Option<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    #[serde(default)]
    launchers: Vec<Spanned<String>>,
    #[serde(default)]
    hint: Vec<Spanned<RawHint>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHint {
    user: Option<String>,
    executable: Option<String>,
    #[serde(default)]
    argv: Vec<String>,
}

/// A hint that was read, with the agent that it names and where it stands.
type PlacedHint = (AgentName, Hint, usize);

/// Reads the whole file.
pub(super) fn read(reader: &mut Reader<'_>) -> BTreeMap<AgentName, Agent> {
    let mut agents = BTreeMap::new();
    let mut hints = Vec::new();
    for item in reader.top() {
        if item.key != "agent" {
            reader.fault(item.at, format!("unknown key `{}`; an agent is `[agent.NAME]`", item.key));
            continue;
        }
        for item in reader.table(item) {
            if let Some(agent) = agent(reader, item, &mut hints) {
                agents.insert(agent.name.clone(), agent);
            }
        }
    }
    ambiguities(reader, &hints);
    agents
}

fn agent(reader: &mut Reader<'_>, item: Item<'_>, hints: &mut Vec<PlacedHint>) -> Option<Agent> {
    let (at, key) = (item.at, item.key.clone());
    let raw: Option<RawAgent> = reader.value(item);
    let name: AgentName = key.parse().map_err(|error| reader.fault(at, format!("{error}"))).ok()?;
    if name == AgentName::unknown() {
        reader.fault(at, "`unknown` is the agent that no entry matches; choose another name");
    }
    let raw = raw?;
    if let Some(owner) = raw.owner.as_ref().filter(|owner| owner.get_ref().trim().is_empty()) {
        reader.fault(owner.span().start, "`owner` is empty; name the person answerable, or leave it out");
    }
    for launcher in raw.launchers.iter().filter(|launcher| !is_user(launcher.get_ref())) {
        let message = format!("`{}` is not a user name", launcher.get_ref());
        reader.fault(launcher.span().start, message);
    }
    let groups: Vec<GroupName> = reader.names("group", raw.groups);
    let mut agent = Agent {
        name,
        owner: raw.owner.map(Spanned::into_inner),
        groups: groups.into_iter().map(String::from).collect(),
        launchers: raw.launchers.into_iter().map(Spanned::into_inner).collect(),
        hints: Vec::new(),
        at: reader.place(at),
    };
    for raw in raw.hint {
        let at = raw.span().start;
        if let Some(hint) = hint(reader, raw.into_inner(), at) {
            hints.push((agent.name.clone(), hint.clone(), at));
            agent.hints.push(hint);
        }
    }
    Some(agent)
}

fn hint(reader: &mut Reader<'_>, raw: RawHint, at: usize) -> Option<Hint> {
    let wrong = if raw.user.is_none() && raw.executable.is_none() && raw.argv.is_empty() {
        "an empty hint fits everything; give `user`, `executable` or `argv`"
    } else if raw.user.as_deref().is_some_and(|user| !is_user(user)) {
        "`user` is not a user name"
    } else if raw.executable.as_deref().is_some_and(|path| !path.starts_with('/')) {
        "`executable` must be an absolute path"
    } else if raw.argv.iter().any(String::is_empty) {
        "`argv` has an empty text"
    } else {
        return Some(Hint { user: raw.user, executable: raw.executable, argv: raw.argv });
    };
    reader.fault(at, wrong);
    None
}

fn is_user(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Two agents' hints that one launch could fit are a fault, unless one says all that the other says and more:
/// then it is the more specific one, and wins.
fn ambiguities(reader: &mut Reader<'_>, hints: &[PlacedHint]) {
    for (place, (agent, hint, at)) in hints.iter().enumerate() {
        for (other_agent, other, other_at) in hints.iter().take(place) {
            let unclear = hint.says_all_of(other) == other.says_all_of(hint);
            if agent != other_agent && hint.can_meet(other) && unclear {
                let (_, line) = reader.place(*other_at);
                reader.fault(
                    *at,
                    format!(
                        "a launch could fit this hint of `{agent}` and that of `{other_agent}` on line {line}; \
                         give one of them another `user` or `executable`"
                    ),
                );
            }
        }
    }
}

impl Inventory {
    /// Whether a hint says that this executable is an agent's.
    pub fn is_an_agents(&self, executable: &str) -> bool {
        let hints = self.agents.values().flat_map(|agent| &agent.hints);
        hints.filter_map(|hint| hint.executable.as_deref()).any(|one| one == executable)
    }
}

impl Hint {
    /// Whether one launch can fit both.
    fn can_meet(&self, other: &Self) -> bool {
        fn agree(one: Option<&String>, other: Option<&String>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        agree(self.user.as_ref(), other.user.as_ref())
            && agree(self.executable.as_ref(), other.executable.as_ref())
    }

    /// Whether every launch that fits this one fits the other.
    fn says_all_of(&self, other: &Self) -> bool {
        (other.user.is_none() || other.user == self.user)
            && (other.executable.is_none() || other.executable == self.executable)
            && other.argv.iter().all(|text| self.argv.contains(text))
    }
}
