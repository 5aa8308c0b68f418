//! `cgroup/sock_release` (Linux 5.9).
//!
//! Strategy: a closed socket's flow is forgotten. The tuple entry stays: a client may be gone before its connection
//! is accepted. Relies on nothing: a socket that the kernel aborts does not come through here, so user space sweeps.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock, programs::SockContext,
};

use crate::remember::forget_cookie;

#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the context that the kernel gave us.
    forget_cookie(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    1
}
