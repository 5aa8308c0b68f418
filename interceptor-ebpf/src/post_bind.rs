//! `cgroup/post_bind4`, `cgroup/post_bind6` (Linux 4.17).
//!
//! Strategy: a captured process cannot bind the ports of its run's listener and resolver, so that it cannot stand in
//! for them when they are gone. Relies on: the port being final here.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use interceptor_common::{Counter, PROTOCOL_TCP};

use crate::{
    admission::run_of_caller,
    context::sock_field,
    report::{Subject, refused},
};

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    decide(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    decide(&ctx)
}

#[inline(always)]
fn decide(ctx: &SockContext) -> i32 {
    let family = sock_field(ctx, |sock| field!(sock, family));
    let protocol = sock_field(ctx, |sock| field!(sock, protocol));
    let port = sock_field(ctx, |sock| field!(sock, src_port));
    let subject = |run| Subject { run, address: [0; 4], family, port, protocol };
    let Some(run) = run_of_caller() else {
        refused(Counter::RefusedUnknownRun, &subject(0));
        return 0;
    };
    let guarded = if protocol == PROTOCOL_TCP { run.tcp_port } else { run.dns_port };
    if port == guarded {
        refused(Counter::RefusedBind, &subject(run.run));
        return 0;
    }
    1
}
