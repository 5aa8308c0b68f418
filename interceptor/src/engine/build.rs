//! Builds of a run's: by the engine's own builder, whose steps are containers in the run's cgroup and network.
//!
//! Promises: no build goes on unless the engine makes its steps by a runtime of ours; the engine fetches nothing for it: its images are
//! there already, by their ids, and what else it is made of comes with the call; what comes of it has no name at the engine, bears the run's
//! label in each of its layers' images, and goes with the run. Parameters: "ImageBuild" of the Docker Engine API.

use std::{collections::BTreeMap, sync::Arc};

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, body::Incoming, header::HeaderValue};
use serde_json::{Map, Value, json};

use super::{
    Cadence,
    broker::Broker,
    context::{self, Context},
    create::LABEL,
    dockerfile::Dockerfile,
    images,
    progress::{self, Said},
    refusal::Refusal,
    routes::{Call, NO_BUILDKIT},
    upstream::{Answer, Outgoing, Streams},
};

/// Parameters that a build may have. What the engine would fetch, name or run by is not among them.
pub(super) const PARAMETERS: &[&str] = &[
    "buildargs",
    "cpuperiod",
    "cpuquota",
    "cpusetcpus",
    "cpusetmems",
    "cpushares",
    "dockerfile",
    "extrahosts",
    "forcerm",
    "labels",
    "memory",
    "memswap",
    "networkmode",
    "nocache",
    "q",
    "rm",
    "shmsize",
    "t",
    "target",
    "ulimits",
    "version",
];
/// How much of an id is shown.
const SHORT: usize = 12;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Build {
    /// The names that it is to have in this run.
    names: Vec<String>,
    /// Where its Dockerfile is in what comes with it.
    dockerfile: String,
    arguments: BTreeMap<String, String>,
    labels: Map<String, Value>,
    /// What goes on as it is.
    others: Vec<(String, String)>,
}

