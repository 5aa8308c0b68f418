//! COPY by real clients, and by a raw one that does what no client should.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use interceptor_core::model::OutcomeStatus;

use crate::{Cluster, listen, psql};

#[test]
fn psql_copies() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    let out = psql(
        port,
        "create table copied (id int, note text);\n\
         \\copy copied from stdin\n1\tann\n2\tben\n\\.\n\
         copy copied from stdin (format csv);\n3,\"a, b\"\n\\.\n\
         copy copied from stdin;\nx\ty\n\\.\n\
         begin;\ncopy copied from stdin;\n4\tcut off\n5\n\\.\nrollback;\n\
         copy (select 'forbidden' from copied) to stdout;\n\
         begin;\ncopy (select 'forbidden' from copied) to stdout;\nselect 5 from copied;\nrollback;\n\
         \\copy copied to stdout (format csv)\n\
         copy (select note from copied order by id) to stdout \\; select 7;\n\
         drop table copied;\n",
    );
    let log = log.lock().unwrap();
    for expected in ["1,ann\n2,ben\n3,\"a, b\"\n", "ann\nben\na, b\n", "7\n", "DROP TABLE"] {
        assert!(out.contains(expected), "no {expected:?} in {out}\n{log:#?}");
    }
    assert!(out.contains("invalid input syntax") && out.contains("missing data for column"), "{out}");
    assert_eq!(out.matches("interceptor refused this statement").count(), 2, "{out}");
}

/// One message of a raw client's.
pub(crate) fn raw(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

pub(crate) fn raw_query(text: &str) -> Vec<u8> {
    raw(b'Q', format!("{text}\0").as_bytes())
}

/// Parse, Bind and Execute of a text without parameters.
pub(crate) fn raw_extended(text: &str) -> Vec<u8> {
    [raw(b'P', format!("\0{text}\0\0\0").as_bytes()), raw(b'B', &[0; 8]), raw(b'E', &[0; 5])].concat()
}

/// Reads messages up to one with this tag.
pub(crate) fn raw_until(stream: &mut TcpStream, tag: u8) -> Vec<(char, String)> {
    let mut messages = Vec::new();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        stream.read_exact(&mut body).unwrap();
        messages.push((char::from(head[0]), String::from_utf8_lossy(&body).into_owned()));
        if head[0] == tag {
            return messages;
        }
    }
}

/// What a raw client gets that sends each of `script` and waits for the message that is named behind it.
pub(crate) fn raw_session(port: u16, script: &[(Vec<u8>, u8)]) -> Vec<(char, String)> {
    let mut stream = raw_open(port);
    let mut all = Vec::new();
    for (bytes, awaited) in script {
        stream.write_all(bytes).unwrap();
        all.extend(raw_until(&mut stream, *awaited));
    }
    stream.write_all(&raw(b'X', b"")).unwrap();
    let left = stream.read(&mut [0; 1]).unwrap();
    assert_eq!(left, 0, "nothing comes behind {all:?}");
    all
}

/// Opens a raw client's session.
pub(crate) fn raw_open(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let start = b"\0\x03\0\0user\0postgres\0database\0postgres\0client_encoding\0UTF8\0\0";
    let length = u32::try_from(start.len() + 4).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], start].concat()).unwrap();
    let _ = raw_until(&mut stream, b'Z');
    stream
}

