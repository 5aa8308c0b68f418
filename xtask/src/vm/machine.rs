//! An emulated machine: booted, listened to, and gone when it powers off.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Kernel, image::Image, kernel::Unpacked};
use crate::cargo::{shown, target};

/// The longest that a machine may run, in seconds of the host's: emulated, on a host that may have much else to do.
const PATIENCE: &str = "7200";

/// The machine's clock counts its instructions, two nanoseconds each, and jumps where it would wait: so no wait in a test is
/// too short, however busy the host is. That takes a machine of one processor.
const CLOCK: &str = "shift=1,sleep=off";

/// What the kernel is told: to take what it unpacks as its root, to have a line for each thing that is said, and to be off rather
/// than to boot again when it panics.
const SAID_TO_KERNEL: &str =
    "console=ttyS0 quiet rdinit=/init 8250.nr_uarts=4 panic=-1 sysctl.kernel.sysrq=1";

/// Which security modules the kernel calls, BPF LSM aside.
const MODULES: &str = "lsm=landlock,lockdown,yama";

/// Whether the kernel calls LSM programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lsm {
    /// It does
    Called,
    /// It is booted without BPF LSM
    NotCalled,
}

impl Lsm {
    /// What the kernel is told.
    fn words(self) -> String {
        match self {
            Self::Called => format!("{MODULES},bpf"),
            Self::NotCalled => MODULES.to_owned(),
        }
    }
}

/// What came of a machine's task.
pub(super) struct Said {
    pub(super) output: String,
    pub(super) errors: String,
    /// Whether it ended well.
    pub(super) good: bool,
}

/// A machine, and where what it says lies.
pub(super) struct Machine {
    kernel: Unpacked,
    folder: PathBuf,
}

impl Machine {
    /// One with this kernel, for a trial.
    pub(super) fn of(kernel: Kernel, name: &str) -> Result<Self> {
        let folder = target()?.join(format!("vm/{name}-{kernel}"));
        // What an earlier one said is not this one's word.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&folder)?,
        }
        Ok(Self { kernel: kernel.unpacked()?, folder })
    }

    /// Boots it with `programs` and waits for its end.
    pub(super) fn run(
        &self,
        distribution: &Path,
        programs: &[&Path],
        (lsm, task): (Lsm, &str),
    ) -> Result<Said> {
        let image = Image { distribution, kernel: &self.kernel, programs, task };
        let archive = image.write(&self.folder)?;
        let (console, errors, status) = (self.line("console"), self.line("errors"), self.line("status"));
        // It ends with us, however we do.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=10", PATIENCE, "qemu-system-x86_64"]);
        command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "4096"]);
        command.args(["-icount", CLOCK]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-kernel").arg(&self.kernel.kernel).arg("-initrd").arg(&archive);
        command.arg("-append").arg(format!("{SAID_TO_KERNEL} {}", lsm.words()));
        for line in [&console, Path::new("stdio"), &errors, &status] {
            command.arg("-serial").arg(line);
        }
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| shown(&command))?;
        fs::remove_file(&archive)?;
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = read("status");
        ensure!(
            !status.is_empty(),
            "the machine ended, or was ended after {PATIENCE} s, before its task did; {} has what its kernel said",
            self.folder.join("console").display()
        );
        Ok(Said { output, errors: read("errors"), good: status.trim() == "0" })
    }

    /// A file as the emulator is told to write a serial line to it.
    fn line(&self, name: &str) -> PathBuf {
        format!("file:{}", self.folder.join(name).display()).into()
    }
}
