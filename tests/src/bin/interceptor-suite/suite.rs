//! The suites: what each needs of the server, how it is started, and where it may end differently.

use std::path::Path;

use crate::side::Capture;

/// What lies between client and server, beside the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing.
    Plain,
    /// TLS on both legs.
    Tls,
    /// A person, who approves of every transaction a moment after it was asked for.
    Approved,
}

impl Variant {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Tls, Self::Approved].into_iter().find(|variant| variant.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Approved => "approved",
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

/// When the tests of a suite speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// As `PGSSLMODE` says.
    Told,
    /// Whenever the server does, and nothing can tell them otherwise.
    Offered,
    /// Never.
    Never,
}

/// Tests, each with why it ends differently.
pub(crate) type Declared = &'static [(&'static str, &'static str)];

/// A suite.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) runner: Runner,
    /// The folders that the tests are in, copied to where they run.
    pub(crate) files: &'static [&'static str],
    /// The environment that tells the tests where the server is.
    pub(crate) environment: fn(Address<'_>) -> Vec<(&'static str, String)>,
    /// When the tests speak TLS.
    pub(crate) tls: Tls,
    /// A port that the tests insist on, on loopback.
    pub(crate) port: Option<u16>,
    /// Who may log in how, as in pg_hba.conf: on both sides the same.
    pub(crate) access: &'static [&'static str],
    /// Settings of the server's.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Done to the server before.
    pub(crate) prepare: &'static [(&'static str, &'static str)],
    /// Tests that are left out on all sides, and why.
    left_out: Declared,
    /// Tests that are left out besides where a person is asked.
    left_out_held: Declared,
    /// Tests that end differently by design, and why. One that does not end differently is a fault, too.
    pub(crate) by_design: Declared,
    /// Tests that may end differently where a person is asked and policy is in force: what hangs on the moment.
    held: Declared,
}

impl Suite {
    /// Tests that are left out in this variant, on all sides.
    pub(crate) fn left_out(&self, variant: Variant) -> impl Iterator<Item = &'static str> {
        let held = match variant {
            Variant::Approved => self.left_out_held,
            Variant::Plain | Variant::Tls => &[],
        };
        self.left_out.iter().chain(held).map(|(test, _)| *test)
    }

    /// What may end differently in this variant behind `capture`, and why.
    pub(crate) fn held(&self, variant: Variant, capture: Capture<'_>) -> Declared {
        match (variant, capture) {
            (Variant::Approved, Capture::Enforced(_)) => self.held,
            (Variant::Plain | Variant::Tls, _) | (_, Capture::None | Capture::Observed) => &[],
        }
    }
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

/// Everybody by SCRAM, also without TLS.
const SCRAM: &[&str] = &["host all all 127.0.0.1/32 scram-sha-256"];

const NOBODY_LISTENS: &str =
    "in a run every connection is taken, and one that leads nowhere is closed, not refused";

const OUR_CREDENTIAL: &str =
    "the agent's password is not looked at: the session is opened with a credential that it never sees";

const INSIDE: &str =
    "it begins a transaction where there may be one, and what may stand in a transaction is not kept waiting";

const INSIDE_AND_USED: &str = "they begin transactions where there may be one, and the session, in which the transaction has then failed, is \
     used by the tests behind them";

const AT_ONCE: &str =
    "sessions that ask for the same at once ask for one approval, which lets one of them pass";

const NOTICE: &str = "it looks for notices, and whoever waits for a person gets one";

const STRINGS: &str =
    "a session in which a backslash may end a string cannot be read, and is refused at its start";

const TOO_LONG: &str = "it sends texts of up to 50 MiB, until the socket's buffers are full twice; more than 16 MiB are not taken";

