use bytes::{BufMut as _, Bytes, BytesMut};
use interceptor_core::{
    mask::Mask,
    model::Principal,
    permit::Held,
    protocol::{
        CancelKey, Challenge, Decoder as _, Greeting, Inspection, Login as _, LoginStep, Opening, Proof,
        Side, Step, UpstreamTls,
    },
};
use zeroize::Zeroizing;

use super::{COLLATION, UTF8, decode::MysqlDecoder, frame::packet, login::MysqlLogin, words};

fn login(tls: UpstreamTls) -> MysqlLogin {
    let principal =
        Principal { user: "app".to_owned(), claimed_user: "x".to_owned(), database: "shop".to_owned() };
    let opening = Opening {
        held: Held::new(0, Vec::new(), Bytes::new()),
        claimed: principal.clone(),
        parameters: vec![(COLLATION.to_owned(), UTF8.to_string())],
        version: words::capability::OF_SESSION,
        then: Inspection::Full,
    };
    MysqlLogin::new(&principal, &opening, tls)
}

fn input(packets: &[Bytes]) -> BytesMut {
    BytesMut::from(&*packets.concat())
}

fn answer(login: &mut MysqlLogin, secret: &[u8]) -> Bytes {
    match login.prove(Proof::Response(Zeroizing::new(secret.to_vec()))) {
        Ok(LoginStep::Send(bytes)) => bytes,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_log_in_follows_the_server_to_another_plugin_once() {
    let mut login = login(UpstreamTls::Plaintext);
    let step = login.step(&mut input(&[words::greeting()]));
    assert!(
        matches!(step, Ok(LoginStep::Prove(Challenge::MysqlNative { scramble })) if &scramble == b"interceptor-scramble")
    );
    let sent = answer(&mut login, b"first");
    assert_eq!(sent.get(3), Some(&1));
    assert!(sent.windows(9).any(|part| part == b"app\0\x05firs".get(..9).unwrap_or_default()), "{sent:?}");
    assert!(sent.windows(5).any(|part| part == b"shop\0"));
    let switch = |sequence| packet(sequence, b"\xfecaching_sha2_password\0aaaaaaaaaaaaaaaaaaaa\0");
    let step = login.step(&mut input(&[switch(2)]));
    assert!(
        matches!(step, Ok(LoginStep::Prove(Challenge::CachingSha2 { scramble })) if scramble == [b'a'; 20])
    );
    assert_eq!(answer(&mut login, b"second"), packet(3, b"second"));
    assert!(login.step(&mut input(&[switch(4)])).is_err());
}

#[test]
fn the_password_itself_and_everything_else_wants_tls() {
    let mut plain = login(UpstreamTls::Plaintext);
    assert!(matches!(plain.step(&mut input(&[words::greeting()])), Ok(LoginStep::Prove(_))));
    let _ = answer(&mut plain, b"first");
    let full = [packet(2, b"\xfecaching_sha2_password\0aaaaaaaaaaaaaaaaaaaa\0")];
    assert!(matches!(plain.step(&mut input(&full)), Ok(LoginStep::Prove(_))));
    let _ = answer(&mut plain, b"second");
    assert!(plain.step(&mut input(&[packet(4, &[1, 4])])).is_err());

    let mut secured = login(UpstreamTls::Required);
    let Ok(LoginStep::Send(request)) = secured.step(&mut input(&[words::greeting()])) else { unreachable!() };
    assert_eq!(request.len(), 36, "SSLRequest, and nothing of who we are");
    assert!(secured.step(&mut input(&[packet(2, b"early")])).is_err());
    let mut without = BytesMut::from(&*words::greeting());
    // The lower capabilities stand behind the version, the thread and half of the scramble.
    let at = 4 + 1 + "5.7.0-interceptor".len() + 1 + 4 + 8 + 1;
    if let Some(byte) = without.get_mut(at + 1) {
        *byte &= !8;
    }
    assert!(login(UpstreamTls::Required).step(&mut without).is_err());
}

#[test]
fn other_plugins_and_errors_are_told_in_words() {
    for (said, part) in [
        (
            &b"\xfeclient_ed25519\0aaaaaaaaaaaaaaaaaaaa\0"[..],
            "not spoken; give the user mysql_native_password",
        ),
        (b"\xfemysql_clear_password\0", "not spoken"),
        (b"\xfedialog\0aaaaaaaaaaaaaaaaaaaa\0", "not spoken"),
        (b"\xfemysql_old_password\0aaaaaaaa\0", "not spoken"),
        (b"\xfeauth_gssapi_client\0x\0", "not spoken"),
        (b"\xfemysql_native_password\0short\0", "too short"),
        (b"\xfe", "without a name"),
        (b"\x01\x04", "out of place"),
        (b"\x02more", "out of place"),
        (b"", "malformed"),
    ] {
        let mut login = login(UpstreamTls::Plaintext);
        assert!(matches!(login.step(&mut input(&[words::greeting()])), Ok(LoginStep::Prove(_))));
        let _ = answer(&mut login, b"first");
        let error = login.step(&mut input(&[packet(2, said)])).expect_err("refused");
        assert!(error.what.contains(part), "{error}");
    }
    let mut login = login(UpstreamTls::Plaintext);
    let refused = login.step(&mut input(&[packet(0, b"\xff\x10\x04Too many connections")]));
    assert!(matches!(refused, Ok(LoginStep::Refused { code, .. }) if code == "1040 (HY000)"));
}

fn session() -> MysqlDecoder {
    let mut decoder = MysqlDecoder::default();
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let _ = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::new() });
    decoder
}

