//! What a machine boots into: archives one behind the other, which its kernel unpacks into memory. First the
//! distribution's programs with their libraries, as they are installed here, then the kernel's modules, then this build,
//! without what only a debugger reads.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::kernel::Unpacked;
use crate::{
    cargo::{shown, succeed, target},
    setup,
};

/// What of the distribution's is in a machine.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
    "libc-bin",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "mount",
    "netbase",
    "nftables",
    "passwd",
    "procps",
    "python3-minimal",
    "python3.11-minimal",
    "sed",
    "tzdata",
    "util-linux",
];

/// What is in there besides packages: links that the distribution's layout is made of, and a file that is made when its
/// package is installed.
const BESIDES: &[&str] = &["/bin", "/sbin", "/lib", "/lib64", "/etc/ssl/certs/ca-certificates.crt"];

/// Parts of packages that nothing in a machine reads. PostgreSQL's compiler needs a library larger than all the rest.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/info/",
    "/usr/share/ca-certificates/",
    "/usr/share/perl5/",
    "/llvmjit",
    "/bitcode/",
];

const INIT: &str = include_str!("init.sh");

/// Whom a machine knows.
const USERS: &str = "\
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
postgres:x:101:101::/var/lib/postgresql:/bin/bash
";
const GROUPS: &str = "\
root:x:0:
tty:x:5:
postgres:x:101:
nogroup:x:65534:
";
const NAMES: &str = "127.0.0.1 localhost machine\n::1 localhost\n";
const SOURCES_OF_NAMES: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// What a machine is made of.
pub(super) struct Image<'a> {
    /// See [`distribution`].
    pub(super) distribution: &'a Path,
    pub(super) kernel: &'a Unpacked,
    /// Programs of this build; each lies in the machine where it lies here.
    pub(super) programs: &'a [&'a Path],
    /// Lines for a shell.
    pub(super) task: &'a str,
}

impl Image<'_> {
    /// Writes it to a file in `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("image.cpio");
        let build = self.build(folder)?;
        let mut image = File::create(&path).with_context(|| format!("{}", path.display()))?;
        for part in [self.distribution, &self.kernel.modules, &build] {
            io::copy(&mut File::open(part).with_context(|| format!("{}", part.display()))?, &mut image)?;
        }
        fs::remove_file(build)?;
        Ok(path)
    }

    /// An archive of what is made anew each time.
    fn build(&self, folder: &Path) -> Result<PathBuf> {
        let root = folder.join("root");
        for place in ["dev", "etc", "home", "host", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp"]
        {
            fs::create_dir_all(root.join(place))?;
        }
        fs::set_permissions(root.join("var/tmp"), Permissions::from_mode(0o1777))?;
        for (name, text) in [
            ("init", INIT),
            ("task", self.task),
            ("etc/passwd", USERS),
            ("etc/group", GROUPS),
            ("etc/hostname", "machine\n"),
            ("etc/hosts", NAMES),
            ("etc/nsswitch.conf", SOURCES_OF_NAMES),
        ] {
            fs::write(root.join(name), text)?;
        }
        fs::set_permissions(root.join("init"), Permissions::from_mode(0o755))?;
        for program in self.programs {
            let copy = root.join(program.strip_prefix("/").context("a program's path is whole")?);
            fs::create_dir_all(copy.parent().unwrap_or(&root))?;
            succeed(Command::new("strip").arg("--strip-all").arg("-o").arg(&copy).arg(program))?;
        }
        let archive = folder.join("build.cpio");
        archive_all(&root, &archive)?;
        fs::remove_dir_all(root)?;
        Ok(archive)
    }
}

/// The archive of the distribution's programs, made anew when one of them has another version.
pub(super) fn distribution() -> Result<PathBuf> {
    let folder = target()?.join("vm/distribution");
    let postgres = setup::postgres_packages()?;
    let packages: Vec<&str> = PACKAGES.iter().copied().chain(postgres.iter().map(String::as_str)).collect();
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${Version}\\n"]).args(&packages);
    let versions = said(&mut query)?;
    let mut wanted: Vec<&str> = versions.lines().collect();
    wanted.extend(BESIDES.iter().chain(LEFT_OUT));
    setup::once(&folder, &wanted, |folder| {
        fs::create_dir_all(folder)?;
        archive(Path::new("/"), &files(&packages)?, &folder.join("distribution.cpio"))
    })?;
    Ok(folder.join("distribution.cpio"))
}

/// Every file of the packages, and the libraries that they load.
fn files(packages: &[&str]) -> Result<BTreeSet<PathBuf>> {
    let listed = said(Command::new("dpkg-query").arg("--listfiles").args(packages))?;
    let is_wanted = |line: &&str| line.starts_with('/') && !LEFT_OUT.iter().any(|part| line.contains(part));
    let own: Vec<PathBuf> = listed.lines().filter(is_wanted).map(PathBuf::from).collect();
    let programs = own.iter().filter(|path| is_program(path));
    let mut ldd = Command::new("ldd");
    // It complains of what is linked to nothing.
    let loaded = ldd.args(programs).stderr(Stdio::null()).output().with_context(|| "ldd")?;
    let loaded = String::from_utf8(loaded.stdout).context("libraries")?;
    let loaded = loaded.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let mut all = BTreeSet::new();
    for path in
        own.into_iter().chain(loaded.map(PathBuf::from)).chain(BESIDES.iter().copied().map(PathBuf::from))
    {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            continue;
        }
        // Where a folder on the way is a link, the link is an entry of its own.
        let real = path.canonicalize().ok().filter(|_| found.is_symlink());
        for path in
            [Some(path), real].into_iter().flatten().filter(|path| !path.is_dir() || found.is_symlink())
        {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            all.insert(folder.canonicalize()?.join(name));
        }
    }
    Ok(all)
}

fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
        && File::open(path).is_ok_and(|mut file| io::Read::read_exact(&mut file, &mut magic).is_ok())
        && magic == *b"\x7fELF"
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(command))?;
    ensure!(output.status.success(), "`{}` failed", shown(command));
    String::from_utf8(output.stdout).with_context(|| shown(command))
}

/// Writes an archive of everything in `root`.
pub(super) fn archive_all(root: &Path, archive_path: &Path) -> Result<()> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    let names = found.iter().filter_map(|path| path.strip_prefix(root).ok());
    archive(root, &names.map(|name| Path::new("/").join(name)).collect(), archive_path)
}

/// Writes an archive of files below `root`, named from there, with the folders that they are in, all root's.
fn archive(root: &Path, files: &BTreeSet<PathBuf>, archive_path: &Path) -> Result<()> {
    let with_folders = files.iter().flat_map(|path| path.ancestors());
    // In their order a folder comes before what is in it.
    let names: BTreeSet<&OsStr> = with_folders
        .filter_map(|path| path.strip_prefix("/").ok())
        .map(Path::as_os_str)
        .filter(|name| !name.is_empty())
        .collect();
    let archive = File::create(archive_path).with_context(|| format!("{}", archive_path.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--owner=0:0", "--quiet", "--null"]).current_dir(root);
    let mut child = cpio.stdin(Stdio::piped()).stdout(archive).spawn().with_context(|| shown(&cpio))?;
    let mut input = child.stdin.take().context("no input")?;
    for name in names {
        input.write_all(name.as_bytes())?;
        input.write_all(b"\0")?;
    }
    drop(input);
    ensure!(child.wait()?.success(), "`{}` failed", shown(&cpio));
    Ok(())
}
