//! Cuts a `.cedar` file into its rules, so that each has its own line, and a fault in one hides no fault in another.

/// The longest rule, in bytes. Cedar's parser builds a tree as deep as a chain of operators is long.
const LONGEST: usize = 16 * 1024;

/// The deepest nesting of brackets in a rule.
const DEEPEST: usize = 48;

/// One rule's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice<'a> {
    /// Where it begins in the file, in bytes.
    pub(super) start: usize,
    /// From its first annotation to its semicolon.
    pub(super) text: &'a str,
}

/// Why a rule is not even given to the parser, and where.
pub(super) type Unreadable = (usize, &'static str);

/// The rules of a file, in order. What follows the last semicolon is a rule too, for the parser to refuse.
pub(super) fn rules(text: &str) -> (Vec<Slice<'_>>, Vec<Unreadable>) {
    let (mut slices, mut unreadable) = (Vec::new(), Vec::new());
    let mut start = None;
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'/' if bytes.peek().is_some_and(|(_, next)| *next == b'/') => {
                while bytes.next_if(|(_, byte)| *byte != b'\n').is_some() {}
                continue;
            }
            b'"' => {
                start.get_or_insert(at);
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                continue;
            }
            byte if byte.is_ascii_whitespace() && start.is_none() => continue,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        let begin = *start.get_or_insert(at);
        if byte == b';' {
            push(text, begin, at + 1, deepest, &mut slices, &mut unreadable);
            (start, depth, deepest) = (None, 0, 0);
        }
    }
    if let Some(begin) = start {
        push(text, begin, text.len(), deepest, &mut slices, &mut unreadable);
    }
    (slices, unreadable)
}

fn push<'a>(
    text: &'a str,
    start: usize,
    end: usize,
    deepest: usize,
    slices: &mut Vec<Slice<'a>>,
    unreadable: &mut Vec<Unreadable>,
) {
    match text.get(start..end) {
        Some(rule) if rule.len() <= LONGEST && deepest <= DEEPEST => slices.push(Slice { start, text: rule }),
        Some(rule) if rule.len() <= LONGEST => {
            unreadable.push((start, "a rule nested too deeply; write it flatter"))
        }
        _ => unreadable.push((start, "a rule of more than 16 KiB; split it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_and_comments_end_nothing() {
        let text = "// a; b\n@say(\"x; \\\" // y\")\npermit (1); // c\n\nforbid /* ; */ ;rest";
        let (slices, unreadable) = rules(text);
        let found: Vec<_> = slices.iter().map(|slice| slice.text).collect();
        assert_eq!(found, ["@say(\"x; \\\" // y\")\npermit (1);", "forbid /* ;", "*/ ;", "rest"]);
        assert!(unreadable.is_empty());
    }
}
