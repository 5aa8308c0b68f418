//! The one renderer for everything a person is shown.
//!
//! Text that an agent or a server wrote can carry control sequences that repaint a terminal, marks that turn the
//! reading direction, characters that cannot be seen, and padding that pushes the rest off the screen. Here all of
//! them become visible. Nothing is dropped silently.

use std::{borrow::Cow, fmt::Write as _};

/// Longest run of white space that is kept as it is.
const MAX_BLANKS: usize = 16;

/// `text` on one line, safe to print: what cannot be seen is written as `\u{...}`, line ends as `\n`, long runs of
/// blanks as `[N blanks]`.
///
/// ```
/// use interceptor_core::text::printable;
/// assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
/// assert_eq!(printable("a\nb"), "a\\nb");
/// assert_eq!(printable("user\u{202e}nimda"), "user\\u{202e}nimda");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    render(text, false)
}

/// Like [`printable`], but keeps line ends, so that a statement stays readable. At most two empty lines follow
/// each other.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    render(text, true)
}

fn render(text: &str, lines: bool) -> Cow<'_, str> {
    if is_harmless(text, lines) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let mut run = 1_usize;
        if c == ' ' || lines && c == '\n' {
            while rest.next_if_eq(&c).is_some() {
                run += 1;
            }
        }
        match c {
            ' ' if run > MAX_BLANKS => {
                let _ = write!(out, " [{run} blanks] ");
            }
            '\n' if lines && run > 3 => {
                let _ = write!(out, "\n[{run} line ends]\n");
            }
            ' ' | '\n' if c == ' ' || lines => out.extend(std::iter::repeat_n(c, run)),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether rendering would change nothing.
fn is_harmless(text: &str, lines: bool) -> bool {
    let mut blanks = 0;
    let mut line_ends = 0;
    text.chars().all(|c| {
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        line_ends = if c == '\n' { line_ends + 1 } else { 0 };
        blanks <= MAX_BLANKS && line_ends <= 3 && (lines && c == '\n' || !is_hidden(c))
    })
}

/// Characters that draw nothing, or change how others are drawn.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
        || is_stacked(c)
}

/// Combining marks of the blocks used to smear text over neighbouring lines.
fn is_stacked(c: char) -> bool {
    matches!(c, '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown() {
        for (text, shown) in [
            ("SELECT 1", "SELECT 1"),
            ("naïve – Ünïcode 表", "naïve – Ünïcode 表"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("a\tb\r\nc", "a\\tb\\r\\nc"),
            ("a\u{200b}b\u{2066}c\u{feff}", "a\\u{200b}b\\u{2066}c\\u{feff}"),
            ("a\u{a0}b", "a\\u{a0}b"),
            ("a\u{e0041}", "a\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable(&format!("a{}b", " ".repeat(5000))), "a [5000 blanks] b");
        assert!(matches!(printable("SELECT 1"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(printable_lines("a\n\nb"), "a\n\nb");
        assert_eq!(printable_lines("a\r\n\x1bb"), "a\\r\n\\u{1b}b");
        assert_eq!(printable_lines(&format!("a{}b", "\n".repeat(500))), "a\n[500 line ends]\nb");
    }

    proptest::proptest! {
        #[test]
        fn rendering_twice_is_rendering_once(text in "(?s).{0,200}") {
            let once = printable(&text).into_owned();
            proptest::prop_assert_eq!(printable(&once), once.as_str());
            proptest::prop_assert!(once.chars().all(|c| !c.is_control()));
            let lines = printable_lines(&text).into_owned();
            proptest::prop_assert_eq!(printable_lines(&lines), lines.as_str());
        }
    }
}
