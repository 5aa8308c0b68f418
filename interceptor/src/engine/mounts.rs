//! What of the host a container shows: files below the run's working folder, found as they are now.
//!
//! The engine was told paths, which the run may have made lead elsewhere since. So each is opened below the folder, as the
//! kernel resolves it there and nowhere else, and what was opened is what is mounted, in a mount namespace that goes with
//! whoever makes the container.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, fstat},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
}

/// Why something is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unshown {
    /// The run has put something else in its place.
    #[error("{0} is not the folder any more that the run was launched in")]
    Another(PathBuf),
    /// Something that is not below the folder, or neither a folder nor a file.
    #[error(
        "{0} cannot be shown: {1}; bind a folder or a file that is below the run's folder, links included"
    )]
    Unfit(PathBuf, &'static str),
    /// A step failed.
    #[error("could not {0} {1}")]
    Step(&'static str, PathBuf, #[source] io::Error),
}

fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Unshown {
    move |error| Unshown::Step(what, path.to_owned(), error.into())
}

/// Gives this process mounts of its own, and shows there what `paths` are below the folder `working`, which lies at `at`; says
/// where, in the same order. What the host unmounts goes from here, too.
pub(super) fn stage(
    working: BorrowedFd<'_>,
    at: &Path,
    paths: &[&Path],
    bundle: &Path,
) -> Result<Vec<PathBuf>, Unshown> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("leave the mounts of", Path::new("/")))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(failed("keep to itself the mounts of", Path::new("/")))?;
    let staging = bundle.join("interceptor");
    fs::DirBuilder::new().mode(0o700).create(&staging).map_err(failed("create", &staging))?;
    // By its name, since what is mounted must come from these mounts; the launcher's own says whether it is that.
    let folder = same(working, at)?;
    let staged = paths.iter().enumerate().map(|(number, path)| {
        let (file, kind) = open(folder.as_fd(), at, path)?;
        let place = staging.join(number.to_string());
        match kind {
            Kind::Folder => fs::create_dir(&place),
            Kind::File => fs::File::create_new(&place).map(drop),
        }
        .map_err(failed("create", &place))?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(source.as_str()), &place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(failed("mount", path))?;
        Ok(place)
    });
    staged.collect()
}

/// The folder at `at`, if it is `working`.
fn same(working: BorrowedFd<'_>, at: &Path) -> Result<OwnedFd, Unshown> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(at, flags, Mode::empty()).map_err(failed("open", at))?;
    let (wanted, found) = (fstat(working), fstat(&opened));
    let (wanted, found) = (wanted.map_err(failed("look at", at))?, found.map_err(failed("look at", at))?);
    if (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino) {
        Ok(opened)
    } else {
        Err(Unshown::Another(at.to_owned()))
    }
}

/// Opens what `path` is below `folder`, which lies at `at`.
fn open(folder: BorrowedFd<'_>, at: &Path, path: &Path) -> Result<(OwnedFd, Kind), Unshown> {
    let below = path.strip_prefix(at).map_err(|_| Unshown::Unfit(path.to_owned(), "it is elsewhere"))?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(folder, below, how) {
        Err(Errno::EXDEV | Errno::ELOOP) => {
            return Err(Unshown::Unfit(path.to_owned(), "it leads out of the run's folder"));
        }
        opened => opened.map_err(failed("open", path))?,
    };
    let mode = fstat(&file).map_err(failed("look at", path))?.st_mode;
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Ok((file, Kind::Folder)),
        SFlag::S_IFREG => Ok((file, Kind::File)),
        _ => Err(Unshown::Unfit(path.to_owned(), "it is neither a folder nor a file")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_leads_out_of_the_folder_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        fs::create_dir(at.join("in")).expect("own folder");
        fs::write(at.join("in/file"), "x").expect("own folder");
        symlink("in", at.join("link")).expect("own folder");
        symlink("/etc", at.join("out")).expect("own folder");
        symlink("../../etc", at.join("up")).expect("own folder");
        let opened = fs::File::open(at).expect("own folder");
        let kind = |name: &str| open(opened.as_fd(), at, &at.join(name)).map(|(_, kind)| kind).ok();
        assert_eq!(kind(""), Some(Kind::Folder));
        assert_eq!(kind("in/file"), Some(Kind::File));
        assert_eq!(kind("link/file"), Some(Kind::File), "links that stay below it are the run's affair");
        for out in ["out", "out/passwd", "up", "missing", "in/../../etc"] {
            assert_eq!(kind(out), None, "{out}");
        }
        assert!(same(opened.as_fd(), at).is_ok());
        assert!(matches!(same(opened.as_fd(), &at.join("in")), Err(Unshown::Another(_))));
        assert!(open(opened.as_fd(), at, Path::new("/etc")).is_err());
    }
}
