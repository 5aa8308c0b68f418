//! `cgroup_skb/ingress` (Linux 4.10): nobody beyond the host reaches a captured socket.
//!
//! Strategy: what comes to a captured socket comes through the loopback interface, since all that it sends leaves there. A run
//! with a network of its own has no other; one that was attached to may have bound a socket to any address of the host's, and is
//! not to be told by others what nobody inspects. Relies on: the interface being the one that the packet came in by, and the cgroup
//! that of the socket that it is for.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use interceptor_common::{Counter, RunConfig};

use crate::{
    admission::is_released,
    context::load,
    egress::{LOOPBACK_INTERFACE, run_of},
    guard_kept::{Keeping, keeping},
    report::count,
};

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    if comes_from_here(&ctx).unwrap_or(false) {
        return 1;
    }
    count(Counter::DroppedIngress);
    0
}

#[inline(always)]
fn comes_from_here(ctx: &SkBuffContext) -> Option<bool> {
    if load(field!(ctx.skb.skb, ifindex)) == LOOPBACK_INTERFACE {
        return Some(true);
    }
    let run = run_of(ctx)?;
    let lasts = || run.flags & RunConfig::KEEPS != 0 && keeping(ctx) == Some(Keeping::Lasts);
    Some(is_released(run) || lasts())
}
