//! What a judgement is bound to: values as the server reads them, and what the session has made of itself.

use super::*;

/// What an approval of this would be bound to besides what is shown.
fn around(session: &mut Session, payload: &[u8]) -> String {
    let held = session.asks(payload);
    let _ = session.decoder.refuse(held.number(), &denial());
    let circumstances = held.circumstances();
    format!("{:?} {:?}", circumstances.naming, circumstances.settings)
}

fn done(session: &mut Session, payload: &[u8]) {
    session.sent(payload);
    session.answered(&packets(&[OK]));
}

#[test]
fn what_is_approved_is_bound_to_what_the_session_has_made_of_itself() {
    let text = b"\x03DELETE FROM users WHERE id = @a";
    let fresh = around(&mut Session::new(), text);
    assert!(fresh.ends_with("None"), "{fresh}");
    let mut seen = vec![fresh.clone()];
    let changes: [&[u8]; 6] = [
        b"\x03SET @a = 1",
        b"\x03SET @a = 2",
        b"\x03SELECT @a := 3",
        b"\x03CALL p()",
        b"\x03SET sql_mode = 'ANSI_QUOTES'",
        b"\x03HELP 'me'",
    ];
    for change in changes {
        let mut session = Session::new();
        done(&mut session, change);
        let now = around(&mut session, text);
        assert!(!seen.contains(&now), "{change:?}: {now}");
        let mut other = Session::new();
        done(&mut other, b"\x03SELECT 1");
        done(&mut other, change);
        assert_eq!(around(&mut other, text), now, "{change:?}: another session in the same state");
        seen.push(now);
    }
    let mut session = Session::new();
    done(&mut session, b"\x03SET @a = 1");
    let changed = around(&mut session, text);
    session.sent(b"\x1f");
    session.answered(&packets(&[b"\xff\x50\x04#42000no"]));
    assert_eq!(around(&mut session, text), changed, "it was not reset");
    done(&mut session, b"\x1f");
    assert_eq!(around(&mut session, text), fresh, "it was");
}

#[test]
fn values_that_change_a_session_are_told_apart() {
    let mut seen = Vec::new();
    for value in [1, 2] {
        let mut session = Session::new();
        session.prepare("SET @a = ?");
        done(&mut session, &execute(1, [1, 0], &[value]));
        seen.push(around(&mut session, b"\x03DELETE FROM users WHERE id = @a"));
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn bytes_that_are_shown_alike_are_bound_apart() {
    let mut session = Session::new();
    let [one, other] =
        [&b"\x03DELETE FROM users WHERE name = '\xff'"[..], b"\x03DELETE FROM users WHERE name = '\xfe'"]
            .map(|text| around(&mut session, text));
    assert_ne!(one, other);
    session.prepare("SELECT ?");
    let [bytes, text] = [&b"\x01\xff"[..], b"\x04\\xff"].map(|value| {
        let held = session.asks(&execute(1, [0xfd, 0], value));
        let _ = session.decoder.refuse(held.number(), &denial());
        held.actions()[0].binds[0].clone()
    });
    assert_eq!(bytes.value, text.value);
    assert_eq!((&*bytes.r#type, &*text.r#type), ("bytes", "text"));

    let prepared = [b"\xff", b"\xfe"].map(|name| {
        let mut session = Session::new();
        session.sent(&[b"\x16SELECT ?, '", &name[..], b"'"].concat());
        session.answered(&packets(PREPARED));
        around(&mut session, &execute(1, [1, 0], &[1]))
    });
    assert_ne!(prepared[0], prepared[1]);
}

#[test]
fn the_names_of_a_prepared_statement_are_of_the_database_that_it_was_prepared_in() {
    let mut session = Session::new();
    session.prepare("SELECT id FROM users WHERE id = ?");
    done(&mut session, b"\x02other");
    session.database = "other";
    for (payload, database) in
        [(&execute(1, [1, 0], &[1])[..], "shop"), (b"\x03SELECT id FROM users", "other")]
    {
        let held = session.asks(payload);
        let _ = session.decoder.refuse(held.number(), &denial());
        let naming = held.circumstances().naming.clone().expect("a naming");
        assert_eq!(naming.search_path, [database]);
        assert!(format!("{:?}", held.actions()).contains(database));
    }
}

#[test]
fn what_ran_something_unseen_makes_the_settings_asked_for_again() {
    for (table, again) in [([b"1", b"0", b"0"], true), ([b"0", b"0", b"1"], false)] {
        let mut session = Session::new();
        session.table = Some(table.map(|count| &count[..]));
        done(&mut session, b"\x03SELECT id FROM users");
        session.client.extend_from_slice(&packet(0, b"\x03SELECT 1"));
        assert_eq!(matches!(session.client(), Step::Enquire(_)), again, "a view is {again}");
    }
}

#[test]
fn dates_and_times_that_servers_make_others_of_are_refused() {
    let mut session = Session::new();
    session.prepare("SELECT ?");
    let wrong: [(u8, &[u8]); 9] = [
        (10, &[7, 0xea, 7, 1, 2, 3, 4, 5]),
        (10, &[4, 0xea, 7, 13, 2]),
        (12, &[4, 0xea, 7, 1, 32]),
        (12, &[4, 0x10, 0x27, 1, 1]),
        (12, &[7, 0xea, 7, 1, 2, 24, 0, 0]),
        (7, &[11, 0xea, 7, 1, 2, 3, 4, 5, 0x40, 0x42, 0x0f, 0]),
        (11, &[8, 0, 34, 0, 0, 0, 23, 0, 0]),
        (11, &[8, 0, 0, 0, 0, 0, 24, 0, 0]),
        (11, &[8, 0, 0, 0, 0, 0, 1, 60, 0]),
    ];
    for (kind, value) in wrong {
        let (code, _, words) = session.refused(&execute(1, [kind, 0], value));
        assert!(code == 1235 && words.contains("as a string"), "{kind} {value:?}: {words}");
    }
    let right: [(u8, &[u8], &str); 4] = [
        (10, &[4, 0xea, 7, 12, 31], "2026-12-31"),
        (12, &[11, 0xea, 7, 1, 2, 3, 4, 5, 6, 0, 0, 0], "2026-01-02 03:04:05.000006"),
        (11, &[8, 1, 34, 0, 0, 0, 22, 59, 59], "-838:59:59"),
        (7, &[0], "0000-00-00"),
    ];
    for (kind, value, shown) in right {
        let held = session.asks(&execute(1, [kind, 0], value));
        let _ = session.decoder.refuse(held.number(), &denial());
        assert_eq!(held.actions()[0].binds[0].value.as_deref(), Some(shown));
    }
}

#[test]
fn a_statement_without_parameters_brings_no_values() {
    const ALONE: &[&[u8]] = &[&[0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
    for (behind, is_taken) in [(&b""[..], true), (b"\x01", true), (b"\x01\x02", false)] {
        let mut session = Session::new();
        session.sent(b"\x16SELECT 1");
        session.answered(&packets(ALONE));
        let command = [b"\x17\x07\0\0\0\0\x01\0\0\0", behind].concat();
        session.client.extend_from_slice(&packet(0, &command));
        assert_eq!(session.next().is_ok(), is_taken, "{behind:?}");
    }
}

#[test]
fn a_server_cannot_name_more_parameters_than_a_text_has_letters() {
    let mut session = Session::new();
    session.sent(b"\x16SELECT ?");
    assert!(session.upstream(&packets(&[&[0, 7, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]])).is_err());
}
