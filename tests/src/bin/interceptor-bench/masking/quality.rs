//! What is found of what is there, and what is taken for something that it is not.

use std::{collections::BTreeMap, fmt::Write as _, fs, ops::Range, path::Path, time::Instant};

use anyhow::{Context, Result};
use interceptor_core::mask::{Detector, Detectors};
use serde::Deserialize;

use super::{
    PART,
    corpora::{self, Corpora, Marked},
};
use crate::measured::{Measured, Place};

const PRESIDIO: &str = include_str!("presidio.py");

/// The kinds of A that have a form: Presidio's word, the generator's, and our detector.
const KINDS: [(&str, &str, Detector); 7] = [
    ("CREDIT_CARD", "CREDIT_CARD", Detector::Card),
    ("PHONE_NUMBER", "PHONE_NUMBER", Detector::Phone),
    ("US_SSN", "US_SSN", Detector::UsSsn),
    ("IBAN_CODE", "IBAN_CODE", Detector::Iban),
    ("IP_ADDRESS", "IP_ADDRESS", Detector::Ip),
    ("EMAIL_ADDRESS", "EMAIL_ADDRESS", Detector::Email),
    ("URL", "DOMAIN_NAME", Detector::Url),
];

/// How much of a value must be covered.
const COVERED: f64 = 0.9;

/// What somebody found in one corpus.
#[derive(Debug, Deserialize)]
struct Found {
    seconds: f64,
    hits: Vec<Vec<(usize, usize, String)>>,
    /// Everything that was hidden, whatever it was taken for.
    all: Vec<Vec<(usize, usize)>>,
}

pub(super) fn part(
    corpora: &Corpora,
    detectors: &Detectors,
    folder: &Path,
    measured: &mut Measured,
) -> Result<()> {
    eprintln!("  what is found");
    let said = corpora::run(PRESIDIO, folder)?;
    let presidio: BTreeMap<String, Found> = serde_json::from_slice(&said).context("what Presidio found")?;
    let mut missed = String::new();
    for (name, marked) in [("a", &corpora.a), ("d", &corpora.d)] {
        let texts: Vec<&str> = marked.iter().map(|one| one.text.as_str()).collect();
        let ours = ours(detectors, &texts);
        let theirs = presidio.get(name).context("a corpus that Presidio was asked about")?;
        for (target, found) in [("interceptor", &ours), ("presidio", theirs)] {
            let load = if name == "a" { "A: sentences" } else { "D: secrets" };
            let place = Place { part: PART, load, target };
            measured.add(place, "speed", "MB/s", megabytes(&texts) / found.seconds);
            if name == "a" {
                sentences(place, marked, found, measured);
            } else {
                let recall = recall(marked, found, |_| true);
                measured.add(place, "masked recall", "", recall);
            }
        }
        note(&mut missed, marked, &ours);
    }
    let cells: Vec<&str> = corpora.c.iter().map(String::as_str).collect();
    let theirs = presidio.get("c").context("a corpus that Presidio was asked about")?;
    for (target, found) in [("interceptor", &ours(detectors, &cells)), ("presidio", theirs)] {
        let place = Place { part: PART, load: "C: cells of a business", target };
        measured.add(place, "false positives", "of 10 000", wrong(found));
    }
    for (text, hits) in cells.iter().zip(&ours(detectors, &cells).hits) {
        for (_, _, kind) in hits {
            let _ = writeln!(missed, "C: {kind} in {text:?}");
        }
    }
    let numbers: Vec<&str> = corpora.numbers.iter().map(String::as_str).collect();
    let place = Place { part: PART, load: "random numbers of 12 to 19 digits", target: "interceptor" };
    measured.add(place, "false positives", "of 10 000", wrong(&ours(detectors, &numbers)));
    let file = folder.join("missed.txt");
    fs::write(&file, missed).with_context(|| format!("{}", file.display()))
}

fn sentences(place: Place<'_>, marked: &[Marked], found: &Found, measured: &mut Measured) {
    let is_structured = |kind: &str| KINDS.iter().any(|(_, known, _)| *known == kind);
    measured.add(place, "masked recall", "", recall(marked, found, is_structured));
    for (_, kind, _) in KINDS {
        let quantity = format!("masked recall: {kind}");
        measured.add(place, &quantity, "", recall(marked, found, |known| known == kind));
    }
    let (mut right, mut all) = (0.0, 0.0);
    for (one, hits) in marked.iter().zip(&found.hits) {
        for (from, to, kind) in hits {
            // Of other kinds only recall is asked.
            let Some((_, known, _)) = KINDS.iter().find(|(theirs, ..)| theirs == kind) else { continue };
            let of_kind = one.spans.iter().filter(|(_, _, kind)| kind == known);
            let inside: usize = of_kind.map(|(a, b, _)| common(&(*from..*to), &(*a..*b))).sum();
            all += 1.0;
            right += f64::from(u8::from(inside * 2 >= to - from));
        }
    }
    measured.add(place, "typed precision", "", right / all);
}

