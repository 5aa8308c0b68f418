//! What an eBPF object consists of, as far as two compilers should agree: its program sections, its functions, its
//! maps, their definitions and their types. Only as much of ELF as that takes; anything odd is an error.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::btf;

/// Where an outline has the types of the maps.
pub(crate) const MAP_TYPES: &str = "types of maps";

/// Section name to the symbols in it; for `maps`, each symbol with its bytes; for [`MAP_TYPES`], each with the name
/// of its type.
pub(crate) type Outline = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

struct Section<'a> {
    name: u32,
    kind: u32,
    flags: u64,
    link: u32,
    bytes: &'a [u8],
}

const SYMBOLS: u32 = 2;
const EXECUTABLE: u64 = 4;
const GLOBAL: u8 = 1;

/// Reads the outline of an object.
pub(crate) fn outline(object: &[u8]) -> Result<Outline> {
    ensure!(object.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    read(object).context("a damaged ELF file")
}

fn read(object: &[u8]) -> Option<Outline> {
    let (table, count, names) = (long(object, 40)?, half(object, 60)?, half(object, 62)?);
    let table = usize::try_from(table).ok()?;
    let sections: Vec<Section<'_>> = (0..usize::from(count))
        .map(|index| section(object, table.checked_add(index.checked_mul(64)?)?))
        .collect::<Option<_>>()?;
    let section_names = sections.get(usize::from(names))?.bytes;
    let symbols = sections.iter().find(|section| section.kind == SYMBOLS)?;
    let symbol_names = sections.get(usize::try_from(symbols.link).ok()?)?.bytes;
    let mut outline = Outline::new();
    for section in &sections {
        if text(section_names, section.name)? == ".BTF" {
            outline.insert(MAP_TYPES.to_owned(), btf::maps(section.bytes)?);
        }
    }
    for symbol in symbols.bytes.chunks_exact(24) {
        let info = *symbol.get(4)?;
        let Some(section) = sections.get(usize::from(half(symbol, 6)?)) else { continue };
        let section_name = text(section_names, section.name)?;
        let is_map = section_name == "maps";
        if info >> 4 != GLOBAL || !(is_map || section.flags & EXECUTABLE != 0) {
            continue;
        }
        let start = usize::try_from(long(symbol, 8)?).ok()?;
        let end = start.checked_add(usize::try_from(long(symbol, 16)?).ok()?)?;
        let bytes = if is_map { section.bytes.get(start..end)?.to_vec() } else { Vec::new() };
        outline.entry(section_name).or_default().insert(text(symbol_names, word(symbol, 0)?)?, bytes);
    }
    Some(outline)
}

fn section(object: &[u8], at: usize) -> Option<Section<'_>> {
    let head = object.get(at..at.checked_add(64)?)?;
    let start = usize::try_from(long(head, 24)?).ok()?;
    let length = usize::try_from(long(head, 32)?).ok()?;
    let kind = word(head, 4)?;
    // A section without bits in the file has nothing to read.
    let bytes = if kind == 8 { &[] } else { object.get(start..start.checked_add(length)?)? };
    Some(Section { name: word(head, 0)?, kind, flags: long(head, 8)?, link: word(head, 40)?, bytes })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

pub(crate) fn text(bytes: &[u8], at: u32) -> Option<String> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}
