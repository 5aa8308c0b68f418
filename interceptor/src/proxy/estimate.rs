//! Estimates for people who are to approve: a short session of the gate's own in which the resource guesses.
//!
//! Promise: whatever goes wrong is no estimate, and none takes longer than [`PATIENCE`]. It decides nothing.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use interceptor_core::{
    Held, Protocol,
    estimate::{Estimate, EstimateStep},
    protocol::Own,
};

use super::{Proxy, own::OwnSession};
use crate::gate::{Estimator, Subject};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Why it is made.
const REASON: &str = "a guess at how many rows a statement concerns, for whoever is asked to approve it";

impl Estimator for Proxy {
    fn estimate<'a>(&'a self, subject: &'a Subject, held: &'a Held) -> BoxFuture<'a, Estimate> {
        Box::pin(async move {
            match tokio::time::timeout(PATIENCE, guess(self, subject, held)).await {
                Ok(Ok(estimate)) => estimate,
                Ok(Err(why)) => Estimate::None(why),
                Err(_) => Estimate::None(format!("there was none within {} s", PATIENCE.as_secs())),
            }
        })
    }
}

async fn guess(proxy: &Proxy, subject: &Subject, held: &Held) -> Result<Estimate, String> {
    let [action] = held.actions() else { return Err("it is several statements".to_owned()) };
    let resource = subject.resource.as_ref().ok_or("it names no resource")?;
    let protocol: &dyn Protocol =
        interceptor_protocols::find(subject.protocol).ok_or("nothing is known of the resource's protocol")?;
    let Own { opening, work: mut estimating } =
        protocol.estimate(action, &subject.principal, held.circumstances())?;
    let run: &Arc<_> = &subject.run;
    let mut session = OwnSession::open(proxy, (run, resource, &subject.principal), &opening).await?;
    loop {
        match estimating.step(&mut session.input).map_err(|error| error.to_string())? {
            EstimateStep::Wait => session.read().await?,
            EstimateStep::Send(held) => session.send(*held, REASON).await?,
            EstimateStep::Ended(done) => session.ended(done),
            EstimateStep::Over(estimate) => return Ok(estimate),
        }
    }
}
