//! `cargo xtask vm`: what was built here, tried on other kernels, as the distribution packs them, each in an emulated
//! machine of its own (no hardware is asked to help, so that it is the same everywhere, and slow).
//!
//! Promises: nothing is installed that the host would boot; nothing is taken from anywhere but the distribution's
//! packages and this build; what a machine does not say it did is a failure.

mod image;
mod kernel;
mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(crate) use self::kernel::Kernel;
use self::{image::Image, machine::Machine};
use crate::{
    cargo::{cargo, shown, succeed, target},
    page, setup, workspace,
};

/// What to try, and on which kernels.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this kernel
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<Kernel>,
    /// A line for the machine's shell, in the place of trials
    #[arg(long, value_name = "LINE", conflicts_with = "trials")]
    shell: Option<String>,
    /// Only these
    trials: Vec<Trial>,
}

/// What is tried on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Trial {
    /// The tests of the kernel side
    Capture,
    /// A daemon with a database and a captured client
    Smoke,
    /// Every way around capture
    Bypass,
}

/// All trials, the short ones first.
const TRIALS: [Trial; 3] = [Trial::Capture, Trial::Smoke, Trial::Bypass];

/// The end-to-end tests that say whether all of it works on a kernel: what is allowed and refused and said of it, what a run
/// sees, who the daemon's processes are, what a dead one means, attaching both ways, and what `doctor` finds.
const SMOKE: [&str; 8] = [
    "attach::a_process_is_captured_as_it_runs_and_let_go_again",
    "attach_cgroup::a_cgroup_is_captured_where_it_is_and_let_go_again",
    "bypass::a_dead_or_stopped_daemon_refuses",
    "bypass::a_run_has_no_rights_and_its_own_view",
    "bypass::the_roles_are_filtered_and_have_no_rights",
    "bypass::the_self_test_finds_the_host_closed",
    "operate::a_refusal_explains_itself",
    "operate::doctor_finds_this_host_able",
];

/// The part of docs/guarantees.md that [`run`] writes.
const TASK: &str = "written by `cargo xtask vm bypass`";

/// What came of a trial on a kernel.
pub(crate) struct Tried {
    /// Which, for people.
    pub(crate) what: String,
    /// What it printed.
    pub(crate) output: String,
    /// Whether it ended well.
    pub(crate) good: bool,
}

/// Tries what is named, on the kernels that are named, and writes the table of the ways around if all kernels tried them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { kernels, shell, trials } = arguments;
    let kernels = if kernels.is_empty() { Kernel::ALL.to_vec() } else { kernels.clone() };
    let trials = if trials.is_empty() { TRIALS.to_vec() } else { trials.clone() };
    succeed(cargo()?.args(["build", "--workspace", "--all-targets"]))?;
    if let Some(line) = shell {
        let build = Build::find()?;
        for kernel in kernels {
            let tried = build.boot(kernel, "shell", line)?;
            ensure!(tried.good, "{} did not end well", tried.what);
        }
        return Ok(());
    }
    let all = try_on(&kernels, &trials)?;
    let bad: Vec<_> = all.iter().filter(|tried| !tried.good).map(|tried| &*tried.what).collect();
    ensure!(bad.is_empty(), "not as it should be: {}", bad.join(", "));
    Ok(())
}

/// Each trial on each kernel; all of them even when one fails. What they run was built before.
pub(crate) fn try_on(kernels: &[Kernel], trials: &[Trial]) -> Result<Vec<Tried>> {
    let build = Build::find()?;
    let mut all = Vec::new();
    for trial in trials {
        let mut reports = Vec::new();
        for kernel in kernels {
            let tried = build.boot(*kernel, trial.name(), &build.task(*trial)?)?;
            if *trial == Trial::Bypass {
                reports.push(keep(*kernel, &tried.output)?);
            }
            all.push(tried);
        }
        if reports.len() == Kernel::ALL.len() {
            write(&reports)?;
        }
    }
    Ok(all)
}

