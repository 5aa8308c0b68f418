//! What an operator does: names, pass, release, kill, reload, observe, why, doctor.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use interceptor::kernel::layer;
use interceptor_tests::{
    Bed, Job, Records, Setup,
    installation::{DSN, POLICY},
    process::{self, PATIENCE, wait_until},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A server that says its name to whoever connects, and what it heard when the client is done.
fn echo() -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"hello from outside\n").expect("the client reads");
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard);
        heard
    });
    (port, thread)
}

const TALK: &str = "import socket, sys\n\
                    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)\n\
                    print(s.recv(100).decode(), s.getpeername()[1])\n\
                    s.send(b'12345')\n";

pub(crate) fn passed(port: u16) -> Setup {
    Setup::empty()
        .resource(&format!(
            "[resource.model]\nhosts = [\"model.internal\"]\nports = [8443]\nupstream = \"127.0.0.1:{port}\"\n\
             dial = \"host\"\nkeeps = [\"MODEL_API_KEY\"]\n"
        ))
        .policy(
            "10-test.cedar",
            "@id(\"pass\")\npermit (principal, action == Action::\"pass\", resource == Resource::\"model\");\n\
             @id(\"look-up\")\npermit (principal, action == Action::\"resolve\", resource is Name) when { resource.inventory };\n",
        )
}

#[test]
fn a_passed_resource_is_relayed_and_recorded() {
    let (port, server) = echo();
    let installation = passed(port).start();
    let script = installation.script("talk.py", TALK);
    let words = ["/usr/bin/python3", &script, "model.internal", "8443"];
    let mut command = installation.captured("release-bot", &words);
    command.env("MODEL_API_KEY", "kept").env("OTHER_API_KEY", "replaced");
    let finished = process::run(command).succeeded().says("hello from outside");
    assert!(finished.stdout.contains("8443"), "the agent sees the peer that it dialled: {finished}");
    assert!(finished.stderr.contains("kept for passed resources: MODEL_API_KEY"), "{finished}");
    assert_eq!(server.join().expect("the server ends well"), "12345");
    let records = installation.records_once("the passed connection's end", |records| {
        records.agents().any(|exchange| exchange.phase() == "pass" && !exchange.status().is_empty())
    });
    let pass = records.agents().find(|exchange| exchange.phase() == "pass").expect("just seen");
    assert_eq!(pass.at("/request/resource"), "model");
    assert!(pass.at("/outcome/bytes").as_u64() >= Some(19), "bytes are counted: {:#?}", pass.0);
    installation.finish();
}

#[test]
fn names_resolve_by_policy_and_are_recorded() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = "import socket\n\
                  print('known', sorted({a[4][0] for a in socket.getaddrinfo('db.internal', 5432)}))\n\
                  try: print('unknown', socket.getaddrinfo('exfiltrated-rows.example.org', 80))\n\
                  except OSError as error: print('unknown', error)\n";
    let finished = installation.run("release-bot", &["/usr/bin/python3", "-c", script]).succeeded();
    assert!(finished.stdout.contains("198.18.") || finished.stdout.contains("198.19."), "{finished}");
    assert!(!finished.stdout.contains("unknown [("), "{finished}");
    // The gate itself answers for names of the inventory, so the author does not matter here.
    let asked = |records: &Records, name: &str| {
        records
            .0
            .iter()
            .filter(|one| one.phase() == "resolve" && one.statement().contains(name))
            .cloned()
            .collect::<Vec<_>>()
    };
    let records = installation.records_once("both look-ups", |records| {
        !asked(records, "db.internal").is_empty() && !asked(records, "exfiltrated-rows").is_empty()
    });
    assert!(asked(&records, "db.internal").iter().all(|one| one.allowed()), "{:#?}", records.brief());
    assert!(asked(&records, "exfiltrated-rows").iter().all(|one| !one.allowed()));
    installation.finish();
}

