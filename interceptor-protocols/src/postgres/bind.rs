//! Bind values as text with their types, for policy and for the record.
//!
//! Promise: whatever the bytes are, a value comes out, and the whole stays within [`MAX_VALUES`] and [`MAX_TEXT`];
//! what is cut says so. A binary value whose type is not decoded here is hexadecimal. Nothing here decides anything.

use bytes::Bytes;
use interceptor_core::model::{BindValue, Binds};
use smallvec::SmallVec;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::{
    frame::{Fields, Malformed},
    names::Name,
};

/// How many values are told one by one.
pub(super) const MAX_VALUES: usize = 1024;
/// How many bytes of one value are told.
const MAX_VALUE: usize = 1024;
/// How many bytes of one value are needed to tell it.
pub(super) const KEPT_OF_VALUE: usize = 2 * MAX_VALUE;
/// How many bytes of all values are told.
pub(super) const MAX_TEXT: usize = 64 << 10;
/// How deep arrays are followed.
const MAX_DEPTH: usize = 4;

/// Formats of values: none, one for all, or one by one.
pub(super) type Formats = SmallVec<[i16; 4]>;
/// Values, some of them NULL.
pub(super) type Values = SmallVec<[Option<Value>; 2]>;

/// One Bind message.
#[derive(Debug)]
pub(super) struct Bind {
    pub(super) portal: Name,
    pub(super) statement: Name,
    pub(super) given: Given,
    /// In which formats its results are wanted.
    pub(super) formats: Formats,
}

/// One FunctionCall message.
#[derive(Debug)]
pub(super) struct Call {
    /// The function's number.
    pub(super) function: u32,
    given: Given,
}

/// Values with their formats.
#[derive(Debug)]
pub(super) struct Given {
    formats: Formats,
    pub(super) values: Values,
    /// How many more there are.
    pub(super) omitted: usize,
}

/// One value, or its beginning.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// At least its first [`KEPT_OF_VALUE`] bytes, as long as there is room for them.
    pub(super) head: Bytes,
    /// Its length.
    pub(super) length: usize,
}

/// Reads a Bind message's body.
pub(super) fn read(mut fields: Fields) -> Result<Bind, Malformed> {
    let portal = fields.name()?;
    let statement = fields.name()?;
    let given = given(&mut fields)?;
    let formats = (0..fields.count()?).map(|_| fields.i16()).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(Bind { portal, statement, given, formats })
}

/// Reads a FunctionCall message's body.
pub(super) fn read_call(mut fields: Fields) -> Result<Call, Malformed> {
    let function = fields.u32()?;
    let given = given(&mut fields)?;
    fields.i16()?;
    fields.end()?;
    Ok(Call { function, given })
}

fn given(fields: &mut Fields) -> Result<Given, Malformed> {
    let (mut given, count) = Given::begin(fields)?;
    for place in 0..count {
        let value = fields.value()?;
        if place < MAX_VALUES {
            given.values.push(value.map(|head| Value { length: head.len(), head }));
        }
    }
    given.omitted = count.saturating_sub(given.values.len());
    Ok(given)
}

impl Bind {
    /// The values, where `types` are the statement's parameter types as far as they are known.
    pub(super) fn values(&self, types: &[u32]) -> Binds {
        self.given.values(types)
    }
}

impl Call {
    /// The values, where `types` are the function's parameter types as far as they are known.
    pub(super) fn values(&self, types: &[u32]) -> Binds {
        self.given.values(types)
    }
}

impl Given {
    /// Reads the formats, and how many values follow.
    pub(super) fn begin(fields: &mut Fields) -> Result<(Self, usize), Malformed> {
        let formats = (0..fields.count()?).map(|_| fields.i16()).collect::<Result<Formats, _>>()?;
        if formats.iter().any(|format| !matches!(format, 0 | 1)) {
            return Err(Malformed);
        }
        let count = fields.count()?;
        if formats.len() > 1 && formats.len() != count {
            return Err(Malformed);
        }
        Ok((Self { formats, values: Values::new(), omitted: 0 }, count))
    }

    /// The value at `place` as it came, with its format; none where it was not kept whole.
    pub(super) fn raw(&self, place: usize) -> Option<(Option<Bytes>, i16)> {
        let value = self.values.get(place)?;
        if value.as_ref().is_some_and(|value| value.head.len() != value.length) {
            return None;
        }
        Some((value.as_ref().map(|value| value.head.clone()), self.format(place)))
    }

