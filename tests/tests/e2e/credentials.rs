//! The agent never holds a real credential, and the secret is found nowhere but between keeper and server.

use std::{fs, path::Path, time::Duration};

use interceptor_tests::{
    Bed, Installation, Job, RunningBed, Setup,
    installation::{self, POLICY, orders},
    leaks,
    process::{self, PATIENCE, wait_until},
};
use nix::sys::signal::Signal;

/// A captured psql that is logged in and waits.
fn waiting_session(installation: &Installation, bed: &RunningBed) -> Job {
    let words = installation.psql_words(&["-c", "SELECT 'waits', pg_sleep(600)"]);
    let mut command = installation.captured("release-bot", &words);
    command.env("PGPASSWORD", "the-agents-own").env("MY_API_TOKEN", "a-token-of-the-launcher");
    let job = Job::start(command, "");
    let active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%waits%' AND state = 'active'";
    wait_until("the session", PATIENCE, || bed.admin("orders", active) == "1");
    job
}

fn files_below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_secret_is_nowhere_to_be_found() {
    let bed = Bed::start();
    let mut installation = Setup::of(&bed).start();
    let secret = bed.secret().to_owned();
    let needle = secret.as_bytes();
    let job = waiting_session(&installation, &bed);
    let slice = installation.places().slice();
    let captured: Vec<_> =
        leaks::processes().into_iter().filter(|process| process.cgroup.contains(&slice)).collect();
    assert!(captured.len() >= 2, "the run's init and psql: {captured:?}");
    for process in &captured {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(!environment.contains(&secret), "in the environment of {process:?}");
        assert_eq!(leaks::memory_contains(process.pid, needle), Some(false), "in the memory of {process:?}");
    }
    let roles = installation.roles();
    assert!(roles.len() >= 3, "{roles:?}");
    // Proof that the search finds what is there: the statement that waits is in psql's memory.
    assert!(
        captured
            .iter()
            .any(|process| leaks::memory_contains(process.pid, b"'waits', pg_sleep(600)") == Some(true))
    );
    for (role, pid) in roles.iter().filter(|(role, _)| role != "keeper") {
        assert_eq!(leaks::memory_contains(*pid, needle), Some(false), "in the memory of the {role}");
    }
    job.signal(Signal::SIGTERM);
    let said = job.finish(PATIENCE);
    assert!(!said.text().contains(&secret));
    assert!(said.stderr.contains("MY_API_TOKEN"), "what was replaced is named: {said}");
    let records = installation.records();
    assert!(!records.0.iter().any(|exchange| exchange.0.to_string().contains(&secret)), "in the records");
    // Nor is the agent's own password, which stands among psql's arguments.
    assert!(installation::DSN.contains("password=whatever"));
    assert!(!records.0.iter().any(|exchange| exchange.0.to_string().contains("whatever password=whatever")));
    assert!(
        records.0.iter().any(|exchange| exchange.0.to_string().contains("password=***")),
        "its place is shown"
    );
    let daemon = installation.stop().expect("it ran");
    assert!(!daemon.text().contains(&secret), "in the daemon's log");
    let mut files = Vec::new();
    files_below(installation.places().state(), &mut files);
    files_below(installation.places().runtime(), &mut files);
    assert!(files.len() > 3);
    for file in files {
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "in {}", file.display());
    }
    installation.finish();
}

/// The names of the core dumps in a folder, by the host's pattern.
fn dumps_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("/proc is mounted");
    let stem = pattern.trim().split('%').next().unwrap_or_default();
    assert!(
        !stem.is_empty() && !stem.starts_with(['|', '/']),
        "this host sends core dumps elsewhere ({}): set kernel.core_pattern to `core` for the tests",
        pattern.trim()
    );
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(stem))
        .map(|entry| entry.path())
        .collect()
}

fn abort(pid: u32) {
    process::run(process::command(&["kill", "-ABRT", &pid.to_string()])).succeeded();
}

