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
    for (said, part) in
        [(&b"\xfeclient_ed25519\0aaaaaaaaaaaaaaaaaaaa\0"[..], "not spoken"), (b"\xfe", "without a name")]
    {
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
