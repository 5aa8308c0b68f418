//! Puts the embedded object into the kernel and its programs onto a cgroup.

use std::{
    error::Error,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, PinnedLink},
    },
};
use interceptor_common::names::{
    CGROUP_PROGRAMS, GUARD_PROGRAMS, KEPT_GUARD, LAYER_OFFSETS, OFFSETS, TRACEPOINT_PROGRAMS,
};

use super::{KernelError, btf, neighbours, sys, unix};

/// The object that `cargo xtask build-ebpf` writes (`build.rs` says which). Aligned, because the parser reads it in
/// place.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("INTERCEPTOR_OBJECT"));

/// A program's link. The program is in force until this is dropped, or for as long as it is pinned.
pub(super) enum Link {
    /// Made by the library.
    Library(FdLink),
    /// Made by us.
    Own(OwnedFd),
}

/// A link that is pinned and held: its program is in force while either lasts.
pub(super) enum Pinned {
    /// Made by the library.
    Library { _held: PinnedLink },
    /// Made by us.
    Own { _held: OwnedFd },
}

impl Link {
    /// Gives the link a name on bpffs.
    pub(super) fn pin(self, path: &Path) -> Result<Pinned, KernelError> {
        let what = || format!("to pin {}", path.display());
        match self {
            Self::Library(link) => {
                let held = link.pin(path).map_err(KernelError::refused(what()))?;
                Ok(Pinned::Library { _held: held })
            }
            Self::Own(link) => {
                sys::pin(&link, path).map_err(KernelError::refused(what()))?;
                Ok(Pinned::Own { _held: link })
            }
        }
    }
}

/// Creates the maps, or takes the pinned ones in `maps`, and reads the programs.
pub(super) fn object(maps: &Path) -> Result<Ebpf, KernelError> {
    let offsets = btf::offsets()?;
    // Where these are not to be had, the programs that read them are not loaded.
    let layer_offsets = btf::layer_offsets().unwrap_or_default();
    EbpfLoader::new()
        .default_map_pin_directory(maps)
        .override_global(OFFSETS, &offsets, true)
        .override_global(LAYER_OFFSETS, &layer_offsets, true)
        .load(OBJECT)
        .map_err(KernelError::refused("the programs' object"))
}

/// The kernel's types, for tracepoints and LSM hooks.
pub(super) fn kernel_types() -> Result<Btf, KernelError> {
    Btf::from_sys_fs().map_err(KernelError::refused("its own type information"))
}

/// Has the verifier look at one program; `point` is the tracepoint, LSM hook or kind of iterator of one that has any.
pub(super) fn verify(program: &mut Program, point: Option<&str>, types: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(point.unwrap_or_default(), types),
        Program::Lsm(program) => program.load(point.unwrap_or_default(), types),
        Program::Iter(program) => program.load(point.unwrap_or_default(), types),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Why a program was refused, in a line.
pub(super) fn explain(error: &ProgramError) -> String {
    match error {
        // The verifier's log can be thousands of lines; its last one says why.
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|line| !line.starts_with("processed")).unwrap_or_default();
            format!("{io_error}; {last}")
        }
        other => crate::telemetry::chain(other),
    }
}

/// Loads and attaches every program to `slice`, and the guards to `root`. The links die with the returned values until they are pinned.
pub(super) fn attach_all(
    object: &mut Ebpf,
    slice: &Path,
    root: &Path,
) -> Result<Vec<(&'static str, Link)>, KernelError> {
    let types = kernel_types()?;
    let (slice, root) = (Target::open(slice)?, Target::open(root)?);
    let captured = CGROUP_PROGRAMS.iter().map(|name| (*name, None, &slice));
    let guards = GUARD_PROGRAMS.iter().map(|name| (*name, None, &root));
    let traced = TRACEPOINT_PROGRAMS.iter().map(|(name, point)| (*name, Some(*point), &slice));
    let mut links = Vec::new();
    for (name, tracepoint, cgroup) in captured.chain(guards).chain(traced) {
        verify(program_of(object, name)?, tracepoint, &types)
            .map_err(KernelError::refused(format!("program {name}")))?;
        links.push((name, linked(object, name, cgroup)?));
    }
    verify(program_of(object, KEPT_GUARD)?, None, &types)
        .map_err(KernelError::refused(format!("program {KEPT_GUARD}")))?;
    links.extend(unix::attach(object, &root.file)?);
    Ok(links)
}

