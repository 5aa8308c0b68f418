use std::{collections::BTreeMap, fs, path::Path};

use super::{
    expect::{Case, Catalogue},
    *,
};
use crate::{
    inventory::{self, DataIn, KnownProtocol, tests::assert_faults},
    model::{Effect, Image, Object, Phase, Program, Spent, StatementFacts, StatementKind, Target, Verb},
    permit::Judgement,
    sql::Dialect,
};

const PROTOCOLS: [KnownProtocol; 3] = [
    KnownProtocol { name: "postgres", port: 5432, data: DataIn::Tables, dialect: Some(Dialect::Postgres) },
    KnownProtocol { name: "redis", port: 6379, data: DataIn::Keys, dialect: None },
    KnownProtocol { name: "mysql", port: 3306, data: DataIn::Unread, dialect: Some(Dialect::MySql) },
];

const RESOURCES: &str = r#"
approvers = ["dba", "on-call"]
[resource.orders]
protocol = "postgres"
env = "prod"
hosts = ["db.internal"]
[resource.models]
hosts = ["api.example.com"]
ports = [443]
"#;

const AGENTS: &str = r#"
[agent.bot]
owner = "alice"
groups = ["ci"]
[agent.hinted]
[[agent.hinted.hint]]
executable = "/usr/bin/claude"
"#;

pub(super) fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

