//! The tree of captured processes.

use std::{collections::HashMap, sync::Arc};

use interceptor_core::model::{Ancestor, Descent, ExecutableDigest, ProcessFacts, RunId};

use super::login::TICK;

/// How many ancestors a record names at most.
const DEPTH: usize = 64;
/// How many processes one run may have on file before its dead leaves are forgotten, and then its oldest.
const PER_RUN: usize = 16_384;
/// How many programs a process may have executed, one in the place of another, for all of them to be known.
const PROGRAMS: usize = 8;

/// Names one process for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// In the host's pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot.
    pub start_time: u64,
}

/// What the kernel side saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// A process was made.
    Fork {
        /// Its run.
        run: RunId,
        /// It.
        child: ProcessId,
        /// Its parent.
        parent: ProcessId,
    },
    /// A process executes a program.
    Exec {
        /// Its run.
        run: RunId,
        /// It.
        process: ProcessId,
        /// The path given to the kernel.
        path: Option<String>,
        /// The argument vector, cut at the kernel side's limit.
        argv: Vec<String>,
    },
    /// A process ended.
    Exit {
        /// It.
        process: ProcessId,
    },
}

#[derive(Debug, Default, Clone)]
struct Node {
    run: Option<RunId>,
    parent: Option<ProcessId>,
    executable: Option<String>,
    digest: Option<ExecutableDigest>,
    argv: Vec<String>,
    /// Every program that it executed, as its path was given; none where one is not known.
    programs: Option<Vec<String>>,
    children: usize,
    dead: bool,
    /// What was last told of it.
    told: Option<Arc<ProcessFacts>>,
}

/// All captured processes, and the dead ones that living ones descend from.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: HashMap<ProcessId, Node>,
    per_run: HashMap<RunId, usize>,
}

impl Tree {
    /// Takes in what the kernel side saw. True for an exec, whose executable is worth a digest.
    pub fn observe(&mut self, seen: Observed) -> bool {
        match seen {
            Observed::Fork { run, child, parent } => {
                let inherited = self.nodes.get(&parent).cloned().unwrap_or_default();
                if let Some(node) = self.nodes.get_mut(&parent) {
                    node.children += 1;
                }
                let node = self.node(run, child);
                node.parent = Some(parent);
                node.executable = inherited.executable;
                node.digest = inherited.digest;
                node.argv = inherited.argv;
                node.programs = Some(Vec::new());
                false
            }
            Observed::Exec { run, process, path, argv } => {
                let node = self.node(run, process);
                // Of one whose beginning was not seen, what it executed before is not known.
                let programs = node.programs.take().filter(|programs| programs.len() < PROGRAMS);
                node.programs = programs.zip(path.clone()).map(|(mut programs, path)| {
                    programs.push(path);
                    programs
                });
                node.executable = path;
                node.digest = None;
                node.argv = argv;
                true
            }
            Observed::Exit { process } => {
                if let Some(node) = self.nodes.get_mut(&process) {
                    node.dead = true;
                }
                self.forget_from(process);
                false
            }
        }
    }

    /// What the helper found out about a process's executable.
    pub fn identified(&mut self, process: ProcessId, path: String, digest: Option<ExecutableDigest>) {
        if let Some(node) = self.nodes.get_mut(&process) {
            node.executable = Some(path);
            node.digest = digest;
        }
    }

    /// The process of `run` that has this number and started in this tick of the clock; as exactly as the tick says, where it
    /// was never seen.
    pub fn find(&self, run: RunId, pid: u32, ticks: u64) -> ProcessId {
        let is_it = |id: &ProcessId| id.pid == pid && id.start_time / TICK == ticks;
        let seen = self.nodes.iter().filter(|(id, node)| is_it(id) && node.run == Some(run));
        let unseen = ProcessId { pid, start_time: ticks.saturating_mul(TICK) };
        seen.map(|(id, _)| *id).max().unwrap_or(unseen)
    }

    /// Forgets everything of a run that ended.
    pub fn forget_run(&mut self, run: RunId) {
        self.nodes.retain(|_, node| node.run != Some(run));
        self.per_run.remove(&run);
    }

