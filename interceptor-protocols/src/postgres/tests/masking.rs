//! Rows, errors and notices of a resource with labels, however the input is cut.

use interceptor_core::mask::{
    Bindings, Detector, Fingerprint, Form, Hiding, Label, LabelSet, Labelled, Labels, Mask, MaskKey, Pattern,
    Sought, Stands, Tokens,
};
use interceptor_core::model::RunId;

use super::*;
use crate::conformance::release as sent;

pub(super) fn labels() -> Arc<Labels> {
    let label = |name: &str, columns: &[&str], detect: &[Detector], form| Label {
        name: name.to_owned(),
        columns: columns.iter().filter_map(|column| Pattern::parse(column)).collect(),
        detect: detect.to_vec(),
        form,
    };
    let all = vec![
        label("code", &["public.people.code"], &[], Form::Redact),
        label("mail", &[], &[Detector::Email], Form::Redact),
    ];
    Arc::new(Labels::new("orders", all).expect("labels"))
}

fn labelled() -> Labelled {
    Labelled { labels: labels(), bindings: Arc::new(Bindings::known(Vec::new(), Vec::new())) }
}

pub(super) fn hidden() -> Mask {
    Mask::Of(Arc::new(Hiding::new(labels(), LabelSet::ALL, &MaskKey::new([0; 32]))))
}

fn session() -> PostgresDecoder {
    let mut decoder = PostgresDecoder::new(still(), labelled(), Tokens::default());
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
    decoder
}

/// The catalogue of `people(id, code, note)`.
fn catalogue() -> Vec<u8> {
    let rows = [
        ["s", "0", "db", "role", "UTF8", "on", "read committed"],
        ["p", "1", "public", "", "", "", ""],
        ["r", "1", "public", "people", "100", "r", "false"],
        ["t", "1", "public", "people", "100", "r", ""],
        ["a", "1", "", "id", "100", "1", ""],
        ["a", "1", "", "code", "100", "2", ""],
        ["a", "1", "", "note", "100", "3", ""],
    ];
    let mut answer = BytesMut::new();
    answer.put_slice(&[message(b'1', |_| {}), message(b'2', |_| {})].concat());
    for values in rows {
        answer.put_slice(&row(&values.map(Some)));
    }
    answer.put_slice(
        &[complete("SELECT 7"), message(b'3', |_| {}), message(b'3', |_| {}), ready(b'I')].concat(),
    );
    answer.to_vec()
}

pub(super) fn row(values: &[Option<&str>]) -> Bytes {
    message(b'D', |out| {
        out.put_u16(u16::try_from(values.len()).expect("few"));
        values.iter().for_each(|value| put_value(out, value.map(str::as_bytes)));
    })
}

/// A RowDescription of texts from these columns.
pub(super) fn described(columns: &[(u32, i16)]) -> Bytes {
    message(b'T', |out| {
        out.put_u16(u16::try_from(columns.len()).expect("few"));
        for (relation, column) in columns {
            put_text(out, "x");
            out.put_u32(*relation);
            out.put_i16(*column);
            out.put_u32(25);
            out.put_i16(-1);
            out.put_i32(-1);
            out.put_i16(0);
        }
    })
}

/// A session in which `text` has been sent, with that mask.
fn asking(text: &str, mask: Mask) -> PostgresDecoder {
    asking_with(text, mask, None)
}

/// The same, where rows are recorded with what is hidden so.
pub(super) fn asking_with(text: &str, mask: Mask, recording: Option<Arc<Hiding>>) -> PostgresDecoder {
    let mut decoder = session();
    if let Some(hiding) = recording {
        decoder.record_rows(hiding);
    }
    let mut step = client(&mut decoder, &query(text));
    if let Step::Enquire(held) = &step {
        decoder.sent(held.number(), Mask::Nothing);
        let (bytes, _) = upstream(&mut decoder, &catalogue());
        assert!(bytes.is_empty());
        step = client(&mut decoder, b"");
    }
    let Step::Ask(held) = step else { panic!("{text}: {step:?}") };
    decoder.sent(held.number(), mask);
    decoder
}

