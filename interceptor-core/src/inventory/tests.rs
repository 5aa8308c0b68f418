use std::net::SocketAddr;

use super::*;
use crate::model::{AgentIdentity, Mode, SyntheticAddress};

const PROTOCOLS: [KnownProtocol; 2] = [
    KnownProtocol { name: "postgres", port: 5432, data: DataIn::Tables, dialect: Some(Dialect::Postgres) },
    KnownProtocol { name: "redis", port: 6379, data: DataIn::Keys, dialect: None },
];

const AGENTS: &str = r#"
[agent.release-bot]
owner = "alice"
groups = ["ci"]
launchers = ["ci-runner"]
[[agent.release-bot.hint]]
user = "runner"
executable = "/usr/bin/claude"
argv = ["--print"]
[agent.other]
"#;

fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

fn read(resources: &str, agents: &str) -> Result<Inventory, Vec<Fault>> {
    load(&source("resources.toml", resources), &source("agents.toml", agents), &PROTOCOLS)
}

fn good(resources: &str) -> Inventory {
    read(resources, AGENTS).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[test]
fn the_whole_of_the_format_is_read() {
    let inventory = good(
        r#"
approvers = ["dba", "on-call"]
[resource.orders]
protocol = "postgres"
env = "prod"
hosts = ["DB.internal.", "db2.internal"]
addresses = ["10.0.0.5:5432", "10.2.0.0/16", "2001:db8::1"]
upstream = "db.internal:6432"
dial = "host"
mode = "observe"
record = "metadata"
rescue = "unmasked"
tls = { roots = "/etc/ssl/db-ca.pem", server_name = "db.internal" }
[[resource.orders.credential]]
agents = ["release-bot"]
user = "orders_rw"
secret = { file = "orders-rw" }
minimum = "scram-sha-256-plus"
certificate = { chain = "/path.pem", key = { systemd = "orders-key" } }
[[resource.orders.credential]]
user = "orders_ro"
secret = { exec = ["/usr/local/bin/helper", "arg"] }
[resource.model]
hosts = ["api.example.com"]
ports = [443]
keeps = ["MODEL_API_KEY"]
"#,
    );
    assert_eq!(inventory.approvers, ["dba", "on-call"]);
    let orders = inventory.by_host("db.INTERNAL").expect("by host");
    assert_eq!((orders.name.as_str(), orders.at.1), ("orders", 3));
    assert_eq!(orders.ports, [5432]);
    assert_eq!(
        orders.upstream,
        Upstream::Network { host: "db.internal".into(), port: 6432, reach: Reach::Host }
    );
    assert_eq!((orders.mode, orders.record), (Mode::Observe, RecordLevel::Metadata));
    assert_eq!(orders.rescue, InRescue::Unmasked);
    let [first, second] = orders.credentials.as_slice() else { panic!("two credentials") };
    assert_eq!(first.minimum, AuthMethod::ScramSha256Plus);
    assert_eq!(
        first.certificate.as_ref().expect("certificate").1,
        SecretSource::Systemd("orders-key".into())
    );
    assert_eq!(second.minimum, AuthMethod::ScramSha256);
    let identity = |name: &str, groups: &[&str]| AgentIdentity {
        name: name.parse().expect("a name"),
        owner: None,
        groups: groups.iter().map(|&g| g.to_owned()).collect(),
    };
    let user = |agent| orders.credential_for(&agent).map(|credential| credential.user.as_str());
    assert_eq!(user(identity("release-bot", &[])), Some("orders_rw"));
    assert_eq!(user(identity("unknown", &[])), Some("orders_ro"));
    let model = inventory.by_host("api.example.com").expect("by host");
    assert_eq!(
        (model.protocol.as_deref(), model.keeps.as_slice()),
        (None, &["MODEL_API_KEY".to_owned()][..])
    );
    assert_eq!(model.upstream.to_string(), "api.example.com:443");
}

#[test]
fn a_destination_means_one_resource() {
    let inventory = good(
        r#"
[resource.a]
protocol = "postgres"
hosts = ["shared"]
addresses = ["10.0.0.5:5433", "10.2.0.0/16"]
[resource.b]
protocol = "redis"
hosts = ["shared"]
[resource.c]
protocol = "postgres"
addresses = ["127.0.0.1:5432"]
dial = "host"
"#,
    );
    let shared = inventory.synthetic("shared").expect("a synthetic address");
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let cases = [
        (SocketAddr::new(shared.v4().into(), 5432), "a"),
        (SocketAddr::new(shared.v6().into(), 6379), "b"),
        (SocketAddr::new(shared.v4().into(), 80), "wrong port"),
        (at("198.18.0.0:5432"), "nothing"),
        (at("10.0.0.5:5433"), "a"),
        (at("[::ffff:10.0.0.5]:5433"), "a"),
        (at("10.0.0.5:5432"), "nothing"),
        (at("10.2.9.9:5432"), "a"),
        (at("10.2.9.9:6379"), "nothing"),
        (at("10.3.0.0:5432"), "nothing"),
        (at("127.0.0.1:5432"), "c"),
        (at("127.0.0.1:5433"), "loopback"),
        (at("[::1]:5432"), "loopback"),
    ];
    for (destination, expected) in cases {
        let found = match inventory.by_destination(destination) {
            Match::Resource { resource, .. } => resource.name.as_str(),
            Match::WrongPort { .. } => "wrong port",
            Match::Loopback => "loopback",
            Match::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{destination}");
    }
}

#[test]
fn a_socket_means_one_resource_however_it_is_written() {
    let inventory = good(
        r#"
[resource.a]
protocol = "postgres"
sockets = ["/var/run/postgresql/.s.PGSQL.5432"]
upstream = "unix:/var/run/postgresql/.s.PGSQL.5433"
tls = { plaintext = "a test" }
[resource.b]
sockets = ["/srv/s"]
upstream = "unix:/srv/s"
"#,
    );
    let means = |path| inventory.by_socket(path).map(|resource| resource.name.as_str());
    for path in ["/run/postgresql/.s.PGSQL.5432", "/var/run//postgresql/./.s.PGSQL.5432"] {
        assert_eq!(means(path), Some("a"));
    }
    assert_eq!(means("/srv/s"), Some("b"));
    for path in ["", "srv/s", "/srv/s/", "/srv/../srv/s", "/run/postgresql/.s.PGSQL.5433", "/srv/S"] {
        assert_eq!(means(path), None, "{path}");
    }
    let upstreams: Vec<_> =
        inventory.resources.values().map(|resource| resource.upstream.to_string()).collect();
    assert_eq!(upstreams, ["unix:/run/postgresql/.s.PGSQL.5433", "unix:/srv/s"]);
}

#[test]
fn a_name_keeps_its_address_when_others_come() {
    let names = |names: &[&str]| {
        let hosts: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
        good(&format!("[resource.a]\nprotocol = \"postgres\"\nhosts = [{}]", hosts.join(", ")))
    };
    let few = names(&["m.internal"]);
    let more = names(&["a.internal", "m.internal", "z.internal"]);
    assert_eq!(few.synthetic("m.internal"), more.synthetic("m.internal"));
    assert_eq!(
        more.hosts().map(|(name, _)| name).collect::<Vec<_>>(),
        ["a.internal", "m.internal", "z.internal"]
    );
    for (name, address) in more.hosts() {
        assert_eq!(SyntheticAddress::from_ip(address.v4().into()), more.synthetic(name));
    }
}

/// Each text has just the faults whose parts are listed, at these lines.
#[test]
fn what_is_wrong_in_resources_is_named_with_its_line() {
    let pg = "[resource.a]\nprotocol = \"postgres\"\nhosts = [\"db\"]\n";
    let cases: &[(String, &[(usize, &str)])] = &[
        ("x = 1".into(), &[(1, "unknown key `x`")]),
        ("[resource.a".into(), &[(1, "")]),
        ("resource = 1".into(), &[(1, "must be a table")]),
        ("approvers = [\"d ba\"]".into(), &[(1, "is not a name")]),
        ("[resource.\"a b\"]\nhosts = [\"x\"]\nports = [1]".into(), &[(1, "is not a name")]),
        (format!("{pg}hots = []"), &[(4, "unknown field `hots`")]),
        (format!("{pg}mode = \"off\""), &[(4, "unknown variant `off`")]),
        (format!("{pg}rescue = \"on\""), &[(4, "unknown variant `on`")]),
        (format!("{pg}env = \"none\""), &[(4, "choose another")]),
        (format!("{pg}ports = [0]"), &[(4, "`ports`")]),
        (format!("{pg}ports = [70000]"), &[(4, "")]),
        (format!("{pg}keeps = [\"A\"]"), &[(4, "`keeps` is for")]),
        ("[resource.a]\nprotocol = \"gopher\"\nhosts = [\"db\"]\nports = [70]".into(), &[(2, "knows postgres, redis")]),
        ("[resource.a]\nprotocol = \"postgres\"".into(), &[(1, "nor `sockets`"), (1, "no `upstream`")]),
        (format!("{pg}sockets = [\"run/s\", \"/run/../s\", \"/run/s/\", \"/var/run/s\", \"/run/./s\"]"), &[
            (4, "`run/s` is not an absolute path"), (4, "has `..`"), (4, "names a folder"), (4, "`/run/s` is listed twice"),
        ]),
        (format!("{pg}sockets = [\"/run/s\"]\n[resource.b]\nprotocol = \"redis\"\nhosts = [\"x\"]\nsockets = [\"/var/run/s\"]"), &[(5, "both answer to /run/s")]),
        ("[resource.a]\nsockets = [\"/run/s\"]".into(), &[(1, "no `upstream`")]),
        ("[resource.a]\nprotocol = \"redis\"\nsockets = [\"/run/s\"]".into(), &[(1, "no `upstream`")]),
        (format!("{pg}upstream = \"unix:s\""), &[(4, "`s` is not an absolute path")]),
        (format!("{pg}upstream = \"unix:/run/s\""), &[(1, "no TLS over a Unix socket")]),
        (format!("{pg}upstream = \"unix:/run/s\"\ntls = {{ unverified = \"x\" }}"), &[(5, "no TLS over a Unix socket")]),
        (format!("{pg}upstream = \"unix:/run/s\"\ntls = {{ plaintext = \" \" }}"), &[(5, "no TLS over a Unix socket")]),
        ("[resource.a]\nhosts = [\"db\"]".into(), &[(1, "no `ports`")]),
        ("[resource.a]\nhosts = [\"db\"]\nports = [1]\nkeeps = [\"1A\"]".into(), &[(4, "environment variable")]),
        ("[resource.a]\nhosts = [\"db\"]\nports = [1]\ntls = { plaintext = \"x\" }".into(), &[(4, "no effect")]),
        ("[resource.a]\nprotocol = \"postgres\"\nhosts = [\"10.0.0.1\", \"*.x\", \"localhost\", \"a..b\", \"x\", \"X\"]".into(), &[
            (3, "list it under `addresses`"), (3, "exact names"), (3, "never reaches"), (3, "not a DNS name"), (3, "twice"),
        ]),
        (format!("{pg}addresses = [\"db\", \"10.0.0.0/33\", \"10.0.0.1/8\", \"1.2.3.4:0\", \"198.18.0.1:1\", \"0.0.0.0\", \"224.0.0.1\", \"::ffff:1.2.3.0/120\"]"), &[
            (4, "`db` is neither"), (4, "`10.0.0.0/33` is neither"), (4, "beyond its length"), (4, "port 0"), (4, "stand for names"),
            (4, "`0.0.0.0` is no address"), (4, "`224.0.0.1` is no address"), (4, "`::ffff:1.2.3.0/120` is neither"),
        ]),
        (format!("{pg}addresses = [\"127.0.0.1:5432\"]"), &[(1, "loopback")]),
        (format!("{pg}addresses = [\"0.0.0.0/0\"]"), &[(4, "no address")]),
        (format!("{pg}upstream = \"127.0.0.1:1\""), &[(4, "loopback")]),
        (format!("{pg}upstream = \"localhost\""), &[(4, "loopback")]),
        (format!("{pg}upstream = \"[::ffff:127.0.0.1]:1\""), &[(4, "loopback")]),
        (format!("{pg}upstream = \"x:y\""), &[(4, "`upstream` must be")]),
        (format!("{pg}upstream = \"127.1:5432\""), &[(4, "`upstream` must be")]),
        (format!("{pg}upstream = \"0.0.0.0:1\""), &[(4, "no address")]),
        (format!("{pg}dial = \"anywhere\""), &[(4, "")]),
        (format!("{pg}tls = {{ plaintext = \" \" }}"), &[(4, "must say why")]),
        (format!("{pg}tls = {{ plaintext = \"a\", unverified = \"b\" }}"), &[(4, "either")]),
        (format!("{pg}tls = {{ roots = \"ca.pem\" }}"), &[(4, "absolute")]),
        ("[resource.a]\nprotocol = \"postgres\"\naddresses = [\"10.0.0.0/8\"]".into(), &[(1, "no `upstream`")]),
        (format!("{pg}[resource.b]\nprotocol = \"postgres\"\nhosts = [\"DB\"]"), &[(4, "both answer to db:5432")]),
        (format!("{pg}addresses = [\"10.0.0.0/8\"]\n[resource.b]\nprotocol = \"postgres\"\naddresses = [\"10.1.0.1:5432\"]"), &[(5, "both answer to 10.1.0.1:5432")]),
        (format!("{pg}addresses = [\"10.0.0.0/8\"]\n[resource.b]\nprotocol = \"postgres\"\nhosts = [\"x\"]\naddresses = [\"10.1.0.0/16\"]"), &[(5, "both answer to 10")]),
    ];
    for (text, expected) in cases {
        assert_faults(text, &read(text, AGENTS), expected);
    }
}

#[test]
fn what_is_wrong_in_credentials_is_named_with_its_line() {
    let with = |tls: &str, credential: &str| {
        format!(
            "[resource.a]\nprotocol = \"postgres\"\nhosts = [\"db\"]\n{tls}\n[[resource.a.credential]]\n{credential}"
        )
    };
    let cases: &[(String, &[(usize, &str)])] = &[
        (with("", "secret = { file = \"x\" }"), &[(5, "missing field `user`")]),
        (with("", "user = \"\""), &[(6, "`user` is empty")]),
        (with("", "user = \"u\"\nsecret = { file = \"../x\" }"), &[(7, "without `..`")]),
        (with("", "user = \"u\"\nsecret = { file = \"/x\" }"), &[(7, "`file`")]),
        (with("", "user = \"u\"\nsecret = { systemd = \"a/b\" }"), &[(7, "without `/`")]),
        (with("", "user = \"u\"\nsecret = { exec = [\"helper\"] }"), &[(7, "absolute path")]),
        (with("", "user = \"u\"\nsecret = { file = \"a\", systemd = \"b\" }"), &[(7, "one of")]),
        (
            with("", "user = \"u\"\nagents = [\"nobody\"]\ngroups = [\"none\"]"),
            &[(7, "no agent `nobody`"), (8, "group `none`")],
        ),
        (with("", "user = \"u\"\n[[resource.a.credential]]\nuser = \"v\""), &[(7, "never used")]),
        (with("", "user = \"u\"\nminimum = \"md5\""), &[(7, "neither `secret` nor")]),
        (
            with("", "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"certificate\""),
            &[(8, "asks for a certificate")],
        ),
        (with("", "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"cleartext\""), &[]),
        (
            with(
                "tls = { plaintext = \"x\" }",
                "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"cleartext\"",
            ),
            &[(8, "readable")],
        ),
        (
            with(
                "tls = { plaintext = \"x\" }",
                "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"none\"",
            ),
            &[(8, "readable")],
        ),
        (
            with(
                "tls = { unverified = \"x\" }",
                "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"cleartext\"",
            ),
            &[(8, "readable")],
        ),
        (
            with(
                "tls = { plaintext = \"x\" }",
                "user = \"u\"\nsecret = { file = \"x\" }\nminimum = \"scram-sha-256-plus\"",
            ),
            &[(8, "needs TLS")],
        ),
        (with("tls = { plaintext = \"x\" }", "user = \"u\"\nsecret = { file = \"x\" }"), &[]),
    ];
    for (text, expected) in cases {
        assert_faults(text, &read(text, AGENTS), expected);
    }
}

#[test]
fn what_is_wrong_in_agents_is_named_with_its_line() {
    let two = |one: &str, two: &str| {
        format!("[agent.a]\n[[agent.a.hint]]\n{one}\n[agent.b]\n[[agent.b.hint]]\n{two}")
    };
    let cases: &[(String, &[(usize, &str)])] = &[
        ("[agents.a]".into(), &[(1, "unknown key `agents`")]),
        ("[agent.unknown]".into(), &[(1, "choose another")]),
        ("[agent.a]\ngroups = [\"x\", \"x\", \"y y\"]".into(), &[(2, "twice"), (2, "is not a name")]),
        ("[agent.a]\nowner = \" \"".into(), &[(2, "`owner` is empty")]),
        ("[agent.a]\nlaunchers = [\"\"]".into(), &[(2, "not a user name")]),
        ("[agent.a]\nrole = 1\n[agent.b]\nrole = 2".into(), &[(2, "unknown field"), (4, "unknown field")]),
        ("[agent.a]\n[[agent.a.hint]]".into(), &[(2, "empty hint")]),
        ("[agent.a]\n[[agent.a.hint]]\nexecutable = \"x\"".into(), &[(2, "absolute")]),
        (two("user = \"u\"", "user = \"u\""), &[(5, "line 2")]),
        (two("user = \"u\"", "executable = \"/x\""), &[(5, "could fit")]),
        (two("user = \"u\"", "user = \"v\""), &[]),
        (two("user = \"u\"", "user = \"u\"\nexecutable = \"/x\""), &[]),
        (two("argv = [\"a\"]", "argv = [\"b\"]"), &[(5, "could fit")]),
        (two("argv = [\"a\"]", "argv = [\"b\", \"a\"]"), &[]),
    ];
    for (text, expected) in cases {
        assert_faults(text, &read("", text), expected);
    }
}

#[test]
fn faults_of_both_files_are_listed_together() {
    let faults = read("x = 1\ny = 2", "z = 3").expect_err("faults");
    let places: Vec<_> = faults.iter().map(|fault| (fault.file.as_str(), fault.line)).collect();
    assert_eq!(places, [("agents.toml", 1), ("resources.toml", 1), ("resources.toml", 2)]);
}

#[test]
fn a_launch_is_its_name_or_its_hint_or_unknown() {
    let inventory = good("");
    let launch = |agent: Option<&str>, user: &str, argv: &[&str]| {
        let argv: Vec<String> = argv.iter().map(|&text| text.to_owned()).collect();
        let launch = Launch { agent, user, executable: "/usr/bin/claude", argv: &argv };
        match inventory.identify(&launch) {
            Ok(identity) => identity.name.to_string(),
            Err(error) => error.to_string(),
        }
    };
    let cases = [
        (launch(Some("release-bot"), "ci-runner", &[]), "release-bot"),
        (launch(Some("release-bot"), "mallory", &[]), "`mallory` may not launch"),
        (launch(Some("other"), "mallory", &[]), "other"),
        (launch(Some("relase-bot"), "ci-runner", &[]), "no agent `relase-bot`; it has other, release-bot"),
        (launch(Some("unknown"), "x", &[]), "no agent `unknown`"),
        (launch(None, "runner", &["claude", "--print"]), "release-bot"),
        (launch(None, "runner", &["claude"]), "unknown"),
        (launch(None, "root", &["claude", "--print"]), "unknown"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found:?} should have {expected:?}");
    }
}

pub(crate) fn assert_faults<T>(text: &str, result: &Result<T, Vec<Fault>>, expected: &[(usize, &str)]) {
    let faults = result.as_ref().err().map_or(&[][..], Vec::as_slice);
    let fits = faults.len() == expected.len()
        && expected.iter().all(|(line, part)| {
            faults.iter().any(|fault| fault.line == *line && fault.message.contains(part))
        });
    assert!(fits, "{text}\nshould have {expected:#?}\nhas {faults:#?}");
}
