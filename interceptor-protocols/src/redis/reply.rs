//! How an answer is made of parts, RESP2 and RESP3 (redis.io, "RESP protocol description", "RESP3 specification").
//!
//! Promises: an answer's end is where the server means it, however the bytes come; lines, depth and numbers are bounded;
//! nothing of a long string is waited for.

use interceptor_core::protocol::DecodeError;

/// The longest line, in bytes.
const LINE: usize = 64 * 1024;
/// The longest string, in bytes: the server's own limit.
const LONGEST: u64 = 512 << 20;
/// How many arrays may stand in each other.
const DEPTH: usize = 1024;

/// One part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A line that is a value of its own, such as `+OK`, of so many bytes with its mark and end.
    Line { mark: u8, total: usize },
    /// A null string or array.
    Null { total: usize },
    /// The line before a string of so many bytes, which is followed by an end of line.
    String { mark: u8, header: usize, length: usize },
    /// The line before so many values.
    Values { mark: u8, total: usize, count: u64 },
}

/// Where in the answer under way the next value stands: how many are still to come, by depth.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    open: Vec<u64>,
}

impl Nesting {
    /// Whether no answer is under way.
    pub(super) fn is_between(&self) -> bool {
        self.open.is_empty()
    }

    /// How many arrays the next value stands in.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// How many values the outermost array still lacks.
    pub(super) fn left(&self) -> u64 {
        self.open.first().copied().unwrap_or(0)
    }

    /// Values begin.
    pub(super) fn begin(&mut self, count: u64) -> Result<(), DecodeError> {
        if self.open.len() >= DEPTH {
            return Err(DecodeError::upstream("its answer is nested deeper than is read"));
        }
        self.open.push(count);
        self.close();
        Ok(())
    }

    /// A value has ended that is no array.
    pub(super) fn ended(&mut self) {
        if let Some(last) = self.open.last_mut() {
            *last = last.saturating_sub(1);
        }
        self.close();
    }

    /// Ends what has all its values, and what that was the last value of.
    fn close(&mut self) {
        while self.open.last() == Some(&0) {
            self.open.pop();
            if let Some(last) = self.open.last_mut() {
                *last = last.saturating_sub(1);
            }
        }
    }
}

/// The part at the beginning of `input`; none where more is needed.
pub(super) fn part(input: &[u8]) -> Result<Option<Part>, DecodeError> {
    let Some(mark) = input.first().copied() else { return Ok(None) };
    if !b"+-:_#,($=!*%~>".contains(&mark) {
        return Err(DecodeError::upstream(format!(
            "a value in its answer begins with {:?}",
            char::from(mark)
        )));
    }
    let window = input.get(..LINE.min(input.len())).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if input.len() < LINE {
            Ok(None)
        } else {
            Err(DecodeError::upstream("a line of its answer is longer than 64 kB"))
        };
    };
    let total = end.saturating_add(1);
    let text = input.get(1..end).and_then(|line| line.strip_suffix(b"\r"));
    let text = text.ok_or_else(|| DecodeError::upstream("a line of its answer does not end as it should"))?;
    if b"+-:_#,(".contains(&mark) {
        return Ok(Some(Part::Line { mark, total }));
    }
    if text == b"-1" && b"$*".contains(&mark) {
        return Ok(Some(Part::Null { total }));
    }
    let plain = !text.is_empty() && text.len() <= 10 && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| plain).and_then(|text| text.parse::<u64>().ok());
    let number = number.ok_or_else(|| DecodeError::upstream("a length in its answer is no number"))?;
    if b"$=!".contains(&mark) {
        let length = usize::try_from(number).ok().filter(|_| number <= LONGEST);
        let length =
            length.ok_or_else(|| DecodeError::upstream("a string in its answer is longer than 512 MB"))?;
        return Ok(Some(Part::String { mark, header: total, length }));
    }
    let count = if mark == b'%' { number.saturating_mul(2) } else { number };
    Ok(Some(Part::Values { mark, total, count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes the first answer in `input` takes.
    fn first(input: &[u8]) -> Option<usize> {
        let mut nesting = Nesting::default();
        let mut at = 0;
        loop {
            match part(input.get(at..)?).expect("well formed")? {
                Part::Line { total, .. } | Part::Null { total } => {
                    at += total;
                    nesting.ended();
                }
                Part::String { header, length, .. } => {
                    at += header + length + 2;
                    nesting.ended();
                }
                Part::Values { total, count, .. } => {
                    at += total;
                    nesting.begin(count).expect("not deep");
                }
            }
            if nesting.is_between() {
                return (at <= input.len()).then_some(at);
            }
        }
    }

    #[test]
    fn answers_end_where_they_should() {
        for answer in [
            "+OK\r\n",
            "-ERR x\r\n",
            ":5\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(99\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "$0\r\n\r\n",
            "$3\r\na\r\n\r\n",
            "*0\r\n",
            "*2\r\n*0\r\n*1\r\n:1\r\n",
            "%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n",
            "~1\r\n:1\r\n",
            ">2\r\n+a\r\n:1\r\n",
            "=7\r\ntxt:abc\r\n",
            "!3\r\nERR\r\n",
        ] {
            let more = format!("{answer}+next\r\n");
            assert_eq!(first(more.as_bytes()), Some(answer.len()), "{answer:?}");
            for end in 0..answer.len() {
                assert_eq!(first(&answer.as_bytes()[..end]), None, "{answer:?}");
            }
        }
    }

    #[test]
    fn what_no_server_says_is_an_error() {
        for wrong in
            [&b"x"[..], b"$x\r\n", b"$-2\r\n", b"*?\r\n", b"+a\n", b"|1\r\n", b"$99999999999\r\n", b"$\r\n"]
        {
            assert!(part(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        let mut nesting = Nesting::default();
        assert!((0..DEPTH).all(|_| nesting.begin(1).is_ok()) && nesting.begin(1).is_err());
    }
}