impl Build {
    pub(super) fn read(parameters: Vec<(String, String)>) -> Result<Self, Refusal> {
        let mut build = Self { dockerfile: "Dockerfile".to_owned(), ..Self::default() };
        for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "t" => {
                    let whole = images::whole(&value);
                    build
                        .names
                        .push(whole.ok_or_else(|| {
                            Refusal::malformed(format!("{value:?} is no name of an image"))
                        })?);
                }
                "dockerfile" => build.dockerfile = value,
                "buildargs" => {
                    build.arguments = values(&name, &value)?;
                    build.others.push((name, value));
                }
                "labels" => {
                    let labels = values(&name, &value)?.into_iter();
                    build.labels = labels.map(|(label, value)| (label, json!(value))).collect();
                }
                "version" if value != "1" => return Err(Refusal::forbidden(NO_BUILDKIT)),
                "networkmode" if !matches!(value.as_str(), "default" | "bridge" | "host") => {
                    return Err(Refusal::forbidden(format!(
                        "networkmode {value:?}: a build is made in the run's network: leave it out"
                    )));
                }
                // They are set below, whatever is asked.
                "version" | "networkmode" | "rm" | "forcerm" => {}
                _ => build.others.push((name, value)),
            }
        }
        Ok(build)
    }

    /// As the engine is asked for it.
    fn parameters(mut self, dockerfile: &str, run: &str, parent: &str) -> Vec<(String, String)> {
        self.labels.insert(LABEL.to_owned(), json!(run));
        let own = [
            ("cgroupparent", parent),
            ("dockerfile", dockerfile),
            ("forcerm", "1"),
            ("labels", &Value::Object(self.labels).to_string()),
            // As for a container: the runtime puts the run's network in its place.
            ("networkmode", "host"),
            ("rm", "1"),
            ("version", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.others.into_iter().chain(own).collect()
    }
}

/// Texts by names, as JSON. What has none is left out.
fn values(parameter: &str, text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let read = serde_json::from_str::<Option<BTreeMap<String, Option<String>>>>(text);
    let read = read.map_err(|error| {
        Refusal::malformed(format!("the parameter {parameter:?} cannot be read: {error}"))
    })?;
    Ok(read.unwrap_or_default().into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

impl Broker {
    /// Builds an image. What comes with the call is taken in first: a client that is still sending would not see why it is refused.
    pub(super) async fn build(
        self: &Arc<Self>,
        call: &Call,
        query: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let turn = self.building.acquire().await.map_err(|error| Refusal::unable(error.to_string()))?;
        let read = Limited::new(request.into_body(), context::LONGEST).collect().await;
        let archive = read.map_err(|error| context::too_long(&error.to_string()))?;
        let build = Build::read(call.route.parameters(query)?)?;
        self.engine.builds_by_ours().await.map_err(Refusal::forbidden)?;
        let context = Context::read(archive.to_bytes(), &build.dockerfile)?;
        let dockerfile = Dockerfile::read(&context.dockerfile, &build.arguments)?;
        let ids = self.bases(&dockerfile).await?;
        let run = self.owner.run.to_string();
        let (name, body) = context.with(&dockerfile.written(&ids, &run)?)?;
        self.tell(Cadence::Each, format!("{}: passed", in_words(&build, &ids))).await?;
        let names = build.names.clone();
        let outgoing = Outgoing {
            method: Method::POST,
            path: format!("{}{}", call.version, call.rest),
            parameters: build.parameters(&name, &run, &self.owner.cgroup_parent()),
            kind: Some(HeaderValue::from_static("application/x-tar")),
            body,
        };
        let answer = self.engine.ask(outgoing, Streams::None).await?;
        drop(turn);
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let broker = Arc::clone(self);
        Ok(progress::watched(answer, move |said| broker.built(names, said)))
    }

    /// The ids of what it is made upon. All are there, and none brings instructions of its own.
    async fn bases(&self, dockerfile: &Dockerfile) -> Result<BTreeMap<String, String>, Refusal> {
        let mut ids = BTreeMap::new();
        for name in dockerfile.images() {
            let found = self.image(name).await.map_err(|refusal| {
                if refusal.status != hyper::StatusCode::NOT_FOUND {
                    return refusal;
                }
                Refusal::forbidden(format!(
                    "the Dockerfile builds upon {name:?}, which is not here, and a build fetches none: `docker pull {name}` first, \
                     which policy must permit, or have it pulled before the run begins"
                ))
            })?;
            if found.triggers {
                return Err(Refusal::forbidden(format!(
                    "the Dockerfile builds upon {name:?}, which has instructions for those that do (ONBUILD), and they are not read \
                     here: build upon another"
                )));
            }
            ids.insert(name.to_owned(), found.id);
        }
        Ok(ids)
    }

    /// Takes note of what was built.
    fn built(self: Arc<Self>, names: Vec<String>, said: Said) {
        let text = match (said.error, said.built) {
            (None, Some(id)) => {
                let id = id.strip_prefix("sha256:").unwrap_or(&id);
                names.into_iter().for_each(|name| self.own().name_image(name, id.to_owned()));
                format!("image {} is built", short(id))
            }
            (error, _) => format!("no image is built: {}", error.unwrap_or_default()),
        };
        // If it cannot be told, the call stands in the record without its end.
        tokio::spawn(async move { self.tell(Cadence::Each, text).await });
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn in_words(build: &Build, ids: &BTreeMap<String, String>) -> String {
    let names = match build.names.as_slice() {
        [] => "an image without a name".to_owned(),
        names => names.join(", "),
    };
    let bases: Vec<String> = ids.iter().map(|(name, id)| format!("{name} ({})", short(id))).collect();
    let bases = if bases.is_empty() { "nothing".to_owned() } else { bases.join(", ") };
    format!("POST /build of {names} upon {bases}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Build, Refusal> {
        Build::read(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// What the command line client sends.
    const PLAIN: &str = "buildargs=%7B%22A%22%3A%22b%22%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&cpusetcpus=\
                         &cpusetmems=&cpushares=0&dockerfile=D&labels=%7B%22interceptor.run%22%3A%22another%22%7D&memory=0\
                         &memswap=0&networkmode=default&rm=0&shmsize=0&t=app&target=last&ulimits=null&version=1";

    #[test]
    fn what_is_built_is_the_runs() {
        let parameters = super::super::routes::Route::Build.parameters(PLAIN).expect("known");
        let build = Build::read(parameters).expect("a build");
        assert_eq!(build.names, ["docker.io/library/app:latest"]);
        assert_eq!((build.dockerfile.as_str(), build.arguments["A"].as_str()), ("D", "b"));
        let asked: BTreeMap<_, _> = build.parameters("mine", "r1", "/parent").into_iter().collect();
        let of = |name: &str| asked.get(name).map(String::as_str);
        assert_eq!((of("t"), of("dockerfile"), of("target")), (None, Some("mine"), Some("last")));
        assert_eq!((of("networkmode"), of("cgroupparent")), (Some("host"), Some("/parent")));
        assert_eq!(
            (of("rm"), of("forcerm"), of("labels")),
            (Some("1"), Some("1"), Some(r#"{"interceptor.run":"r1"}"#))
        );
    }

    #[test]
    fn what_no_build_of_a_runs_may_have_is_refused() {
        assert!(read("version=2").is_err_and(|refusal| refusal.text.contains("DOCKER_BUILDKIT=0")));
        for query in ["networkmode=container:x", "networkmode=none", "t=App", "labels=x", "buildargs=%5B1%5D"]
        {
            assert!(read(query).is_err(), "{query}");
        }
        for query in [
            "remote=http://x",
            "pull=1",
            "cachefrom=%5B%22x%22%5D",
            "session=x",
            "outputs=%5B%7B%7D%5D",
            "cgroupparent=/",
            "securityopt=x",
            "squash=1",
            "platform=linux/arm64",
        ] {
            assert!(super::super::routes::Route::Build.parameters(query).is_err(), "{query}");
        }
    }
}
