//! What a view shows, by its stored tree: for each of its columns the column of a relation that it is, if it is one.
//!
//! The tree is what `nodeToString` of PostgreSQL writes: nodes in braces with `:name value` pairs, lists in brackets, and
//! words in which blanks, brackets and backslashes are escaped. Promise: what cannot be read is none, never guessed.

/// A column of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// Its number, from 1.
    pub(super) number: i16,
    /// The relation and the number of the column that it is; none where it is computed.
    pub(super) of: Option<(u32, i16)>,
}

/// The columns of the query at the head of `tree`.
pub(super) fn columns(tree: &str) -> Option<Vec<Shown>> {
    let mut words = Words { rest: tree };
    for expected in ["(", "{", "QUERY"] {
        (words.next()? == expected).then_some(())?;
    }
    let mut shown = Vec::new();
    loop {
        let key = words.next()?;
        if key == "}" {
            return None;
        }
        if key != ":targetList" {
            words.skip_value()?;
            continue;
        }
        (words.next()? == "(").then_some(())?;
        loop {
            match words.next()? {
                ")" => return Some(shown),
                "{" => shown.extend(entry(&mut words)?),
                _ => return None,
            }
        }
    }
}

/// One entry of a target list, behind its brace; an inner none is one that is not shown.
fn entry(words: &mut Words<'_>) -> Option<Option<Shown>> {
    (words.next()? == "TARGETENTRY").then_some(())?;
    let (mut number, mut relation, mut column, mut junk) = (None, None, None, None);
    loop {
        match words.next()? {
            "}" => break,
            ":resno" => number = words.next()?.parse::<i16>().ok(),
            ":resorigtbl" => relation = words.next()?.parse::<u32>().ok(),
            ":resorigcol" => column = words.next()?.parse::<i16>().ok(),
            ":resjunk" => junk = Some(words.next()? == "true"),
            key if key.starts_with(':') => words.skip_value()?,
            _ => return None,
        }
    }
    let of = Some((relation?, column?)).filter(|(relation, _)| *relation != 0);
    Some((!junk?).then_some(Shown { number: number?, of }))
}

/// Words and brackets.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start_matches([' ', '\n', '\t']);
        let first = rest.chars().next()?;
        let length = if matches!(first, '(' | ')' | '{' | '}') {
            1
        } else {
            let mut escaped = false;
            let ends = |c: char| {
                if std::mem::take(&mut escaped) {
                    return false;
                }
                escaped = c == '\\';
                matches!(c, ' ' | '\n' | '\t' | '(' | ')' | '{' | '}')
            };
            rest.find(ends).unwrap_or(rest.len())
        };
        let (word, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(word)
    }

    /// Passes over what stands behind a key: a word, or something in brackets, or several words up to the next key.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                "(" | "{" => depth = depth.checked_add(1)?,
                ")" | "}" => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth > 0 {
                continue;
            }
            // A constant's value is several words: `4 [ 1 0 0 0 ]`.
            let next = self.rest.trim_start_matches([' ', '\n', '\t']);
            if next.is_empty() || next.starts_with([':', '}', ')']) {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_query_alone_is_read() {
        let tree = "({QUERY :commandType 1 :querySource 0 :cteList <> :rtable ({RANGETBLENTRY :alias {ALIAS :aliasname old \
            :colnames <>} :subquery {QUERY :targetList ({TARGETENTRY :expr {VAR :varno 1} :resno 1 :resname x \
            :ressortgroupref 0 :resorigtbl 9 :resorigcol 9 :resjunk false}) :override 0}}) :targetList ({TARGETENTRY :expr \
            {VAR :varno 3 :varattno 2} :resno 1 :resname :resorigtbl :ressortgroupref 0 :resorigtbl 16385 :resorigcol 2 \
            :resjunk false} {TARGETENTRY :expr {CONST :consttype 23 :constvalue 4 [ 1 0 0 0 ]} :resno 2 :resname a\\ \\(b \
            :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false} {TARGETENTRY :expr {VAR :varno 3} :resno 3 \
            :resname <> :ressortgroupref 1 :resorigtbl 16385 :resorigcol 1 :resjunk true}) :override 0})";
        assert_eq!(
            columns(tree),
            Some(vec![Shown { number: 1, of: Some((16385, 2)) }, Shown { number: 2, of: None }])
        );
        for cut in 0..tree.len() - 16 {
            columns(&tree[..cut]);
        }
        assert_eq!(columns("({SELECT})"), None);
        assert_eq!(columns(""), None);
    }
}
