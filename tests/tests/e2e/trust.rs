//! The host's trust store: the authority is taken in, and out again, by the distribution's own program.

use std::process::{Command, Stdio};

use interceptor_tests::{Setup, places, process::run};

/// What is tried where the host's store is a copy that nobody else sees. `$0` is the product, `$1` the installation, `$2` a folder for the
/// copy.
const TRIED: &str = r#"
set -e
trusted() { "$0" --root "$1" ca print | openssl verify -CApath /etc/ssl/certs; }
for folder in etc/ssl usr/local/share/ca-certificates; do
    mkdir -p "$2/$folder/upper" "$2/$folder/work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$2/$folder/upper,workdir=$2/$folder/work" copy "/$folder"
done
trusted "$@" && echo "trusted before"
"$0" --root "$1" --json doctor | grep -o '"authority": *"[a-z ]*'
"$0" --root "$1" ca install
trusted "$@"
"$0" --root "$1" --json doctor | grep -o '"authority": *"[a-z ]*'
"$0" --root "$1" ca install
"$0" --root "$1" ca uninstall
trusted "$@" && echo "trusted after"
ls /usr/local/share/ca-certificates | sed 's/^/left: /'
echo done
"#;

#[test]
fn the_host_trusts_the_authority_as_long_as_it_is_told_to() {
    let installation = Setup::empty().start();
    // On memory: a copy cannot lie on what it copies.
    let copy =
        tempfile::Builder::new().prefix("ic-trust-").tempdir_in("/dev/shm").expect("a folder in memory");
    let mut command = Command::new(places::tool("unshare"));
    command.args(["--mount", "--propagation", "private", "/bin/bash", "-c"]);
    command
        .arg(TRIED)
        .arg(places::interceptor())
        .arg(installation.root())
        .arg(copy.path())
        .stdin(Stdio::null());
    let done = run(command).succeeded();
    assert!(!done.stdout.contains("trusted before") && !done.stdout.contains("trusted after"), "{done}");
    assert_eq!(done.stdout.matches("stdin: OK").count(), 1, "{done}");
    for part in ["trusted in runs alone", "trusted by this host", "trusts it no more", "done"] {
        assert!(done.stdout.contains(part), "{part}: {done}");
    }
    assert!(!done.stdout.contains("left: interceptor"), "its file is gone: {done}");
    installation.finish();
}
