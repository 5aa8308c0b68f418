//! `cargo xtask test`: every test there is, in one go, with one sum at the end.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, elevate_tests, shown, succeed, target},
    oracle, setup, suites, upgrade, vm,
};

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Runs what takes long, and only that: kills for minutes, the drivers' own suites, other kernels, and an earlier build
    #[arg(long, conflicts_with = "filter")]
    long: bool,
    /// With --long: only the slice that this commit hash stands for
    #[arg(long, requires = "long", value_name = "HASH")]
    slice: Option<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Prepares, builds once, runs, and prints the sum as the last line.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    setup::clients()?;
    succeed(cargo()?.args(["build", "--workspace", "--all-targets"]))?;
    let mut command = cargo()?;
    command.args(["test", "--workspace", "--all-targets", "--no-fail-fast", "--quiet", "--"]);
    // Tests wait more than they work, but a database each is heavy enough.
    command.args(["--test-threads", "3"]);
    if arguments.long {
        command.args(["--ignored", "--exact"]).args(LONG);
    }
    let slice = arguments.slice.as_deref().map(slice).transpose()?;
    if let Some(slice) = slice {
        command.env("INTERCEPTOR_SLICE", slice.to_string());
    }
    command.args(&arguments.filter);
    command.env("INTERCEPTOR_BIN", target()?.join("debug/interceptor"));
    elevate_tests(&mut command)?;
    let mut sum = Sum::default();
    let mut good = tell(&mut command, &mut sum)?;
    if arguments.long {
        good &= sum.add_each(suites::long(slice)?.iter().map(|suite| suite.equal));
        good &= sum.add_each(vm::long(slice)?.iter().map(|tried| tried.good));
        if slice.is_none_or(|slice| slice % ORACLE_EVERY == 0) {
            good &= sum.add_task("the oracle disagrees", oracle::run());
        }
        if slice.is_none() {
            good &= sum.add_task("an earlier build is not taken over", upgrade::trial(None));
        }
    } else {
        // Examples in the documentation need neither root nor a kernel.
        let mut examples = cargo()?;
        examples.args(["test", "--workspace", "--doc", "--quiet", "--"]).args(&arguments.filter);
        good &= tell(&mut examples, &mut sum)?;
    }
    ensure!(sum.passed > 0, "no test was run");
    let word = if good { "ok" } else { "FAILED" };
    let Sum { passed, failed, ignored, filtered } = sum;
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out; \
         finished in {:.2}s",
        begun.elapsed().as_secs_f64()
    );
    ensure!(good, "a test failed");
    Ok(())
}

/// Runs a command, showing and adding up what it prints; gives whether it succeeded.
fn tell(command: &mut Command, sum: &mut Sum) -> Result<bool> {
    let shown = shown(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown.clone())?;
    let output = child.stdout.take().context("no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        sum.add(&line);
        println!("{line}");
    }
    Ok(child.wait()?.success())
}

/// The tests that take minutes, besides the drivers' suites. Other ignored tests are the inner halves of tests, of no use alone.
const LONG: [&str; 4] = [
    "approvals::what_is_approved_is_done_once_through_a_thousand_kills",
    "chaos::ten_thousand_at_once_and_a_thousand_a_second_for_a_minute_get_through",
    "crash::the_record_survives_many_kills",
    "dump::a_gigabyte_is_dumped_and_restored",
];

/// Of so many slices, one has the oracle, whose parser takes minutes to build.
const ORACLE_EVERY: u32 = 6;

/// The number of a slice: the end of the commit's hash.
fn slice(hash: &str) -> Result<u32> {
    let end = hash.get(hash.len().saturating_sub(6)..).unwrap_or(hash);
    u32::from_str_radix(end, 16).with_context(|| format!("{hash:?} is not a commit hash"))
}

/// The results of all test programs.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
}

impl Sum {
    /// Adds what is more than a test each as one test each; gives whether all ended well.
    fn add_each(&mut self, ends: impl Iterator<Item = bool>) -> bool {
        let (good, bad): (Vec<_>, Vec<_>) = ends.partition(|good| *good);
        self.passed += good.len() as u64;
        self.failed += bad.len() as u64;
        bad.is_empty()
    }

    /// Adds what is a program of its own as one test, and says what it means where it failed; gives whether it ended well.
    fn add_task(&mut self, failure: &str, ended: Result<()>) -> bool {
        match ended {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{failure}: {error:#}");
                self.failed += 1;
                return false;
            }
        }
        true
    }

    /// Adds a line such as `test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; ...`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let mut words = part.split(' ');
            let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                Some("filtered") => self.filtered += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut sum = Sum::default();
        sum.add(
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s",
        );
        sum.add("test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        sum.add("running 3 tests");
        assert!(!sum.add_each([true, false, true].into_iter()));
        assert_eq!((sum.passed, sum.failed, sum.ignored, sum.filtered), (5, 5, 1, 3));
    }
}
