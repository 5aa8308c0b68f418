//! Large values, many values, and large objects, which clients read and write by calling functions by their numbers.

use interceptor_core::model::Target;

use crate::{
    Cluster,
    copy::{raw, raw_query, raw_session},
    listen, psql,
};

#[test]
fn psql_moves_large_objects() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    let (sent, returned) = (cluster.folder.join("sent"), cluster.folder.join("returned"));
    let content: Vec<u8> = (0..100_000_u32).map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[2]).collect();
    std::fs::write(&sent, &content).unwrap();
    let script = format!(
        "\\lo_import '{}'\n\\lo_export :LASTOID '{}'\n\\lo_unlink :LASTOID\n\\lo_unlink 1\nselect 'after';\n",
        sent.display(),
        returned.display()
    );
    let out = psql(port, &script);
    assert!(out.contains("lo_import") && out.contains("after"), "{out}");
    assert!(out.contains("large object 1 does not exist"), "{out}");
    assert_eq!(std::fs::read(&returned).unwrap(), content);
    let log = log.lock().unwrap();
    let written = log.asked.iter().filter(|asked| asked.contains("bytea"));
    assert!(written.count() > 10, "each piece is an exchange of its own: {:#?}", log.asked);
}

/// A FunctionCall with one binary parameter of four bytes.
fn call(function: u32, value: i32) -> (Vec<u8>, u8) {
    let body = [&function.to_be_bytes()[..], &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4], &value.to_be_bytes(), &[0, 1]];
    (raw(b'F', &body.concat()), b'Z')
}

#[test]
fn any_function_is_called_by_its_number_and_judged_by_its_name() {
    let cluster = Cluster::start();
    // Around the relay, so that nothing of it is known there.
    let text = "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'; SELECT 'twice'::regproc::oid";
    let made = raw_session(cluster.port, &[(raw_query(text), b'Z')]);
    let (_, row) = made.iter().find(|(tag, _)| *tag == 'D').unwrap();
    let twice: u32 = row.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let (port, log) = listen(0, cluster.port);
    let script = [
        call(twice, 21),
        call(twice, 4),
        // abs(int), and one that does not exist.
        call(1397, -5),
        call(999_999, 1),
        (raw_query("BEGIN"), b'Z'),
        call(twice, 5),
        call(999_999, 1),
        // The transaction has failed.
        call(twice, 6),
        (raw_query("ROLLBACK"), b'Z'),
        call(twice, 7),
    ];
    assert_eq!(raw_session(cluster.port, &script), raw_session(port, &script));
    let log = log.lock().unwrap();
    let told: Vec<_> = log
        .actions
        .iter()
        .filter(|action| action.text.is_empty())
        .map(|action| match (&action.facts.unknown, action.facts.effects.first().unwrap()) {
            (Some(why), _) => why.0.clone(),
            (None, effect) => match &effect.target {
                Target::Function(function) => format!("{}.{}", function.schema, function.name),
                _ => effect.verb.as_str().to_owned(),
            },
        })
        .collect();
    let missing = "no function has the number 999999";
    let failed = "the transaction has failed, so names cannot be looked up; ROLLBACK first";
    let expected = [
        "public.twice",
        "public.twice",
        "data.read",
        missing,
        "public.twice",
        missing,
        failed,
        "public.twice",
    ];
    assert_eq!(told, expected, "{:?}", log.actions);
    let typed = log.actions.iter().flat_map(|action| &action.binds).filter(|bind| bind.r#type == "int4");
    assert!(typed.count() >= 4, "{:?}", log.actions);
}

/// Parse of a text whose parameters are all `text`, Bind of these values, Execute and Sync.
fn bound(text: &str, values: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let types = [0, 0, 0, 25].repeat(values.len());
    let parse = [b"\0", text.as_bytes(), b"\0", &count, &types].concat();
    let mut bind = [&[0, 0, 0, 0][..], &count].concat();
    for value in values {
        bind.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        bind.extend(value);
    }
    bind.extend([0, 0]);
    [raw(b'P', &parse), raw(b'B', &bind), raw(b'E', &[0; 5]), raw(b'S', &[])].concat()
}

#[test]
fn as_many_and_as_large_values_as_there_can_be() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    let scripts = [
        vec![(bound("SELECT $65535", &vec![b"1".to_vec(); 65_535]), b'Z')],
        vec![(bound("SELECT length($1), $2", &[vec![b'x'; 20 << 20], b"2".to_vec()]), b'Z')],
        // The server passes over what follows a failure, however long it is.
        vec![
            (bound("SELECT nothing($1)", &[vec![b'x'; 20 << 20]]), b'Z'),
            (bound("SELECT $1", &[b"after".to_vec()]), b'Z'),
        ],
    ];
    for script in scripts {
        assert_eq!(raw_session(cluster.port, &script), raw_session(port, &script));
    }
    let log = log.lock().unwrap();
    let told = log.asked.iter().find(|asked| asked.contains("length($1)") && asked.contains("xxx"));
    assert!(told.is_some_and(|asked| asked.len() < 5000), "the beginning of a value is told");
}
