//! `cgroup/getpeername4`, `cgroup/getpeername6` (Linux 5.8).
//!
//! Strategy: a redirected socket is shown the peer that it asked for. Relies on: being called with the real peer,
//! so that only our own listener's address is replaced. These hooks cannot refuse.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_common::{FAMILY_V4, Flow};

use crate::{
    address::{LOOPBACK_V4, as_written_v6, is_listener_v6},
    context::Address,
    remember::flow,
};

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if ctx.v4() == LOOPBACK_V4
        && let Some(flow) = redirected(&ctx)
        && flow.family == FAMILY_V4
    {
        ctx.set_v4(flow.address[0]);
        ctx.set_port(flow.port);
    }
    1
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if is_listener_v6(ctx.v6())
        && let Some(flow) = redirected(&ctx)
    {
        ctx.set_v6(as_written_v6(flow));
        ctx.set_port(flow.port);
    }
    1
}

#[inline(always)]
fn redirected(ctx: &SockAddrContext) -> Option<&'static Flow> {
    let flow = flow(ctx)?;
    (flow.listener_port == ctx.port()).then_some(flow)
}
