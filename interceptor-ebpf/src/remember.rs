//! Puts a socket's original destination where the proxy and the other hooks find it.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_get_socket_cookie, bpf_ktime_get_ns},
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::warn;
use interceptor_common::{Counter, Flow, MAX_FLOWS_PER_RUN, RunConfig};

use crate::{
    address::Destination,
    maps::{FLOWS, USAGE},
    task,
};

/// `BPF_NOEXIST`
const NOT_YET: u64 = 1;

/// The cookie of the hook's socket.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context that the kernel gave us.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The flow of the hook's socket.
#[inline(always)]
pub fn flow(ctx: &SockAddrContext) -> Option<&'static Flow> {
    // SAFETY: an entry is changed only by hooks of the same socket; the worst of a race between two threads of
    // the agent is that the agent sees the wrong one of its own destinations.
    unsafe { FLOWS.get(&cookie(ctx)) }
}

/// Forgets what an earlier connection of the same socket left.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    forget_cookie(cookie(ctx));
}

/// Forgets a socket, and that its run had it.
#[inline(always)]
pub fn forget_cookie(cookie: u64) {
    // SAFETY: see `flow`.
    let Some(flow) = (unsafe { FLOWS.get(&cookie) }) else { return };
    let run = flow.run;
    // Only whoever removes it gives it back.
    if FLOWS.remove(&cookie).is_ok() {
        add(run, u64::MAX);
    }
}

/// Changes how many entries a run has; `u64::MAX` takes one away. Two processors at once may lose a change (the target
/// has no atomic addition that Rust would give us): user space counts anew every few seconds.
#[inline(always)]
fn add(run: u64, change: u64) {
    if let Some(usage) = USAGE.get_ptr_mut(&run) {
        // SAFETY: a valid slot of eight aligned bytes, read and written at once.
        unsafe { usage.write_volatile(usage.read_volatile().wrapping_add(change)) };
    }
}

/// Whether a run may have one entry more.
#[inline(always)]
fn has_room(run: u64) -> bool {
    // SAFETY: eight aligned bytes are read at once; a count that is late by a few does no harm.
    let usage = USAGE.get_ptr(&run).map(|usage| unsafe { usage.read_volatile() });
    // Below zero by a lost change is as good as none.
    usage.is_some_and(|usage| usage < MAX_FLOWS_PER_RUN || usage.cast_signed() < 0)
}

/// Remembers; where that fails, the connection is to be refused.
#[inline(always)]
pub fn remember(
    ctx: &SockAddrContext,
    run: &RunConfig,
    to: &Destination,
    protocol: u32,
    listener_port: u32,
) -> Result<(), Counter> {
    let cookie = cookie(ctx);
    let flow = Flow {
        cookie,
        run: run.run,
        // SAFETY: helpers without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        netns_cookie: run.netns_cookie,
        // SAFETY: as above.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        start_boottime: task::current_start(),
        address: to.address,
        family: to.family,
        form: to.form,
        port: to.port,
        listener_port,
        protocol,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        reserved: 0,
    };
    // SAFETY: see `flow`; only whether there is one is asked.
    if unsafe { FLOWS.get(&cookie) }.is_none() {
        if !has_room(run.run) {
            return Err(Counter::RefusedQuota);
        }
        if FLOWS.insert(&cookie, &flow, NOT_YET).is_ok() {
            add(run.run, 1);
            return Ok(());
        }
    }
    FLOWS.insert(&cookie, &flow, 0).map_err(|code| {
        // Nobody pays for this but a connection that is being refused.
        warn!(ctx, "run {}: the table of redirected sockets takes no more: {}", run.run, code);
        Counter::MapFull
    })
}