pub(super) fn inventory() -> Inventory {
    inventory::load(&source("resources.toml", RESOURCES), &source("agents.toml", AGENTS), &PROTOCOLS)
        .unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn load(rules: &str) -> Result<Policy, Vec<Fault>> {
    Policy::load(&[source("p.cedar", rules)], &inventory())
}

pub(super) fn policy(rules: &str) -> Policy {
    load(rules).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn case(action: &str) -> Case {
    Case {
        agent: "bot".parse().expect("a name"),
        resource: Some("orders".parse().expect("a name")),
        sql: None,
        action: Some(action.to_owned()),
        on: expect::On::default(),
        approvals: BTreeMap::new(),
        spent: Spent::default(),
        now: 0,
    }
}

fn sql(text: &str) -> Case {
    Case { sql: Some(text.to_owned()), action: None, ..case("") }
}

fn approved(case: Case, approvals: &[(&str, u32)]) -> Case {
    let approvals = approvals.iter().map(|&(group, count)| (group.to_owned(), count)).collect();
    Case { approvals, ..case }
}

fn catalogue() -> Catalogue {
    Catalogue { tables: vec!["public.users".into(), "public.orders".into()], ..Catalogue::default() }
}

fn judge(policy: &Policy, case: &Case) -> Vec<Judgement> {
    let trial = case.prepare(policy, &catalogue(), &simple).unwrap_or_else(|error| panic!("{error}"));
    trial.questions().map(|asked| policy.judge(&asked)).collect()
}

fn word(policy: &Policy, case: &Case) -> String {
    let words: Vec<_> = judge(policy, case)
        .into_iter()
        .map(|judgement| match judgement {
            Judgement::Allowed { .. } => "allow".to_owned(),
            Judgement::Denied { .. } => "deny".to_owned(),
            Judgement::Held { approvers, .. } => format!("hold {}", approvers.join("+")),
        })
        .collect();
    words.join(" ")
}

/// A stand-in for SQL analysis that knows the first words of a statement, enough for the shipped tables.
pub(crate) fn simple(catalogue: &Catalogue, _: Dialect, text: &str) -> Vec<StatementFacts> {
    if text.trim_start().to_uppercase().starts_with("DO ") {
        return vec![StatementFacts::unknown("the body of DO is not read")];
    }
    text.split(';').filter(|text| !text.trim().is_empty()).map(|text| statement(text, catalogue)).collect()
}

fn statement(text: &str, catalogue: &Catalogue) -> StatementFacts {
    let words: Vec<String> =
        text.split(|c: char| c.is_whitespace() || "(),'=".contains(c)).map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    let after = |word: &str| words.iter().skip_while(|w| **w != word).nth(1).copied();
    let nth = |at: usize| words.get(at).copied().unwrap_or_default();
    let object = |name: &str| {
        let mut found = catalogue.tables.iter().chain(catalogue.views.keys());
        let qualified = found.find(|known| *known == name || known.ends_with(&format!(".{name}")));
        let qualified = qualified.cloned().unwrap_or_else(|| format!("public.{name}"));
        let (schema, name) = qualified.split_once('.').expect("a qualified name");
        Object { database: catalogue.database.clone(), schema: schema.into(), name: name.into(), oid: None }
    };
    let table = |name: &str| Target::Table(object(name));
    let (kind, verb, target) = match nth(0) {
        "select" => (StatementKind::Select, Verb::DataRead, after("from").map_or(Target::Resource, table)),
        "insert" => (StatementKind::Insert, Verb::DataInsert, table(nth(2))),
        "update" => (StatementKind::Update, Verb::DataUpdate, table(nth(1))),
        "delete" => (StatementKind::Delete, Verb::DataDelete, table(nth(2))),
        "truncate" => (StatementKind::Truncate, Verb::DataTruncate, table(nth(1))),
        "create" => (StatementKind::Create, Verb::SchemaCreate, table(nth(2))),
        "alter" => (StatementKind::Alter, Verb::SchemaAlter, table(nth(2))),
        "drop" => (StatementKind::Drop, Verb::SchemaDrop, table(nth(2))),
        "set" => (StatementKind::Set, Verb::SessionChange, Target::Setting(nth(1).to_owned())),
        "begin" | "commit" => (StatementKind::Transaction, Verb::Transaction, Target::Resource),
        _ => return StatementFacts::unknown("not one of the words of this test"),
    };
    let writes = matches!(kind, StatementKind::Update | StatementKind::Delete);
    StatementFacts {
        kind,
        has_where: !writes || words.contains(&"where"),
        ..StatementFacts::single(verb, target)
    }
}

const READS: &str = r#"@id("reads") permit (principal == Agent::"bot", action == Action::"data.read", resource is Table in Resource::"orders");"#;

#[test]
fn the_shipped_policies_say_what_their_tables_expect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut folders = 0;
    for folder in fs::read_dir(&root).expect("policies/") {
        let folder = folder.expect("an entry").path();
        let mut files: Vec<_> =
            fs::read_dir(&folder).expect("a folder").map(|file| file.expect("an entry").path()).collect();
        files.sort();
        let read = |path: &Path| {
            source(&path.display().to_string(), &fs::read_to_string(path).expect("a text file"))
        };
        let ends = |end: &str| -> Vec<Source> {
            files.iter().filter(|path| path.to_string_lossy().ends_with(end)).map(|path| read(path)).collect()
        };
        let inventory = inventory::load(
            &read(&folder.join("resources.toml")),
            &read(&folder.join("agents.toml")),
            &PROTOCOLS,
        )
        .and_then(|inventory| {
            ends("labels.toml").iter().try_fold(inventory, |inventory, labels| inventory.with_labels(labels))
        })
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
        let policy = Policy::load(&ends(".cedar"), &inventory).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert_eq!(policy.warnings(), [], "{}", folder.display());
        let tables = ends(".expect.toml");
        assert!(!tables.is_empty() && folder.join("README.md").exists(), "{}", folder.display());
        for table in tables {
            let results = expect::run(&policy, &table, &Catalogue::facts)
                .unwrap_or_else(|faults| panic!("{faults:#?}"));
            assert!(results.len() >= 10, "{}", table.file);
            let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
            assert!(failed.is_empty(), "{failed:#?}");
        }
        folders += 1;
    }
    assert_eq!(folders, 8);
}

#[test]
fn a_failing_expectation_is_told_with_its_line() {
    let policy = policy(READS);
    let table = "[[expect]]\nagent = \"bot\"\nresource = \"orders\"\nsql = \"SELECT * FROM users\"\nverdict = \"deny\"\n\
                 [[expect]]\nagent = \"bot\"\nresource = \"orders\"\nsql = \"SELECT * FROM users\"\nverdict = \"allow\"\nrule = \"other\"\n";
    let results = expect::run(&policy, &source("t.expect.toml", table), &simple).expect("readable");
    let found: Vec<_> = results.iter().map(|result| (result.line, result.passed)).collect();
    assert_eq!(found, [(1, false), (6, false)]);
    let wrong = [
        ("x = 1", "unknown field"),
        ("[[expect]]\nagent = \"bot\"", "`verdict` is missing"),
        ("[[expect]]\nagent = \"bot\"\nverdict = \"maybe\"", "unknown variant"),
        ("[[expect]]\nagent = \"nobody\"\naction = \"pass\"\nverdict = \"deny\"", "no agent `nobody`"),
        (
            "[[expect]]\nagent = \"bot\"\nresource = \"x\"\naction = \"pass\"\nverdict = \"deny\"",
            "no resource `x`",
        ),
        ("[[expect]]\nagent = \"bot\"\nverdict = \"deny\"", "either `sql` or `action`"),
        ("[[expect]]\nagent = \"bot\"\naction = \"jump\"\nverdict = \"deny\"", "no action `jump`"),
        (
            "[[expect]]\nagent = \"bot\"\nresource = \"orders\"\nsql = \" ; \"\nverdict = \"allow\"",
            "no statement",
        ),
        ("[[expect]]\nagent = \"bot\"\nsqll = \"x\"\nverdict = \"deny\"", "unknown field"),
    ];
    for (table, expected) in wrong {
        let faults = expect::run(&policy, &source("t", table), &simple).expect_err(table);
        assert!(faults.len() == 1 && faults[0].message.contains(expected), "{table}: {faults:#?}");
    }
}

#[test]
fn what_is_wrong_in_rules_is_named_with_its_line() {
    let forbid = "forbid (principal, action == Action::\"data.delete\", resource)";
    let permit = "permit (principal, action == Action::\"data.delete\", resource)";
    let cases: &[(String, &[(usize, &str)])] = &[
        ("permit (principal, action ==, resource);".into(), &[(1, "unexpected token")]),
        ("\n\npermit (principal,\n action == Action::\"pass\" resource);".into(), &[(4, "unexpected token")]),
        (format!("{READS}\nnonsense;\n{forbid};"), &[(2, ""), (3, "without `@id")]),
        (format!("{READS}\n\n{READS}"), &[(3, "stands already at p.cedar:1")]),
        (format!("@id(\"a b\") {forbid};"), &[(1, "is not a name")]),
        (format!("\n@id(\"a\")\n@color(\"red\") {forbid};"), &[(2, "unknown annotation `@color`")]),
        (format!("@id(\"a\") @undo(\"x\") {permit};"), &[(1, "`@undo` is a number")]),
        (format!("@id(\"a\") @undo(\"10001\") {permit};"), &[(1, "`@undo` is a number")]),
        (format!("@id(\"a\") @undo {forbid};"), &[(1, "`@undo` on a forbid without `@hold`")]),
        (format!("@id(\"a\") @say(\"\") {forbid};"), &[(1, "`@say`")]),
        (format!("@id(\"a\") @say(\"x\\ny\") {forbid};"), &[(1, "`@say`")]),
        (format!("@id(\"a\") @hold(\"boss\") {forbid};"), &[(1, "`boss` is not among `approvers`")]),
        (format!("@id(\"a\") @hold(\"\") {forbid};"), &[(1, "not among `approvers`")]),
        (format!("@id(\"a\") @within(\"5m\") {forbid};"), &[(1, "there is no `@hold`")]),
        (format!("@id(\"a\") @flood(\"freeze\") {forbid};"), &[(1, "there is no `@hold`")]),
        (format!("@id(\"a\") @hold(\"dba\") @flood(\"stop\") {forbid};"), &[(1, "`@flood` is")]),
        (format!("@id(\"a\") @hold(\"dba\") @within(\"5\") {forbid};"), &[(1, "`@within`")]),
        (format!("@id(\"a\") @hold(\"dba\") @within(\"0s\") {forbid};"), &[(1, "`@within`")]),
        (format!("@id(\"a\") @hold(\"dba\") @within(\"99999999999999999999m\") {forbid};"), &[(1, "`@within`")]),
        (format!("@id(\"a\") @hold(\"dba\") @within(\"5é\") {forbid};"), &[(1, "`@within`")]),
        (format!("@id(\"a\") @alert(\"loud\") {forbid};"), &[(1, "`@alert`")]),
        (READS.replace("@id", "@hold(\"dba\") @id"), &[(1, "`@hold` on a permit")]),
        (format!("@id(\"a\") {forbid} when {{ context.aproved }};"), &[(1, "aproved")]),
        (format!("@id(\"a\") {forbid} when {{ context.approvals.boss >= 1 }};"), &[(1, "boss")]),
        (format!("@id(\"a\") {forbid} when {{ context.kind == Kind::\"delet\" }};"), &[(1, "delet")]),
        (format!("@id(\"a\") {forbid} when {{ context.has_where == 1 }};"), &[(1, "rule `a`")]),
        (format!("@id(\"a\") {forbid} when {{ resource.schema == \"x\" }};"), &[(1, "resource is Table in")]),
        ("@id(\"a\") forbid (principal, action == Action::\"data.reed\", resource);".into(), &[(1, "data.reed")]),
        ("@id(\"a\") permit (principal == ?principal, action == Action::\"pass\", resource);".into(), &[(1, "template")]),
        ("@id(\"a\") permit (principal, action, resource);".into(), &[(1, "list the actions")]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource);".into(), &[(1, "must rest on")]),
        ("@id(\"a\") permit (principal, action in [Action::\"pass\", Action::\"unknown\"], resource) when { context.sha256 == \"x\" };".into(), &[(1, "must rest on")]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource) when { context.sha256 == \"x\" || context.now < 5 };".into(), &[(1, "must rest on")]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource) when { context.approvals.dba >= 0 };".into(), &[(1, "must rest on")]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource) unless { context.approvals.dba >= 1 };".into(), &[(1, "must rest on")]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource) when { \"x\" == context.sha256 && context.now <= 5 };".into(), &[]),
        ("@id(\"a\") permit (principal, action == Action::\"unknown\", resource) when { context.approvals[\"on-call\"] >= 2 };".into(), &[]),
        (format!("@id(\"a\") {forbid} when {{ {}true{} }};", "(".repeat(60), ")".repeat(60)), &[(1, "nested too deeply")]),
        (format!("@id(\"a\") {forbid} when {{ {}true }};", "true && ".repeat(4000)), &[(1, "16 KiB")]),
        (String::new(), &[]),
    ];
    for (text, expected) in cases {
        assert_faults(text, &load(text), expected);
    }
}

