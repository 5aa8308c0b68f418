use super::*;
use crate::{
    mask::{Form, Label, Pattern},
    model::Object,
    sql::{Function, Question, analyze, batch_facts, question},
};

const SSN: usize = 0;

fn labels() -> Labels {
    let label = |name: &str, column: &str| Label {
        name: name.to_owned(),
        columns: vec![Pattern::parse(column).expect("a pattern")],
        detect: Vec::new(),
        form: Form::Null,
    };
    Labels::new(
        "orders",
        vec![label("ssn", "public.customers.ssn"), label("email", "public.customers.email")],
    )
    .expect("labels")
}

/// A server with `customers(id, name, ssn, email)`, types, and `notes(id, note)`, and any function that is asked for.
fn answer(asked: &Question) -> Answer {
    let relation = |name: &Name| {
        let columns: &[&str] = match name.name.as_str() {
            "customers" => &["id", "name", "ssn", "email"],
            "notes" => &["id", "note"],
            // Another table, and one that shows the rows of others.
            "kept" | "shown" => &["id", "ssn"],
            "pg_type" => &["oid", "typname", "typelem"],
            _ => return Relation::Missing,
        };
        let labels = labels();
        let columns = columns.iter().zip(1..).map(|(column, number)| Column {
            number,
            name: (*column).to_owned(),
            labels: labels.of_column("public", &name.name, column),
        });
        Relation::Found {
            object: Object {
                database: "d".to_owned(),
                schema: "public".to_owned(),
                name: name.name.clone(),
                oid: Some(match name.name.as_str() {
                    "customers" => 100,
                    "notes" => 200,
                    _ => 300,
                }),
            },
            rows: if name.name == "shown" { Rows::Others } else { Rows::Own },
            reads: Vec::new(),
            columns: columns.collect(),
            children: Vec::new(),
            consequences: Vec::new(),
            has_rules: false,
        }
    };
    // upper(text), which only computes, unless it has a name of its own.
    let function = |name: &Name| match name.name.as_str() {
        "own" => Function {
            users: vec![Object {
                database: "d".to_owned(),
                schema: "public".to_owned(),
                name: "own".to_owned(),
                oid: Some(20_000),
            }],
            built_in: Vec::new(),
        },
        "current_query" => Function { users: Vec::new(), built_in: vec![817] },
        "pg_notify" => Function { users: Vec::new(), built_in: vec![3036] },
        "set_config" => Function { users: Vec::new(), built_in: vec![2078] },
        "nextval" => Function { users: Vec::new(), built_in: vec![1574] },
        "id" | "name" | "ssn" | "email" | "note" | "x" => Function::default(),
        _ => Function { users: Vec::new(), built_in: vec![871] },
    };
    Answer {
        database: "d".to_owned(),
        database_oid: Some(5),
        role: "agent".to_owned(),
        search_path: vec!["pg_catalog".to_owned(), "public".to_owned()],
        relations: asked.relations.iter().map(|name| (name.clone(), relation(name))).collect(),
        functions: asked.functions.iter().map(|name| (name.clone(), function(name))).collect(),
        ..Answer::default()
    }
}

fn traced(text: &str) -> StatementFacts {
    let statements = analyze(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let answer = answer(&question(&statements));
    let mut facts = batch_facts(&statements, &answer).remove(0);
    trace(&statements[0], &answer, &labels(), &mut facts);
    facts
}

/// For each output without an origin whether it is hidden, in letters: h or c.
fn outputs(text: &str, count: usize) -> String {
    let facts = traced(text);
    let provenance = facts.provenance.expect("it was traced");
    (0..count).map(|place| if provenance.of_output(place, count).is_empty() { 'c' } else { 'h' }).collect()
}

fn effects(text: &str) -> Vec<&'static str> {
    let verbs = traced(text).effects.into_iter().map(|effect| effect.verb);
    verbs.filter(|verb| matches!(verb, Verb::LabelFilter | Verb::LabelCopy)).map(Verb::as_str).collect()
}

