//! Images as a run knows them: those of the host, and those that it has built, which nobody else sees.
//!
//! Promise: what a run builds has no name at the engine, where a name is everybody's: the broker keeps the names that the run
//! gives, for the run alone. An image that another run has built is none that there is.

use std::{collections::BTreeMap, sync::Arc};

use hyper::{Method, Response, StatusCode, body::Bytes};
use interceptor_core::model::{Image, RunId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cadence,
    broker::Broker,
    create::LABEL,
    own,
    refusal::Refusal,
    upstream::{Answer, Outgoing, Streams, full},
};

/// The tag that a name without one has.
const LATEST: &str = "latest";

/// An image that a run may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its id, all digits.
    pub(super) id: String,
    pub(super) of: Of,
    /// Whether it has instructions that a build upon it would carry out unread.
    pub(super) triggers: bool,
}

/// Whose an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Host,
    Run,
}

/// The part of an image's description that is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    id: String,
    config: Option<Settings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    labels: Option<BTreeMap<String, String>>,
    on_build: Option<Vec<String>>,
}

impl Described {
    /// What it is to this run, if anything.
    fn found(self, run: RunId) -> Option<Found> {
        let Settings { labels, on_build } = self.config.unwrap_or_default();
        let of = match labels.unwrap_or_default().get(LABEL) {
            None => Of::Host,
            Some(label) if *label == run.to_string() => Of::Run,
            Some(_) => return None,
        };
        let id = own::id(self.id.strip_prefix("sha256:")?)?;
        Some(Found { id, of, triggers: on_build.is_some_and(|all| !all.is_empty()) })
    }
}

