//! Where a command of the client's begins and ends: an array of bulk strings (redis.io, "RESP protocol description").
//!
//! Promises: lengths are read in the one form that clients write, so that no server reads them otherwise; a command that is
//! held is bounded; what has been looked at is not looked at again when more has come.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::protocol::DecodeError;

/// The longest command that is held whole, in bytes.
pub(super) const WHOLE: usize = 4 << 20;
/// How much of a long last value is held with the command, in bytes.
pub(super) const HEAD: usize = 64 * 1024;
/// The longest value, in bytes: the server's own limit.
const LONGEST: usize = 512 << 20;
/// The most arguments.
const MOST: usize = 65_536;
/// The longest line that says a number: the sign, ten digits, the end.
const LINE: usize = 13;

/// A command, or as much of one as is held.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// Its bytes, or its first ones.
    pub(super) bytes: Bytes,
    arguments: Vec<Range<usize>>,
    /// The length of its last argument, and how many bytes follow `bytes`, where not all of it is held.
    pub(super) more: Option<More>,
}

/// What follows a command that is not held whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct More {
    /// The length of its last argument.
    pub(super) length: usize,
    /// How many bytes are still to come, the end of the line included.
    pub(super) rest: usize,
}

impl Command {
    /// Its arguments, the first of which is its name.
    pub(super) fn arguments(&self) -> Vec<&[u8]> {
        self.arguments.iter().map(|range| self.bytes.get(range.clone()).unwrap_or_default()).collect()
    }
}

/// How far the command at the beginning of the input was read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// How many arguments it has, once that is known.
    count: Option<usize>,
    arguments: Vec<Range<usize>>,
    at: usize,
}

/// A number between a mark and the end of the line, and where the line ends; none where more is needed.
fn line(input: &[u8], mark: u8, what: &str) -> Result<Option<(usize, usize)>, DecodeError> {
    let wrong = || DecodeError::client(format!("{what} is not in the form that is read"));
    match input.first() {
        None => return Ok(None),
        Some(first) if *first != mark => return Err(wrong()),
        Some(_) => {}
    }
    let window = input.get(..LINE.min(input.len())).unwrap_or(input);
    let Some(end) = window.iter().skip(1).position(|byte| !byte.is_ascii_digit()) else {
        return if input.len() < LINE { Ok(None) } else { Err(wrong()) };
    };
    let end = end.saturating_add(1);
    if input.get(end) != Some(&b'\r') {
        return Err(wrong());
    }
    let digits = input.get(1..end).unwrap_or_default();
    let plain = !digits.is_empty() && (digits.len() == 1 || digits.first() != Some(&b'0'));
    let number = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
    match (number, input.get(end.saturating_add(1))) {
        (None, _) => Err(wrong()),
        (Some(_), None) => Ok(None),
        (Some(number), Some(b'\n')) => Ok(Some((number, end.saturating_add(2)))),
        (Some(_), Some(_)) => Err(wrong()),
    }
}

impl Scan {
    /// Takes the command at the beginning of `input`, once it is there. `ends_in_a_value` says, of the arguments before the
    /// last and the number of all, whether the last decides nothing.
    pub(super) fn take(
        &mut self,
        input: &mut BytesMut,
        ends_in_a_value: impl Fn(&[&[u8]], usize) -> bool,
    ) -> Result<Option<Command>, DecodeError> {
        let Some(count) = self.count(input)? else { return Ok(None) };
        while self.arguments.len() < count {
            let rest = input.get(self.at..).unwrap_or_default();
            let Some((length, header)) = line(rest, b'$', "the length of an argument")? else {
                return Ok(None);
            };
            let begins = self.at.saturating_add(header);
            let ends = begins.saturating_add(length);
            let behind = ends.saturating_add(2);
            if length > LONGEST {
                return Err(DecodeError::client("an argument is longer than 512 MB"));
            }
            if behind > WHOLE && length > HEAD {
                let is_last = self.arguments.len().saturating_add(1) == count;
                let before: Vec<&[u8]> =
                    self.arguments.iter().map(|range| input.get(range.clone()).unwrap_or_default()).collect();
                if !is_last || !ends_in_a_value(&before, count) {
                    return Err(DecodeError::client(
                        "a command is longer than 4 MiB, and its last argument is not one long value: send several \
                         shorter ones, or the value as the last argument of SET, APPEND, RPUSH or HSET",
                    ));
                }
                return Ok(self.head(input, begins, length));
            }
            if behind > WHOLE.saturating_add(HEAD) {
                return Err(DecodeError::client("a command is longer than 4 MiB: send several shorter ones"));
            }
            match input.get(ends..behind) {
                None => return Ok(None),
                Some(b"\r\n") => {}
                Some(_) => return Err(DecodeError::client("an argument does not end where its length says")),
            }
            self.arguments.push(begins..ends);
            self.at = behind;
        }
        let scan = std::mem::take(self);
        let bytes = input.split_to(scan.at.min(input.len())).freeze();
        Ok(Some(Command { bytes, arguments: scan.arguments, more: None }))
    }

