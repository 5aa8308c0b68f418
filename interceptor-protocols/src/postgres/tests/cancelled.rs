//! A cancel request or a timeout of the client's that hits our look-up was meant for the client's statement.

use super::*;

/// The server's error to whatever was cancelled.
const CANCELED: &str = "57014";

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|there| there == part.as_bytes())
}

/// What the client sends is looked up, and that is cancelled outside of a pipeline.
fn cancelled(decoder: &mut PostgresDecoder, bytes: &[u8], status: u8) -> Held {
    let Step::Enquire(held) = client(decoder, bytes) else { panic!("a look-up") };
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let (said, done) = upstream(decoder, &[error(CANCELED), ready(status)].concat());
    assert!(said.is_empty(), "the client sees nothing of it");
    assert_eq!((done[0].status, done[0].code.as_deref()), (OutcomeStatus::Failed, Some(CANCELED)));
    let held = asked(decoder, b"");
    assert!(why(&held.actions()[0]).contains("could not be looked up"));
    held
}

fn parse(text: &str) -> Bytes {
    message(b'P', |out| {
        put_text(out, "a");
        put_text(out, text);
        out.put_u16(0);
    })
}

#[test]
fn a_refused_query_is_cancelled_to_the_client() {
    let mut decoder = session();
    let held = cancelled(&mut decoder, &query("SELECT * FROM t"), b'I');
    let refusal = decoder.refuse(held.number(), &denial());
    assert!(refusal.upstream.is_empty());
    assert_eq!(refusal.client, [error(CANCELED), ready(b'I')].concat());
    assert!(decoder.is_idle());
    // The next one is asked about anew, and a refusal of it is one.
    let held = asked(&mut decoder, &query("VACUUM"));
    assert!(has(&decoder.refuse(held.number(), &denial()).client, "42501"));
}

#[test]
fn a_permitted_query_is_not_carried_out_either() {
    let mut decoder = session();
    let text = "SELECT * FROM t";
    let held = cancelled(&mut decoder, &query(text), b'E');
    assert_eq!(held.actions()[0].text, text, "what the client wrote is recorded");
    decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
    let (said, done) = upstream(&mut decoder, &[error("25P02"), ready(b'E')].concat());
    assert_eq!(said, [error(CANCELED), ready(b'E')].concat());
    assert_eq!(done.iter().map(|done| done.status).collect::<Vec<_>>(), [OutcomeStatus::Failed]);
}

#[test]
fn a_parse_fails_upstream_and_its_pipeline_with_it() {
    for permitted in [true, false] {
        let mut decoder = session();
        let held = cancelled(&mut decoder, &parse("SELECT * FROM t"), b'I');
        if permitted {
            decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        } else {
            let refusal = decoder.refuse(held.number(), &denial());
            assert!(refusal.client.is_empty() && has(&refusal.upstream, "interceptor: refused"));
        }
        assert!(matches!(client(&mut decoder, &message(b'S', |_| {})), Step::Pass(_)));
        let (said, _) = upstream(&mut decoder, &[error("42601"), ready(b'I')].concat());
        assert_eq!(said, [error(CANCELED), ready(b'I')].concat());
        assert!(decoder.is_idle());
    }
}

#[test]
fn inside_a_pipeline_the_client_is_told_once() {
    for permitted in [true, false] {
        let mut decoder = session();
        let held = asked(&mut decoder, &parse("SELECT 1"));
        decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let Step::Enquire(held) = client(&mut decoder, &parse("SELECT * FROM t")) else {
            panic!("a look-up")
        };
        decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        let (said, _) = upstream(&mut decoder, &[message(b'1', |_| {}), error(CANCELED)].concat());
        let held = asked(&mut decoder, b"");
        let mut all = said.to_vec();
        if permitted {
            decoder.sent(held.number(), interceptor_core::mask::Mask::Nothing);
        } else {
            all.extend(decoder.refuse(held.number(), &denial()).client);
        }
        assert!(matches!(client(&mut decoder, &message(b'S', |_| {})), Step::Pass(_)));
        loop {
            let (said, _) = upstream(&mut decoder, b"");
            if said.is_empty() {
                break;
            }
            all.extend(said);
        }
        all.extend(upstream(&mut decoder, &ready(b'I')).0);
        assert_eq!(
            all,
            [message(b'1', |_| {}), error(CANCELED), ready(b'I')].concat(),
            "permitted: {permitted}"
        );
        assert!(decoder.is_idle());
    }
}
