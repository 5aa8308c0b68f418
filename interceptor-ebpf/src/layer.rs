//! `lsm/...`: what no hook of a cgroup sees (Linux 6.1, where BPF LSM is switched on at boot; elsewhere these are not loaded,
//! and nothing else relies on them).
//!
//! Strategy: a run with a network of its own has a view of its own, too, and a filter of system calls, which close the
//! same ways. A run without has neither: so its processes are refused here what would reach past the hooks of its sockets, or
//! into processes outside. What was there before its capture is left as it is: these see what is done, not what is had.
//! Sockets that somebody passes are refused to every run. Relies on: the caller's cgroup; Linux calling capabilities before
//! us, so that the rights of a program are known; no LSM program getting the word back that another one's "no" was.

use aya_ebpf::{helpers::generated::bpf_get_current_task, macros::lsm, programs::LsmContext};
use interceptor_common::{Counter, FAMILY_V4, FAMILY_V6, RunConfig};

use crate::{
    admission::{Found, found_of_caller, is_released},
    maps::layer_offset,
    report::{Subject, refused},
    task::{self, read},
    within,
};

/// `EPERM`, as a return value.
const NOT_PERMITTED: i32 = -1;
/// `ECONNREFUSED`, as a return value.
const CONNECTION_REFUSED: i32 = -111;
/// `AF_UNIX`
const FAMILY_UNIX: u32 = 1;
/// `AF_NETLINK`, whose protocol 0 is routing.
const FAMILY_NETLINK: u32 = 16;
/// The kind of a file (`S_IFMT`), and that of a socket.
const KIND: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;
/// `PTRACE_MODE_NOAUDIT`: the kernel asks by itself what to show, as for every line of `ps`.
const UNASKED: u32 = 4;
/// `TIOCSTI` and `TIOCLINUX`
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// The run of the caller, if it has no network of its own, and root has not let go of it.
#[inline(always)]
fn exposed() -> Option<Found> {
    found_of_caller().filter(|found| found.run.flags & RunConfig::OWN_NETNS == 0 && !is_released(found.run))
}

/// Counts, tells, and gives what the call fails with.
#[inline(always)]
fn refuse(found: &Found, reason: Counter, (family, number): (u32, u32), errno: i32) -> i32 {
    let subject = Subject { run: found.run.run, address: [0; 4], family, port: number, protocol: 0 };
    refused(reason, &subject);
    errno
}

/// Families that the hooks see, Unix, and routing. What the kernel makes for itself is not the caller's.
#[lsm(hook = "socket_create")]
pub fn layer_family(ctx: LsmContext) -> i32 {
    let family: u32 = ctx.arg(0);
    let protocol: u32 = ctx.arg(2);
    let for_kernel: u32 = ctx.arg(3);
    let is_seen = match family {
        FAMILY_UNIX | FAMILY_V4 | FAMILY_V6 => true,
        FAMILY_NETLINK => protocol == 0,
        _ => false,
    };
    if is_seen || for_kernel != 0 {
        return 0;
    }
    let Some(found) = exposed() else { return 0 };
    refuse(&found, Counter::RefusedFamily, (family, family), NOT_PERMITTED)
}

/// A stream, or a sequence of packets, to a listener: by its path, its name, or an open file.
#[lsm(hook = "unix_stream_connect")]
pub fn layer_connect(ctx: LsmContext) -> i32 {
    reach(Some(ctx.arg::<*const u8>(1) as u64))
}

/// Each datagram, and each connection of a socket for datagrams.
#[lsm(hook = "unix_may_send")]
pub fn layer_send(ctx: LsmContext) -> i32 {
    reach(within::sock(ctx.arg::<*const u8>(1) as u64))
}

/// A Unix socket is the run's own, or one that root has left open to all runs, such as that of the host's log.
#[inline(always)]
fn reach(sock: Option<u64>) -> i32 {
    let Some(found) = exposed() else { return 0 };
    if sock.is_some_and(|sock| within::made_sock(&found, sock) || within::is_open(sock)) {
        return 0;
    }
    refuse(&found, Counter::RefusedPeer, (FAMILY_UNIX, 0), CONNECTION_REFUSED)
}

