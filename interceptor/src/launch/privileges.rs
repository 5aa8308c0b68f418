//! Giving up what the agent, and the daemon's own roles, must not have.

use std::io;

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::syscalls;

/// `CAP_KILL`: all that a run's first process needs, to pass signals on.
const KILL: u32 = 1 << 5;

/// Becomes `uid` with no other group, no capability and no way to any: nothing that is executed afterwards can
/// gain a privilege. Allocates nothing.
pub(crate) fn drop_all(uid: Uid, gid: Gid) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    syscalls::empty_bounding_set()?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    prctl::set_no_new_privs()?;
    syscalls::keep_capabilities(0)
}

/// Leaves a run's first process with the right to signal the agent, and nothing else.
pub(crate) fn keep_kill_only() -> io::Result<()> {
    syscalls::empty_bounding_set()?;
    syscalls::keep_capabilities(KILL)?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    Ok(())
}
