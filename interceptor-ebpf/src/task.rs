//! Reads of `task_struct`, at the offsets that user space found in the kernel's own type information.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::offset;

/// Reads a value at `base + offset` in kernel memory.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as long as said; the helper survives any source address.
    let result = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast::<c_void>(),
            size_of::<T>() as u32,
            base.wrapping_add(u64::from(offset)) as *const c_void,
        )
    };
    // SAFETY: the helper filled it, and only integers are read.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// The thread group id of a task.
#[inline(always)]
pub fn tgid(task: u64) -> u32 {
    read(task, offset(|o| field!(o, task_tgid))).unwrap_or(0)
}

/// The thread id of a task.
#[inline(always)]
pub fn pid(task: u64) -> u32 {
    read(task, offset(|o| field!(o, task_pid))).unwrap_or(0)
}

/// When the process that a task belongs to started; 0 when it cannot be read.
#[inline(always)]
pub fn start(task: u64) -> u64 {
    let leader = read(task, offset(|o| field!(o, task_group_leader))).unwrap_or(0);
    read(leader, offset(|o| field!(o, task_start_boottime))).unwrap_or(0)
}

/// The task that made this one, or that inherited it.
#[inline(always)]
pub fn parent(task: u64) -> u64 {
    read(task, offset(|o| field!(o, task_real_parent))).unwrap_or(0)
}

/// When the calling process started.
#[inline(always)]
pub fn current_start() -> u64 {
    // SAFETY: no arguments.
    start(unsafe { bpf_get_current_task() })
}
