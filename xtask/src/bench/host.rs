//! What was measured on: without it a number means nothing.

use std::{fs, process::Command};

use serde_json::{Map, Value};

/// How busy this host is, as the kernel says.
pub(crate) fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// Facts of this host and its tools; `before` is how busy it was when measuring began.
pub(crate) fn facts(before: &str) -> Map<String, Value> {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = [
        ("kernel", first_line("uname", &["-srm"])),
        ("processor", format!("{processors} of {}", field("/proc/cpuinfo", "model name"))),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("distribution", field_of("/etc/os-release", "PRETTY_NAME", '=')),
        ("compiler", first_line("rustc", &["--version"])),
        ("clients", first_line("pgbench", &["--version"])),
        ("commit", first_line("git", &["describe", "--always", "--dirty"])),
        ("load at the beginning", before.to_owned()),
        ("load at the end", load()),
    ];
    facts.into_iter().map(|(name, fact)| (name.to_owned(), Value::String(fact))).collect()
}

/// The first line that a program prints; empty where it cannot be asked.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

fn field(file: &str, name: &str) -> String {
    field_of(file, name, ':')
}

fn field_of(file: &str, name: &str, separator: char) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(separator));
    let found = fields.find(|(known, _)| known.trim() == name);
    found.map(|(_, value)| value.trim().trim_matches('"').to_owned()).unwrap_or_default()
}
