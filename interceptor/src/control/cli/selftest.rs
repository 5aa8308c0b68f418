//! `doctor --self-test`: ways around, tried on this host, in a run and beside it.

use std::{
    env,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use super::output::{Failure, Printer, Tone};
use crate::{
    launch::selftest::{self, Came, Prober, Tried},
    places::Places,
};

/// Tries in a run, and prints what came of it for [`run`].
pub(super) fn try_captured(places: &Places) -> ExitCode {
    print(places, Prober::Captured)
}

/// Tries without capture.
pub(super) fn try_free(places: &Places) -> ExitCode {
    print(places, Prober::Free)
}

fn print(places: &Places, prober: Prober) -> ExitCode {
    match serde_json::to_string(&selftest::try_all(places, prober)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// `interceptor doctor --self-test`
pub(super) fn run(root: Option<&Path>, printer: &Printer) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("the self-test starts a run: call it with sudo"));
    }
    let own =
        env::current_exe().map_err(|error| Failure::host(format!("this program's own path: {error}")))?;
    let place: Vec<_> = root.into_iter().flat_map(|root| ["--root".as_ref(), root.as_os_str()]).collect();
    let mut free = Command::new(&own);
    free.args(&place).arg("self-test-free");
    let free = tried(free)?;
    let mut captured = Command::new(&own);
    // Root without a capability is the hardest case that a run can be.
    captured.args(&place).args(["run", "--user", "0", "--"]).arg(&own).args(&place).arg("self-test");
    let captured = tried(captured)?;
    let mut good = captured.len() == free.len() && !captured.is_empty();
    let mut rows = Vec::new();
    for (inside, outside) in captured.iter().zip(&free) {
        let (word, tone) = match (&inside.came, &outside.came) {
            (Came::Through | Came::NotTried, _) => {
                good = false;
                ("OPEN", Tone::Bad)
            }
            (Came::Refused(_), Came::Refused(_)) => ("not on this host", Tone::Notice),
            (Came::Refused(_), Came::Through | Came::NotTried) => ("closed", Tone::Good),
        };
        rows.push((inside, outside, word, tone));
    }
    if printer.is_json() {
        let list: Vec<_> = rows
            .iter()
            .map(|(inside, outside, word, _)| {
                serde_json::json!({
                    "number": inside.number, "way": inside.way, "state": word, "captured": inside.came,
                    "free": outside.came,
                })
            })
            .collect();
        printer.json(&list)?;
    } else {
        let cells = rows.iter().map(|(inside, outside, word, tone)| {
            vec![
                (inside.number.to_string(), Tone::Faint),
                (inside.way.clone(), Tone::Plain),
                ((*word).to_owned(), *tone),
                (told(&inside.came), Tone::Plain),
                (told(&outside.came), Tone::Faint),
            ]
        });
        printer.table(&["#", "way around", "here", "in a run", "without capture"], cells.collect())?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn told(came: &Came) -> String {
    match came {
        Came::Through => "goes through".to_owned(),
        Came::Refused(how) => how.clone(),
        Came::NotTried => "not tried: it would send".to_owned(),
    }
}

fn tried(mut command: Command) -> Result<Vec<Tried>, Failure> {
    let failed = |how: String| Failure::host(format!("the self-test could not be done: {how}"));
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it said nothing").to_owned();
    if !output.status.success() {
        return Err(failed(last));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(|error| failed(error.to_string()))
}
