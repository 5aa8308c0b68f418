//! Giving up what the agent, and the daemon's own roles, must not have.

use std::io;

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::{Capability, syscalls};

/// `CAP_KILL`: all that a run's first process needs, to pass signals on.
const KILL: u32 = 1 << 5;

/// Becomes `uid` with no other group, no capability but `kept` and no way to any: nothing that is executed afterwards
/// can gain a privilege. Allocates nothing.
pub(crate) fn drop_all(uid: Uid, gid: Gid, kept: &[Capability]) -> io::Result<()> {
    let kept = kept.iter().fold(0, |mask, capability| mask | 1 << capability.number());
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    syscalls::empty_bounding_set(kept)?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    // Past the change of user, so that the next step can choose.
    prctl::set_keepcaps(true)?;
    setresuid(uid, uid, uid)?;
    syscalls::keep_capabilities(kept, kept)?;
    syscalls::raise_ambient(kept)?;
    prctl::set_keepcaps(false)?;
    prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Leaves a run's first process with the right to signal the agent, and nothing else.
pub(crate) fn keep_kill_only() -> io::Result<()> {
    syscalls::empty_bounding_set(0)?;
    syscalls::keep_capabilities(KILL, 0)?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    Ok(())
}
