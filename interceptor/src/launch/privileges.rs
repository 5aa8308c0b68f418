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

/// What a program that is executed afterwards may gain.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gain<'a> {
    /// Nothing, whatever its file says.
    Nothing,
    /// Another user, and these capabilities at most, if its file says so.
    AtMost(&'a [Capability]),
}

/// Becomes `uid` with no other group, no capability but `kept` and no way to any but `gain`. Allocates nothing.
pub(crate) fn drop_all(uid: Uid, gid: Gid, kept: &[Capability], gain: Gain<'_>) -> io::Result<()> {
    let mask = |some: &[Capability]| some.iter().fold(0, |mask, capability| mask | 1 << capability.number());
    let kept = mask(kept);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    syscalls::empty_bounding_set(match gain {
        Gain::Nothing => kept,
        Gain::AtMost(more) => kept | mask(more),
    })?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    // Past the change of user, so that the next step can choose.
    prctl::set_keepcaps(true)?;
    setresuid(uid, uid, uid)?;
    syscalls::keep_capabilities(kept, kept)?;
    syscalls::raise_ambient(kept)?;
    prctl::set_keepcaps(false)?;
    match gain {
        Gain::Nothing => prctl::set_no_new_privs().map_err(io::Error::from),
        Gain::AtMost(_) => Ok(()),
    }
}

/// Leaves a run's first process with the right to signal the agent, and nothing else.
pub(crate) fn keep_kill_only() -> io::Result<()> {
    syscalls::empty_bounding_set(0)?;
    syscalls::keep_capabilities(KILL, 0)?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    Ok(())
}