#[test]
fn what_is_computed_from_labelled_columns_is_hidden() {
    for (text, expected) in [
        ("SELECT upper(ssn), upper(name), 1 FROM customers", "hcc"),
        ("SELECT ssn || '', ssn::text, name || 'x' FROM customers", "hhc"),
        ("SELECT count(*), count(id) FROM customers", "cc"),
        ("SELECT max(ssn), array_agg(email), array_agg(id) FROM customers", "hhc"),
        (
            "SELECT CASE WHEN ssn = '1' THEN 1 ELSE 0 END, coalesce(email, 'x'), coalesce(name, '') FROM customers",
            "hhc",
        ),
        (
            "SELECT row_to_json(c), c::text, (c).id::text, to_jsonb(customers.*) FROM customers c, customers",
            "hhhh",
        ),
        ("SELECT upper(c.name), md5(c.ssn) FROM customers AS c", "ch"),
        ("SELECT c.row_to_json, upper(c.id) FROM customers c", "hc"),
        ("SELECT ssn(c) FROM customers c", "h"),
        ("SELECT (SELECT max(ssn) AS m FROM customers), (SELECT count(*) FROM customers)", "hc"),
        ("SELECT upper(x) FROM (SELECT ssn AS x, name AS y FROM customers) q", "h"),
        ("SELECT upper(y) FROM (SELECT ssn AS x, name AS y FROM customers) q", "c"),
        (
            "WITH q AS (SELECT email AS e FROM customers), r AS (SELECT e AS f FROM q) SELECT f || '' FROM r",
            "h",
        ),
        ("WITH q(a, b) AS (SELECT id, ssn FROM customers) SELECT upper(a), upper(b) FROM q", "hh"),
        ("SELECT upper(q.b) FROM customers AS q(a, n, b, e)", "h"),
        ("SELECT upper(upper) FROM (SELECT upper(ssn) FROM customers) q", "h"),
        ("SELECT id FROM notes UNION ALL SELECT ssn FROM customers", "h"),
        ("SELECT note, id FROM notes UNION ALL SELECT ssn, id FROM customers", "hc"),
        ("SELECT upper(id) FROM (SELECT id FROM notes UNION ALL SELECT ssn FROM customers) q", "h"),
        ("SELECT upper(id) FROM (SELECT * FROM notes UNION ALL SELECT id, ssn FROM customers) q", "h"),
        ("SELECT array(SELECT ssn FROM customers), array(TABLE notes), ARRAY(TABLE customers)", "hhh"),
        ("SELECT x FROM (VALUES ((SELECT ssn FROM customers))) v(x)", "h"),
        ("SELECT unnest FROM customers, unnest(ARRAY[ssn])", "h"),
        ("SELECT u FROM customers, unnest(ARRAY[ssn]) u", "h"),
        ("SELECT json_agg(q) FROM (SELECT id FROM customers) q", "h"),
        ("SELECT row_number() OVER (ORDER BY ssn), count(*) FILTER (WHERE email > 'a') FROM customers", "hh"),
        ("SELECT \"ssn\"::text, SSN::text, \"SSN\"::text FROM customers", "hhc"),
        ("SELECT U&\"\\0073sn\"::text FROM customers", "h"),
        ("SELECT own(id) FROM notes", "h"),
        ("SELECT id FROM notes, own(1)", "h"),
        ("SELECT nextval('s'), upper(note) FROM notes", "cc"),
        ("SELECT x || '' FROM missing", "h"),
        ("SELECT upper(note) FROM notes", "c"),
        ("EXPLAIN SELECT id FROM customers", "h"),
        ("EXPLAIN SELECT id FROM notes", "c"),
        ("INSERT INTO notes VALUES (1, 'x') RETURNING upper(note)", "c"),
        ("UPDATE customers SET name = 'x' RETURNING ssn || '', upper(name)", "hc"),
        ("DECLARE k CURSOR FOR SELECT upper(ssn), upper(name) FROM customers", "hc"),
        ("SELECT 1 FROM customers UNION ALL SELECT 2", "c"),
        ("SELECT *, upper(name) FROM customers", "hhhhh"),
        ("SELECT * FROM notes", "cc"),
    ] {
        assert_eq!(outputs(text, expected.len()), expected, "{text}");
    }
}

#[test]
fn origins_carry_the_labels_of_their_columns() {
    let provenance =
        traced("SELECT * FROM customers JOIN notes USING (id)").provenance.expect("it was traced");
    assert_eq!(provenance.of_column(100, 3), LabelSet::of(SSN));
    assert!(
        [(100, 1), (100, 2), (200, 1), (200, 2), (100, -1)]
            .iter()
            .all(|(relation, column)| provenance.of_column(*relation, *column).is_empty())
    );
    assert!(provenance.of_column(100, 0).contains(LabelSet::of(SSN)));
    assert_eq!(provenance.of_column(300, 1), LabelSet::ALL);
}

