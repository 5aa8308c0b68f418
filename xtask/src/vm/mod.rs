//! `cargo xtask vm`: what was built here, tried on other kernels, as the distribution packs them, each in an emulated
//! machine of its own (no hardware is asked to help, so that it is the same everywhere, and slow).
//!
//! Promises: nothing is installed that the host would boot; nothing is taken from anywhere but the distribution's
//! packages and this build; what a machine does not say it did is a failure.

mod image;
mod kernel;
mod machine;

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

pub(crate) use self::kernel::Kernel;
use self::machine::{Lsm, Machine, Said};
use crate::{
    bench,
    cargo::{cargo, shown, succeed, target},
    page, setup, workspace,
};

/// What to try, and on which kernels.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this kernel
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<Kernel>,
    /// Whether these kernels call LSM programs
    #[arg(long, value_name = "WHETHER", default_value = "called")]
    lsm: Lsm,
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
    /// What LSM programs cost, by calls with them and without; only where it is asked for
    Layer,
    /// Ten thousand connections at once, of the product as it is shipped; only where it is asked for
    Crowd,
}

/// Trials of whether it works, the short ones first.
const TRIALS: [Trial; 3] = [Trial::Capture, Trial::Smoke, Trial::Bypass];

/// The end-to-end tests that say whether all of it works on a kernel: what is allowed and refused and said of it, what a run
/// sees, who the daemon's processes are, what a dead one means, attaching both ways, letting go for a time, what `doctor` finds, LSM
/// programs, and a clock that jumps.
const SMOKE: [&str; 12] = [
    "attach::a_process_is_captured_as_it_runs_and_let_go_again",
    "attach_cgroup::a_cgroup_is_captured_where_it_is_and_let_go_again",
    "bypass::a_dead_or_stopped_daemon_refuses",
    "bypass::a_run_has_no_rights_and_its_own_view",
    "bypass::the_roles_are_filtered_and_have_no_rights",
    "bypass::the_self_test_finds_the_host_closed",
    "chaos::a_clock_that_jumps_opens_nothing",
    "operate::a_daemon_that_requires_lsm_programs_starts_only_where_the_kernel_calls_them",
    "operate::a_refusal_explains_itself",
    "operate::doctor_finds_this_host_able",
    "release::a_daemon_that_comes_during_a_release_records_what_goes_out",
    "release::with_the_daemon_dead_a_release_opens_for_its_time_and_no_longer",
];

/// What a crowd comes by. No host is asked to let a process have so many descriptors.
const CROWD: &str = "chaos::ten_thousand_at_once_and_a_thousand_a_second_for_a_minute_get_through";

/// Tries every way around.
const BYPASS: &str = "interceptor-bypass";
/// Measures.
const BENCH: &str = "interceptor-bench";

/// The part of docs/guarantees.md that [`run`] writes.
const TASK: &str = "written by `cargo xtask vm bypass`";

/// What came of a trial on a kernel.
pub(crate) struct Tried {
    name: &'static str,
    kernel: Kernel,
    /// What it printed.
    output: String,
    /// Whether it ended well.
    pub(crate) good: bool,
}

/// Tries what is named, on the kernels that are named, and writes the table of the ways around if all kernels tried them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { kernels, lsm, shell, trials } = arguments;
    let kernels = if kernels.is_empty() { Kernel::ALL.to_vec() } else { kernels.clone() };
    let trials = if trials.is_empty() { TRIALS.to_vec() } else { trials.clone() };
    succeed(cargo()?.args(["build", "--workspace", "--all-targets"]))?;
    if trials.contains(&Trial::Crowd) {
        succeed(cargo()?.args(["build", "--release", "--package", "interceptor"]))?;
    }
    let all = match shell {
        Some(line) => Build::find()?.boot_all(&kernels, *lsm, ("shell", line))?,
        None => try_on(&kernels, *lsm, &trials)?,
    };
    for tried in all.iter().filter(|tried| tried.name == Trial::Layer.name() && tried.good) {
        println!("{tried}:\n\n{}", bench::layer(&tried.output)?);
    }
    let bypass: Vec<_> = all.iter().filter(|tried| tried.name == Trial::Bypass.name()).collect();
    // Without the programs it is the host's table that says what is open.
    if bypass.len() == Kernel::ALL.len() && *lsm == Lsm::Called {
        write(&bypass)?;
    }
    let bad: Vec<_> = all.iter().filter(|tried| !tried.good).map(Tried::to_string).collect();
    ensure!(bad.is_empty(), "not as it should be: {}", bad.join("; "));
    Ok(())
}

/// Each trial on each kernel; all of them even when one fails. What they run was built before.
fn try_on(kernels: &[Kernel], lsm: Lsm, trials: &[Trial]) -> Result<Vec<Tried>> {
    let build = Build::find()?;
    let mut all = Vec::new();
    for trial in trials {
        all.extend(build.boot_all(kernels, lsm, (trial.name(), &build.task(*trial, lsm)?))?);
    }
    Ok(all)
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on Linux {}", self.name, self.kernel)
    }
}

/// Of so many slices one has a kernel. The others have a suite or the oracle, which take as long.
const KERNEL_EVERY: u32 = 6;

