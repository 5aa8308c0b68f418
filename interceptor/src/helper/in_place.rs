//! Cgroups that are captured where they are: somebody else made them, and their processes are not moved.
//!
//! Promises: only a cgroup out of which none but root moves processes is taken, and none that holds, or is held by, another
//! captured one or the daemon; it bears a mark that only root can set and everybody can read, so that whoever asks whether
//! a process is captured is told, whichever installation captured it; the mark goes with the cgroup, never with its name. Never
//! kills, moves or removes what is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use interceptor_core::model::RunId;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};

use super::{cgroup::Tree, executable::start_ticks};
use crate::launch::syscalls;

/// How often a captured cgroup is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// The extended attribute that marks a captured cgroup; its value is the run. Nobody but root may set one of this kind.
const MARK: &std::ffi::CStr = c"security.interceptor";

/// Why a cgroup cannot be captured where it is.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("there is no cgroup {0}: name one below {1}, such as `/proc/PID/cgroup` shows after `0::`")]
    Missing(PathBuf, PathBuf),
    /// A hierarchy of the first version.
    #[error("{0} is a cgroup of version 1, whose processes no program sees: name one below {1}")]
    FirstVersion(PathBuf, PathBuf),
    /// Another file system, or another mount.
    #[error("{0} is not below {1}, where the host's cgroups are: name one there")]
    Elsewhere(PathBuf, PathBuf),
    /// The whole host.
    #[error("the root cgroup is the whole host, the interceptor included: name one below it")]
    Root,
    /// The interceptor's own.
    #[error("{0} is one of the interceptor's own cgroups: its runs are captured, and its daemon must not be")]
    Ours(PathBuf),
    /// The interceptor's own are in it.
    #[error("{0} holds {1}, which is one of the interceptor's own cgroups: name one beside it")]
    AboveOurs(PathBuf, PathBuf),
    /// It is captured, or one above or below it.
    #[error("{0} is captured already, as run {1}: `interceptor detach {1} --reason ...` lets go of it")]
    Captured(PathBuf, String),
    /// Threads of one process may be in several cgroups.
    #[error("{0} is of type {1:?}, not a domain of whole processes: name the domain cgroup above it")]
    Threaded(PathBuf, String),
    /// A user could move processes out of it.
    #[error(
        "{0} belongs to uid {1} or can be written by others than root, who could so move processes out of capture: name \
         that cgroup itself, or attach to the process"
    )]
    Delegated(PathBuf, u32),
    /// Nothing in it can be tried.
    #[error("{0} is frozen: thaw it first (`echo 0 > {0}/cgroup.freeze`)")]
    Frozen(PathBuf),
    /// The kernel said something else.
    #[error("could not look at {path}")]
    Look {
        /// At what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn look(path: &Path) -> impl FnOnce(io::Error) -> Unfit {
    move |source| Unfit::Look { path: path.to_owned(), source }
}

/// A cgroup that can be captured where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    directory: PathBuf,
    /// From the hierarchy's root.
    name: String,
}

impl InPlace {
    /// The cgroup that somebody means by `path`: a folder below the mount, or a name from the hierarchy's root.
    pub fn find(tree: &Tree, path: &Path) -> Result<Self, Unfit> {
        let root = fs::canonicalize(tree.root()).map_err(look(tree.root()))?;
        let directory = folder_of(&root, path)?;
        let below = directory.strip_prefix(&root).unwrap_or(Path::new(""));
        if below.as_os_str().is_empty() {
            return Err(Unfit::Root);
        }
        let name =
            format!("/{}", below.to_str().ok_or_else(|| Unfit::Missing(path.to_owned(), root.clone()))?);
        if tree.is_ours(&name) {
            return Err(Unfit::Ours(directory));
        }
        let found = Self { directory, name };
        found.check_above(&root)?;
        check_below(tree, &found.directory, &found.directory)?;
        let frozen =
            fs::read_to_string(found.directory.join("cgroup.freeze")).map_err(look(&found.directory))?;
        if frozen.trim() == "1" {
            return Err(Unfit::Frozen(found.directory));
        }
        Ok(found)
    }

    /// Its folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its name from the hierarchy's root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To leave a cgroup, one must be able to write to the first that is above both: none of those may be a user's.
    fn check_above(&self, root: &Path) -> Result<(), Unfit> {
        for above in self.directory.ancestors().skip(1) {
            let entry = above.join("cgroup.procs");
            for path in [above, &entry] {
                let data = fs::symlink_metadata(path).map_err(look(path))?;
                if data.uid() != 0 || data.mode() & 0o022 != 0 {
                    return Err(Unfit::Delegated(path.to_owned(), data.uid()));
                }
            }
            if let Some(run) = marked(above).map_err(look(above))? {
                return Err(Unfit::Captured(above.to_owned(), run));
            }
            if above == root {
                break;
            }
        }
        Ok(())
    }
}