#[test]
fn the_longest_chains_of_operators_do_not_exhaust_the_stack() {
    for part in ["true && ", "true || ", "1 + 1 == 2 && ", "!!!!false || ", "if true then true else "] {
        let chain = part.repeat(15_000 / part.len());
        let rule = format!(
            "@id(\"a\") forbid (principal, action == Action::\"pass\", resource) when {{ {chain}true }};"
        );
        let rule_with_sum = rule.replace("true };", &format!("1{} == 2 }};", " + 1".repeat(60)));
        for rule in [rule, rule_with_sum] {
            if let Ok(policy) = load(&rule) {
                assert_eq!(word(&policy, &case("pass")), "deny");
            }
        }
    }
}

#[test]
fn held_means_that_approval_would_be_enough() {
    let delete = "action == Action::\"data.delete\", resource";
    let permit = format!("@id(\"p\") permit (principal == Agent::\"bot\", {delete});");
    let hold = format!(
        "@id(\"h\") @hold(\"dba\") forbid (principal, {delete}) unless {{ context.approvals.dba >= 2 }};"
    );
    let plain = format!("@id(\"f\") forbid (principal, {delete}) when {{ !context.has_where }};");
    let other = format!(
        "@id(\"o\") @hold(\"on-call\") forbid (principal, {delete}) unless {{ context.approvals[\"on-call\"] >= 1 }};"
    );
    // The rule says it holds, and no approval lifts it.
    let sham = format!("@id(\"s\") @hold(\"dba\") forbid (principal, {delete});");
    // An approval makes this rule refuse.
    let contrary = format!("@id(\"c\") forbid (principal, {delete}) when {{ context.approvals.dba >= 1 }};");
    // It waits for one group, and names another.
    let astray = format!(
        "@id(\"t\") @hold(\"dba\") forbid (principal, {delete}) unless {{ context.approvals[\"on-call\"] >= 1 }};"
    );

    let bounded = sql("DELETE FROM users WHERE id = 1");
    let unbounded = sql("DELETE FROM users");
    type Row<'a> = (&'a [&'a String], &'a Case, &'a [(&'a str, u32)], &'a str);
    let cases: &[Row<'_>] = &[
        (&[], &bounded, &[], "deny"),
        (&[&permit], &bounded, &[], "allow"),
        (&[&hold], &bounded, &[], "deny"),
        (&[&permit, &hold], &bounded, &[], "hold dba"),
        (&[&permit, &hold], &bounded, &[("dba", 1)], "hold dba"),
        (&[&permit, &hold], &bounded, &[("dba", 2)], "allow"),
        (&[&permit, &hold], &bounded, &[("nobody", 9)], "hold dba"),
        (&[&permit, &hold, &plain], &bounded, &[], "hold dba"),
        (&[&permit, &hold, &plain], &unbounded, &[], "deny"),
        (&[&permit, &hold, &plain], &unbounded, &[("dba", 2)], "deny"),
        (&[&permit, &hold, &other], &bounded, &[], "hold dba+on-call"),
        (&[&permit, &hold, &other], &bounded, &[("dba", 2)], "hold on-call"),
        (&[&permit, &sham], &bounded, &[], "deny"),
        (&[&permit, &hold, &contrary], &bounded, &[], "deny"),
        (&[&permit, &astray], &bounded, &[], "deny"),
    ];
    for (rules, case, approvals, expected) in cases {
        let rules: Vec<_> = rules.iter().map(|rule| rule.as_str()).collect();
        let policy = policy(&rules.join("\n"));
        let found = word(&policy, &approved((*case).clone(), approvals));
        assert_eq!(found, *expected, "{rules:#?} {approvals:?}");
    }
}

