//! The ring of events: what captured processes did besides connecting.

use std::{
    fmt,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::maps::{MapData, RingBuf};
use interceptor_common::{Counter, EventHead, EventKind, PATH_BYTES};
use interceptor_core::model::RunId;

use super::{
    abi::{ProcessRef, socket_address},
    refusal::Refused,
};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEvent {
    /// The run; none when the process was in none that is known.
    pub run: Option<RunId>,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The process. For a fork, the new one.
    pub process: ProcessRef,
    /// Its user id.
    pub uid: u32,
    /// Its own cgroup.
    pub cgroup: u64,
    /// What happened.
    pub what: Occurrence,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occurrence {
    /// The process was made.
    Fork {
        /// By whom.
        parent: ProcessRef,
    },
    /// The process executes a program.
    Exec {
        /// Its parent.
        parent: ProcessRef,
        /// The path that was given to the kernel, where it could be read whole.
        path: Option<String>,
        /// The arguments; bytes that are not UTF-8 are replaced.
        argv: Vec<String>,
        /// Whether arguments are missing.
        cut: bool,
    },
    /// The last thread of the process is gone.
    Exit,
    /// A connection to the run's own listener was left alone.
    Internal {
        /// The listener.
        destination: SocketAddr,
        /// `IPPROTO_TCP` or `IPPROTO_UDP`.
        protocol: u32,
    },
    /// Something of a released run went out as it was.
    Released {
        /// Where to, where that can be said.
        destination: Option<SocketAddr>,
        /// The protocol.
        protocol: u32,
    },
    /// Something was refused.
    Refused(Refused),
}

/// Reads the ring. Its descriptor is readable when there is something.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventReader {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The next event, or none for now. An event that this version does not know is skipped and logged.
    pub fn next_event(&mut self) -> Option<KernelEvent> {
        loop {
            let item = self.ring.next()?;
            match decode(&item) {
                Some(event) => return Some(event),
                None => {
                    tracing::error!(bytes = item.len(), "an event of the kernel side cannot be understood")
                }
            }
        }
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventReader")
    }
}

fn decode(bytes: &[u8]) -> Option<KernelEvent> {
    let (head, rest) = bytes.split_at_checked(size_of::<EventHead>())?;
    // SAFETY: the slice is as long as the structure, which holds only integers; it may lie anywhere.
    let head = unsafe { head.as_ptr().cast::<EventHead>().read_unaligned() };
    let parent = ProcessRef { pid: head.parent_tgid, start_time: head.parent_start_boottime };
    let destination = socket_address(head.family, head.address, head.port);
    let is = |kind: EventKind| head.kind == kind as u32;
    let what = if is(EventKind::Fork) {
        Occurrence::Fork { parent }
    } else if is(EventKind::Exec) {
        exec(&head, parent, rest)?
    } else if is(EventKind::Exit) {
        Occurrence::Exit
    } else if is(EventKind::Internal) {
        Occurrence::Internal { destination: destination?, protocol: head.protocol }
    } else if is(EventKind::Released) {
        Occurrence::Released { destination: known(destination), protocol: head.protocol }
    } else if is(EventKind::Refused) {
        let reason = Counter::from_number(head.reason)?;
        let destination = known(destination);
        Occurrence::Refused(Refused { reason, destination, protocol: head.protocol, port: head.port })
    } else {
        return None;
    };
    Some(KernelEvent {
        run: (head.run != 0).then(|| RunId::from_random(head.run)),
        at_ns: head.at_ns,
        process: ProcessRef { pid: head.tgid, start_time: head.start_boottime },
        uid: head.uid,
        cgroup: head.cgroup,
        what,
    })
}

fn known(destination: Option<SocketAddr>) -> Option<SocketAddr> {
    destination.filter(|to| to.port() != 0 && !to.ip().is_unspecified())
}

fn exec(head: &EventHead, parent: ProcessRef, rest: &[u8]) -> Option<Occurrence> {
    let (path, arguments) = rest.split_at_checked(PATH_BYTES)?;
    let length = usize::try_from(head.argument_bytes).ok()?;
    let arguments = arguments.get(..length)?;
    let path = path.split(|byte| *byte == 0).next().filter(|path| !path.is_empty());
    let whole = head.flags & EventHead::PATH_CUT == 0;
    Some(Occurrence::Exec {
        parent,
        path: path.filter(|_| whole).map(|path| String::from_utf8_lossy(path).into_owned()),
        argv: split_arguments(arguments),
        cut: head.flags & EventHead::ARGUMENTS_CUT != 0,
    })
}

/// Each argument ends with a NUL; the last one may have lost it.
fn split_arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_and_short_events_are_refused() {
        assert_eq!(split_arguments(b"psql\0-c\0\0select 1\0"), ["psql", "-c", "", "select 1"]);
        assert_eq!(split_arguments(b"cut sho"), ["cut sho"]);
        assert!(split_arguments(b"").is_empty());
        assert_eq!(decode(&[0; 40]), None);
        assert_eq!(decode(&[0; 96]), None, "kind 0");
    }
}
