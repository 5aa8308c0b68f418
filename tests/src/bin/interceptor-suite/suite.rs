//! The suites: what each needs of the server, how it is started, and where it may end differently.

use std::path::Path;

/// Whether the client speaks TLS to us, and we to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Neither.
    Plain,
    /// Both.
    Tls,
}

impl Variant {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Tls].into_iter().find(|variant| variant.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
        }
    }
}

/// Where the server is for a test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) password: &'a str,
}

/// What runs the tests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runner {
    /// pytest with these arguments, in the suite's own environment of Python.
    Pytest(&'static [&'static str]),
    /// A test program of Rust's, left in the suite's folder.
    Libtest,
}

/// A suite.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) runner: Runner,
    /// The folders that the tests are in, copied to where they run.
    pub(crate) files: &'static [&'static str],
    /// The environment that tells the tests where the server is.
    pub(crate) environment: fn(Address<'_>) -> Vec<(&'static str, String)>,
    /// Whether the environment can tell the tests to use TLS.
    pub(crate) speaks_tls: bool,
    /// A port that the tests insist on, on loopback.
    pub(crate) port: Option<u16>,
    /// Settings of the server's.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Done to the server before.
    pub(crate) prepare: &'static [(&'static str, &'static str)],
    /// Tests that are left out on both sides, and why.
    pub(crate) left_out: &'static [(&'static str, &'static str)],
    /// Tests that end differently by design, and why.
    pub(crate) by_design: &'static [(&'static str, &'static str)],
}

/// The suite of that name.
pub(crate) fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

fn libpq(address: Address<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("PGHOST", address.host.to_owned()),
        ("PGPORT", address.port.to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
        ("PGPASSWORD", address.password.to_owned()),
    ]
}

fn psycopg2(address: Address<'_>) -> Vec<(&'static str, String)> {
    let mut environment = libpq(address);
    environment.push(("PSYCOPG2_TESTDB", "postgres".to_owned()));
    environment
}

const SUITES: &[Suite] = &[
    Suite {
        name: "pg8000",
        // Its benchmarks measure, once is enough to see that they work; its tests of log-ins want servers of their own.
        runner: Runner::Pytest(&[
            "test/dbapi",
            "test/legacy",
            "test/native",
            "--ignore-glob=*/auth",
            "--benchmark-disable",
        ]),
        files: &["test"],
        environment: libpq,
        speaks_tls: false,
        port: None,
        settings: &[("max_prepared_transactions", "10")],
        prepare: &[("postgres", "CREATE EXTENSION hstore")],
        left_out: &[],
        by_design: &[],
    },
    Suite {
        name: "asyncpg",
        runner: Runner::Pytest(&["tests"]),
        files: &["tests"],
        environment: libpq,
        speaks_tls: true,
        port: None,
        settings: &[],
        prepare: &[],
        left_out: &[],
        by_design: &[],
    },
    Suite {
        name: "psycopg2",
        runner: Runner::Pytest(&["tests"]),
        files: &["tests"],
        environment: psycopg2,
        speaks_tls: true,
        port: None,
        settings: &[("max_prepared_transactions", "10")],
        prepare: &[("postgres", "CREATE EXTENSION hstore")],
        left_out: &[],
        by_design: &[],
    },
];

/// The Python of a suite.
pub(crate) fn python(folder: &Path) -> String {
    folder.join("venv/bin/python").display().to_string()
}
