//! `interceptor attach`: the launcher, for processes that are there already.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use interceptor_core::model::{AgentName, Mode};

use crate::{
    launch::{
        self, LaunchError, Options, Profile, Trust,
        attach::{self, Attached, Created, Plan, Target},
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
    /// The container that its runtime is just making, as it says on standard input: this is its `createRuntime` hook. Captured
    /// before its first program runs, or not made.
    #[arg(long, conflicts_with = "plan")]
    created: bool,
}

impl Named {
    fn target(&self) -> Result<Option<Target>, LaunchError> {
        if self.created {
            return Created::read(io::stdin()).map(|created| Some(Target::Created(created)));
        }
        let process = self.pid.map(Target::Process);
        let cgroup = self.cgroup.clone().map(Target::Cgroup);
        Ok(process.or(cgroup).or_else(|| self.container.clone().map(Target::Container)))
    }
}

/// Captures, or says what capturing would do.
pub fn run(places: &Places, root: Option<&Path>, arguments: &Arguments) -> ExitCode {
    let target = match arguments.target.target() {
        Ok(Some(target)) => target,
        Ok(None) => {
            eprintln!(
                "interceptor attach: say what to capture: `--pid`, `--cgroup`, `--container` or `--created`"
            );
            return ExitCode::from(2);
        }
        Err(error) => return told(Err(error)),
    };
    if arguments.plan {
        return told(attach::plan(places, &target).map(|plan| {
            print(&plan);
            plan.obstacles.is_empty()
        }));
    }
    let options = Options {
        places: places.clone(),
        agent: arguments.agent.clone(),
        mode: Mode::Enforce,
        reason: None,
        user: None,
        capabilities: Vec::new(),
        profile: Profile::Plain,
        command: Vec::new(),
        daemon: super::own_arguments(root, ["daemon", "--announce"]),
        trust: |_, _| Trust::default(),
    };
    told(attach::attach(&options, &target).map(|Attached { run, agent, plan }| {
        println!("attached run {run} of agent {agent}");
        print(&plan);
        println!("TLS clients must trust the interceptor: `interceptor ca print`");
        true
    }))
}

fn print(plan: &Plan) {
    for (pid, command) in &plan.processes {
        println!("process {pid}: {command}");
    }
    println!("Internet sockets from before, which are reset: {}", plan.sockets);
    println!("Unix sockets, which stay as they are: {}", plan.unix);
    println!("from then on: no UDP but DNS, no listeners for other hosts, names only of resources");
    for obstacle in &plan.obstacles {
        println!("cannot be attached: {obstacle}");
    }
}

fn told(done: Result<bool, LaunchError>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("interceptor attach: {}", launch::chain(&error));
            ExitCode::from(3)
        }
    }
}
