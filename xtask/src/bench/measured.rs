//! What the story measured, and what follows from it: medians, and ratios of values from the same round.

use serde::{Deserialize, Serialize};

/// Everything that was measured.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Measured(Vec<Measurement>);

/// One quantity of one target under one load, a value for each round.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Measurement {
    /// The part of the bench.
    pub(crate) part: String,
    /// What was done.
    pub(crate) load: String,
    /// By which way.
    pub(crate) target: String,
    /// What was looked at.
    pub(crate) quantity: String,
    /// Its unit.
    pub(crate) unit: String,
    /// A value for each round.
    pub(crate) values: Vec<f64>,
}

/// A median, and half the distance between the quartiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    pub(crate) spread: f64,
}

impl Measured {
    /// All measurements of a part, in the order in which they were made.
    pub(crate) fn part<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.0.iter().filter(move |one| one.part == part)
    }

    /// The names of what a part did, or went by, in the order in which that was done.
    pub(crate) fn names<'a>(&'a self, part: &'a str, name: fn(&Measurement) -> &str) -> Vec<&'a str> {
        let mut names = Vec::new();
        for one in self.part(part) {
            let name = name(one);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The values of one quantity; empty where it was not measured.
    pub(crate) fn values(&self, part: &str, load: &str, target: &str, quantity: &str) -> &[f64] {
        let found = self.0.iter().find(|one| {
            one.part == part && one.load == load && one.target == target && one.quantity == quantity
        });
        found.map_or(&[], |one| &one.values)
    }

    /// The middle of one quantity.
    pub(crate) fn middle(&self, part: &str, load: &str, target: &str, quantity: &str) -> Option<Middle> {
        Middle::of(self.values(part, load, target, quantity).to_vec())
    }

    /// The middle of the ratios of one quantity between two targets, round by round.
    pub(crate) fn ratio(&self, part: &str, load: &str, quantity: &str, targets: [&str; 2]) -> Option<Middle> {
        let rounds = self.rounds(part, load, quantity, targets);
        Middle::of(rounds.filter(|(_, to)| *to != 0.0).map(|(of, to)| of / to).collect())
    }

    /// The middle of the differences of one quantity between two targets, round by round.
    pub(crate) fn difference(
        &self,
        part: &str,
        load: &str,
        quantity: &str,
        targets: [&str; 2],
    ) -> Option<Middle> {
        Middle::of(self.rounds(part, load, quantity, targets).map(|(of, to)| of - to).collect())
    }

    fn rounds(
        &self,
        part: &str,
        load: &str,
        quantity: &str,
        [of, to]: [&str; 2],
    ) -> impl Iterator<Item = (f64, f64)> {
        let [of, to] = [of, to].map(|target| self.values(part, load, target, quantity));
        of.iter().copied().zip(to.iter().copied())
    }
}

impl Middle {
    /// The middle of some values; `None` where there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (values.len().checked_sub(1)? as f64);
            let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Self { median: at(0.5)?, spread: (at(0.75)? - at(0.25)?) / 2.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_between() {
        assert_eq!(Middle::of(vec![4.0, 1.0, 2.0, 3.0]), Some(Middle { median: 2.5, spread: 0.75 }));
        assert_eq!(Middle::of(vec![7.0]), Some(Middle { median: 7.0, spread: 0.0 }));
        assert_eq!(Middle::of(Vec::new()), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let one = |target, values: [f64; 3]| serde_json::json!({"part": "p", "load": "l", "target": target, "quantity": "q", "unit": "u", "values": values});
        let values = serde_json::json!([one("a", [1.0, 4.0, 9.0]), one("b", [2.0, 8.0, 9.0])]);
        let measured: Measured = serde_json::from_value(values).expect("well-formed");
        let ratio = measured.ratio("p", "l", "q", ["a", "b"]).expect("measured");
        assert_eq!(ratio.median, 0.5);
    }
}
