//! `cgroup/setsockopt` (Linux 5.3).
//!
//! Strategy: options that send packets another way than to their destination, or that change what a socket is, are
//! refused. Relies on: being called before the option takes effect. Control messages of sendmsg(2) do not come
//! through here: the egress hook is the backstop.

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use interceptor_common::Counter;

use crate::{
    admission::run_of_caller,
    context::load,
    report::{Subject, refused},
};

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;
/// `TCP_ULP`: allowed for "tls" alone.
const TCP_ULP: i32 = 31;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    let level = load(field!(ctx.sockopt, level));
    let name = load(field!(ctx.sockopt, optname));
    let allowed = match level {
        SOL_TCP if name == TCP_ULP => is_tls(&ctx),
        _ => !is_denied(level, name),
    };
    if allowed {
        return 1;
    }
    let run = run_of_caller().map_or(0, |run| run.run);
    let subject = Subject { run, address: [0; 4], family: 0, port: name as u32, protocol: level as u32 };
    refused(Counter::RefusedOption, &subject);
    0
}

#[inline(always)]
fn is_denied(level: i32, name: i32) -> bool {
    match level {
        // SO_BINDTODEVICE, SO_MARK, SO_BINDTOIFINDEX
        SOL_SOCKET => matches!(name, 25 | 36 | 62),
        // IP_HDRINCL, IP_OPTIONS, IP_TRANSPARENT, IP_UNICAST_IF
        SOL_IP => matches!(name, 3 | 4 | 19 | 50),
        // 2292HOPOPTS, 2292DSTOPTS, 2292RTHDR, 2292PKTOPTIONS, HDRINCL, PKTINFO (sticky), HOPOPTS,
        // RTHDRDSTOPTS, RTHDR, DSTOPTS, TRANSPARENT, UNICAST_IF
        SOL_IPV6 => matches!(name, 3 | 4 | 5 | 6 | 36 | 50 | 54 | 55 | 57 | 59 | 75 | 76),
        // TCP_REPAIR
        SOL_TCP => name == 19,
        // UDP_ENCAP
        SOL_UDP => name == 100,
        _ => false,
    }
}

#[inline(always)]
fn is_tls(ctx: &SockoptContext) -> bool {
    // SAFETY: the unions' only members with a meaning.
    let start = load(field!(ctx.sockopt, __bindgen_anon_2.optval)).cast::<u8>();
    let end = load(field!(ctx.sockopt, __bindgen_anon_3.optval_end)).cast::<u8>();
    let length = load(field!(ctx.sockopt, optlen));
    if start.wrapping_add(3) > end || !(3..=4).contains(&length) {
        return false;
    }
    // SAFETY: three bytes are there, as just checked.
    let text = unsafe { [*start, *start.add(1), *start.add(2)] };
    text[0] == b't' && text[1] == b'l' && text[2] == b's'
}
