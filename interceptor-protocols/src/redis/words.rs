//! Words of our own in Redis' form, and what is sent in the place of what may not be.
//!
//! Promise: what comes from outside never breaks the framing, and what stands for a refused command can never be carried out.

use bytes::Bytes;
use interceptor_core::permit::Denial;

use super::command::written;

/// The code of a refusal: what Redis itself says where a user may not do something.
pub(super) const REFUSED: &str = "NOPERM";
/// What a log-in that is not sent is answered.
pub(super) const OK: &[u8] = b"+OK\r\n";
/// The name of a command that no server has.
const NOBODYS: &[u8] = b"INTERCEPTOR.REFUSED";

/// The error that tells the client of a refusal.
pub(super) fn refusal(denial: &Denial) -> Bytes {
    let place = match denial.record {
        Some(record) => format!(" (rule {}, record {record})", denial.rule),
        None => format!(" (rule {})", denial.rule),
    };
    let hint = if denial.hint.is_empty() { String::new() } else { format!(" {}", denial.hint) };
    let text = format!("-{REFUSED} interceptor: {}{place}.{hint}", denial.message.trim_end_matches('.'));
    // An error is one line.
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    Bytes::from(format!("{line}\r\n"))
}

/// Instead of a command that is refused within a transaction, so that the server itself makes it fail; or of one that is
/// never sent, with the reason, which the server repeats in its error.
pub(super) fn failing(why: &str) -> Bytes {
    written(&[NOBODYS, why.as_bytes()])
}

/// Instead of an EXEC or DISCARD that is refused: nothing of the transaction is carried out.
pub(super) fn discard() -> Bytes {
    written(&[b"DISCARD"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let denial = Denial {
            record: Some(interceptor_core::model::RecordId(7)),
            rule: "a\r\nb".into(),
            message: "no\n+OK.".into(),
            hint: "Ask.".into(),
        };
        let shown = refusal(&denial);
        let text = String::from_utf8_lossy(&shown);
        assert!(text.starts_with("-NOPERM interceptor: no +OK (rule a  b, record "), "{text}");
        assert!(text.ends_with("). Ask.\r\n") && text.matches('\n').count() == 1, "{text}");
    }
}
