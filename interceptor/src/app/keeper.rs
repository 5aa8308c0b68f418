//! The keeper role: opens the store, then serves the proxy until the helper ends it.

use std::{
    cell::RefCell,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::bail;
use interceptor_core::{
    approval::{Fate, Shown, Told},
    model::RunId,
};

use crate::{
    channel::{Channel, ChannelError},
    config::{Basis, Settings},
    gate::{Durability, now_us},
    helper::{
        self, Confined, confine,
        messages::{Attached, FromKeeper, ToKeeper},
    },
    keeper::{self, Approvals, Bindings, KeeperError, Kept, Packs, Role, secrets::SystemdCredentials},
    places::Places,
    store::{
        Config, Filter, FullRecord, Journal, Pace, Reader, StoreError, Writer,
        bindings::BindingStore,
        docket::{Answer, Docket, Moment},
        packs,
    },
    telemetry,
};

/// Runs the role until the helper or the proxy ends it.
pub(super) fn run(places: &Places) -> anyhow::Result<()> {
    let helper = helper::keeper_channel()?;
    let (ToKeeper::Start { attached }, descriptors) = helper.receive()?;
    let (mut peer, mut journal, mut credentials) = (None, None, Vec::new());
    for (what, descriptor) in attached.into_iter().zip(descriptors) {
        match what {
            Attached::Peer => peer = Some(descriptor),
            Attached::Journal => journal = Some(descriptor),
            Attached::Credential(name) => credentials.push((name, descriptor)),
            Attached::Control | Attached::Approvals | Attached::Map => {
                bail!("the helper gave the keeper what is the proxy's")
            }
        }
    }
    let (Some(peer), Some(journal)) = (peer, journal) else { bail!("the helper gave too little") };
    let extent = confine(Confined::Keeper, places)?;
    tracing::debug!(?extent, "confined");
    let journal = Journal::from_fd(journal)?;
    let settings = Basis::now(places)?.settings(places)?;
    let (writer, report) = Writer::open(&places.audit(), &journal, config(&settings))?;
    tracing::info!(entries = report.last_seq, replayed = report.replayed, "the store is open");
    let role = Role {
        channel: Channel::from_socket(peer),
        places: places.clone(),
        systemd: SystemdCredentials::read(credentials),
        load: Box::new(|places| {
            let basis = Basis::now(places).map_err(|error| telemetry::chain(&error))?;
            basis.inventory(places).map_err(|error| telemetry::chain(&error))
        }),
        spent: {
            let audit = places.audit();
            Box::new(move |run, since| {
                Reader::open(&audit)
                    .and_then(|reader| reader.spent(run, since))
                    .map_err(|error| telemetry::chain(&error))
            })
        },
        kept: Kept { approvals: approvals(places)?, packs: packs(places)?, bindings: bindings(places)? },
        writer: Box::new(move |stop| {
            helper.send(&FromKeeper::Up, &[]).map_err(|error| telemetry::chain(&error))?;
            writer.run(stop).map_err(|error| telemetry::chain(&error))
        }),
    };
    match keeper::run(role) {
        // The proxy went first, as it does when the daemon stops; what was left has been written.
        Err(KeeperError::Channel(ChannelError::Closed)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(never) => match never {},
    }
}

/// The docket, which reads how an exchange ended from the record itself.
fn approvals(places: &Places) -> anyhow::Result<Approvals> {
    let audit = places.audit();
    let docket = Mutex::new(Docket::open(&audit)?);
    Ok(Box::new(move |question| {
        // A panic elsewhere leaves a transaction undone, never half done.
        let mut docket = docket.lock().unwrap_or_else(PoisonError::into_inner);
        // Opened once for all that one question looks at: it reads what the index has not taken in.
        let reader = RefCell::new(None);
        let outcome = |id| {
            let mut reader = reader.borrow_mut();
            if reader.is_none() {
                *reader = Some(Reader::open(&audit)?);
            }
            let record = reader.as_ref().map(|reader| reader.record(id)).transpose()?.flatten();
            Ok(record.and_then(|record| record.outcome).map(|outcome| outcome.status))
        };
        Moment::now()
            .and_then(|now| docket.answer(question, &now, &outcome))
            .and_then(|answer| match answer {
                Answer::Shown(shown) => {
                    let others = others(&audit, shown.standing.card.run)?;
                    Ok(Answer::Shown(Box::new(Shown { others, ..*shown })))
                }
                answer => Ok(answer),
            })
            .map_err(|error| telemetry::chain(&error))
    }))
}

/// What a run did last.
fn others(audit: &Path, run: RunId) -> Result<Vec<Told>, StoreError> {
    /// How many statements, and how much of each.
    const OTHERS: usize = 12;
    const HEAD: usize = 160;
    let filter = Filter { run: Some(run), author: Some("agent".to_owned()), ..Filter::default() };
    let records = Reader::open(audit)?.search(&filter, OTHERS)?.into_iter();
    let told = |FullRecord { id, request, .. }: FullRecord| {
        let (verdict, action) = (request.verdict, request.action);
        let fate = match (verdict.allowed, verdict.held_for.is_empty()) {
            (true, _) => Fate::Allowed,
            (false, false) => Fate::Held,
            (false, true) => Fate::Refused,
        };
        let verbs = || action.facts.effects.iter().map(|effect| effect.verb.as_str()).collect::<Vec<_>>();
        let mut text =
            if action.text.is_empty() { format!("[{}]", verbs().join(", ")) } else { action.text.into() };
        text.truncate(text.floor_char_boundary(HEAD));
        Told { record: id, at: request.at, fate, text }
    };
    // Names that were looked up say nothing.
    Ok(records.filter(|record| record.request.resource.is_some()).map(told).collect())
}

/// The undo packs.
fn packs(places: &Places) -> anyhow::Result<Packs> {
    let packs = Mutex::new(packs::Packs::open(&places.audit())?);
    Ok(Box::new(move |question| {
        let mut packs = packs.lock().unwrap_or_else(PoisonError::into_inner);
        packs.answer(question, now_us()).map_err(|error| telemetry::chain(&error))
    }))
}

/// What is bound to labels.
fn bindings(places: &Places) -> anyhow::Result<Bindings> {
    let bindings = Mutex::new(BindingStore::open(&places.audit())?);
    Ok(Box::new(move |question| {
        let mut bindings = bindings.lock().unwrap_or_else(PoisonError::into_inner);
        bindings.answer(question, now_us()).map_err(|error| telemetry::chain(&error))
    }))
}

fn config(settings: &Settings) -> Config {
    const DAY: u64 = 24 * 3600;
    Config {
        retention: Some(Duration::from_secs(u64::from(settings.retention_days) * DAY)),
        total_bytes: settings.store_mib * 1024 * 1024,
        pace: match settings.durability {
            Durability::Process => Pace::Easy,
            Durability::Power => Pace::Prompt,
        },
        ..Config::default()
    }
}
