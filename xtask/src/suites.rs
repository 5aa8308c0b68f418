//! `cargo xtask suites`: the drivers' own test suites, direct and captured. Installs each into the build folder, the
//! package as its users get it and the tests out of its source, and leaves the comparison to `interceptor-suite`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cargo::{as_root, cargo, shown, succeed, target},
    setup,
};

/// Which suites.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// With TLS on both legs
    #[arg(long)]
    tls: bool,
    /// With somebody who approves of every transaction a moment after it was asked for
    #[arg(long, conflicts_with = "tls")]
    approved: bool,
    /// Only this test of each, as its suite names it
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Only these suites
    names: Vec<String>,
}

/// A suite and where it comes from.
struct Source {
    /// What it is called here.
    name: &'static str,
    origin: Origin,
    /// What the distribution must give.
    distribution: &'static [&'static str],
    /// How it can be run.
    variants: &'static [&'static str],
}

/// Without TLS, as `interceptor-suite` is told.
const PLAIN: &str = "plain";
/// With TLS on both legs.
const TLS: &str = "tls";
/// With a person who approves of every transaction.
const APPROVED: &str = "approved";

enum Origin {
    /// A package of Python's, whose source distribution has the tests.
    Python {
        package: &'static str,
        /// Whether it is built from its source too.
        built: bool,
        /// What the tests need besides.
        with: &'static [&'static str],
        /// What is taken out of the source.
        files: &'static [&'static str],
    },
    /// A crate that the workspace uses, whose package has the tests.
    Rust {
        package: &'static str,
        /// The name of the test program.
        test: &'static str,
        features: &'static [&'static str],
    },
}

/// What every suite in Python runs with.
const PYTEST: &[&str] = &["pytest==8.4.2", "pytest-timeout==2.4.0"];

/// All suites.
const SOURCES: &[Source] = &[
    Source {
        name: "pg8000",
        origin: Origin::Python {
            package: "pg8000==1.31.6",
            built: false,
            with: &["pytest-mock==3.15.1", "pytest-benchmark==5.1.0", "pytz==2025.2"],
            files: &["test"],
        },
        distribution: &["python3-venv"],
        variants: &[PLAIN, TLS, APPROVED],
    },
    Source {
        name: "asyncpg",
        origin: Origin::Python {
            package: "asyncpg==0.32.0",
            built: false,
            with: &["uvloop==0.22.1", "distro==1.9.0"],
            files: &["tests"],
        },
        distribution: &["python3-venv"],
        variants: &[PLAIN, TLS, APPROVED],
    },
    Source {
        name: "psycopg2",
        origin: Origin::Python { package: "psycopg2==2.9.13", built: true, with: &[], files: &["tests"] },
        distribution: &["python3-venv", "libpq-dev", "python3-dev", "gcc"],
        variants: &[PLAIN, TLS, APPROVED],
    },
    Source {
        name: "tokio-postgres",
        origin: Origin::Rust {
            package: "tokio-postgres",
            test: "test",
            features: &[
                "array-impls",
                "with-bit-vec-0_8",
                "with-chrono-0_4",
                "with-eui48-1",
                "with-geo-types-0_7",
                "with-serde_json-1",
                "with-smol_str-01",
                "with-time-0_3",
                "with-uuid-1",
            ],
        },
        distribution: &[],
        variants: &[PLAIN, APPROVED],
    },
    Source {
        name: "sqlalchemy",
        origin: Origin::Python {
            package: "SQLAlchemy==2.0.58",
            built: false,
            with: &["psycopg2-binary==2.9.13"],
            files: &["test", "pyproject.toml", "setup.cfg"],
        },
        distribution: &["python3-venv"],
        variants: &[PLAIN, TLS, APPROVED],
    },
];

/// What came of a suite.
pub(crate) struct Compared {
    /// Which, and how it was run.
    what: String,
    /// Whether it ends captured as it does direct.
    pub(crate) equal: bool,
}

