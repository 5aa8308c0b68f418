//! Throughput as a picture: a bar for each target and load, of the relay's, with its spread.

use std::fmt::Write;

use super::measured::Measured;

const PART: &str = "throughput";
const BASE: &str = "relay";
/// Where the bars begin, how long a whole is, and how high a row.
const LEFT: f64 = 130.0;
const WHOLE: f64 = 420.0;
const ROW: f64 = 16.0;

/// The picture as SVG; `None` where nothing was measured.
pub(crate) fn throughput(measured: &Measured) -> Option<String> {
    let targets: Vec<&str> =
        measured.names(PART, |one| &one.target).into_iter().filter(|target| *target != "direct").collect();
    let loads = measured.names(PART, |one| &one.load);
    let mut body = String::new();
    let mut y = 30.0;
    for load in &loads {
        let _ = writeln!(body, "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{load}</text>", y + 12.0);
        y += ROW + 4.0;
        for target in &targets {
            let Some(middle) = measured.ratio(PART, load, "rate", [target, BASE]) else { continue };
            let colour = match *target {
                "relay" => "#8a8a8a",
                "pass" | "metadata" | "audit" | "power" => "#2563a8",
                _ => "#c98a2b",
            };
            let (width, middle_y) = (WHOLE * middle.median, y + ROW / 2.0);
            let (from, to) = (LEFT + width - WHOLE * middle.spread, LEFT + width + WHOLE * middle.spread);
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{target}</text>\
                 <rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
                 <path d=\"M{from:.1} {middle_y}H{to:.1}\" stroke=\"#000\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{:.3}</text>",
                LEFT - 6.0,
                y + 12.0,
                y + 2.0,
                ROW - 4.0,
                to + 6.0,
                y + 12.0,
                middle.median
            );
            y += ROW;
        }
        y += 8.0;
    }
    let (width, whole) = (LEFT + WHOLE * 1.25, LEFT + WHOLE);
    (!body.is_empty()).then(|| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{y:.0}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"8\" y=\"18\" font-size=\"13\">Transactions a second, of the raw relay's, everything on one core</text>\n\
             <path d=\"M{whole:.0} 26V{y:.0}\" stroke=\"#bbb\" stroke-dasharray=\"3 3\"/>\n{body}</svg>\n"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_ratio() {
        let one = |target, rate: f64| json!({"part": PART, "load": "l", "target": target, "quantity": "rate", "unit": "tx/s", "values": [rate]});
        let measured: Measured =
            serde_json::from_value(json!([one("relay", 100.0), one("audit", 50.0)])).expect("well-formed");
        let picture = throughput(&measured).expect("something was measured");
        assert!(picture.contains("width=\"210.0\""), "{picture}");
        assert!(throughput(&serde_json::from_value(json!([])).expect("well-formed")).is_none());
    }
}