    fn count(&mut self, input: &[u8]) -> Result<Option<usize>, DecodeError> {
        if let Some(count) = self.count {
            return Ok(Some(count));
        }
        if input.first().is_some_and(|first| *first != b'*') {
            return Err(DecodeError::client(
                "commands in lines are not read: send each as an array of bulk strings, as every client library does",
            ));
        }
        let Some((count, at)) = line(input, b'*', "the number of arguments")? else { return Ok(None) };
        if count == 0 || count > MOST {
            return Err(DecodeError::client(format!(
                "a command has {count} arguments: from 1 to {MOST} are taken"
            )));
        }
        (self.count, self.at) = (Some(count), at);
        Ok(Some(count))
    }

    /// The command up to some way into its last argument, once so much is there.
    fn head(&mut self, input: &mut BytesMut, begins: usize, length: usize) -> Option<Command> {
        let ends = begins.saturating_add(HEAD);
        if input.len() < ends {
            return None;
        }
        let mut scan = std::mem::take(self);
        scan.arguments.push(begins..ends);
        let rest = length.saturating_sub(HEAD).saturating_add(2);
        let bytes = input.split_to(ends).freeze();
        Some(Command { bytes, arguments: scan.arguments, more: Some(More { length, rest }) })
    }
}

/// The bytes of a command.
pub(super) fn written(arguments: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.put_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(input: &[u8]) -> Result<Option<Command>, DecodeError> {
        Scan::default()
            .take(&mut BytesMut::from(input), |before, count| count == 3 && before == [&b"SET"[..], b"k"])
    }

    #[test]
    fn commands_are_taken_whole() {
        let bytes = written(&[b"SET", b"", b"a\r\nb"]);
        assert_eq!(&*bytes, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
        let command = take(&bytes).expect("well formed").expect("whole");
        assert_eq!(command.arguments(), [&b"SET"[..], b"", b"a\r\nb"]);
        for end in 0..bytes.len() {
            assert!(take(&bytes[..end]).expect("well formed").is_none(), "{end}");
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for wrong in [
            &b"PING\r\n"[..],
            b"*0\r\n",
            b"*-1\r\n",
            b"*+1\r\n",
            b"*01\r\n",
            b"*1\n",
            b"*1\r ",
            b"*\r\n",
            b"*99999\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$04\r\nPING\r\n",
            b"*1\r\n$4\r\nPINGxx",
            b"*1\r\n$999999999999\r\n",
            b"*11111111111111111111",
            b"\r\n",
        ] {
            assert!(take(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_long_last_value_need_not_be_there() {
        let value = vec![b'x'; HEAD];
        let head = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n"[..], &value].concat();
        assert!(take(&head[..head.len() - 1]).expect("well formed").is_none());
        let command = take(&head).expect("well formed").expect("its head");
        assert_eq!(command.more, Some(More { length: 64 << 20, rest: (64 << 20) - HEAD + 2 }));
        assert_eq!(command.bytes, head);
        for other in
            [&b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n"[..], b"*2\r\n$3\r\nGET\r\n$67108864\r\n"]
        {
            assert!(take(other).is_err());
        }
    }
}
