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
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

pub(crate) use self::kernel::Kernel;
use self::machine::{Machine, Said};
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
    let all = match shell {
        Some(line) => Build::find()?.boot_all(&kernels, "shell", line)?,
        None => try_on(&kernels, &trials)?,
    };
    let bad: Vec<_> = all.iter().filter(|tried| !tried.good).map(|tried| &*tried.what).collect();
    ensure!(bad.is_empty(), "not as it should be: {}", bad.join(", "));
    Ok(())
}

/// Each trial on each kernel; all of them even when one fails. What they run was built before.
pub(crate) fn try_on(kernels: &[Kernel], trials: &[Trial]) -> Result<Vec<Tried>> {
    let build = Build::find()?;
    let mut all = Vec::new();
    for trial in trials {
        let tried = build.boot_all(kernels, trial.name(), &build.task(*trial)?)?;
        if *trial == Trial::Bypass && kernels == Kernel::ALL {
            let accounts = kernels.iter().zip(&tried).map(|(kernel, tried)| keep(*kernel, &tried.output));
            write(&accounts.collect::<Result<Vec<_>>>()?)?;
        }
        all.extend(tried);
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

    /// A machine for each kernel, side by side; shows what each said when it has ended.
    fn boot_all(&self, kernels: &[Kernel], name: &str, task: &str) -> Result<Vec<Tried>> {
        setup::machines()?;
        let mut programs = self.programs();
        let bypass = self.bypass();
        programs.push(&bypass);
        let machines = kernels.iter().map(|kernel| Ok((*kernel, Machine::of(*kernel, name)?)));
        let machines = machines.collect::<Result<Vec<_>>>()?;
        let (programs, distribution) = (&programs, &image::distribution()?);
        thread::scope(|scope| {
            let started = machines.iter().map(|(kernel, machine)| {
                scope.spawn(move || {
                    let said = machine.run(distribution, programs, task)?;
                    tell(format!("{name}, Linux {kernel}"), &said)
                })
            });
            let started: Vec<_> = started.collect();
            started.into_iter().map(|one| one.join().map_err(|_| anyhow!("a machine's thread"))?).collect()
        })
    }
}

fn tell(what: String, said: &Said) -> Result<Tried> {
    let Said { output, errors, good } = said;
    // In one piece: others may speak as well.
    io::stdout().write_all(format!("\n== {what}\n{output}{errors}").as_bytes())?;
    Ok(Tried { what, output: output.clone(), good: *good })
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