/// A file that comes by a message, or is taken out of another process. The caller is who gets it.
#[lsm(hook = "file_receive")]
pub fn layer_receive(ctx: LsmContext) -> i32 {
    let file = ctx.arg::<*const u8>(0) as u64;
    let inode = read(file, layer_offset(|o| field!(o, file_inode)));
    let mode = inode.and_then(|inode: u64| read(inode, layer_offset(|o| field!(o, inode_mode))));
    if mode.is_some_and(|mode: u16| mode & KIND != SOCKET) {
        return 0;
    }
    let Some(found) = found_of_caller().filter(|found| !is_released(found.run)) else { return 0 };
    let sock = read(file, layer_offset(|o| field!(o, file_private))).and_then(within::sock);
    if sock.is_some_and(|sock| within::made_sock(&found, sock)) {
        return 0;
    }
    refuse(&found, Counter::RefusedPassed, (0, 0), NOT_PERMITTED)
}

/// ptrace(2), process_vm_writev(2), pidfd_getfd(2), and what of `/proc` shows or changes a process. Not asked for a process's
/// own threads.
#[lsm(hook = "ptrace_access_check")]
pub fn layer_trace(ctx: LsmContext) -> i32 {
    let Some(found) = exposed() else { return 0 };
    let target = ctx.arg::<*const u8>(0) as u64;
    if within::has_task(&found, target) {
        return 0;
    }
    if ctx.arg::<u32>(1) & UNASKED != 0 {
        return NOT_PERMITTED;
    }
    refuse(&found, Counter::RefusedTrace, (0, task::tgid(target)), NOT_PERMITTED)
}

/// The file of a ring of io_uring, which has a name of its own among those that have none.
#[lsm(hook = "inode_init_security_anon")]
pub fn layer_ring(ctx: LsmContext) -> i32 {
    let name = ctx.arg::<*const u8>(1) as u64;
    let text = read(name, layer_offset(|o| field!(o, qstr_name))).unwrap_or(0);
    let (start, end): (Option<u64>, Option<u16>) = (read(text, 0), read(text, 8));
    if start != Some(u64::from_ne_bytes(*b"[io_urin")) || end != Some(u16::from_ne_bytes(*b"g]")) {
        return 0;
    }
    let Some(found) = exposed() else { return 0 };
    refuse(&found, Counter::RefusedRing, (0, 0), NOT_PERMITTED)
}

/// Who somebody acts as, and may do.
struct Rights {
    user: u32,
    group: u32,
    permitted: u64,
}

impl Rights {
    /// Those that a `struct cred` has, which a structure names.
    #[inline(always)]
    fn at(base: u64, offset: u32) -> Option<Self> {
        let cred: u64 = read(base, offset)?;
        Some(Self {
            user: read(cred, layer_offset(|o| field!(o, cred_euid)))?,
            group: read(cred, layer_offset(|o| field!(o, cred_egid)))?,
            permitted: read(cred, layer_offset(|o| field!(o, cred_permitted)))?,
        })
    }

    #[inline(always)]
    fn are_within(&self, own: &Self) -> bool {
        self.user == own.user && self.group == own.group && self.permitted & !own.permitted == 0
    }
}

/// A program that is about to be executed, when its rights are known and nothing is changed yet.
#[lsm(hook = "bprm_creds_from_file")]
pub fn layer_rights(ctx: LsmContext) -> i32 {
    let Some(found) = exposed() else { return 0 };
    let binprm = ctx.arg::<*const u8>(0) as u64;
    // SAFETY: no arguments.
    let caller = unsafe { bpf_get_current_task() };
    let future = Rights::at(binprm, layer_offset(|o| field!(o, binprm_cred)));
    let own = Rights::at(caller, layer_offset(|o| field!(o, task_cred)));
    if let (Some(future), Some(own)) = (future, own)
        && future.are_within(&own)
    {
        return 0;
    }
    refuse(&found, Counter::RefusedRights, (0, 0), NOT_PERMITTED)
}

#[lsm(hook = "file_ioctl")]
pub fn layer_typing(ctx: LsmContext) -> i32 {
    typing(ctx.arg(1))
}

/// For 32-bit programs, on kernels that ask about them by themselves (6.8, and older ones that were mended).
#[lsm(hook = "file_ioctl_compat")]
pub fn layer_typing_compat(ctx: LsmContext) -> i32 {
    typing(ctx.arg(1))
}

#[inline(always)]
fn typing(request: u32) -> i32 {
    if request != TYPING[0] && request != TYPING[1] {
        return 0;
    }
    let Some(found) = exposed() else { return 0 };
    refuse(&found, Counter::RefusedTyping, (0, 0), NOT_PERMITTED)
}
