//! The run's own view of the file system: the host's, less every door that leads to a process outside.
//!
//! `/run`, `/tmp`, `/dev`, `/proc` and `/sys` are new; the daemon's places are empty; every named Unix socket that
//! exists on the host when the run begins is covered. Those that others make later in a folder that the run works in are for
//! the [porter](super::porter) to refuse.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use nix::{
    libc,
    mount::{MsFlags, mount},
};

use super::copied;

/// Where the run's own files are, inside the run.
pub(crate) const OWN: &str = "/run/interceptor-run";

/// What to show and to hide.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Folders to show empty: the daemon's places.
    pub(crate) hidden: Vec<PathBuf>,
    /// What stays where it is, should it lie in a folder for temporary files: a folder or a file each.
    pub(crate) kept: Vec<PathBuf>,
    /// Host sockets to cover, from [`named_sockets`].
    pub(crate) sockets: Vec<PathBuf>,
    /// Files to lay over the host's, wherever these exist.
    pub(crate) files: Vec<Overlay>,
    /// Whose the rest is.
    pub(crate) system: System,
}

/// Whose the host's folders are in a run, as far as they are shown as they are.
#[derive(Debug, Clone)]
pub(crate) enum System {
    /// The host's own: the modes of files say who may write there.
    Hosts,
    /// A copy of the run's, but for these folders.
    Copied {
        /// What stays the host's.
        but: Vec<PathBuf>,
    },
}

/// A file with contents of ours.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    /// Its name below [`OWN`].
    pub(crate) name: String,
    /// The paths that show it; those that the host does not have are left out.
    pub(crate) over: Vec<PathBuf>,
    /// What it says.
    pub(crate) contents: Vec<u8>,
}

/// A step that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[error("could not {step} {path}")]
pub(crate) struct MountError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

pub(super) fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> MountError {
    move |source| MountError { step, path: path.to_owned(), source: source.into() }
}

/// Folders whose sockets come and go while a run lives, hidden whole. `/run` is not among them: it is new.
const DOORS: &[&str] = &[
    "/var/lib/mysql",
    "/var/lib/sss/pipes",
    "/var/lib/lxd",
    "/var/lib/incus",
    "/var/snap/lxd/common/lxd",
    "/var/lib/libvirt/qemu",
    "/var/spool/postfix",
    "/var/spool/cron",
    "/var/spool/at",
];

/// Folders for temporary files: of the run's own, since the host's are full of sockets that come and go.
const TEMPORARY: &[&str] = &["/tmp", "/var/tmp"];

/// Folders of `/run` that programs are found through on some distributions.
const KEPT_OF_RUN: &[&str] = &["/run/current-system", "/run/booted-system", "/run/opengl-driver"];

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Makes the calling process's mount namespace, which must be new, into the run's view. The pid, network and
/// cgroup namespaces must be the run's already.
pub(crate) fn furnish(view: &View) -> Result<(), MountError> {
    let root = Path::new("/");
    mount(None::<&str>, root, None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(failed("make private", root))?;
    let kept = remember(KEPT_OF_RUN.iter().map(Path::new))?;
    let kept_of_tmp = remember(view.kept.iter().map(PathBuf::as_path))?;
    if let System::Copied { but } = &view.system {
        copied::copy(but)?;
    }
    new_run(&kept)?;
    new_tmp(&kept_of_tmp)?;
    new_proc()?;
    new_sys()?;
    new_dev()?;
    for path in view.hidden.iter().map(PathBuf::as_path).chain(DOORS.iter().map(Path::new)) {
        if path.is_dir() {
            empty(path, "mode=755,size=4k")?;
            read_only(path)?;
        }
    }
    for path in &view.sockets {
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            bind(Path::new("/dev/null"), path)?;
        }
    }
    let own = Path::new(OWN);
    fs::create_dir(own).map_err(failed("create", own))?;
    view.files.iter().try_for_each(lay)?;
    bind(own, own)?;
    read_only(own)?;
    match &view.system {
        System::Hosts => Ok(()),
        System::Copied { .. } => copied::seal(),
    }
}