const SAME_MATRIX: &str = "1228 tests of operators on ranges, which Int4RangeRoundTripTest has as well";

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
        tls: Tls::Offered,
        port: None,
        access: SCRAM,
        settings: &[("max_prepared_transactions", "10")],
        prepare: &[("postgres", "CREATE EXTENSION hstore")],
        left_out: &[],
        left_out_held: &[],
        by_design: &[
            ("test/dbapi/test_connection.py::test_internet_socket_connection_refused", NOBODY_LISTENS),
            ("test/legacy/test_connection.py::test_internet_socket_connection_refused", NOBODY_LISTENS),
            ("test/native/test_connection.py::test_internet_socket_connection_refused", NOBODY_LISTENS),
        ],
        held: &[],
    },
    Suite {
        name: "asyncpg",
        runner: Runner::Pytest(&["tests"]),
        files: &["tests"],
        environment: libpq,
        tls: Tls::Told,
        port: None,
        access: SCRAM,
        settings: &[],
        prepare: &[],
        left_out: &[],
        left_out_held: &[],
        by_design: &[],
        held: &[
            ("tests/test_cursor.py::TestCursor::test_cursor_02", INSIDE),
            ("tests/test_cursor.py::TestCursor::test_cursor_04", INSIDE),
            ("tests/test_pool.py::TestPool::test_pool_11", AT_ONCE),
            ("tests/test_prepare.py::TestPrepare::test_prepare_14_explain", AT_ONCE),
            ("tests/test_timeout.py::TestTimeout::test_timeout_04", INSIDE),
        ],
    },
    Suite {
        name: "psycopg2",
        runner: Runner::Pytest(&["tests"]),
        files: &["tests"],
        environment: psycopg2,
        tls: Tls::Told,
        port: None,
        access: SCRAM,
        settings: &[("max_prepared_transactions", "10")],
        prepare: &[("postgres", "CREATE EXTENSION hstore")],
        left_out: &[
            ("tests/test_async.py::AsyncTests::test_flush_on_write", TOO_LONG),
            ("tests/test_green.py::GreenTestCase::test_flush_on_write", TOO_LONG),
        ],
        left_out_held: &[],
        by_design: &[("tests/test_types_extras.py::JsonTestCase::test_scs", STRINGS)],
        held: &[
            ("tests/test_connection.py::ConnectionTests::test_commit_concurrency", AT_ONCE),
            ("tests/test_quote.py::QuotingTestCase::test_binary", NOTICE),
            ("tests/test_quote.py::QuotingTestCase::test_string", NOTICE),
            ("tests/test_quote.py::QuotingTestCase::test_unicode", NOTICE),
        ],
    },
    Suite {
        name: "tokio-postgres",
        runner: Runner::Libtest,
        files: &[],
        // Its tests know where their server is, and as whom they log in.
        environment: |_| Vec::new(),
        tls: Tls::Never,
        port: Some(5433),
        access: &[
            "host all pass_user 127.0.0.1/32 password",
            "host all md5_user 127.0.0.1/32 md5",
            "host all scram_user 127.0.0.1/32 scram-sha-256",
            "hostssl all ssl_user 127.0.0.1/32 trust",
            "host all ssl_user 127.0.0.1/32 reject",
            "host all postgres 127.0.0.1/32 trust",
        ],
        settings: &[],
        prepare: &[
            ("postgres", "CREATE ROLE pass_user LOGIN PASSWORD 'password'"),
            ("postgres", "SET password_encryption = 'md5'; ALTER ROLE md5_user PASSWORD 'password'"),
            ("postgres", "CREATE ROLE scram_user LOGIN PASSWORD 'password'; CREATE ROLE ssl_user LOGIN"),
            ("postgres", "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree"),
        ],
        left_out: &[],
        left_out_held: &[],
        by_design: &[
            ("md5_password_missing", OUR_CREDENTIAL),
            ("md5_password_wrong", OUR_CREDENTIAL),
            ("plain_password_missing", OUR_CREDENTIAL),
            ("plain_password_wrong", OUR_CREDENTIAL),
            ("scram_password_missing", OUR_CREDENTIAL),
            ("scram_password_wrong", OUR_CREDENTIAL),
        ],
        held: &[],
    },
    Suite {
        name: "sqlalchemy",
        runner: Runner::Pytest(&["test/dialect/postgresql", "--dburi=postgresql+psycopg2:///postgres"]),
        files: &["test", "lib", "pyproject.toml", "setup.cfg"],
        environment: libpq,
        tls: Tls::Told,
        port: None,
        access: SCRAM,
        settings: &[
            ("max_prepared_transactions", "10"),
            ("default_text_search_config", "pg_catalog.english"),
        ],
        prepare: &[
            ("postgres", "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2"),
            ("postgres", "CREATE EXTENSION hstore; CREATE EXTENSION citext"),
        ],
        left_out: &[
            ("test/dialect/postgresql/test_types.py::DateRangeRoundTripTest", SAME_MATRIX),
            ("test/dialect/postgresql/test_types.py::DateTimeRangeRoundTripTest", SAME_MATRIX),
            ("test/dialect/postgresql/test_types.py::DateTimeTZRangeRoundTripTest", SAME_MATRIX),
            ("test/dialect/postgresql/test_types.py::Int8RangeRoundTripTest", SAME_MATRIX),
            ("test/dialect/postgresql/test_types.py::NumRangeRoundTripTest", SAME_MATRIX),
        ],
        left_out_held: &[("test/dialect/postgresql/test_dialect.py::TwoPhaseCommitTest", INSIDE_AND_USED)],
        by_design: &[],
        held: &[(
            "test/dialect/postgresql/test_dialect.py::MiscBackendTest_postgresql+psycopg2_15_18::test_notice_logging",
            NOTICE,
        )],
    },
];

/// The Python of a suite.
pub(crate) fn python(folder: &Path) -> String {
    folder.join("venv/bin/python").display().to_string()
}
