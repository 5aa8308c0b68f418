//! `tp_btf/sched_process_fork`, `_exec`, `_exit` (Linux 5.5).
//!
//! Strategy: a table of the live captured processes, and an event for each change, so that a connection's process,
//! program, arguments and ancestors are known as they were and not as somebody later finds them. Relies on: fork
//! being called before the child first runs; exec after the new program's arguments are in place and resident;
//! `signal->live` being counted down before exit is called. These hooks cannot refuse.
//! Kernel prototypes: `fork(parent, child)`, `exec(task, old_pid, binprm)`, `exit(task, ...)`.

use aya_ebpf::{
    helpers::{
        bpf_get_current_uid_gid,
        generated::{
            bpf_get_current_cgroup_id, bpf_ktime_get_ns, bpf_probe_read_kernel_str, bpf_probe_read_user,
            bpf_ringbuf_output,
        },
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use interceptor_common::{
    ARGUMENT_BYTES, Counter, EventHead, EventKind, ExecEvent, PATH_BYTES, ProcessKey, ProcessValue,
};

use crate::{
    admission::run_of_caller,
    maps::{EVENTS, PROCESSES, SCRATCH, offset},
    report::count,
    task,
};

/// What precedes the arguments of an exec event.
const FIXED: usize = size_of::<EventHead>() + PATH_BYTES;

#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = ctx.arg::<*const u8>(1) as u64;
    let Some(run) = run_of_caller() else { return 0 };
    if task::pid(child) != task::tgid(child) {
        return 0;
    }
    let head = head(EventKind::Fork, run.run, child);
    keep(&head);
    tell(&head);
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = ctx.arg::<*const u8>(0) as u64;
    let binprm = ctx.arg::<*const u8>(2) as u64;
    let Some(run) = run_of_caller() else { return 0 };
    let head = head(EventKind::Exec, run.run, task);
    keep(&head);
    let Some(event) = SCRATCH.get_ptr_mut(0) else {
        count(Counter::RingLost);
        return 0;
    };
    // SAFETY: this processor's own scratch; tracepoints run with preemption off.
    unsafe { (*event).head = head };
    fill_path(event, binprm);
    let length = fill_arguments(event, task);
    // SAFETY: as above.
    unsafe { (*event).head.argument_bytes = length };
    let size = (FIXED as u64) + u64::from(length);
    // SAFETY: no more than the event is long, which the verifier checks.
    let result = unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast(), size, 0) };
    if result != 0 {
        count(Counter::RingLost);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = ctx.arg::<*const u8>(0) as u64;
    let Some(run) = run_of_caller() else { return 0 };
    let signal: u64 = task::read(task, offset(|o| field!(o, task_signal))).unwrap_or(0);
    let live: i32 = task::read(signal, offset(|o| field!(o, signal_live))).unwrap_or(0);
    if live > 0 {
        return 0;
    }
    let head = head(EventKind::Exit, run.run, task);
    let _ = PROCESSES.remove(&key(&head));
    tell(&head);
    0
}

#[inline(always)]
fn head(kind: EventKind, run: u64, task: u64) -> EventHead {
    let parent = task::parent(task);
    EventHead {
        kind: kind as u32,
        flags: 0,
        run,
        // SAFETY: helpers without arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: as above.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        start_boottime: task::start(task),
        parent_start_boottime: task::start(parent),
        tgid: task::tgid(task),
        parent_tgid: task::tgid(parent),
        uid: bpf_get_current_uid_gid() as u32,
        reason: 0,
        address: [0; 4],
        family: 0,
        port: 0,
        protocol: 0,
        argument_bytes: 0,
    }
}

#[inline(always)]
fn key(head: &EventHead) -> ProcessKey {
    ProcessKey { start_boottime: head.start_boottime, tgid: head.tgid, reserved: 0 }
}

#[inline(always)]
fn keep(head: &EventHead) {
    let value = ProcessValue {
        run: head.run,
        parent_start_boottime: head.parent_start_boottime,
        parent_tgid: head.parent_tgid,
        uid: head.uid,
    };
    if PROCESSES.insert(&key(head), &value, 0).is_err() {
        count(Counter::ProcessFull);
    }
}

#[inline(always)]
fn tell(head: &EventHead) {
    if EVENTS.output::<EventHead>(head, 0).is_err() {
        count(Counter::RingLost);
    }
}

#[inline(always)]
fn fill_path(event: *mut ExecEvent, binprm: u64) {
    let name: u64 = task::read(binprm, offset(|o| field!(o, binprm_filename))).unwrap_or(0);
    // SAFETY: the destination is as long as said; the helper survives any source address.
    let length = unsafe {
        let path = (&raw mut (*event).path).cast();
        bpf_probe_read_kernel_str(path, PATH_BYTES as u32, name as *const _)
    };
    if length <= 0 {
        // SAFETY: the first byte of the path.
        unsafe { (*event).path[0] = 0 };
    }
    if length <= 0 || length == PATH_BYTES as i64 {
        // SAFETY: a field of the scratch.
        unsafe { (*event).head.flags |= EventHead::PATH_CUT };
    }
}

/// Copies the arguments and says how many bytes they are.
#[inline(always)]
fn fill_arguments(event: *mut ExecEvent, task: u64) -> u32 {
    let mm: u64 = task::read(task, offset(|o| field!(o, task_mm))).unwrap_or(0);
    let start: u64 = task::read(mm, offset(|o| field!(o, mm_arg_start))).unwrap_or(0);
    let end: u64 = task::read(mm, offset(|o| field!(o, mm_arg_end))).unwrap_or(0);
    let mut length = end.wrapping_sub(start);
    let mut cut = start == 0 || end < start;
    if length > ARGUMENT_BYTES as u64 {
        length = ARGUMENT_BYTES as u64;
        cut = true;
    }
    // SAFETY: the destination is at least as long as said; the helper survives any source address.
    let result = unsafe {
        let arguments = (&raw mut (*event).arguments).cast();
        bpf_probe_read_user(arguments, length as u32, start as *const _)
    };
    if result != 0 {
        length = 0;
        cut = true;
    }
    if cut {
        // SAFETY: a field of the scratch.
        unsafe { (*event).head.flags |= EventHead::ARGUMENTS_CUT };
    }
    length as u32
}
