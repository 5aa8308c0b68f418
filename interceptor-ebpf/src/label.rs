//! `lsm/...`, `tp_btf/cgroup_attach_task` and `iter/task`: strict labels, where they are asked for.
//!
//! Strategy: a thread of a captured process bears the label of its run, which is the number of the run's cgroup. It has it from
//! whoever made it, from being there when the run became known, or from being moved into it, and keeps it wherever it is
//! moved. As long as the run is known, a thread that bears its label and is not in its cgroup makes no socket, and connects and
//! sends by none: whoever moved it. Relies on: `task_alloc` being called before the new thread runs and `task_free` when nothing
//! of it is left; a task's address being its own meanwhile. Whoever has no room for a label is not made.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_get_current_task,
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};
use interceptor_common::Counter;

use crate::{
    admission::{found_of_caller, is_released},
    context::load,
    maps::{LABELS, RUNS, offset},
    report::{Subject, count, refused},
    task::read,
    within,
};

/// `EPERM`, as a return value.
const NOT_PERMITTED: i32 = -1;
/// `EAGAIN`, as a return value.
const TRY_AGAIN: i32 = -11;

#[inline(always)]
fn caller() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() }
}

/// The label of the caller: its own, or that of its process's first thread, which was moved in before there was one.
#[inline(always)]
fn label_of_caller() -> Option<u64> {
    let own = caller();
    // SAFETY: an entry is a number, which is read at once.
    if let Some(label) = unsafe { LABELS.get(&own) } {
        return Some(*label);
    }
    let leader: u64 = read(own, offset(|o| field!(o, task_group_leader)))?;
    // SAFETY: as above.
    unsafe { LABELS.get(&leader) }.copied()
}

/// What is made now by the caller is of this run: that of its cgroup, or else that of its label, if it is known still.
#[inline(always)]
fn inherited() -> Option<u64> {
    if let Some(found) = found_of_caller() {
        return Some(found.cgroup);
    }
    // SAFETY: only whether there is one is asked.
    label_of_caller().filter(|label| unsafe { RUNS.get(label) }.is_some())
}

/// Whether the label could be given.
#[inline(always)]
fn give(task: u64, label: u64) -> bool {
    let given = LABELS.insert(&task, &label, 0).is_ok();
    if !given {
        count(Counter::LabelFull);
    }
    given
}

#[lsm(hook = "task_alloc")]
pub fn label_fork(ctx: LsmContext) -> i32 {
    let Some(label) = inherited() else { return 0 };
    if give(ctx.arg::<*const u8>(0) as u64, label) { 0 } else { TRY_AGAIN }
}

/// The thread that executes becomes the first of its process, and has its label from itself alone.
#[lsm(hook = "bprm_creds_for_exec")]
pub fn label_exec(_: LsmContext) -> i32 {
    let Some(label) = inherited() else { return 0 };
    if give(caller(), label) { 0 } else { TRY_AGAIN }
}

#[lsm(hook = "task_free")]
pub fn label_end(ctx: LsmContext) -> i32 {
    let _ = LABELS.remove(&(ctx.arg::<*const u8>(0) as u64));
    0
}

/// Whoever is moved into a run has its label from then on. Kernel prototype: `(cgroup, path, task, threadgroup)`.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn label_move(ctx: BtfTracePointContext) -> i32 {
    mark(ctx.arg::<*const u8>(2) as u64);
    0
}

/// What an iterator over all threads is given.
#[repr(C)]
struct Visit {
    _meta: *const c_void,
    task: *const c_void,
}

/// Whoever is in a run when that becomes known. The library has no macro for these.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn label_all(ctx: *mut c_void) -> i32 {
    let task = load(field!(ctx.cast::<Visit>(), task));
    if !task.is_null() {
        mark(task as u64);
    }
    0
}

#[inline(always)]
fn mark(task: u64) {
    if let Some(label) = within::run_of_task(task) {
        let _ = give(task, label);
    }
}

/// Whether the caller bears the label of a run that is known, and is not in its cgroup. Who is in a run's bears its label.
#[inline(always)]
fn is_astray() -> Option<u64> {
    if let Some(found) = found_of_caller() {
        let own = caller();
        // SAFETY: as above.
        if unsafe { LABELS.get(&own) } != Some(&found.cgroup) {
            let _ = give(own, found.cgroup);
        }
        return None;
    }
    let label = label_of_caller()?;
    // SAFETY: user space replaces an entry as a whole.
    unsafe { RUNS.get(&label) }.filter(|run| !is_released(run)).map(|run| run.run)
}

#[inline(always)]
fn answer() -> i32 {
    let Some(run) = is_astray() else { return 0 };
    refused(Counter::RefusedStray, &Subject { run, address: [0; 4], family: 0, port: 0, protocol: 0 });
    NOT_PERMITTED
}

/// What the kernel makes for itself is not the caller's.
#[lsm(hook = "socket_create")]
pub fn label_create(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(3) != 0 { 0 } else { answer() }
}

#[lsm(hook = "socket_connect")]
pub fn label_connect(_: LsmContext) -> i32 {
    answer()
}

#[lsm(hook = "socket_sendmsg")]
pub fn label_send(_: LsmContext) -> i32 {
    answer()
}