/// A name, and messages with the answer that each waits for.
type Session = (&'static str, Vec<(Vec<u8>, u8)>);

/// Scripts in which a COPY ends well, badly, early, late, or not at all.
fn copies() -> Vec<Session> {
    let q = raw_query;
    let x = raw_extended;
    let d = |text: &str| raw(b'd', text.as_bytes());
    let (c, s, h) = (raw(b'c', b""), raw(b'S', b""), raw(b'H', b""));
    let f = raw(b'f', b"changed my mind\0");
    let join = |parts: &[&[u8]]| parts.concat();
    let copy = "COPY copied FROM STDIN";
    let count = (q("SELECT count(*) FROM copied"), b'Z');
    vec![
        ("in", vec![(q(copy), b'G'), (join(&[&d("1\n2"), &d("\n3\n"), &c]), b'Z'), count.clone()]),
        ("in at once", vec![(join(&[&q(copy), &d("1\n"), &c, &q("SELECT 1")]), b'Z'), (vec![], b'Z')]),
        (
            "csv",
            vec![
                (q("COPY copied FROM STDIN (FORMAT csv, HEADER) WHERE id > 1"), b'G'),
                (join(&[&d("id\n1\n2\n"), &c]), b'Z'),
                count.clone(),
            ],
        ),
        ("given up", vec![(q(copy), b'G'), (join(&[&d("1\n"), &f]), b'Z'), count.clone()]),
        (
            "bad",
            vec![
                (q(copy), b'G'),
                (d("1\nx\n"), b'Z'),
                (join(&[&d("2\n"), &c, &q("SELECT 1")]), b'Z'),
                count.clone(),
            ],
        ),
        (
            "bad in a transaction",
            vec![
                (q("BEGIN"), b'Z'),
                (q(copy), b'G'),
                (join(&[&d("x\n"), &c]), b'Z'),
                (q("SELECT 1"), b'Z'),
                (q("ROLLBACK"), b'Z'),
            ],
        ),
        (
            "a batch",
            vec![
                (q("COPY copied FROM STDIN; SELECT 1; COPY copied FROM STDIN; SELECT 2"), b'G'),
                (join(&[&d("1\n"), &c]), b'G'),
                (join(&[&d("2\n3\n"), &c]), b'Z'),
                count.clone(),
            ],
        ),
        (
            "a batch at once",
            vec![
                (
                    join(&[
                        &q("COPY copied FROM STDIN; COPY copied FROM STDIN"),
                        &d("1\n"),
                        &c,
                        &d("2\n"),
                        &c,
                    ]),
                    b'Z',
                ),
                count.clone(),
            ],
        ),
        (
            "a bad batch",
            vec![
                (q("COPY copied FROM STDIN; SELECT 1; COPY copied FROM STDIN"), b'G'),
                (join(&[&d("x\n"), &c, &d("2\n"), &c]), b'Z'),
                count.clone(),
            ],
        ),
        ("extended", vec![(join(&[&x(copy), &s]), b'G'), (join(&[&d("1\n"), &c, &s]), b'Z'), count.clone()]),
        (
            "extended at once",
            vec![(join(&[&x(copy), &d("1\n"), &h, &s, &d("2\n"), &c, &s]), b'Z'), count.clone()],
        ),
        (
            "extended, with more behind",
            vec![(join(&[&x("SELECT 1"), &x(copy), &d("1\n"), &c, &x("SELECT 2"), &s]), b'Z'), count.clone()],
        ),
        ("extended, given up", vec![(join(&[&x(copy), &s]), b'G'), (join(&[&f, &s]), b'Z'), count.clone()]),
        (
            "extended, bad",
            vec![
                (join(&[&x(copy), &s]), b'G'),
                (d("x\n"), b'E'),
                (join(&[&d("1\n"), &c, &s]), b'Z'),
                count.clone(),
            ],
        ),
        (
            "extended, bad at the end",
            vec![(join(&[&x(copy), &s]), b'G'), (join(&[&d("x\n"), &c, &s]), b'Z'), count.clone()],
        ),
        (
            "behind a failure",
            vec![(join(&[&x("SELECT nothing"), &x(copy), &d("1\n"), &c, &s]), b'Z'), count.clone()],
        ),
        ("no such table", vec![(q("COPY nothing FROM STDIN"), b'Z'), count.clone()]),
        ("no such table, extended", vec![(join(&[&x("COPY nothing FROM STDIN"), &s]), b'Z'), count.clone()]),
        ("stray", vec![(join(&[&d("1\n"), &c, &f, &q("SELECT 1")]), b'Z'), count.clone()]),
        (
            "out",
            vec![
                (q("COPY (SELECT * FROM generate_series(1, 3)) TO STDOUT; SELECT 1"), b'Z'),
                (q("COPY (VALUES (1, 'a,b')) TO STDOUT (FORMAT csv, HEADER)"), b'Z'),
                (join(&[&x("COPY (SELECT 1) TO STDOUT (FORMAT binary)"), &s]), b'Z'),
            ],
        ),
        (
            "out, bad",
            vec![
                (q("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n) TO STDOUT"), b'Z'),
                (
                    join(&[&x("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n) TO STDOUT"), &s]),
                    b'Z',
                ),
            ],
        ),
        (
            "binary",
            vec![
                (q("COPY copied FROM STDIN (FORMAT binary)"), b'G'),
                (
                    join(&[
                        &raw(b'd', b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\x2a\xff\xff"),
                        &c,
                    ]),
                    b'Z',
                ),
                (q("SELECT id FROM copied"), b'Z'),
            ],
        ),
    ]
}

#[test]
fn every_copy_ends_as_it_does_without_us() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    psql(port, "CREATE TABLE copied (id int)");
    for (name, script) in copies() {
        psql(port, "TRUNCATE copied");
        let direct = raw_session(cluster.port, &script);
        psql(port, "TRUNCATE copied");
        let relayed = raw_session(port, &script);
        assert_eq!(direct, relayed, "{name}");
    }
    let log = log.lock().unwrap();
    let copied = log.done.iter().find(|done| done.rows == Some(3) && done.status == OutcomeStatus::Completed);
    assert!(copied.is_some_and(|done| done.bytes > 0), "{log:#?}");
}
