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

use super::{CgroupDriver, RUNTIME, refusal::Refusal, view};

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
        let told = self.told(Method::GET, "/info", Vec::new()).await;
        let (_, told) = told.map_err(|refusal| format!("the engine at {place} cannot be had: {refusal}"))?;
        let info: Info = serde_json::from_slice(&told)
            .map_err(|error| format!("the engine at {place} does not say what it is: {error}"))?;
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

    /// Removes every container of a run's, running or not.
    pub(super) async fn remove_all(&self, run: RunId) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut parameters = vec![pair("all", "1")];
        if view::only_own(&mut parameters, run).is_err() {
            return;
        }
        let listed = match self.told(Method::GET, "/containers/json", parameters).await {
            Ok((_, told)) => serde_json::from_slice::<Vec<Listed>>(&told).unwrap_or_default(),
            Err(refusal) => return tracing::error!("the run's containers cannot be listed: {refusal}"),
        };
        for Listed { id } in listed {
            let path = format!("/containers/{id}");
            match self.told(Method::DELETE, &path, vec![pair("force", "1"), pair("v", "1")]).await {
                // Somebody else was faster.
                Ok((StatusCode::NOT_FOUND | StatusCode::CONFLICT, _)) => {}
                Ok((status, _)) if status.is_success() => {}
                Ok((status, _)) => tracing::error!("container {id} is not removed: {status}"),
                Err(refusal) => tracing::error!("container {id} is not removed: {refusal}"),
            }
        }
    }

    async fn told(
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
