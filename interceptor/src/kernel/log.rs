//! What the programs have to say about themselves: rare, and never on the way of a connection that goes well.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::KernelError;

/// The programs' diagnostics. Its descriptor is readable when there are some.
pub struct KernelLog {
    readable: OwnedFd,
    flush: Box<dyn FnMut() + Send>,
}

impl KernelLog {
    pub(super) fn of(object: &mut Ebpf) -> Result<Self, KernelError> {
        const WHAT: &str = "its programs' diagnostics";
        let mut logger = EbpfLogger::init(object).map_err(KernelError::refused(WHAT))?;
        let readable = logger.as_fd().try_clone_to_owned().map_err(KernelError::refused(WHAT))?;
        Ok(Self { readable, flush: Box::new(move || logger.flush()) })
    }

    /// Passes what there is to the process's log, where the subscriber takes up records of the `log` crate.
    pub fn flush(&mut self) {
        (self.flush)();
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelLog")
    }
}
