//! `interceptor attach`: the launcher, for processes that are there already.

use std::{path::Path, process::ExitCode};

use clap::Args;
use interceptor_core::model::{AgentName, Mode};

use crate::{
    launch::{
        self, LaunchError, Options, Trust,
        attach::{self, Attached, Plan},
    },
    places::Places,
};

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The process; all that descend from it are captured with it.
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// The agent that this is; without it, the hints of `agents.toml` decide.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Only say what would be done, and what stands against it.
    #[arg(long)]
    plan: bool,
}

/// Captures, or says what capturing would do.
pub fn run(places: &Places, root: Option<&Path>, arguments: &Arguments) -> ExitCode {
    if arguments.plan {
        return told(attach::plan(places, arguments.pid).map(|plan| {
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
        command: Vec::new(),
        daemon: super::own_arguments(root, ["daemon", "--announce"]),
        trust: |_, _| Trust::default(),
    };
    told(attach::attach(&options, arguments.pid).map(|Attached { run, agent, plan }| {
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