#[test]
fn a_rule_that_fails_means_no() {
    // Arithmetic can overflow at run time, whatever the validator says. Cedar alone would skip the forbid.
    let failing =
        "@id(\"f\") forbid (principal, action, resource) when { context.now + 9223372036854775807 > 0 };";
    let policy = policy(&format!("{READS}\n{failing}"));
    let read = sql("SELECT * FROM users");
    assert_eq!(word(&policy, &Case { now: -1, ..read.clone() }), "deny");
    let judgement = judge(&policy, &Case { now: 1, ..read }).remove(0);
    let Judgement::Denied { rules, reason } = judgement else { panic!("{judgement:?}") };
    assert!(rules.is_empty() && reason.contains("a rule failed") && reason.contains("`f`"), "{reason}");
}

#[test]
fn a_failing_rule_is_never_held() {
    let rules = "@id(\"p\") permit (principal, action == Action::\"data.read\", resource);\n\
        @id(\"h\") @hold(\"dba\") forbid (principal, action, resource) unless { context.approvals.dba >= 1 };\n\
        @id(\"f\") forbid (principal, action, resource) when { context.now + 9223372036854775807 > 0 };";
    let policy = policy(rules);
    assert_eq!(word(&policy, &Case { now: 1, ..sql("SELECT * FROM users") }), "deny");
}

