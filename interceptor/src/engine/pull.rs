//! Images that a run has its engine fetch: read as one whole name, judged by that, and asked of the engine by the same.
//!
//! Promises: policy's yes comes first, for just the image that the engine is then asked for; no log-in of the run's goes
//! along, since what a run is let fetch is what anybody may. Parameters: "ImageCreate" of the Docker Engine API.

use std::{mem, sync::Arc};

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hyper::{
    HeaderMap, Method, StatusCode,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use interceptor_core::model::Image;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{
    Asking, Came,
    broker::Broker,
    progress::{self, Said},
    refusal::Refusal,
    upstream::{Answer, Outgoing, Streams, full, whole},
};

/// Where clients put what they would log in with.
const LOG_IN: HeaderName = HeaderName::from_static("x-registry-auth");
/// As clients write it, with or without what fills it up.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The longest name of a kind of machine.
const LONGEST_PLATFORM: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) image: Image,
    /// For which kind of machine; empty for the engine's own.
    pub(super) platform: String,
}

impl Pull {
    pub(super) fn read(parameters: &[(String, String)], headers: &HeaderMap) -> Result<Self, Refusal> {
        let (mut name, mut reference, mut platform) = ("", None, "");
        for (parameter, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
            let is_new = match parameter.as_str() {
                "fromImage" => mem::replace(&mut name, value.as_str()).is_empty(),
                "tag" => reference.replace(value.as_str()).is_none(),
                "platform" => mem::replace(&mut platform, value.as_str()).is_empty(),
                other => return Err(Refusal::parameter(other)),
            };
            if !is_new {
                return Err(Refusal::forbidden(format!("the parameter {parameter:?} stands there twice")));
            }
        }
        if name.is_empty() {
            return Err(Refusal::forbidden(
                "an image is made of something that is no registry's: pull one by its name, or build it",
            ));
        }
        let image = Image::named(name, reference).map_err(|error| Refusal::malformed(error.to_string()))?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
        if platform.len() > LONGEST_PLATFORM || !platform.chars().all(is_plain) {
            return Err(Refusal::malformed("the parameter `platform` cannot be read"));
        }
        headers.get_all(LOG_IN).into_iter().try_for_each(has_no_log_in)?;
        Ok(Self { image, platform: platform.to_owned() })
    }

    /// The same, as the engine is asked for it.
    fn parameters(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let platform = Some(&self.platform).filter(|platform| !platform.is_empty());
        [pair("fromImage", &self.image.place()), pair("tag", &self.image.reference)]
            .into_iter()
            .chain(platform.map(|platform| pair("platform", platform)))
            .collect()
    }
}

/// Clients send an empty log-in where they have none.
fn has_no_log_in(value: &HeaderValue) -> Result<(), Refusal> {
    let read = || -> Option<Map<String, Value>> {
        let text = BASE64.decode(value.as_bytes()).ok()?;
        if text.is_empty() {
            return Some(Map::new());
        }
        serde_json::from_slice::<Option<Map<String, Value>>>(&text).ok().map(Option::unwrap_or_default)
    };
    let fields = read().ok_or_else(|| Refusal::malformed("the log-in for the registry cannot be read"))?;
    let says = |(field, value): (&String, &Value)| {
        field != "serveraddress" && !matches!(value, Value::Null) && value.as_str() != Some("")
    };
    match fields.iter().any(says) {
        false => Ok(()),
        true => Err(Refusal::forbidden(
            "a run pulls without a log-in, since credentials are not for agents to have: log out of the registry \
             (`docker logout`) in the run, or have the image pulled before it begins",
        )),
    }
}

/// What came of it, for the record.
fn came(said: Said) -> Came {
    match (said.error, said.digest) {
        (Some(text), _) => Came::Failed { text },
        (None, Some(text)) => Came::Done { text },
        (None, None) => {
            Came::Failed { text: "the engine says neither what it is nor what went wrong".to_owned() }
        }
    }
}

/// The engine's errors.
#[derive(Deserialize)]
struct Failure {
    message: String,
}

