//! The relay between two in-memory streams, with a protocol of lines and a gate that can be kept waiting.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;
use interceptor_core::{
    Client, Notice, Terms,
    model::{OutcomeStatus, RecordId, Spent},
    protocol::{Done, Greeting, Refusal, Stopped},
};
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    gate::{
        Durability, SessionGate, Subject,
        tests::{Bed, Guess, held, session},
    },
    proxy::{
        budget::Cancelling,
        registry::{OpenSession, Registered, Registry},
    },
};

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(150);

/// Lines. `p...` passes, `e...` is a look-up of its own, `x` says goodbye, any other is asked; each that is sent is
/// answered by one line, and `bye` is the upstream's last.
#[derive(Default)]
struct Lines {
    waiting: bool,
    left: bool,
    scanned: usize,
    exchanges: u64,
    own: bool,
    owed: VecDeque<(u64, bool)>,
}

fn line(input: &mut BytesMut, from: usize) -> Option<Bytes> {
    let end = input[from..].iter().position(|byte| *byte == b'\n')?;
    Some(input.split_to(from + end + 1).freeze())
}

impl Decoder for Lines {
    fn step(&mut self, side: Side, input: &mut BytesMut) -> Result<Step, DecodeError> {
        if side == Side::Upstream {
            let Some(line) = line(input, 0) else { return Ok(Step::Wait) };
            if line.starts_with(b"bye") {
                return Ok(Step::Close(line));
            }
            let Some((exchange, own)) = self.owed.pop_front() else { return Ok(Step::Pass(line)) };
            if own {
                self.waiting = false;
            }
            let done = Done {
                exchange,
                place: 0,
                status: OutcomeStatus::Completed,
                rows: None,
                bytes: 0,
                code: None,
                message: None,
                recorded: None,
            };
            return Ok(Step::Answer { bytes: if own { Bytes::new() } else { line }, done: [done].into() });
        }
        if self.waiting || self.left {
            return Ok(Step::Wait);
        }
        let Some(line) = line(input, self.scanned) else {
            self.scanned = input.len();
            return Ok(Step::Wait);
        };
        self.scanned = 0;
        if line[0] == b'p' {
            return Ok(Step::Pass(line));
        }
        if line[0] == b'x' {
            self.left = true;
            return Ok(Step::Close(line));
        }
        self.waiting = true;
        self.exchanges += 1;
        let text = std::str::from_utf8(&line).unwrap();
        let held = held(self.exchanges, &[&text[..text.len().min(20)]], text);
        self.own = line[0] == b'e';
        Ok(if self.own { Step::Enquire(held) } else { Step::Ask(held) })
    }

    fn opened(&mut self, _: &Greeting, _: &CancelKey) -> Bytes {
        Bytes::new()
    }

    fn record_rows(&mut self, _: Arc<interceptor_core::mask::Hiding>) {}

    fn recorded(&mut self, _: u64, _: RecordId) {}

    fn sent(&mut self, number: u64, _: interceptor_core::mask::Mask) {
        self.waiting = self.own;
        self.owed.push_back((number, self.own));
    }

    fn refuse(&mut self, _: u64, denial: &Denial) -> Refusal {
        self.waiting = false;
        Refusal { client: format!("refused {}\n", denial.rule).into(), upstream: Bytes::new() }
    }

    fn enclose(&mut self, number: u64, _: Terms) {
        self.again(number);
    }

    fn again(&mut self, _: u64) {
        self.waiting = false;
    }

    fn notice(&mut self, notice: &Notice) -> Option<Bytes> {
        Some(format!("notice {}\n", notice.message).into())
    }

    fn passed(&mut self) -> Spent {
        Spent::default()
    }

    fn allow(&mut self, _: Spent) {}

    fn stop(&mut self, _: &Denial) -> Stopped {
        Stopped { client: Bytes::new(), done: None }
    }

    fn farewell(&mut self, denial: &Denial) -> Bytes {
        format!("farewell {}\n", denial.rule).into()
    }

    fn is_idle(&self) -> bool {
        self.owed.is_empty()
    }
}

/// A gate that judges when it is let.
struct Slow {
    gate: SessionGate,
    leave: Semaphore,
}

impl Gate for Slow {
    fn judge_now(&self, _: &Held, _: Author) -> Option<Verdict> {
        None
    }

    fn judge<'a>(&'a self, held: &'a Held, author: Author, client: &'a dyn Client) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            self.leave.acquire().await.unwrap().forget();
            self.gate.judge(held, author, client).await
        })
    }
}

