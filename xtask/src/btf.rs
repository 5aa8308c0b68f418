//! What an object's own type information (BTF) says of its maps: each map's type, which names its key and value.
//! Only as much of the format (the kernel's Documentation/bpf/btf.rst) as that takes; anything odd is an error.

use std::collections::BTreeMap;

use crate::elf::{text, word};

const MAGIC: u32 = 0xeb9f;
const SECTION: u32 = 15;

/// A type's kind, name, third word (a size, or another type), and what follows.
struct Type<'a> {
    kind: u32,
    name: String,
    third: u32,
    rest: &'a [u8],
}

/// The variables in the section `maps`, each with its type's name.
pub(crate) fn maps(bytes: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    if word(bytes, 0)? & 0xffff != MAGIC {
        return None;
    }
    let header = usize::try_from(word(bytes, 4)?).ok()?;
    let part = |at: usize| {
        let start = header.checked_add(usize::try_from(word(bytes, at)?).ok()?)?;
        bytes.get(start..start.checked_add(usize::try_from(word(bytes, at + 4)?).ok()?)?)
    };
    let types = types(part(8)?, part(16)?)?;
    // The first type has the number 1.
    let by_number = |number: u32| types.get(usize::try_from(number).ok()?.checked_sub(1)?);
    let section = types.iter().find(|r#type| r#type.kind == SECTION && r#type.name == "maps")?;
    let variables = section.rest.chunks_exact(12).map(|variable| {
        let variable = by_number(word(variable, 0)?)?;
        Some((variable.name.clone(), by_number(variable.third)?.name.clone().into_bytes()))
    });
    variables.collect()
}

fn types<'a>(mut rest: &'a [u8], strings: &[u8]) -> Option<Vec<Type<'a>>> {
    let mut types = Vec::new();
    while !rest.is_empty() {
        let info = word(rest, 4)?;
        let (kind, count) = ((info >> 24) & 0x1f, usize::try_from(info & 0xffff).ok()?);
        let end = tail(kind, count)?.checked_add(12)?;
        let name = text(strings, word(rest, 0)?)?;
        types.push(Type { kind, name, third: word(rest, 8)?, rest: rest.get(12..end)? });
        rest = rest.get(end..)?;
    }
    Some(types)
}

/// How many bytes follow a type's three words.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // integers, variables, declaration tags
        1 | 14 | 17 => 4,
        // arrays
        3 => 12,
        // structures, unions, sections, 64-bit enumerations
        4 | 5 | 15 | 19 => count.checked_mul(12)?,
        // enumerations, prototypes
        6 | 13 => count.checked_mul(8)?,
        // pointers, forwards, typedefs, qualifiers, functions, floats, type tags
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}
