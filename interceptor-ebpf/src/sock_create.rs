//! `cgroup/sock_create` (Linux 4.10).
//!
//! Strategy: a captured process gets TCP and UDP sockets and no others of the Internet families: MPTCP, UDP-Lite,
//! ICMP, SCTP, DCCP and raw sockets are not, or not wholly, seen by the other hooks. Relies on: the protocol being
//! resolved already (0 has become 6 or 17), and on being called for io_uring too. It is not called for other
//! families, which the launcher's system call filter cuts.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use interceptor_common::{Counter, FAMILY_V4, FAMILY_V6, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::{
    admission::run_of_caller,
    context::sock_field,
    report::{Subject, refused},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let family = sock_field(&ctx, |sock| field!(sock, family));
    let kind = sock_field(&ctx, |sock| field!(sock, type_));
    let protocol = sock_field(&ctx, |sock| field!(sock, protocol));
    let known =
        (kind == SOCK_STREAM && protocol == PROTOCOL_TCP) || (kind == SOCK_DGRAM && protocol == PROTOCOL_UDP);
    if known && (family == FAMILY_V4 || family == FAMILY_V6) {
        return 1;
    }
    let run = run_of_caller().map_or(0, |run| run.run);
    refused(Counter::RefusedSocket, &Subject { run, address: [0; 4], family, port: 0, protocol });
    0
}