struct Rig {
    client: DuplexStream,
    upstream: DuplexStream,
    gate: Arc<Slow>,
    registry: Arc<Registry>,
    _registered: Registered,
    relay: JoinHandle<End>,
    bed: Bed,
}

impl Rig {
    /// A relay whose gate will judge `leaves` exchanges.
    fn new(leaves: usize) -> Self {
        let bed = Bed::new(Durability::Process);
        let session = session();
        let subject = Arc::new(Subject::of_session(&session));
        let gate = SessionGate::new(bed.gate.clone(), subject.clone(), Arc::new(Guess));
        let gate = Arc::new(Slow { gate, leave: Semaphore::new(leaves) });
        let registry = Arc::new(Registry::default());
        let shown = OpenSession {
            connection: session.connection.id,
            run: session.connection.run.id,
            resource: session.resource.clone(),
            since: 0,
        };
        let (registered, told) = registry.register(shown, subject.clone(), Vec::new());
        let (client, near) = duplex(4096);
        let (upstream, far) = duplex(4096);
        let legs = Legs {
            client: Stream::other(near),
            client_input: BytesMut::new(),
            upstream: Stream::other(far),
            upstream_input: BytesMut::new(),
        };
        let ledger = Ledger::new(bed.gate.producer().clone());
        let judge: Arc<dyn Gate> = gate.clone();
        let nothing = || -> Cancelling { Box::pin(std::future::ready(())) };
        let budget = Budget::new(bed.gate.clone(), subject, Box::new(nothing));
        let relay = tokio::spawn(async move {
            let turn = Turn::default();
            let relay = Relay { gate: judge, ledger, turn: &turn, budget };
            relay.run(Box::new(Lines::default()), legs, told).await
        });
        Self { client, upstream, gate, registry, _registered: registered, relay, bed }
    }

    async fn end(&mut self) -> End {
        timeout(SOON, &mut self.relay).await.unwrap().unwrap()
    }

    fn statuses(&self) -> Vec<OutcomeStatus> {
        self.bed.outcomes().into_iter().map(|(_, status, _)| status).collect()
    }
}

async fn expect(stream: &mut DuplexStream, text: &str) {
    let mut got = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&got), text);
}

async fn expect_nothing(stream: &mut DuplexStream) {
    assert!(timeout(NEVER, stream.read_u8()).await.is_err(), "something came");
}

