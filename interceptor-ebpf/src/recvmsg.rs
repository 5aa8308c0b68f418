//! `cgroup/recvmsg4`, `cgroup/recvmsg6` (Linux 5.2).
//!
//! Strategy: a datagram from our resolver is shown as coming from the server that was asked. Relies on: being
//! called after the datagram was received, with its source; an IPv6 socket that receives from IPv4 comes through
//! recvmsg6 with a mapped address. A socket that asks several servers at once is shown the one asked last. These
//! hooks cannot refuse.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_common::{FAMILY_V4, Flow, PROTOCOL_UDP};

use crate::{
    address::{LOOPBACK_V4, as_written_v6, is_listener_v6},
    context::Address,
    remember::flow,
};

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    if ctx.v4() == LOOPBACK_V4
        && let Some(flow) = answered(&ctx)
        && flow.family == FAMILY_V4
    {
        ctx.set_v4(flow.address[0]);
        ctx.set_port(flow.port);
    }
    1
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    if is_listener_v6(ctx.v6())
        && let Some(flow) = answered(&ctx)
    {
        ctx.set_v6(as_written_v6(flow));
        ctx.set_port(flow.port);
    }
    1
}

#[inline(always)]
fn answered(ctx: &SockAddrContext) -> Option<&'static Flow> {
    let flow = flow(ctx)?;
    (flow.protocol == PROTOCOL_UDP && flow.listener_port == ctx.port()).then_some(flow)
}
