//! Ordinary tools of developers work in a run as they do outside of one.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
};

use interceptor_tests::{Bed, Job, Setup, places, process::PATIENCE};

use crate::operate::passed;

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
    let finished = Job::start(command, "").finish(3 * PATIENCE).succeeded();
    for tool in ["bash", "git", "make", "python", "venv", "node", "npm", "cargo"] {
        assert!(finished.stdout.contains(&format!("ok {tool}\n")), "no {tool}: {finished}");
    }
    installation.finish();
}

/// Programs with musl, as in many containers' images, look at loopback before they look up a name.
#[test]
fn a_program_of_musls_works() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let source = installation.script("musl_lookup.c", include_str!("../clients/musl_lookup.c"));
    let program = source.trim_end_matches(".c");
    let mut compiler = Command::new(places::tool("musl-gcc"));
    compiler.args(["-static", "-o", program, &source]);
    Job::start(compiler, "").finish(PATIENCE).succeeded();
    let said = installation.run("release-bot", &[program, "db.internal", "5432"]).succeeded();
    // In which order is musl's to say.
    said.says("IPv6: connected").says("IPv4: connected");
    installation.finish();
}

/// The port of a server that gives one page to whoever asks; it goes with the tests.
fn page() -> u16 {
    const PAGE: &str = "<html><body><script>document.body.append('made of ' + 6 * 7)</script></body></html>";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A browser may open more connections than it uses.
            std::thread::spawn(move || {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
                if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
                }
            });
        }
    });
    port
}

/// A browser makes processes of many kinds, asks the kernel for everything, and would rather speak QUIC. Namespaces of
/// its own, which its sandbox needs, no run has.
#[test]
fn a_headless_browser_works() {
    let installation = passed(page()).start();
    let browser = places::tool("chromium-headless-shell").display().to_string();
    let words = [&browser, "--no-sandbox", "--disable-gpu", "--dump-dom", "http://model.internal:8443/"];
    let mut command = installation.captured("release-bot", &words);
    command.env("HOME", installation.work()).current_dir(installation.work());
    let finished = Job::start(command, "").finish(3 * PATIENCE).succeeded();
    assert!(finished.stdout.contains("made of 42"), "the page was not made: {finished}");
    installation.records_once("the passed connection", |records| {
        records
            .agents()
            .any(|exchange| exchange.phase() == "pass" && exchange.at("/request/resource") == "model")
    });
    installation.finish();
}
