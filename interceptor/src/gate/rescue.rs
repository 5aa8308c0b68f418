//! Rules that are in force for a rescue: they are the saved ones, for the resources that were chosen beforehand, and for
//! its time.
//!
//! Promises: a resource that nothing was chosen for is refused, whatever else would let it pass, observe mode and a broken
//! glass included; when the time is over everything is refused, until other rules are in force, whoever has or has not
//! noticed; what is judged meanwhile bears the rescue's mark.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use interceptor_core::{
    Judgement,
    inventory::InRescue,
    model::{Mode, RescueId, ResourceName},
    permit::Rule,
    rescue::Rescue,
};
use tokio::time::Instant;

use super::{Rules, glass::Stance, now_us};

/// What an agent reads when nothing passes.
const UNAVAILABLE: &str = "nothing is available now; it will be again later";
/// Why that is so, for the operator.
const OVER: &str = "its rescue is over, and no other rules are in force: when `interceptor policy check` has nothing to say, \
                    `interceptor reload` puts the policy folder in force";

/// The rescue that rules are in force for.
#[derive(Debug)]
pub struct Rescued {
    rescue: Rescue,
    deadline: Instant,
    ended: AtomicBool,
}

impl Rescued {
    /// One of whose time so much is left.
    pub fn new(rescue: Rescue, left: Duration) -> Self {
        Self { rescue, deadline: Instant::now() + left, ended: AtomicBool::new(false) }
    }

    /// The rescue.
    pub fn rescue(&self) -> &Rescue {
        &self.rescue
    }

    /// Whether its time is not over.
    pub fn lasts(&self) -> bool {
        let time =
            Instant::now() < self.deadline && (self.rescue.begun_at..self.rescue.until).contains(&now_us());
        time && !self.has_ended()
    }

    /// It is over from here on, whatever time is left.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether somebody saw that it is over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Rules {
    /// Verdicts are carried out. While a rescue lasts, its mark goes with them.
    pub(super) fn enforced(&self) -> Stance {
        let lasting = self.rescue.as_ref().filter(|rescued| rescued.lasts());
        Stance { mode: Mode::Enforce, glass: None, rescue: lasting.map(|rescued| rescued.rescue.id) }
    }

    /// The rescue by which nothing passes any more.
    pub(super) fn outlived(&self) -> Option<(RescueId, &'static str)> {
        let over = self.rescue.as_ref().filter(|rescued| !rescued.lasts())?;
        Some((over.rescue.id, OVER))
    }

    /// The refusal of what is not for use in a rescue; nothing where policy is to be asked.
    pub(super) fn out_of_rescue(&self, resource: Option<&ResourceName>) -> Option<Judgement> {
        let rescued = self.rescue.as_ref()?;
        if let Some((id, why)) = self.outlived() {
            return Some(Judgement::Denied {
                rules: Vec::new(),
                reason: format!("{UNAVAILABLE}\nrescue {id}: {why}"),
            });
        }
        let resource = self.inventory.resources.get(resource?)?;
        match resource.rescue {
            InRescue::Masked | InRescue::Unmasked => None,
            InRescue::Refused => {
                let (id, name) = (rescued.rescue.id, &resource.name);
                let rule = Rule {
                    id: "rescue".to_owned(),
                    file: resource.at.0.clone(),
                    line: resource.at.1,
                    say: Some(format!("refused: {name} is not available now, and will be again later")),
                };
                let reason = format!(
                    "rescue {id} lasts, and {name} was not chosen for it: `interceptor rescue end` ends it; \
                     `rescue = \"masked\"` or \"unmasked\" in resources.toml chooses it for those of what is saved later"
                );
                Some(Judgement::Denied { rules: vec![rule], reason })
            }
        }
    }

