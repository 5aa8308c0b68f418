//! Bounds what is read: size, tokens, nesting, the length of chains; and what our parser could take for something else than
//! the server does.

use super::{
    super::guard::{MAX_BYTES, MAX_CHAIN, MAX_NESTING, MAX_TOKENS},
    builtin::ADJACENT,
    lexer::{Kind, Token, tokens, unquoted},
};

/// How many brackets of POSITION may be in each other: the parser reads what is in each twice over.
const MAX_POSITIONS: usize = 4;

/// The tokens of a text that may be read, without a semicolon at its end.
pub(super) fn check(text: &str) -> Result<Vec<Token>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if text.contains('\0') || text.contains('\u{feff}') {
        return Err("it has a NUL byte or a byte order mark".to_owned());
    }
    let mut tokens = tokens(text, MAX_TOKENS)?;
    while tokens.last().is_some_and(|token| token.kind == Kind::Semicolon) {
        tokens.pop();
    }
    let (mut levels, mut previous): (Vec<usize>, Option<&Token>) = (vec![0], None);
    // The levels that POSITION has opened.
    let mut positions: Vec<usize> = Vec::new();
    for token in &tokens {
        match token.kind {
            Kind::Semicolon => return Err("it has more than one statement".to_owned()),
            Kind::Open => {
                let word = previous.filter(|word| word.kind == Kind::Word);
                let name = word.and_then(|word| text.get(word.range.clone())).unwrap_or_default();
                if word.is_some_and(|word| word.range.end != token.range.start) && is_adjacent(name) {
                    return Err("there is a space between a function's name and its bracket".to_owned());
                }
                levels.push(0);
                if name.eq_ignore_ascii_case("position") {
                    positions.push(levels.len());
                    if positions.len() > MAX_POSITIONS {
                        return Err(format!("POSITION is nested more than {MAX_POSITIONS} deep"));
                    }
                }
                if levels.len() > MAX_NESTING {
                    return Err(format!("its brackets are nested more than {MAX_NESTING} deep"));
                }
            }
            Kind::Close => {
                positions.pop_if(|level| *level == levels.len());
                levels.pop();
                if levels.is_empty() {
                    return Err("a bracket closes that none opened".to_owned());
                }
            }
            Kind::Comma => {
                if let Some(chain) = levels.last_mut() {
                    *chain = 0;
                }
            }
            Kind::Word | Kind::Operator => {
                if let Some(chain) = levels.last_mut() {
                    *chain += 1;
                    if *chain > MAX_CHAIN {
                        return Err(format!("more than {MAX_CHAIN} words follow each other without a comma"));
                    }
                }
            }
            Kind::Quoted => {
                let name = unquoted(text.get(token.range.clone()).unwrap_or_default());
                if name.is_empty() || name.ends_with(' ') {
                    return Err("a name is empty or ends with a space".to_owned());
                }
                // To old servers what follows is the name of a file.
                if name.to_ascii_lowercase().starts_with("#mysql50#") {
                    return Err("a name begins with `#mysql50#`".to_owned());
                }
            }
            Kind::Text | Kind::Number | Kind::Variable | Kind::Parameter | Kind::Dot => {}
        }
        previous = Some(token);
    }
    if levels.len() != 1 {
        return Err("a bracket is not closed".to_owned());
    }
    Ok(tokens)
}

fn is_adjacent(word: &str) -> bool {
    ADJACENT.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}