/// A suite, and whether client and server speak TLS.
type Run = (&'static Source, &'static str);

/// Runs the suites that are named; all when none is.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { tls, approved, tests, names } = arguments;
    let known = || SOURCES.iter().map(|source| source.name).collect::<Vec<_>>().join(", ");
    for name in names {
        ensure!(
            SOURCES.iter().any(|source| source.name == name),
            "no suite {name:?}; there are: {}",
            known()
        );
    }
    let wanted = |source: &&Source| names.is_empty() || names.iter().any(|name| name == source.name);
    let variant = match (tls, approved) {
        (true, _) => TLS,
        (false, true) => APPROVED,
        (false, false) => PLAIN,
    };
    setup::base()?;
    // As `cargo xtask test` builds it, so that neither builds it anew for the other.
    succeed(cargo()?.args(["build", "--workspace", "--all-targets"]))?;
    let compared = compare(SOURCES.iter().filter(wanted).map(|source| (source, variant)), tests)?;
    let differ: Vec<_> = compared.iter().filter(|suite| !suite.equal).map(|suite| &*suite.what).collect();
    ensure!(differ.is_empty(), "suites that are not as direct: {}", differ.join(", "));
    Ok(())
}

/// The suites that slices take turns at: seen to end as direct, and installed within a minute.
const IN_SLICES: &[(&str, &str)] = &[("pg8000", PLAIN)];

/// Of so many slices one has a suite, which has not the oracle as well.
const SUITE_EVERY: u32 = 2;

/// Runs all suites in each way they can be run, or one of [`IN_SLICES`] or none. What they run was built before.
pub(crate) fn long(slice: Option<u32>) -> Result<Vec<Compared>> {
    if slice.is_some_and(|slice| slice % SUITE_EVERY != 1) {
        return Ok(Vec::new());
    }
    let variants = |source: &'static Source| source.variants.iter().map(move |variant| (source, *variant));
    let runs = SOURCES.iter().flat_map(variants);
    let only = slice.and_then(|slice| IN_SLICES.get((slice / SUITE_EVERY) as usize % IN_SLICES.len()));
    let wanted =
        |(source, variant): &Run| only.is_none_or(|(name, how)| source.name == *name && variant == how);
    compare(runs.filter(wanted), &[])
}

/// Installs and runs suites one by one; all are run even when one differs.
fn compare(runs: impl Iterator<Item = Run>, tests: &[String]) -> Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for (source, variant) in runs {
        let folder = target()?.join("suites").join(source.name);
        install(source, &folder)?;
        let mut command = as_root(&target()?.join("debug/interceptor-suite"));
        command.arg(source.name).arg(&folder).arg(variant).args(tests);
        command.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor"));
        let equal = command.status().with_context(|| shown(&command))?.success();
        compared.push(Compared { what: format!("{}, {variant}", source.name), equal });
    }
    Ok(compared)
}

fn install(source: &Source, folder: &Path) -> Result<()> {
    setup::packages(source.distribution)?;
    match source.origin {
        Origin::Python { package, built, with, files } => {
            let wanted = [&[package], with, files, PYTEST].concat();
            setup::once(folder, &wanted, |folder| python(folder, package, built, with, files))
        }
        Origin::Rust { package, test, features } => {
            let found = found(package)?;
            let wanted = [&[package, &*found.version, test], features].concat();
            setup::once(folder, &wanted, |folder| rust(folder, &found.folder, test, features))
        }
    }
}