#[test]
fn unknown_is_permitted_by_exact_text_until_it_expires() {
    let text = "DO 'x'";
    let digest = format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
    let by_hash = format!(
        "@id(\"u\") permit (principal, action == Action::\"unknown\", resource) \
         when {{ context.sha256 == \"{digest}\" && context.now < 100 }};"
    );
    let held = "@id(\"p\") permit (principal, action == Action::\"unknown\", resource) when { context.approvals.dba >= 1 };\n\
                @id(\"h\") @hold(\"dba\") forbid (principal, action == Action::\"unknown\", resource) unless { context.approvals.dba >= 1 };";
    let at = |case: Case, now| Case { now, ..case };
    let cases = [
        (READS, sql(text), "deny"),
        (by_hash.as_str(), at(sql(text), 99), "allow"),
        (by_hash.as_str(), at(sql(text), 100), "deny"),
        (by_hash.as_str(), at(sql("DO 'x' "), 99), "deny"),
        (held, sql(text), "hold dba"),
        (held, approved(sql(text), &[("dba", 1)]), "allow"),
    ];
    for (rules, case, expected) in cases {
        assert_eq!(word(&policy(rules), &case), expected, "{rules} {case:?}");
    }
}

#[test]
fn facts_that_are_not_complete_are_unknown_whatever_they_list() {
    let policy = policy(READS);
    let incomplete = |catalogue: &Catalogue, dialect: Dialect, text: &str| {
        let mut facts = simple(catalogue, dialect, text);
        facts[0].unknown = Some(crate::model::Unknown("half of it".into()));
        facts
    };
    let case = sql("SELECT * FROM users");
    let trial = case.prepare(&policy, &catalogue(), &incomplete).expect("a trial");
    let judgement = policy.judge(&trial.questions().next().expect("a question"));
    assert!(
        matches!(judgement, Judgement::Denied { ref reason, .. } if reason.contains("half of it")),
        "{judgement:?}"
    );
    let nothing = |_: &Catalogue, _: Dialect, _: &str| {
        vec![StatementFacts { effects: Vec::new(), ..StatementFacts::unknown("") }]
    };
    let trial = Case { sql: Some("x".into()), action: None, ..case }
        .prepare(&policy, &catalogue(), &nothing)
        .expect("a trial");
    let judgement = policy.judge(&trial.questions().next().expect("a question"));
    assert!(matches!(judgement, Judgement::Denied { .. }), "{judgement:?}");
}

#[test]
fn every_effect_must_be_allowed() {
    let policy = policy(READS);
    assert_eq!(word(&policy, &sql("SELECT * FROM users; DROP TABLE users")), "allow deny");
    let both = |catalogue: &Catalogue, dialect: Dialect, _: &str| {
        let mut facts = simple(catalogue, dialect, "SELECT * FROM users");
        let target = facts[0].effects[0].target.clone();
        facts[0].effects.push(Effect { verb: Verb::DataDelete, target });
        facts
    };
    let trial = sql("x").prepare(&policy, &catalogue(), &both).expect("a trial");
    let judgement = policy.judge(&trial.questions().next().expect("a question"));
    let Judgement::Denied { rules, reason } = judgement else { panic!("{judgement:?}") };
    assert!(rules.is_empty(), "the permit of the other effect is not the reason");
    assert!(reason.contains("data.delete on table public.users of `orders`"), "{reason}");
}

