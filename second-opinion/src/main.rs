//! Reads SQL texts with PostgreSQL's own parser, for whoever started it:
//!
//!     interceptor-second-opinion < questions > answers
//!
//! A question is a length (four bytes, big-endian) and a text in UTF-8, an answer a length and an `Opinion` as JSON; of
//! length 0 where there is none. Each text is read by a process of its own, which may not do anything but compute and
//! write, and not for long: C that falls over takes one answer with it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_second_opinion::read;
use nix::{
    libc,
    sys::{
        resource::{Resource, setrlimit},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The longest text that is taken.
const MOST: usize = 32 << 20;
/// How much memory reading may take.
const MEMORY: u64 = 2 << 30;
/// How long reading may compute, in seconds.
const TIME: u64 = 2;

/// What this process and its children may still ask of the kernel: to read and write what they were handed, to have
/// memory, to have children, to end. What is refused, such as the C library's look at the processors, it does without.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_clone,
    libc::SYS_wait4,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn main() -> Result<()> {
    // Before the filter, which lets no descriptor be made.
    let mut questions = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    confine().context("the system calls could not be confined")?;
    while let Some(text) = question(&mut questions)? {
        if !answer(&text, &answers)? {
            answers.write_all(&0_u32.to_be_bytes())?;
        }
    }
    Ok(())
}

fn confine() -> Result<()> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|number| (*number, Vec::new())).collect();
    // A process may limit itself, and nobody else.
    let oneself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?;
    calls.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![oneself])?]);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(calls, refused, SeccompAction::Allow, architecture)?;
    Ok(seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?)
}

/// The next text; none where there will be no more.
fn question(questions: &mut File) -> Result<Option<String>> {
    let mut length = [0; 4];
    match questions.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length <= MOST, "a text of {length} bytes; at most {MOST} are taken");
    let mut text = vec![0; length];
    questions.read_exact(&mut text)?;
    Ok(Some(String::from_utf8(text)?))
}

/// Has a child read `text` and write its answer; gives whether it did.
fn answer(text: &str, answers: &File) -> Result<bool> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(waitpid(child, None)? == WaitStatus::Exited(child, 0)),
        ForkResult::Child => {
            let written = write(text, answers);
            std::process::exit(if written.is_ok() { 0 } else { 1 })
        }
    }
}

fn write(text: &str, mut answers: &File) -> Result<()> {
    setrlimit(Resource::RLIMIT_CPU, TIME, TIME)?;
    let opinion = serde_json::to_vec(&read(text))?;
    let mut out = u32::try_from(opinion.len())?.to_be_bytes().to_vec();
    out.extend(opinion);
    answers.write_all(&out)?;
    Ok(())
}