/// Everything on all kernels, or for a slice the tests of the kernel side on one of them, or nothing. What they run was built
/// before.
pub(crate) fn long(slice: Option<u32>) -> Result<Vec<Tried>> {
    match slice.map(|slice| slice % KERNEL_EVERY) {
        None => try_on(&Kernel::ALL, Lsm::Called, &TRIALS),
        Some(2) => try_on(&[Kernel::V6_1], Lsm::Called, &[Trial::Capture]),
        Some(4) => try_on(&[Kernel::V6_12], Lsm::Called, &[Trial::Capture]),
        Some(_) => Ok(Vec::new()),
    }
}

impl Trial {
    const fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Smoke => "smoke",
            Self::Bypass => "bypass",
            Self::Layer => "layer",
            Self::Crowd => "crowd",
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

    fn beside(&self, name: &str) -> PathBuf {
        self.product.with_file_name(name)
    }

    /// What a machine needs of it.
    fn programs(&self) -> Vec<&Path> {
        let tests = self.tests.iter().map(|(_, path)| path.as_path());
        tests.chain([self.product.as_path()]).collect()
    }

    /// A line that carries out just these end-to-end tests.
    fn end_to_end(&self, names: &[&str]) -> Result<String> {
        let (_, path) = self.tests.iter().find(|(name, _)| name == "e2e").context("no end-to-end tests")?;
        Ok(format!("{} --include-ignored --test-threads 1 --exact {}", path.display(), names.join(" ")))
    }

    /// The shell's lines for a trial.
    fn task(&self, trial: Trial, lsm: Lsm) -> Result<String> {
        let kernel_tests = self.tests.iter().filter(|(name, _)| name.starts_with("kernel_"));
        // Those that are ignored elsewhere want a kernel that calls LSM programs.
        let more = match lsm {
            Lsm::Called => " --include-ignored",
            Lsm::NotCalled => "",
        };
        let lines: Vec<String> = match trial {
            Trial::Capture => {
                kernel_tests.map(|(_, path)| format!("{} --test-threads 2{more}", path.display())).collect()
            }
            Trial::Smoke => vec![self.end_to_end(&SMOKE)?],
            // The shorter minute: what is proven here is the number at once.
            Trial::Crowd => vec![format!(
                "ulimit -n 65536; INTERCEPTOR_SLICE=1 INTERCEPTOR_BIN={} {} --nocapture",
                shipped()?.display(),
                self.end_to_end(&[CROWD])?
            )],
            Trial::Bypass => vec![format!("{} account", self.beside(BYPASS).display())],
            Trial::Layer => vec![format!("{} layer", self.beside(BENCH).display())],
        };
        ensure!(!lines.is_empty(), "there is nothing to try");
        let lines: String = lines.iter().map(|line| format!("{line} || bad=1\n")).collect();
        Ok(format!("export INTERCEPTOR_BIN={}\n{lines}exit ${{bad:-0}}\n", self.product.display()))
    }

    /// A machine for each kernel, side by side; shows what each said when it has ended.
    fn boot_all(
        &self,
        kernels: &[Kernel],
        lsm: Lsm,
        (name, task): (&'static str, &str),
    ) -> Result<Vec<Tried>> {
        setup::machines()?;
        let mut programs = self.programs();
        let beside = [BYPASS, BENCH].map(|name| self.beside(name));
        programs.extend(beside.iter().map(PathBuf::as_path));
        let shipped = shipped()?;
        if name == Trial::Crowd.name() {
            programs.push(&shipped);
        }
        let machines = kernels.iter().map(|kernel| Ok((*kernel, Machine::of(*kernel, name)?)));
        let machines = machines.collect::<Result<Vec<_>>>()?;
        let (programs, distribution) = (&programs, &image::distribution()?);
        thread::scope(|scope| {
            let started = machines.iter().map(|(kernel, machine)| {
                scope.spawn(move || {
                    let Said { output, errors, good } = machine.run(distribution, programs, (lsm, task))?;
                    let tried = Tried { name, kernel: *kernel, output, good };
                    // In one piece: others may speak as well.
                    let shown = format!("\n== {tried}\n{}{errors}", tried.output);
                    io::stdout().write_all(shown.as_bytes())?;
                    Ok(tried)
                })
            });
            let started: Vec<_> = started.collect();
            started.into_iter().map(|one| one.join().map_err(|_| anyhow!("a machine's thread"))?).collect()
        })
    }
}

/// The product as it is shipped.
fn shipped() -> Result<PathBuf> {
    Ok(target()?.join("release/interceptor"))
}

/// Puts the table of the ways around on all kernels into the documentation, open ways and all.
fn write(accounts: &[&Tried]) -> Result<()> {
    let mut command = Command::new(target()?.join("debug/interceptor-bypass"));
    command.arg("table");
    for tried in accounts {
        let path = target()?.join(format!("vm/bypass-{}.json", tried.kernel));
        fs::write(&path, &tried.output).with_context(|| format!("{}", path.display()))?;
        command.arg(path);
    }
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(&command))?;
    ensure!(output.status.success(), "`{}` failed", shown(&command));
    let table = String::from_utf8(output.stdout).context("the table")?;
    println!("{table}");
    let path = workspace()?.join("docs/guarantees.md");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    fs::write(&path, page::with(&text, TASK, &table)?)?;
    Ok(())
}