impl Broker {
    /// Fetches an image, if policy permits it.
    pub(super) async fn pull(self: &Arc<Self>, version: &str, pull: Pull) -> Result<Answer, Refusal> {
        let asking = Asking::Pull { image: pull.image.clone(), platform: pull.platform.clone() };
        let ended = self.asked(asking).await?;
        let outgoing = Outgoing {
            method: Method::POST,
            path: format!("{version}/images/create"),
            parameters: pull.parameters(),
            kind: None,
            body: full(Bytes::new()),
        };
        match self.engine.ask(outgoing, Streams::None).await {
            Ok(answer) if answer.status().is_success() => Ok(progress::watched(answer, move |said| {
                // Whoever wants to know it no more does not.
                let _ = ended.send(came(said));
            })),
            Ok(answer) => failed(answer, ended).await,
            Err(refusal) => {
                let _ = ended.send(Came::Failed { text: refusal.text.clone() });
                Err(refusal)
            }
        }
    }
}

async fn failed(answer: Answer, ended: oneshot::Sender<Came>) -> Result<Answer, Refusal> {
    let (parts, body) = answer.into_parts();
    let body = whole(body).await?;
    let said = serde_json::from_slice::<Failure>(&body).map(|failure| failure.message);
    let text = said.unwrap_or_else(|_| status(parts.status));
    let _ = ended.send(Came::Failed { text: text.chars().take(500).collect() });
    Ok(Answer::from_parts(parts, full(body)))
}

fn status(status: StatusCode) -> String {
    format!("the engine answered {status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, log_in: Option<&str>) -> Result<Pull, Refusal> {
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut headers = HeaderMap::new();
        if let Some(text) = log_in {
            headers.insert(LOG_IN, HeaderValue::from_str(text).expect("a header"));
        }
        Pull::read(&parameters, &headers)
    }

    #[test]
    fn what_is_judged_is_what_the_engine_is_asked_for() {
        for query in
            ["fromImage=debian&tag=12", "fromImage=debian%3A12", "fromImage=docker.io/library/debian&tag=12"]
        {
            let pull = read(query, None).expect("an image");
            assert_eq!(pull.image.to_string(), "docker.io/library/debian:12");
            let asked: Vec<_> = pull.parameters().into_iter().map(|(_, value)| value).collect();
            assert_eq!(asked, ["docker.io/library/debian", "12"]);
        }
        let pull = read("fromImage=debian&tag=12&platform=linux/arm64/v8", None).expect("an image");
        assert_eq!(pull.parameters().len(), 3);
    }

    #[test]
    fn what_is_not_one_image_is_refused() {
        for query in [
            "",
            "tag=12",
            "fromImage=debian",
            "fromImage=debian&fromImage=other&tag=12",
            "fromImage=debian&tag=12&tag=13",
            "fromImage=debian:12&tag=13",
            "fromImage=debian&tag=12&platform=a%20b",
            "fromImage=debian&tag=12&fromSrc=http://x",
        ] {
            assert!(read(query, None).is_err(), "{query}");
        }
    }

    #[test]
    fn a_log_in_goes_nowhere() {
        let query = "fromImage=debian&tag=12";
        let encoded = |text: &str| BASE64.encode(text);
        for none in [
            "".to_owned(),
            encoded("{}"),
            encoded("null"),
            encoded(r#"{"serveraddress":"https://x","username":""}"#),
        ] {
            assert!(read(query, Some(&none)).is_ok(), "{none:?}");
        }
        for log_in in [
            encoded(r#"{"username":"a","password":"b"}"#),
            encoded(r#"{"identitytoken":"a"}"#),
            encoded(r#"{"registrytoken":"a"}"#),
            encoded(r#"{"unheard":1}"#),
            encoded("[]"),
            "%".to_owned(),
        ] {
            assert!(read(query, Some(&log_in)).is_err(), "{log_in:?}");
        }
    }

    #[test]
    fn what_came_of_it_is_told() {
        let digest = Some("sha256:0".to_owned());
        let done = came(Said { digest: digest.clone(), ..Said::default() });
        assert_eq!(done, Came::Done { text: "sha256:0".into() });
        let failed = came(Said { digest, error: Some("no".into()), ..Said::default() });
        assert_eq!(failed, Came::Failed { text: "no".into() });
        assert!(matches!(came(Said::default()), Came::Failed { .. }));
    }
}
