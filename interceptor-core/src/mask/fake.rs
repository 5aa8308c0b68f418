//! Values that are valid and nobody's: what stands for a hidden one where programs want one of its kind.
//!
//! Promise: one value always becomes the same under one key, and nothing of it is in what stands for it but its kind.

use super::Detector;

/// Numbers that payment processors have for tests; all are valid.
const CARDS: [&str; 8] = [
    "4111111111111111",
    "4012888888881881",
    "4222222222222",
    "5555555555554444",
    "5105105105105100",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
];

/// What stands for a value of that kind; `digest` is drawn from it and a key.
pub(super) fn value(kind: Option<Detector>, digest: &[u8; 32]) -> String {
    let [a, b, c, d, ..] = *digest;
    let number = u32::from_be_bytes([a, b, c, d]);
    match kind {
        Some(Detector::Email) => format!("user-{number:08x}@example.com"),
        Some(Detector::Url) => format!("https://example.com/{number:08x}"),
        // Kept for fiction in North America.
        Some(Detector::Phone) => format!("+1-{}-555-01{:02}", 200 + number / 100 % 700, number % 100),
        Some(Detector::Card) => {
            CARDS.get(number as usize % CARDS.len()).copied().unwrap_or_default().to_owned()
        }
        // Kept for advertisements.
        Some(Detector::UsSsn) => format!("987-65-432{}", number % 10),
        // Kept for documentation.
        Some(Detector::Ip) => {
            let net =
                ["192.0.2", "198.51.100", "203.0.113"].get(number as usize % 3).copied().unwrap_or_default();
            format!("{net}.{}", number / 3 % 254 + 1)
        }
        // None is kept for such of these.
        Some(
            Detector::Iban
            | Detector::NationalId
            | Detector::Jwt
            | Detector::AwsKey
            | Detector::ApiToken
            | Detector::PrivateKey
            | Detector::UrlPassword,
        )
        | None => format!("fake-{number:08x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Detectors;

    #[test]
    fn what_stands_for_a_value_is_of_its_kind() {
        for (word, kind) in Detector::WORDS {
            let detectors = Detectors::new(&[kind]).expect("the patterns are right");
            let fakes = (0..=255).map(|byte| value(Some(kind), &[byte; 32]));
            // Those of social security are kept because they are never given out.
            let kept = matches!(word, "email" | "url" | "phone" | "card" | "ip");
            for fake in fakes {
                let whole =
                    detectors.find(fake.as_bytes()).first().is_some_and(|hit| hit.range == (0..fake.len()));
                assert_eq!(whole, kept, "{word}: {fake}");
            }
        }
        assert_eq!(value(None, &[1; 32]), "fake-01010101");
    }
}
