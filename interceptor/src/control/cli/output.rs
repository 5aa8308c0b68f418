//! What people and programs are shown: tables on a terminal, plain columns elsewhere, JSON when asked.
//!
//! Whatever came from an agent or an upstream passes [`printable`] before a person sees it.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use interceptor_core::text;
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

/// Why a command did not do what it was asked, with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The answer is no: exit code 1.
    pub fn no(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// Wrong use: exit code 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }

    /// The interceptor or the host is not able: exit code 3.
    pub fn host(text: impl Into<String>) -> Self {
        Self { code: 3, text: text.into() }
    }

    /// An error that the host is to blame for, with its causes.
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self::host(crate::telemetry::chain(error))
    }
}

/// How a cell is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary.
    Plain,
    /// Allowed, present, well.
    Good,
    /// Refused, missing, broken.
    Bad,
    /// Worth a look.
    Notice,
    /// Of little weight.
    Faint,
}

/// Prints in the form that was asked for.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    colour: bool,
}

impl Printer {
    /// JSON if `json`, else text; coloured on a terminal unless `NO_COLOR` is set.
    pub fn new(json: bool) -> Self {
        let colour =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { json, colour }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints `value` as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(|error| Failure::of(&error))?;
        self.line(&line)
    }

    /// Prints one line; a closed pipe ends the output without complaint.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        match writeln!(std::io::stdout(), "{text}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Failure::of(&error)),
            Ok(()) => Ok(()),
        }
    }

    /// Prints a heading and rows. Every cell is neutralised. On a terminal that has the room the last column is
    /// wrapped under itself.
    pub fn table(&self, heading: &[&str], rows: Vec<Vec<(String, Tone)>>) -> Result<(), Failure> {
        const GAP: u16 = 2;
        const LEAST: usize = 16;
        let widest = |place: usize| {
            let cells = rows.iter().filter_map(|row| row.get(place)).map(|(text, _)| text.chars().count());
            cells.chain(heading.get(place).map(|name| name.len())).max().unwrap_or(0)
        };
        let last = heading.len().saturating_sub(1);
        let before: usize = (0..last).map(|place| widest(place) + usize::from(GAP)).sum();
        let roomy = self.width().is_some_and(|width| width >= before + LEAST);
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(if roomy {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        table.set_header(heading.iter().map(|name| {
            let cell = Cell::new(name.to_uppercase());
            if self.colour && roomy { cell.add_attribute(Attribute::Dim) } else { cell }
        }));
        for row in rows {
            table.add_row(row.into_iter().map(|(text, tone)| self.cell(&text, tone)));
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if place < last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    fn cell(&self, text: &str, tone: Tone) -> Cell {
        let cell = Cell::new(printable(text));
        match tone {
            _ if !self.colour => cell,
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Notice => cell.fg(Color::Yellow),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }

    /// `text` in the colour of its tone.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        use owo_colors::OwoColorize as _;
        match tone {
            _ if !self.colour => text.to_owned(),
            Tone::Plain => text.to_owned(),
            Tone::Good => text.green().to_string(),
            Tone::Bad => text.red().to_string(),
            Tone::Notice => text.yellow().to_string(),
            Tone::Faint => text.dimmed().to_string(),
        }
    }

    /// Prints the heading of a section.
    pub fn heading(&self, text: &str) -> Result<(), Failure> {
        self.line(&self.paint(text, Tone::Faint))
    }

    /// The columns of the terminal; none where there is no terminal.
    pub fn width(&self) -> Option<usize> {
        Table::new().width().filter(|_| std::io::stdout().is_terminal()).map(usize::from)
    }

    /// Prints a name and what it is, aligned, and on a terminal wrapped under itself.
    pub fn field(&self, name: &str, value: &str) -> Result<(), Failure> {
        const INDENT: usize = 12;
        let room = self.width().map_or(usize::MAX, |width| width.saturating_sub(INDENT + 1).max(20));
        let value = text::printable_lines(value);
        let mut name = self.paint(&format!("{name:<INDENT$}"), Tone::Faint);
        let mut lines: Vec<String> = value.lines().flat_map(|line| wrap(line, room)).collect();
        if lines.is_empty() {
            lines.push("-".to_owned());
        }
        for line in lines {
            self.line(&format!("{name}{line}"))?;
            name = " ".repeat(INDENT);
        }
        Ok(())
    }

    /// Prints a failure to standard error and gives its exit code.
    pub fn failure(&self, failure: &Failure) -> ExitCode {
        if self.json {
            eprintln!("{}", serde_json::json!({ "error": failure.text, "code": failure.code }));
        } else {
            let text = text::printable_lines(&failure.text);
            eprintln!("interceptor: {}", text.trim_end());
        }
        ExitCode::from(failure.code)
    }
}

/// Text from elsewhere, safe to show in one line.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    text::printable(text)
}

/// `line` in pieces of at most `room` characters, broken between words where that is possible.
fn wrap(line: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    while rest.len() > room {
        let blank = rest.iter().take(room).rposition(|c| *c == ' ').filter(|at| *at > room / 3);
        let left = rest.split_off(blank.map_or(room, |at| at + 1));
        pieces.push(rest.into_iter().collect::<String>().trim_end().to_owned());
        rest = left;
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

/// Microseconds of the Unix epoch as local time.
pub(super) fn when(at: i64) -> String {
    Timestamp::from_microsecond(at).map_or_else(
        |_| at.to_string(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    )
}

/// Microseconds of the Unix epoch as local time: of today the time alone, of other days the date with it.
pub(super) fn clock(at: i64) -> String {
    let Ok(at) = Timestamp::from_microsecond(at) else { return at.to_string() };
    let (at, now) = (at.to_zoned(TimeZone::system()), Timestamp::now().to_zoned(TimeZone::system()));
    let form = if at.date() == now.date() { "%H:%M:%S%.3f" } else { "%m-%d %H:%M:%S%.3f" };
    at.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_between_words_and_nothing_is_lost() {
        assert_eq!(wrap("select a from b", 10), ["select a", "from b"]);
        assert_eq!(wrap("aaaaaaaaaaaa", 5), ["aaaaa", "aaaaa", "aa"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("short", usize::MAX), ["short"]);
    }

    #[test]
    fn without_a_terminal_nothing_is_painted() {
        let printer = Printer { json: false, colour: false };
        for tone in [Tone::Plain, Tone::Good, Tone::Bad, Tone::Notice, Tone::Faint] {
            assert_eq!(printer.paint("x", tone), "x");
        }
    }
}