fn folder_of(root: &Path, path: &Path) -> Result<PathBuf, Unfit> {
    let named: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let missing = || Unfit::Missing(path.to_owned(), root.to_owned());
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(missing());
    }
    let as_file = if path.is_absolute() { fs::canonicalize(path).ok() } else { None };
    if let Some(found) = &as_file
        && found.starts_with(root)
    {
        return Ok(found.clone());
    }
    match fs::canonicalize(root.join(named)) {
        // `/` alone is the hierarchy's root as a name, whatever it is as a file.
        Ok(found) if found.starts_with(root) && found.is_dir() => return Ok(found),
        _ => {}
    }
    let Some(found) = as_file else { return Err(missing()) };
    let kind = statfs(&found).map_err(|errno| look(&found)(errno.into()))?.filesystem_type();
    Err(match kind {
        CGROUP_SUPER_MAGIC => Unfit::FirstVersion(found, root.to_owned()),
        _ => Unfit::Elsewhere(found, root.to_owned()),
    })
}

/// What must not be in a captured cgroup, from `folder` down.
fn check_below(tree: &Tree, whole: &Path, folder: &Path) -> Result<(), Unfit> {
    if let Some(run) = marked(folder).map_err(look(folder))? {
        return Err(Unfit::Captured(folder.to_owned(), run));
    }
    let kind = folder.join("cgroup.type");
    let kind = fs::read_to_string(&kind).map_err(look(&kind))?;
    if kind.trim() != "domain" {
        return Err(Unfit::Threaded(folder.to_owned(), kind.trim().to_owned()));
    }
    for entry in fs::read_dir(folder).map_err(look(folder))? {
        let entry = entry.map_err(look(folder))?;
        if !entry.file_type().map_err(look(folder))?.is_dir() {
            continue;
        }
        if entry.file_name().to_str().is_none_or(|name| tree.is_ours(name)) {
            return Err(Unfit::AboveOurs(whole.to_owned(), entry.path()));
        }
        check_below(tree, whole, &entry.path())?;
    }
    Ok(())
}

/// The run that a cgroup is marked as, where it is captured in its place.
pub(super) fn marked(directory: &Path) -> io::Result<Option<String>> {
    syscalls::attribute(directory, MARK)
}

/// Marks a cgroup as captured; fails when it is marked.
pub(super) fn mark(directory: &Path, run: RunId) -> io::Result<()> {
    syscalls::set_attribute(directory, MARK, &run.to_string())
}

/// Whether a cgroup is there and bears the mark of a run.
pub(super) fn is_marked_as(directory: &Path, run: RunId) -> bool {
    matches!(marked(directory), Ok(Some(own)) if own == run.to_string())
}

/// Takes a run's mark away.
pub(super) fn unmark(directory: &Path) -> io::Result<()> {
    syscalls::remove_attribute(directory, MARK)
}

/// Who moved into a captured cgroup, and who out of it, since it was last looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// These were not in it: born there since, or moved in.
    pub(super) come: Vec<u32>,
    /// These live, and are not in it any more.
    pub(super) left: Vec<u32>,
}

/// The cgroup is gone, with whatever name it had.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// A captured cgroup, with its processes by their numbers and start times.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    number: u64,
    members: BTreeMap<u32, u64>,
}

impl Watch {
    /// Begins with the cgroup that is there now.
    pub(super) fn begin(directory: PathBuf) -> io::Result<Self> {
        let number = fs::metadata(&directory)?.ino();
        Ok(Self { directory, number, members: BTreeMap::new() })
    }

    /// Looks once.
    pub(super) fn look(&mut self, tree: &Tree) -> Result<Moves, Gone> {
        if !self.is_there() {
            return Err(Gone);
        }
        let start_of = |pid: u32| self.members.get(&pid).copied().or_else(|| start_ticks(pid));
        let now: BTreeMap<u32, u64> = Tree::processes(&self.directory)
            .into_iter()
            .filter_map(|pid| Some((pid, start_of(pid)?)))
            .collect();
        let left = self.members.iter().filter(|(pid, start)| {
            // It may have gone further down while the others were read, and it may end at any time.
            !now.contains_key(pid)
                && !tree.holds(&self.directory, **pid)
                && start_ticks(**pid) == Some(**start)
        });
        let left = left.map(|(pid, _)| *pid).collect();
        let is_new = |pid: &&u32| !self.members.contains_key(pid);
        let come = now.keys().filter(is_new).copied().collect();
        self.members = now;
        // Where it went while it was looked at, nobody has left it.
        if self.is_there() { Ok(Moves { come, left }) } else { Err(Gone) }
    }