#[test]
fn what_is_not_spoken_goes_nowhere() {
    for command in [0x04, 0x05, 0x07, 0x08, 0x0c, 0x11, 0x12, 0x15, 0x1b, 0x1c, 0x1e, 0xfe] {
        let step = session().step(Side::Client, &mut input(&[packet(0, &[command, 0, 0])]));
        assert!(matches!(step, Ok(Step::Reply(_))), "{command:#x}: {step:?}");
    }
    let long = [0xff, 0xff, 0xff, 0, 3];
    assert!(session().step(Side::Client, &mut BytesMut::from(&long[..])).is_err());
    assert!(session().step(Side::Client, &mut input(&[packet(1, b"\x03SELECT 1")])).is_err());
}

#[test]
fn a_file_is_never_sent_and_nothing_is_shown_that_would_be_masked() {
    let mut decoder = session();
    let ask = |decoder: &mut MysqlDecoder| match decoder
        .step(Side::Client, &mut input(&[packet(0, b"\x02shop")]))
    {
        Ok(Step::Ask(held)) => held.number(),
        other => unreachable!("{other:?}"),
    };
    let number = ask(&mut decoder);
    decoder.sent(number, Mask::Nothing);
    let mut wants = BytesMut::new();
    wants.put_slice(&packet(1, b"\xfb/etc/passwd"));
    assert!(decoder.step(Side::Upstream, &mut wants).is_err());
    let mut decoder = session();
    assert!(
        decoder.step(Side::Upstream, &mut input(&[packet(1, &[0, 0, 0, 2, 0, 0, 0])])).is_err(),
        "nothing was asked"
    );
}

/// Protocol::HandshakeResponse41 with these capabilities.
fn response(sequence: u8, capabilities: u32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(capabilities);
    out.put_u32_le(1 << 24);
    out.put_u8(UTF8);
    out.put_bytes(0, 23);
    out.put_slice(b"root\0\x03abcshop\0mysql_native_password\0");
    packet(sequence, &out)
}

/// SSLRequest.
fn request() -> Bytes {
    packet(1, response(1, TAKEN | words::capability::SSL).get(4..36).unwrap_or_default())
}

const TAKEN: u32 = words::capability::LONG_PASSWORD
    | words::capability::CONNECT_WITH_DB
    | words::capability::PROTOCOL_41
    | words::capability::SECURE_CONNECTION
    | words::capability::PLUGIN_AUTH;

fn greeted() -> MysqlDecoder {
    let mut decoder = MysqlDecoder::default();
    let step = decoder.step(Side::Client, &mut BytesMut::new());
    assert!(matches!(step, Ok(Step::Reply(bytes)) if bytes == words::greeting()));
    // `mariadb` kills by it on an interrupt, and no session has this number.
    let number = b"5.7.0-interceptor\0\0\0\0\0";
    assert!(words::greeting().windows(number.len()).any(|part| part == number));
    decoder
}

#[test]
fn a_client_takes_no_more_than_it_was_offered() {
    // LOCAL INFILE, several statements, session tracking, answers without EOF, optional metadata, query attributes.
    for extension in [1 << 7, 1 << 16, 1 << 23, 1 << 24, 1 << 25, 1 << 27] {
        let mut decoder = greeted();
        let step = decoder.step(Side::Client, &mut input(&[response(1, TAKEN | extension)]));
        let Ok(Step::Open(opening)) = step else { unreachable!("{extension:#x}: {step:?}") };
        assert_eq!(opening.version & extension, 0, "{extension:#x}");
        assert_eq!(
            (opening.claimed.claimed_user.as_str(), opening.claimed.database.as_str()),
            ("root", "shop")
        );
        let mut login = MysqlLogin::new(&Principal::default(), &opening, UpstreamTls::Plaintext);
        assert!(matches!(login.step(&mut input(&[words::greeting()])), Ok(LoginStep::Prove(_))));
        let sent = answer(&mut login, b"proof");
        let taken = sent.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        assert_eq!(taken.map(|taken| taken & extension), Some(0), "{extension:#x} goes to no server");
    }
    for compression in [1 << 5, 1 << 26] {
        let mut decoder = greeted();
        let error = decoder.step(Side::Client, &mut input(&[response(1, TAKEN | compression)]));
        assert!(error.expect_err("refused").what.contains("turn it off"));
        let word = decoder.farewell(&denial());
        assert_eq!(word.get(3..5), Some(&[2, 0xff][..]), "an error that the client expects next");
    }
}

