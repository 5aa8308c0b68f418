//! Programs of a run become root, install software, and change nothing of the host.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use interceptor_tests::{
    Finished, Installation, Job, Setup, bed, places,
    process::{PATIENCE, run, wait_until},
};
use nix::unistd::{Uid, User};

const JOB: &str = include_str!("../clients/sudo.sh");

/// A package of the distribution's kind, with a file and a script that writes another.
fn package(folder: &Path) {
    let tree = folder.join("tree");
    let at = |name: &str| tree.join(name);
    for made in ["DEBIAN", "usr/share/interceptor-tried"] {
        fs::create_dir_all(at(made)).expect("own folder");
    }
    fs::write(at("usr/share/interceptor-tried/note"), "unpacked\n").expect("own folder");
    let control = "Package: interceptor-tried\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@internal>\n\
                   Description: a test\n";
    fs::write(at("DEBIAN/control"), control).expect("own folder");
    let script = at("DEBIAN/postinst");
    fs::write(&script, "#!/bin/sh\nset -e\necho configured > /etc/interceptor-tried\n").expect("own folder");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("own file");
    let archive = folder.join("interceptor-tried.deb");
    let mut command = Command::new(places::tool("dpkg-deb"));
    run(apart(command.arg("--build").arg(&tree).arg(&archive))).succeeded();
    let mut command = Command::new(places::tool("sha256sum"));
    let sum = run(apart(command.arg(&archive))).succeeded().stdout;
    let sum = sum.split_whitespace().next().expect("a sum");
    let size = fs::metadata(&archive).expect("built").len();
    let index = format!("{control}Filename: ./interceptor-tried.deb\nSize: {size}\nSHA256: {sum}\n");
    fs::write(folder.join("Packages"), index).expect("own folder");
}

fn apart(command: &mut Command) -> Command {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args());
    own
}

/// A captured job whose user may use sudo without a word, by settings that nobody else sees.
fn job(installation: &Installation, script: &str) -> Finished {
    let user = interceptor_tests::installation::agent_user();
    let sudoers = installation.root().join("sudoers");
    fs::write(&sudoers, format!("{user} ALL=(ALL:ALL) NOPASSWD: ALL\n")).expect("own folder");
    fs::set_permissions(&sudoers, std::os::unix::fs::PermissionsExt::from_mode(0o440)).expect("own file");
    let secrets = installation.places().configuration().display().to_string();
    let captured =
        installation.captured_with(&["--agent", "release-bot", "--sudo"], &["/bin/sh", script, &secrets]);
    let mut command = Command::new(places::tool("unshare"));
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c"]);
    command.arg("mount --bind \"$0\" /etc/sudoers && exec \"$@\"").arg(&sudoers);
    command.arg(captured.get_program()).args(captured.get_args());
    command.current_dir(installation.work()).stdin(Stdio::null());
    run(command)
}

fn said<'a>(finished: &'a Finished, what: &str) -> &'a str {
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("nothing is said of {what}: {finished}")).trim()
}

#[test]
fn software_is_installed_in_the_run_and_nowhere_else() {
    let port = bed::free_port();
    let mirror = format!(
        "[resource.mirror]\nhosts = [\"mirror.internal\"]\nports = [80]\nupstream = \"127.0.0.1:{port}\"\ndial = \"host\"\n"
    );
    let installation = Setup::empty()
        .resource(&mirror)
        .policy(
            "10-mirror.cedar",
            "@id(\"mirror\") permit (principal, action in [Action::\"connect\", Action::\"pass\"], resource == Resource::\"mirror\");\n\
             @id(\"look-up\") permit (principal, action == Action::\"resolve\", resource is Name) when { resource.inventory };\n",
        )
        .start();
    let served = places::scratch("mirror");
    package(served.path());
    let mut server = Command::new("/usr/bin/python3");
    server.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(served.path());
    let server = Job::start(server, "");
    let served_at = format!("127.0.0.1:{port}");
    wait_until("the mirror", PATIENCE, || std::net::TcpStream::connect(&served_at).is_ok());
    let script = installation.script("sudo.sh", JOB);
    let done = job(&installation, &script).succeeded();
    drop(server);

    let user = interceptor_tests::installation::agent_user();
    let uid = User::from_name(&user).ok().flatten().map_or(Uid::from_raw(0), |user| user.uid);
    assert_eq!(said(&done, "user"), uid.to_string(), "{done}");
    assert_eq!(said(&done, "root"), "0", "{done}");
    let says = |what: &str, part: &str| {
        let line = said(&done, what);
        assert!(line.contains(part), "{what}: {line:?}, without {part:?}\n{done}");
    };
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot, setfcap
    says("capabilities", "CapEff:\t00000000800404fb");
    says("capabilities", "CapBnd:\t00000000800404fb");
    says("capabilities", "Seccomp:\t2");
    assert_eq!(said(&done, "installed"), "unpacked configured", "{done}");
    assert_eq!(said(&done, "own"), "root 644", "the folder that it works in is the host's: {done}");
    assert!(installation.work().join("roots").exists());
    for (what, part) in [
        ("elsewhere", "got b''"),
        ("top", "Read-only file system"),
        ("mount", "permission denied"),
        ("namespace", "Operation not permitted"),
        ("module", "Operation not permitted"),
        ("control", "Read-only file system"),
    ] {
        says(what, part);
    }
    says("secret", "No such file or directory");
    assert_eq!(said(&done, "changed"), "changed", "{done}");
    for path in [
        "/usr/share/interceptor-tried",
        "/etc/interceptor-tried",
        "/etc/cron.d/interceptor-tried",
        "/usr/bin/interceptor-tried",
    ] {
        assert!(!Path::new(path).exists(), "{path} is the host's");
    }
    let mut known = Command::new(places::tool("dpkg-query"));
    known.args(["--show", "interceptor-tried"]);
    run(known).failed();
    assert!(Path::new("/etc/apt").exists() && Path::new("/var/lib/apt").exists());
    let audit = installation.interceptor(&["audit", "tail", "--all", "-n", "1000"]).succeeded().text();
    for part in ["mirror", "192.0.2.1:443"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    installation.finish();
}

/// Without the word, no program of a run becomes anybody; and with it, not where the folder is somebody else's.
#[test]
fn nobody_becomes_root_unless_it_is_said() {
    let installation = Setup::empty().start();
    let status = ["grep", "NoNewPrivs", "/proc/self/status"];
    run(installation.captured_with(&["--agent", "release-bot"], &status)).succeeded().says("NoNewPrivs:\t1");
    let options = ["--agent", "release-bot", "--sudo"];
    run(installation.captured_with(&options, &status)).succeeded().says("NoNewPrivs:\t0");
    let mut elsewhere = installation.captured_with(&options, &status);
    elsewhere.current_dir("/usr/share");
    run(elsewhere).failed().says("launch it from a folder that belongs to");
    installation.put_policy(
        "00-launch.cedar",
        "@id(\"plain\") permit (principal, action == Action::\"launch\", resource is Program) when { resource.capabilities.isEmpty() };",
    );
    installation.interceptor(&["reload"]).succeeded();
    run(installation.captured_with(&options, &status)).failed().says("policy does not permit the launch");
    run(installation.captured_with(&["--agent", "release-bot"], &status)).succeeded();
    installation.finish();
}
