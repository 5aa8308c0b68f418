//! What a role that sees secrets takes from itself before it sees the first one.

use nix::{
    errno::Errno,
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl::set_dumpable,
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    },
};

/// What could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardened {
    /// Whether memory never goes to swap. Needs `RLIMIT_MEMLOCK` unlimited when the role starts: with less, locking
    /// would make ordinary allocations fail later.
    pub memory_locked: bool,
}

/// Forbids core dumps, and tracing and reading of our memory by processes of the same user; locks memory where the
/// limit allows it. To be called after the last change of user and the last `exec`, both of which undo it.
pub fn harden() -> Result<Hardened, Errno> {
    set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (soft, _hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    // Page by page as they are touched: the journal's mapping need not be in memory all at once.
    let when_touched = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | when_touched;
    let memory_locked = soft == RLIM_INFINITY && mlockall(flags).is_ok();
    Ok(Hardened { memory_locked })
}