/// Whoever serves a zone reads the names that are asked for in it, and browsers learn of HTTP/3 and of encrypted client hellos
/// by records of their own.
#[test]
fn names_carry_little_out_and_only_addresses_in() {
    let installation = Setup::empty()
        .resource("[resource.model]\nhosts = [\"model.internal\"]\nports = [8443]\nupstream = \"127.0.0.1:1\"\ndial = \"host\"\n")
        .policy(
            "10-test.cedar",
            "@id(\"look-up\")\npermit (principal, action == Action::\"resolve\", resource is Name);\n",
        )
        .settings("run-names-kib = 1")
        .start();
    let script = installation.script("names.py", include_str!("../clients/names.py"));
    let said = installation.run("release-bot", &["/usr/bin/python3", &script]).succeeded().stdout;
    let said: BTreeMap<_, _> = said.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(said.get("the inventory's HTTPS"), Some(&"0 with 0"));
    assert_eq!(said.get("somebody's HTTPS"), Some(&"0 with 0"));
    // "127.1.1.100" and its like are 11 bytes long, and the name before them is 9.
    assert_eq!(said.get("answered"), Some(&"92"), "{said:?}");
    assert_eq!(said.get("the first again"), Some(&"0 with 1"));
    assert_eq!(said.get("one more"), Some(&"5 with 0"));
    assert_eq!(said.get("one more by TCP"), Some(&"5 with 0"));
    assert_eq!(said.get("the inventory's"), Some(&"0 with 1"));
    let records = installation.records_once("a refusal", |records| {
        records.0.iter().any(|one| one.phase() == "resolve" && !one.allowed())
    });
    let refused: Vec<_> = records.0.iter().filter(|one| !one.allowed()).collect();
    assert!(
        refused.iter().all(|one| one
            .at("/request/verdict/reason")
            .as_str()
            .is_some_and(|why| why.contains("run-names-kib"))),
        "{:#?}",
        records.brief()
    );
    installation.finish();
}

#[test]
fn observe_forwards_and_marks() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let options = ["--agent", "release-bot", "--observe", "--reason", "first look"];
    let words = installation.psql_words(&["-c", "CREATE TABLE made_while_observed (id int)"]);
    process::run(installation.captured_with(&options, &words)).succeeded();
    let records = installation.ended("made_while_observed");
    let one = records.one("made_while_observed");
    assert!(one.allowed() && one.status() == "completed");
    assert_eq!(one.at("/request/verdict/mode"), "observe");
    assert_eq!(one.at("/request/verdict/would_be"), "denied");
    let words = installation.psql_words(&["-c", "SELECT 1"]);
    let without_reason = ["--agent", "release-bot", "--observe"];
    process::run(installation.captured_with(&without_reason, &words)).failed().says("reason");
    installation.finish();
}

#[test]
fn a_run_is_listed_and_killed() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let job = Job::start(installation.captured("release-bot", &["sh", "-c", "sleep 600 & sleep 600"]), "");
    wait_until("the run to be listed", PATIENCE, || installation.runs().len() == 1);
    let runs = installation.runs();
    assert_eq!(runs[0]["agent"], "release-bot");
    assert_eq!(runs[0]["guarantee"], "structural");
    let run = runs[0]["run"].as_str().expect("a run has a name").to_owned();
    installation.interceptor(&["kill", &run]).succeeded();
    let finished = job.finish(Duration::from_secs(30));
    assert!(!finished.status.success() && !finished.timed_out, "{finished}");
    wait_until("the run to be gone", PATIENCE, || installation.runs().is_empty());
    installation.interceptor(&["kill", &run]).failed();
    installation.finish();
}

#[test]
fn a_release_relays_for_a_time_and_is_recorded() {
    let (port, server) = echo();
    let bed = Bed::start();
    // The same as a passed resource, but no rule permits it.
    let installation =
        passed(port).policy("10-test.cedar", POLICY.replace("orders", "model").as_str()).start();
    let wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n";
    let script = installation.script("talk.py", &format!("{wait}{TALK}"));
    let words = ["/usr/bin/python3", &script, "model.internal", "8443"];
    let job = Job::start(installation.captured("release-bot", &words), "");
    wait_until("the run to be listed", PATIENCE, || installation.runs().len() == 1);
    let run = installation.runs()[0]["run"].as_str().expect("a run has a name").to_owned();
    installation.interceptor(&["release", &run, "--for", "1m", "--reason", ""]).failed().says("reason");
    installation
        .interceptor(&["release", &run, "--for", "1m", "--reason", "the vendor is on the phone"])
        .succeeded();
    installation.script("go", "");
    job.finish(PATIENCE).succeeded().says("hello from outside");
    assert_eq!(server.join().expect("the server ends well"), "12345");
    let text = installation.interceptor(&["audit", "tail", "-n", "100"]).succeeded().stdout;
    assert!(text.contains("the vendor is on the phone"), "{text}");
    drop(bed);
    installation.finish();
}

