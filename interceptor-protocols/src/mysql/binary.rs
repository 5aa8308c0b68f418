//! The values of COM_STMT_EXECUTE as text with their types (the internals manual's "Binary Protocol Value"), for policy and
//! for the record. A value whose type is not decoded here is hexadecimal.

use bytes::{Buf as _, Bytes};
use interceptor_core::model::{BindValue, Binds};

use super::frame::{Fields, Malformed};

/// The longest value that is written down, in bytes.
const MAX_VALUE: usize = 1024;

/// A parameter's type: its number, and whether it has no sign.
pub(super) type Type = (u8, bool);

/// Reads the types of `count` parameters.
pub(super) fn types(fields: &mut Fields, count: usize) -> Result<Vec<Type>, Malformed> {
    let read = (0..count).map(|_| match (fields.u8()?, fields.u8()?) {
        (kind, sign @ (0 | 0x80)) => Ok((kind, sign != 0)),
        _ => Err(Malformed),
    });
    read.collect()
}

/// The first of these that servers do not all read in the same way. As a value's type, clients have no use for any.
pub(super) fn ambiguous(types: &[Type]) -> Option<u8> {
    let is_read_alike =
        |kind: u8| matches!(kind, 0x00..=0x08 | 0x0a..=0x0c | 0x0f | 0xf5 | 0xf6 | 0xf9..=0xfe);
    types.iter().map(|(kind, _)| *kind).find(|kind| !is_read_alike(*kind))
}

/// Reads the values of parameters of these types; `nulls` is their bitmap.
pub(super) fn values(fields: &mut Fields, types: &[Type], nulls: &[u8]) -> Result<Binds, Malformed> {
    let is_null = |place: usize| nulls.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1);
    let read = types.iter().enumerate().map(|(place, of)| {
        if is_null(place) {
            Ok(BindValue { r#type: name(*of).into(), value: None, cut_from: None })
        } else {
            value(fields, *of)
        }
    });
    let values = read.collect::<Result<Binds, Malformed>>()?;
    if fields.is_empty() { Ok(values) } else { Err(Malformed) }
}

fn name((kind, unsigned): Type) -> &'static str {
    match (kind, unsigned) {
        (0x01, false) => "tinyint",
        (0x01, true) => "tinyint unsigned",
        (0x02, false) => "smallint",
        (0x02, true) => "smallint unsigned",
        (0x03, false) => "int",
        (0x03, true) => "int unsigned",
        (0x08, false) => "bigint",
        (0x08, true) => "bigint unsigned",
        (0x04, _) => "float",
        (0x05, _) => "double",
        (0x06, _) => "null",
        (0x07, _) => "timestamp",
        (0x0a, _) => "date",
        (0x0b, _) => "time",
        (0x0c, _) => "datetime",
        (0x00 | 0xf6, _) => "decimal",
        (0xf5, _) => "json",
        (0xf9..=0xfc, _) => "blob",
        _ => "text",
    }
}

fn value(fields: &mut Fields, of: Type) -> Result<BindValue, Malformed> {
    let (kind, unsigned) = of;
    let text = match kind {
        0x01 => number(fields.take(1)?, 1, unsigned),
        0x02 => number(fields.take(2)?, 2, unsigned),
        0x03 => number(fields.take(4)?, 4, unsigned),
        0x08 => number(fields.take(8)?, 8, unsigned),
        0x04 => fields.take(4)?.get_f32_le().to_string(),
        0x05 => fields.take(8)?.get_f64_le().to_string(),
        // Some read a string, some nothing, where the bitmap does not say that it is null.
        0x06 => return Err(Malformed),
        0x07 | 0x0a | 0x0c => date(fields)?,
        0x0b => time(fields)?,
        _ => return fields.counted().map(|bytes| string(&bytes, of)),
    };
    Ok(BindValue { r#type: name(of).into(), value: Some(text.into()), cut_from: None })
}

fn number(mut bytes: Bytes, length: usize, unsigned: bool) -> String {
    if unsigned { bytes.get_uint_le(length).to_string() } else { bytes.get_int_le(length).to_string() }
}

fn date(fields: &mut Fields) -> Result<String, Malformed> {
    let length = fields.u8()?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(Malformed);
    }
    if length == 0 {
        return Ok("0000-00-00".to_owned());
    }
    let mut text = format!("{:04}-{:02}-{:02}", fields.u16()?, fields.u8()?, fields.u8()?);
    if length >= 7 {
        text += &format!(" {:02}:{:02}:{:02}", fields.u8()?, fields.u8()?, fields.u8()?);
    }
    if length == 11 {
        text += &format!(".{:06}", fields.u32()?);
    }
    Ok(text)
}

fn time(fields: &mut Fields) -> Result<String, Malformed> {
    let length = fields.u8()?;
    if !matches!(length, 0 | 8 | 12) {
        return Err(Malformed);
    }
    if length == 0 {
        return Ok("00:00:00".to_owned());
    }
    let sign = if fields.u8()? == 0 { "" } else { "-" };
    let days = u64::from(fields.u32()?);
    let hours = days.saturating_mul(24).saturating_add(fields.u8()?.into());
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", fields.u8()?, fields.u8()?);
    if length == 12 {
        text += &format!(".{:06}", fields.u32()?);
    }
    Ok(text)
}

fn string(bytes: &[u8], of: Type) -> BindValue {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\\x{}", hex::encode(bytes.get(..MAX_VALUE / 2).unwrap_or(bytes))),
    };
    let end = text.floor_char_boundary(MAX_VALUE.min(text.len()));
    let cut = end < text.len() || (bytes.len() > MAX_VALUE / 2 && text.starts_with("\\x"));
    BindValue {
        r#type: name(of).into(),
        value: Some(text.get(..end).unwrap_or_default().into()),
        cut_from: cut.then(|| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
    }
}
