use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use interceptor_core::{
    inventory::{Agent, Holders, InRescue, Reach, RecordLevel, Resource, SecretSource, Upstream},
    model::{AgentName, Mode, ResourceName},
};
use sha2::Sha256;

use super::*;
use crate::keeper::{messages::Blob, secrets::SystemdCredentials};

const PASSWORD: &str = "hunter2";

pub(in crate::keeper) fn credential(minimum: AuthMethod) -> Credential {
    Credential {
        holders: Holders::Everyone,
        user: "app".to_owned(),
        secret: Some(SecretSource::File("orders".into())),
        minimum,
        certificate: None,
    }
}

pub(in crate::keeper) fn inventory(tls: Tls, credentials: Vec<Credential>) -> Inventory {
    let name: ResourceName = "orders".parse().expect("a name");
    let resource = Resource {
        name: name.clone(),
        protocol: Some("postgres".to_owned()),
        dialect: Some(interceptor_core::sql::Dialect::Postgres),
        env: None,
        hosts: vec!["db.internal".to_owned()],
        addresses: Vec::new(),
        sockets: Vec::new(),
        ports: vec![5432],
        upstream: Upstream::Network { host: "db.internal".to_owned(), port: 5432, reach: Reach::Network },
        tls,
        credentials,
        keeps: Vec::new(),
        record: RecordLevel::Binds,
        facts_max_age: Duration::ZERO,
        hold_max: Duration::ZERO,
        mode: Mode::Enforce,
        rescue: InRescue::Refused,
        at: ("resources.toml".to_owned(), 1),
    };
    let bot: AgentName = "bot".parse().expect("a name");
    let agent = Agent {
        name: bot.clone(),
        owner: None,
        groups: vec!["writers".to_owned()],
        launchers: Vec::new(),
        hints: Vec::new(),
        at: ("agents.toml".to_owned(), 1),
    };
    let mut inventory = Inventory::default();
    inventory.resources = BTreeMap::from([(name, resource)]);
    inventory.agents = BTreeMap::from([(bot, agent)]);
    inventory
}

pub(in crate::keeper) fn verified() -> Tls {
    Tls::Verified { roots: None, server_name: "db.internal".to_owned() }
}

fn whose(login: u64, agent: &str) -> Whose {
    let resource = "orders".parse().expect("a name");
    Whose { login, resource, agent: agent.parse().expect("a name") }
}

fn secured(binding: Option<&[u8]>) -> Leg {
    Leg::Tls { verified: true, binding: binding.map(|bytes| Blob(bytes.to_vec())) }
}

struct Bench {
    _folder: tempfile::TempDir,
    secrets: Secrets,
    inventory: Inventory,
    logins: Logins,
}

impl Bench {
    fn new(tls: Tls, minimum: AuthMethod) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("orders");
        std::fs::write(&path, format!("{PASSWORD}\n")).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
        let secrets = Secrets::new(folder.path().to_owned(), SystemdCredentials::default());
        let inventory = inventory(tls, vec![credential(minimum)]);
        Self { _folder: folder, secrets, inventory, logins: Logins::default() }
    }

    fn ask(&self, login: u64, question: Question, leg: &Leg) -> Result<Proof, String> {
        let whose = whose(login, "bot");
        let proof = self.logins.prove(&self.inventory, &self.secrets, &whose, &question, leg);
        proof.map_err(|error| {
            let said = error.to_string();
            assert!(!said.contains(PASSWORD), "{said}");
            said
        })
    }

    fn refused(&self, login: u64, question: Question, leg: &Leg) -> String {
        self.ask(login, question, leg).expect_err("refused")
    }
}

fn md5() -> Question {
    Question::Md5 { user: "app".to_owned(), salt: [1, 2, 3, 4] }
}

fn sasl(mechanisms: &[&str]) -> Question {
    Question::SaslBegin { mechanisms: mechanisms.iter().map(|&m| m.to_owned()).collect() }
}

