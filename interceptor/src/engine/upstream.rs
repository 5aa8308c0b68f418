//! The engine, as its broker talks to it: one connection for each call.

use std::{collections::BTreeMap, path::PathBuf};

use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use interceptor_core::model::RunId;
use serde::Deserialize;
use tokio::{io::copy_bidirectional, net::UnixStream};

use super::{CgroupDriver, RUNTIME, RUNTIME_OF_ALL, refusal::Refusal, view};

/// The longest answer that is read whole.
pub(super) const LONGEST: usize = 16 << 20;

/// Any body.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;
/// Any answer.
pub(super) type Answer = Response<Body>;

/// What is all there.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A call, as it is sent.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) parameters: Vec<(String, String)>,
    /// The type of the body.
    pub(super) kind: Option<HeaderValue>,
    pub(super) body: Body,
}

/// What becomes of the connection when the engine has answered.
pub(super) enum Streams {
    /// It is over with the answer.
    None,
    /// It is joined to the client's, if the engine wants to.
    Joined(OnUpgrade),
}

/// The part of `GET /info` that is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    cgroup_driver: String,
    #[serde(default)]
    default_runtime: String,
    #[serde(default)]
    runtimes: BTreeMap<String, serde_json::Value>,
}

/// An engine by its socket.
#[derive(Debug, Clone)]
pub(super) struct Engine(PathBuf);

impl Engine {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// How it makes cgroups, if it is fit to make a run's containers; else why not.
    pub(super) async fn driver(&self) -> Result<CgroupDriver, String> {
        let place = self.0.display();
        let info = self.info().await?;
        if !info.runtimes.contains_key(RUNTIME) {
            return Err(format!(
                "the engine at {place} does not know the runtime {RUNTIME:?}: add to `runtimes` in /etc/docker/daemon.json \
                 \"{RUNTIME}\": {{\"path\": \"/usr/bin/interceptor\", \"runtimeArgs\": [\"oci-runtime\", \"--\"]}} and reload it"
            ));
        }
        match info.cgroup_driver.as_str() {
            "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
            "systemd" => Ok(CgroupDriver::Systemd),
            other => Err(format!("the engine at {place} makes cgroups by {other:?}, which is not known")),
        }
    }

    /// Fails unless it makes the steps of a build by a runtime of ours, which is its default one: a build names none.
    pub(super) async fn builds_by_ours(&self) -> Result<(), String> {
        match self.info().await?.default_runtime.as_str() {
            RUNTIME | RUNTIME_OF_ALL => Ok(()),
            other => Err(format!(
                "the steps of a build are containers that the engine makes by its default runtime, which is {other:?}, uncaptured: \
                 have its operator add {RUNTIME_OF_ALL:?} to `runtimes` in /etc/docker/daemon.json, as docs/operations.md has it, and \
                 name it as `default-runtime`"
            )),
        }
    }

    async fn info(&self) -> Result<Info, String> {
        let place = self.0.display();
        let told = self.told(Method::GET, "/info", Vec::new()).await;
        let (_, told) = told.map_err(|refusal| format!("the engine at {place} cannot be had: {refusal}"))?;
        serde_json::from_slice(&told)
            .map_err(|error| format!("the engine at {place} does not say what it is: {error}"))
    }

    /// Removes every container of a run's, running or not, and every image that it has built.
    pub(super) async fn remove_all(&self, run: RunId) {
        for id in self.listed("/containers/json", run).await {
            self.remove(&format!("/containers/{id}"), &["force", "v"]).await;
        }
        // Those that others are made upon can go when the others are gone. What is the host's stays, whatever was made upon it.
        let mut left = usize::MAX;
        loop {
            let images = self.listed("/images/json", run).await;
            if images.is_empty() || images.len() >= left {
                return;
            }
            left = images.len();
            for id in images {
                self.remove(&format!("/images/{id}"), &["force", "noprune"]).await;
            }
        }
    }

    /// The ids of what bears a run's label.
    async fn listed(&self, path: &str, run: RunId) -> Vec<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let mut parameters = vec![("all".to_owned(), "1".to_owned())];
        if view::only_own(&mut parameters, run).is_err() {
            return Vec::new();
        }
        match self.told(Method::GET, path, parameters).await {
            Ok((_, told)) => {
                let listed = serde_json::from_slice::<Vec<Listed>>(&told).unwrap_or_default();
                listed.into_iter().map(|one| one.id).collect()
            }
            Err(refusal) => {
                tracing::error!("what is the run's at {path} cannot be listed: {refusal}");
                Vec::new()
            }
        }
    }

    async fn remove(&self, path: &str, how: &[&str]) {
        let parameters = how.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        match self.told(Method::DELETE, path, parameters).await {
            // Somebody else was faster, or something hangs on it that goes first.
            Ok((StatusCode::NOT_FOUND | StatusCode::CONFLICT, _)) => {}
            Ok((status, _)) if status.is_success() => {}
            Ok((status, _)) => tracing::error!("{path} is not removed: {status}"),
            Err(refusal) => tracing::error!("{path} is not removed: {refusal}"),
        }
    }

    /// What the engine answers to a call of the broker's own.
    pub(super) async fn told(
        &self,
        method: Method,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Result<(StatusCode, Bytes), Refusal> {
        let body = full(Bytes::new());
        let outgoing = Outgoing { method, path: path.to_owned(), parameters, kind: None, body };
        let answer = self.ask(outgoing, Streams::None).await?;
        Ok((answer.status(), whole(answer.into_body()).await?))
    }

    /// Makes a call.
    pub(super) async fn ask(&self, outgoing: Outgoing, streams: Streams) -> Result<Answer, Refusal> {
        let unable =
            |error: &dyn std::fmt::Display| Refusal::unable(format!("the engine cannot be had: {error}"));
        let socket = UnixStream::connect(&self.0).await.map_err(|error| unable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|error| unable(&error))?;
        // It ends with its sender, or with what it is joined to.
        tokio::spawn(connection.with_upgrades());
        let request = outgoing.request(&streams)?;
        let mut answer = sender.send_request(request).await.map_err(|error| unable(&error))?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Streams::Joined(client)) = (answer.status(), streams) {
            let engine = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                if let (Ok(client), Ok(engine)) = tokio::join!(client, engine) {
                    let (mut client, mut engine) = (TokioIo::new(client), TokioIo::new(engine));
                    // Either side may end it as it likes.
                    let _ = copy_bidirectional(&mut client, &mut engine).await;
                }
            });
        }
        Ok(shown(answer))
    }
}

impl Outgoing {
    fn request(self, streams: &Streams) -> Result<Request<Body>, Refusal> {
        let Self { method, path, parameters, kind, body } = self;
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "docker");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Streams::Joined(_) = streams {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        }
        request.body(body).map_err(|error| Refusal::malformed(error.to_string()))
    }
}

/// The engine's answer as the run gets it: what is about the connection is left to each side.
fn shown(answer: Response<hyper::body::Incoming>) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let is_joined = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::CONNECTION, header::UPGRADE] {
        parts.headers.remove(name);
    }
    if is_joined {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    }
    Response::from_parts(parts, body.boxed())
}

/// A body that is not too long to be read whole.
pub(super) async fn whole(body: Body) -> Result<Bytes, Refusal> {
    let read = Limited::new(body, LONGEST).collect().await;
    let read =
        read.map_err(|error| Refusal::unable(format!("the engine's answer cannot be read: {error}")))?;
    Ok(read.to_bytes())
}
