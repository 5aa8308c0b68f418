//! Rows as they are recorded, whatever the client sees of them and however the input is cut.

use interceptor_core::{
    mask::{Hiding, LabelSet, Mask, MaskKey},
    model::RecordedRows,
};

use super::{
    masking::{asking_with, described, hidden, labels, row},
    *,
};

fn hiding() -> Arc<Hiding> {
    Arc::new(Hiding::new(labels(), LabelSet::ALL, &MaskKey::new([0; 32])))
}

/// What is recorded of an answer to `text` that comes in pieces of so many bytes.
fn recorded(text: &str, mask: Mask, answer: &[u8], piece: usize) -> Vec<Option<RecordedRows>> {
    let mut decoder = asking_with(text, mask, Some(hiding()));
    let (mut input, mut came) = (BytesMut::new(), Vec::new());
    for part in answer.chunks(piece) {
        input.extend_from_slice(part);
        loop {
            match decoder.step(Side::Upstream, &mut input).expect("well-formed") {
                Step::Wait => break,
                Step::Answer { done, .. } => came.extend(done.into_iter().map(|done| done.recorded)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(input.is_empty() && decoder.is_idle());
    came
}

fn words(row: &[Option<&str>]) -> Vec<Option<String>> {
    row.iter().map(|value| value.map(str::to_owned)).collect()
}

#[test]
fn rows_are_recorded_masked_whoever_sees_them() {
    let text = "SELECT id, code, note, upper(code) FROM people";
    let answer = [
        described(&[(100, 1), (100, 2), (100, 3), (0, 0)]),
        row(&[Some("1"), Some("sesame"), Some("to a@example.org"), Some("SESAME")]),
        row(&[Some("2"), None, None, None]),
        complete("SELECT 2"),
        ready(b'I'),
    ]
    .concat();
    let rows = vec![
        words(&[Some("1"), Some("[code]"), Some("to [mail]"), None]),
        words(&[Some("2"), None, None, None]),
    ];
    let expected = [Some(RecordedRows { rows, rows_left_out: 0 })];
    for piece in [1, 2, 3, 7, 64, answer.len()] {
        for mask in [hidden(), Mask::Nothing] {
            assert_eq!(recorded(text, mask, &answer, piece), expected, "{piece}");
        }
    }
}

#[test]
fn each_statement_of_a_text_has_its_own_rows() {
    let (one, other) = (described(&[(100, 1)]), described(&[(100, 2)]));
    let answer = [
        one,
        row(&[Some("1")]),
        complete("SELECT 1"),
        other,
        row(&[Some("sesame")]),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat();
    let came = recorded("SELECT id FROM people; SELECT code FROM people", Mask::Nothing, &answer, 5);
    let rows = |value: &str| Some(RecordedRows { rows: vec![words(&[Some(value)])], rows_left_out: 0 });
    assert_eq!(came, [rows("1"), rows("[code]")]);
}

#[test]
fn what_is_too_much_or_not_known_is_counted() {
    let text = "SELECT id FROM people";
    let short = row(&[Some("1")]);
    let answer = |rows: &[Bytes]| {
        [&[described(&[(100, 1)])], rows, &[complete("SELECT 9"), ready(b'I')]].concat().concat()
    };
    let of = |rows: &[Bytes], piece| {
        let came = recorded(text, Mask::Nothing, &answer(rows), piece);
        came.first().cloned().flatten().map(|came| (came.rows.len(), came.rows_left_out))
    };
    assert_eq!(of(&[], 5), None, "nothing came");
    assert_eq!(of(&vec![short.clone(); 1003], 4096), Some((1000, 3)));
    let half = row(&[Some("x".repeat(40_000).as_str())]);
    let long = row(&[Some("x".repeat(70_000).as_str())]);
    for piece in [1000, 1 << 20] {
        // Nothing behind what is left out: rows are the first that came.
        assert_eq!(of(&[half.clone(), half.clone(), short.clone()], piece), Some((1, 2)));
        assert_eq!(of(&[short.clone(), long.clone(), short.clone()], piece), Some((1, 2)));
    }
    // Six bytes of JSON each.
    let escaped = row(&[Some("\u{1}".repeat(20_000).as_str())]);
    assert_eq!(of(&[escaped], 1000), Some((0, 1)));
    let undescribed = [row(&[Some("sesame")]), complete("SELECT 1"), ready(b'I')].concat();
    let came = recorded(text, hidden(), &undescribed, 7);
    assert_eq!(came, [Some(RecordedRows { rows: Vec::new(), rows_left_out: 1 })]);
}

#[test]
fn of_a_copy_no_row_is_recorded() {
    let out = message(b'H', |out| {
        out.put_u8(0);
        out.put_u16(1);
        out.put_i16(0);
    });
    let line = |text: &'static str| message(b'd', |out| out.put_slice(text.as_bytes()));
    let end = message(b'c', |_| {});
    let answer = [out, line("1\n2\n"), line("3\n"), end, complete("COPY 3"), ready(b'I')].concat();
    for mask in [hidden(), Mask::Nothing] {
        let came = recorded("COPY people (id) TO STDOUT", mask, &answer, 11);
        assert_eq!(came, [Some(RecordedRows { rows: Vec::new(), rows_left_out: 3 })]);
    }
}
