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
use interceptor_common::{Counter, Flow, RunConfig};

use crate::{address::Destination, maps::FLOWS, task};

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
    let _ = FLOWS.remove(&cookie(ctx));
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
    FLOWS.insert(&cookie, &flow, 0).map_err(|code| {
        // Nobody pays for this but a connection that is being refused.
        warn!(ctx, "run {}: the table of redirected sockets takes no more: {}", run.run, code);
        Counter::MapFull
    })
}
