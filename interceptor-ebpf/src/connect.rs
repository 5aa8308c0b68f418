//! `cgroup/connect4`, `cgroup/connect6` (Linux 4.17).
//!
//! Strategy: remember the destination under the socket's cookie, then put our listener in its place; the kernel
//! routes only after us, so any address "works" in an empty namespace. Relies on: being called for connect(2), TCP
//! Fast Open and io_uring alike; the cgroup being that of the *socket*, which is why the caller's run is looked up
//! too. `user_family` lies for some UDP sockets and is never read. Not called for UDP-Lite, raw and SCTP, which
//! `sock_create` keeps from being made.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_get_netns_cookie, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use interceptor_common::{Counter, FAMILY_V4, Form, PROTOCOL_TCP, PROTOCOL_UDP, RunConfig};

use crate::{
    address::{Destination, LOOPBACK_V4, LOOPBACK_V6, mapped},
    admission::{admit, answer_refused, is_released, run_of_caller},
    context::{Address, load},
    remember::{forget, remember},
    report::{Subject, count, internal, refused, released},
};

/// The state of a listening TCP socket.
const LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`
const THIS_NAMESPACE: u64 = u64::MAX;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// The port of DNS.
pub const DNS: u32 = 53;
/// Where musl looks whether a family of addresses is there: it connects a UDP socket to this port of loopback, and looks up no name
/// at all where that fails with what it does not know.
const FAMILY_LOOK: u32 = 65_535;

/// Which address fields a hook has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    V4,
    V6,
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let to = Destination::v4(ctx.v4(), ctx.port());
    decide(&ctx, Fields::V4, &to)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let to = Destination::v6(ctx.v6(), ctx.port());
    decide(&ctx, Fields::V6, &to)
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, fields: Fields, to: &Destination) -> i32 {
    let protocol = ctx.protocol();
    match connect(ctx, fields, to, protocol) {
        Ok(()) => 1,
        Err((reason, run)) => {
            refuse(reason, run, to, protocol);
            0
        }
    }
}

/// Counts, reports, and chooses the errno.
#[inline(always)]
pub fn refuse(reason: Counter, run: u64, to: &Destination, protocol: u32) {
    refused(reason, &Subject::destination(run, to, protocol));
    if matches!(reason, Counter::RefusedHeartbeat | Counter::RefusedUdp | Counter::RefusedQuota) {
        answer_refused();
    }
}

#[inline(always)]
fn connect(
    ctx: &SockAddrContext,
    fields: Fields,
    to: &Destination,
    protocol: u32,
) -> Result<(), (Counter, u64)> {
    if let Some(run) = released_run(ctx) {
        forget(ctx);
        released(&Subject::destination(run.run, to, protocol));
        return Ok(());
    }
    let run = admit().map_err(|reason| (reason, 0))?;
    check_namespace(ctx, run).map_err(|reason| (reason, run.run))?;
    let kind = ctx.kind();
    if kind == SOCK_STREAM && protocol == PROTOCOL_TCP {
        if to.port != run.tcp_port && is_internal(ctx, run, to, protocol) {
            forget(ctx);
            internal(&Subject::destination(run.run, to, protocol));
            return Ok(());
        }
        remember(ctx, run, to, protocol, run.tcp_port).map_err(|reason| (reason, run.run))?;
        rewrite(ctx, fields, to, run.tcp_port);
        count(Counter::Redirected);
        Ok(())
    } else if kind == SOCK_DGRAM && protocol == PROTOCOL_UDP {
        datagram(ctx, fields, run, to).map_err(|reason| (reason, run.run))
    } else {
        Err((Counter::RefusedProtocol, run.run))
    }
}

/// UDP goes to the run's resolver, which judges whatever comes, or to the run itself. Shared with sendmsg.
#[inline(always)]
pub fn datagram(
    ctx: &SockAddrContext,
    fields: Fields,
    run: &RunConfig,
    to: &Destination,
) -> Result<(), Counter> {
    let is_question = to.port == DNS;
    if !is_question && to.port != run.dns_port && is_internal(ctx, run, to, PROTOCOL_UDP) {
        forget(ctx);
        internal(&Subject::destination(run.run, to, PROTOCOL_UDP));
        return Ok(());
    }
    if is_question || (to.port == FAMILY_LOOK && to.is_own(run)) {
        remember(ctx, run, to, PROTOCOL_UDP, run.dns_port)?;
        rewrite(ctx, fields, to, run.dns_port);
        count(Counter::DnsRedirected);
        return Ok(());
    }
    Err(Counter::RefusedUdp)
}

/// The run that the caller is in, if root has let go of it. Whether a daemon lives makes no difference.
#[inline(always)]
pub fn released_run(ctx: &SockAddrContext) -> Option<&'static RunConfig> {
    run_of_caller().filter(|run| is_released(run) && check_namespace(ctx, run).is_ok())
}

/// A run with a namespace of its own may not connect from another one: our listeners are not there, and what
/// listens there is not the run's own.
#[inline(always)]
pub fn check_namespace(ctx: &SockAddrContext, run: &RunConfig) -> Result<(), Counter> {
    // SAFETY: the context that the kernel gave us.
    if run.netns_cookie != 0 && unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != run.netns_cookie {
        return Err(Counter::RefusedNamespace);
    }
    Ok(())
}

/// Whether something of the run's own listens at the destination.
#[inline(always)]
fn is_internal(ctx: &SockAddrContext, run: &RunConfig, to: &Destination, protocol: u32) -> bool {
    run.flags & RunConfig::OWN_NETNS != 0
        && run.netns_cookie != 0
        && to.form != Form::Compatible as u32
        && to.is_own(run)
        && has_listener(ctx, to, protocol)
}

#[inline(always)]
fn has_listener(ctx: &SockAddrContext, to: &Destination, protocol: u32) -> bool {
    let dport = (to.port as u16).to_be();
    // A reply to a connected UDP socket is found only when its sender's port is given.
    let sport = if protocol == PROTOCOL_UDP { (ctx.local_port() as u16).to_be() } else { 0 };
    let (mut tuple, length) = if to.family == FAMILY_V4 {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: to.address[0],
            daddr: to.address[0],
            sport,
            dport,
        };
        (bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 } }, size_of_val(&ipv4))
    } else {
        let ipv6 =
            bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 { saddr: to.address, daddr: to.address, sport, dport };
        (bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } }, size_of_val(&ipv6))
    };
    let tuple = &raw mut tuple;
    let (context, length) = (ctx.as_ptr(), length as u32);
    if protocol == PROTOCOL_TCP {
        // SAFETY: the tuple is as long as said; the reference is given back in `held`.
        held(unsafe { bpf_sk_lookup_tcp(context, tuple, length, THIS_NAMESPACE, 0) }, |state| state == LISTEN)
    } else {
        // SAFETY: as above.
        held(unsafe { bpf_sk_lookup_udp(context, tuple, length, THIS_NAMESPACE, 0) }, |_| true)
    }
}

#[inline(always)]
fn held(sock: *mut bpf_sock, fits: impl Fn(u32) -> bool) -> bool {
    if sock.is_null() {
        return false;
    }
    // The kernel holds the socket for us until it is released, here.
    let state = load(field!(sock, state));
    // SAFETY: released once, and not used afterwards.
    unsafe { bpf_sk_release(sock.cast()) };
    fits(state)
}

/// Puts our listener in place of the destination. A mapped address stays mapped: it must take the IPv4 path.
#[inline(always)]
fn rewrite(ctx: &SockAddrContext, fields: Fields, to: &Destination, port: u32) {
    if fields == Fields::V4 {
        ctx.set_v4(LOOPBACK_V4);
    } else if to.form == Form::Mapped as u32 {
        ctx.set_v6(mapped(LOOPBACK_V4));
    } else {
        ctx.set_v6(LOOPBACK_V6);
    }
    ctx.set_port(port);
}
