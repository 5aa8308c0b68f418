//! What the meaning of the session's next statement hangs on besides its text, and whether its client can be kept
//! waiting for a person.
//!
//! Promise: whatever the session has set itself is in it, but for how it calls itself; what is kept is bounded. It must
//! never know what is approved.

use std::{collections::BTreeMap, sync::Arc};

use interceptor_core::{
    model::{Action, Target, Text, Verb},
    permit::{Circumstances, Waits},
};
use sha2::{Digest, Sha256};

use super::{
    asked::{Asked, What},
    decode::PostgresDecoder,
    enclose::Form,
    known::Known,
    need::Sources,
    own::Ends,
    queue::Kind,
    work,
};

/// How a session says at its start what is to become of what waits for people: a setting, which the server keeps for
/// us.
pub(super) const HOLD: &str = "interceptor.hold";
/// The value of [`HOLD`] that says that the session is not to be kept waiting.
const RETURN: &str = "return";
/// The value of [`HOLD`] that says that the session only asks, and does nothing.
pub(super) const ASK: &str = "ask";
/// How many settings are told apart.
const MAX_SETTINGS: usize = 128;

/// How a session wants to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Manner {
    /// It waits.
    #[default]
    Waits,
    /// It wants to be told at once.
    Returns,
    /// It only asks.
    Asks,
}

/// What a session has made of itself.
#[derive(Debug, Default)]
pub(super) struct StateOfSession {
    /// Settings, each with a digest of what set it last.
    settings: Option<Arc<BTreeMap<String, String>>>,
    /// What it says of itself.
    manner: Manner,
    /// The stretch of messages in which something was last carried out.
    worked_in: Option<u64>,
}

impl StateOfSession {
    /// A session begins with these parameters.
    pub(super) fn begin(&mut self, parameters: &[(String, String)]) {
        for (name, value) in parameters {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "options" => match settings_of(value) {
                    Some(settings) => {
                        settings.into_iter().for_each(|(name, value)| self.begin_with(name, value));
                    }
                    // In doubt it asks for nothing, and is like no other session.
                    None => self.set(name, value),
                },
                _ => self.begin_with(name, value),
            }
        }
    }

    fn begin_with(&mut self, name: String, value: &str) {
        match (name.as_str(), value) {
            (HOLD, RETURN) => self.manner = Manner::Returns,
            (HOLD, ASK) => self.manner = Manner::Asks,
            (name, _) if is_indifferent(name) => {}
            _ => self.set(name, value),
        }
    }

    fn set(&mut self, name: String, what: &str) {
        // Beyond the bound all are one: in doubt two sessions differ.
        let settings = Arc::make_mut(self.settings.get_or_insert_default());
        let known = settings.contains_key(&name) || settings.len() < MAX_SETTINGS;
        let (name, before) = if known { (name, None) } else { (String::new(), settings.get("")) };
        let before = before.map(String::as_str).unwrap_or_default();
        let digest = Sha256::new().chain_update(before).chain_update(what).finalize();
        settings.insert(name, format!("{digest:x}"));
    }

    /// Something was sent that sets these.
    pub(super) fn sent(&mut self, sets: Vec<(String, Text)>) {
        for (name, text) in sets {
            self.set(name, &text);
        }
    }

    /// Something of this stretch was carried out.
    pub(super) fn worked(&mut self, segment: u64) {
        self.worked_in = Some(segment);
    }
}

/// The settings of a start-up's `options` where it has nothing else: `-c name=value`, `-cname=value`, `--name=value`.
fn settings_of(options: &str) -> Option<Vec<(String, &str)>> {
    if options.contains('\\') {
        return None;
    }
    let mut words = options.split_ascii_whitespace();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--"))? {
            "" if word == "-c" => words.next()?,
            setting => setting,
        };
        let (name, value) = setting.split_once('=')?;
        settings.push((name.to_ascii_lowercase().replace('-', "_"), value));
    }
    Some(settings)
}

/// How a session calls itself changes nothing of what it does, nor does how it wants to wait, or how its results are
/// written.
fn is_indifferent(name: &str) -> bool {
    matches!(
        name,
        "application_name" | "client_encoding" | "client_min_messages" | "extra_float_digits" | HOLD
    ) || name.starts_with("_pq_.")
}

/// Whether the catalogue said what is meant.
fn is_looked_up(target: &Target) -> bool {
    match target {
        Target::Table(object) | Target::Function(object) => object.oid.is_some(),
        Target::Resource
        | Target::Other { .. }
        | Target::Setting(_)
        | Target::Name(_)
        | Target::Label(_)
        | Target::Program(_)
        | Target::Image(_) => false,
    }
}

