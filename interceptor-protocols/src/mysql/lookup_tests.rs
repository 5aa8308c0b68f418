use super::*;

fn row(values: &[Option<&str>]) -> Vec<Option<String>> {
    values.iter().map(|value| value.map(str::to_owned)).collect()
}

fn named(name: &str) -> (String, String) {
    ("shop".to_owned(), name.to_owned())
}

#[test]
fn only_a_whole_answer_says_anything_of_tables() {
    let asked = [named("a"), named("b")];
    let whole = row(&[Some("1"), Some("0"), Some("0"), Some("1"), Some("1"), Some("0"), Some("1")]);
    let found = tables(&asked, std::slice::from_ref(&whole)).expect("an answer");
    assert_eq!(found.into_values().collect::<Vec<_>>(), [Look::Is(Kind::Table), Look::Is(Kind::View)]);
    assert_eq!(tables(&asked, &[]), None, "absence says nothing");
    assert_eq!(tables(&asked, &[whole.clone(), whole.clone()]), None);
    assert_eq!(tables(&asked, &[whole[..6].to_vec()]), None);
    assert_eq!(tables(&asked[..1], std::slice::from_ref(&whole)), None);
    for (place, wrong) in
        [(0, Some("0")), (0, None), (3, None), (3, Some("-1")), (3, Some("")), (3, Some("x"))]
    {
        let mut other = whole.clone();
        other[place] = wrong.map(str::to_owned);
        assert_eq!(tables(&asked, &[other]), None, "{place} {wrong:?}");
    }
}

#[test]
fn triggers_that_would_not_be_shown_are_not_taken_for_none() {
    let look = |counts: [&str; 3]| {
        let [other, triggers, rights] = counts.map(Some);
        tables(&[named("a")], &[row(&[Some("1"), other, triggers, rights])])
            .and_then(|found| found.into_values().next())
    };
    assert_eq!(look(["0", "0", "0"]), Some(Look::TriggersUnseen));
    assert_eq!(look(["0", "0", "1"]), Some(Look::Is(Kind::Table)));
    assert_eq!(look(["0", "2", "0"]), Some(Look::Is(Kind::Triggered)));
    assert_eq!(look(["1", "0", "2"]), Some(Look::Is(Kind::View)));
}

#[test]
fn settings_are_read_from_one_row_in_hexadecimal() {
    let whole = row(&[Some("1"), Some(""), Some("757466386D6234"), Some("0"), Some("C3A9")]);
    let found = settings(std::slice::from_ref(&whole)).expect("an answer");
    assert_eq!(
        (found.charset, found.names, found.database.as_deref()),
        (Charset::Utf8, Names::Exact, Some("é"))
    );
    assert_eq!(found.otherwise, None);
    assert_eq!(settings(&[]), None);
    assert_eq!(settings(&[whole.clone(), whole.clone()]), None);
    for (place, wrong) in [(0, "2"), (1, "x"), (2, "7"), (3, "3"), (3, ""), (4, "FF")] {
        let mut other = whole.clone();
        other[place] = Some(wrong.to_owned());
        assert_eq!(settings(&[other]), None, "{place} {wrong}");
    }
    let none = row(&[Some("1"), Some("414E53495F51554F544553"), Some("67626B"), Some("1"), None]);
    let found = settings(&[none]).expect("an answer");
    assert_eq!((found.charset, found.names, found.database), (Charset::Other, Names::Folded, None));
    assert_eq!(found.otherwise.as_deref(), Some("ANSI_QUOTES"));
}

#[test]
fn what_is_asked_has_its_own_limit_and_no_name_in_letters() {
    let errand =
        Errand::for_tables(vec![named("a_b'\\"), ("sh_op".to_owned(), "é".to_owned())]).expect("two");
    let text = errand.text();
    assert!(text.starts_with("SELECT 1, ") && text.ends_with(" LIMIT 1") && !text.contains("a_b"), "{text}");
    assert!(text.is_ascii() && !text.contains(['"', '\\', ';', '#']), "{text}");
    let pattern = hex::encode("sh\\_op");
    assert!(text.contains(&format!("IN (X'{}', X'{pattern}')", hex::encode("sh_op"))), "{text}");
    assert!(SETTINGS.ends_with(" LIMIT 1"));
    assert_eq!(Errand::for_tables(vec![named("v\u{1f600}")]), None, "the server has another letter for it");
    assert_eq!(Errand::for_tables((0..33).map(|place| named(&place.to_string())).collect()), None);
}
