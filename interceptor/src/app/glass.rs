//! The daemon where the glass is broken: by root, for a while, with everybody told and somebody else to look at it
//! afterwards.
//!
//! Promises: it is kept and recorded before it holds; where either fails the glass stays whole. When it is over, what
//! policy does not allow is ended as after a change of policy.

use std::{sync::Arc, time::Duration};

use interceptor_core::{
    approval,
    break_glass::{self, BreakGlass, By, Review},
    inventory::Person,
    model::{BreakGlassId, EventKind, ResourceName},
};

use super::{approvals::failed, proxy::Daemon};
use crate::{
    control::{approvals::Answer, caller::Caller},
    gate::now_us,
    proxy::Proxy,
};

fn refused(text: impl Into<String>) -> Answer {
    Answer::Failed { text: text.into() }
}

fn by(caller: &Caller, person: Option<&Person>) -> By {
    By { uid: caller.uid, login: caller.login, person: person.map(|person| person.name.clone()) }
}

const ROOT: &str = "only root breaks the glass or mends it: use sudo, outside of every run";

impl Daemon {
    pub(super) async fn break_glass(
        &self,
        caller: &Caller,
        person: Option<&Person>,
        resource: ResourceName,
        reason: String,
        seconds: u64,
    ) -> Answer {
        if caller.uid != 0 {
            return refused(ROOT);
        }
        if !self.rules.load().inventory.resources.contains_key(&resource) {
            return refused(format!("resources.toml has no `{resource}`: nothing was broken"));
        }
        if let Err(error) = break_glass::may_break(&reason, seconds) {
            return refused(error.to_string());
        }
        let approvals = self.proxy.gate.approvals();
        let broken = match approvals.break_glass(resource, reason, by(caller, person), seconds).await {
            Ok(broken) => broken,
            Err(error) => return failed(&error),
        };
        let who = broken.by.in_words();
        let text = format!(
            "break-glass {}: on {} policy is not carried out for {seconds} s, by {who}: {}",
            broken.id,
            broken.resource,
            approval::words(&broken.reason)
        );
        if !self.proxy.event(None, EventKind::GlassBroken, text.clone()) {
            // It does not hold, and nothing was done under it; it still has to be reviewed.
            let _ = approvals.mend_glass(broken.id).await;
            return refused("nothing was broken: it could not be recorded; see `interceptor status`");
        }
        tracing::warn!("{text}");
        hold(&self.proxy, &broken);
        let paged = if approvals.is_told() {
            "the webhook is told"
        } else {
            "nobody was paged, since interceptor.toml names no `webhook`"
        };
        let text = format!(
            "{text}\n{paged}; another person closes it with `interceptor approvals review {} --note \"...\"`",
            broken.id
        );
        Answer::Glass { text, glass: Box::new(broken) }
    }

    pub(super) async fn mend(
        &self,
        caller: &Caller,
        person: Option<&Person>,
        resource: &ResourceName,
    ) -> Answer {
        if caller.uid != 0 {
            return refused(ROOT);
        }
        // Whatever becomes of the rest: policy is carried out again from here on.
        let glass = self.proxy.gate.glass();
        if glass.at(Some(resource)).is_some() {
            glass.set(None);
        }
        let approvals = self.proxy.gate.approvals();
        let broken = match approvals.pending_glass().await {
            Ok(pending) => pending.into_iter().find(|one| one.resource == *resource && one.left.is_some()),
            Err(error) => return failed(&error),
        };
        let Some(broken) = broken else {
            return refused(format!("no break-glass is open on {resource}"));
        };
        match approvals.mend_glass(broken.id).await {
            Ok(mended) => {
                over(&self.proxy, &mended, &format!("by {}", by(caller, person).in_words()));
                let text =
                    format!("break-glass {} on {resource} is over; it waits for its review", mended.id);
                Answer::Glass { text, glass: Box::new(mended) }
            }
            Err(error) => failed(&error),
        }
    }

    pub(super) async fn review(&self, person: &Person, id: BreakGlassId, note: String) -> Answer {
        let approvals = self.proxy.gate.approvals();
        let found = match approvals.pending_glass().await {
            Ok(pending) => pending.into_iter().find(|one| one.id == id),
            Err(error) => return failed(&error),
        };
        let Some(broken) = found else {
            return refused(format!("there is no break-glass {id} that waits for a review"));
        };
        if broken.left.is_some() {
            let resource = &broken.resource;
            return refused(format!(
                "break-glass {id} is still open: end it first, with `interceptor break-glass {resource} --end`"
            ));
        }
        if let Err(error) = broken.may_review(person, &note) {
            return refused(error.to_string());
        }
        let text = format!("break-glass {id}: reviewed by {}: {}", person.name, approval::words(&note));
        if !self.proxy.event(None, EventKind::GlassReviewed, text.clone()) {
            return refused("nothing was reviewed: it could not be recorded; see `interceptor status`");
        }
        let review = Review { person: person.name.clone(), note, at: now_us() };
        match approvals.review_glass(id, review).await {
            Ok(glass) => Answer::Glass { text, glass: Box::new(glass) },
            Err(error) => failed(&error),
        }
    }

    /// What was broken before this process began is still, for as long as it was said.
    pub(super) async fn glass_as_it_was(&self) -> Result<(), crate::approval::ApprovalError> {
        let pending = self.proxy.gate.approvals().pending_glass().await?;
        pending.iter().filter(|broken| broken.left.is_some()).for_each(|broken| hold(&self.proxy, broken));
        Ok(())
    }
}

/// From now on it holds, until its time is over.
fn hold(proxy: &Arc<Proxy>, broken: &BreakGlass) {
    proxy.gate.glass().set(Some(broken));
    let (proxy, broken) = (proxy.clone(), broken.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(broken.left.unwrap_or(0))).await;
        if proxy.gate.glass().is(broken.id) {
            proxy.gate.glass().set(None);
            over(&proxy, &broken, "its time is over");
        }
    });
}

fn over(proxy: &Proxy, broken: &BreakGlass, why: &str) {
    let text =
        format!("break-glass {} on {}: policy is carried out again, {why}", broken.id, broken.resource);
    proxy.event(None, EventKind::GlassMended, text);
    proxy.judge_again(&proxy.gate.rules());
}