/// The absolute paths of every Unix socket that is bound in any network namespace: a name on disk is everybody's.
pub(crate) fn named_sockets() -> io::Result<Vec<PathBuf>> {
    let mut paths = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // What ends meanwhile takes its namespace along, or leaves it to another.
        let Ok(namespace) = fs::read_link(process.join("ns/net")) else { continue };
        if seen.insert(namespace)
            && let Ok(table) = fs::read(process.join("net/unix"))
        {
            let table = String::from_utf8_lossy(&table);
            let lines = table.lines().skip(1);
            paths.extend(lines.filter_map(|line| Some(PathBuf::from(line.get(line.find(" /")? + 1..)?))));
        }
    }
    Ok(paths.into_iter().collect())
}

/// What exists of `paths`, held so that it is found again when something lies over it.
pub(super) fn remember<'a>(
    paths: impl Iterator<Item = &'a Path>,
) -> Result<Vec<(&'a Path, fs::File)>, MountError> {
    use std::os::unix::fs::OpenOptionsExt;
    paths
        .filter(|path| path.exists())
        .map(|path| {
            let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
            Ok((path, file.map_err(failed("open", path))?))
        })
        .collect()
}

/// Shows what was remembered where it was.
pub(super) fn show_again(file: &fs::File, at: &Path) -> Result<(), MountError> {
    use std::os::fd::AsRawFd;
    bind(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), at)
}

/// Empty folders for temporary files, in memory, with what is kept in its place.
fn new_tmp(kept: &[(&Path, fs::File)]) -> Result<(), MountError> {
    let temporary = || TEMPORARY.iter().map(Path::new);
    for path in temporary().filter(|path| path.is_dir()) {
        empty(path, "mode=1777")?;
    }
    let below = |path: &Path| temporary().any(|folder| path.starts_with(folder) && path != folder);
    for (path, file) in kept.iter().filter(|(path, _)| below(path)) {
        // One may lie in another.
        if path.exists() {
            continue;
        }
        let meta = file.metadata().map_err(failed("look at", path))?;
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|path| !path.exists()).collect();
        missing.into_iter().rev().try_for_each(|path| folder(path, 0o755))?;
        if meta.is_dir() {
            folder(path, 0o755)?;
        } else {
            fs::write(path, "").map_err(failed("create", path))?;
        }
        show_again(file, path)?;
    }
    Ok(())
}

fn new_run(kept: &[(&Path, fs::File)]) -> Result<(), MountError> {
    let run = Path::new("/run");
    empty(run, "mode=755,size=16m")?;
    let var_run = Path::new("/var/run");
    if fs::symlink_metadata(var_run).is_ok_and(|meta| meta.is_dir()) {
        bind(run, var_run)?;
    }
    for (name, mode) in [("lock", 0o1777), ("user", 0o755), ("shm", 0o1777)] {
        folder(&run.join(name), mode)?;
    }
    for (path, file) in kept {
        folder(path, 0o755)?;
        show_again(file, path)?;
    }
    Ok(())
}

fn new_proc() -> Result<(), MountError> {
    let proc = Path::new("/proc");
    mount(Some("proc"), proc, Some("proc"), HARMLESS, Some("hidepid=invisible"))
        .map_err(failed("mount a new", proc))?;
    for name in ["bus", "fs", "irq", "sys", "sysrq-trigger", "acpi", "scsi"] {
        let path = proc.join(name);
        if path.exists() {
            bind(&path, &path)?;
            read_only(&path)?;
        }
    }
    for name in
        ["kcore", "kmsg", "keys", "key-users", "latency_stats", "timer_list", "sched_debug", "kallsyms"]
    {
        let path = proc.join(name);
        if path.exists() {
            bind(Path::new("/dev/null"), &path)?;
        }
    }
    Ok(())
}

/// A fresh sysfs has neither bpffs, nor tracing, nor other cgroups on it.
fn new_sys() -> Result<(), MountError> {
    let sys = Path::new("/sys");
    mount(Some("sysfs"), sys, Some("sysfs"), HARMLESS | MsFlags::MS_RDONLY, None::<&str>)
        .map_err(failed("mount a new", sys))?;
    let cgroup = Path::new("/sys/fs/cgroup");
    // In the run's cgroup namespace this is the run's own subtree and no more.
    mount(Some("cgroup2"), cgroup, Some("cgroup2"), HARMLESS, None::<&str>)
        .map_err(failed("mount the run's own", cgroup))?;
    read_only(cgroup)
}

