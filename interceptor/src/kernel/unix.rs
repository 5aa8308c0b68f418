//! The guard of Unix sockets, whose hooks (Linux 6.7) the library does not know: its program is loaded here.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, generated::bpf_insn};
use interceptor_common::names::{UNIX_LINKS, UNIX_PROGRAM};

use super::{KernelError, load, sys};

/// Whether this kernel has the hooks: it refuses a program for a hook that it does not know, whatever the program does.
pub(super) fn is_known() -> Result<bool, KernelError> {
    let registers = || bpf_insn::new_bitfield_1(0, 0);
    let instruction =
        |code, imm| bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers(), off: 0, imm };
    let allow = [instruction(sys::MOVE, 1), instruction(sys::EXIT, 0)];
    UNIX_LINKS.iter().try_fold(true, |known, (name, attach_type)| {
        match sys::load(name, &allow, *attach_type) {
            Ok(_) => Ok(known),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(KernelError::refused(format!("to say whether there is {name}"))(error)),
        }
    })
}

/// Loads the program for each of its hooks and attaches it to `root`; nothing where the kernel has no such hooks.
pub(super) fn attach(object: &Ebpf, root: &File) -> Result<Vec<(&'static str, load::Link)>, KernelError> {
    if !is_known()? {
        return Ok(Vec::new());
    }
    let links = loaded(object)?.into_iter().map(|(name, attach_type, program)| {
        let link = sys::link(program.as_fd(), root.as_fd(), attach_type)
            .map_err(KernelError::refused(format!("a link for {name}")))?;
        Ok((name, load::Link::Own(link)))
    });
    links.collect()
}

/// Has the verifier look at the program for each of its hooks.
pub(super) fn loaded(object: &Ebpf) -> Result<Vec<(&'static str, u32, OwnedFd)>, KernelError> {
    let refused = || KernelError::refused(format!("program {UNIX_PROGRAM}"));
    let instructions = instructions(object).map_err(refused())?;
    let each = UNIX_LINKS.iter().map(|(name, attach_type)| {
        let program = sys::load(name, &instructions, *attach_type);
        Ok((*name, *attach_type, program.map_err(refused())?))
    });
    each.collect()
}

/// The program's instructions, with the maps that `object` has.
fn instructions(object: &Ebpf) -> Result<Vec<bpf_insn>, io::Error> {
    let mut parsed = Object::parse(load::OBJECT).map_err(io::Error::other)?;
    let text = parsed.functions.keys().map(|(section, _)| *section).collect();
    let maps = parsed.maps.clone();
    // One that somebody has taken out is none of this program's: the kernel would refuse it.
    let number = |name: &str| object.map(name).and_then(descriptor).map_or(-1, |fd| fd.as_raw_fd());
    parsed
        .relocate_maps(maps.iter().map(|(name, map)| (name.as_str(), number(name), map)), &text)
        .map_err(io::Error::other)?;
    parsed.relocate_calls(&text).map_err(io::Error::other)?;
    let key = parsed.programs.get(UNIX_PROGRAM).map(|program| program.function_key());
    let function = key.and_then(|key| parsed.functions.remove(&key));
    let function = function.ok_or_else(|| {
        io::Error::other("the object does not have it: rebuild it with `cargo xtask build-ebpf`")
    })?;
    Ok(function.instructions)
}

/// The descriptor of a map of one of the kinds that we have.
fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(map) | Map::HashMap(map) | Map::PerCpuArray(map) | Map::RingBuf(map) => {
            Some(map.fd().as_fd())
        }
        _ => None,
    }
}
