//! The kernels that are tried, as the distribution packs them, unpacked and never installed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::image;
use crate::{
    cargo::{shown, succeed, target},
    setup,
};

/// A kernel of the distribution's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's own
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has, too
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// What its packages' names begin with.
    fn packages(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-6.1.",
            Self::V6_12 => "linux-image-6.12.",
        }
    }

    fn folder(self) -> Result<PathBuf> {
        Ok(target()?.join("vm").join(self.to_string()))
    }

    /// Its package, unpacked, with its modules in an archive.
    pub(super) fn unpacked(self) -> Result<Unpacked> {
        let folder = self.folder()?;
        let packages = newest(self.packages())?;
        let wanted = packages.first().with_context(|| {
            format!("no package {}*-cloud-amd64: does /etc/apt have Debian's updates?", self.packages())
        })?;
        setup::once(&folder, &[wanted], |folder| {
            setup::unpack(folder, &[wanted])?;
            with_modules(folder)
        })?;
        Ok(Unpacked { kernel: only(&folder.join("boot"), "vmlinuz")?, modules: folder.join(MODULES) })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

/// A kernel as a machine boots it.
pub(super) struct Unpacked {
    pub(super) kernel: PathBuf,
    /// An archive of its modules.
    pub(super) modules: PathBuf,
}

const MODULES: &str = "modules.cpio";

/// The packages of a kernel for clouds that this host's lists have, newest first.
fn newest(prefix: &str) -> Result<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.args(["pkgnames", prefix]);
    let output = command.output().with_context(|| shown(&command))?;
    ensure!(output.status.success(), "`{}` failed", shown(&command));
    let names = String::from_utf8(output.stdout).context("names of packages")?;
    let is_wanted = |name: &&str| name.ends_with("-cloud-amd64") || name.ends_with("-cloud-amd64-unsigned");
    let mut names: Vec<String> = names.lines().filter(is_wanted).map(str::to_owned).collect();
    // Names of packages that nobody has any more may be known, too.
    names.retain(|name| has_candidate(name));
    names.sort_by_key(|name| (numbers(name), !name.ends_with("-unsigned")));
    names.reverse();
    Ok(names)
}

fn has_candidate(package: &str) -> bool {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--quiet=2", package]);
    command.output().is_ok_and(|shown| shown.status.success() && !shown.stdout.is_empty())
}

/// The numbers in a name: what makes one version newer than another.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Makes the archive: the modules as they are, and the index by which they are found, which the package leaves to whoever
/// installs it.
fn with_modules(folder: &Path) -> Result<()> {
    let root = folder.join("root");
    // `/lib` is a link where the machine's programs come from, and an archive may not put a folder in its place.
    fs::create_dir_all(root.join("usr"))?;
    fs::rename(folder.join("lib"), root.join("usr/lib"))?;
    let modules = only(&root.join("usr/lib/modules"), "")?;
    let release = modules.file_name().context("a kernel without a name")?;
    succeed(Command::new("/sbin/depmod").arg("--basedir").arg(root.join("usr")).arg(release))?;
    image::archive_all(&root, &folder.join(MODULES))?;
    fs::remove_dir_all(root).context("the modules, which are in the archive")
}

/// The only file of a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let first = names.next().with_context(|| format!("no {prefix}* in {}", folder.display()))?;
    Ok(first.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(numbers("linux-image-6.1.0-9-cloud-amd64") < numbers("linux-image-6.1.0-10-cloud-amd64"));
        assert!(
            numbers("linux-image-6.12.99+deb12-cloud-amd64")
                < numbers("linux-image-6.12.100+deb12-cloud-amd64")
        );
    }
}
