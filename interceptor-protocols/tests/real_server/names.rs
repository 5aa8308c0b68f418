//! What a session names for itself: prepared statements and cursors of SQL's own, and notifications.

use std::io::Write;

use crate::{
    Cluster,
    copy::{raw, raw_extended, raw_open, raw_query, raw_session, raw_until},
    listen,
};

/// Scripts in which every statement is understood.
fn scripts() -> Vec<Vec<String>> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect();
    vec![
        // A cursor that outlives its transaction, read forwards, backwards and by number.
        lines(
            "BEGIN
             DECLARE held SCROLL CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 9) AS n
             FETCH 2 FROM held
             COMMIT
             FETCH held
             MOVE 1 IN held
             FETCH BACKWARD 2 FROM held
             FETCH ABSOLUTE -1 FROM held
             FETCH RELATIVE -3 held
             MOVE FORWARD ALL IN held
             FETCH PRIOR held
             FETCH 99999999999 FROM held
             FETCH 1000 FROM held
             CLOSE held",
        ),
        // One that does not; the server says so.
        lines(
            "BEGIN
             DECLARE short CURSOR FOR SELECT 1
             FETCH ALL IN short
             COMMIT
             FETCH short",
        ),
        // Declared and read in one text.
        lines(
            "BEGIN; DECLARE both CURSOR FOR SELECT n FROM generate_series(1, 3) AS n; FETCH 2 FROM both; COMMIT
             BEGIN; DECLARE a CURSOR FOR SELECT 1; CLOSE a; DECLARE a CURSOR FOR SELECT 2; FETCH ALL a; END",
        ),
        lines(
            "PREPARE twice(int) AS SELECT 2 * $1
             EXECUTE twice(21)
             PREPARE twice AS SELECT 1
             EXECUTE twice(1 + 1)
             DEALLOCATE twice
             PREPARE twice(text, int) AS SELECT repeat($1, $2)
             EXECUTE twice('ab', 2)
             BEGIN
             PREPARE undone AS SELECT 3
             ROLLBACK
             EXECUTE undone
             DEALLOCATE ALL
             PREPARE one AS SELECT 1; EXECUTE one; DEALLOCATE one",
        ),
        lines(
            "LISTEN news
             NOTIFY news, 'first'
             BEGIN
             NOTIFY news, 'second'
             SELECT 1
             COMMIT
             UNLISTEN news
             NOTIFY news, 'unheard'
             LISTEN \"Odd Name\"
             NOTIFY \"Odd Name\"",
        ),
    ]
}

#[test]
fn names_of_sqls_own_are_followed() {
    let cluster = Cluster::start();
    let (port, log) = listen(0, cluster.port);
    for script in scripts() {
        let simple: Vec<_> = script.iter().map(|text| (raw_query(text), b'Z')).collect();
        // A notification begins with the number of the process that sent it, whose bytes may be any letter.
        let shown = |port| -> Vec<_> {
            let without_process = |(tag, body): (char, String)| {
                let channel = ["news\0", "Odd Name\0"].iter().find_map(|name| body.find(name));
                match channel {
                    Some(at) if tag == 'A' => (tag, body[at..].to_owned()),
                    _ => (tag, body),
                }
            };
            raw_session(port, &simple).into_iter().map(without_process).collect()
        };
        assert_eq!(shown(cluster.port), shown(port), "{script:#?}");
        let one_each = script.iter().filter(|text| !text.contains(';'));
        let extended: Vec<_> =
            one_each.map(|text| ([raw_extended(text), raw(b'S', &[])].concat(), b'Z')).collect();
        let tags = |port| raw_session(port, &extended).into_iter().map(|(tag, _)| tag).collect::<String>();
        assert_eq!(tags(cluster.port), tags(port), "{script:#?}");
    }
    let log = log.lock().unwrap();
    let unknown: Vec<_> = log.asked.iter().filter(|asked| asked.contains("Unknown")).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn notifications_come_while_nothing_is_asked() {
    let cluster = Cluster::start();
    let (port, _) = listen(0, cluster.port);
    let mut listening = raw_open(port);
    listening.write_all(&raw_query("LISTEN news")).unwrap();
    let _ = raw_until(&mut listening, b'Z');
    for word in ["one", "two"] {
        raw_session(port, &[(raw_query(&format!("NOTIFY news, '{word}'")), b'Z')]);
        let got = raw_until(&mut listening, b'A');
        assert!(got[0].1.contains("news") && got[0].1.contains(word), "{got:?}");
    }
    listening.write_all(&raw_query("SELECT 7")).unwrap();
    assert!(raw_until(&mut listening, b'Z').iter().any(|(tag, body)| *tag == 'D' && body.contains('7')));
}
