//! May this be launched? Asked once for each run, before it has a cgroup.
//!
//! Promise: what no rule permits is not launched. Nobody is waited for: a launch that would have to be approved is refused.

use std::{collections::BTreeMap, sync::Arc};

use interceptor_core::{
    model::{Action, Binds, Phase, Principal, Program, Run, Spent, StatementFacts, Target, Text, Verb},
    permit::Judgement,
    policy::Asked,
};

use super::{Rules, now_us};

impl Rules {
    /// Whether `run` may be launched as this program; an error says why not, for whoever launches it.
    pub fn may_launch(&self, run: &Run, program: Program) -> Result<(), String> {
        if let Some((id, why)) = self.outlived() {
            return Err(format!("rescue {id}: {why}"));
        }
        let facts = Arc::new(StatementFacts::single(Verb::Launch, Target::Program(program)));
        let action = Action { phase: Phase::Launch, text: Text::new(), binds: Binds::new(), facts };
        let (principal, approvals) = (Principal::default(), BTreeMap::new());
        let judgement = self.policy.judge(&Asked {
            run,
            process: None,
            resource: None,
            principal: &principal,
            action: &action,
            statements: 1,
            place: 0,
            approvals: &approvals,
            spent: Spent::default(),
            now: now_us() / 1_000_000,
            person: None,
        });
        match judgement {
            Judgement::Allowed { .. } => Ok(()),
            Judgement::Held { reason, .. } => Err(format!("{reason}, and a launch cannot wait for it")),
            Judgement::Denied { reason, .. } => Err(reason),
        }
    }
}