#[test]
fn what_decides_by_labelled_columns_is_told() {
    for text in [
        "SELECT id FROM customers WHERE ssn LIKE '4%'",
        "SELECT id FROM customers c WHERE c.ssn = $1",
        "SELECT id FROM customers ORDER BY ssn",
        "SELECT id, ssn FROM customers ORDER BY 2",
        "SELECT count(*) FROM customers GROUP BY ssn",
        "SELECT count(*) FROM customers GROUP BY id HAVING max(ssn) > '1'",
        "SELECT a.id FROM customers a JOIN customers b ON a.ssn = b.ssn",
        "SELECT id FROM customers JOIN customers c USING (ssn)",
        "SELECT id FROM customers NATURAL JOIN notes",
        "SELECT DISTINCT ssn FROM customers",
        "SELECT ssn FROM customers INTERSECT SELECT '123-45-6789'",
        "SELECT ssn FROM customers UNION SELECT '1'",
        "SELECT id FROM customers c WHERE c = ROW(1, 'a', 'b', 'c')::customers",
        "SELECT id FROM notes WHERE note IN (SELECT ssn FROM customers)",
        "SELECT id FROM notes WHERE EXISTS (SELECT 1 FROM customers WHERE ssn = note)",
        "SELECT id FROM notes WHERE note IN (TABLE customers)",
        "SELECT count(*) FILTER (WHERE ssn > '5') FROM customers",
        "SELECT rank() OVER w FROM customers WINDOW w AS (ORDER BY ssn)",
        "SELECT id FROM customers LIMIT (SELECT length(ssn) FROM customers)",
        "SELECT g FROM customers, generate_series(1, length(ssn)) g",
        "SELECT id FROM (SELECT id, ssn AS x FROM customers) q WHERE x = '1'",
        "SELECT generate_series(1, ascii(ssn)) FROM customers",
        "SELECT pg_catalog.regexp_split_to_table(c.ssn, '') FROM customers c",
        "DELETE FROM customers WHERE ssn = '1'",
        "UPDATE notes SET note = 'x' FROM customers WHERE ssn = note",
        "INSERT INTO customers VALUES (1) ON CONFLICT (ssn) DO NOTHING",
        "MERGE INTO notes USING customers ON ssn = note WHEN MATCHED THEN DELETE",
        "CREATE POLICY p ON customers USING (ssn = '1')",
        "ALTER POLICY p ON customers WITH CHECK (ssn = '1')",
    ] {
        assert!(effects(text).contains(&"label.filter"), "{text}: {:?}", effects(text));
    }
    for text in [
        "SELECT ssn, email FROM customers WHERE id = 1 AND name LIKE 'a%' ORDER BY name LIMIT 3",
        "SELECT count(*) FROM customers",
        "SELECT id FROM notes WHERE EXISTS (SELECT * FROM customers WHERE customers.id = notes.id)",
        "SELECT * FROM customers c JOIN notes n ON n.id = c.id WHERE c.name = $1",
        "INSERT INTO customers (id, ssn) VALUES (1, '123-45-6789') RETURNING id",
        "UPDATE customers SET ssn = $1 WHERE id = $2 RETURNING ssn",
        "SELECT 'a' UNION SELECT note FROM notes",
    ] {
        assert_eq!(effects(text), [] as [&str; 0], "{text}");
    }
}

