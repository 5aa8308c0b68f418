//! `cgroup_skb/egress` (Linux 4.10): the backstop.
//!
//! Strategy: a packet of a captured socket leaves only through the loopback interface **and** to loopback or to the
//! run's own address, as plain TCP or UDP. That holds whatever made the packet: bound devices, packet information,
//! routing headers, protocols that no other hook sees. Relies on: the kernel giving the packet after routing, with
//! its interface, and with the cgroup of the socket that owns it; the current task means nothing here. It does not
//! see packet and XDP sockets, which need capabilities that captured processes do not have.

use aya_ebpf::{
    helpers::generated::{bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use interceptor_common::{Counter, PROTOCOL_TCP, PROTOCOL_UDP, RunConfig};

use crate::{
    address::{is_own_v4, is_own_v6},
    admission::{is_released, run_above},
    context::load,
    guard_kept::{Keeping, keeping},
    report::count,
};

/// The loopback interface is the first of every network namespace.
pub const LOOPBACK_INTERFACE: u32 = 1;
/// The extension header that may stand before the transport, and the option in it.
const HOP_BY_HOP: u8 = 0;
const JUMBO_PAYLOAD: u8 = 0xc2;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    if stays(&ctx).unwrap_or(false) {
        return 1;
    }
    count(Counter::DroppedEgress);
    0
}

#[inline(always)]
fn stays(ctx: &SkBuffContext) -> Option<bool> {
    let run = run_of(ctx)?;
    if is_released(run) {
        return Some(true);
    }
    if run.flags & RunConfig::KEEPS != 0
        && let Some(keeping) = keeping(ctx)
    {
        return Some(keeping == Keeping::Lasts);
    }
    if load(field!(ctx.skb.skb, ifindex)) != LOOPBACK_INTERFACE {
        return Some(false);
    }
    let [first] = bytes::<1>(ctx, 0)?;
    match first >> 4 {
        // Five words and no more: no IPv4 options.
        4 if first == 0x45 => {
            let [protocol] = bytes::<1>(ctx, 9)?;
            let address = u32::from_ne_bytes(bytes(ctx, 16)?);
            Some(is_carried(protocol) && is_own_v4(address, run))
        }
        // No extension headers: what follows is the transport.
        6 => {
            let protocol = match bytes::<3>(ctx, 4)? {
                [0, 0, HOP_BY_HOP] => jumbo(ctx)?,
                [_, _, protocol] => protocol,
            };
            let address = [word(ctx, 24)?, word(ctx, 28)?, word(ctx, 32)?, word(ctx, 36)?];
            Some(is_carried(protocol) && is_own_v6(address, run))
        }
        _ => Some(false),
    }
}

/// What a jumbogram carries: segments that the kernel hands on in one piece, longer than the header's own field can say
/// (since 5.19, and on loopback with BBR at once). Their length stands in the one option of an extension header.
#[inline(always)]
fn jumbo(ctx: &SkBuffContext) -> Option<u8> {
    match bytes::<4>(ctx, 40)? {
        [protocol, 0, JUMBO_PAYLOAD, 4] => Some(protocol),
        _ => None,
    }
}

#[inline(always)]
fn is_carried(protocol: u8) -> bool {
    u32::from(protocol) == PROTOCOL_TCP || u32::from(protocol) == PROTOCOL_UDP
}

/// The run that the socket behind a packet is of, whichever way it goes.
#[inline(always)]
pub fn run_of(ctx: &SkBuffContext) -> Option<&'static RunConfig> {
    // SAFETY: the context that the kernel gave us.
    run_above(|level| unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) })
}

#[inline(always)]
fn word(ctx: &SkBuffContext, offset: u32) -> Option<u32> {
    bytes(ctx, offset).map(u32::from_ne_bytes)
}

#[inline(always)]
fn bytes<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the destination is as long as said.
    let result =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}