    /// The facts of a process that connected. A process that was never seen has no argv and no ancestry, and says
    /// that it is late.
    pub fn facts(&mut self, process: ProcessId, uid: u32, cgroup: String) -> Arc<ProcessFacts> {
        let facts = self.facts_now(process, uid, cgroup);
        let Some(node) = self.nodes.get_mut(&process) else { return Arc::new(facts) };
        match &node.told {
            // Connections of one process share them.
            Some(told) if **told == facts => told.clone(),
            _ => node.told.insert(Arc::new(facts)).clone(),
        }
    }

    fn facts_now(&self, process: ProcessId, uid: u32, cgroup: String) -> ProcessFacts {
        let node = self.nodes.get(&process);
        ProcessFacts {
            pid: process.pid,
            start_time: process.start_time,
            uid,
            executable: node.and_then(|node| node.executable.clone()),
            digest: node.and_then(|node| node.digest),
            argv: node.map(|node| node.argv.clone()).unwrap_or_default(),
            ancestry: self.ancestry(node),
            cgroup,
            late: node.is_none(),
            descent: self.descent(process),
        }
    }

    fn descent(&self, process: ProcessId) -> Option<Descent> {
        let mut programs = Vec::new();
        let mut at = process;
        for _ in 0..DEPTH {
            let node = self.nodes.get(&at)?;
            programs.extend(node.programs.as_ref()?.iter().cloned());
            at = node.parent?;
            if !self.nodes.contains_key(&at) {
                return Some(Descent { pid: at.pid, start_time: at.start_time, programs });
            }
        }
        None
    }

    fn ancestry(&self, node: Option<&Node>) -> Vec<Ancestor> {
        let next =
            |parent: Option<ProcessId>| parent.and_then(|id| self.nodes.get(&id).map(|node| (id, node)));
        std::iter::successors(next(node.and_then(|node| node.parent)), |(_, node)| next(node.parent))
            .take(DEPTH)
            .map(|(id, node)| Ancestor {
                pid: id.pid,
                start_time: id.start_time,
                executable: node.executable.clone(),
                argv: node.argv.clone(),
            })
            .collect()
    }

    fn node(&mut self, run: RunId, process: ProcessId) -> &mut Node {
        let count = self.per_run.entry(run).or_default();
        if !self.nodes.contains_key(&process) {
            *count += 1;
            if *count > PER_RUN
                && let Some(oldest) = self
                    .nodes
                    .iter()
                    .filter(|(_, node)| node.run == Some(run))
                    .map(|(id, _)| *id)
                    .min_by_key(|id| id.start_time)
            {
                self.nodes.remove(&oldest);
                *count -= 1;
            }
        }
        let node = self.nodes.entry(process).or_default();
        node.run = Some(run);
        node
    }

