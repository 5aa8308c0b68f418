//! Every fuzz target of the workspace in one program, on stable Rust: `list`, or `run TARGET SECONDS SEED CORPUS FILE`.
//!
//! The input at work lies in FILE, a shared mapping that outlives an abort; `cargo xtask fuzz` keeps it then. An input
//! may take [`PATIENCE`] and [`MEMORY`]; beyond either, the process aborts.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use interceptor_tests::fuzzing::{self, TARGETS};
use memmap2::MmapMut;
use nix::sys::resource::{Resource, setrlimit};

/// How long one input may take. Debug builds on a shared machine are slow: what is looked for is a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much address space the process may use.
const MEMORY: u64 = 4 << 30;
/// The longest input.
const LONGEST: usize = 64 * 1024;

fn main() -> ExitCode {
    match perform(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interceptor-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.dictionary));
            Ok(())
        }
        ["run", name, seconds, seed, corpus, file] => {
            let target = fuzzing::target(name).context("no such target")?;
            let words = fuzzing::words(target.words);
            setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
            let seeds = seeds(Path::new(corpus))?;
            let mut bench = Bench::new(target.run, Path::new(file))?;
            seeds.iter().for_each(|seed| bench.try_one(seed));
            let mut chance = Chance(seed.parse::<u64>()?.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let end = Instant::now() + Duration::from_secs(seconds.parse()?);
            let mut tried = 0_u64;
            while Instant::now() < end {
                bench.try_one(&mutate(&seeds, &words, &mut chance));
                tried += 1;
            }
            println!("{name}: {} of the corpus replayed, {tried} mutations, no crash", seeds.len());
            Ok(())
        }
        _ => bail!("usage: interceptor-fuzz list | run TARGET SECONDS SEED CORPUS FILE"),
    }
}

/// The corpus, in the order of its names, so that a run can be repeated.
fn seeds(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| format!("the corpus {}", folder.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    let seeds = paths.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    if seeds.is_empty() { bail!("the corpus {} is empty", folder.display()) } else { Ok(seeds) }
}

/// Where inputs are tried: kept in the mapping and timed.
struct Bench {
    target: fn(&[u8]),
    file: MmapMut,
}

/// When the input at work began, in milliseconds after the start and 1; 0 between inputs.
static BEGUN: AtomicU64 = AtomicU64::new(0);

impl Bench {
    fn new(target: fn(&[u8]), file: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
        file.set_len(8 + LONGEST as u64)?;
        // SAFETY: the file is this process's own until it ends; nobody else truncates or writes it.
        let file = unsafe { MmapMut::map_mut(&file) }?;
        let start = Instant::now();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(250));
                let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                let begun = BEGUN.load(Ordering::Relaxed);
                // The input's own clock starts at the first look at it.
                if begun == 1 {
                    let _ = BEGUN.compare_exchange(1, now + 2, Ordering::Relaxed, Ordering::Relaxed);
                } else if begun > 1 && now.saturating_sub(begun) > PATIENCE.as_millis() as u64 {
                    eprintln!("one input takes longer than {PATIENCE:?}");
                    std::process::abort();
                }
            }
        });
        Ok(Self { target, file })
    }

    /// A panic ends the process with the input left in the file.
    fn try_one(&mut self, input: &[u8]) {
        let input = &input[..input.len().min(LONGEST)];
        self.file[8..8 + input.len()].copy_from_slice(input);
        self.file[..8].copy_from_slice(&(input.len() as u64).to_le_bytes());
        BEGUN.store(1, Ordering::Relaxed);
        (self.target)(input);
        BEGUN.store(0, Ordering::Relaxed);
    }
}

/// A small generator of numbers (xorshift): the same seed gives the same inputs.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { usize::try_from(self.next() % limit as u64).unwrap_or(0) }
    }
}

/// A seed with one to eight things done to it.
fn mutate(seeds: &[Vec<u8>], words: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(8) {
        let at = chance.below(input.len() + 1);
        let end = (at + 1 + chance.below(32)).min(input.len());
        match chance.below(9) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 if at < input.len() => input[at] = chance.next().to_le_bytes()[0],
            2 => drop(input.drain(at..end.max(at))),
            3 => {
                let word = &words[chance.below(words.len())];
                drop(input.splice(at..at, word.iter().copied()));
            }
            4 => {
                let part = input[at..end.max(at)].to_vec();
                let times = 1 + chance.below(40);
                drop(input.splice(at..at, part.iter().copied().cycle().take(part.len() * times)));
            }
            5 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                drop(input.splice(at..at, other[from..].iter().copied().take(256)));
            }
            6 => input.truncate(at),
            7 if at + 4 <= input.len() => {
                let bits = 1 + chance.below(31);
                let length = u32::try_from(chance.below(1 << bits)).unwrap_or(u32::MAX);
                input[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            _ => {
                let word = &words[chance.below(words.len())];
                let end = (at + word.len()).min(input.len());
                drop(input.splice(at..end.max(at), word.iter().copied()));
            }
        }
        input.truncate(LONGEST);
    }
    input
}