    /// Whether what bears labels is shown at `resource`, as was chosen for it, as long as these rules are in force.
    pub(super) fn unmasks(&self, resource: Option<&ResourceName>) -> bool {
        let resource = resource.and_then(|name| self.inventory.resources.get(name));
        self.rescue.is_some() && resource.is_some_and(|resource| resource.rescue == InRescue::Unmasked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::{
        Gate as _, Held, Verdict,
        inventory::Source,
        mask::Mask,
        model::{Author, Program},
        policy::Policy,
    };

    use super::*;
    use crate::gate::{
        Durability, SessionGate,
        tests::{Bed, Quiet, RESOURCES, held, rules, session},
    };

    const LABELS: &str = "[label.email]\ncolumns = [\"public.users.email\"]\nmask = \"redact\"\n";

    /// Rules of a rescue that lasts so long, in which `orders` has this line more.
    fn rescued(line: &str, lasts: Duration) -> Rules {
        let plain = rules(&RESOURCES.replace("hosts", &format!("{line}\nhosts")));
        let labels = Source { file: "labels.toml".to_owned(), text: LABELS.to_owned() };
        let inventory = plain.inventory.with_labels(&labels).unwrap();
        let text = "@id(\"all\")\npermit (principal, action == Action::\"data.read\", resource);\n\
                    @id(\"launches\")\npermit (principal, action == Action::\"launch\", resource);";
        let source = Source { file: "p.cedar".to_owned(), text: text.to_owned() };
        let policy = Policy::load(&[source], &inventory).unwrap();
        let begun_at = now_us();
        let rescue = Rescue {
            id: RescueId::from_random(1),
            reason: "pager".to_owned(),
            by: "root".to_owned(),
            begun_at,
            until: begun_at + 3_600_000_000,
        };
        Rules { inventory, policy, rescue: Some(Rescued::new(rescue, lasts)) }
    }

    async fn judged(gate: &SessionGate, held: &Held) -> Verdict {
        match gate.judge_now(held, Author::Agent) {
            Some(verdict) => verdict,
            None => gate.judge(held, Author::Agent, &Quiet).await,
        }
    }

    /// The rule that it is refused by; whether labels are hidden where it is not.
    async fn said(gate: &SessionGate, text: &str) -> Result<bool, String> {
        match judged(gate, &held(1, &[text], text)).await {
            Verdict::Allow(_, Mask::Nothing) => Ok(false),
            Verdict::Allow(_, Mask::Of(hiding)) => Ok(hiding.hides_labels()),
            Verdict::Deny(denial) => Err(denial.rule),
            other => panic!("{other:?}"),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_resource_is_as_was_chosen_and_policy_is_carried_out() {
        let bed = Bed::new(Durability::Process);
        let cases = [
            ("rescue = \"masked\"", Ok(true)),
            ("rescue = \"unmasked\"", Ok(false)),
            ("", Err("rescue".to_owned())),
            ("mode = \"observe\"", Err("rescue".to_owned())),
        ];
        for (line, expected) in cases {
            bed.gate.rules.store(Arc::new(rescued(line, HOUR)));
            let gate = bed.session(&session());
            assert_eq!(said(&gate, "a").await, expected, "{line}");
            let deleted = said(&gate, "no").await.expect_err("no rule permits it");
            assert_eq!(deleted, expected.err().unwrap_or("default-deny".to_owned()), "{line}");
        }
    }

    #[tokio::test]
    async fn when_it_is_over_nothing_passes_whatever_was_remembered() {
        let bed = Bed::new(Durability::Process);
        let over = Err("default-deny".to_owned());
        bed.gate.rules.store(Arc::new(rescued("rescue = \"unmasked\"", HOUR)));
        let gate = bed.session(&session());
        let run = session().connection.run.clone();
        let program = Program {
            path: "/bin/true".to_owned(),
            user: "nobody".to_owned(),
            capabilities: Default::default(),
        };
        for _ in 0..2 {
            assert_eq!(said(&gate, "a").await, Ok(false));
        }
        assert_eq!(bed.gate.rules().may_launch(&run, program.clone()), Ok(()));
        bed.gate.rules().rescue.as_ref().unwrap().end();
        assert_eq!(said(&gate, "a").await, over, "it was ended");
        assert!(bed.gate.rules().may_launch(&run, program).unwrap_err().contains("is over"));
        for line in ["rescue = \"unmasked\"", "rescue = \"unmasked\"\nmode = \"observe\""] {
            bed.gate.rules.store(Arc::new(rescued(line, Duration::ZERO)));
            assert_eq!(said(&gate, "a").await, over, "its time is over");
        }
    }

    #[test]
    fn a_session_that_saw_what_is_hidden_ends_with_the_rescue() {
        let bed = Bed::new(Durability::Process);
        let subject = crate::gate::Subject::of_session(&session());
        let opening = held(1, &["a"], "a");
        let goes_on = |line: &str| {
            let now = rescued(line, HOUR);
            bed.gate.rules.store(Arc::new(Rules { rescue: None, ..now }));
            bed.gate.still_allows(&rescued(line, Duration::ZERO), &subject, opening.actions())
        };
        assert!(goes_on("rescue = \"masked\""));
        assert!(!goes_on("rescue = \"unmasked\""));
    }
}
