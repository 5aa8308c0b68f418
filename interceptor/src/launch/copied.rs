//! The host's system as a copy of the run's own: what root in the run changes of it is in memory, and gone with the run.
//!
//! Promises: no file of the host's is written through what is shown here, whoever writes, but below the folders that
//! stay the host's own. What cannot be copied so is shown read-only, or not at all. Must never know why a run has it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::mounts::{MountError, empty, failed, folder, read_only, remember, show_again};

/// Made anew in every run, whoever it is.
const NEW: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Where changes go, until nobody can name that place any more.
const SCRATCH: &str = "/run";

/// Lays a copy over each of the root's folders. What is in `but` stays as it is. The root itself is left for
/// [`seal`].
pub(super) fn copy(but: &[PathBuf]) -> Result<(), MountError> {
    let root = Path::new("/");
    let folders = folders().map_err(failed("list", root))?;
    let below = mounts_below(&folders).map_err(failed("list the mounts of", root))?;
    let kept = remember(but.iter().map(PathBuf::as_path))?;
    let below = remember(below.iter().map(PathBuf::as_path))?;
    empty(Path::new(SCRATCH), "mode=700,size=50%")?;
    for (number, folder) in folders.iter().enumerate() {
        lay_over(folder, number)?;
    }
    for (path, file) in &below {
        // One that lies in another came with that, or is not seen there.
        if path.exists() {
            show_again(file, path)?;
            read_only(path)?;
        }
    }
    for (path, file) in &kept {
        show_again(file, path)?;
    }
    // The copies hold it; by its name it is not to be found.
    umount2(SCRATCH, MntFlags::MNT_DETACH).map_err(failed("take away", Path::new(SCRATCH)))
}

/// Has nothing made in the root itself. To be called when everything is in its place: what is mounted from there is read-only from
/// then on.
pub(super) fn seal() -> Result<(), MountError> {
    read_only(Path::new("/"))
}

/// The root's own folders, without links and what is made anew.
fn folders() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && !NEW.iter().any(|new| path == Path::new(new)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// What is mounted below these folders, the outer first.
fn mounts_below(folders: &[PathBuf]) -> io::Result<BTreeSet<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    Ok(points
        .filter(|point| folders.iter().any(|folder| point.starts_with(folder) && point != folder))
        .collect())
}

/// A path as mountinfo has it, where blanks and backslashes are octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (number, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(number, character);
    }
    path.into()
}

/// A copy of `over`, in its place; read-only where its file system takes no copies.
fn lay_over(over: &Path, number: usize) -> Result<(), MountError> {
    let lower = File::open(over).map_err(failed("open", over))?;
    let own = Path::new(SCRATCH).join(number.to_string());
    let [upper, work] = ["upper", "work"].map(|name| own.join(name));
    for made in [&own, &upper, &work] {
        folder(made, 0o700)?;
    }
    // The copy looks as its upper half does.
    let like = lower.metadata().map_err(failed("look at", over))?;
    chown(&upper, Some(like.uid()), Some(like.gid())).map_err(failed("create", &upper))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))
        .map_err(failed("create", &upper))?;
    let options = format!(
        "lowerdir=/proc/self/fd/{},upperdir={},workdir={}",
        lower.as_raw_fd(),
        upper.display(),
        work.display()
    );
    let laid = mount(Some("copy"), over, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()));
    match laid {
        Ok(()) => Ok(()),
        Err(_) => {
            show_again(&lower, over)?;
            read_only(over)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are_written() {
        assert_eq!(unescaped("/a\\040b\\134040"), Path::new("/a b\\040"));
    }
}
