//! What a statement costs the relay that has seen its like before, in numbers that no other load on the machine
//! changes: allocations.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use interceptor_core::{Side, Step, catalogue::Catalogue, protocol::Greeting};
use tokio::net::TcpStream;

use super::{
    budget::{Budget, Cancelling},
    registry::{OpenSession, Registry},
    relay::{End, Legs, Relay, fresh_key},
    turns::Turn,
};
use crate::gate::{
    Durability, Ledger, SessionGate, Subject,
    tests::{Bed, Guess, session},
};

/// How many exchanges make it warm, and how many are counted.
const EACH: u64 = 40;

/// The system's allocator, which counts what the threads under watch ask of it.
struct Counting;

static COUNTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is the system allocator's own doing; counting touches no memory of the caller's and allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.try_with(Cell::get) == Ok(true) {
            COUNTED.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.put_u32(u32::try_from(body.len() + 4).unwrap());
    frame.extend_from_slice(body);
    frame
}

/// Two ends of a connection.
fn pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    one.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (one, listener.accept().unwrap().0)
}

fn relayed(stream: std::net::TcpStream) -> TcpStream {
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

/// One relay is counted at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Serves statements over a relay on this thread while `drive` plays both peers on another.
fn relay(drive: impl FnOnce(std::net::TcpStream, std::net::TcpStream) + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = Bed::new(Durability::Process);
    let (client, near) = pair();
    let (upstream, far) = pair();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let driver = thread::spawn(move || drive(client, upstream));
    let end = runtime.block_on(async {
        let mut decoder = interceptor_protocols::find("postgres").unwrap().open(
            Arc::new(Catalogue::new(|| 0)),
            interceptor_core::mask::Labelled::nothing("r"),
            interceptor_core::mask::Tokens::default(),
        );
        let mut start = BytesMut::new();
        let wish = b"\x00\x03\x00\x00user\0app\0database\0orders\0client_encoding\0UTF8\0\0";
        start.put_u32(u32::try_from(wish.len() + 4).unwrap());
        start.extend_from_slice(wish);
        let step = decoder.step(Side::Client, &mut start).unwrap();
        assert!(matches!(step, Step::Open(_)), "{step:?}");
        let greeting = Greeting { bytes: Bytes::new(), parameters: Vec::new(), cancel: None };
        decoder.opened(&greeting, &fresh_key(None).unwrap());
        let session = session();
        let subject = Arc::new(Subject::of_session(&session));
        let registry = Arc::new(Registry::default());
        let shown = OpenSession {
            connection: session.connection.id,
            run: session.connection.run.id,
            resource: session.resource.clone(),
            since: 0,
        };
        let (_registered, told) = registry.register(shown, subject.clone(), Vec::new());
        let gate = Arc::new(SessionGate::new(bed.gate.clone(), subject.clone(), Arc::new(Guess)));
        let ledger = Ledger::new(bed.gate.producer().clone());
        let legs = Legs {
            client: relayed(near).into(),
            client_input: BytesMut::new(),
            upstream: relayed(far).into(),
            upstream_input: BytesMut::new(),
        };
        let turn = Turn::default();
        let nothing = || -> Cancelling { Box::pin(std::future::ready(())) };
        let budget = Budget::new(bed.gate.clone(), subject, Box::new(nothing));
        WATCHED.set(true);
        let end = Relay { gate, ledger, turn: &turn, budget }.run(decoder, legs, told).await;
        WATCHED.set(false);
        end
    });
    driver.join().unwrap();
    assert!(matches!(end, End::Closed), "{end:?}");
}

/// Sends a question as often as it takes, each time with its answer, and gives how many allocations one is.
fn counted(peers: &mut (std::net::TcpStream, std::net::TcpStream), question: &[u8], answer: &[u8]) -> u64 {
    let mut exchange = || {
        let (client, upstream) = &mut *peers;
        client.write_all(question).unwrap();
        let mut got = vec![0; question.len()];
        upstream.read_exact(&mut got).unwrap();
        assert_eq!(got, question);
        upstream.write_all(answer).unwrap();
        let mut got = vec![0; answer.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, answer);
    };
    // As many as the journal has room for: no keeper takes anything away.
    (0..EACH).for_each(|_| exchange());
    let before = COUNTED.load(Ordering::Relaxed);
    (0..EACH).for_each(|_| exchange());
    (COUNTED.load(Ordering::Relaxed) - before).div_ceil(EACH)
}

#[test]
fn a_statement_that_was_seen_before_allocates_nothing() {
    relay(|client, upstream| {
        let answer = [
            frame(b'T', b"\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
            frame(b'D', b"\0\x01\0\0\0\x011"),
            frame(b'C', b"SELECT 1\0"),
            frame(b'Z', b"I"),
        ];
        let each = counted(&mut (client, upstream), &frame(b'Q', b"SELECT 1\0"), &answer.concat());
        assert_eq!(each, 0, "allocations for a statement");
    });
}

#[test]
fn a_prepared_statement_allocates_nothing() {
    // The name as a driver makes it up; one parameter, an int4, as text or binary; results in one format for all.
    let bind = |format: u8, value: &[u8]| {
        let mut body = b"\0__asyncpg_stmt_12__\0\0\x01\0".to_vec();
        body.put_u8(format);
        body.put_u16(1);
        body.put_u32(u32::try_from(value.len()).unwrap());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\0\x01\0\x01");
        frame(b'B', &body)
    };
    let binds = [
        frame(b'B', b"\0__asyncpg_stmt_12__\0\0\0\0\x01\0\0\0\x0242\0\0"),
        bind(0, b"1234567"),
        bind(1, &[0, 1, 2, 3]),
    ];
    for bind in binds {
        relay(move |client, upstream| {
            let mut peers = (client, upstream);
            let prepare = frame(b'P', b"__asyncpg_stmt_12__\0SELECT $1\0\0\x01\0\0\0\x17");
            let prepared = [frame(b'1', b""), frame(b'Z', b"I")].concat();
            counted(&mut peers, &[prepare, frame(b'S', b"")].concat(), &prepared);
            let question = [bind, frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")];
            let answer = [
                frame(b'2', b""),
                frame(b'D', b"\0\x01\0\0\0\x011"),
                frame(b'C', b"SELECT 1\0"),
                frame(b'Z', b"I"),
            ];
            let each = counted(&mut peers, &question.concat(), &answer.concat());
            assert_eq!(each, 0, "allocations for a statement");
        });
    }
}
