//! Ordinary tools of developers work in a run as they do outside of one.

use std::time::Duration;

use interceptor_tests::{Bed, Job, Setup, places};

#[test]
fn developers_tools_work() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let folder = places::scratch("tools");
    std::fs::write(folder.path().join("tools.sh"), include_str!("../clients/tools.sh")).expect("a script");
    let python = places::python().display().to_string();
    // As root, since tools are found in its home on many hosts. It has no rights that a run does not have.
    let mut command = installation.command(&["run", "--user", "root", "--agent", "release-bot", "--"]);
    for (name, value) in std::env::vars().filter(|(name, _)| name == "RUSTUP_HOME" || name == "PATH") {
        command.env(name, value);
    }
    let rustup = std::env::var("HOME").map(|home| format!("{home}/.rustup")).unwrap_or_default();
    if std::env::var_os("RUSTUP_HOME").is_none() && std::path::Path::new(&rustup).is_dir() {
        command.env("RUSTUP_HOME", rustup);
    }
    command.args(["bash", "tools.sh", &python]).current_dir(folder.path());
    let finished = Job::start(command, "").finish(Duration::from_secs(120)).succeeded();
    for tool in ["bash", "git", "make", "python", "venv", "node", "npm", "cargo"] {
        assert!(finished.stdout.contains(&format!("ok {tool}\n")), "no {tool}: {finished}");
    }
    installation.finish();
}