/// Only the devices that every program may expect.
fn new_dev() -> Result<(), MountError> {
    const NODES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
    let dev = Path::new("/dev");
    // Built beside, because its nodes come from the old one.
    let built = Path::new("/run/.dev");
    folder(built, 0o755)?;
    mount(
        Some("dev"),
        built,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("mode=755,size=64k"),
    )
    .map_err(failed("mount a new", dev))?;
    for name in NODES {
        let node = built.join(name);
        fs::write(&node, "").map_err(failed("create", &node))?;
        bind(&dev.join(name), &node)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        folder(&built.join(name), if name == "shm" { 0o1777 } else { 0o755 })?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, built.join(name)).map_err(failed("create", &built.join(name)))?;
    }
    mount(Some(built), dev, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(failed("put in place", dev))?;
    let _ = fs::remove_dir(built);
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let pts = dev.join("pts");
    mount(Some("devpts"), &pts, Some("devpts"), quiet, Some("newinstance,ptmxmode=0666,mode=0620"))
        .map_err(failed("mount a new", &pts))?;
    let shm = dev.join("shm");
    mount(Some("shm"), &shm, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))
        .map_err(failed("mount a new", &shm))?;
    // Not in every kernel; without it there are no message queues, which is no door.
    let _ = mount(Some("mqueue"), &dev.join("mqueue"), Some("mqueue"), HARMLESS, None::<&str>);
    read_only(dev)
}

/// Writes one of the run's own files and shows it over the host's.
fn lay(overlay: &Overlay) -> Result<(), MountError> {
    let source = Path::new(OWN).join(&overlay.name);
    fs::write(&source, &overlay.contents).map_err(failed("write", &source))?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o444)).map_err(failed("write", &source))?;
    for path in &overlay.over {
        let target = destination(path);
        if target.is_file() {
            bind(&source, &target)?;
            read_only(&target)?;
        } else if target.starts_with("/run") && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
        {
            // The link's target was hidden with the old `/run`: give it one again.
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(failed("create", parent))?;
            }
            fs::write(&target, &overlay.contents).map_err(failed("write", &target))?;
        }
    }
    Ok(())
}

/// Where `path` leads, even when nothing is there.
fn destination(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..16 {
        let Ok(link) = fs::read_link(&path) else { break };
        path = normal(&path.parent().unwrap_or(Path::new("/")).join(link));
    }
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path,
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut made = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => made.push(name),
            Component::ParentDir => {
                made.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    made
}

pub(super) fn folder(path: &Path, mode: u32) -> Result<(), MountError> {
    fs::create_dir(path).map_err(failed("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("create", path))
}

pub(super) fn empty(path: &Path, options: &str) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(failed("hide", path))
}

fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(failed("mount over", target))
}

/// Keeps the flags that lock a mount; only adds.
pub(super) fn read_only(path: &Path) -> Result<(), MountError> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let now = statvfs(path).map_err(failed("look at", path))?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if now.contains(has) {
            flags |= keep;
        }
    }
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).map_err(failed("make read-only", path))
}

/// The resolver's settings: any address would do, since every look-up is redirected.
pub(crate) fn name_service() -> Vec<Overlay> {
    let overlay = |name: &str, contents: &str| Overlay {
        name: name.to_owned(),
        over: vec![Path::new("/etc").join(name)],
        contents: contents.as_bytes().to_vec(),
    };
    let switch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    vec![
        overlay("resolv.conf", "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n"),
        overlay("nsswitch.conf", &hosts_by_dns_only(&switch)),
        overlay("hosts", &hosts(&host)),
    ]
}

/// Names of the run itself. Programs look up the host's own name before they do anything else.
fn hosts(host: &str) -> String {
    let own = if host.is_empty() { String::new() } else { format!("127.0.1.1 {host}\n") };
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}")
}

/// The host's order of name services, with host names from files and DNS alone.
fn hosts_by_dns_only(switch: &str) -> String {
    let others = switch.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_come_from_files_and_dns_alone() {
        let switch = "passwd: files systemd\nhosts:  files mdns4 resolve [!UNAVAIL=return] dns\nrpc: db\n";
        assert_eq!(hosts_by_dns_only(switch), "passwd: files systemd\nrpc: db\nhosts: files dns\n");
    }

    #[test]
    fn a_link_into_the_hidden_folder_is_followed_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        let link = folder.path().join("resolv.conf");
        symlink("/var/run/nowhere/../there/stub.conf", &link).expect("link");
        assert_eq!(destination(&link), Path::new("/run/there/stub.conf"));
        assert_eq!(destination(Path::new("/etc/none")), Path::new("/etc/none"));
    }
}
