use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

fn all() -> Detectors {
    Detectors::new(&Detector::WORDS.map(|(_, detector)| detector)).expect("the patterns are right")
}

#[track_caller]
fn finds(text: &str, value: &str, detector: Detector) {
    let hits = all().find(text.as_bytes());
    let found: Vec<_> = hits.iter().map(|hit| (&text[hit.range.clone()], hit.detector)).collect();
    assert_eq!(found, [(value, detector)], "{text}");
}

#[test]
fn values_are_found_where_they_stand() {
    use Detector::*;
    for (text, value, detector) in [
        ("write to bob.o'neil+x@mail.example.com.", "bob.o'neil+x@mail.example.com", Email),
        ("<mailto:jörg@münchen.de>", "jörg@münchen.de", Email),
        ("x=a@example.com.Please", "a@example.com", Email),
        ("card 4111 1111 1111 1111, thanks", "4111 1111 1111 1111", Card),
        ("3782-822463-10005", "3782-822463-10005", Card),
        ("card no 3522170430305486", "3522170430305486", Card),
        (r#"{"a": "x\n4111111111111111\n"}"#, "4111111111111111", Card),
        ("5555555555554444", "5555555555554444", Card),
        ("ssn=123-45-6789;", "123-45-6789", UsSsn),
        ("his social security number is 123456789", "123456789", UsSsn),
        ("call +49 30 901820 now", "+49 30 901820", Phone),
        ("+41 (0)27 240 04 99", "+41 (0)27 240 04 99", Phone),
        ("ring (415) 555-2671", "(415) 555-2671", Phone),
        ("415-555-2671x123", "415-555-2671x123", Phone),
        ("001-415-555-2671", "001-415-555-2671", Phone),
        ("07700 900 123", "07700 900 123", Phone),
        ("Mobile: 730 064 218", "730 064 218", Phone),
        ("8240084271 mobile", "8240084271", Phone),
        ("to DE89370400440532013000.", "DE89370400440532013000", Iban),
        ("DE89370400440532013000", "DE89370400440532013000", Iban),
        ("BE68539007547034", "BE68539007547034", Iban),
        ("GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32", Iban),
        ("from 192.168.7.11:80", "192.168.7.11", Ip),
        ("from 2001:db8::ff00:42:8329 on", "2001:db8::ff00:42:8329", Ip),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE", AwsKey),
        ("see https://www.example.com/a?b=1 there", "https://www.example.com/a?b=1", Url),
        ("postgres://u:hunter2@db/x y", "postgres://u:hunter2@db/x", UrlPassword),
        ("host=db password=hunter2 user=x", "password=hunter2", UrlPassword),
        ("{\"password=\": 1} password='a b c'", "password='a b c'", UrlPassword),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", Jwt),
    ] {
        finds(text, value, detector);
    }
    let github = format!("t: ghp_{}", "a1B2".repeat(9));
    finds(&github, &github[3..], ApiToken);
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----";
    finds(&format!("{key} x"), key, PrivateKey);
    finds(
        "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkq/w==",
        "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkq/w==",
        PrivateKey,
    );
}

#[test]
fn numbers_of_persons_are_found_by_their_check_digits() {
    for (good, bad) in [
        ("111.444.777-35", "111.444.777-36"),
        ("2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),
        ("756.9217.0769.85", "756.9217.0769.86"),
        ("RSSMRA85T10A562S", "RSSMRA85T10A562T"),
        ("X1234567L", "X1234567M"),
        ("12345678Z", "12345678A"),
        ("S1234567D", "S1234567E"),
        ("131052-308T", "131052-308U"),
        ("85.07.30-033.28", "85.07.30-033.29"),
        ("811228-9874", "811228-9875"),
        ("PESEL 44051401359", "PESEL 44051401358"),
        ("TCKN 10000000146", "TCKN 10000000147"),
        ("86 095 742 719", "86 095 742 718"),
        ("RSA ID 8001015009087", "RSA ID 8001015009088"),
        ("1-1017-00230-70-8", "1-1017-00230-70-9"),
        ("2341 2341 2346", "2341 2341 2347"),
        ("900101-1234568", "901301-1234568"),
        ("11010519491231002X", "11010519491231003X"),
        ("NHS 943 476 5919", "NHS 943 476 5918"),
        ("BSN 111222333", "BSN 111222334"),
        ("046 454 286", "046 454 287"),
        ("130972 48022", "130972 48023"),
        ("AB123456C", "AB123456E"),
        ("2123 45670 1", "2123 45671 1"),
    ] {
        let detectors = Detectors::new(&[Detector::NationalId]).expect("the words are right");
        assert_eq!(detectors.find(good.as_bytes()).len(), 1, "{good}");
        assert_eq!(detectors.find(bad.as_bytes()), [], "{bad}");
    }
}

#[test]
fn several_values_are_found_beside_each_other() {
    let hits = all().find(b"123-45-6789 4111111111111111 12 89bob@example.com");
    let found: Vec<_> = hits.iter().map(|hit| hit.detector).collect();
    assert_eq!(found, [Detector::UsSsn, Detector::Card, Detector::Email]);
}

#[test]
fn only_what_is_wanted_is_found() {
    let text =
        "a@example.com 4111111111111111 ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://example.com ::1";
    for (_, wanted) in Detector::WORDS {
        let detectors = Detectors::new(&[wanted]).expect("the patterns are right");
        assert!(detectors.find(text.as_bytes()).iter().all(|hit| hit.detector == wanted));
    }
    assert_eq!(Detectors::none().find(text.as_bytes()), []);
}

#[test]
fn what_only_looks_like_a_value_is_not_found() {
    let detectors = all();
    for text in [
        "2024-11-26 06:03:09.123456+00",
        "call back on 2024-11-26",
        "order 1234567890123456",
        "550e8400-e29b-41d4-a716-446655440000",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "version 10.4.2",
        "version 10.4.2.1",
        "000-12-3456",
        "a@b",
        "report@2024.finale",
        "4111111111111111222",
        "x4111111111111111",
        "4006381333931",
        "0.4111111111111111",
        "c4ddf9b7-5212-4818-8851-cda768a75df3",
        "05.53.18.69.64.11",
        "password=$1",
        "12:34:56",
        "{\"a\": [1, 2, 3], \"b\": null}",
        "ISO 9001:2015, pages 120-135",
    ] {
        assert_eq!(detectors.find(text.as_bytes()), [], "{text}");
    }
}

#[test]
fn one_level_of_encoding_is_looked_into() {
    let detectors = all();
    for text in [
        "MTIzLTQ1LTY3ODk=",
        "token=MTIzLTQ1LTY3ODk=",
        "3132332d34352d36373839",
        "626f62406578616d706c652e636f6d",
        "x \\x626f62406578616d706c652e636f6d",
        "Ym9iQGV4YW1wbGUuY29t",
    ] {
        assert_eq!(detectors.find(text.as_bytes()).len(), 1, "{text}");
    }
    let twice = "TVRJekxUUTFMVFkzT0RrPQ==";
    assert_eq!(detectors.find(twice.as_bytes()), [], "two levels are too many");
}

#[test]
fn time_is_bounded_whatever_the_text() {
    let detectors = all();
    for text in [
        "1 ".repeat(50_000),
        "a@".repeat(50_000),
        "a.b".repeat(30_000),
        "a.".repeat(30_000) + "@" + &"b.".repeat(30_000),
        "eyJ".repeat(30_000),
        "eyJ.".repeat(30_000),
        "A1:".repeat(30_000),
        "ghp_".repeat(30_000),
        "http://".repeat(30_000),
        "-----BEGIN PRIVATE KEY".repeat(5_000),
        "password=".repeat(20_000),
        "GB82".repeat(30_000),
    ] {
        let begun = std::time::Instant::now();
        detectors.find(text.as_bytes());
        assert!(begun.elapsed().as_secs() < 20, "{}", &text[..10]);
    }
}

/// What cells are made of: values, what stands around them, what only looks like one, and letters at random.
fn cell() -> impl Strategy<Value = String> {
    let values = prop::sample::select(vec![
        "4111 1111 1111 1111",
        "378282246310005",
        "123-45-6789",
        "415-555-2671",
        "001-415-555-2671",
        "1 415 555 2671",
        "+49 30 901820",
        "(415) 555-2671",
        "07700 900 123",
        "GB82 WEST 1234 5698 7654 32",
        "BE68539007547034",
        "MT84MALT011000012345MTLCAST001S",
        "192.168.7.11",
        "2001:db8::ff00:42:8329",
        "RSSMRA85T10A562S",
        "X1234567L",
        "12345678Z",
        "131052-308T",
        "85.07.30-033.28",
        "811228-9874",
        "AB123456C",
        "2 55 08 14 168 025 38",
        "756.9217.0769.85",
        "11010519491231002X",
        "86 095 742 719",
        "2341 2341 2346",
        "900101-1234568",
        "130972 48022",
        "1-1017-00230-70-8",
        "MTIzLTQ1LTY3ODk=",
        "Ym9iQGV4YW1wbGUuY29t",
        "3132332d34352d36373839",
        "ACCAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "-----BEGIN PRIVATE KEY",
        "bob@example.com",
    ]);
    let around = prop::sample::select(vec![
        "550e8400-e29b-41d4-a716-446655440000",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "2025-03-07 01:27:42",
        "0.43878924970938493",
        "/srv/although/recent/century.csv",
        "{\"id\": 918957, \"tags\": [\"a\"]}",
        "Phone: ",
        "call ",
        "ssn ",
        "card no ",
        "version ",
        "://",
        "::",
        "\\n",
        "é",
    ]);
    let letters =
        ["[0-9]{0,24}", "[0-9 ./()+-]{0,24}", "[0-9a-fA-F]{0,40}", "[ -~]{0,30}", "[A-Za-z0-9+/_-]{0,40}"];
    let letters = prop::sample::select(letters.to_vec()).prop_flat_map(|letters| letters);
    let part = prop_oneof![
        values.prop_map(str::to_owned),
        around.prop_map(str::to_owned),
        letters,
        prop::sample::select(vec![" ", "-", ".", ", ", "\"", ""]).prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..7).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_sieve_lets_pass_whatever_is_found_without_it(text in cell(), cut in 0_usize..200, byte: u8) {
        let detectors = ALL.get_or_init(all);
        let mut text = text.into_bytes();
        if let Some(place) = text.get_mut(cut) {
            *place = byte;
        } else {
            text.truncate(cut / 2);
        }
        prop_assert_eq!(detectors.find(&text), detectors.unsifted(&text), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn what_lets_an_anchor_count_may_stand_in_another_piece() {
    let text = br#"{"id": 918957, "tags": ["a"]} /0) -0-)/ -0+-----BEGIN PRIVATE KEY"#;
    let found = ALL.get_or_init(all).find(text);
    assert!(matches!(found.as_slice(), [hit] if hit.range == (43..65)), "{found:?}");
}

static ALL: OnceLock<Detectors> = OnceLock::new();

#[test]
fn the_sieve_says_of_most_cells_that_they_are_clean() {
    for text in [
        "ORD-0646792",
        "HTY-48480",
        "6278.95",
        "2025-03-07 01:27:42",
        "5f53f26c-939d-41dc-aeb1-08e2839aa6b0",
        "94452d54f985f8f78d1d38af2c62ca9736d2c79aaeabbca926a068f9c1a2a0d5",
        "28.0.2020.106",
        "/srv/although/recent/century.csv",
        "Have recognize benefit out.",
        "136x42x109",
        "1741640292686",
        "1434565152567528371",
        "INV-2020-554582",
        "0.43878924970938493",
        "-67.259150, -151.145456",
        "{\"id\": 918957, \"tags\": [\"method\", \"office\"], \"ok\": true, \"at\": \"2025-01-11T10:36:06\"}",
    ] {
        assert!(sieve::is_clean(text.as_bytes(), || false), "{text}");
    }
}