async fn expect_end(stream: &mut DuplexStream) {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_waits_for_its_permit() {
    let mut rig = Rig::new(0);
    rig.client.write_all(b"a\nb\n").await.unwrap();
    expect_nothing(&mut rig.upstream).await;
    rig.gate.leave.add_permits(1);
    expect(&mut rig.upstream, "a\n").await;
    expect_nothing(&mut rig.upstream).await;
    rig.upstream.write_all(b"1\n").await.unwrap();
    expect(&mut rig.client, "1\n").await;
    drop(rig.upstream);
    rig.upstream = duplex(1).0;
    assert!(matches!(rig.end().await, End::Closed));
    assert_eq!(rig.statuses(), [OutcomeStatus::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_sends_nothing_and_the_session_goes_on() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"no\na\n").await.unwrap();
    expect(&mut rig.client, "refused no-deletes\n").await;
    expect(&mut rig.upstream, "a\n").await;
    rig.relay.abort();
    assert!((&mut rig.relay).await.unwrap_err().is_cancelled());
    assert_eq!(rig.statuses(), [OutcomeStatus::Refused, OutcomeStatus::Unknown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_holds_the_client_until_it_is_answered() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"eno\na\n").await.unwrap();
    expect(&mut rig.upstream, "eno\n").await;
    expect_nothing(&mut rig.upstream).await;
    rig.upstream.write_all(b"1\n").await.unwrap();
    expect(&mut rig.upstream, "a\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_amid_an_answer_leaves_unknown() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"a\nb\n").await.unwrap();
    expect(&mut rig.upstream, "a\nb\n").await;
    rig.upstream.write_all(b"1\nhalf").await.unwrap();
    rig.upstream.shutdown().await.unwrap();
    expect(&mut rig.client, "1\n").await;
    expect_end(&mut rig.client).await;
    assert!(matches!(rig.end().await, End::Closed));
    assert_eq!(rig.statuses(), [OutcomeStatus::Completed, OutcomeStatus::Unknown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstreams_last_word_ends_it() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"a\n").await.unwrap();
    expect(&mut rig.upstream, "a\n").await;
    rig.upstream.write_all(b"bye\nmore\n").await.unwrap();
    expect(&mut rig.client, "bye\n").await;
    expect_end(&mut rig.client).await;
    assert!(matches!(rig.end().await, End::Closed));
    assert_eq!(rig.statuses(), [OutcomeStatus::Unknown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_still_gets_what_it_asked() {
    let mut rig = Rig::new(0);
    rig.client.write_all(b"a\n").await.unwrap();
    rig.client.shutdown().await.unwrap();
    expect_nothing(&mut rig.upstream).await;
    rig.gate.leave.add_permits(1);
    expect(&mut rig.upstream, "a\n").await;
    expect_end(&mut rig.upstream).await;
    rig.upstream.write_all(b"1\n").await.unwrap();
    rig.upstream.shutdown().await.unwrap();
    expect(&mut rig.client, "1\n").await;
    assert!(matches!(rig.end().await, End::Closed));
    assert_eq!(rig.statuses(), [OutcomeStatus::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_does_not_cut_off_answers() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"a\nx\nignored\n").await.unwrap();
    expect(&mut rig.upstream, "a\nx\n").await;
    expect_end(&mut rig.upstream).await;
    rig.upstream.write_all(b"1\n").await.unwrap();
    rig.upstream.shutdown().await.unwrap();
    expect(&mut rig.client, "1\n").await;
    assert!(matches!(rig.end().await, End::Closed));
    assert_eq!(rig.statuses(), [OutcomeStatus::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_ends_and_sends_nothing_more() {
    let mut rig = Rig::new(0);
    rig.client.write_all(b"a\n").await.unwrap();
    expect_nothing(&mut rig.upstream).await;
    rig.registry.end_all(&Ending::Killed);
    rig.registry.end_all(&Ending::Stopping);
    rig.gate.leave.add_permits(9);
    let mut word = [0; 9];
    timeout(SOON, rig.client.read_exact(&mut word)).await.unwrap().unwrap();
    assert_eq!(&word, b"farewell ");
    expect_end(&mut rig.upstream).await;
    assert!(matches!(rig.end().await, End::Told(_)));
    assert_eq!(rig.statuses(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_before_the_daemon_stops() {
    let mut rig = Rig::new(9);
    rig.client.write_all(b"a\n").await.unwrap();
    expect(&mut rig.upstream, "a\n").await;
    rig.registry.end_all(&Ending::Stopping);
    expect_nothing(&mut rig.client).await;
    rig.upstream.write_all(b"1\n").await.unwrap();
    expect(&mut rig.client, "1\nfarewell ").await;
    assert!(matches!(rig.end().await, End::Told(Ending::Stopping)));
    assert_eq!(rig.statuses(), [OutcomeStatus::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_stops_the_writer_in_both_directions() {
    let mut rig = Rig::new(9);
    for client_writes in [false, true] {
        let writer = if client_writes { &mut rig.client } else { &mut rig.upstream };
        let (mut sent, mut pauses) = (0, 0);
        loop {
            match timeout(NEVER, writer.write_all(&b"passed\n".repeat(1000))).await {
                Ok(_) => sent += 7000,
                Err(_) if sent >= FULL / 2 => break,
                // A busy machine may keep the relay from reading for a while.
                Err(_) => pauses += 1,
            }
            assert!(sent < 4 * FULL, "nothing bounds what waits");
            assert!(pauses < 200, "it does not read");
        }
    }
    // Neither has read, both have written all they could; reading frees both.
    let mut some = vec![0; FULL / 2];
    timeout(SOON, rig.client.read_exact(&mut some)).await.unwrap().unwrap();
    timeout(SOON, rig.upstream.read_exact(&mut some)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_longer_than_the_buffers_goes_through() {
    let mut rig = Rig::new(9);
    let mut long = vec![b'a'; 8 * FULL];
    long.push(b'\n');
    let (mut reader, mut writer) = tokio::io::split(rig.client);
    let sent = long.clone();
    let writing = tokio::spawn(async move { writer.write_all(&sent).await.map(|()| writer) });
    let mut got = vec![0; long.len()];
    timeout(SOON, rig.upstream.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == long);
    let _writer = writing.await.unwrap().unwrap();
    rig.upstream.write_all(b"1\n").await.unwrap();
    let mut answer = [0; 2];
    timeout(SOON, reader.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"1\n");
}
