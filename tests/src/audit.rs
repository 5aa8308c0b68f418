//! Records as the product exports them, read for assertions.

use serde_json::Value;

/// One exported record: a request and, once it ended, its outcome.
#[derive(Debug, Clone)]
pub struct Exchange(pub Value);

impl Exchange {
    /// The value at a JSON pointer; null where there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// The record's number.
    pub fn id(&self) -> u64 {
        self.at("/id").as_u64().unwrap_or_default()
    }

    /// The statement's text.
    pub fn statement(&self) -> &str {
        self.text("/request/action/text")
    }

    /// The form it came in, such as `query`.
    pub fn phase(&self) -> &str {
        self.text("/request/action/phase")
    }

    /// Whether the gate, not the agent, wrote it.
    pub fn is_gates_own(&self) -> bool {
        self.text("/request/author") == "gate"
    }

    /// Whether it went on.
    pub fn allowed(&self) -> bool {
        self.at("/request/verdict/allowed").as_bool().unwrap_or_default()
    }

    /// How it ended; empty while it has not.
    pub fn status(&self) -> &str {
        self.text("/outcome/status")
    }

    /// Every verb among its effects.
    pub fn verbs(&self) -> Vec<&str> {
        let effects = self.at("/request/action/facts/effects").as_array();
        effects.into_iter().flatten().filter_map(|effect| effect.get("verb")?.as_str()).collect()
    }
}

/// All records of an installation, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Records(pub Vec<Exchange>);

impl Records {
    /// Reads what `audit export --format jsonl` prints.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let line =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        Self(text.lines().filter(|line| !line.is_empty()).map(|text| Exchange(line(text))).collect())
    }

    /// Those that the agent wrote.
    pub fn agents(&self) -> impl Iterator<Item = &Exchange> {
        self.0.iter().filter(|exchange| !exchange.is_gates_own())
    }

    /// The agent's records whose statement contains `part`.
    pub fn with(&self, part: &str) -> Vec<&Exchange> {
        self.agents().filter(|exchange| exchange.statement().contains(part)).collect()
    }

    /// The one record of the agent's whose statement contains `part`, prepares left out.
    #[track_caller]
    pub fn one(&self, part: &str) -> &Exchange {
        let found: Vec<_> =
            self.with(part).into_iter().filter(|exchange| exchange.phase() != "prepare").collect();
        match found.as_slice() {
            [exchange] => exchange,
            other => panic!("expected one record with {part:?}, found {}: {:#?}", other.len(), self.brief()),
        }
    }

    /// A line a record, for messages.
    pub fn brief(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|exchange| {
                format!(
                    "{} {} allowed={} status={:?} {:?} {:?}",
                    exchange.id(),
                    exchange.phase(),
                    exchange.allowed(),
                    exchange.status(),
                    exchange.verbs(),
                    exchange.statement()
                )
            })
            .collect()
    }
}
