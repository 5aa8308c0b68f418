//! Somebody who approves of whatever is asked, a moment after it is: in a log-in session of their own.

use std::time::Duration;

use interceptor_tests::{Installation, Job, Logins, process::PATIENCE};
use sha2::{Digest, Sha256};

/// Who, and for which group.
const NAME: &str = "bob";
pub(crate) const GROUP: &str = "dba";

/// How long it takes them.
const MOMENT: Duration = Duration::from_millis(5);

/// Texts that begin a transaction, as the drivers send them. What is in a transaction is never kept waiting, so that
/// this is where a client meets people: each transaction begins once somebody has said yes.
const BEGINNINGS: &[&str] = &[
    "BEGIN",
    "BEGIN;",
    "begin transaction",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL READ COMMITTED;",
    "BEGIN ISOLATION LEVEL REPEATABLE READ;",
    "BEGIN ISOLATION LEVEL SERIALIZABLE;",
];

/// The rule that holds them.
pub(crate) fn rule() -> String {
    let hash = |text: &&str| format!("{:?}", hex::encode(Sha256::digest(text)));
    let hashes: Vec<String> = BEGINNINGS.iter().map(hash).collect();
    format!(
        "@id(\"transactions-wait\")\n@hold({GROUP:?})\n\
         forbid (principal == Agent::\"suite\", action == Action::\"transaction\", resource)\n\
         when {{ [{}].contains(context.sha256) }}\nunless {{ context.approvals.{GROUP} >= 1 }};\n",
        hashes.join(", ")
    )
}

/// They, logged in.
#[derive(Debug)]
pub(crate) struct Approver {
    logins: Logins,
    session: Option<Job>,
}

impl Approver {
    pub(crate) fn new() -> Self {
        Self { logins: Logins::of(&[NAME]), session: None }
    }

    /// `people.toml` with them in it.
    pub(crate) fn people(&self) -> String {
        self.logins.people(&[(NAME, GROUP)])
    }

    /// Approves, from now on, of what is asked at `installation`.
    pub(crate) fn begin(&mut self, installation: &Installation) {
        let program =
            format!("/run/product/interceptor --root '{}' approvals", installation.root().display());
        let line = format!(
            "{program} watch | while read -r id state rest; do\n\
             if [ \"$state\" = open ]; then sleep {}; {program} approve \"$id\" >/dev/null; fi\ndone",
            MOMENT.as_secs_f64()
        );
        self.session = Some(Job::start(self.logins.session(NAME, &["sh", "-c", &line]), ""));
    }

    /// Panics if they have left before anybody told them to.
    pub(crate) fn check(&mut self) {
        let session = self.session.take_if(|session| !session.is_running());
        if let Some(left) = session {
            panic!("the approver left before the tests ended: {}", left.finish(PATIENCE));
        }
    }

    /// Waits until they have left, which they do when the daemon has ended.
    pub(crate) fn end(self) {
        if let Some(session) = self.session {
            let finished = session.finish(PATIENCE);
            assert!(!finished.timed_out, "the approver stays: {finished}");
        }
    }
}
