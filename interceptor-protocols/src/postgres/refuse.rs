//! Words of our own in PostgreSQL's form: errors to the client, and the messages that make the server fail itself.
//!
//! Promise: what comes from outside (rule names, messages) never breaks the framing, and what a refused message is
//! replaced by can never be carried out.

use bytes::{BufMut, Bytes};
use interceptor_core::permit::{Denial, Notice};

use super::frame::{Writer, put_text};

/// `insufficient_privilege`.
pub(super) const REFUSED: &str = "42501";
/// `admin_shutdown`: what drivers know as "the connection is over, not by your fault".
const SHUTDOWN: &str = "57P01";

fn error(out: &mut Writer, severity: &str, code: &str, denial: &Denial) {
    let detail = match denial.record {
        Some(record) => format!("Rule {}, record {record}.", denial.rule),
        None => format!("Rule {}.", denial.rule),
    };
    let fields = [
        (b'S', severity),
        (b'V', severity),
        (b'C', code),
        (b'M', &denial.message),
        (b'D', &detail),
        (b'H', &denial.hint),
    ];
    out.message(b'E', |out| {
        for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            out.put_u8(field);
            put_text(out, text);
        }
        out.put_u8(0);
    });
}

/// A NoticeResponse, which no client takes for the answer.
pub(super) fn notice(notice: &Notice) -> Bytes {
    let fields =
        [(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', &notice.message), (b'H', &notice.hint)];
    let mut out = Writer::default();
    out.message(b'N', |out| {
        for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            out.put_u8(field);
            put_text(out, text);
        }
        out.put_u8(0);
    });
    out.finish()
}

/// The error that tells the client of a refusal.
pub(super) fn refusal(denial: &Denial) -> Bytes {
    let mut out = Writer::default();
    error(&mut out, "ERROR", REFUSED, denial);
    out.finish()
}

/// An error for a simple query that never went upstream, with the session's own status.
pub(super) fn and_ready(error: &Bytes, status: u8) -> Bytes {
    let mut out = Writer::default();
    out.whole(error);
    out.message(b'Z', |out| out.put_u8(status));
    out.finish()
}

/// The server's own error, of which this is the body.
pub(super) fn again(body: &Bytes) -> Bytes {
    let mut out = Writer::default();
    out.message(b'E', |out| out.put_slice(body));
    out.finish()
}

/// The refusal of a whole session before it began.
pub(super) fn no_session(denial: &Denial) -> Bytes {
    let mut out = Writer::default();
    error(&mut out, "FATAL", REFUSED, denial);
    out.finish()
}

/// The last word of a session that we end.
pub(super) fn farewell(denial: &Denial) -> Bytes {
    let mut out = Writer::default();
    error(&mut out, "FATAL", SHUTDOWN, denial);
    out.finish()
}

/// An error in the look-up's name, for a pipeline that the failing look-up broke.
pub(super) fn lookup_failed(message: &str) -> Bytes {
    refusal(&Denial {
        record: None,
        rule: "unknown".to_owned(),
        message: format!("interceptor could not look the statement's names up: {message}"),
        hint: "End the pipeline and send the statement again on its own.".to_owned(),
    })
}

/// What stands for a statement that was cancelled before it was sent: no PostgreSQL can parse it.
pub(super) const CANCELLED: &str = "interceptor: cancelled while its names were looked up";

/// A text that no PostgreSQL can parse, naming the record in the server's log.
pub(super) fn text(denial: &Denial) -> String {
    match denial.record {
        Some(record) => format!("interceptor: refused, record {record}"),
        None => "interceptor: refused".to_owned(),
    }
}

/// Instead of a Query or FunctionCall.
pub(super) fn failing_query(text: &str) -> Bytes {
    let mut out = Writer::default();
    out.message(b'Q', |out| put_text(out, text));
    out.finish()
}

/// Instead of data, for a COPY that begins behind an answer that was cut.
pub(super) fn copy_fail() -> Bytes {
    let mut out = Writer::default();
    out.message(b'f', |out| put_text(out, "interceptor: an earlier answer was cut"));
    out.finish()
}

/// What makes a transaction fail whose error the client has been told already.
pub(super) fn failing_transaction() -> Bytes {
    failing_query("interceptor: the transaction has failed, its answer was cut")
}

/// Instead of a Parse of `name`, or, under a name of our own, of a Bind or Execute.
pub(super) fn failing_parse(name: &str, text: &str) -> Bytes {
    let mut out = Writer::default();
    out.message(b'P', |out| {
        put_text(out, name);
        put_text(out, text);
        out.put_i16(0);
    });
    out.finish()
}
