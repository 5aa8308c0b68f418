//! A client of our own that asks for approval of one statement ahead of anybody who sends it.
//!
//! Promise: its session says before anything else that it only asks, so that the gate lets nothing be carried out in
//! it. What the session answers is told as it came.

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::protocol::{AskStep, Asker, DecodeError};

use super::{
    circumstances::{ASK, HOLD},
    frame::{self, Fields, Writer, put_text},
};

/// The user that it claims to be; the gate logs in as somebody else anyway.
const USER: &str = "interceptor";
/// Protocol 3.0.
const VERSION: u32 = 196_608;

/// Asks one thing.
#[derive(Debug)]
pub(super) struct Inquiry {
    database: String,
    text: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    LoggingIn,
    Asked,
}

impl Inquiry {
    pub(super) fn new(database: &str, text: &str) -> Self {
        Self { database: database.to_owned(), text: text.to_owned(), state: State::Start }
    }

    fn start_up(&self) -> Bytes {
        let mut out = Writer::default();
        out.headless(|out| {
            out.put_u32(VERSION);
            for text in ["user", USER, "database", &self.database, HOLD, ASK] {
                put_text(out, text);
            }
            out.put_u8(0);
        });
        out.finish()
    }

    fn query(&self) -> Bytes {
        let mut out = Writer::default();
        out.message(b'Q', |out| put_text(out, &self.text));
        out.finish()
    }
}

impl Asker for Inquiry {
    fn step(&mut self, input: &mut BytesMut) -> Result<AskStep, DecodeError> {
        if self.state == State::Start {
            self.state = State::LoggingIn;
            return Ok(AskStep::Send(self.start_up()));
        }
        loop {
            let Some((tag, body)) = frame::answer(input)? else { return Ok(AskStep::Wait) };
            match (tag, self.state) {
                (b'E', _) => return Ok(AskStep::Told(error(body))),
                (b'Z', State::LoggingIn) => {
                    self.state = State::Asked;
                    return Ok(AskStep::Send(self.query()));
                }
                (b'Z', _) => {
                    return Err(DecodeError::upstream(
                        "the session carried out what it was only asked about",
                    ));
                }
                _ => {}
            }
        }
    }
}

/// An error's message and hint.
fn error(body: Bytes) -> String {
    let mut fields = Fields::new(body);
    let (mut message, mut hint) = (String::new(), String::new());
    while let Ok(kind @ 1..) = fields.u8() {
        let Ok(text) = fields.text() else { break };
        let text = String::from_utf8_lossy(&text);
        match kind {
            b'M' => message = text.into_owned(),
            b'H' => hint = text.into_owned(),
            _ => {}
        }
    }
    if hint.is_empty() { message } else { format!("{message}\n{hint}") }
}

#[cfg(test)]
mod tests {
    use interceptor_core::permit::Denial;

    use super::{super::refuse, *};

    #[test]
    fn it_says_that_it_only_asks_before_anything_else() {
        let mut inquiry = Inquiry::new("orders", "DELETE FROM t");
        let mut input = BytesMut::new();
        let Ok(AskStep::Send(first)) = inquiry.step(&mut input) else { panic!("no start-up") };
        assert!(first.ends_with(b"database\0orders\0interceptor.hold\0ask\0\0"), "{first:?}");
        assert!(matches!(inquiry.step(&mut input), Ok(AskStep::Wait)));
        input.extend_from_slice(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
        let Ok(AskStep::Send(query)) = inquiry.step(&mut input) else { panic!("no query") };
        assert!(query.ends_with(b"DELETE FROM t\0"));
        let denial = Denial {
            record: None,
            rule: "r".to_owned(),
            message: "asked: this needs approval".to_owned(),
            hint: "Send it.".to_owned(),
        };
        input.extend_from_slice(&refuse::refusal(&denial));
        let Ok(AskStep::Told(told)) = inquiry.step(&mut input) else { panic!("no answer") };
        assert_eq!(told, "asked: this needs approval\nSend it.");
    }

    #[test]
    fn what_is_carried_out_is_an_error() {
        let mut inquiry = Inquiry::new("orders", "SELECT 1");
        let mut input = BytesMut::new();
        let _ = inquiry.step(&mut input);
        input.extend_from_slice(b"Z\0\0\0\x05I");
        let _ = inquiry.step(&mut input);
        input.extend_from_slice(b"Z\0\0\0\x05I");
        assert!(inquiry.step(&mut input).is_err());
    }
}