    /// Removes a dead process that nobody descends from, and then its parent if the same is true of it.
    fn forget_from(&mut self, process: ProcessId) {
        let mut next = Some(process);
        while let Some(id) = next {
            let removable = self.nodes.get(&id).is_some_and(|node| node.dead && node.children == 0);
            if !removable {
                return;
            }
            let Some(node) = self.nodes.remove(&id) else { return };
            if let Some(count) = node.run.and_then(|run| self.per_run.get_mut(&run)) {
                *count = count.saturating_sub(1);
            }
            next = node.parent;
            if let Some(parent) = next.and_then(|parent| self.nodes.get_mut(&parent)) {
                parent.children = parent.children.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32) -> ProcessId {
        ProcessId { pid, start_time: u64::from(pid) * 10 }
    }

    fn exec(pid: u32, argv: &[&str]) -> Observed {
        Observed::Exec {
            run: RunId::from_random(7),
            process: id(pid),
            path: argv.first().map(|first| (*first).to_owned()),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    fn fork(child: u32, parent: u32) -> Observed {
        Observed::Fork { run: RunId::from_random(7), child: id(child), parent: id(parent) }
    }

    #[test]
    fn ancestry_outlives_the_ancestors() {
        let mut tree = Tree::default();
        for seen in
            [exec(1, &["agent"]), fork(2, 1), exec(2, &["sh", "-c", "psql"]), fork(3, 2), exec(3, &["psql"])]
        {
            tree.observe(seen);
        }
        tree.observe(Observed::Exit { process: id(2) });
        let facts = tree.facts(id(3), 1000, String::new());
        let names: Vec<_> =
            facts.ancestry.iter().map(|a| a.argv.first().cloned().unwrap_or_default()).collect();
        assert_eq!(names, ["sh", "agent"]);
        assert!(!facts.late);
    }

    #[test]
    fn descent_has_every_program_back_to_what_was_there_before() {
        let mut tree = Tree::default();
        // 1 was there before; 5 executes what it is seen as only after something else.
        for seen in
            [fork(2, 1), exec(2, &["psql"]), fork(3, 1), exec(3, &["agent"]), fork(4, 3), exec(4, &["psql"])]
        {
            tree.observe(seen);
        }
        for seen in [fork(5, 1), exec(5, &["agent"]), exec(5, &["psql"]), exec(1, &["psql"]), fork(6, 1)] {
            tree.observe(seen);
        }
        let descent = |tree: &mut Tree, pid| tree.facts(id(pid), 1000, String::new()).descent.clone();
        let of = |programs: &[&str]| {
            let programs = programs.iter().map(|program| (*program).to_owned()).collect();
            Some(Descent { pid: 1, start_time: 10, programs })
        };
        let mut seen = Tree::default();
        seen.observe(fork(2, 1));
        seen.observe(exec(2, &["psql"]));
        assert_eq!(descent(&mut seen, 2), of(&["psql"]));
        assert_eq!(descent(&mut seen, 1), None, "nothing is known of what was there before");
        // Once that has executed something it is on file, but not from its beginning.
        assert_eq!(descent(&mut tree, 6), None);
        tree.nodes.remove(&id(1));
        assert_eq!(descent(&mut tree, 4), of(&["psql", "agent"]));
        assert_eq!(descent(&mut tree, 5), of(&["agent", "psql"]));
    }

    #[test]
    fn the_dead_without_descendants_are_forgotten() {
        let mut tree = Tree::default();
        for seen in [exec(1, &["agent"]), fork(2, 1), fork(3, 2)] {
            tree.observe(seen);
        }
        tree.observe(Observed::Exit { process: id(2) });
        assert_eq!(tree.nodes.len(), 3, "the child still descends from it");
        tree.observe(Observed::Exit { process: id(3) });
        assert_eq!(tree.nodes.len(), 1);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut tree = Tree::default();
        tree.observe(exec(1, &["agent"]));
        let facts = tree.facts(ProcessId { pid: 1, start_time: 99 }, 0, String::new());
        assert!(facts.late && facts.argv.is_empty());
    }

    #[test]
    fn a_process_is_found_by_the_tick_that_it_started_in() {
        let at = |start_time| ProcessId { pid: 7, start_time };
        let run = RunId::from_random(7);
        let mut tree = Tree::default();
        for start_time in [3 * TICK - 1, 3 * TICK + 5, 4 * TICK] {
            let path = Some(start_time.to_string());
            tree.observe(Observed::Exec { run, process: at(start_time), path, argv: Vec::new() });
        }
        assert_eq!(tree.find(run, 7, 3), at(3 * TICK + 5));
        assert_eq!(tree.find(run, 7, 2), at(3 * TICK - 1));
        // Nobody that is known: of another number, of another run, at another time.
        assert_eq!(tree.find(run, 8, 3), ProcessId { pid: 8, start_time: 3 * TICK });
        assert_eq!(tree.find(RunId::from_random(8), 7, 3), at(3 * TICK));
        assert_eq!(tree.find(run, 7, 5), at(5 * TICK));
    }

    #[test]
    fn a_run_that_forks_without_end_stays_bounded() {
        let mut tree = Tree::default();
        for pid in 1..40_000 {
            tree.observe(fork(pid + 1, pid));
        }
        assert!(tree.nodes.len() <= PER_RUN + 1);
    }
}