/// What the client gets of an answer that comes in pieces of so many bytes.
fn told(decoder: &mut PostgresDecoder, answer: &[u8], piece: usize) -> Vec<u8> {
    let mut input = BytesMut::new();
    let mut out = Vec::new();
    for part in answer.chunks(piece) {
        input.extend_from_slice(part);
        loop {
            match decoder.step(Side::Upstream, &mut input).expect("well-formed") {
                Step::Wait => break,
                Step::Answer { bytes, .. } => out.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
    }
    out
}

#[test]
fn rows_are_masked_however_they_come() {
    let answer = [
        described(&[(100, 1), (100, 2), (100, 3), (0, 0), (999, 1)]),
        row(&[Some("1"), Some("sesame"), Some("to a@example.org"), Some("made of it"), Some("strange")]),
        row(&[Some("2"), None, None, None, None]),
        complete("SELECT 2"),
        ready(b'I'),
    ]
    .concat();
    let expected = [
        described(&[(100, 1), (100, 2), (100, 3), (0, 0), (999, 1)]),
        row(&[Some("1"), Some("[code]"), Some("to [mail]"), None, None]),
        row(&[Some("2"), None, None, None, None]),
        complete("SELECT 2"),
        ready(b'I'),
    ]
    .concat();
    for piece in [1, 2, 3, 7, 64, answer.len()] {
        let mut decoder = asking("SELECT id, code, note, upper(code), 1 FROM people", hidden());
        assert_eq!(told(&mut decoder, &answer, piece), expected, "{piece}");
        assert!(decoder.is_idle());
    }
    let mut decoder = asking("SELECT id, code, note, upper(code), 1 FROM people", Mask::Nothing);
    assert_eq!(told(&mut decoder, &answer, answer.len()), answer, "who may see sees");
}

/// Something was copied after the statement was judged: what it reads may bear more than was known.
#[test]
fn rows_that_a_copy_came_before_are_not_shown() {
    use interceptor_core::mask::{Carried, Destination};
    let answer = [described(&[(100, 1)]), row(&[Some("1")]), complete("SELECT 1"), ready(b'I')].concat();
    let closed = [described(&[(100, 1)]), row(&[None]), complete("SELECT 1"), ready(b'I')].concat();
    let copy = |decoder: &PostgresDecoder| {
        let to = Destination::New {
            database: Some(5),
            schemas: vec!["public".to_owned()],
            name: "made".to_owned(),
            columns: vec![1],
        };
        let carried = [Carried { to, labels: LabelSet::of(0) }];
        decoder.bindings.copied(&labels(), &carried, RecordId(7)).expect("it is followed");
    };
    let mut decoder = asking("SELECT id FROM people", hidden());
    assert_eq!(told(&mut decoder, &answer, answer.len()), answer);
    let mut decoder = asking("SELECT id FROM people", hidden());
    copy(&decoder);
    assert_eq!(told(&mut decoder, &answer, answer.len()), closed);
    // The next one is looked up anew.
    let step = client(&mut decoder, &query("SELECT id FROM people"));
    assert!(matches!(step, Step::Enquire(_)), "{step:?}");
}

#[test]
fn what_nothing_describes_is_nothing() {
    let mut decoder = asking("SELECT code FROM people", hidden());
    let answer = [row(&[Some("sesame"), Some("x")]), complete("SELECT 1"), ready(b'I')].concat();
    let expected = [row(&[None, None]), complete("SELECT 1"), ready(b'I')].concat();
    assert_eq!(told(&mut decoder, &answer, 5), expected);
    // A description that is not that of the rows.
    let mut decoder = asking("SELECT code FROM people", hidden());
    let answer =
        [described(&[(100, 1)]), row(&[Some("1"), Some("sesame")]), complete("SELECT 1"), ready(b'I')];
    let said = told(&mut decoder, &answer.concat(), 1000);
    assert!(!said.windows(6).any(|part| part == b"sesame"));
}

#[test]
fn errors_and_notices_lose_their_words() {
    let words = |tag| {
        message(tag, |out| {
            for (kind, text) in [
                (b'S', "ERROR"),
                (b'C', "22P02"),
                (b'M', "bad \"sesame\""),
                (b'D', "sesame"),
                (b'W', "sesame"),
            ] {
                out.put_u8(kind);
                put_text(out, text);
            }
            out.put_u8(0);
        })
    };
    for piece in [1, 9, 1000] {
        let mut decoder = asking("SELECT code FROM people", hidden());
        let said = told(&mut decoder, &[words(b'N'), words(b'E'), ready(b'I')].concat(), piece);
        assert!(!said.windows(6).any(|part| part == b"sesame"), "{piece}");
        assert_eq!(said.windows(5).filter(|part| *part == b"22P02").count(), 2);
        // Of a statement that touches nothing labelled, only what is looked for goes.
        let mut decoder = asking("SELECT 1", hidden());
        let said = told(&mut decoder, &[words(b'E'), ready(b'I')].concat(), piece);
        assert!(said.windows(6).any(|part| part == b"sesame"), "{piece}");
    }
}

#[test]
fn nobody_is_told_anything_before_something_was_judged() {
    let mut decoder = session();
    let notice = message(b'N', |out| {
        out.put_u8(b'M');
        put_text(out, "sesame");
        out.put_u8(0);
    });
    let said = told(&mut decoder, &notice, 3);
    assert!(said.starts_with(b"N") && !said.windows(6).any(|part| part == b"sesame"));
}

/// A session that nobody looks at could carry anything away.
#[test]
fn a_replication_session_is_a_copy_of_every_label() {
    let mut decoder = PostgresDecoder::new(still(), labelled(), Tokens::default());
    let mut start = startup(3 << 16, &[("user", "x"), ("database", "d"), ("replication", "database")]);
    let Ok(Step::Open(opening)) = decoder.step(Side::Client, &mut start) else { panic!("an opening") };
    let effects = &opening.held.actions()[0].facts.effects;
    assert_eq!(effects.iter().filter(|effect| effect.verb == Verb::LabelCopy).count(), labels().len());
}

/// Columns by the statement's own list, and values that two messages share.
#[test]
fn what_is_copied_to_the_client_is_masked() {
    let data = |text: &str| message(b'd', |out| out.put_slice(text.as_bytes()));
    let begins = |count: u16| {
        message(b'H', |out| {
            out.put_u8(0);
            out.put_u16(count);
            (0..count).for_each(|_| out.put_u16(0));
        })
    };
    let end = [message(b'c', |_| {}), complete("COPY 2"), ready(b'I')].concat();
    let answer = |count, parts: &[&str]| {
        let parts: Vec<u8> = parts.iter().flat_map(|part| data(part)).collect();
        [&begins(count)[..], &parts, &end].concat()
    };
    let came = answer(2, &["1\tses", "ame\n2\tx\n"]);
    for piece in [1, 7, 1000] {
        let mut decoder = asking("COPY people (id, code) TO STDOUT", hidden());
        let told = told(&mut decoder, &came, piece);
        assert_eq!(told, answer(2, &["1\t[code]\n2\t[code]\n"]), "{piece}");
        assert!(decoder.is_idle());
    }
    let mut decoder = asking("COPY people TO STDOUT (FORMAT csv)", hidden());
    let told_all = told(&mut decoder, &answer(3, &["1,sesame,a@exa", "mple.com\n"]), 1000);
    assert_eq!(told_all, answer(3, &["1,[code],[mail]\n"]));
    // Another table than the catalogue told of.
    let mut decoder = asking("COPY people TO STDOUT", hidden());
    let told_all = told(&mut decoder, &answer(2, &["1\tsesame\n"]), 1000);
    assert_eq!(told_all, answer(2, &["\\N\t\\N\n"]));
    let mut decoder = asking("COPY people TO STDOUT", Mask::Nothing);
    assert_eq!(told(&mut decoder, &came, 1000), came, "who may see sees");
}

#[test]
fn what_decides_or_is_copied_is_an_effect_on_the_label() {
    let verbs = |text: &str| {
        let mut decoder = session();
        let mut step = client(&mut decoder, &query(text));
        if let Step::Enquire(held) = &step {
            decoder.sent(held.number(), Mask::Nothing);
            let _ = upstream(&mut decoder, &catalogue());
            step = client(&mut decoder, b"");
        }
        let Step::Ask(held) = step else { panic!("{text}: {step:?}") };
        let effects = held.actions()[0].facts.effects.clone();
        let of_labels = effects.into_iter().filter(|effect| matches!(effect.target, Target::Label(_)));
        of_labels.map(|effect| effect.verb).collect::<Vec<_>>()
    };
    assert_eq!(verbs("SELECT code FROM people"), []);
    assert_eq!(verbs("SELECT id FROM people WHERE code = 'x'"), [Verb::LabelFilter]);
    assert_eq!(verbs("CREATE TABLE t AS TABLE people"), [Verb::LabelCopy]);
    assert_eq!(verbs("COPY people TO STDOUT"), []);
    assert_eq!(verbs("COPY (SELECT code FROM people) TO STDOUT"), [Verb::LabelCopy, Verb::See]);
}

/// An error to an exchange of our own takes the place of the client's answer: it quotes no more than another would.
#[test]
fn what_fails_at_our_commit_is_told_without_values() {
    use super::enclosed::{goes, hear, own, terms};
    for mask in [hidden(), Mask::Nothing] {
        let mut decoder = session();
        let Step::Enquire(look) = client(&mut decoder, &query("DELETE FROM people WHERE id = 1")) else {
            panic!("its names are looked up")
        };
        decoder.sent(look.number(), Mask::Nothing);
        hear(&mut decoder, &catalogue(), usize::MAX);
        let held = asked(&mut decoder, b"");
        decoder.enclose(held.number(), terms(5));
        goes(&mut decoder, "BEGIN");
        hear(&mut decoder, &own("BEGIN", b'T'), usize::MAX);
        let held = asked(&mut decoder, b"");
        decoder.recorded(held.number(), RecordId(7));
        let shows = matches!(mask, Mask::Nothing);
        decoder.sent(held.number(), mask);
        hear(&mut decoder, &[complete("DELETE 1"), ready(b'T')].concat(), 3);
        goes(&mut decoder, "COMMIT");
        let failed = message(b'E', |out| {
            for (field, text) in [
                (b'S', "ERROR"),
                (b'C', "23503"),
                (b'M', "it is referred to"),
                (b'D', "Key (mail)=(zoe@example.com)"),
            ] {
                out.put_u8(field);
                put_text(out, text);
            }
            out.put_u8(0);
        });
        let answer = [message(b'1', |_| {}), message(b'2', |_| {}), failed, ready(b'I')].concat();
        let told = String::from_utf8_lossy(&hear(&mut decoder, &answer, 5).client).into_owned();
        assert!(told.contains("23503"), "{told}");
        assert_eq!(told.contains("zoe"), shows, "{told}");
    }
}

/// Who may see everything sees no credential, wherever its stream is cut.
#[test]
fn a_secret_is_masked_for_whoever_sees_everything() {
    const SECRET: &str = "vQ7#kd82Lmz!pX04tRw9Hs3c";
    let key = [3; 32];
    let fingerprint = Fingerprint::of(SECRET.as_bytes(), &key).expect("a fingerprint");
    let sought = Arc::new(Sought::new(key.into(), vec![fingerprint]));
    let mask = || {
        let hiding = Hiding::new(labels(), LabelSet::NONE, &MaskKey::new([0; 32]));
        Mask::Of(Arc::new(hiding.with(sought.clone())))
    };
    let data = |text: &str| message(b'd', |out| out.put_slice(text.as_bytes()));
    let begins = message(b'H', |out| out.put_slice(&[0, 0, 1, 0, 0]));
    let end = [message(b'c', |_| {}), complete("COPY 2"), ready(b'I')].concat();
    let (before, behind) = SECRET.split_at(9);
    let came =
        [&begins[..], &data(&format!("a {before}")), &data(&format!("{behind} b\nsesame\n")), &end].concat();
    let told_all = [&begins[..], &data("a [secret] b\nsesame\n"), &end].concat();
    for piece in [1, 5, 1000] {
        let mut decoder = asking("COPY people (code) TO STDOUT", mask());
        assert_eq!(told(&mut decoder, &came, piece), told_all, "{piece}");
        assert!(decoder.is_idle());
    }
    let answer = |value: &str| {
        [described(&[(100, 2)]), row(&[Some(value)]), complete("SELECT 1"), ready(b'I')].concat()
    };
    let mut decoder = asking("SELECT code FROM people", mask());
    assert_eq!(told(&mut decoder, &answer(&format!("x{SECRET}")), 1000), answer("x[secret]"));
    let mut decoder = asking("SELECT code FROM people", mask());
    assert_eq!(told(&mut decoder, &answer("sesame"), 1000), answer("sesame"));
    assert!(sought.take_found() >= 4 && sought.take_found() == 0);
}

/// What is judged has the token, what is sent has the value, and nothing that is printed has that.
#[test]
fn a_token_is_replaced_where_it_is_sent_alone() {
    let label = Label {
        name: "code".to_owned(),
        columns: vec![Pattern::parse("public.people.code").expect("a pattern")],
        detect: Vec::new(),
        form: Form::Token,
    };
    let labels = Arc::new(Labels::new("orders", vec![label]).expect("labels"));
    let tokens = || MaskKey::new([9; 32]).tokens(&labels, RunId::from_random(7));
    let token = tokens().give(0, Stands { relation: 100, column: 2 }, "it's \\sesame").expect("a token");
    let held = |text: &str| {
        let bindings = Arc::new(Bindings::known(Vec::new(), Vec::new()));
        let labelled = Labelled { labels: labels.clone(), bindings };
        let mut decoder = PostgresDecoder::new(still(), labelled, tokens());
        let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
        let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::from_static(b"four") });
        let Step::Enquire(look) = client(&mut decoder, &query(text)) else {
            panic!("its names are looked up")
        };
        decoder.sent(look.number(), Mask::Nothing);
        let _ = upstream(&mut decoder, &catalogue());
        asked(&mut decoder, b"")
    };
    let filters = |held: &Held| held.actions()[0].facts.effects.iter().any(|e| e.verb == Verb::LabelFilter);
    let text = format!("SELECT id FROM people WHERE code = '{token}' /* x */;");
    let one = held(&text);
    assert!(!filters(&one) && one.actions()[0].facts.has_tokens());
    assert!(one.actions()[0].text.contains(&token));
    assert_eq!(
        one.digest(),
        Held::new(0, Vec::new(), Bytes::copy_from_slice(&query(&text))).digest(),
        "it is judged as it came"
    );
    assert!(!format!("{one:?}").contains("sesame"));
    assert_eq!(
        &sent(one)[..],
        &query("SELECT id FROM people WHERE code =  E'it''s \\\\sesame' /* x */;")[..]
    );
    for text in [
        format!("SELECT id FROM people WHERE code = '{token}x'"),
        format!("SELECT id FROM people WHERE code > '{token}'"),
        format!("SELECT id, '{token}' FROM people WHERE note = '{token}'"),
        format!("SELECT id FROM people WHERE code = '{token}'; SELECT id FROM people WHERE code = '{token}'"),
    ] {
        let other = held(&text);
        assert_eq!(&sent(other)[..], &query(&text)[..], "{text}");
    }
}
