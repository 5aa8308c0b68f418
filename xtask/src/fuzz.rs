//! `cargo xtask fuzz`: every target's corpus replayed, then mutated for a while, blindly or guided by coverage. Each
//! target runs in a process of its own, so that an abort or a hang is seen and its input is kept.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, shown, succeed, target},
    workspace,
};

/// For how long, how, and what.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds of mutation for each target
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// An hour for each target
    #[arg(long, conflicts_with = "seconds")]
    long: bool,
    /// Where mutation begins; the same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What makes the inputs
    #[arg(long, value_enum, default_value_t = Engine::Mutation)]
    engine: Engine,
    /// Only this target
    target: Option<String>,
}

/// What makes the inputs.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Engine {
    /// Our own: quick to build, repeatable, blind
    Mutation,
    /// LLVM's, guided by what an input reaches of our own code; builds that again, instrumented
    Libfuzzer,
}

/// A target and its dictionary, as the harness lists them.
struct Target {
    name: String,
    dictionary: String,
}

/// The longest input that libFuzzer makes, and what one input may take; our own engine has its own.
const LIMITS: [&str; 3] = ["-max_len=65536", "-timeout=20", "-rss_limit_mb=4096"];

/// Set where this program stands in for rustc.
const STAND_IN: &str = "XTASK_STANDS_IN_FOR_RUSTC_TO_FUZZ";

/// What makes rustc's code tell libFuzzer what it reaches.
const INSTRUMENTED: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Cargo calls this program in the place of rustc for the workspace's own packages, so that they alone are built again.
/// What cargo runs while it builds is left as it is.
pub(crate) fn stand_in_for_rustc() -> Option<ExitCode> {
    env::var_os(STAND_IN)?;
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let name = arguments.iter().skip_while(|argument| *argument != "--crate-name").nth(1);
    let ours = name.and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("interceptor"));
    let more = if ours { INSTRUMENTED.as_slice() } else { &[] };
    let error = Command::new(&rustc).args(&arguments).args(more).exec();
    eprintln!("error: running {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

/// Builds the harness and runs its targets one by one; all are run even when one fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    succeed(cargo()?.args(["build", "--workspace", "--bins"]))?;
    let targets = targets()?;
    let is_wanted = |target: &&Target| arguments.target.as_deref().is_none_or(|only| only == target.name);
    let wanted: Vec<&Target> = targets.iter().filter(is_wanted).collect();
    let names = || targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
    ensure!(!wanted.is_empty(), "no such target; there are: {}", names());
    let seconds = if arguments.long { 3600 } else { arguments.seconds };
    let instrumented = match arguments.engine {
        Engine::Mutation => None,
        Engine::Libfuzzer => Some(instrumented()?),
    };
    let mut failed = Vec::new();
    for target in wanted {
        let good = match &instrumented {
            None => mutate(target, seconds, arguments.seed)?,
            Some(program) => guide(program, target, seconds, arguments.seed)?,
        };
        if !good {
            failed.push(target.name.as_str());
        }
    }
    ensure!(failed.is_empty(), "targets that failed: {}", failed.join(", "));
    Ok(())
}

fn harness() -> Result<PathBuf> {
    Ok(target()?.join("debug/interceptor-fuzz"))
}

fn targets() -> Result<Vec<Target>> {
    let harness = harness()?;
    let listed =
        Command::new(&harness).arg("list").output().with_context(|| format!("{}", harness.display()))?;
    let listed = String::from_utf8(listed.stdout).context("the harness's list")?;
    let words = |line: &str| {
        let (name, dictionary) = line.split_once(' ')?;
        Some(Target { name: name.to_owned(), dictionary: dictionary.to_owned() })
    };
    listed.lines().map(words).collect::<Option<_>>().context("the harness's list")
}

fn corpus(name: &str) -> Result<PathBuf> {
    Ok(workspace()?.join("fuzz/corpus").join(name))
}

/// Runs a target with our own engine; gives whether it lived.
fn mutate(Target { name, .. }: &Target, seconds: u64, seed: u64) -> Result<bool> {
    let corpus = corpus(name)?;
    let current = target()?.join(format!("fuzz-{name}.input"));
    fs::write(&current, b"")?;
    let mut command = Command::new(harness()?);
    command.args(["run", name, &seconds.to_string(), &seed.to_string()]).arg(&corpus).arg(&current);
    let status = command.status()?;
    if !status.success() {
        let kept = keep(&current, &corpus)?;
        eprintln!("{name}: {status}; its input is kept as {kept}");
    }
    let _ = fs::remove_file(&current);
    Ok(status.success())
}

/// Builds our own code again, instrumented.
fn instrumented() -> Result<PathBuf> {
    let mut command = cargo()?;
    command.args(["build", "--workspace", "--features", "interceptor-tests/libfuzzer"]);
    command.args(["--bin", "interceptor-libfuzzer"]);
    // The program that runs may have been replaced by the build before.
    command.env("RUSTC_WORKSPACE_WRAPPER", target()?.join("debug/xtask")).env(STAND_IN, "1");
    succeed(&mut command)?;
    Ok(target()?.join("debug/interceptor-libfuzzer"))
}

/// Runs a target under libFuzzer, which leaves what it died of in the corpus and goes on from what earlier runs
/// found; gives whether it lived.
fn guide(program: &Path, Target { name, dictionary }: &Target, seconds: u64, seed: u64) -> Result<bool> {
    let corpus = corpus(name)?;
    let found = target()?.join("fuzz-found").join(name);
    fs::create_dir_all(&found)?;
    let dictionary = workspace()?.join("fuzz/dictionaries").join(format!("{dictionary}.dict"));
    let mut command = Command::new(program);
    command.env("INTERCEPTOR_FUZZ", name).args(LIMITS);
    command.args([format!("-max_total_time={seconds}"), format!("-seed={seed}")]);
    command.arg(format!("-dict={}", dictionary.display()));
    command.arg(format!("-artifact_prefix={}/", corpus.display()));
    let status = command.args([&found, &corpus]).status().with_context(|| shown(&command))?;
    if !status.success() {
        eprintln!("{name}: {status}; its input is kept in {}", corpus.display());
    }
    Ok(status.success())
}

/// Moves the input that a target died of into the corpus, where every later replay meets it.
fn keep(current: &Path, corpus: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    // The file is a mapping: its first eight bytes say how many of the rest are the input.
    let bytes = fs::read(current)?;
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    let input = bytes.get(8..8 + usize::try_from(length)?).context("the harness left no input")?;
    fs::create_dir_all(corpus)?;
    let digest = hex::encode(Sha256::digest(input));
    let path = corpus.join(format!("crash-{}", digest.get(..12).unwrap_or(&digest)));
    fs::write(&path, input)?;
    Ok(path.display().to_string())
}
