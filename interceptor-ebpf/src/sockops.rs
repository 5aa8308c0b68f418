//! `sockops` at `TCP_CONNECT_CB` (Linux 4.13).
//!
//! Strategy: copy the socket's flow to where the proxy will look for it: under the run and the client's own address
//! and port. Relies on: running after the source port is chosen and before the SYN leaves, so that the entry is
//! there even for the data of a TCP Fast Open SYN, and an older one of the same tuple is overwritten. Nothing can be
//! refused here: without an entry the proxy rejects.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::sock_ops, programs::SockOpsContext,
};
use aya_log_ebpf::warn;
use interceptor_common::{Counter, FAMILY_V4, FAMILY_V6, Form, TupleKey};

use crate::{
    context::load,
    maps::{FLOWS, TUPLES},
    report::count,
};

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`
const TCP_CONNECT: u32 = 3;

#[sock_ops]
pub fn publish_tuple(ctx: SockOpsContext) -> u32 {
    if load(field!(ctx.ops, op)) == TCP_CONNECT {
        publish(&ctx);
    }
    1
}

#[inline(always)]
fn publish(ctx: &SockOpsContext) {
    // SAFETY: the context that the kernel gave us.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the socket is locked by its own connect.
    let Some(flow) = (unsafe { FLOWS.get(&cookie) }) else { return };
    let port = load(field!(ctx.ops, local_port));
    // A mapped destination is reached over IPv4, a compatible one over `::1`.
    let key = if flow.family == FAMILY_V4 && flow.form != Form::Compatible as u32 {
        let v4 = load(field!(ctx.ops, local_ip4));
        TupleKey { run: flow.run, address: [v4, 0, 0, 0], family: FAMILY_V4, port }
    } else {
        let words = field!(ctx.ops, local_ip6).cast::<u32>();
        // SAFETY: the four words of the field.
        let address = unsafe { [load(words), load(words.add(1)), load(words.add(2)), load(words.add(3))] };
        TupleKey { run: flow.run, address, family: FAMILY_V6, port }
    };
    if let Err(code) = TUPLES.insert(&key, flow, 0) {
        warn!(ctx, "run {}: the table of handshakes takes no more: {}", flow.run, code);
        count(Counter::TupleFull);
    }
}