/// Attaches the programs that are chosen by a socket's cgroup to one that is not below the slice. They have been loaded by
/// [`attach_all`].
pub(super) fn attach_to(object: &mut Ebpf, cgroup: &Path) -> Result<Vec<(&'static str, Link)>, KernelError> {
    let cgroup = Target::open(cgroup)?;
    CGROUP_PROGRAMS.iter().map(|name| Ok((*name, linked(object, name, &cgroup)?))).collect()
}

/// Attaches the program that ends what is kept to `root`. It has been loaded by [`attach_all`].
pub(super) fn attach_kept_guard(object: &mut Ebpf, root: &Path) -> Result<Link, KernelError> {
    linked(object, KEPT_GUARD, &Target::open(root)?)
}

/// Attaches a program to where its types say, which is no cgroup. It has been loaded.
pub(super) fn attach_by_type(object: &mut Ebpf, name: &str) -> Result<Link, KernelError> {
    attached_by_type(program_of(object, name)?)
        .map_err(|source| KernelError::Refused { what: format!("a link for {name}"), source })
}

fn attached_by_type(program: &mut Program) -> Result<Link, Box<dyn Error + Send + Sync>> {
    let link = match program {
        Program::BtfTracePoint(program) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        Program::Lsm(program) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    };
    Ok(Link::Library(link))
}

/// Runs an iterator over all that there is. It has been loaded.
pub(super) fn iterate(object: &mut Ebpf, name: &str) -> Result<(), KernelError> {
    let run = |program: &mut Program| -> Result<(), Box<dyn Error + Send + Sync>> {
        let Program::Iter(program) = program else {
            return Err(ProgramError::UnexpectedProgramType.into());
        };
        let id = program.attach()?;
        let mut file = program.take_link(id)?.into_file()?;
        // It says nothing: reading makes it go on to the end.
        io::copy(&mut file, &mut io::sink())?;
        Ok(())
    };
    run(program_of(object, name)?)
        .map_err(|source| KernelError::Refused { what: format!("to run {name}"), source })
}

/// A cgroup that programs are attached to.
struct Target<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Target<'a> {
    fn open(path: &'a Path) -> Result<Self, KernelError> {
        Ok(Self { path, file: File::open(path).map_err(KernelError::place("open", path))? })
    }
}

fn linked(object: &mut Ebpf, name: &str, cgroup: &Target<'_>) -> Result<Link, KernelError> {
    attach(program_of(object, name)?, &cgroup.file).map_err(|source| {
        let neighbour = neighbours::in_the_way(cgroup.path).ok().flatten();
        neighbour.unwrap_or_else(|| KernelError::Refused {
            what: format!("a link for {name} at {}", cgroup.path.display()),
            source,
        })
    })
}

pub(super) fn program_of<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, KernelError> {
    object.program_mut(name).ok_or_else(|| KernelError::Refused {
        what: format!("program {name}"),
        source: "the object does not have it: rebuild it with `cargo xtask build-ebpf`".into(),
    })
}

/// The other attach modes are refused for links; the kernel then lets programs of other owners run as well.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn attach(program: &mut Program, cgroup: &File) -> Result<Link, Box<dyn Error + Send + Sync>> {
    macro_rules! to_cgroup {
        ($program:ident) => {{
            let id = $program.attach(cgroup, MODE)?;
            $program.take_link(id)?.try_into()?
        }};
    }
    let link = match program {
        Program::CgroupSkb(program) => {
            let way = program.expected_attach_type().ok_or("the object does not say which way it filters")?;
            let id = program.attach(cgroup, way, MODE)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => to_cgroup!(program),
        Program::CgroupSockAddr(program) => to_cgroup!(program),
        Program::SockOps(program) => to_cgroup!(program),
        Program::CgroupSockopt(program) => {
            let program = program.fd()?.as_fd();
            return Ok(Link::Own(sys::link(program, cgroup.as_fd(), sys::SETSOCKOPT)?));
        }
        program => return attached_by_type(program),
    };
    Ok(Link::Library(link))
}
