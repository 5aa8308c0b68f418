//! The two futex calls by which a producer wakes a keeper that sleeps, across processes.

use std::{ptr, sync::atomic::AtomicU32, time::Duration};

/// Sleeps while `word` is `expected`, at most for `timeout`. May return early; the caller looks again.
pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let time = libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // SAFETY: `word` is a live, aligned 32-bit word, `time` outlives the call, and the kernel only reads both. Any
    // error (EAGAIN, EINTR, ETIMEDOUT) means: look again.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, ptr::from_ref(&time));
    }
}

/// Wakes whoever sleeps on `word`.
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: `word` is a live, aligned 32-bit word; the kernel uses its address only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}