/// Every verb can be asked of every kind of target that it can have, and a suggested rule permits just that.
#[test]
fn what_is_suggested_allows_it() {
    let object = |schema: &str, name: &str| Object {
        database: "app".into(),
        schema: schema.into(),
        name: name.into(),
        oid: None,
    };
    let targets = [
        Target::Resource,
        Target::Table(object("public", "odd \"name\"\\ \u{202e}\n")),
        Target::Function(object("pg_catalog", "f")),
        Target::Other { kind: "user mapping".into(), name: "x".into() },
        Target::Setting("search_path".into()),
    ];
    let empty = policy("");
    for verb in Verb::ALL {
        for target in &targets {
            let only_resource = matches!(verb, Verb::Connect | Verb::Cancel | Verb::Pass | Verb::Replicate);
            let target = match verb {
                Verb::Resolve => &Target::Name("db.internal".into()),
                Verb::Launch => &Target::Program(program()),
                Verb::Pull => &Target::Image(image()),
                Verb::See | Verb::LabelFilter | Verb::LabelCopy => &Target::Label("ssn".into()),
                _ if only_resource => &Target::Resource,
                _ => target,
            };
            let facts =
                |_: &Catalogue, _: Dialect, _: &str| vec![StatementFacts::single(verb, target.clone())];
            let trial = sql("x").prepare(&empty, &catalogue(), &facts).expect("a trial");
            let asked = trial.questions().next().expect("a question");
            assert!(matches!(empty.judge(&asked), Judgement::Denied { .. }));
            let rule = explain::suggestion(&asked, &asked.action.facts.effects[0]);
            let judgement = policy(&rule).judge(&asked);
            assert!(matches!(judgement, Judgement::Allowed { .. }), "{rule}\n{judgement:?}");
        }
    }
}

fn program() -> Program {
    Program {
        path: "/usr/bin/odd \"name\"".into(),
        user: "ci".into(),
        capabilities: ["net_raw".to_owned(), "chown".to_owned()].into(),
        profile: "ci".into(),
    }
}

fn image() -> Image {
    "registry.internal:5000/team/app:1.0".parse().expect("an image")
}

/// Judging does not check entities against the schema again, since they fit by construction. Do they?
#[test]
fn the_entities_fit_the_schema() {
    let policy = policy("");
    let object = Object { database: "d".into(), schema: "s".into(), name: "n".into(), oid: Some(1) };
    let targets = [
        Target::Resource,
        Target::Table(object.clone()),
        Target::Function(object),
        Target::Other { kind: "role".into(), name: "x".into() },
        Target::Setting("x".into()),
        Target::Name("db.internal".into()),
        Target::Name("elsewhere".into()),
        Target::Program(program()),
        Target::Image(image()),
    ];
    let trial = case("connect").prepare(&policy, &catalogue(), &simple).expect("a trial");
    let asked = trial.questions().next().expect("a question");
    for target in targets {
        let (_, mut entities) = policy.target(&asked, &target).expect("entities");
        entities.push(entities::agent(&policy.types, &asked.run.agent).expect("an entity"));
        cedar_policy::Entities::from_entities(entities, Some(&policy.schema))
            .unwrap_or_else(|error| panic!("{target:?}: {error}"));
    }
}

/// A kind or phase that the schema's closed lists miss would be refused for no reason.
#[test]
fn the_schema_lists_every_word_of_the_model() {
    let policy = policy(
        "@id(\"a\") permit (principal, action == Action::\"data.read\", resource) when { context.parsed };",
    );
    let kinds: Vec<StatementKind> = [
        "select",
        "insert",
        "update",
        "delete",
        "merge",
        "truncate",
        "copy",
        "create",
        "alter",
        "drop",
        "grant",
        "revoke",
        "set",
        "reset",
        "show",
        "discard",
        "transaction",
        "prepare",
        "execute",
        "deallocate",
        "declare",
        "fetch",
        "close",
        "explain",
        "call",
        "do",
        "lock",
        "listen",
        "notify",
        "maintenance",
        "comment",
        "empty",
        "none",
        "unknown",
    ]
    .iter()
    .map(|word| serde_json::from_value(serde_json::Value::from(*word)).expect("a kind"))
    .collect();
    for kind in kinds {
        let facts = |_: &Catalogue, _: Dialect, _: &str| {
            vec![StatementFacts { kind, ..StatementFacts::single(Verb::DataRead, Target::Resource) }]
        };
        let trial = sql("x").prepare(&policy, &catalogue(), &facts).expect("a trial");
        for phase in [
            Phase::Connect,
            Phase::Query,
            Phase::Prepare,
            Phase::Execute,
            Phase::Cancel,
            Phase::Pass,
            Phase::Resolve,
            Phase::Launch,
            Phase::Pull,
        ] {
            let mut asked = trial.questions().next().expect("a question");
            let action = Action { phase, ..asked.action.clone() };
            asked.action = &action;
            let judgement = policy.judge(&asked);
            assert!(matches!(judgement, Judgement::Allowed { .. }), "{kind:?} {phase:?} {judgement:?}");
        }
    }
}