#[test]
fn what_carries_labelled_data_away_is_told() {
    for text in [
        "UPDATE notes SET note = ssn FROM customers",
        "UPDATE notes SET (note) = (SELECT ssn FROM customers)",
        "INSERT INTO notes SELECT id, ssn FROM customers",
        "INSERT INTO notes SELECT * FROM customers",
        "INSERT INTO notes TABLE customers",
        "WITH q AS (SELECT ssn AS s FROM customers) INSERT INTO notes SELECT 1, s FROM q",
        "WITH i AS (INSERT INTO notes SELECT 1, ssn FROM customers RETURNING id) SELECT id FROM i",
        "INSERT INTO notes VALUES (1, (SELECT ssn FROM customers))",
        "INSERT INTO customers VALUES (1) ON CONFLICT (id) DO UPDATE SET name = customers.ssn",
        "MERGE INTO notes USING customers ON notes.id = customers.id WHEN NOT MATCHED THEN INSERT VALUES (1, customers.ssn)",
        "CREATE TABLE copy AS SELECT * FROM customers",
        "CREATE TEMP TABLE copy AS SELECT ssn AS x FROM customers",
        "SELECT ssn INTO copy FROM customers",
        "SELECT own(ssn) FROM customers",
        "SELECT pg_notify('c', ssn) FROM customers",
        "SELECT set_config('a.b', ssn, false) FROM customers",
        "INSERT INTO notes SELECT 1, own(1)",
        "UPDATE notes SET note = own(id)",
        "CREATE TABLE copy AS SELECT own(1)",
        "SELECT set_config('a.b', own(1), false)",
        "SELECT pg_notify('c', own(1))",
        "EXECUTE p(own(1))",
        "COPY customers (ssn) TO STDOUT (DELIMITER ';')",
        "COPY (SELECT ssn FROM customers) TO STDOUT",
        "COPY customers TO '/tmp/x'",
        "ALTER TABLE customers RENAME COLUMN ssn TO x",
        "ALTER TABLE customers SET SCHEMA other",
        "ALTER TABLE customers ADD COLUMN more text",
    ] {
        assert!(effects(text).contains(&"label.copy"), "{text}: {:?}", effects(text));
    }
    for text in [
        "INSERT INTO notes SELECT id, name FROM customers",
        "CREATE TABLE copy AS SELECT id, name FROM customers",
        "COPY notes TO STDOUT",
        "COPY customers TO STDOUT",
        "COPY customers (id, ssn) TO STDOUT (FORMAT csv, HEADER)",
        "COPY customers FROM STDIN",
        "SELECT pg_notify('c', name) FROM customers",
        "ALTER TABLE notes ADD COLUMN more text",
        "CREATE INDEX ON customers (name)",
        "SELECT own(1)",
        "INSERT INTO notes VALUES (nextval('s'), 'x')",
    ] {
        assert!(!effects(text).contains(&"label.copy"), "{text}: {:?}", effects(text));
    }
}

#[test]
fn what_was_just_written_is_what_is_given_back() {
    let hidden = |text: &str, relation, column| {
        let provenance = traced(text).provenance.expect("it was traced");
        !provenance.of_column(relation, column).is_empty()
    };
    let text = "UPDATE notes SET note = ssn FROM customers RETURNING note, upper(note), notes.id";
    assert!(hidden(text, 200, 2) && !hidden(text, 200, 1));
    assert_eq!(outputs(text, 3), "hhc");
    let text =
        "WITH q AS (UPDATE notes SET note = ssn FROM customers RETURNING note) SELECT note || '' FROM q";
    assert_eq!(outputs(text, 1), "h");
}

/// Where labelled data goes, each as `relation.column: labels`; what is made is in brackets.
fn carried(text: &str) -> Vec<String> {
    let provenance = traced(text).provenance.expect("it was traced");
    let all = labels();
    let told = provenance.carried.iter().map(|Carried { to, labels }| {
        let names =
            all.names(*labels).filter(|name| *name != Labels::STATISTICS).collect::<Vec<_>>().join(" ");
        match to {
            Destination::Relation { database: Some(5), object, columns } => {
                let columns: Vec<&str> = columns.iter().map(|(_, name)| name.as_str()).collect();
                format!("{}.{}: {names}", object.name, columns.join(" "))
            }
            Destination::New { database: Some(5), schemas, name, columns } => {
                format!("[{}] {name}.{columns:?}: {names}", schemas.join(" "))
            }
            other => panic!("{text}: {other:?}"),
        }
    });
    told.collect()
}

#[test]
fn labels_go_where_the_values_go() {
    for (text, expected) in [
        ("UPDATE notes SET note = ssn, id = 1 FROM customers", &["notes.note: ssn"][..]),
        ("INSERT INTO notes SELECT id, email || ssn FROM customers", &["notes.note: ssn email"]),
        ("INSERT INTO notes (note, id) SELECT name, id FROM customers", &[]),
        ("INSERT INTO notes TABLE customers", &["notes.*: ssn email"]),
        ("INSERT INTO notes SELECT id, x FROM (SELECT id, ssn AS x FROM customers) q", &["notes.note: ssn"]),
        (
            "INSERT INTO notes (id, note) SELECT 1, ssn FROM customers ON CONFLICT (id) DO UPDATE SET id = excluded.id",
            &["notes.note: ssn", "notes.id: ssn"],
        ),
        ("UPDATE customers SET name = c.ssn FROM customers c", &["customers.name: ssn"]),
        ("CREATE TABLE made AS SELECT id, ssn FROM customers", &["[pg_catalog public] made.[2]: ssn"]),
        ("SELECT email AS e INTO TEMP made FROM customers", &["[pg_temp] made.[1]: email"]),
        ("CREATE TABLE p.made AS SELECT * FROM customers", &["[p] made.[0]: ssn email"]),
        ("INSERT INTO gone SELECT ssn FROM customers", &["[pg_catalog public] gone.[0]: ssn email"]),
        ("INSERT INTO notes VALUES (1, own(1))", &["notes.id: ssn email", "notes.note: ssn email"]),
        ("CREATE TABLE made AS EXECUTE p", &["[pg_catalog public] made.[0]: ssn email"]),
        ("INSERT INTO notes VALUES (1, 'x')", &[]),
        ("SELECT ssn FROM customers", &[]),
    ] {
        assert_eq!(carried(text), expected, "{text}");
    }
}

