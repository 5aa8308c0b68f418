//! `cargo xtask oracle`: what we read in SQL held against PostgreSQL's own parser, over all the SQL that its source
//! package tests with, and the daemon with that parser as its second opinion. The parser is built in a workspace and a
//! folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, elevate_tests, shown, succeed, target},
    setup, workspace,
};

/// What the distribution must give: the parser's bindings are made from its headers, and the source is packed.
const PACKAGES: &[&str] = &["libclang-dev", "gcc", "libc6-dev", "bzip2"];

/// The key that the distribution's sources are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Gets the SQL, builds the oracle and asks it.
pub(crate) fn run() -> Result<()> {
    setup::base()?;
    setup::packages(PACKAGES)?;
    let folder = target()?.join("oracle");
    let source = source()?;
    let corpus = folder.join("corpus");
    setup::once(&corpus, &[&source], |folder| fetch(folder, &source))?;
    let mut build = cargo()?;
    build.args(["build", "--locked", "--target-dir"]).arg(folder.join("build"));
    succeed(build.current_dir(workspace()?.join("second-opinion")))?;
    succeed(Command::new(folder.join("build/debug/interceptor-oracle")).arg(corpus.join("sql")))?;
    beside_the_daemon()
}

/// The tests that need the program.
fn beside_the_daemon() -> Result<()> {
    setup::clients()?;
    succeed(cargo()?.args(["build", "--workspace"]))?;
    let mut tests = cargo()?;
    tests.args(["test", "-p", "interceptor-tests", "--test", "e2e", "--", "--ignored", "second_opinion::"]);
    tests.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor"));
    elevate_tests(&mut tests)?;
    succeed(&mut tests)
}

/// The source package of the newest server that is installed here.
fn source() -> Result<String> {
    let [server, _] = setup::postgres_packages()?;
    Ok(server)
}

/// Takes every SQL file that is a test's out of the source package, with its path in its name. The host's own list of
/// packages is left alone.
fn fetch(folder: &Path, source: &str) -> Result<()> {
    let download = folder.join("download");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(download.join(part))?;
    }
    let list = download.join("sources.list");
    fs::write(&list, sources()?)?;
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        for (option, place) in [
            ("Dir::Etc::SourceList", list.clone()),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", download.join("lists")),
            ("Dir::Cache", download.join("cache")),
        ] {
            apt.arg("-o").arg(format!("{option}={}", place.display()));
        }
        apt.args(["-o", "APT::Sandbox::User=", "--quiet"]).args(words).current_dir(&download);
        succeed(apt.stdout(Stdio::null()))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", source])?;
    let files = fs::read_dir(&download)?.collect::<Result<Vec<_>, _>>()?;
    let archive =
        files.iter().map(fs::DirEntry::path).find(|path| path.to_string_lossy().contains(".orig.tar."));
    let unpacked = download.join("unpacked");
    fs::create_dir(&unpacked)?;
    let mut tar = Command::new("tar");
    tar.arg("xf").arg(archive.context("the source package has no archive")?).arg("-C").arg(&unpacked);
    succeed(tar.args(["--strip-components=1", "--wildcards", "*/sql/*.sql"]))?;
    let sql = folder.join("sql");
    fs::create_dir(&sql)?;
    let count = gather(&unpacked, &unpacked, &sql)?;
    ensure!(count > 0, "{source} has no SQL in it");
    println!("{count} files of SQL from {source}");
    fs::remove_dir_all(&download).context("the download")
}

/// The distribution's repositories that this host uses, for sources. Its security updates are left out: their sources
/// are not kept everywhere, and add no tests.
fn sources() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT) $(LABEL)",
        "Created-By: Packages",
    ]);
    let output = targets.output().with_context(|| shown(&targets))?;
    let listed = String::from_utf8(output.stdout).context("the list of repositories")?;
    let lines = listed.lines().filter_map(|line| line.strip_suffix(" Debian"));
    let list: String = lines.map(|line| format!("deb-src [signed-by={KEYRING}] {line}\n")).collect();
    ensure!(!list.is_empty(), "this host has none of Debian's repositories: `apt-get update` it");
    Ok(list)
}

/// Copies every file below `folder` into `to`; gives how many.
fn gather(root: &Path, folder: &Path, to: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            count += gather(root, &path, to)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('/', "-");
            fs::copy(&path, to.join(name))?;
            count += 1;
        }
    }
    Ok(count)
}