#[test]
fn a_reload_judges_open_sessions_anew() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = installation.script(
        "two.py",
        "import psycopg, sys\n\
         with psycopg.connect(sys.argv[1], autocommit=True) as session:\n\
         \x20   print(session.execute('SELECT 1 FROM users LIMIT 1').fetchone(), flush=True)\n\
         \x20   sys.stdin.readline()\n\
         \x20   try: print('second', session.execute('SELECT 2 FROM users LIMIT 1').fetchone())\n\
         \x20   except psycopg.Error as error: print('second', error.sqlstate)\n",
    );
    let python = interceptor_tests::places::python().display().to_string();
    let mut command = installation.captured("release-bot", &[&python, &script, DSN]);
    use std::os::unix::process::CommandExt;
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).process_group(0);
    let mut child = command.spawn().expect("run");
    wait_until("the first statement", PATIENCE, || !installation.records().with("SELECT 1").is_empty());
    installation.put_policy("10-test.cedar", "this is no policy");
    installation.interceptor(&["reload"]).failed().says("10-test.cedar");
    let stricter = format!(
        "{POLICY}\n@id(\"closed\")\n@say(\"closed for today\")\nforbid (principal, action == Action::\"data.read\", resource);\n"
    );
    installation.put_policy("10-test.cedar", &stricter);
    installation.interceptor(&["reload"]).succeeded();
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("second 42501"), "{said}");
    installation.finish();
}

#[test]
fn a_refusal_explains_itself() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let finished = installation.psql("DROP TABLE users;\n");
    let number: String = finished
        .stderr
        .split("interceptor why ")
        .nth(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    assert!(!number.is_empty(), "{finished}");
    installation.ended("DROP TABLE users");
    for words in [&["why", number.as_str()][..], &["why", "--last"]] {
        let why = installation.interceptor(words).succeeded();
        assert!(why.stdout.contains("no-drops") && why.stdout.contains("10-test.cedar:"), "{why}");
    }
    let explained =
        ["policy", "explain", "--agent", "release-bot", "--resource", "orders", "DROP TABLE users"];
    let explained = installation.interceptor(&explained);
    assert!(explained.text().contains("no-drops"), "{explained}");
    installation.interceptor(&["policy", "check"]).succeeded();
    installation.interceptor(&["audit", "show", &number]).succeeded().says("DROP TABLE users");
    installation
        .interceptor(&["audit", "search", "--refused", "--verb", "schema.drop"])
        .succeeded()
        .says("DROP");
    let csv = installation.interceptor(&["audit", "export", "--format", "csv"]).succeeded().stdout;
    assert!(csv.lines().count() > 2 && csv.starts_with("record,"), "{csv}");
    installation.finish();
}

/// A call that fails without a word is explained, and what clients try by themselves is told from what is meant.
#[test]
fn a_failed_call_explains_itself() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let script = "import socket, sys\n\
                  kind, to = sys.argv[1], sys.argv[2:]\n\
                  try:\n\
                  \x20   if kind == 'udp': socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((to[0], int(to[1])))\n\
                  \x20   if kind == 'udp6': socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect((to[0], int(to[1])))\n\
                  \x20   if kind == 'mptcp': socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
                  \x20   if kind == 'mark': socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)\n\
                  \x20   sys.exit('it worked')\n\
                  except OSError as error: print(error)\n";
    for (words, code, mend) in [
        (&["udp", "192.0.2.1", "443"][..], "probe-quic", "nothing"),
        (&["udp6", "2001:4860:4860::8888", "443"], "probe-ipv6", "nothing"),
        (&["udp", "192.0.2.1", "9999"], "refused-udp", "use TCP"),
        (&["udp6", "2001:db8::1", "9999"], "refused-udp", "use TCP"),
        (&["mptcp"], "probe-multipath", "nothing"),
        (&["mark"], "refused-option", "leave it out"),
    ] {
        let words: Vec<_> = ["/usr/bin/python3", "-c", script].iter().chain(words).copied().collect();
        installation.run("release-bot", &words).succeeded();
        let mut process = None;
        wait_until("the refusal", PATIENCE, || {
            let tail = installation.interceptor(&["--json", "audit", "tail", "-n", "1000"]).succeeded();
            let lines = tail.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut attempts = lines.filter_map(|line| line.get("attempt").cloned());
            process = attempts.rfind(|one| one.get("code") == Some(&code.into()));
            process.is_some()
        });
        let process = process.and_then(|one| one.get("process")?.as_u64()).expect("a process");
        installation.interceptor(&["why", "--pid", &process.to_string()]).succeeded().says(code).says(mend);
    }
    installation.finish();
}