#[test]
fn objects_whose_names_have_dots_are_not_confused() {
    let rule = r#"@id("a") permit (principal, action == Action::"data.read", resource == Table::"orders/app.public.users");"#;
    let policy = policy(rule);
    let read = |schema: &str, name: &str| {
        let target = Target::Table(Object {
            database: "app".into(),
            schema: schema.into(),
            name: name.into(),
            oid: None,
        });
        let facts = move |_: &Catalogue, _: Dialect, _: &str| {
            vec![StatementFacts::single(Verb::DataRead, target.clone())]
        };
        let trial = sql("x").prepare(&policy, &catalogue(), &facts).expect("a trial");
        matches!(policy.judge(&trial.questions().next().expect("a question")), Judgement::Allowed { .. })
    };
    assert!(read("public", "users"));
    assert!(!read("public.users", ""));
    assert!(!read("", "public.users"));
    assert!(!read("public", "Users"));
}

#[test]
fn names_are_in_the_resources_that_answer_to_them() {
    let policy = policy(
        "@id(\"a\") permit (principal, action == Action::\"resolve\", resource is Name in Env::\"prod\");\n\
         @id(\"b\") permit (principal, action == Action::\"resolve\", resource is Name) when { resource.name like \"*.good.example\" };",
    );
    let look_up = |name: &str| {
        let on = expect::On { name: Some(name.into()), ..expect::On::default() };
        word(&policy, &Case { on, resource: None, ..case("resolve") })
    };
    assert_eq!(look_up("db.internal"), "allow");
    assert_eq!(look_up("api.example.com"), "deny");
    assert_eq!(look_up("x.good.example"), "allow");
    assert_eq!(look_up("evil.example"), "deny");
}

#[test]
fn an_image_is_pulled_by_its_whole_name_alone() {
    let policy = policy(
        "@id(\"a\") permit (principal, action == Action::\"pull\", resource is Image)\n\
         when { resource.registry == \"docker.io\" && resource.repository == \"library/debian\" && resource.reference == \"12\" };\n\
         @id(\"b\") permit (principal, action == Action::\"launch\", resource);",
    );
    let pull = |image: &str| {
        let on = expect::On { image: Some(image.into()), ..expect::On::default() };
        word(&policy, &Case { on, resource: None, ..case("pull") })
    };
    assert_eq!(pull("debian:12"), "allow");
    assert_eq!(pull("index.docker.io/debian:12"), "allow");
    assert_eq!(pull("debian:13"), "deny");
    assert_eq!(pull("elsewhere.internal/library/debian:12"), "deny");
    let unnamed = expect::On { image: Some("debian".into()), ..expect::On::default() };
    let unnamed = Case { on: unnamed, resource: None, ..case("pull") };
    assert!(unnamed.prepare(&policy, &catalogue(), &simple).is_err_and(|why| why.contains("tag or digest")));
}

#[test]
fn what_is_odd_is_told() {
    let rules = [
        "@id(\"a\") permit (principal == Agent::\"bott\", action == Action::\"pass\", resource);",
        "@id(\"b\") permit (principal in Group::\"cli\", action == Action::\"pass\", resource);",
        "@id(\"c\") permit (principal == Agent::\"bot\", action == Action::\"pass\", resource == Resource::\"order\");",
        "@id(\"d\") forbid (principal, action == Action::\"pass\", resource in Env::\"production\");",
        "@id(\"e\") permit (principal, action == Action::\"pass\", resource) when { context.executable == \"/x\" };",
        "@id(\"f\") permit (principal == Agent::\"bot\", action == Action::\"pass\", resource) when { context.argv0 == \"x\" };",
        "@id(\"g\") permit (principal == Agent::\"hinted\", action == Action::\"pass\", resource);",
        "@id(\"h\") forbid (principal, action == Action::\"pass\", resource) when { context.executable == \"/x\" };",
        "@id(\"i\") forbid (principal, action == Action::\"pass\", resource) when { context.has_where && !context.has_where };",
        "@id(\"j\") forbid (principal, action == Action::\"pass\", resource is Table);",
    ];
    let warnings = policy(&rules.join("\n")).warnings();
    let expected = [
        (1, "no agent `bott`"),
        (2, "no group `cli`"),
        (3, "no resource `order`"),
        (4, "no env `production`"),
        (5, "any process can choose its `executable`"),
        (7, "recognised by executable or argv alone"),
        (10, "impossible"),
        (10, "applicable action"),
    ];
    assert_faults("warnings", &Err::<(), _>(warnings), &expected);
}

