//! `cgroup/sendmsg4`, `cgroup/sendmsg6` (Linux 4.18).
//!
//! Strategy: DNS goes to the run's resolver, datagrams to the run itself are left alone, the rest is refused.
//! Relies on: being called for every UDP datagram with a destination, on connected sockets too. On an IPv6 socket
//! that is connected to an IPv4 address it is called for plain send(2) as well and sees what connect wrote: our own
//! resolver, whose stored original must then be kept. `user_family` is 0 for AF_UNSPEC and is never read.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_common::{Counter, PROTOCOL_UDP};

use crate::{
    address::{Destination, LOOPBACK_V4, is_listener_v6},
    admission::admit,
    connect::{Fields, check_namespace, datagram, refuse, released_run},
    context::Address,
    remember::flow,
    report::{Subject, released},
};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let (address, port) = (ctx.v4(), ctx.port());
    decide(&ctx, Fields::V4, &Destination::v4(address, port), address == LOOPBACK_V4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let (address, port) = (ctx.v6(), ctx.port());
    decide(&ctx, Fields::V6, &Destination::v6(address, port), is_listener_v6(address))
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, fields: Fields, to: &Destination, ours: bool) -> i32 {
    match send(ctx, fields, to, ours) {
        Ok(()) => 1,
        Err((reason, run)) => {
            refuse(reason, run, to, ctx.protocol());
            0
        }
    }
}

#[inline(always)]
fn send(ctx: &SockAddrContext, fields: Fields, to: &Destination, ours: bool) -> Result<(), (Counter, u64)> {
    if let Some(run) = released_run(ctx) {
        // What a socket was connected to through the resolver stays so: it is not told of twice.
        if !(ours && to.port == run.dns_port) {
            released(&Subject::destination(run.run, to, ctx.protocol()));
        }
        return Ok(());
    }
    let run = admit().map_err(|reason| (reason, 0))?;
    let named = |reason| (reason, run.run);
    check_namespace(ctx, run).map_err(named)?;
    if ctx.protocol() != PROTOCOL_UDP {
        return Err(named(Counter::RefusedProtocol));
    }
    if ours && to.port == run.dns_port {
        // Already rewritten by connect: the flow says from what.
        return match flow(ctx) {
            Some(flow) if flow.protocol == PROTOCOL_UDP && flow.run == run.run => Ok(()),
            _ => Err(named(Counter::RefusedUdp)),
        };
    }
    datagram(ctx, fields, run, to).map_err(named)
}