fn python(folder: &Path, package: &str, built: bool, with: &[&str], files: &[&str]) -> Result<()> {
    let name = package.split("==").next().unwrap_or(package);
    let pip = || Command::new(folder.join("venv/bin/pip"));
    succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--copies"]).arg(folder.join("venv")))?;
    let download = folder.join("download");
    let quiet = ["--quiet", "--disable-pip-version-check"];
    let mut source = pip();
    source.arg("download").args(quiet).args(["--no-deps", "--no-binary", name, package, "--dest"]);
    succeed(source.arg(&download))?;
    let archive = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
    let mut install = pip();
    install.arg("install").args(quiet).args(PYTEST).args(with);
    if built {
        install.arg(&archive)
    } else {
        install.arg(package)
    };
    succeed(&mut install)?;
    let source = folder.join("source");
    fs::create_dir_all(&source)?;
    succeed(Command::new("tar").arg("xf").arg(&archive).args(["--strip-components=1", "-C"]).arg(&source))?;
    for file in files {
        fs::rename(source.join(file), folder.join(file))?;
    }
    // What lies beside the tests would be imported in the place of what is installed; tests that look for the package
    // beside them find that.
    fs::remove_dir_all(&source)?;
    let packages =
        fs::read_dir(folder.join("venv/lib"))?.next().context("no Python in the environment")??;
    std::os::unix::fs::symlink(packages.path().join("site-packages"), folder.join("lib"))?;
    fs::remove_dir_all(&download).context("the download")
}

/// A package among those that the workspace was locked to.
struct Found {
    version: String,
    folder: PathBuf,
}

fn found(package: &str) -> Result<Found> {
    let mut metadata = cargo()?;
    metadata.args(["metadata", "--format-version=1", "--locked"]);
    let output = metadata.output().with_context(|| shown(&metadata))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo's metadata")?;
    let mut packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value, field: &str| Some(entry.get(field)?.as_str()?.to_owned());
    let entry = packages.find(|entry| text(entry, "name").as_deref() == Some(package));
    let entry = entry.with_context(|| format!("{package} is not among the workspace's packages"))?;
    let manifest = text(entry, "manifest_path").context("a package without a manifest")?;
    let folder = Path::new(&manifest).parent().context("a manifest in no folder")?.to_owned();
    Ok(Found { version: text(entry, "version").context("a package without a version")?, folder })
}

fn rust(folder: &Path, package: &Path, test: &str, features: &[&str]) -> Result<()> {
    let source = folder.join("source");
    fs::create_dir_all(folder)?;
    succeed(Command::new("cp").arg("-r").arg(package).arg(&source))?;
    let manifest = source.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).context("the package's manifest")?;
    fs::write(&manifest, alone(&text)?)?;
    let mut build = cargo()?;
    // Versions are as the package's own lock has them.
    build.args(["test", "--no-run", "--message-format=json", "--test", test]);
    build.arg("--features").arg(features.join(",")).arg("--target-dir").arg(folder.join("target"));
    build.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    let output =
        build.current_dir(&source).stderr(Stdio::inherit()).output().with_context(|| shown(&build))?;
    ensure!(output.status.success(), "`{}` failed", shown(&build));
    let lines = String::from_utf8(output.stdout).context("cargo's messages")?;
    let mut program = lines.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message.pointer("/target/kind/0")?.as_str()? == "test";
        is_test.then(|| Some(message.get("executable")?.as_str()?.to_owned()))?
    });
    let program = program.next_back().context("cargo built no test program")?;
    fs::copy(program, folder.join("tests")).context("the test program")?;
    fs::remove_dir_all(folder.join("target")).context("what it was built from")
}

/// The manifest of a package that stands below our workspace and is no part of it. Benches are left out: what they alone
/// need would be built for the tests, too, and is much.
fn alone(manifest: &str) -> Result<String> {
    let mut manifest: toml::Table = manifest.parse().context("the package's manifest")?;
    manifest.remove("bench");
    if let Some(toml::Value::Table(needs)) = manifest.get_mut("dev-dependencies") {
        needs.remove("criterion");
    }
    manifest.insert("workspace".to_owned(), toml::Value::Table(toml::Table::new()));
    toml::to_string(&manifest).context("the package's manifest")
}