#[test]
fn a_refusal_names_what_was_refused_and_what_would_allow_it() {
    let policy = policy(
        "@id(\"no-drop\")\n@say(\"Ask first.\")\nforbid (principal, action == Action::\"schema.drop\", resource);",
    );
    let text = explain(&policy, &sql("SELECT * FROM users; DROP TABLE users; DO 'x'"), &catalogue(), &simple);
    // DO makes the stand-in read nothing else; ask one by one.
    assert!(text.is_ok());
    let text =
        explain(&policy, &sql("SELECT * FROM users; DROP TABLE users"), &catalogue(), &simple).expect("text");
    for part in [
        "statement 1 of 2: denied",
        "data.read on table public.users of `orders` (statement 1 of 2): no rule permits it",
        "permit (principal == Agent::\"bot\", action == Action::\"data.read\", resource is Table in Resource::\"orders\") \
         when { resource.schema == \"public\" && resource.name == \"users\" };",
        "statement 2 of 2: denied",
        "forbidden by `no-drop` (p.cedar:1)",
        "it says: Ask first.",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
    assert_eq!(policy.rule("no-drop").and_then(|rule| rule.rule.say.as_deref()), Some("Ask first."));
}

#[test]
fn the_hash_is_of_all_that_decides() {
    let one = policy(READS);
    assert_eq!(one.hash(), policy(READS).hash());
    assert_ne!(one.hash(), policy(&format!("{READS} ")).hash());
    let other = inventory::load(
        &source("resources.toml", &format!("{RESOURCES} ")),
        &source("agents.toml", AGENTS),
        &PROTOCOLS,
    )
    .expect("an inventory");
    assert_ne!(one.hash(), Policy::load(&[source("p.cedar", READS)], &other).expect("a policy").hash());
}

#[test]
fn any_bytes_load_or_are_refused() {
    let good = format!(
        "{RESOURCES}\0{AGENTS}\0{READS}\0[[expect]]\nagent = \"bot\"\nsql = \"x\"\nverdict = \"deny\""
    );
    fuzz(good.as_bytes());
    for cut in (0..good.len()).step_by(7) {
        fuzz(&good.as_bytes()[..cut]);
        let mut changed = good.clone().into_bytes();
        changed[cut] = changed[cut].wrapping_add(1);
        fuzz(&changed);
    }
    for hostile in ["[[[[[[", "a.a.a.a = 1", "\0\0@id(\"", "\0\0\"\\", "\0\0permit(", "\0\0;;;;", "\0\0@@@"] {
        fuzz(hostile.as_bytes());
    }
}

#[test]
fn a_budget_is_a_fact_and_its_numbers_are_known() {
    let rules = format!(
        "{READS}\n@id(\"b\") forbid (principal, action, resource) when {{ context.spent.rows > 10 || 20 <= context[\"spent\"].bytes }};"
    );
    let policy = policy(&rules);
    let asked = |rows, bytes| {
        let spent = Spent { rows, bytes, ..Spent::default() };
        word(&policy, &Case { spent, ..sql("SELECT * FROM users") })
    };
    assert_eq!([asked(10, 0), asked(11, 0), asked(0, 19), asked(0, 20)], ["allow", "deny", "allow", "deny"]);
    let room = |rows, bytes| policy.thresholds().room(Spent { rows, bytes, ..Spent::default() });
    assert_eq!((room(0, 0).rows, room(10, 0).rows, room(11, 0).rows), (10, 1, u64::MAX));
    assert_eq!((room(0, 0).bytes, room(0, 0).changed), (20, u64::MAX));
    assert!(!policy.thresholds().is_empty());
    assert!(load(READS).is_ok_and(|policy| policy.thresholds().is_empty()));
}

#[test]
fn a_budget_is_compared_with_numbers_only() {
    for condition in [
        "context.spent.rows + 1 < 10",
        "context.spent.rows < context.now",
        "context.spent == context.spent",
        "context.spent.rows < context.spent.changed",
        "context[\"sp\\u{65}nt\"].rows * 2 > 10",
        "[1, 2].contains(context.spent.rows)",
    ] {
        let rule = format!("@id(\"b\") forbid (principal, action, resource) when {{ {condition} }};");
        let faults = load(&rule).expect_err(condition);
        assert!(
            faults.iter().any(|fault| fault.message.contains("plain numbers only")),
            "{condition}: {faults:#?}"
        );
    }
}
