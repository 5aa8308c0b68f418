//! Counting, and telling user space. Nothing here decides.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
    },
};
use interceptor_common::{Counter, EventHead, EventKind, RING_BYTES};

use crate::{
    address::Destination,
    maps::{COUNTERS, EVENTS},
    task,
};

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a valid slot of this processor's own copy. A rare lost update would cost one count.
        unsafe { *slot = (*slot).wrapping_add(1) };
    }
}

/// What an event says besides who.
pub struct Subject {
    pub run: u64,
    pub address: [u32; 4],
    pub family: u32,
    pub port: u32,
    pub protocol: u32,
}

impl Subject {
    #[inline(always)]
    pub fn destination(run: u64, to: &Destination, protocol: u32) -> Self {
        Self { run, address: to.address, family: to.family, port: to.port, protocol }
    }
}

/// Counts and reports something that was refused.
#[inline(never)]
pub fn refused(reason: Counter, subject: &Subject) {
    count(reason);
    tell(EventKind::Refused, reason as u32, subject);
}

/// Counts and reports something that was left alone.
#[inline(never)]
pub fn internal(subject: &Subject) {
    count(Counter::Internal);
    tell(EventKind::Internal, Counter::Internal as u32, subject);
}

/// Counts and reports what was let by since root has let go of the run.
#[inline(never)]
pub fn released(subject: &Subject) {
    count(Counter::Released);
    tell(EventKind::Released, Counter::Released as u32, subject);
}

#[inline(always)]
fn tell(kind: EventKind, reason: u32, subject: &Subject) {
    // What an agent can cause at will gets half of the ring: exec, fork and exit events need the rest.
    if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(RING_BYTES / 2) {
        count(Counter::RingLost);
        return;
    }
    let head = EventHead {
        kind: kind as u32,
        flags: 0,
        run: subject.run,
        // SAFETY: helpers without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: as above.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        start_boottime: task::current_start(),
        parent_start_boottime: 0,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        parent_tgid: 0,
        uid: bpf_get_current_uid_gid() as u32,
        reason,
        address: subject.address,
        family: subject.family,
        port: subject.port,
        protocol: subject.protocol,
        argument_bytes: 0,
    };
    if EVENTS.output::<EventHead>(&head, 0).is_err() {
        count(Counter::RingLost);
    }
}