/// Nobody whose memory is worth a look leaves a core dump to search: neither agent nor proxy nor keeper.
#[test]
fn nobody_dumps_core() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let folder = interceptor_tests::places::scratch("core");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), open).expect("own folder");
    let dumping = |command: &str| {
        format!("ulimit -c unlimited 2> /dev/null; cd {} && {command}", folder.path().display())
    };
    // Proof that this host writes dumps where they are looked for.
    let script = dumping("kill -ABRT $$");
    process::run(process::command(&["sh", "-c", &script])).failed();
    assert_eq!(
        dumps_in(folder.path()).len(),
        1,
        "no core dumps are written here: their size is limited to nothing, and root lacks CAP_SYS_RESOURCE, with which it \
         could raise that; if it is sudo that took it, `Set disable_coredump false` in /etc/sudo.conf and `Defaults \
         rlimit_core=default` in sudoers leave it"
    );
    fs::remove_file(&dumps_in(folder.path())[0]).expect("own folder");
    let script = dumping("psql -X -d \"$0\" -c 'SELECT 1' && kill -ABRT $$");
    let words = ["sh", "-c", &script, installation::DSN];
    let mut agent = installation.captured("release-bot", &words);
    // Where it is launched is where it sees the folder.
    agent.current_dir(folder.path());
    process::run(agent).failed().says("(1 row)");
    assert_eq!(dumps_in(folder.path()), Vec::<std::path::PathBuf>::new(), "the agent left a core dump");
    for role in ["keeper", "proxy"] {
        // One that was started just now bears its parent's name for a moment.
        let is_there = |role: &str| installation.roles().iter().any(|(found, _)| found == role);
        wait_until("both", PATIENCE, || is_there("keeper") && is_there("proxy"));
        let pair = installation.roles();
        let (_, pid) = pair.iter().find(|(found, _)| found == role).expect("it serves");
        let place = fs::read_link(format!("/proc/{pid}/cwd")).expect("a live process");
        let before = dumps_in(&place);
        abort(*pid);
        // The end of one is the end of both, and the helper starts them anew.
        wait_until("another pair", PATIENCE, || {
            let now = installation.roles();
            now.len() == pair.len() && pair.iter().all(|old| old.0 == "helper" || !now.contains(old))
        });
        assert_eq!(dumps_in(&place), before, "the {role} left a core dump");
    }
    installation.finish();
}

/// The run's first process was the launcher: what it knew must not be read from inside.
#[test]
fn the_launchers_secrets_are_out_of_reach() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let look =
        "cat /proc/[0-9]*/environ; cat /proc/1/environ; grep -c . /proc/1/maps; head -c 10 /proc/1/mem; env";
    let user = installation::agent_user();
    for user in [user.as_str(), "root"] {
        let words = ["run", "--user", user, "--agent", "release-bot", "--", "sh", "-c", look];
        let mut command = installation.command(&words);
        command.env("MY_API_TOKEN", "a-token-of-the-launcher");
        let finished = process::run(command);
        assert!(finished.stdout.contains("MY_API_TOKEN="), "the placeholder is there: {finished}");
        assert!(!finished.text().contains("a-token-of-the-launcher"), "as {user}: {finished}");
    }
    installation.finish();
}

#[test]
fn a_wrong_secret_is_a_clear_error_without_it() {
    let bed = Bed::start();
    let wrong = "not-the-password-of-app";
    let installation = Setup::of(&bed).credential("orders", wrong).start();
    installation.put_credential("orders", wrong);
    let finished = installation.psql("SELECT 1;\n");
    assert!(!finished.text().contains(wrong) && !finished.stdout.contains('1'), "{finished}");
    assert!(finished.stderr.contains("FATAL") || finished.stderr.contains("ERROR"), "{finished}");
    let records = installation.records_once("the refused session", |records| !records.0.is_empty());
    assert!(!records.0.iter().any(|exchange| exchange.0.to_string().contains(wrong)));
    installation.finish();
}