#[test]
fn clear_goes_out_only_in_verified_tls_and_only_if_it_may() {
    let bench = Bench::new(verified(), AuthMethod::Cleartext);
    let proof = bench.ask(1, Question::Cleartext, &secured(None)).expect("a password");
    assert_eq!(proof, Proof::Response(Zeroizing::new(PASSWORD.into())));
    assert_eq!(bench.ask(1, Question::Nothing, &secured(None)), Ok(Proof::Accepted));

    for tls in [Tls::Plaintext { reason: "test".to_owned() }, Tls::Unverified { reason: "test".to_owned() }] {
        let bench = Bench::new(tls, AuthMethod::Cleartext);
        let leg = Leg::Tls { verified: false, binding: None };
        let said = bench.refused(1, Question::Cleartext, &leg);
        assert!(said.contains("resource orders, credential 1") && said.contains("verified"), "{said}");
    }
    let bench = Bench::new(verified(), AuthMethod::Md5);
    let said = bench.refused(1, Question::Cleartext, &secured(None));
    assert!(said.contains("weaker than `minimum` (md5)"), "{said}");
}

#[test]
fn clear_goes_out_by_a_unix_socket_that_the_inventory_names() {
    let mut bench = Bench::new(Tls::Plaintext { reason: "test".to_owned() }, AuthMethod::Cleartext);
    let said = bench.refused(1, Question::Cleartext, &Leg::Plaintext);
    assert!(said.contains("by a Unix socket"), "{said}");
    for resource in bench.inventory.resources.values_mut() {
        resource.upstream = Upstream::Socket("/run/redis/redis.sock".parse().expect("a path"));
    }
    let proof = bench.ask(2, Question::Cleartext, &Leg::Plaintext).expect("a password");
    assert_eq!(proof, Proof::Response(Zeroizing::new(PASSWORD.into())));
}

#[test]
fn nothing_is_proven_over_less_tls_than_the_inventory_says() {
    let bench = Bench::new(verified(), AuthMethod::None);
    for leg in [Leg::Plaintext, Leg::Tls { verified: false, binding: None }] {
        for question in [Question::Cleartext, md5(), sasl(&[PLAIN]), Question::Nothing] {
            assert!(bench.refused(1, question, &leg).contains("less secure"));
        }
    }
    let bench = Bench::new(Tls::Unverified { reason: "test".to_owned() }, AuthMethod::None);
    assert!(bench.refused(1, md5(), &Leg::Plaintext).contains("less secure"));
}

#[test]
fn md5_is_answered_as_postgresql_counts_it() {
    let bench = Bench::new(verified(), AuthMethod::Md5);
    // printf hunter2app | md5sum; printf '<that>\x01\x02\x03\x04' | md5sum
    let proof = bench.ask(1, md5(), &secured(None)).expect("a proof");
    let inner = hex::encode(Md5::digest(b"hunter2app"));
    let mut outer = inner.into_bytes();
    outer.extend_from_slice(&[1, 2, 3, 4]);
    let expected = format!("md5{}", hex::encode(Md5::digest(&outer)));
    assert_eq!(proof, Proof::Response(Zeroizing::new(expected.into_bytes())));

    let other = Question::Md5 { user: "postgres".to_owned(), salt: [0; 4] };
    assert!(bench.refused(2, other, &secured(None)).contains("another user"));
    let bench = Bench::new(verified(), AuthMethod::ScramSha256);
    assert!(bench.refused(1, md5(), &secured(None)).contains("scram-sha-256"));
}

#[test]
fn an_upstream_that_asks_for_nothing_is_refused_unless_nothing_is_the_minimum() {
    let bench = Bench::new(verified(), AuthMethod::ScramSha256);
    let said = bench.refused(1, Question::Nothing, &secured(None));
    assert!(said.contains("without the proof") && said.contains("scram-sha-256"), "{said}");
    bench.ask(2, sasl(&[PLAIN]), &secured(None)).expect("begun");
    assert!(bench.refused(2, Question::Nothing, &secured(None)).contains("without the proof"));
    let bench = Bench::new(verified(), AuthMethod::None);
    assert_eq!(bench.ask(1, Question::Nothing, &secured(None)), Ok(Proof::Accepted));
}

#[test]
fn a_certificate_counts_only_when_it_signed() {
    let bench = Bench::new(verified(), AuthMethod::Certificate);
    assert!(bench.refused(1, Question::Nothing, &secured(None)).contains("certificate"));
    bench.logins.signed(&whose(2, "bot")).expect("noted");
    assert_eq!(bench.ask(2, Question::Nothing, &secured(None)), Ok(Proof::Accepted));
    bench.logins.signed(&whose(3, "bot")).expect("noted");
    assert!(bench.refused(3, md5(), &secured(None)).contains("weaker"));
    bench.ask(3, sasl(&[PLAIN]), &secured(None)).expect("a password besides");
}