    /// The value at `place` as it is told.
    pub(super) fn told(&self, place: usize, r#type: u32) -> Option<BindValue> {
        let value = self.values.get(place)?;
        Some(tell(r#type, self.format(place) == 1, value.as_ref(), MAX_TEXT))
    }

    /// They as they are to be kept for longer than their message: none where they are longer than `most` together.
    pub(super) fn kept(&self, most: usize) -> Option<Self> {
        let mut left = most;
        let values = self.values.iter().map(|value| match value {
            None => Some(None),
            Some(value) => {
                left = left.checked_sub(value.length)?;
                let head = Bytes::copy_from_slice(&value.head);
                Some(Some(Value { head, length: value.length }))
            }
        });
        let values = values.collect::<Option<_>>()?;
        Some(Self { formats: self.formats.clone(), values, omitted: self.omitted })
    }

    /// The formats and the values as they came, where all were kept.
    pub(super) fn parts(&self) -> (&[i16], &[Option<Value>]) {
        (&self.formats, &self.values)
    }

    fn format(&self, place: usize) -> i16 {
        let one = self.formats.first().filter(|_| self.formats.len() == 1);
        self.formats.get(place).or(one).copied().unwrap_or(0)
    }

    fn values(&self, types: &[u32]) -> Binds {
        let mut left = MAX_TEXT;
        let mut out: Binds = self
            .values
            .iter()
            .enumerate()
            .map(|(place, value)| {
                let r#type = types.get(place).copied().unwrap_or(0);
                let told = tell(r#type, self.format(place) == 1, value.as_ref(), left);
                left = left.saturating_sub(told.value.as_ref().map_or(0, SmolStr::len));
                told
            })
            .collect();
        if self.omitted > 0 {
            out.push(BindValue {
                r#type: SmolStr::new_static("omitted"),
                value: Some(format_smolstr!("{} more values", self.omitted)),
                cut_from: u64::try_from(self.omitted).ok(),
            });
        }
        out
    }
}

fn tell(r#type: u32, binary: bool, value: Option<&Value>, left: usize) -> BindValue {
    let name = name(r#type).map_or_else(|| r#type.to_smolstr(), SmolStr::new_static);
    let Some(value) = value else { return BindValue { r#type: name, value: None, cut_from: None } };
    let limit = MAX_VALUE.min(left);
    // Fixed-size binary values are small; only a value that is cut anyway is looked at in part.
    let head = value.head.slice(..value.head.len().min(limit.saturating_mul(2)));
    let decoded = if binary { decode(r#type, &head, MAX_DEPTH) } else { text(&head) };
    let whole = head.len() == value.length;
    let mut told = match decoded {
        Some(told) => told,
        None if !whole && !binary => String::from_utf8_lossy(&head).into(),
        None => format!("\\x{}", hex::encode(&head)).into(),
    };
    let cut = !whole || told.len() > limit;
    if told.len() > limit {
        told = told.get(..told.floor_char_boundary(limit)).unwrap_or_default().into();
    }
    BindValue {
        r#type: name,
        value: Some(told),
        cut_from: cut.then(|| u64::try_from(value.length).unwrap_or(u64::MAX)),
    }
}

fn text(value: &[u8]) -> Option<SmolStr> {
    std::str::from_utf8(value).ok().map(SmolStr::new)
}

/// The names of the types that clients bind most.
fn name(oid: u32) -> Option<&'static str> {
    Some(match oid {
        0 => "unknown",
        16 => "bool",
        17 => "bytea",
        18 => "char",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        25 => "text",
        26 => "oid",
        114 => "json",
        142 => "xml",
        700 => "float4",
        701 => "float8",
        705 => "unknown",
        869 => "inet",
        1000 => "bool[]",
        1005 => "int2[]",
        1007 => "int4[]",
        1009 => "text[]",
        1015 => "varchar[]",
        1016 => "int8[]",
        1021 => "float4[]",
        1022 => "float8[]",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1083 => "time",
        1114 => "timestamp",
        1184 => "timestamptz",
        1186 => "interval",
        1266 => "timetz",
        1700 => "numeric",
        2950 => "uuid",
        2951 => "uuid[]",
        3802 => "jsonb",
        _ => return None,
    })
}

fn decode(oid: u32, value: &Bytes, depth: usize) -> Option<SmolStr> {
    let bytes: &[u8] = value;
    match oid {
        16 => match bytes {
            [0] => Some(SmolStr::new_static("f")),
            [_] => Some(SmolStr::new_static("t")),
            _ => None,
        },
        20 => Some(i64::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        21 => Some(i16::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        23 => Some(i32::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        26 => Some(u32::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        700 => Some(f32::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        701 => Some(f64::from_be_bytes(bytes.try_into().ok()?).to_smolstr()),
        18 | 19 | 25 | 114 | 142 | 1042 | 1043 => text(bytes),
        3802 => bytes.strip_prefix(&[1]).and_then(text),
        1082 => date(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))).map(Into::into),
        1083 => time(i64::from_be_bytes(bytes.try_into().ok()?)).map(Into::into),
        1114 | 1184 => timestamp(i64::from_be_bytes(bytes.try_into().ok()?), oid == 1184).map(Into::into),
        1700 => numeric(value).map(Into::into),
        2950 => uuid(bytes).map(Into::into),
        1000..=1028 | 2951 => array(value, depth).map(Into::into),
        _ => None,
    }
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let text = hex::encode(<&[u8; 16]>::try_from(bytes).ok()?);
    let part = |range: std::ops::Range<usize>| text.get(range);
    Some(format!("{}-{}-{}-{}-{}", part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?))
}

/// Days from 2000-01-01 as a civil date; the two ends of the range are the infinities.
fn date(days: i64) -> Option<String> {
    if days == i64::from(i32::MAX) {
        return Some("infinity".to_owned());
    }
    if days == i64::from(i32::MIN) {
        return Some("-infinity".to_owned());
    }
    // Counted from 0000-03-01, so that a leap day ends its year: 400 years have 146 097 days.
    let days = days.checked_add(730_425)?;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    Some(if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    })
}

fn time(micros: i64) -> Option<String> {
    if !(0..=86_400_000_000).contains(&micros) {
        return None;
    }
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Some(format!("{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn timestamp(micros: i64, zoned: bool) -> Option<String> {
    match micros {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    const DAY: i64 = 86_400_000_000;
    let date = date(micros.div_euclid(DAY))?;
    let time = time(micros.rem_euclid(DAY))?;
    Some(format!("{date} {time}{}", if zoned { "+00" } else { "" }))
}

/// Groups of four decimal digits, with the weight of the first.
fn numeric(value: &Bytes) -> Option<String> {
    let mut fields = Fields::new(value.clone());
    let mut next = || fields.i16().ok();
    let (count, weight, sign, scale) = (next()?, next()?, next()?, next()?);
    let sign = match u16::from_be_bytes(sign.to_be_bytes()) {
        0 => "",
        0x4000 => "-",
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    // A thousand digits say enough; beyond that the hexadecimal form does.
    if !(0..=250).contains(&count) || !(-250..=250).contains(&weight) || !(0..=1000).contains(&scale) {
        return None;
    }
    let groups: Vec<i16> =
        (0..count).map(|_| next().filter(|group| (0..10_000).contains(group))).collect::<Option<_>>()?;
    let group =
        |place: i16| usize::try_from(place).ok().and_then(|place| groups.get(place)).copied().unwrap_or(0);
    let whole: String = (0..=weight).map(|place| format!("{:04}", group(place))).collect();
    let whole = whole.trim_start_matches('0');
    let mut out = format!("{sign}{}", if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        let after = weight.checked_add(1)?;
        let fraction: String = (0..scale / 4 + 1)
            .filter_map(|place| after.checked_add(place))
            .map(|place| format!("{:04}", group(place)))
            .collect();
        out.push('.');
        out.push_str(fraction.get(..usize::try_from(scale).ok()?)?);
    }
    Some(out)
}

/// An array of one dimension, in the server's text form but with every element quoted.
fn array(value: &Bytes, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let mut fields = Fields::new(value.clone());
    let dimensions = fields.i32().ok()?;
    fields.i32().ok()?;
    let element = fields.u32().ok()?;
    if dimensions == 0 {
        return fields.is_empty().then(|| "{}".to_owned());
    }
    if dimensions != 1 {
        return None;
    }
    let count = fields.i32().ok()?;
    fields.i32().ok()?;
    let mut out = String::from("{");
    for place in 0..count {
        if place > 0 {
            out.push(',');
        }
        match fields.value().ok()? {
            None => out.push_str("NULL"),
            Some(value) => {
                let text = decode(element, &value, depth)?;
                out.push('"');
                out.extend(
                    text.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])),
                );
                out.push('"');
            }
        }
    }
    out.push('}');
    fields.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0).as_deref(), Some("2000-01-01"));
        assert_eq!(date(59).as_deref(), Some("2000-02-29"));
        assert_eq!(date(-1).as_deref(), Some("1999-12-31"));
        assert_eq!(date(8735).as_deref(), Some("2023-12-01"));
        assert_eq!(date(-730_120).as_deref(), Some("0001-12-31 BC"));
    }

    #[test]
    fn numbers_are_decimal() {
        let encode =
            |parts: &[i16]| Bytes::from(parts.iter().flat_map(|part| part.to_be_bytes()).collect::<Vec<_>>());
        assert_eq!(numeric(&encode(&[2, 0, 0, 2, 12, 3400])).as_deref(), Some("12.34"));
        assert_eq!(numeric(&encode(&[1, -1, 0x4000, 4, 5])).as_deref(), Some("-0.0005"));
        assert_eq!(numeric(&encode(&[1, 1, 0, 0, 7])).as_deref(), Some("70000"));
        assert_eq!(numeric(&encode(&[0, 0, 0, 0])).as_deref(), Some("0"));
    }
}
