//! The resolver that answers in place of every name server a run asks.
//!
//! A name of the inventory gets its synthetic address, which names the resource from then on; any other name is
//! looked up by this host's own resolver if policy permits it, and refused otherwise. Every look-up is recorded.
//! An agent's query never leaves the host: what goes out is the host's own question, and only for permitted names, as many as
//! [`Carried`](super::carried::Carried) has room for. There are addresses to be had and nothing else: for any other type of record a name has none,
//! so that what HTTPS and SVCB would say of HTTP/3 and of encrypted client hellos is not said.

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use interceptor_core::{
    Held, Verdict,
    inventory::Inventory,
    model::{Action, Author, Binds, OutcomeStatus, Phase, StatementFacts, SyntheticAddress, Target, Verb},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
};

use super::{Proxy, carried::Full, stream::Stream};
use crate::gate::{Ledger, Subject};

/// How long an answer may be kept, in seconds: short, since a reload can change the inventory's order.
const TTL: u32 = 5;
/// The longest datagram answered without EDNS, in bytes (RFC 1035).
const DATAGRAM: usize = 512;
/// How long a client on a stream may take for its next query, and to take an answer (RFC 7766, 6.2.3).
const IDLE: std::time::Duration = std::time::Duration::from_secs(30);
/// How long the host's own resolver may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// Why a name is refused whatever policy says of it, for the operator.
const FULL: &str = "the names that this run had looked up in the last hour come to all that it may tell their zones: \
                    if it needs more, raise `run-names-kib` in interceptor.toml and restart";

/// Answers datagrams for one run until the socket fails or the task is dropped.
pub(super) async fn serve_datagrams(socket: Arc<UdpSocket>, proxy: Arc<Proxy>, asks: impl Fn() -> Subject) {
    let mut buffer = vec![0; 4096];
    let under_way = Arc::new(tokio::sync::Semaphore::new(64));
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // One bad datagram, or no memory for a moment: the run keeps its resolver.
                tracing::warn!(run = %asks().run.id, "the resolver's socket: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let query = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        // A flood waits in the socket's own queue and is dropped there by the kernel.
        let Ok(place) = under_way.clone().acquire_owned().await else { return };
        let (socket, proxy, subject) = (socket.clone(), proxy.clone(), asks());
        tokio::spawn(async move {
            let _place = place;
            if let Some(answer) = answer(&proxy, &subject, query).await
                && let Ok(bytes) = fit(&answer, DATAGRAM)
            {
                let _ = socket.send_to(&bytes, peer).await;
            }
        });
    }
}

/// Answers queries on one TCP connection (RFC 7766) until the client closes, sends no query, or takes too long.
pub(super) async fn serve_stream(
    mut stream: Stream,
    proxy: &Proxy,
    subject: &Subject,
) -> std::io::Result<()> {
    loop {
        let asked = tokio::time::timeout(IDLE, async {
            let length = usize::from(stream.read_u16().await?);
            let mut query = vec![0; length];
            stream.read_exact(&mut query).await?;
            Ok::<_, std::io::Error>(query)
        });
        let query = match asked.await? {
            Ok(query) => query,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(message) = answer(proxy, subject, query.into()).await else { return Ok(()) };
        let bytes = fit(&message, usize::from(u16::MAX)).map_err(std::io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        tokio::time::timeout(IDLE, async {
            stream.write_u16(length).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await
        })
        .await??;
    }
}

/// The answer to one query; none for what is no query.
async fn answer(proxy: &Proxy, subject: &Subject, query: Bytes) -> Option<Message> {
    let asked = Message::from_vec(&query).ok()?;
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let refuse = |code| Some(Message::error_msg(asked.metadata.id, asked.metadata.op_code, code));
    let [question] = asked.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
    if asked.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return refuse(ResponseCode::NotImp);
    }
    let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let action = Action {
        phase: Phase::Resolve,
        text: format!("{} {name}", question.query_type()).into(),
        binds: Binds::new(),
        facts: StatementFacts::single(Verb::Resolve, Target::Name(name.clone())).into(),
    };
    let held = Held::new(0, vec![action], query);
    let gate = &proxy.gate;
    let known = synthetic(&gate.rules().inventory, &name);
    let mut reply = Message::error_msg(asked.metadata.id, OpCode::Query, ResponseCode::NoError);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    reply.metadata.response_code = ResponseCode::Refused;
    // The inventory's own names are no news to anybody: what they stand for is judged when it is dialled.
    let room = match known {
        Some(_) => None,
        None => match proxy.carried.room(subject.run.id, &name, Instant::now()) {
            Ok(room) => Some(room),
            Err(Full) => {
                let _ = gate.refuse(subject, &held, "names", FULL, "Look up fewer names.").await;
                return Some(reply);
            }
        },
    };
    let verdict = match known {
        Some(_) => gate.allow(subject, &held, "a name of the inventory").await,
        None => gate.judge_for(subject, &held, Author::Agent).await,
    };
    let Verdict::Allow(permit, _) = verdict else { return Some(reply) };
    reply.metadata.response_code = ResponseCode::NoError;
    let mut ledger = Ledger::new(gate.producer().clone());
    ledger.sent(0, permit.records());
    // The query itself goes nowhere: the permit is consumed by answering it.
    held.release(permit).ok()?;
    if let Some(room) = room {
        room.used();
    }
    let addresses = match known {
        Some(address) => vec![IpAddr::from(address.v4()), IpAddr::from(address.v6())],
        None => match look_up(&name).await {
            Ok(addresses) => addresses,
            Err(message) => {
                ledger.ended_whole(0, OutcomeStatus::Failed, 0, Some(message));
                reply.metadata.response_code = ResponseCode::NXDomain;
                return Some(reply);
            }
        },
    };
    for address in addresses {
        reply.add_answers(record(question.name(), question.query_type(), address));
    }
    ledger.ended_whole(0, OutcomeStatus::Completed, 0, None);
    Some(reply)
}

fn synthetic(inventory: &Inventory, name: &str) -> Option<SyntheticAddress> {
    inventory.synthetic(name)
}

fn record(name: &Name, wanted: RecordType, address: IpAddr) -> Option<Record> {
    let data = match (wanted, address) {
        (RecordType::A, IpAddr::V4(v4)) => RData::A(A(v4)),
        (RecordType::AAAA, IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    /// How many look-ups of all runs may wait for the host's resolver: each takes a thread.
    static UNDER_WAY: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(64);
    let _place = UNDER_WAY.acquire().await.ok();
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(format!("this host's resolver: {error}")),
        Err(_) => Err("this host's resolver did not answer".to_owned()),
    }
}

/// The bytes of `message`, or of its head with the truncation mark where they are more than `limit`.
fn fit(message: &Message, limit: usize) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let bytes = message.to_vec()?;
    if bytes.len() <= limit { Ok(bytes) } else { message.truncate().to_vec() }
}