/// The labels of a resource where `customers.ssn` is masked by tokens.
fn with_tokens() -> Labels {
    let label = |name: &str, column: &str, form| Label {
        name: name.to_owned(),
        columns: vec![Pattern::parse(column).expect("a pattern")],
        detect: Vec::new(),
        form,
    };
    let labels = [label("ssn", "*.*.ssn", Form::Token), label("email", "public.customers.email", Form::Null)];
    Labels::new("orders", labels.into()).expect("labels")
}

/// What a statement does where `customers.ssn` is masked by tokens, and what it filters by once all that may be tokens
/// are.
fn with_tokens_replaced(text: &str) -> (StatementFacts, Vec<String>) {
    let statements = analyze(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let answer = answer(&question(&statements));
    let mut facts = batch_facts(&statements, &answer).remove(0);
    trace(&statements[0], &answer, &with_tokens(), &mut facts);
    let each = facts.provenance.as_ref().expect("it was traced").compared.each.clone();
    let replaced = replacing(&facts, &with_tokens(), &each, 1);
    let filters = replaced.effects.into_iter().filter(|effect| effect.verb == Verb::LabelFilter);
    let names = filters.map(|effect| match effect.target {
        Target::Label(name) => name,
        other => panic!("{other:?}"),
    });
    (facts, names.collect())
}

#[test]
fn a_token_needs_no_permission_where_its_own_column_is_compared_with_it() {
    for text in [
        "SELECT name FROM customers WHERE ssn = 't'",
        "SELECT name FROM customers c WHERE c.ssn = 't' AND id > 1",
        "SELECT * FROM customers WHERE NOT (ssn = 't' OR ssn = $1)",
        "SELECT a.name FROM customers a JOIN customers b ON a.id = b.id WHERE b.ssn = 't'",
        "SELECT n.note FROM notes n WHERE n.id IN (SELECT id FROM customers WHERE ssn = 't')",
        "UPDATE customers SET name = 'x' WHERE ssn = 't'",
        "DELETE FROM customers WHERE ssn = 't' RETURNING id",
        "SELECT count(*) FROM customers WHERE ssn = 't'",
    ] {
        let (facts, filters) = with_tokens_replaced(text);
        let compared = &facts.provenance.as_ref().expect("it was traced").compared.each;
        let stands = Stands { relation: 100, column: 3 };
        assert!(!compared.is_empty(), "{text}");
        assert!(compared.iter().all(|one| one.stands == stands && one.label == SSN), "{text}");
        assert!(filters.is_empty(), "{text}: {filters:?}");
        let filter = Effect { verb: Verb::LabelFilter, target: Target::Label("ssn".to_owned()) };
        assert!(facts.effects.contains(&filter), "{text}: what is no token needs it");
    }
}

#[test]
fn what_else_decides_needs_permission_whatever_stands_beside_it() {
    for (text, labels) in [
        ("SELECT name FROM customers WHERE ssn = 't' OR ssn LIKE '4%'", &["ssn"][..]),
        ("SELECT name FROM customers WHERE ssn = 't' ORDER BY ssn", &["ssn"]),
        ("SELECT DISTINCT ssn FROM customers WHERE ssn = 't'", &["ssn"]),
        ("SELECT name FROM customers WHERE ssn = 't' AND email = 't'", &["email"]),
        ("SELECT name FROM customers WHERE email = 't'", &["email"]),
        ("SELECT a.name FROM customers a JOIN customers b ON a.ssn = b.ssn WHERE a.ssn = 't'", &["ssn"]),
    ] {
        let (_, filters) = with_tokens_replaced(text);
        assert_eq!(filters, labels, "{text}");
    }
}

#[test]
fn no_token_stands_where_a_name_may_mean_anything_else() {
    for text in [
        // What was compared would be the agent's own, or it could see what the server was sent.
        "SELECT q.ssn FROM customers c, (SELECT note AS ssn FROM notes) q WHERE q.ssn = 't'",
        "WITH q(ssn) AS (SELECT note FROM notes) SELECT c.id FROM customers c, q WHERE q.ssn = 't'",
        "SELECT c.id FROM customers c, (VALUES ('a')) AS v(ssn) WHERE v.ssn = 't'",
        "SELECT c.id FROM customers c, upper('a') ssn WHERE ssn = 't'",
        "SELECT c.id FROM customers c, notes AS n(id, ssn) WHERE n.ssn = 't'",
        "SELECT q.ssn FROM (SELECT ssn FROM customers UNION ALL SELECT note FROM notes) q WHERE ssn = 't'",
        "SELECT c.id FROM customers c, missing m WHERE m.ssn = 't'",
        "SELECT c.id FROM customers c, others o WHERE o.ssn = 't'",
        "SELECT c.id FROM customers c, kept k WHERE c.ssn = 't'",
        "SELECT ssn FROM shown WHERE ssn = 't'",
        "SELECT own(name) FROM customers WHERE ssn = 't'",
        "SELECT current_query(), id FROM customers WHERE ssn = 't'",
        "SELECT pg_notify('a', name) FROM customers WHERE ssn = 't'",
        "WITH w AS (INSERT INTO notes (id) VALUES (1)) SELECT id FROM customers WHERE ssn = 't'",
        "SELECT id AS ssn FROM customers WHERE ssn = 't'",
    ] {
        let (facts, _) = with_tokens_replaced(text);
        let provenance = facts.provenance.expect("it was traced");
        assert!(provenance.compared.each.is_empty(), "{text}: {:?}", provenance.compared);
    }
}

#[test]
fn a_column_masked_by_tokens_is_written_by_whoever_may_filter_by_it() {
    for (text, gated) in [
        ("INSERT INTO customers (id, ssn) VALUES (1, 'guess')", true),
        ("INSERT INTO customers VALUES (1, 'n', 'guess')", true),
        ("INSERT INTO customers (id, name) VALUES (1, 'n')", false),
        ("INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET ssn = 'guess'", true),
        ("UPDATE customers SET ssn = $1 WHERE id = 1", true),
        ("UPDATE customers SET name = 'x' WHERE id = 1", false),
        ("COPY customers FROM STDIN", true),
        ("COPY notes FROM STDIN", false),
        (
            "MERGE INTO customers c USING notes n ON c.id = n.id WHEN NOT MATCHED THEN INSERT (ssn) VALUES ('guess')",
            true,
        ),
        ("DELETE FROM customers WHERE id = 1", false),
        // Guesses that are there already.
        ("INSERT INTO notes (note) SELECT ssn FROM customers", true),
        ("CREATE TABLE c AS SELECT ssn FROM customers UNION ALL SELECT 'guess'", true),
        ("CREATE TABLE c AS SELECT name FROM customers", false),
    ] {
        let (_, filters) = with_tokens_replaced(text);
        assert_eq!(filters.iter().any(|label| label == "ssn"), gated, "{text}: {filters:?}");
    }
}

#[test]
fn rows_of_others_come_into_a_table_by_permission_to_copy() {
    for text in
        ["ALTER TABLE notes INHERIT customers", "ALTER TABLE customers ATTACH PARTITION notes DEFAULT"]
    {
        let (facts, _) = with_tokens_replaced(text);
        assert!(facts.effects.iter().any(|effect| effect.verb == Verb::LabelCopy), "{text}: {facts:?}");
    }
}

/// As drivers ask what types there are.
#[test]
fn what_reads_nothing_labelled_is_clean_however_it_is_written() {
    let tree = |from: &str, up: &str, what: &str| {
        format!(
            "WITH RECURSIVE tree(id, up, depth) AS (SELECT t.oid, t.{up}, 0 FROM (SELECT * FROM {from}) AS t UNION ALL \
             SELECT t.oid, t.{up}, tree.depth + 1 FROM {from} t, tree WHERE t.oid = tree.up) \
             SELECT DISTINCT *, {what} FROM tree ORDER BY depth DESC"
        )
    };
    assert_eq!(outputs(&tree("pg_type", "typelem", "up::regtype::text"), 4), "cccc");
    assert_eq!(outputs(&tree("pg_type", "typelem", "own(up)"), 4), "hhhh");
    assert_eq!(outputs(&tree("missing", "typelem", "up"), 4), "hhhh");
    assert_eq!(outputs(&tree("customers", "ssn", "up"), 4), "hhhh");
}
