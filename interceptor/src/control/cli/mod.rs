//! The command line. A file per group of commands; each reads what it needs and prints it, for people or as JSON.

mod approvals;
mod audit;
mod break_glass;
mod ca;
mod checkpoint;
mod doctor;
mod init;
mod label_grants;
mod label_scan;
mod label_views;
mod labels;
mod ocsf;
mod output;
mod past;
mod policy;
mod records;
mod release;
mod replay;
mod rescue;
mod runs;
mod selftest;
mod session;
mod suggest;
mod undo;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

pub use output::{Failure, Printer};

use crate::{app, places::Places};

/// Captures, judges and records what AI agents do to databases and services.
///
/// Exit codes: 0 done; 1 the answer is no (a refused statement, a failed check, nothing found); 2 wrong use;
/// 3 the interceptor or this host is not able; `run` gives the exit code of the command it ran.
#[derive(Debug, Parser)]
#[command(name = "interceptor", version, propagate_version = true, max_term_width = 110)]
pub struct Arguments {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Keep every file under this folder instead of the fixed places: a private installation.
    #[arg(long, global = true, env = "INTERCEPTOR_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command captured: everything it and its children send is judged and recorded.
    Run(app::run::Arguments),
    /// Capture a process that runs already, and all that descend from it.
    Attach(app::attach::Arguments),
    /// Make a container of a run's, as the container engine asks for it: registered with the engine as the runtime `interceptor`.
    OciRuntime(app::engine_runtime::Arguments),
    /// Take an attached run's processes out of capture again; recorded.
    Detach(runs::Detach),
    /// Write a first policy folder, credential file and expected verdicts for one database.
    Init(init::Options),
    /// List live runs.
    Ps,
    /// Show how the daemon is.
    Status,
    /// End a run and every process in it.
    Kill(runs::Kill),
    /// Let a run go out uninspected for a limited time, even with the daemon dead; recorded.
    Release(release::Release),
    /// Load the policy folder again and judge open sessions by it.
    Reload,
    /// See what waits for a person, and approve or deny it.
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Do not carry policy out at a resource, for at most an hour; recorded, told, and to be reviewed by somebody else.
    BreakGlass(break_glass::Break),
    /// Put back in force what was saved as known to be good, binary and policy, for a while; recorded.
    Rescue(rescue::Options),
    /// See what bears a label, and label more.
    #[command(subcommand)]
    Labels(labels::Command),
    /// Show, or bring back, what a statement changed that a rule with `@undo` was about.
    Undo(undo::Options),
    /// Read the record.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Explain a record: which rule, in which file and line, and what would allow it.
    Why(audit::Why),
    /// Check, test and explain policy.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Try every hook and guarantee on this host, and say what is missing.
    Doctor(doctor::Options),
    /// The certificate authority that agents must trust.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Run the daemon in the foreground. `run` starts one by itself when none is there.
    Daemon(app::daemon::Arguments),
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or those of all commands into a folder.
    Man {
        /// Write one page per command into this folder.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// The captured half of `doctor --self-test`; started by it and of no use to anybody else.
    #[command(hide = true)]
    SelfTest,
    /// The other half.
    #[command(hide = true)]
    SelfTestFree,
    /// One of the daemon's own processes; started by it and of no use to anybody else.
    #[command(hide = true)]
    Role(app::Role),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let root = arguments.root.as_deref();
    let places = root.map_or_else(Places::system, Places::under);
    let printer = Printer::new(arguments.json);
    let done = match arguments.command {
        Command::Run(options) => return app::run::run(&places, root, options),
        Command::Attach(options) => return app::attach::run(&places, root, &options),
        Command::OciRuntime(options) => return app::engine_runtime::run(&places, options),
        Command::Daemon(options) => return app::daemon::run(&places, root, &options),
        Command::Role(role) => return app::role(&places, &role),
        Command::Init(options) => init::init(&places, &printer, options),
        Command::Ps => runs::list(&places, &printer),
        Command::Status => runs::status(&places, &printer),
        Command::Kill(options) => runs::kill(&places, &printer, &options),
        Command::Release(options) => release::release(&places, &printer, options),
        Command::Detach(options) => runs::detach(&places, &printer, options),
        Command::Reload => runs::reload(&places, &printer),
        Command::Approvals(command) => approvals::run(&places, &printer, command),
        Command::BreakGlass(options) => break_glass::run(&places, &printer, options),
        Command::Rescue(options) => rescue::run(&places, root, &printer, options),
        Command::Labels(command) => labels::run(&places, &printer, command),
        Command::Undo(options) => undo::run(&places, &printer, &options),
        Command::Audit(command) => audit::run(&places, &printer, command),
        Command::Why(options) => audit::why(&places, &printer, &options),
        Command::Policy(command) => policy::run(&places, &printer, command),
        Command::Doctor(options) if options.self_test => selftest::run(root, &printer),
        Command::Doctor(_) => doctor::doctor(&places, &printer),
        Command::SelfTest => return selftest::try_captured(&places),
        Command::SelfTestFree => return selftest::try_free(&places),
        Command::Ca(command) => ca::run(&places, &printer, &command),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "interceptor", &mut text);
            printer.line(String::from_utf8_lossy(&text).trim_end()).map(|()| ExitCode::SUCCESS)
        }
        Command::Man { into } => man(&printer, into),
    };
    done.unwrap_or_else(|failure| printer.failure(&failure))
}

fn man(printer: &Printer, into: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let command = Arguments::command();
    let wrong = |error: io::Error| Failure::host(format!("the manual page could not be written: {error}"));
    let Some(folder) = into else {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text).map_err(wrong)?;
        printer.line(String::from_utf8_lossy(&text).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(&folder)
        .and_then(|()| clap_mangen::generate_to(command, &folder))
        .map_err(|error| wrong(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))))?;
    Ok(ExitCode::SUCCESS)
}