#[test]
fn doctor_finds_this_host_able() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let doctor = installation.interceptor(&["doctor"]).succeeded();
    assert!(doctor.stdout.lines().count() > 5, "{doctor}");
    installation.finish();
}

#[test]
fn a_daemon_that_requires_lsm_programs_starts_only_where_the_kernel_calls_them() {
    let setup = Setup::empty().settings("lsm = \"required\"\nlabels = \"strict\"");
    match layer::is_called() {
        Err(why) => {
            let daemon = setup.write().interceptor(&["daemon"]).failed();
            daemon.says("`lsm = \"required\"`").says(&why);
        }
        Ok(()) => {
            let installation = setup.start();
            assert_eq!(installation.status()["lsm"], "in force");
            installation.finish();
        }
    }
}

#[test]
fn init_writes_what_works() {
    let installation = Setup::empty().write();
    std::fs::remove_dir_all(installation.places().configuration()).expect("own folder");
    let password = installation.script("password", "a password\n");
    let words = [
        "init",
        "--host",
        "db.example.org",
        "--port",
        "5432",
        "--user",
        "app",
        "--agent",
        "release-bot",
        "--password-file",
        &password,
    ];
    installation.interceptor(&words).succeeded();
    installation.interceptor(&["policy", "check"]).succeeded();
    installation.interceptor(&["policy", "test"]).succeeded();
    installation.interceptor(&words).failed().says("there already");
}

#[test]
fn signals_and_exit_codes_pass_through() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    assert_eq!(installation.run("release-bot", &["sh", "-c", "exit 37"]).code(), 37);
    assert_eq!(installation.run("release-bot", &["no-such-command-anywhere"]).code(), 127);
    let trap = "trap 'echo trapped; exit 9' TERM; : > ready; while :; do sleep 0.1; done";
    let job = Job::start(installation.captured("release-bot", &["sh", "-c", trap]), "");
    wait_until("the trap", PATIENCE, || installation.work().join("ready").exists());
    job.signal(Signal::SIGTERM);
    let finished = job.finish(Duration::from_secs(30));
    assert_eq!(finished.code(), 9, "{finished}");
    assert!(finished.stdout.contains("trapped"), "{finished}");
    installation.finish();
}

#[test]
fn wrong_use_is_one_clear_line() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let wrong = [
        (
            &["run", "--agent", "nobody-of-that-name", "--user", "nobody", "--", "true"][..],
            "nobody-of-that-name",
        ),
        (&["run", "--user", "no-such-user", "--agent", "release-bot", "--", "true"], "no-such-user"),
        (&["run", "--agent", "release-bot", "--", "true"], "--user"),
        (&["kill", "r0000000000"], "r0000000000"),
        (&["kill", "nonsense"], "nonsense"),
        (&["audit", "show", "999999"], "999999"),
    ];
    for (words, named) in wrong {
        let finished = installation.interceptor(words).failed();
        assert!(finished.stderr.contains(named), "{named:?} is not named: {finished}");
        assert!(!finished.stderr.contains("panicked"), "{finished}");
    }
    installation.finish();
    let broken = Setup::of(&bed).resource("[resource.twice]\nnonsense = 1\n").write();
    let finished = broken.interceptor(&["daemon"]).failed();
    assert!(
        finished.stderr.contains("resources.toml:") && finished.stderr.contains("nonsense"),
        "{finished}"
    );
}
