//! Commands and names in printable form.
//!
//! Promises: two commands that are shown alike are alike, but for passwords, which are never shown; a long argument is told
//! by its beginning, its length and its digest. Keys stand in double quotes and values in single ones, so that whatever
//! leaves out the values of a text leaves these out and no others.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How much of one argument is shown, in bytes.
const SHOWN: usize = 1024;
/// How long a text may be, in bytes, before what follows is told by its number and digest.
const LONGEST: usize = 16 * 1024;
/// What stands for a password.
const SECRET: &str = "***";

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A word of the list of commands.
    Word,
    /// The name of a key or channel.
    Name,
    /// Anything else.
    Value,
    /// A password.
    Secret,
}

/// Bytes in printable form: what is no letter, sign or blank, and what quotes or escapes, is `\n`, `\r`, `\t`, `\\`,
/// or `\x` and two digits for each byte.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                '"' | '\'' => hexadecimal(&mut out, letter.encode_utf8(&mut [0; 4]).as_bytes()),
                ' '..='~' => out.push(letter),
                _ if letter.is_alphanumeric() => out.push(letter),
                _ => hexadecimal(&mut out, letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        hexadecimal(&mut out, chunk.invalid());
    }
    out
}

fn hexadecimal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// A command with these arguments, of which the last may go on: then it has `last` bytes in all.
pub(super) fn command<'a>(parts: impl Iterator<Item = (Part, &'a [u8])>, last: Option<usize>) -> String {
    let mut out = String::new();
    let mut rest: Option<(usize, Sha256)> = None;
    let mut parts = parts.peekable();
    while let Some((part, bytes)) = parts.next() {
        let goes_on = last.filter(|_| parts.peek().is_none());
        if out.len() >= LONGEST {
            let (count, digest) = rest.get_or_insert_with(|| (0, Sha256::new()));
            *count = count.saturating_add(1);
            // With its length, so that no two lists of arguments are the same bytes.
            digest.update(bytes.len().to_be_bytes());
            if part != Part::Secret {
                digest.update(bytes);
            }
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        match part {
            Part::Word => out.push_str(&escaped(bytes).to_ascii_uppercase()),
            Part::Name => quoted(&mut out, '"', bytes, None),
            Part::Value => quoted(&mut out, '\'', bytes, goes_on),
            Part::Secret => out.push_str(SECRET),
        }
    }
    if let Some((count, digest)) = rest {
        let _ = write!(out, " [{count} more, sha256 {:x}]", digest.finalize());
    }
    out
}

/// Adds an argument; `goes_on` is its length where not all of it is here.
fn quoted(out: &mut String, quote: char, bytes: &[u8], goes_on: Option<usize>) {
    out.push(quote);
    out.push_str(&escaped(bytes.get(..SHOWN).unwrap_or(bytes)));
    out.push(quote);
    if let Some(length) = goes_on {
        let _ = write!(
            out,
            " [of {length} bytes, the first {} with sha256 {:x}]",
            bytes.len(),
            Sha256::digest(bytes)
        );
    } else if bytes.len() > SHOWN {
        let _ = write!(out, " [of {} bytes, sha256 {:x}]", bytes.len(), Sha256::digest(bytes));
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::sql;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_letter_is_escaped() {
        for (bytes, shown) in [
            (&b"users:1"[..], "users:1"),
            ("gr\u{fc}\u{df} \u{202e}".as_bytes(), "gr\u{fc}\u{df} \\xe2\\x80\\xae"),
            (b"a\"b'c\\d\n\xff\0", "a\\x22b\\x27c\\\\d\\n\\xff\\x00"),
        ] {
            assert_eq!(escaped(bytes), shown);
        }
    }

    #[test]
    fn long_arguments_are_told_by_their_digests() {
        let long = vec![b'x'; 2000];
        let text =
            command([(Part::Word, &b"set"[..]), (Part::Name, b"k"), (Part::Value, &long)].into_iter(), None);
        assert!(text.starts_with("SET \"k\" 'xxx") && text.contains("[of 2000 bytes, sha256 "), "{text}");
        let many = std::iter::repeat_n((Part::Value, &long[..1000]), 40);
        let text = command(many, None);
        assert!(text.len() < 2 * LONGEST && text.contains(" more, sha256 "), "{}", text.len());
        let open = command([(Part::Word, &b"set"[..]), (Part::Value, b"ab")].into_iter(), Some(9));
        assert!(open.starts_with("SET 'ab' [of 9 bytes, the first 2 with sha256 "), "{open}");
    }

    #[test]
    fn values_are_what_is_left_out_where_only_metadata_is_written() {
        let parts = [
            (Part::Word, &b"set"[..]),
            (Part::Name, b"a'b"),
            (Part::Value, b"it's \"x\" $$ -- y"),
            (Part::Secret, b"s"),
        ];
        let text = command(parts.into_iter(), None);
        assert_eq!(text, "SET \"a\\x27b\" 'it\\x27s \\x22x\\x22 $$ -- y' ***");
        assert_eq!(sql::without_literals(&text), "SET \"a\\x27b\" ? ***");
        assert_eq!(sql::redact(&text), text);
    }

    proptest! {
        #[test]
        fn escaping_loses_nothing(left: Vec<u8>, right: Vec<u8>) {
            prop_assert_eq!(left == right, escaped(&left) == escaped(&right));
        }
    }
}
