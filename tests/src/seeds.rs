//! Values that nobody may see, and whether they are found again in what somebody saw: as they are, or in any form that
//! a statement can give them.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// Values without a shape that a detector knows, so that columns alone tell what they are.
pub const SEEDED: [&str; 3] = ["zqx-sesame-4711", "zqx-pepper-8812", "zqx-tarragon-93"];
/// Values that tell by themselves what they are.
pub const TELLING: [&str; 3] = ["4111111111111111", "walter.white@example.org", "078-05-1120"];

/// All of them.
pub fn all() -> Vec<&'static str> {
    [&SEEDED[..], &TELLING[..]].concat()
}

/// Letters and digits alone, in lower case: what was split, put in other case, or written with other signs between. What no
/// text has stays: in a file of numbers, digits that happen to follow each other are no card number.
fn bare(text: &str) -> String {
    let binary = |sign: &char| {
        *sign == char::REPLACEMENT_CHARACTER || (sign.is_control() && !sign.is_ascii_whitespace())
    };
    text.chars()
        .filter(|sign| sign.is_ascii_alphanumeric() || binary(sign))
        .collect::<String>()
        .to_lowercase()
}

/// The letters of base64 that a value has wherever in a longer text it begins: those at both ends hang on what is beside.
fn in_base64(value: &str) -> Vec<String> {
    let from = |skipped: usize| {
        let text = [&vec![0; skipped], value.as_bytes()].concat();
        let letters = STANDARD_NO_PAD.encode(text);
        // A letter is six bits: whole ones that are of this value alone.
        let begins = (skipped * 8).div_ceil(6);
        let ends = (skipped + value.len()) * 8 / 6;
        letters.get(begins..ends).unwrap_or_default().to_owned()
    };
    (0..3).map(from).collect()
}

/// As addresses of pages have it: each byte, or only what stands for something else there.
fn in_url(value: &str) -> [String; 2] {
    let escaped = |byte: u8| format!("%{byte:02x}");
    let reserved = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => escaped(byte),
    };
    [value.bytes().map(escaped).collect(), value.bytes().map(reserved).collect()]
}

/// Which of `values` are found in `text`, and in which form.
pub fn found(text: &str, values: &[&str]) -> Vec<String> {
    let (squeezed, lower) = (bare(text), text.to_lowercase());
    let mut found = Vec::new();
    for value in values {
        let hex = [value.to_lowercase(), value.to_uppercase(), (*value).to_owned()].map(hex::encode);
        let md5 = format!("{:x}", <md5::Md5 as md5::Digest>::digest(value.as_bytes()));
        // The telling part alone.
        let part = value.split('-').nth(1).filter(|part| part.len() > 4);
        let forms = [
            ("plain", text.contains(*value)),
            ("any case, split by character", squeezed.contains(&bare(value))),
            ("reversed", squeezed.contains(&bare(value).chars().rev().collect::<String>())),
            ("hex", hex.iter().any(|hex| lower.contains(hex))),
            ("url", in_url(value).iter().any(|url| lower.contains(&url.to_lowercase()))),
            ("base64", in_base64(value).iter().any(|letters| text.contains(letters))),
            ("md5", lower.contains(&md5)),
            ("in part", part.is_some_and(|part| squeezed.contains(part))),
        ];
        found.extend(forms.iter().filter(|(_, is)| *is).map(|(form, _)| format!("{value} ({form})")));
    }
    found
}

/// Lines of `text` in which something is found, and what, for messages.
pub fn lines(text: &str, values: &[&str]) -> Vec<String> {
    let lines = text.lines().filter(|line| !found(line, values).is_empty());
    lines.map(str::to_owned).chain(found(text, values)).collect()
}

/// The same of every file below a folder, with its name: whatever is kept there, in whatever form.
pub fn files(folder: &Path, values: &[&str]) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => files(&path, values),
                Ok(kind) if kind.is_file() => {
                    let text = String::from_utf8_lossy(&fs::read(&path).expect("own file")).into_owned();
                    let lines = lines(&text, values);
                    lines.into_iter().map(|line| format!("{}: {line}", path.display())).collect()
                }
                _ => Vec::new(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_found() {
        for (text, form) in [
            ("a zqx-sesame-4711 b", "plain"),
            ("ZQX_SESAME 4711", "any case, split by character"),
            ("z|q|x|-|s|e|s|a|m|e|-|4|7|1|1", "any case, split by character"),
            ("z\nq\nx\n-\ns\ne\ns\na\nm\ne\n-\n4\n7\n1\n1\n", "any case, split by character"),
            ("1174-emases-xqz", "reversed"),
            ("7a71782d736573616d652d34373131", "hex"),
            ("\\x7A71782D736573616D652D34373131", "hex"),
            ("%7A%71%78%2D%73%65%73%61%6D%65%2D%34%37%31%31", "url"),
            ("enF4LXNlc2FtZS00NzEx", "base64"),
            ("sesame", "in part"),
        ] {
            assert!(found(text, &SEEDED).contains(&format!("zqx-sesame-4711 ({form})")), "{text}: {form}");
        }
        assert_eq!(found("walter.white%40example.org", &TELLING), ["walter.white@example.org (url)"]);
        for before in ["", "x", "xy"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}zqx-sesame-4711, and more"));
            assert_eq!(found(&text, &SEEDED), ["zqx-sesame-4711 (base64)"], "{text}");
        }
        assert!(found("name1 [secret] 17", &all()).is_empty());
        assert!(found("411111111111\0 1111", &all()).is_empty());
        assert_eq!(found("4111 1111\r\n\t1111, 1111", &TELLING).len(), 1);
    }
}
