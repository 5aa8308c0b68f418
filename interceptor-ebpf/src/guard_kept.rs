//! `cgroup_skb/egress` at the root of the hierarchy (Linux 4.12), as long as anything is kept.
//!
//! Strategy: connections that were there before their run was captured, and that root lets go on for a while, are known by
//! their sockets' cookies, which are never given again. Their sockets may be of any cgroup, those of processes that were
//! moved into their run's even of one that is not captured: so whatever leaves the host is looked at here, and dropped once
//! their time is over, whether or not a daemon is there. Relies on: the cookie being that of the socket until its last packet,
//! the farewells after its end included. Costs every packet of the host a look-up while it is attached.

use aya_ebpf::{
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use interceptor_common::Counter;

use crate::{maps::KEPT, report::count};

/// Whether a connection from before may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It may.
    Lasts,
    /// Not any more.
    Over,
}

/// What is said of the socket that a packet is of; nothing where it is not a kept one.
#[inline(always)]
pub fn keeping(ctx: &SkBuffContext) -> Option<Keeping> {
    // SAFETY: the context that the kernel gave us.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    // SAFETY: user space replaces an entry as a whole.
    let kept = unsafe { KEPT.get(&cookie) }?;
    // SAFETY: no arguments.
    let lasts = unsafe { bpf_ktime_get_boot_ns() } < kept.until;
    Some(if lasts { Keeping::Lasts } else { Keeping::Over })
}

#[cgroup_skb(egress)]
pub fn guard_kept(ctx: SkBuffContext) -> i32 {
    match keeping(&ctx) {
        None => 1,
        Some(Keeping::Lasts) => {
            count(Counter::Kept);
            1
        }
        Some(Keeping::Over) => {
            count(Counter::DroppedKept);
            0
        }
    }
}
