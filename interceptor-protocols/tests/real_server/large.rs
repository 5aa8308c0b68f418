//! Large values, many values, and large objects, which clients read and write by calling functions by their numbers.

use crate::{
    Cluster,
    copy::{raw, raw_session},
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