impl Broker {
    /// The image that the run means by `name`: one that it has built and named, or one that the engine knows by that.
    pub(super) async fn image(&self, name: &str) -> Result<Found, Refusal> {
        let missing = || Refusal::missing("image", name);
        let asked = self.own().image(name).unwrap_or_else(|| name.to_owned());
        if !is_path(&asked) {
            return Err(missing());
        }
        let (status, told) =
            self.engine.told(Method::GET, &format!("/images/{asked}/json"), Vec::new()).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Err(missing()),
            other => {
                return Err(Refusal::unable(format!("the engine does not say what {name:?} is: {other}")));
            }
        }
        let described: Described = serde_json::from_slice(&told)
            .map_err(|error| Refusal::unable(format!("the engine does not say what {name:?} is: {error}")))?;
        described.found(self.owner.run).ok_or_else(missing)
    }

    /// Gives an image another name, which the broker keeps.
    pub(super) async fn tag(
        self: &Arc<Self>,
        name: &str,
        parameters: &[(String, String)],
    ) -> Result<Answer, Refusal> {
        let of = |wanted: &str| {
            let found = parameters.iter().find(|(parameter, value)| parameter == wanted && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        let (repository, tag) = (of("repo").unwrap_or_default(), of("tag"));
        let named = tag.map_or_else(|| repository.to_owned(), |tag| format!("{repository}:{tag}"));
        let kept = whole(&named)
            .ok_or_else(|| Refusal::malformed(format!("{named:?} is no name that an image could have")))?;
        let found = self.image(name).await?;
        self.tell(Cadence::Each, format!("POST /images/{name}/tag as {kept}: passed")).await?;
        self.own().name_image(kept, found.id);
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::CREATED;
        Ok(answer)
    }

    /// Takes a name of an image that the run has given. What it has built goes with its last name, and by its id.
    pub(super) async fn untag(
        self: &Arc<Self>,
        version: &str,
        name: &str,
        mut parameters: Vec<(String, String)>,
    ) -> Result<Answer, Refusal> {
        let found = self.image(name).await?;
        let is_own_name = self.own().image(name).is_some();
        if found.of == Of::Host && !is_own_name {
            return Err(Refusal::forbidden(format!(
                "{name:?} is the host's: a run removes the images that it has built, and the names that it has given"
            )));
        }
        self.tell(Cadence::Each, format!("DELETE /images/{name}: passed")).await?;
        if is_own_name {
            self.own().unname_image(name);
            let is_named = self.own().image_names().values().any(|id| *id == found.id);
            if is_named || found.of == Of::Host {
                return Ok(Response::new(full(json!([{ "Untagged": name }]).to_string())));
            }
        }
        // What it is made upon may be the host's, without a name.
        parameters.retain(|(parameter, _)| parameter == "force");
        parameters.push(("noprune".to_owned(), "1".to_owned()));
        let outgoing = Outgoing {
            method: Method::DELETE,
            path: format!("{version}/images/{}", found.id),
            parameters,
            kind: None,
            body: full(Bytes::new()),
        };
        let answer = self.engine.ask(outgoing, Streams::None).await?;
        if answer.status().is_success() {
            self.own().forget_image(&found.id);
        }
        Ok(answer)
    }
}

/// The whole of a name that a run gives or asks for, as it is kept; nothing where it is none that can be kept.
pub(super) fn whole(name: &str) -> Option<String> {
    let whole = Image::named(name, None).or_else(|_| Image::named(name, Some(LATEST)));
    whole.ok().map(|image| image.to_string())
}

/// The same, as people write it.
fn short(name: &str) -> &str {
    let hub = name.strip_prefix("docker.io/").unwrap_or(name);
    hub.strip_prefix("library/").unwrap_or(hub)
}

/// Leaves those images in a list that a run may use, with the names that it gave to its own, each with an id.
pub(super) fn show_usable(told: &mut Value, run: RunId, names: &BTreeMap<String, String>) {
    let Value::Array(images) = told else { return };
    let of = run.to_string();
    images.retain(|image| image["Labels"].get(LABEL).is_none_or(|label| *label == of));
    for image in images.iter_mut().filter(|image| image["Labels"].get(LABEL).is_some()) {
        let id = image["Id"].as_str().unwrap_or_default();
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        let own: Vec<&str> = names.iter().filter(|(_, of)| *of == id).map(|(name, _)| short(name)).collect();
        image["RepoTags"] = if own.is_empty() { json!(["<none>:<none>"]) } else { json!(own) };
    }
}

/// Whether a name is one in a call's path.
fn is_path(name: &str) -> bool {
    let is_named = |c: char| c.is_ascii_alphanumeric() || "_.-:@".contains(c);
    name.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(is_named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(config: &Value) -> Option<Found> {
        let told = json!({ "Id": format!("sha256:{}", "0a".repeat(32)), "Config": config });
        serde_json::from_value::<Described>(told).expect("a description").found(RunId::from_random(7))
    }

    #[test]
    fn an_image_of_another_run_is_none() {
        let own = json!({ "Labels": { LABEL: RunId::from_random(7).to_string() } });
        assert_eq!(described(&own).map(|found| found.of), Some(Of::Run));
        assert_eq!(described(&json!(null)).map(|found| found.of), Some(Of::Host));
        assert_eq!(
            described(&json!({ "Labels": null, "OnBuild": null })).map(|found| found.triggers),
            Some(false)
        );
        assert_eq!(described(&json!({ "Labels": { LABEL: RunId::from_random(8).to_string() } })), None);
        assert_eq!(described(&json!({ "Labels": { LABEL: "" } })), None);
        assert_eq!(described(&json!({ "OnBuild": ["RUN x"] })).map(|found| found.triggers), Some(true));
    }

    #[test]
    fn a_list_has_what_may_be_used() {
        let (own, other) = (RunId::from_random(7), RunId::from_random(8));
        let image = |id: &str, label: Option<RunId>| {
            let labels = label.map(|run| json!({ LABEL: run.to_string() }));
            json!({ "Id": format!("sha256:{id}"), "RepoTags": ["host:1"], "Labels": labels })
        };
        let mut told = json!([image("1", None), image("2", Some(own)), image("3", Some(other))]);
        let names = [("docker.io/library/app:latest".to_owned(), "2".to_owned())].into();
        show_usable(&mut told, own, &names);
        assert_eq!(told.as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&told[0]["RepoTags"], &told[1]["RepoTags"]),
            (&json!(["host:1"]), &json!(["app:latest"]))
        );
    }

    #[test]
    fn a_name_is_kept_whole() {
        assert_eq!(whole("app").as_deref(), Some("docker.io/library/app:latest"));
        assert_eq!(whole("r.internal/app:1").as_deref(), Some("r.internal/app:1"));
        assert_eq!(whole("App"), None);
        assert!(
            is_path("a/b:1")
                && is_path("sha256:0a")
                && !is_path("../x")
                && !is_path("a//b")
                && !is_path("a?b")
        );
    }
}
