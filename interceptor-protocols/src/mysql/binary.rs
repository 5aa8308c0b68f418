//! The values of COM_STMT_EXECUTE as text with their types (the internals manual's "Binary Protocol Value"), for policy and
//! for the record. A value whose type is not decoded here is hexadecimal.

use bytes::{Buf as _, Bytes};
use interceptor_core::model::{BindValue, Binds};

use super::frame::{Fields, Malformed};

/// The longest value that is written down, in bytes.
const MAX_VALUE: usize = 1024;
/// MYSQL_TYPE_TIMESTAMP.
const STAMP: u8 = 0x07;
/// MYSQL_TYPE_DATE.
const DAY: u8 = 0x0a;
/// MYSQL_TYPE_DATETIME.
const MOMENT: u8 = 0x0c;
/// Of a value that is no text: the same digits may be one.
const BYTES: &str = "bytes";

/// Why a value is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is not as it should be.
    Malformed,
    /// A date or time that servers would make another one of.
    OutOfBounds,
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

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
pub(super) fn values(fields: &mut Fields, types: &[Type], nulls: &[u8]) -> Result<Binds, Unread> {
    let is_null = |place: usize| nulls.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1);
    let read = types.iter().enumerate().map(|(place, of)| {
        if is_null(place) {
            Ok(BindValue { r#type: name(*of).into(), value: None, cut_from: None })
        } else {
            value(fields, *of)
        }
    });
    let values = read.collect::<Result<Binds, Unread>>()?;
    if fields.is_empty() { Ok(values) } else { Err(Unread::Malformed) }
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
        (STAMP, _) => "timestamp",
        (DAY, _) => "date",
        (0x0b, _) => "time",
        (MOMENT, _) => "datetime",
        (0x00 | 0xf6, _) => "decimal",
        (0xf5, _) => "json",
        (0xf9..=0xfc, _) => "blob",
        _ => "text",
    }
}

fn value(fields: &mut Fields, of: Type) -> Result<BindValue, Unread> {
    let (kind, unsigned) = of;
    let text = match kind {
        0x01 => number(fields.take(1)?, 1, unsigned),
        0x02 => number(fields.take(2)?, 2, unsigned),
        0x03 => number(fields.take(4)?, 4, unsigned),
        0x08 => number(fields.take(8)?, 8, unsigned),
        0x04 => fields.take(4)?.get_f32_le().to_string(),
        0x05 => fields.take(8)?.get_f64_le().to_string(),
        // Some read a string, some nothing, where the bitmap does not say that it is null.
        0x06 => return Err(Unread::Malformed),
        STAMP | DAY | MOMENT => date(fields, kind)?,
        0x0b => time(fields)?,
        _ => return Ok(string(&fields.counted()?, of)),
    };
    Ok(BindValue { r#type: name(of).into(), value: Some(text.into()), cut_from: None })
}

fn number(mut bytes: Bytes, length: usize, unsigned: bool) -> String {
    if unsigned { bytes.get_uint_le(length).to_string() } else { bytes.get_int_le(length).to_string() }
}

fn date(fields: &mut Fields, kind: u8) -> Result<String, Unread> {
    let length = fields.u8()?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(Unread::Malformed);
    }
    // Of a day's time they read nothing.
    (kind != DAY || length <= 4).then_some(()).ok_or(Unread::OutOfBounds)?;
    if length == 0 {
        return Ok("0000-00-00".to_owned());
    }
    let (year, month, day) = (fields.u16()?, fields.u8()?, fields.u8()?);
    (year <= 9999 && month <= 12 && day <= 31).then_some(()).ok_or(Unread::OutOfBounds)?;
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if length >= 7 {
        text = format!("{text} {}", clock(fields, 0)?);
    }
    if length == 11 {
        text += &fraction(fields)?;
    }
    Ok(text)
}

fn time(fields: &mut Fields) -> Result<String, Unread> {
    let length = fields.u8()?;
    if !matches!(length, 0 | 8 | 12) {
        return Err(Unread::Malformed);
    }
    if length == 0 {
        return Ok("00:00:00".to_owned());
    }
    let sign = if fields.u8()? == 0 { "" } else { "-" };
    let days = fields.u32()?;
    let mut text = format!("{sign}{}", clock(fields, days)?);
    if length == 12 {
        text += &fraction(fields)?;
    }
    Ok(text)
}

fn clock(fields: &mut Fields, days: u32) -> Result<String, Unread> {
    let (hour, minute, second) = (fields.u8()?, fields.u8()?, fields.u8()?);
    let hours = days.saturating_mul(24).saturating_add(hour.into());
    (hour <= 23 && hours <= 838 && minute <= 59 && second <= 59).then_some(()).ok_or(Unread::OutOfBounds)?;
    Ok(format!("{hours:02}:{minute:02}:{second:02}"))
}

fn fraction(fields: &mut Fields) -> Result<String, Unread> {
    let millionths = fields.u32()?;
    (millionths <= 999_999).then_some(()).ok_or(Unread::OutOfBounds)?;
    Ok(format!(".{millionths:06}"))
}

fn string(bytes: &[u8], of: Type) -> BindValue {
    let (text, of) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), name(of)),
        Err(_) => (format!("\\x{}", hex::encode(bytes.get(..MAX_VALUE / 2).unwrap_or(bytes))), BYTES),
    };
    let end = text.floor_char_boundary(MAX_VALUE.min(text.len()));
    let cut = end < text.len() || (of == BYTES && bytes.len() > MAX_VALUE / 2);
    BindValue {
        r#type: of.into(),
        value: Some(text.get(..end).unwrap_or_default().into()),
        cut_from: cut.then(|| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
    }
}