impl Trial {
    fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Smoke => "smoke",
            Self::Bypass => "bypass",
        }
    }
}

/// What was built and is tried.
struct Build {
    /// The product.
    product: PathBuf,
    /// The test programs by their names.
    tests: Vec<(String, PathBuf)>,
}

impl Build {
    /// Asks cargo, which has built it.
    fn find() -> Result<Self> {
        let mut command = cargo()?;
        command.args(["test", "--workspace", "--all-targets", "--no-run", "--message-format=json"]);
        let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(&command))?;
        ensure!(output.status.success(), "`{}` failed", shown(&command));
        let lines = String::from_utf8(output.stdout).context("cargo's messages")?;
        let tests = lines.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_test = message.pointer("/target/kind/0")?.as_str()? == "test";
            let name = message.pointer("/target/name")?.as_str()?.to_owned();
            is_test.then(|| Some((name, message.get("executable")?.as_str()?.into())))?
        });
        Ok(Self { product: target()?.join("debug/interceptor"), tests: tests.collect() })
    }

    fn bypass(&self) -> PathBuf {
        self.product.with_file_name("interceptor-bypass")
    }

    /// What a machine needs of it.
    fn programs(&self) -> Vec<&Path> {
        let tests = self.tests.iter().map(|(_, path)| path.as_path());
        tests.chain([self.product.as_path()]).collect()
    }

    /// The shell's lines for a trial.
    fn task(&self, trial: Trial) -> Result<String> {
        let kernel_tests = self.tests.iter().filter(|(name, _)| name.starts_with("kernel_"));
        let lines: Vec<String> = match trial {
            Trial::Capture => {
                kernel_tests.map(|(_, path)| format!("{} --test-threads 2", path.display())).collect()
            }
            Trial::Smoke => {
                let (_, path) =
                    self.tests.iter().find(|(name, _)| name == "e2e").context("no end-to-end tests")?;
                vec![format!("{} --test-threads 2 --exact {}", path.display(), SMOKE.join(" "))]
            }
            Trial::Bypass => vec![format!("{} account", self.bypass().display())],
        };
        ensure!(!lines.is_empty(), "there is nothing to try");
        let lines: String = lines.iter().map(|line| format!("{line} || bad=1\n")).collect();
        Ok(format!("export INTERCEPTOR_BIN={}\n{lines}exit ${{bad:-0}}\n", self.product.display()))
    }

    fn boot(&self, kernel: Kernel, name: &str, task: &str) -> Result<Tried> {
        setup::machines()?;
        let what = format!("{name}, Linux {kernel}");
        println!("\n== {what}");
        let mut programs = self.programs();
        let bypass = self.bypass();
        programs.push(&bypass);
        let image = Image { kernel, programs: &programs, task };
        let (output, good) = Machine::of(kernel, name)?.run(&image)?;
        Ok(Tried { what, output, good })
    }
}

/// Where the account of a kernel's bypass trial lies, for whoever makes a table of it.
fn keep(kernel: Kernel, account: &str) -> Result<PathBuf> {
    let path = target()?.join(format!("vm/bypass-{kernel}.json"));
    fs::write(&path, account).with_context(|| format!("{}", path.display()))?;
    Ok(path)
}

/// Puts the table of all kernels' ways around into the documentation, open ways and all.
fn write(reports: &[PathBuf]) -> Result<()> {
    let mut command = Command::new(target()?.join("debug/interceptor-bypass"));
    command.arg("table").args(reports);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(&command))?;
    ensure!(output.status.success(), "`{}` failed", shown(&command));
    let table = String::from_utf8(output.stdout).context("the table")?;
    println!("{table}");
    let path = workspace()?.join("docs/guarantees.md");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    fs::write(&path, page::with(&text, TASK, &table)?)?;
    Ok(())
}
