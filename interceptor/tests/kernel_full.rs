//! The kernel side's tables when they are full: what cannot be remembered is refused, counted and told, and goes well again
//! when there is room.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel_support;

use aya::maps::{HashMap, Map, MapData, MapError};
use interceptor::kernel::{Counter, Occurrence, refusal::Refused};
use interceptor_common::{ABI_VERSION, Flow, MAX_FLOWS, MAX_FLOWS_PER_RUN, TupleKey, names};
use kernel_support::Stage;

#[test]
fn the_actor_plays() {
    kernel_support::actor::play();
}

const CONNECT: &str = "connect 203.0.113.7:5432";

/// One of the stage's tables, as root has it by its pin.
fn table(stage: &Stage, name: &str) -> Map {
    let pin = stage.places.pins().join(format!("maps-v{ABI_VERSION}")).join(name);
    Map::HashMap(MapData::from_pin(pin).expect("a pinned table"))
}

/// A connection goes to the proxy's side.
fn is_captured(stage: &Stage) {
    let playing = stage.act(CONNECT);
    let (stream, _) = stage.accept_for(&stage.namespace.tcp4, "203.0.113.7:5432");
    drop(stream);
    playing.says();
}

/// Fills a table whose keys and values have these sizes, with entries of nobody's; gives what was put in.
fn fill<const KEY: usize, const VALUE: usize>(
    table: &mut HashMap<MapData, [u8; KEY], [u8; VALUE]>,
) -> Vec<[u8; KEY]> {
    let mut keys = Vec::new();
    for number in 0..=u64::from(MAX_FLOWS) {
        let mut key = [0xff; KEY];
        key.iter_mut().zip(number.to_ne_bytes()).for_each(|(to, byte)| *to = byte);
        // No cookie and no run has its upper bits set.
        if let Some(upper) = key.get_mut(7) {
            *upper = 0xff;
        }
        match table.insert(key, [0; VALUE], 1) {
            Ok(()) => keys.push(key),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                return keys;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a table of {MAX_FLOWS} has taken one more");
}

#[test]
fn a_full_table_of_sockets_refuses_until_there_is_room() {
    let stage = Stage::new();
    let mut events = stage.maps.events().expect("events");
    is_captured(&stage);
    let mut flows: HashMap<_, [u8; 8], [u8; size_of::<Flow>()]> =
        table(&stage, names::FLOWS).try_into().expect("its sizes");
    let filled = fill(&mut flows);
    assert_eq!(stage.act(CONNECT).says(), format!("error {}", libc::EPERM));
    stage.assert_idle();
    assert_eq!(stage.count(Counter::MapFull), 1);
    let told = std::iter::from_fn(|| events.next_event()).find_map(|event| match event.what {
        Occurrence::Refused(Refused { reason: Counter::MapFull, destination, .. }) => {
            Some((event.run, destination))
        }
        _ => None,
    });
    assert_eq!(told, Some((Some(stage.run), "203.0.113.7:5432".parse().ok())));
    filled.iter().for_each(|key| flows.remove(key).expect("it was put there"));
    is_captured(&stage);
}

/// The connect itself goes on, and the proxy finds nobody behind it, whom it rejects.
#[test]
fn a_full_table_of_handshakes_leaves_a_connection_that_is_nobodys() {
    let stage = Stage::new();
    let mut tuples: HashMap<_, [u8; size_of::<TupleKey>()], [u8; size_of::<Flow>()]> =
        table(&stage, names::TUPLES).try_into().expect("its sizes");
    let filled = fill(&mut tuples);
    let playing = stage.act(CONNECT);
    let (stream, flow) = stage.accept(&stage.namespace.tcp4);
    assert_eq!(flow, None);
    drop(stream);
    playing.says();
    assert!(stage.count(Counter::TupleFull) > 0);
    filled.iter().for_each(|key| tuples.remove(key).expect("it was put there"));
    is_captured(&stage);
}

#[test]
fn a_run_has_as_many_sockets_as_one_may_and_no_more() {
    let stage = Stage::new();
    is_captured(&stage);
    let mut usage: HashMap<_, u64, u64> = table(&stage, names::USAGE).try_into().expect("its sizes");
    let run = usage.keys().next().expect("the stage's run").expect("a key");
    usage.insert(run, MAX_FLOWS_PER_RUN, 0).expect("a count");
    assert_eq!(stage.act(CONNECT).says(), format!("error {}", libc::ECONNREFUSED));
    stage.assert_idle();
    assert_eq!(stage.count(Counter::RefusedQuota), 1);
    usage.insert(run, MAX_FLOWS_PER_RUN - 1, 0).expect("a count");
    is_captured(&stage);
}