/// How much of what is to be found is covered.
fn recall(marked: &[Marked], found: &Found, wanted: impl Fn(&str) -> bool) -> f64 {
    let (mut covered, mut all) = (0.0, 0.0);
    for (one, hits) in marked.iter().zip(&found.all) {
        for span in one.spans.iter().filter(|(_, _, kind)| wanted(kind)) {
            all += 1.0;
            covered += f64::from(u8::from(is_covered(span, hits)));
        }
    }
    covered / all
}

fn is_covered((from, to, _): &(usize, usize, String), hits: &[(usize, usize)]) -> bool {
    let hidden = (*from..*to).filter(|at| hits.iter().any(|(a, b)| (a..b).contains(&at))).count();
    hidden as f64 >= COVERED * (to - from) as f64
}

fn common(one: &Range<usize>, other: &Range<usize>) -> usize {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}

/// How many of ten thousand texts something of a kind with a form was found in.
fn wrong(found: &Found) -> f64 {
    let is_wrong = |hits: &&Vec<(usize, usize, String)>| {
        hits.iter().any(|(_, _, kind)| {
            KINDS.iter().any(|(theirs, ..)| theirs == kind) || !kind.contains(char::is_uppercase)
        })
    };
    found.hits.iter().filter(is_wrong).count() as f64 * 1e4 / found.hits.len() as f64
}

/// What our detectors find, told as Presidio tells it.
fn ours(detectors: &Detectors, texts: &[&str]) -> Found {
    let begun = Instant::now();
    let found: Vec<_> = texts.iter().map(|text| detectors.find(text.as_bytes())).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let word = |detector: Detector| {
        let known = KINDS.iter().find(|(.., known)| *known == detector).map(|(theirs, ..)| *theirs);
        let own = Detector::WORDS.iter().find(|(_, known)| *known == detector).map(|(word, _)| *word);
        known.or(own).unwrap_or_default().to_owned()
    };
    let hits: Vec<Vec<_>> = texts
        .iter()
        .zip(found)
        .map(|(text, hits)| {
            let characters = |at: usize| text.get(..at).map_or(0, |before| before.chars().count());
            let told = hits
                .into_iter()
                .map(|hit| (characters(hit.range.start), characters(hit.range.end), word(hit.detector)));
            told.collect()
        })
        .collect();
    let all =
        hits.iter().map(|hits: &Vec<(usize, usize, String)>| hits.iter().map(|(a, b, _)| (*a, *b)).collect());
    Found { seconds, all: all.collect(), hits }
}

fn megabytes(texts: &[&str]) -> f64 {
    texts.iter().map(|text| text.len()).sum::<usize>() as f64 / 1e6
}

/// What we missed and what we took for something else, for whoever makes it better.
fn note(missed: &mut String, marked: &[Marked], found: &Found) {
    for ((one, all), hits) in marked.iter().zip(&found.all).zip(&found.hits) {
        let part = |from: usize, to: usize| one.text.chars().skip(from).take(to - from).collect::<String>();
        let has_form = |kind: &str| {
            KINDS.iter().any(|(_, known, _)| *known == kind) || !kind.contains(char::is_uppercase)
        };
        for span in one.spans.iter().filter(|(_, _, kind)| has_form(kind)) {
            if !is_covered(span, all) {
                let _ = writeln!(missed, "missed {}: {:?} in {:?}", span.2, part(span.0, span.1), one.text);
            }
        }
        for (from, to, kind) in hits {
            let known = KINDS.iter().find(|(theirs, ..)| theirs == kind).map_or("", |(_, known, _)| known);
            let mut right =
                one.spans.iter().filter(|(_, _, kind)| kind == known || !kind.contains(char::is_uppercase));
            if !right.any(|(a, b, _)| common(&(*from..*to), &(*a..*b)) * 2 >= to - from) {
                let _ = writeln!(missed, "wrong {kind}: {:?} in {:?}", part(*from, *to), one.text);
            }
        }
    }
}