/// What these statements set, each with its text.
pub(super) fn sets(actions: &[Action]) -> Vec<(String, Text)> {
    let mut sets = Vec::new();
    for action in actions {
        for effect in &action.facts.effects {
            if let (Verb::SessionChange, Target::Setting(name)) = (effect.verb, &effect.target)
                && !is_indifferent(name)
            {
                sets.push((name.clone(), action.text.clone()));
            }
        }
    }
    sets
}

impl PostgresDecoder {
    /// The circumstances of what is asked, which does this.
    pub(super) fn circumstances(
        &self,
        what: &What,
        actions: &[Action],
        form: Result<Form, &'static str>,
    ) -> Circumstances {
        let mut effects = actions.iter().flat_map(|action| &action.facts.effects);
        let named = effects.any(|effect| is_looked_up(&effect.target));
        Circumstances {
            naming: named.then(|| self.known.naming(self.moment())).flatten(),
            settings: self.state_of_session.settings.clone(),
            waits: self.waits(what),
            enclosure: self.enclosure(form, actions),
        }
    }

    fn waits(&self, what: &What) -> Waits {
        if self.state_of_session.manner == Manner::Asks && !matches!(what, What::Open | What::Gate(_)) {
            return Waits::OnlyAsks;
        }
        // Whether nothing in its own stretch stands before it that has done anything.
        let begins = match what {
            What::Query { .. } | What::Function { .. } => !self.piping,
            // What was parsed and bound before it in its stretch has done nothing yet.
            What::Execute { .. } => self.state_of_session.worked_in != Some(self.segment),
            What::Open | What::Parse { .. } | What::Bind | What::Gate(_) => return Waits::Never,
        };
        match (begins, self.status) {
            (false, _) => Waits::InTransaction,
            // Stretches before it have ended, so that the server answers them without another word.
            (true, _) if !self.queue.only_prepares() => Waits::Behind,
            (true, b'I') if self.state_of_session.manner == Manner::Returns => Waits::AskedNotTo,
            (true, b'I') => Waits::Here,
            (true, _) => Waits::InTransaction,
        }
    }

    /// Whether it looks at what was asked again only when the server has answered more.
    pub(super) fn is_behind(&self) -> bool {
        self.behind && !self.queue.only_prepares()
    }

    /// What was asked is read and looked up anew.
    pub(super) fn look_again(&mut self, asked: Asked) {
        self.behind = self.waits(&asked.what) == Waits::Behind;
        self.known = Known::default();
        self.sources = Sources::Own;
        self.work = work::read_again(asked.frame);
    }
}

impl Kind {
    /// Whether it is only preparation for something that has not been sent.
    pub(super) fn only_prepares(&self) -> bool {
        match self {
            Self::Parse(_) | Self::Bind(_) | Self::Describe { .. } | Self::Close(_) => true,
            Self::Gate(gate) => gate.ends == Ends::Flush,
            Self::Query { .. } | Self::Function { .. } | Self::Execute { .. } | Self::Sync => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_settings_like_others() {
        let one = |options| settings_of(options).map(|found| format!("{found:?}"));
        let told = Some("[(\"work_mem\", \"1MB\"), (\"interceptor.hold\", \"ask\")]".to_owned());
        assert_eq!(one("-c work_mem=1MB -c interceptor.hold=ask"), told);
        assert_eq!(one(" -cWORK_MEM=1MB --interceptor.hold=ask "), told);
        assert_eq!(one("--work-mem=1MB --interceptor.hold=ask"), told);
        for odd in ["-c", "-c work_mem", "-B 5", "work_mem=1MB", "-c a=b\\ c"] {
            assert_eq!(one(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_asks_is_like_what_does() {
        let begun = |options: &str| {
            let mut state = StateOfSession::default();
            state.begin(&[("options".to_owned(), options.to_owned())]);
            (state.manner, state.settings)
        };
        assert_eq!(begun("-c interceptor.hold=ask"), (Manner::Asks, None));
        assert_eq!(begun("-c interceptor.hold=return"), (Manner::Returns, None));
        assert_ne!(begun("-c search_path=x").1, None);
        assert_eq!(begun("-c search_path=x").1, begun("-c search_path=x -c interceptor.hold=ask").1);
        // What cannot be told apart is told as it is.
        assert_eq!(begun("-c interceptor.hold=ask -B 5").0, Manner::Waits);
    }
}
