//! What was measured, raw: a value for each round. Whoever reads it divides and takes medians.

use serde_json::{Value, json};

/// Every measurement so far.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    all: Vec<Measurement>,
}

/// One quantity of one target under one load.
#[derive(Debug)]
struct Measurement {
    part: &'static str,
    load: String,
    target: String,
    quantity: String,
    unit: &'static str,
    values: Vec<f64>,
}

/// Under what a value is filed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The part of the bench.
    pub(crate) part: &'static str,
    /// What was done.
    pub(crate) load: &'a str,
    /// By which way.
    pub(crate) target: &'a str,
}

impl Measured {
    /// Files the next round's value.
    pub(crate) fn add(&mut self, place: Place<'_>, quantity: &str, unit: &'static str, value: f64) {
        let known = self.all.iter_mut().find(|known| {
            known.part == place.part
                && known.load == place.load
                && known.target == place.target
                && known.quantity == quantity
        });
        match known {
            Some(known) => known.values.push(value),
            None => self.all.push(Measurement {
                part: place.part,
                load: place.load.to_owned(),
                target: place.target.to_owned(),
                quantity: quantity.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let all = self.all.iter().map(|one| {
            json!({
                "part": one.part, "load": one.load, "target": one.target, "quantity": one.quantity,
                "unit": one.unit, "values": one.values,
            })
        });
        all.collect()
    }
}
