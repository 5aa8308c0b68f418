//! `interceptor attach`: the launcher, for processes that are there already.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use interceptor_core::model::{AgentName, Mode};

use crate::{
    helper::Existing,
    launch::{
        Elevation, LaunchError, Options, Profile, Trust,
        attach::{self, Attached, Created, Done, DropIn, Fate, Lasting, Plan, Target, Unit},
    },
    places::Places,
};

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Named,
    /// The agent that this is; without it, the hints of `agents.toml` decide.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// What becomes of TCP connections that are there already: `reset`, `drain=60s` (they may go on for so long) or
    /// `keep-observed` (until they end, for at most a day). What goes on is uninspected, and in the record. Everything else that
    /// is there is reset.
    #[arg(long, value_name = "WHAT", default_value_t = Existing::Reset, conflicts_with_all = ["created", "starting"])]
    existing: Existing,
    /// Why connections may go on; it is recorded.
    #[arg(long)]
    reason: Option<String>,
    /// With --unit: have its starts captured after a reboot, too, by a drop-in in /etc and not in /run.
    #[arg(long, requires = "unit")]
    persistent: bool,
    /// This process is called by the unit's drop-in, in the unit's cgroup, before the unit begins.
    #[arg(long, requires = "unit", conflicts_with_all = ["plan", "persistent"], hide = true)]
    starting: bool,
    /// Only say what would be done, and what stands against it.
    #[arg(long)]
    plan: bool,
}

/// What is captured.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Named {
    /// A process; all that descend from it are captured with it, and moved into a cgroup of the interceptor's.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// A cgroup, captured where it is with whatever runs in it now and later; a folder below the cgroup2 mount, or a name from
    /// the hierarchy's root.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// A container, by the id that its runtime lists it by: its cgroup is captured where it is.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// A service of systemd's: its cgroup is captured where it is, and so is that of each later start, by a drop-in, or it does
    /// not start.
    #[arg(long, value_name = "NAME")]
    unit: Option<Unit>,
    /// The container that its runtime is just making, as it says on standard input: this is its `createRuntime` hook. Captured
    /// before its first program runs, or not made.
    #[arg(long, conflicts_with = "plan")]
    created: bool,
}

impl Arguments {
    fn target(&self, places: &Places, root: Option<&Path>) -> Result<Option<Target>, LaunchError> {
        let Named { pid, cgroup, container, unit, created } = &self.target;
        if *created {
            return Created::read(io::stdin()).map(|created| Some(Target::Created(created)));
        }
        if let Some(unit) = unit {
            return match self.starting {
                true => Ok(Some(Target::Starting(unit.clone()))),
                false => Ok(Some(Target::Unit(unit.clone(), self.drop_in(places, root, unit)?))),
            };
        }
        let process = pid.map(Target::Process);
        let cgroup = cgroup.clone().map(Target::Cgroup);
        Ok(process.or(cgroup).or_else(|| container.clone().map(Target::Container)))
    }

    fn drop_in(&self, places: &Places, root: Option<&Path>, unit: &Unit) -> Result<DropIn, LaunchError> {
        let lasting = if self.persistent { Lasting::Persistent } else { Lasting::UntilReboot };
        let name = unit.to_string();
        let mut words = super::own_arguments(root, ["attach", "--unit", &name, "--starting"]);
        if let Some(agent) = &self.agent {
            words.extend(["--agent".into(), agent.to_string().into()]);
        }
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        DropIn::of(places, unit, lasting, &words)
    }

    /// systemd takes any other code than this as a start that was not needed, instead of one that failed.
    fn failed(&self) -> ExitCode {
        ExitCode::from(if self.starting { 255 } else { 3 })
    }
}

/// Captures, or says what capturing would do.
pub fn run(places: &Places, root: Option<&Path>, arguments: &Arguments) -> ExitCode {
    let target = match arguments.target(places, root) {
        Ok(Some(target)) => target,
        Ok(None) => {
            eprintln!(
                "interceptor attach: say what to capture: `--pid`, `--cgroup`, `--container`, `--unit` or `--created`"
            );
            return ExitCode::from(2);
        }
        Err(error) => return told(arguments, Err(error)),
    };
    if arguments.existing != Existing::Reset && !arguments.plan && arguments.reason.is_none() {
        eprintln!("interceptor attach: --existing {} needs --reason: it is recorded", arguments.existing);
        return ExitCode::from(2);
    }
    if arguments.plan {
        return told(
            arguments,
            attach::plan(places, &target).map(|plan| {
                let choosable = plan.shown.iter().filter(|(_, fate)| *fate == Fate::Chosen).count();
                let kept = if arguments.existing == Existing::Reset { 0 } else { choosable };
                print(&plan, arguments.existing, kept);
                if let Target::Unit(_, drop_in) = &target {
                    println!("drop-in {}:\n{}", drop_in.path.display(), drop_in.text);
                }
                plan.obstacles.is_empty()
            }),
        );
    }
    let options = Options {
        places: places.clone(),
        agent: arguments.agent.clone(),
        mode: Mode::Enforce,
        reason: arguments.reason.clone(),
        user: None,
        capabilities: Vec::new(),
        elevation: Elevation::Refused,
        profile: Profile::Plain,
        command: Vec::new(),
        daemon: super::own_arguments(root, ["daemon", "--announce"]),
        trust: |_, _| Trust::default(),
    };
    told(
        arguments,
        attach::attach(&options, &target, arguments.existing).map(|done| {
            match done {
                Done::Attached(Attached { run, agent, plan, kept }) => {
                    println!("attached run {run} of agent {agent}");
                    print(&plan, arguments.existing, kept);
                    println!(
                        "TLS clients must trust the interceptor: `interceptor ca install` has this host do so"
                    );
                }
                Done::Prepared => println!("it does not run: it is captured from its next start on"),
                Done::Already(run) => println!("captured already, as run {run}"),
            }
            if let Target::Unit(_, drop_in) = &target {
                println!("its starts are captured by {}", drop_in.path.display());
            }
            true
        }),
    )
}

fn print(plan: &Plan, existing: Existing, kept: usize) {
    for (pid, command) in &plan.processes {
        println!("process {pid}: {command}");
    }
    for (socket, fate) in &plan.shown {
        match fate {
            Fate::Chosen => println!(
                "socket {socket}: `reset` resets it; `drain=TIME` lets it go on for so long, `keep-observed` until its end"
            ),
            Fate::Reset => println!("socket {socket}: it is reset, whatever is chosen"),
        }
    }
    println!("Internet sockets from before, which are reset: {}", plan.sockets.saturating_sub(kept));
    if kept > 0 {
        println!("connections from before, which go on uninspected ({existing}): {kept}");
    }
    println!("Unix sockets, which stay as they are: {}", plan.unix);
    for handle in &plan.handles {
        println!(
            "handle of process {handle}, which stays: it takes descriptors from whom it may trace, and from nobody else"
        );
    }
    println!("from then on: no UDP but DNS, no listeners for other hosts, names only of resources");
    for obstacle in &plan.obstacles {
        println!("cannot be attached: {obstacle}");
    }
}

fn told(arguments: &Arguments, done: Result<bool, LaunchError>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("interceptor attach: {}", crate::telemetry::chain(&error));
            arguments.failed()
        }
    }
}
