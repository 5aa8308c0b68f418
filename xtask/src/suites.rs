//! `cargo xtask suites`: the drivers' own test suites, direct and captured. Installs each into the build folder, the
//! package as its users get it and the tests out of its source, and leaves the comparison to `interceptor-suite`.

use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, ensure};

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
    /// Only this test of each, as its suite names it
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Only these suites
    names: Vec<String>,
}

/// A suite and where it comes from.
pub(crate) struct Source {
    /// What it is called here.
    pub(crate) name: &'static str,
    origin: Origin,
    /// What the distribution must give.
    distribution: &'static [&'static str],
}

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
}

/// What every suite in Python runs with.
const PYTEST: &[&str] = &["pytest==8.4.2", "pytest-timeout==2.4.0"];

/// All suites.
pub(crate) const SOURCES: &[Source] = &[
    Source {
        name: "pg8000",
        origin: Origin::Python {
            package: "pg8000==1.31.6",
            built: false,
            with: &["pytest-mock==3.15.1", "pytest-benchmark==5.1.0", "pytz==2025.2"],
            files: &["test"],
        },
        distribution: &[],
    },
    Source {
        name: "asyncpg",
        origin: Origin::Python {
            package: "asyncpg==0.32.0",
            built: false,
            with: &["uvloop==0.22.1", "distro==1.9.0"],
            files: &["tests"],
        },
        distribution: &[],
    },
    Source {
        name: "psycopg2",
        origin: Origin::Python { package: "psycopg2==2.9.13", built: true, with: &[], files: &["tests"] },
        distribution: &["libpq-dev", "python3-dev", "gcc"],
    },
];

/// Installs and runs the suites one by one; all are run even when one differs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let known = || SOURCES.iter().map(|source| source.name).collect::<Vec<_>>().join(", ");
    for name in &arguments.names {
        ensure!(
            SOURCES.iter().any(|source| source.name == name),
            "no suite {name:?}; there are: {}",
            known()
        );
    }
    let wanted = |source: &&Source| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| name == source.name)
    };
    setup::base()?;
    succeed(cargo()?.args([
        "build",
        "--package",
        "interceptor",
        "--package",
        "interceptor-tests",
        "--bins",
    ]))?;
    let mut differ = Vec::new();
    for source in SOURCES.iter().filter(wanted) {
        if !compare(source, arguments)?.success() {
            differ.push(source.name);
        }
    }
    ensure!(differ.is_empty(), "suites that are not as direct: {}", differ.join(", "));
    Ok(())
}

/// Installs a suite and runs it on every side.
fn compare(source: &Source, arguments: &Arguments) -> Result<ExitStatus> {
    let folder = target()?.join("suites").join(source.name);
    install(source, &folder)?;
    let mut command = as_root(&target()?.join("debug/interceptor-suite"));
    command.arg(source.name).arg(&folder).arg(if arguments.tls { "tls" } else { "plain" });
    command.args(&arguments.tests);
    command.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor"));
    command.status().with_context(|| shown(&command))
}

fn install(source: &Source, folder: &Path) -> Result<()> {
    setup::packages(source.distribution)?;
    let Origin::Python { package, built, with, files } = &source.origin;
    let wanted = [&[*package], *with, *files, PYTEST].concat();
    setup::once(folder, &wanted, |folder| {
        let name = package.split("==").next().unwrap_or(package);
        let pip = || Command::new(folder.join("venv/bin/pip"));
        succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--copies"]).arg(folder.join("venv")))?;
        let download = folder.join("download");
        let quiet = ["--quiet", "--disable-pip-version-check"];
        succeed(
            pip()
                .arg("download")
                .args(quiet)
                .args(["--no-deps", "--no-binary", name, package, "--dest"])
                .arg(&download),
        )?;
        let archive = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
        let mut install = pip();
        install.arg("install").args(quiet).args(PYTEST).args(*with);
        if *built {
            install.arg(&archive)
        } else {
            install.arg(package)
        };
        succeed(&mut install)?;
        let source = folder.join("source");
        fs::create_dir_all(&source)?;
        succeed(
            Command::new("tar").arg("xf").arg(&archive).args(["--strip-components=1", "-C"]).arg(&source),
        )?;
        for file in *files {
            fs::rename(source.join(file), folder.join(file))?;
        }
        // What lies beside the tests would be imported in the place of what is installed.
        fs::remove_dir_all(&source)?;
        fs::remove_dir_all(&download).context("the download")
    })
}