#[test]
fn the_strongest_mechanism_is_chosen_and_the_flag_is_honest() {
    let bench = Bench::new(verified(), AuthMethod::None);
    let both: &[&str] = &[PLAIN, PLUS];
    let begin =
        |login, mechanisms: &[&str], binding| match bench.ask(login, sasl(mechanisms), &secured(binding)) {
            Ok(Proof::Begin { mechanism, message }) => (mechanism, String::from_utf8(message).expect("text")),
            other => panic!("{other:?}"),
        };
    let (mechanism, first) = begin(1, both, Some(b"hash"));
    assert_eq!(mechanism, PLUS);
    assert!(first.starts_with("p=tls-server-end-point,,n=,r="), "{first}");
    let (mechanism, first) = begin(2, &[PLAIN], Some(b"hash"));
    assert_eq!(mechanism, PLAIN);
    assert!(first.starts_with("y,,n=,r="), "{first}");
    let (mechanism, other) = begin(3, both, None);
    assert_eq!(mechanism, PLAIN);
    assert!(other.starts_with("n,,n=,r="), "{other}");
    assert_ne!(first.rsplit("r=").next(), other.rsplit("r=").next(), "a new nonce each time");
    assert!(bench.refused(4, sasl(&["SCRAM-SHA-1"]), &secured(None)).contains("no mechanism"));

    let bench = Bench::new(verified(), AuthMethod::ScramSha256Plus);
    let said = bench.refused(1, sasl(&[PLAIN]), &secured(Some(b"hash")));
    assert!(said.contains("scram-sha-256-plus"), "{said}");
}

/// The server's side of RFC 5802, after PostgreSQL's formulae, for a password it knows.
fn server_final(password: &str, first_bare: &str, server_first: &str, without_proof: &str) -> String {
    let mac = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
        mac.update(text);
        mac.finalize().into_bytes()
    };
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), b"salt", 4096, &mut salted);
    let auth = format!("{first_bare},{server_first},{without_proof}");
    format!("v={}", STANDARD.encode(mac(&mac(&salted, b"Server Key"), auth.as_bytes())))
}

fn scram_up_to_final(bench: &Bench, login: u64, password: &str) -> Question {
    let leg = secured(None);
    let Ok(Proof::Begin { message, .. }) = bench.ask(login, sasl(&[PLAIN]), &leg) else { panic!("begun") };
    let first_bare = String::from_utf8(message).expect("text").trim_start_matches("n,,").to_owned();
    let nonce = first_bare.rsplit("r=").next().expect("a nonce").to_owned();
    let server_first = format!("r={nonce}more,s={},i=4096", STANDARD.encode("salt"));
    let next = Question::SaslContinue { message: Blob(server_first.clone().into_bytes()) };
    let Ok(Proof::Response(last)) = bench.ask(login, next, &leg) else { panic!("responded") };
    let last = String::from_utf8(last.to_vec()).expect("text");
    let (without_proof, _) = last.rsplit_once(",p=").expect("a proof");
    let message = server_final(password, &first_bare, &server_first, without_proof);
    Question::SaslFinish { message: Blob(message.into_bytes()) }
}

#[test]
fn scram_ends_only_when_the_server_knows_the_password_too() {
    let bench = Bench::new(verified(), AuthMethod::ScramSha256);
    let leg = secured(None);
    let last = scram_up_to_final(&bench, 1, PASSWORD);
    assert!(format!("{:?}", bench.logins).contains("***"));
    assert_eq!(bench.ask(1, last, &leg), Ok(Proof::Accepted));
    assert_eq!(bench.ask(1, Question::Nothing, &leg), Ok(Proof::Accepted));

    let last = scram_up_to_final(&bench, 2, "something else");
    assert!(bench.refused(2, last, &leg).contains("not the server"));
    assert!(bench.refused(2, Question::Nothing, &leg).contains("without the proof"));

    scram_up_to_final(&bench, 3, PASSWORD);
    assert!(bench.refused(3, Question::Nothing, &leg).contains("without the proof"));
}

