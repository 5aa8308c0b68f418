//! The kernel programs, a file per hook. They decide whether a connection is ours and where it was going, never
//! what it may do. Whatever they do not know, they refuse.
#![no_std]
#![no_main]

#[macro_use]
mod context;

mod address;
mod admission;
mod connect;
mod egress;
mod getpeername;
mod guard;
mod guard_kept;
mod guard_unix;
mod ingress;
mod label;
mod layer;
mod maps;
mod post_bind;
mod process;
mod recvmsg;
mod remember;
mod report;
mod sendmsg;
mod setsockopt;
mod sock_create;
mod sock_release;
mod sockops;
mod task;
mod within;

/// The verifier lets only GPL-compatible programs use the tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: every access is checked. It loops because a program must not end in nowhere, and the verifier
/// then refuses any program that could get here.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
