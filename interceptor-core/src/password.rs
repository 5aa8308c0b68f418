//! Passwords in words that were never meant to be told: arguments and settings in which a connection is described.
//!
//! Promise: what is taken for a password is replaced whole. It must never know whose it is.

/// An argument as it may be told and recorded: without a password that stands in it.
///
/// ```
/// use interceptor_core::password::hidden;
/// assert_eq!(hidden("postgres://me:pw@db/x"), "postgres://me:***@db/x");
/// assert_eq!(hidden("host=db password=pw user=me"), "host=db password=*** user=me");
/// assert_eq!(hidden("--verbose"), "--verbose");
/// ```
pub fn hidden(argument: &str) -> String {
    let safe = replaced(argument.as_bytes(), b"***");
    safe.map_or_else(|| argument.to_owned(), |safe| String::from_utf8_lossy(&safe).into_owned())
}

/// `text` with `stand_in` for the password in it; `None` where there is none.
pub fn replaced(text: &[u8], stand_in: &[u8]) -> Option<Vec<u8>> {
    url_without_password(text, stand_in).or_else(|| settings_without_password(text, stand_in))
}

/// `scheme://user:password@host` with another password.
fn url_without_password(text: &[u8], stand_in: &[u8]) -> Option<Vec<u8>> {
    let after_scheme = find(text, b"://")? + 3;
    let rest = text.get(after_scheme..)?;
    let authority = rest.split(|b| matches!(b, b'/' | b'?' | b'#')).next()?;
    // The last `@` ends the user information: a password may contain one.
    let at = authority.iter().rposition(|b| *b == b'@')?;
    let colon = authority.get(..at)?.iter().position(|b| *b == b':')?;
    let mut safe = text.get(..after_scheme + colon + 1)?.to_vec();
    safe.extend(stand_in);
    let tail = text.get(after_scheme + at..)?;
    safe.extend(settings_without_password(tail, stand_in).unwrap_or_else(|| tail.to_vec()));
    Some(safe)
}

/// `... password=secret ...`, as libpq's settings and many connection strings have it, with another password.
fn settings_without_password(text: &[u8], stand_in: &[u8]) -> Option<Vec<u8>> {
    let lower = text.to_ascii_lowercase();
    let begin = [&b"password"[..], b"pwd"].iter().find_map(|word| {
        let after = find(&lower, word)? + word.len();
        let spaces = lower.get(after..)?.iter().take_while(|b| **b == b' ').count();
        (lower.get(after + spaces) == Some(&b'=')).then_some(after + spaces + 1)
    })?;
    let begin = begin + text.get(begin..)?.iter().take_while(|b| **b == b' ').count();
    let length = setting_length(text.get(begin..)?);
    let mut safe = text.get(..begin)?.to_vec();
    safe.extend(stand_in);
    let tail = text.get(begin + length..)?;
    safe.extend(settings_without_password(tail, stand_in).unwrap_or_else(|| tail.to_vec()));
    (length > 0).then_some(safe)
}

/// How long a value is: to the closing quote, or to the next separator.
fn setting_length(value: &[u8]) -> usize {
    let quote = match value.first() {
        Some(quote @ (b'\'' | b'"')) => *quote,
        _ => return value.iter().position(|b| matches!(b, b' ' | b'&' | b';')).unwrap_or(value.len()),
    };
    let mut escaped = false;
    for (position, byte) in value.iter().enumerate().skip(1) {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return position + 1,
            _ => {}
        }
    }
    value.len()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
