//! Large objects, which clients read and write by calling functions by their numbers.

use crate::{Cluster, listen, psql};

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