#[test]
fn a_log_in_belongs_to_one_agent_and_is_forgotten() {
    let bench = Bench::new(verified(), AuthMethod::ScramSha256);
    bench.ask(1, sasl(&[PLAIN]), &secured(None)).expect("begun");
    let stranger = bench.logins.prove(
        &bench.inventory,
        &bench.secrets,
        &whose(1, "unknown"),
        &sasl(&[PLAIN]),
        &secured(None),
    );
    assert!(matches!(stranger, Err(ProofError::Stranger)));
    bench.logins.finish(1);
    let next = Question::SaslContinue { message: Blob(b"r=x,s=AAAA,i=4096".to_vec()) };
    assert!(bench.refused(1, next, &secured(None)).contains("out of order"));
}

#[test]
fn the_first_credential_that_fits_is_chosen() {
    let named = |agents: &[&str], groups: &[&str], user: &str| Credential {
        holders: Holders::Named {
            agents: agents.iter().map(|a| a.parse().expect("a name")).collect(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
        },
        user: user.to_owned(),
        ..credential(AuthMethod::None)
    };
    let list = vec![named(&["other"], &[], "a"), named(&[], &["writers"], "b"), named(&["bot"], &[], "c")];
    let inventory = inventory(verified(), list);
    let orders = "orders".parse().expect("a name");
    let bot = "bot".parse().expect("a name");
    let (_, place, chosen) = choose(&inventory, &orders, &bot).expect("one");
    assert_eq!((place, chosen.user.as_str()), (1, "b"));
    let none = choose(&inventory, &orders, &AgentName::unknown()).map(|_| ());
    assert!(none.expect_err("none").to_string().contains("no credential for agent unknown"));
    assert!(choose(&inventory, &"nope".parse().expect("a name"), &bot).is_err());
}

#[test]
fn log_ins_are_bounded() {
    let bench = Bench::new(verified(), AuthMethod::None);
    for login in 0..LOGINS_LIMIT {
        bench.ask(u64::try_from(login).expect("small"), Question::Nothing, &secured(None)).expect("noted");
    }
    assert!(bench.refused(u64::MAX, Question::Nothing, &secured(None)).contains("log-ins are under way"));
}

#[test]
fn mysqls_challenges_are_answered_as_it_counts_them() {
    let scramble = *b"interceptor-scramble";
    let native = mysql_native(PASSWORD.as_bytes(), &scramble);
    assert_eq!(hex::encode(&*native), "73314f0e54e06e429003d03f97c477e136817200");
    let caching = caching_sha2(PASSWORD.as_bytes(), &scramble);
    assert_eq!(hex::encode(&*caching), "65d6c1293e7d5c8dd8a9e0e4c2a5336e9d9a60108a73c9a8c02c7be6e0aa9450");
    assert!(mysql_native(b"", &scramble).is_empty() && caching_sha2(b"", &scramble).is_empty());
}

#[test]
fn a_proof_is_given_only_in_the_resources_own_protocol() {
    let scramble = *b"interceptor-scramble";
    let of_mysql = || {
        [Question::MysqlNative { scramble }, Question::CachingSha2 { scramble }, Question::CachingSha2Full]
    };
    let of_postgres = || [Question::Nothing, Question::Cleartext, md5(), sasl(&["SCRAM-SHA-256"])];
    let mut bench = Bench::new(verified(), AuthMethod::None);
    let mut speak = |protocol: Option<&str>| {
        let resource = bench.inventory.resources.values_mut().next().expect("a resource");
        resource.protocol = protocol.map(str::to_owned);
        let asks = |question: Question| bench.ask(1, question, &secured(None));
        (of_mysql().map(asks), of_postgres().map(asks))
    };
    let is_of_another = |answer: &Result<Proof, String>| {
        answer.as_ref().is_err_and(|said| said.contains("the proxy asks for a proof of"))
    };
    let (mysql, postgres) = speak(Some("postgres"));
    assert!(mysql.iter().all(is_of_another) && !postgres.iter().any(is_of_another), "{mysql:?} {postgres:?}");
    let (mysql, postgres) = speak(Some("mysql"));
    assert!(!mysql.iter().any(is_of_another) && postgres.iter().all(is_of_another), "{mysql:?} {postgres:?}");
    let (mysql, redis) = speak(Some("redis"));
    assert!(mysql.iter().chain(&redis[2..]).all(is_of_another), "{mysql:?} {redis:?}");
    assert!(!redis[..2].iter().any(is_of_another), "{redis:?}");
    let (mysql, postgres) = speak(None);
    assert!(mysql.iter().chain(&postgres).all(is_of_another));
}
