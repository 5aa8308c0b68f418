//! `cgroup/connect4`, `connect6`, `sendmsg4`, `sendmsg6` at the root of the hierarchy (Linux 5.18, for `get_retval`).
//!
//! Strategy: the other hooks are chosen by the socket's cgroup, so that they do not see a socket that was made before
//! capture, or by somebody else. These are chosen for every socket and ask about the caller: a captured process may
//! connect or send only to where a captured socket is sent, its run's listener and resolver, or within its own
//! network. Relies on: programs of descendants running first, so that what is seen here of a captured socket is
//! rewritten already, or refused. Costs every connect of the host a look-up.

use aya_ebpf::{
    helpers::generated::bpf_get_retval, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use interceptor_common::{Counter, RunConfig};

use crate::{
    address::{Destination, LOOPBACK_V4, is_listener_v6},
    admission::{is_released, run_of_caller},
    connect::check_namespace,
    context::Address,
    report::{Subject, refused},
};

#[cgroup_sock_addr(connect4)]
pub fn guard_connect4(ctx: SockAddrContext) -> i32 {
    v4(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn guard_connect6(ctx: SockAddrContext) -> i32 {
    v6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn guard_sendmsg4(ctx: SockAddrContext) -> i32 {
    v4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn guard_sendmsg6(ctx: SockAddrContext) -> i32 {
    v6(&ctx)
}

#[inline(always)]
fn v4(ctx: &SockAddrContext) -> i32 {
    let Some(run) = run_of_caller() else { return 1 };
    let address = ctx.v4();
    decide(ctx, run, &Destination::v4(address, ctx.port()), address == LOOPBACK_V4)
}

#[inline(always)]
fn v6(ctx: &SockAddrContext) -> i32 {
    let Some(run) = run_of_caller() else { return 1 };
    let address = ctx.v6();
    decide(ctx, run, &Destination::v6(address, ctx.port()), is_listener_v6(address))
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, run: &RunConfig, to: &Destination, ours: bool) -> i32 {
    // SAFETY: no arguments.
    if unsafe { bpf_get_retval() } != 0 || is_released(run) {
        // Refused already, with its own reason; or let by, and told of where it was.
        return 1;
    }
    if ours && (to.port == run.tcp_port || to.port == run.dns_port) {
        return 1;
    }
    let own_network = run.flags & RunConfig::OWN_NETNS != 0 && check_namespace(ctx, run).is_ok();
    if own_network && to.is_own(run) {
        return 1;
    }
    refused(Counter::RefusedForeign, &Subject::destination(run.run, to, ctx.protocol()));
    0
}