    /// The numbers of the cgroup and of those below it.
    pub(super) fn numbers(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::from([self.number]);
        number_below(&self.directory, &mut found);
        found
    }

    /// A cgroup that is made anew has another number, whatever its name.
    fn is_there(&self) -> bool {
        fs::metadata(&self.directory).is_ok_and(|data| data.ino() == self.number)
    }
}

fn number_below(folder: &Path, found: &mut BTreeSet<u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(data) = entry.metadata()
            && data.is_dir()
        {
            found.insert(data.ino());
            number_below(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::places::Places;

    /// A cgroup with a process in it, for a test.
    struct Stage {
        tree: Tree,
        directory: PathBuf,
        child: Child,
    }

    impl Stage {
        fn set(name: &str) -> Self {
            let tree = Tree::find(&Places::system()).expect("cgroup2");
            let directory = tree.root().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(directory.join("below")).expect("a cgroup");
            let child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
            let stage = Self { tree, directory, child };
            stage.put(&stage.directory.join("below"));
            stage
        }

        fn put(&self, cgroup: &Path) {
            fs::write(cgroup.join("cgroup.procs"), self.child.id().to_string()).expect("moved");
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = fs::remove_dir(self.directory.join("below"));
            let _ = fs::remove_dir(&self.directory);
        }
    }

    #[test]
    fn a_marked_cgroup_is_captured_with_all_below_it() {
        let stage = Stage::set("in-place-marked");
        let pid = stage.child.id().to_string();
        let found = InPlace::find(&stage.tree, &stage.directory).expect("nothing against it");
        assert_eq!(found, InPlace::find(&stage.tree, Path::new(found.name())).expect("by its name, too"));
        assert!(!Tree::is_captured(&pid).expect("it lives"));
        let run = RunId::from_random(7);
        mark(found.directory(), run).expect("root may");
        assert!(mark(found.directory(), RunId::from_random(8)).is_err(), "once only");
        assert!(Tree::is_captured(&pid).expect("it lives"));
        for path in [stage.directory.clone(), stage.directory.join("below")] {
            assert!(matches!(InPlace::find(&stage.tree, &path), Err(Unfit::Captured(..))));
        }
        unmark(found.directory()).expect("root may");
        mark(&stage.directory.join("below"), run).expect("root may");
        assert!(matches!(InPlace::find(&stage.tree, &stage.directory), Err(Unfit::Captured(..))));
    }

    #[test]
    fn who_leaves_is_seen_and_so_is_the_end() {
        let stage = Stage::set("in-place-watched");
        let mut watch = Watch::begin(stage.directory.clone()).expect("it is there");
        let pid = stage.child.id();
        let nothing = || Ok(Moves::default());
        assert_eq!(watch.look(&stage.tree), Ok(Moves { come: vec![pid], left: Vec::new() }));
        assert_eq!(watch.look(&stage.tree), nothing());
        stage.put(&stage.directory);
        assert_eq!(watch.look(&stage.tree), nothing(), "it is in there still");
        stage.put(stage.tree.root());
        assert_eq!(watch.look(&stage.tree), Ok(Moves { come: Vec::new(), left: vec![pid] }));
        assert_eq!(watch.look(&stage.tree), nothing(), "it is told once");
        assert_eq!(watch.numbers().len(), 2);
        fs::remove_dir(stage.directory.join("below")).expect("it is empty");
        fs::remove_dir(&stage.directory).expect("it is empty");
        fs::create_dir(&stage.directory).expect("another of the same name");
        assert_eq!(watch.look(&stage.tree), Err(Gone));
    }

    #[test]
    fn what_is_no_cgroup_of_its_own_is_refused() {
        let tree = Tree::find(&Places::system()).expect("cgroup2");
        let refused = |path: &str| InPlace::find(&tree, Path::new(path)).expect_err("refused");
        assert!(matches!(refused("/"), Unfit::Root));
        assert!(matches!(refused("."), Unfit::Root));
        assert!(matches!(refused("/etc"), Unfit::Elsewhere(..)));
        assert!(matches!(refused("no/such"), Unfit::Missing(..)));
        assert!(matches!(refused("no/../.."), Unfit::Missing(..)));
    }
}
