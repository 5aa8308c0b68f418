//! The daemon in a rescue: for a while, what was saved as known to be good is in force in the place of what is configured.
//!
//! Promises: it is recorded before it holds; it ends by itself; what is configured comes in force again then and, where
//! it cannot be loaded, nothing passes until it can.

use std::{
    env, fs, io,
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use interceptor_core::{approval, model::EventKind, rescue::Rescue};

use super::proxy::Daemon;
use crate::{
    config::Basis,
    control::api::Answer,
    gate::Rules,
    places::Places,
    rescue::{Begun, RescueError, Saved, Scope},
    telemetry,
};

/// How often it is looked whether one is over. Nothing passes by it meanwhile.
const LOOKED: Duration = Duration::from_millis(250);

/// Why the saved daemon does not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandOver {
    /// What was saved cannot be used.
    #[error(transparent)]
    Rescue(#[from] RescueError),
    /// It cannot be started.
    #[error("a rescue lasts, and the daemon that was saved for it cannot be started ({0})")]
    Start(String, #[source] io::Error),
}

/// While a rescue lasts, this process becomes the daemon that was saved for it, whichever binary it was started as.
pub(super) fn hand_over(places: &Places) -> Result<(), HandOver> {
    // Others than root are told elsewhere that they may not.
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let Some((begun, _)) = Begun::lasting(places)? else {
        // Nobody has to read the note of one that is over, which a later build may write otherwise.
        return Ok(Begun::remove(places)?);
    };
    let saved = Saved::open(places)?;
    let binary = saved.binary();
    let failed = |error| HandOver::Start(binary.display().to_string(), error);
    let file = |facts: fs::Metadata| (facts.dev(), facts.ino());
    if fs::metadata("/proc/self/exe").map(file).map_err(failed)?
        == fs::metadata(&binary).map(file).map_err(failed)?
    {
        return Ok(());
    }
    if saved.digest() != begun.saved {
        return Err(
            RescueError::Changed { path: binary, why: "is not what the rescue was begun with" }.into()
        );
    }
    saved.verify(Scope::Whole)?;
    let error = Command::new(&binary).arg0("interceptor").args(env::args_os().skip(1)).exec();
    Err(failed(error))
}

/// Ends a rescue when its time is over, for ever.
pub(super) async fn outlast(daemon: Arc<Daemon>) {
    let mut every = tokio::time::interval(LOOKED);
    loop {
        every.tick().await;
        let is_over =
            |rules: &Rules| rules.rescue.as_ref().is_some_and(|one| !one.lasts() && !one.has_ended());
        if is_over(&daemon.rules.load())
            && let Answer::Failed { text } = daemon.look_at_rescue().await
        {
            tracing::error!("{text}");
        }
    }
}

impl Daemon {
    /// Records that a rescue lasts which this process was started in.
    pub(super) fn say_what_lasts(&self) -> anyhow::Result<()> {
        let rules = self.rules.load();
        let Some(rescued) = rules.rescue.as_ref() else { return Ok(()) };
        if !self.begins(rescued.rescue()) {
            bail!("a rescue lasts, and it cannot be recorded that it does");
        }
        Ok(())
    }

    /// Records that it lasts; whether that could be.
    fn begins(&self, rescue: &Rescue) -> bool {
        let Rescue { id, by, reason, until, .. } = rescue;
        let saved = Saved::open(&self.places).map(|saved| saved.in_words());
        let saved = saved.unwrap_or_else(|error| telemetry::chain(&error));
        let until =
            jiff::Timestamp::from_microsecond(*until).map_or_else(|_| until.to_string(), |at| at.to_string());
        let text = format!(
            "rescue {id}: until {until} what was saved is in force ({saved}), by {by}: {}",
            approval::words(reason)
        );
        tracing::warn!("{text}");
        self.proxy.event(None, EventKind::RescueBegun, text)
    }

    /// Does what root's note says.
    pub(super) async fn look_at_rescue(&self) -> Answer {
        let _alone = self.reloading.lock().await;
        let known =
            self.rules.load().rescue.as_ref().filter(|one| !one.has_ended()).map(|one| one.rescue().id);
        match Basis::now(&self.places) {
            Ok(Basis::Saved(begun, _)) if Some(begun.rescue.id) == known => {
                Answer::Done { text: format!("rescue {} lasts already", begun.rescue.id) }
            }
            Ok(basis @ Basis::Saved(..)) => self.begin_rescue(&basis).await,
            Ok(Basis::Configured) if known.is_some() => self.end_rescue().await,
            Ok(Basis::Configured) => Answer::Failed { text: "no rescue lasts".to_owned() },
            // Which it is cannot be told: it is none.
            Err(_) if known.is_some() => self.end_rescue().await,
            Err(error) => Answer::Failed { text: telemetry::chain(&error) },
        }
    }

    async fn begin_rescue(&self, basis: &Basis) -> Answer {
        let not_begun = |text: String| Answer::Failed { text: format!("no rescue was begun: {text}") };
        let rules = match basis.rules(&self.places) {
            Ok(rules) => rules,
            Err(error) => return not_begun(telemetry::chain(&error)),
        };
        if !rules.rescue.as_ref().is_some_and(|rescued| self.begins(rescued.rescue())) {
            return not_begun("it could not be recorded; see `interceptor status`".to_owned());
        }
        match self.put_in_force(rules).await {
            Ok(hash) => Answer::Done { text: format!("policy {hash}, as it was saved, is in force") },
            Err(text) => {
                self.proxy.event(None, EventKind::RescueEnded, format!("it was not begun after all: {text}"));
                not_begun(text)
            }
        }
    }

    /// What is configured is in force again or, where it cannot be, nothing. To be called with `reloading` held.
    async fn end_rescue(&self) -> Answer {
        let before = self.rules.load_full();
        let Some(rescued) = before.rescue.as_ref() else {
            return Answer::Failed { text: "no rescue lasts".to_owned() };
        };
        let why = if rescued.lasts() { "root ended it" } else { "its time is over" };
        // Whatever becomes of the rest.
        rescued.end();
        let id = rescued.rescue().id;
        self.proxy.event(None, EventKind::RescueEnded, format!("rescue {id} is over: {why}"));
        let loaded = Basis::Configured.rules(&self.places).map_err(|error| telemetry::chain(&error));
        let in_force = match loaded {
            Ok(rules) => self.put_in_force(rules).await,
            Err(text) => Err(text),
        };
        match in_force {
            Ok(hash) => Answer::Done { text: format!("rescue {id} is over; policy {hash} is in force") },
            Err(text) => {
                self.proxy.judge_again(&before);
                let text =
                    format!("everything is refused, since what is configured cannot be loaded: {text}");
                self.proxy.event(None, EventKind::PolicyRefused, text.clone());
                Answer::Failed {
                    text: format!(
                        "rescue {id} is over, and {text}\n`interceptor reload` once that is mended"
                    ),
                }
            }
        }
    }

    /// Records that what is in force is saved.
    pub(super) fn rescue_saved(&self, text: String) -> Answer {
        if self.rules.load().rescue.is_some() {
            return Answer::Failed { text: "nothing was saved: what is in force is of a rescue".to_owned() };
        }
        if self.proxy.event(None, EventKind::RescueSaved, approval::words(&text)) {
            Answer::Done { text }
        } else {
            let text = "nothing was saved: it could not be recorded; see `interceptor status`".to_owned();
            Answer::Failed { text }
        }
    }
}
