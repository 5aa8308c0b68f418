//! Bindings of columns to labels as the proxy meets them: had from whoever keeps them, once for each resource, and kept
//! there as they come.
//!
//! Promises: what is bound is not known before all of it was had, and then everything counts as labelled; what was found
//! is on disk before anything is done by it. Who may see what is not known here.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use interceptor_core::{
    mask::{Awaited, Bindings, Change, Keeping, Moved, News, Which},
    model::ResourceName,
};

use crate::{
    keeper::{
        client::{AskError, KeeperClient},
        messages::{Answer as KeeperAnswer, Ask},
    },
    store::bindings::{After, Answer, KeptBinding, Question},
};

/// How many changes go with one message: with the longest names that there are, those fit.
const PAGE: usize = 32;

/// Keeps bindings. A seam: the keeper's process, or in tests the bindings themselves.
pub trait Registrar: Send + Sync {
    /// Answers a question; or says, for the operator, why it cannot.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>>;
}

impl Registrar for KeeperClient {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            match KeeperClient::ask(self, Ask::Binding(question)).await {
                Ok(KeeperAnswer::Binding(answer)) => Ok(answer),
                Ok(_) => Err(AskError::Mixed.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// The bindings of all resources.
pub struct Bound {
    registrar: Arc<dyn Registrar>,
    known: Mutex<HashMap<ResourceName, Arc<Bindings>>>,
    /// Questions about bindings go one after the other, so that what is had is never older than what is kept.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").finish_non_exhaustive()
    }
}

impl Bound {
    /// Those that `registrar` keeps.
    pub fn new(registrar: Arc<dyn Registrar>) -> Self {
        Self { registrar, known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The bindings of a resource, as far as they are known.
    pub fn of(&self, resource: &ResourceName) -> Arc<Bindings> {
        // A panic elsewhere leaves it whole: every change is one call.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(resource.clone()).or_insert_with(|| Arc::new(Bindings::unknown())).clone()
    }

    /// The same, known. Where they cannot be had they are as they were, and the operator is told why.
    pub async fn had(&self, resource: &ResourceName) -> Arc<Bindings> {
        let bindings = self.of(resource);
        if bindings.is_known() {
            return bindings;
        }
        let _turn = self.turn.lock().await;
        if bindings.is_known() {
            return bindings;
        }
        match self.read(resource).await {
            Ok((kept, awaited)) => {
                bindings.learn(kept.into_iter().map(|kept| kept.binding).collect(), awaited);
            }
            Err(error) => {
                tracing::error!(%resource, "what is bound to labels is not known, so everything is hidden: {error}");
            }
        }
        bindings
    }

    /// All that is kept of a resource.
    pub async fn kept(&self, resource: &ResourceName) -> Result<(Vec<KeptBinding>, Vec<Awaited>), String> {
        let _turn = self.turn.lock().await;
        self.read(resource).await
    }

    async fn read(&self, resource: &ResourceName) -> Result<(Vec<KeptBinding>, Vec<Awaited>), String> {
        let (mut all, mut to_be, mut after) = (Vec::new(), Vec::new(), After::default());
        loop {
            let question = Question::Read { resource: resource.clone(), after };
            let Answer::Kept { bindings, awaited, more } = self.registrar.ask(question).await? else {
                return Err(AskError::Mixed.to_string());
            };
            all.extend(bindings);
            to_be.extend(awaited);
            match more {
                Some(more) => after = more,
                None => return Ok((all, to_be)),
            }
        }
    }

    /// Has kept what has come of a resource's; then `told` is told what has moved, and says whether it could be. What
    /// fails is owed again.
    pub async fn keep(&self, resource: &ResourceName, told: impl Fn(&Moved) -> bool) -> Result<(), String> {
        let bindings = self.of(resource);
        let _turn = self.turn.lock().await;
        match bindings.keeping() {
            Keeping::Done => return Ok(()),
            Keeping::Full => {
                return Err(
                    "more columns are bound to labels than are kept; forget some with `interceptor labels forget`"
                        .to_owned(),
                );
            }
            Keeping::Owed => {}
        }
        let News { changes, moved } = bindings.news();
        for (at, page) in changes.chunks(PAGE).enumerate() {
            if let Err(error) = self.done(resource, page.to_vec()).await {
                let changes = changes.get(at.saturating_mul(PAGE)..).unwrap_or_default().to_vec();
                bindings.owe(News { changes, moved });
                return Err(error);
            }
        }
        let moved: Vec<Moved> = moved.into_iter().filter(|moved| !told(moved)).collect();
        if !moved.is_empty() {
            bindings.owe(News { changes: Vec::new(), moved });
            return Err("that a labelled column was renamed could not be recorded".to_owned());
        }
        Ok(())
    }

    async fn done(&self, resource: &ResourceName, changes: Vec<Change>) -> Result<(), String> {
        match self.registrar.ask(Question::Keep { resource: resource.clone(), changes }).await? {
            Answer::Done => Ok(()),
            Answer::Kept { .. } | Answer::Forgotten(_) => Err(AskError::Mixed.to_string()),
        }
    }

    /// Forgets what a column, or all of a relation, is bound to; how much that was. What its name still tells is bound
    /// anew when it is seen.
    pub async fn forget(&self, resource: &ResourceName, what: Which) -> Result<usize, String> {
        let bindings = self.had(resource).await;
        let _turn = self.turn.lock().await;
        let question = Question::Forget { resource: resource.clone(), what: what.clone() };
        let Answer::Forgotten(count) = self.registrar.ask(question).await? else {
            return Err(AskError::Mixed.to_string());
        };
        bindings.forget(&what);
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use interceptor_core::{
        inventory::{Source, load},
        mask::{Labels, Seen},
    };

    use super::*;
    use crate::store::bindings::BindingStore;

    /// The bindings themselves, which can be out of reach.
    pub(crate) struct Cabinet {
        store: Mutex<BindingStore>,
        pub(crate) broken: AtomicBool,
    }

    impl Cabinet {
        pub(crate) fn open(folder: &std::path::Path) -> Arc<Self> {
            let store = Mutex::new(BindingStore::open(folder).unwrap());
            Arc::new(Self { store, broken: AtomicBool::new(false) })
        }
    }

    impl Registrar for Cabinet {
        fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, String>> {
            let answer = match self.broken.load(Ordering::Acquire) {
                true => Err("disk full".to_owned()),
                false => self.store.lock().unwrap().answer(question, 7).map_err(|error| error.to_string()),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    fn labels() -> Arc<Labels> {
        let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
        let resources = source("resources.toml", "[resource.orders]\nhosts = [\"db\"]\nports = [5432]\n");
        let labels = source("labels.toml", "[label.ssn]\ncolumns = [\"*.*.ssn\"]\nmask = \"null\"\n");
        let inventory =
            load(&resources, &source("agents.toml", ""), &[]).unwrap().with_labels(&labels).unwrap();
        inventory.labels(&orders())
    }

    fn orders() -> ResourceName {
        "orders".parse().unwrap()
    }

    fn look(bindings: &Bindings, column: &str) {
        let (schema, name) = ("public", "customers");
        let columns = vec![(1, "id"), (2, column)];
        let (family, kin) = (vec![(schema, name)], vec![20_000]);
        let seen = Seen { relation: 20_000, schema, name, columns, family, kin };
        bindings.seen(&labels(), (5, "d"), &[seen]);
    }

    #[tokio::test]
    async fn what_is_bound_outlives_whoever_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Cabinet::open(folder.path());
        let bound = Bound::new(shelf.clone());
        shelf.broken.store(true, Ordering::Release);
        assert!(!bound.had(&orders()).await.is_known(), "what cannot be had is not known");
        shelf.broken.store(false, Ordering::Release);
        let bindings = bound.had(&orders()).await;
        look(&bindings, "ssn");
        shelf.broken.store(true, Ordering::Release);
        assert_eq!(bound.keep(&orders(), |_| true).await, Err("disk full".to_owned()));
        assert_eq!(bindings.keeping(), Keeping::Owed);
        shelf.broken.store(false, Ordering::Release);
        bound.keep(&orders(), |_| true).await.unwrap();
        look(&bindings, "open");
        assert!(bound.keep(&orders(), |_| false).await.is_err(), "nobody was told");
        let told = Mutex::new(Vec::new());
        let tell = |moved: &Moved| {
            told.lock().unwrap().push(moved.clone());
            true
        };
        bound.keep(&orders(), tell).await.unwrap();
        assert_eq!(told.lock().unwrap()[0].to.to_string(), "public.customers.open");
        let again = Bound::new(shelf).had(&orders()).await;
        assert_eq!(again.of(&labels(), 5, 20_000).unwrap()[0].called, "open");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_bound() {
        let folder = tempfile::tempdir().unwrap();
        let bound = Bound::new(Cabinet::open(folder.path()));
        let bindings = bound.had(&orders()).await;
        look(&bindings, "ssn");
        look(&bindings, "open");
        bound.keep(&orders(), |_| true).await.unwrap();
        let which = |column: &str| Which {
            schema: "public".to_owned(),
            relation: "customers".to_owned(),
            column: Some(column.to_owned()),
        };
        assert_eq!(bound.forget(&orders(), which("ssn")).await, Ok(0), "it is not called so any more");
        assert_eq!(bound.forget(&orders(), which("open")).await, Ok(1));
        assert_eq!(bindings.of(&labels(), 5, 20_000), Some(Vec::new()));
    }
}