fn denial() -> interceptor_core::permit::Denial {
    let (rule, message, hint) = ("r".to_owned(), "no".to_owned(), "stop".to_owned());
    interceptor_core::permit::Denial { record: None, rule, message, hint }
}

#[test]
fn a_client_begins_tls_once_and_logs_in_inside() {
    let mut decoder = greeted();
    let mut bytes = input(&[request(), Bytes::from_static(b"\x16\x03\x01")]);
    assert!(matches!(decoder.step(Side::Client, &mut bytes), Ok(Step::StartTls(bytes)) if bytes.is_empty()));
    assert_eq!(&*bytes, b"\x16\x03\x01", "what follows is TLS's own");
    let step = decoder.step(Side::Client, &mut input(&[response(2, TAKEN | words::capability::SSL)]));
    assert!(matches!(step, Ok(Step::Open(_))));
    let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
    let ok = decoder.opened(&greeting, &CancelKey { process: 1, secret: Bytes::new() });
    assert_eq!(ok.get(3..5), Some(&[3, 0][..]));

    let mut decoder = greeted();
    assert!(matches!(decoder.step(Side::Client, &mut input(&[request()])), Ok(Step::StartTls(_))));
    let again = packet(2, request().get(4..).unwrap_or_default());
    assert!(decoder.step(Side::Client, &mut input(&[again])).is_err());
    for wrong in [response(0, TAKEN), response(2, TAKEN), packet(1, b""), packet(1, b"\x85\xa6\0\0\0root\0")]
    {
        assert!(greeted().step(Side::Client, &mut input(&[wrong])).is_err());
    }
    assert!(greeted().step(Side::Client, &mut BytesMut::from(&[0xff, 0xff, 0xff, 1][..])).is_err());
}

#[test]
fn a_log_in_goes_through_both_ways_of_caching_sha2() {
    let switch = packet(2, b"\xfecaching_sha2_password\0aaaaaaaaaaaaaaaaaaaa\0");
    let fast = [packet(4, &[1, 3]), packet(5, &[0, 0, 0, 2, 0, 0, 0])];
    let mut login = login(UpstreamTls::Plaintext);
    assert!(matches!(login.step(&mut input(&[words::greeting()])), Ok(LoginStep::Prove(_))));
    let _ = answer(&mut login, b"first");
    assert!(matches!(login.step(&mut input(std::slice::from_ref(&switch))), Ok(LoginStep::Prove(_))));
    let _ = answer(&mut login, b"second");
    let Ok(LoginStep::Ready(greeting)) = login.step(&mut input(&fast)) else { unreachable!() };
    assert_eq!(
        greeting.parameters,
        [("status".to_owned(), "2".to_owned())],
        "clients are told of AUTOCOMMIT"
    );

    let mut login = self::login(UpstreamTls::Required);
    assert!(matches!(login.step(&mut input(&[words::greeting()])), Ok(LoginStep::Send(_))));
    assert!(matches!(login.step(&mut BytesMut::new()), Ok(LoginStep::StartTls)));
    assert!(matches!(login.step(&mut BytesMut::new()), Ok(LoginStep::Prove(_))));
    assert_eq!(answer(&mut login, b"first").get(3), Some(&2), "behind SSLRequest");
    let switch = packet(3, switch.get(4..).unwrap_or_default());
    assert!(matches!(login.step(&mut input(&[switch])), Ok(LoginStep::Prove(_))));
    let _ = answer(&mut login, b"second");
    let full = login.step(&mut input(&[packet(5, &[1, 4])]));
    assert!(matches!(full, Ok(LoginStep::Prove(Challenge::CachingSha2Full))));
    assert_eq!(answer(&mut login, b"password\0"), packet(6, b"password\0"));
    let done = login.step(&mut input(&[packet(7, &[0, 0, 0, 2, 0, 0, 0])]));
    assert!(matches!(done, Ok(LoginStep::Ready(_))));
}

#[test]
fn a_log_in_out_of_sequence_or_without_what_was_taken_is_an_error() {
    let mut early = login(UpstreamTls::Plaintext);
    assert!(early.step(&mut input(&[packet(1, words::greeting().get(4..).unwrap_or_default())])).is_err());
    let mut late = login(UpstreamTls::Plaintext);
    assert!(matches!(late.step(&mut input(&[words::greeting()])), Ok(LoginStep::Prove(_))));
    assert!(late.prove(Proof::Accepted).is_err(), "nothing is sent that is no proof");
    let _ = answer(&mut late, b"first");
    assert!(late.step(&mut input(&[packet(3, &[0, 0, 0, 2, 0, 0, 0])])).is_err());
    let mut old = words::greeting().to_vec();
    if let Some(version) = old.get_mut(4) {
        *version = 9;
    }
    assert!(login(UpstreamTls::Plaintext).step(&mut BytesMut::from(&*old)).is_err());
}
