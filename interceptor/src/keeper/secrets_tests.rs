use std::{os::unix::fs::PermissionsExt, time::Duration};

use super::*;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    folder
}

fn write(folder: &Path, name: &str, content: &[u8], mode: u32) {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("write");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
}

fn fetch(folder: &Path, name: &str) -> Result<Secret, String> {
    FileSource::new(folder, Path::new(name)).fetch().map_err(|e| e.to_string())
}

fn refusal(folder: &Path, name: &str) -> String {
    fetch(folder, name).expect_err("refused")
}

#[test]
fn a_file_gives_its_content_without_the_last_newline() {
    let folder = folder();
    write(folder.path(), "a", b"hunter2\n", 0o600);
    write(folder.path(), "b", b" two\nlines \r\n", 0o400);
    assert_eq!(fetch(folder.path(), "a").expect("a").expose(), b"hunter2");
    assert_eq!(fetch(folder.path(), "b").expect("b").expose(), b" two\nlines ");
}

#[test]
fn a_file_that_others_may_use_is_refused_with_the_mend() {
    let folder = folder();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        write(folder.path(), "a", b"hunter2", mode);
        let said = refusal(folder.path(), "a");
        let path = folder.path().join("a");
        assert!(said.contains(&format!("chmod 600 {}", path.display())), "{said}");
        assert!(said.contains(&format!("{mode:04o}")), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_with_the_mend() {
    if !geteuid().is_root() {
        return;
    }
    let folder = folder();
    write(folder.path(), "a", b"hunter2", 0o600);
    nix::unistd::chown(&folder.path().join("a"), Some(4711.into()), None).expect("chown");
    let said = refusal(folder.path(), "a");
    assert!(said.contains(&format!("chown 0 {}", folder.path().join("a").display())), "{said}");
    assert!(said.contains("uid 4711"), "{said}");
}

#[test]
fn what_is_no_plain_file_below_the_folder_is_refused() {
    let folder = folder();
    write(folder.path(), "real", b"x", 0o600);
    std::os::unix::fs::symlink("real", folder.path().join("link")).expect("symlink");
    nix::unistd::mkfifo(&folder.path().join("pipe"), Mode::from_bits_truncate(0o600)).expect("mkfifo");
    std::fs::create_dir(folder.path().join("dir")).expect("mkdir");
    for name in ["link", "pipe", "dir"] {
        assert!(refusal(folder.path(), name).contains("not a regular file"), "{name}");
    }
    for name in ["../real", "/etc/shadow", "", "./real", "dir/../real"] {
        let said = FileSource::new(folder.path(), Path::new(name)).fetch().err().map(|e| e.to_string());
        // `./real` and `dir/../real` are normalised by nobody.
        assert!(said.is_some_and(|s| s.contains("plain path")), "{name}");
    }
    let said = refusal(folder.path(), "gone");
    assert!(said.contains("no such credential"), "{said}");
}

#[test]
fn content_that_is_no_secret_is_refused() {
    let folder = folder();
    write(folder.path(), "empty", b"\n", 0o600);
    write(folder.path(), "zero", b"a\0b", 0o600);
    write(folder.path(), "long", &vec![b'x'; SECRET_LIMIT + 1], 0o600);
    assert!(refusal(folder.path(), "empty").contains("empty"));
    assert!(refusal(folder.path(), "zero").contains("zero byte"));
    assert!(refusal(folder.path(), "long").contains("64 KiB"));
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let folder = folder();
    write(folder.path(), "a", b"x", 0o600);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("chmod");
    assert!(refusal(folder.path(), "a").contains("chmod go-w"));
}

/// As the helper hands them over.
fn systemd(folder: &Path) -> SystemdCredentials {
    let entries = std::fs::read_dir(folder).expect("folder");
    SystemdCredentials::read(entries.map(|entry| {
        let entry = entry.expect("entry");
        let file = File::open(entry.path()).expect("file");
        (entry.file_name().into_string().expect("name"), file.into())
    }))
}

#[test]
fn no_secret_is_printed() {
    let secret = Secret::new(b"hunter2".to_vec());
    assert_eq!(format!("{secret:?}"), "Secret(***)");
    let folder = folder();
    write(folder.path(), "db", b"hunter2", 0o400);
    let systemd = systemd(folder.path());
    let secrets = Secrets::new(folder.path().to_owned(), systemd);
    secrets.fetch(&SecretSource::File("db".into())).expect("the secret");
    let printed = format!("{secrets:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("104, 117"), "{printed}");
}

#[test]
fn systemd_gives_what_it_has_and_says_what_it_has_not() {
    let folder = folder();
    write(folder.path(), "db", b"hunter2\n", 0o440);
    write(folder.path(), "open", b"hunter2", 0o444);
    let secrets = Secrets::new("/nonexistent".into(), systemd(folder.path()));
    let get = |name: &str| secrets.fetch(&SecretSource::Systemd(name.to_owned()));
    assert_eq!(get("db").expect("the secret").expose(), b"hunter2");
    assert!(get("open").expect_err("refused").to_string().contains("0444"));
    assert!(get("../db").expect_err("refused").to_string().contains("LoadCredential"));
    let none = SystemdCredentials::read([]);
    assert!(none.get("db").expect_err("refused").to_string().contains("$CREDENTIALS_DIRECTORY"));
}

fn helper(folder: &Path, script: &str) -> Helper {
    write(folder, "helper", format!("#!/bin/sh\n{script}\n").as_bytes(), 0o700);
    // Through the shell, so that a fork of another test that still holds the file open for writing does no harm.
    Helper::new(vec!["/bin/sh".into(), folder.join("helper").display().to_string()], Arc::default())
}

#[test]
fn a_helper_gives_a_secret_and_is_asked_again_only_after_it_expired() {
    let folder = folder();
    let count = folder.path().join("count");
    let later = jiff::Timestamp::now() + Duration::from_secs(3600);
    let script = format!(
        "echo x >> {}; echo '{{\"secret\":\"hunter2\",\"expires_at\":\"{later}\"}}'",
        count.display()
    );
    let helper = helper(folder.path(), &script);
    for _ in 0..3 {
        assert_eq!(helper.fetch().expect("a secret").expose(), b"hunter2");
    }
    assert_eq!(std::fs::read(&count).expect("count"), b"x\n");
    assert!(!format!("{helper:?}").contains("hunter2"));
}

#[test]
fn a_helper_without_an_expiry_is_asked_each_time_and_sees_no_environment() {
    let folder = folder();
    let helper =
        helper(folder.path(), r#"echo "{\"secret\":\"$HOME$USER$CARGO-$(pwd)\",\"expires_at\":null}""#);
    assert_eq!(helper.fetch().expect("a secret").expose(), b"-/");
}

#[test]
fn a_helper_that_misbehaves_is_refused_without_its_words() {
    let folder = folder();
    for (script, said) in [
        ("echo hunter2", "printed something else"),
        (r#"echo '{"secret":"hunter2","extra":1}'"#, "printed something else"),
        (r#"echo '{"secret":"hunter2","expires_at":"2001-01-01T00:00:00Z"}'"#, "expired already"),
        (r#"echo '{"secret":""}'"#, "empty"),
        (r#"echo '{"secret":"hunter2"}'; exit 3"#, "failed"),
        ("head -c 70000 /dev/zero", "more than 64 KiB"),
    ] {
        let error = helper(folder.path(), script).fetch().expect_err(script).to_string();
        assert!(error.contains(said) && !error.contains("hunter2"), "{script}: {error}");
    }
}

#[test]
fn a_helper_does_not_outlive_its_deadline() {
    let folder = folder();
    let pid = folder.path().join("pid");
    // The child keeps the output open after its parent is gone.
    let script = format!("sleep 600 & echo $! > {}; exit 0", pid.display());
    let helper = helper(folder.path(), &script).with_deadline(Duration::from_secs(2));
    let begin = std::time::Instant::now();
    assert!(helper.fetch().expect_err("too slow").to_string().contains("was stopped"));
    assert!(begin.elapsed() < Duration::from_secs(300), "it waited for the child");
    let child = std::fs::read_to_string(&pid).expect("pid");
    let gone = (0..3000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let status = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        status.map_or(true, |text| text.contains(") Z "))
    });
    assert!(gone, "the helper's child is still there");
}

#[test]
fn a_helper_that_others_may_change_is_not_run() {
    let folder = folder();
    write(folder.path(), "open", b"#!/bin/sh\n", 0o777);
    let open = Helper::new(vec![folder.path().join("open").display().to_string()], Arc::default());
    assert!(open.fetch().expect_err("refused").to_string().contains("chmod go-w"));
    let relative = Helper::new(vec!["true".to_owned()], Arc::default());
    assert!(relative.fetch().expect_err("refused").to_string().contains("absolute path"));
}
