//! What the engine says while it fetches or builds: JSON, a line for each step, looked at as it goes by to the client.
//!
//! Promise: what is sent on is what came, as it came. Format: "ImageCreate" and "ImageBuild" of the Docker Engine API.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body_util::BodyExt;
use hyper::body::{Body as Streamed, Bytes, Frame};
use serde::Deserialize;

use super::upstream::{Answer, Body};

/// The longest line that is looked at; a longer one is passed over.
const LONGEST: usize = 64 << 10;
/// The longest error that is kept.
const LONGEST_ERROR: usize = 500;
/// How the line begins that says what a fetched image is.
const DIGEST: &str = "Digest: ";

/// What was said, as far as it is of interest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// The digest of what was fetched.
    pub(super) digest: Option<String>,
    /// The id of what was built.
    pub(super) built: Option<String>,
    /// Why it came to nothing.
    pub(super) error: Option<String>,
}

/// The part of a line that is read.
#[derive(Debug, Deserialize)]
struct Line {
    status: Option<String>,
    error: Option<String>,
    aux: Option<Aux>,
}

#[derive(Debug, Deserialize)]
struct Aux {
    #[serde(rename = "ID")]
    id: Option<String>,
}

/// An answer of which `over` hears what was said, before the client sees its end. Where it is broken off, `over` is dropped.
pub(super) fn watched(answer: Answer, over: impl FnOnce(Said) + Send + Sync + 'static) -> Answer {
    let (parts, inner) = answer.into_parts();
    let watched = Watched { inner, reader: Reader::default(), over: Some(Box::new(over)) };
    Answer::from_parts(parts, watched.boxed())
}

struct Watched {
    inner: Body,
    reader: Reader,
    over: Option<Box<dyn FnOnce(Said) + Send + Sync>>,
}

impl Streamed for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.reader.read(data);
                }
            }
            Some(Err(_)) => self.over = None,
            None => {
                let said = mem::take(&mut self.reader).end();
                if let Some(over) = self.over.take() {
                    over(said);
                }
            }
        }
        Poll::Ready(polled)
    }
}

/// Takes lines out of pieces.
#[derive(Debug, Default)]
struct Reader {
    line: Vec<u8>,
    said: Said,
}

impl Reader {
    fn read(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() <= LONGEST {
                self.line.extend_from_slice(piece);
            } else {
                // What is cut off is no JSON, so that nothing is read of it.
                self.line.clear();
                self.line.push(b' ');
            }
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let Ok(Line { status, error, aux }) = serde_json::from_slice(&line) else { return };
        let digest = status.as_deref().and_then(|status| status.strip_prefix(DIGEST)).and_then(id);
        let built = aux.and_then(|aux| aux.id).as_deref().and_then(id);
        let said = &mut self.said;
        said.digest = digest.or_else(|| said.digest.take());
        said.built = built.or_else(|| said.built.take());
        if let Some(error) = error {
            said.error = Some(error.chars().take(LONGEST_ERROR).collect());
        }
    }

    fn end(mut self) -> Said {
        self.end_line();
        self.said
    }
}

/// A digest, as the engine writes it.
fn id(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:")?;
    super::own::id(digits).map(|digits| format!("sha256:{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&str]) -> Said {
        let mut reader = Reader::default();
        pieces.iter().for_each(|piece| reader.read(piece.as_bytes()));
        reader.end()
    }

    #[test]
    fn what_is_of_interest_is_found_however_it_is_cut() {
        let id = format!("sha256:{}", "0a".repeat(32));
        let whole = format!(
            "{{\"status\":\"Pulling from x\",\"id\":\"1\"}}\r\n{{\"status\":\"Digest: {id}\"}}\r\n\
             {{\"stream\":\"Step 1\\n\"}}\r\n{{\"aux\":{{\"ID\":\"{id}\"}}}}\r\n{{\"error\":\"no\",\"errorDetail\":{{}}}}"
        );
        let expected = Said { digest: Some(id.clone()), built: Some(id), error: Some("no".into()) };
        for at in 0..whole.len() {
            let (left, right) = whole.split_at(at);
            assert_eq!(said(&[left, right]), expected, "cut at {at}");
        }
    }

    #[test]
    fn what_a_step_writes_is_no_answer_of_the_engines() {
        let id = format!("sha256:{}", "0a".repeat(32));
        let written = serde_json::json!({ "stream": format!("\n{{\"aux\":{{\"ID\":\"{id}\"}}}}\n") });
        assert_eq!(said(&[&format!("{written}\n")]), Said::default());
        let long = format!("{{\"status\":\"{}\"}}\n{{\"error\":\"no\"}}\n", "x".repeat(LONGEST));
        assert_eq!(said(&[&long]).error.as_deref(), Some("no"), "a long line takes none along");
        assert_eq!(said(&["{\"status\":\"Digest: sha256:short\"}\n"]), Said::default());
    }
}