/// Every method of logging in, and the weakest that a resource allows.
#[test]
fn each_method_logs_in_and_weaker_ones_do_not() {
    let bed = Bed::start();
    let cases = [
        ("app", "scram-sha-256", true),
        ("app", "scram-sha-256-plus", true),
        ("app", "md5", true),
        ("md5_user", "md5", true),
        ("md5_user", "scram-sha-256", false),
        ("clear_user", "cleartext", true),
        ("clear_user", "md5", false),
    ];
    for (user, minimum, fits) in cases {
        let installation = Setup::empty()
            .resource(&orders(&bed, user, minimum))
            .credential("orders", bed.secret())
            .policy("10-test.cedar", POLICY)
            .start();
        let finished = installation.psql("SELECT 'as', current_user;\n");
        let logged_in = finished.stdout.contains(&format!("as|{user}"));
        assert_eq!(logged_in, fits, "{user} with {minimum} at least: {finished}");
        installation.finish();
    }
}

#[test]
fn a_client_certificate_logs_in() {
    let bed = Bed::start();
    let (chain, key) = bed.client_certificate();
    let resource = orders(&bed, "cert_user", "certificate").replace(
        "secret = { file = \"orders\" }",
        &format!("certificate = {{ chain = {chain:?}, key = {{ file = \"key\" }} }}"),
    );
    let key = fs::read_to_string(key).expect("own file");
    let installation =
        Setup::empty().resource(&resource).credential("key", &key).policy("10-test.cedar", POLICY).start();
    installation.psql("SELECT 'as', current_user;\n").says("as|cert_user");
    installation.finish();
}

/// Nothing is sent to an upstream whose identity is not verified.
#[test]
fn an_upstream_with_another_certificate_gets_nothing() {
    let bed = Bed::start();
    let other = Bed::start();
    let resource = orders(&bed, "app", "scram-sha-256")
        .replace(&bed.roots().display().to_string(), &other.roots().display().to_string());
    let installation = Setup::empty()
        .resource(&resource)
        .credential("orders", bed.secret())
        .policy("10-test.cedar", POLICY)
        .start();
    let finished = installation.psql("SELECT 'as', current_user;\n");
    assert!(
        !finished.stdout.contains("as|") && finished.stderr.contains("could not show that it is"),
        "{finished}"
    );
    assert_eq!(bed.statements("app"), Vec::<String>::new());
    installation.finish();
}

/// An exec helper gives the secret, with an expiry.
#[test]
fn an_exec_helper_gives_the_secret() {
    let bed = Bed::start();
    let folder = interceptor_tests::places::scratch("helper");
    let program = folder.path().join("helper");
    let answer = format!("{{\"secret\":\"{}\",\"expires_at\":\"2099-01-01T00:00:00Z\"}}", bed.secret());
    fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).expect("own folder");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("own file");
    let resource = orders(&bed, "app", "scram-sha-256")
        .replace("{ file = \"orders\" }", &format!("{{ exec = [{program:?}] }}"));
    let installation = Setup::empty().resource(&resource).policy("10-test.cedar", POLICY).start();
    installation.psql("SELECT 'as', current_user;\n").says("as|app");
    installation.finish();
}

/// Only the owner of a session may cancel in it.
#[test]
fn a_key_of_another_run_cancels_nothing() {
    let bed = Bed::start();
    let installation = Setup::of(&bed).start();
    let mut job = waiting_session(&installation, &bed);
    // Every key that could be guessed cheaply, from another run.
    let script = installation.script(
        "cancel.py",
        "import socket, struct\n\
         for key in range(50):\n\
         \x20   s = socket.create_connection(('db.internal', 5432), 5)\n\
         \x20   s.send(struct.pack('>IIII', 16, 80877102, key, 0))\n\
         \x20   try: s.recv(1)\n\
         \x20   except OSError: pass\n\
         print('tried')\n",
    );
    installation.run("release-bot", &["/usr/bin/python3", &script]).succeeded().says("tried");
    assert!(job.is_running());
    job.signal(Signal::SIGTERM);
    job.finish(Duration::from_secs(30));
    installation.finish();
}
