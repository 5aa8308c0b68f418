//! The layer of LSM programs, which is there only where the kernel has BPF LSM switched on at boot: it sees what no hook of a
//! cgroup does, and closes in captured cgroups what a run with views of its own has closed anyway.
//!
//! Promises: nothing hangs on it, unless whoever installed it says so; each program is there by itself, and which are not, and
//! why, is known; a label is never another task's. Must never know what a policy is.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::{
    Btf, Ebpf,
    maps::{HashMap, Map, MapData},
    programs::ProgramError,
};
use interceptor_common::{
    SocketFile,
    names::{self, LABEL_ALL, LABEL_MOVE, LABEL_PROGRAMS, LAYER_OPTIONAL, LAYER_PROGRAMS},
};
use nix::libc;
use serde::Deserialize;

use super::{
    KernelError, btf, load,
    maps::{lock, pinned},
    pins::Pins,
};
use crate::places::Places;

/// Where the kernel says which security modules it calls.
const LIST: &str = "/sys/kernel/security/lsm";

/// Whether the layer is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It is not.
    Off,
    /// As far as the kernel has it.
    Available,
    /// All of it, or nothing is put in force.
    Required,
}

/// What says that a process is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// The cgroup that it is in.
    Cgroup,
    /// The cgroup that it was once in, too: moved out of it, it has no sockets any more.
    Strict,
}

/// What is wanted of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Whether it is to be there.
    pub wanted: Wanted,
    /// What says that a process is captured. [`Labels::Strict`] wants all of its programs.
    pub labels: Labels,
    /// Unix sockets of the host's that captured processes may use all the same.
    pub open: Vec<PathBuf>,
}

impl Layer {
    /// No LSM programs.
    pub const OFF: Self = Self { wanted: Wanted::Off, labels: Labels::Cgroup, open: Vec::new() };
    /// As far as the kernel has it, with nothing left open.
    pub const AVAILABLE: Self = Self { wanted: Wanted::Available, labels: Labels::Cgroup, open: Vec::new() };
}

/// What there is of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, since nothing is wanted.
    Off,
    /// Nothing, for this reason.
    Absent(String),
    /// All of it, but for these programs, each with why.
    InForce(Vec<(&'static str, String)>),
}

impl Standing {
    /// Why it is not all there, where it is wanted.
    pub fn lacks(&self) -> Option<String> {
        match self {
            Self::Off => None,
            Self::Absent(why) => Some(why.clone()),
            Self::InForce(lacking) => lacking.first().map(|(name, why)| format!("program {name}: {why}")),
        }
    }
}

/// Programs that were attached, and what there is of the layer by them.
pub(super) struct Attached {
    pub(super) links: Vec<(&'static str, load::Link)>,
    pub(super) standing: Standing,
}

/// Whether this kernel calls LSM programs; why not, where it does not.
pub fn is_called() -> Result<(), String> {
    match fs::read_to_string(LIST) {
        Ok(text) => is_listed(text.trim()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "whether BPF LSM is switched on cannot be seen: mount securityfs (`mount -t securityfs none {}`)",
            Path::new(LIST).parent().unwrap_or(Path::new("/")).display()
        )),
        Err(error) => Err(format!("whether BPF LSM is switched on cannot be seen: {LIST}: {error}")),
    }
}

fn is_listed(list: &str) -> Result<(), String> {
    if list.split(',').any(|module| module == "bpf") {
        return Ok(());
    }
    Err(format!("BPF LSM is not switched on: boot with `lsm={list},bpf`, if the kernel has CONFIG_BPF_LSM=y"))
}

/// Whether there is a use in trying, where all of it is wanted.
pub(super) fn check(layer: &Layer) -> Result<(), KernelError> {
    match layer.wanted {
        Wanted::Off | Wanted::Available => Ok(()),
        Wanted::Required => ready().map(drop).map_err(KernelError::Layer),
    }
}

/// Loads and attaches what is wanted, as far as the kernel has it. Where all of it is wanted, less is an error.
pub(super) fn attach(object: &mut Ebpf, layer: &Layer) -> Result<Attached, KernelError> {
    let mut links = Vec::new();
    let standing = match layer.wanted {
        Wanted::Off => Standing::Off,
        Wanted::Available | Wanted::Required => match ready() {
            Err(why) => Standing::Absent(why),
            Ok(types) => Standing::InForce(attach_each(object, &LAYER_PROGRAMS, &types, &mut links)),
        },
    };
    if let Some(why) = standing.lacks()
        && layer.wanted == Wanted::Required
    {
        return Err(KernelError::Layer(why));
    }
    if layer.labels == Labels::Strict {
        let types = ready().map_err(KernelError::Labels)?;
        let lacking = attach_each(object, &label_programs(), &types, &mut links);
        if let Some((name, why)) = lacking.first() {
            return Err(KernelError::Labels(format!("program {name}: {why}")));
        }
        // Attached each time that it is wanted.
        load_one(object, LABEL_ALL, &types).map_err(|lack| KernelError::Labels(lack.in_words()))?;
    }
    Ok(Attached { links, standing })
}

/// The programs of strict labels in the order in which they are attached: nobody has a label that would not be taken away.
pub(super) fn label_programs() -> [(&'static str, &'static str); LABEL_PROGRAMS.len() + 1] {
    let [end, fork, exec, create, connect, send] = LABEL_PROGRAMS;
    [end, fork, exec, LABEL_MOVE, create, connect, send]
}

/// The kernel's types, where it calls such programs and has all that they look at.
fn ready() -> Result<Btf, String> {
    is_called()?;
    btf::layer_offsets().and_then(|_| load::kernel_types()).map_err(|error| crate::telemetry::chain(&error))
}

/// Says which are not attached, and why.
fn attach_each(
    object: &mut Ebpf,
    programs: &[(&'static str, &'static str)],
    types: &Btf,
    links: &mut Vec<(&'static str, load::Link)>,
) -> Vec<(&'static str, String)> {
    let mut lacking = Vec::new();
    for &(name, hook) in programs {
        let loaded = load_one(object, (name, hook), types);
        match loaded.and_then(|()| load::attach_by_type(object, name).map_err(Lack::from)) {
            Ok(link) => links.push((name, link)),
            Err(Lack::NoUse) => {}
            Err(Lack::Because(why)) => lacking.push((name, why)),
        }
    }
    lacking
}

/// Why a program is not there.
pub(super) enum Lack {
    /// The kernel has no such hook, and no use for it.
    NoUse,
    /// Something else.
    Because(String),
}

impl Lack {
    fn in_words(self) -> String {
        match self {
            Self::NoUse => "the kernel has no such hook".to_owned(),
            Self::Because(why) => why,
        }
    }
}

impl From<KernelError> for Lack {
    fn from(error: KernelError) -> Self {
        Self::Because(crate::telemetry::chain(&error))
    }
}

/// Has the verifier look at one program of the layer, or of strict labels.
pub(super) fn load_one(object: &mut Ebpf, (name, hook): (&str, &str), types: &Btf) -> Result<(), Lack> {
    let program = load::program_of(object, name)?;
    load::verify(program, Some(hook), types).map_err(|error| match error {
        ProgramError::Btf(_) if LAYER_OPTIONAL.contains(&name) => Lack::NoUse,
        error => Lack::Because(load::explain(&error)),
    })
}

/// Gives labels to whoever is in a run that is known.
pub(super) fn label_all(object: &mut Ebpf) -> Result<(), KernelError> {
    load::iterate(object, LABEL_ALL.0)
}

/// The maps that only the layer uses.
pub(super) struct LayerMaps {
    labels: Mutex<HashMap<MapData, u64, u64>>,
    peers: Mutex<HashMap<MapData, SocketFile, u32>>,
}

impl LayerMaps {
    pub(super) fn open(maps: &Path) -> Result<Self, KernelError> {
        let unfit = |name: &'static str| KernelError::refused(format!("map {name}"));
        let map = |name| pinned(maps, name).map(Map::HashMap);
        Ok(Self {
            labels: Mutex::new(map(names::LABELS)?.try_into().map_err(unfit(names::LABELS))?),
            peers: Mutex::new(map(names::PEERS)?.try_into().map_err(unfit(names::PEERS))?),
        })
    }

    /// Takes every label away. For when nobody takes them away at a task's end: its address is given to another one.
    pub(super) fn clear_labels(&self) {
        let mut labels = lock(&self.labels);
        let all: Vec<u64> = labels.keys().flatten().collect();
        // One that is gone already is as good as removed.
        all.iter().for_each(|task| drop(labels.remove(task)));
    }

    /// Leaves open the sockets that are at these paths now, and no others. Says which are not, although something is there:
    /// others than root could lead such a path elsewhere.
    pub(super) fn leave_open<'a>(
        &self,
        paths: &'a [PathBuf],
    ) -> Result<Vec<(&'a Path, io::Error)>, KernelError> {
        let (mut wanted, mut unfit) = (BTreeSet::new(), Vec::new());
        for path in paths {
            match socket_at(path) {
                Ok(file) => drop(wanted.insert((file.device, file.inode))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unfit.push((path.as_path(), error)),
            }
        }
        let mut peers = lock(&self.peers);
        let known: Vec<SocketFile> = peers.keys().flatten().collect();
        known
            .iter()
            .filter(|file| !wanted.contains(&(file.device, file.inode)))
            .for_each(|file| drop(peers.remove(file)));
        wanted.into_iter().try_for_each(|(device, inode)| {
            let file = SocketFile { inode, device, reserved: 0 };
            peers.insert(file, 1, 0).map_err(KernelError::refused("to leave a Unix socket open"))
        })?;
        Ok(unfit)
    }
}

/// The socket at a path that only root can have put there: no link, nothing right above it that others may write, and further
/// up nothing in which others could put something else in its place.
fn socket_at(path: &Path) -> io::Result<SocketFile> {
    for (number, above) in path.ancestors().skip(1).enumerate() {
        let data = fs::symlink_metadata(above)?;
        // What is root's in a folder with this bit stays what it is.
        let stays = number > 0 && data.mode() & 0o1000 != 0;
        if !data.is_dir() || data.uid() != 0 || (data.mode() & 0o022 != 0 && !stays) {
            let text = format!("{} is a link, or others than root may write to it", above.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    let data = fs::symlink_metadata(path)?;
    if !data.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"));
    }
    Ok(SocketFile { inode: data.ino(), device: kernel_device(data.dev()), reserved: 0 })
}

/// A device's number as the kernel has it, from how stat(2) tells it.
fn kernel_device(told: u64) -> u32 {
    libc::major(told) << 20 | libc::minor(told)
}

/// What is to be seen of the layer from outside of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The kernel does not call it, for this reason.
    Absent(String),
    /// These programs of so many are in force.
    InForce(usize, usize),
}

/// What there is of the layer now, by its pins. Needs root.
pub fn seen(places: &Places) -> Seen {
    if let Err(why) = is_called() {
        return Seen::Absent(why);
    }
    let links = Pins::of(places).links();
    let needed: Vec<_> = LAYER_PROGRAMS.iter().filter(|(name, _)| !LAYER_OPTIONAL.contains(name)).collect();
    let there = needed.iter().filter(|(name, _)| links.join(name).exists()).count();
    Seen::InForce(there, needed.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    };

    use super::*;

    #[test]
    fn a_list_without_it_says_how_to_have_it() {
        assert_eq!(is_listed("lockdown,capability,landlock,yama,bpf"), Ok(()));
        let why = is_listed("lockdown,capability,yama").expect_err("it is not there");
        assert!(why.contains("`lsm=lockdown,capability,yama,bpf`"), "{why}");
        assert!(is_listed("ebpf,bpfx").is_err());
    }

    #[test]
    fn only_a_socket_that_nobody_but_root_could_replace_is_left_open() {
        let folder = tempfile::tempdir_in("/run").expect("a folder in /run: are you root?");
        let path = folder.path().join("log");
        assert_eq!(socket_at(&path).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        let _listener = UnixListener::bind(&path).expect("bind");
        let found = socket_at(&path).expect("a socket");
        let data = fs::metadata(&path).expect("data");
        assert_eq!(found.inode, data.ino());
        assert_eq!(
            (found.device >> 20, found.device & 0xf_ffff),
            (libc::major(data.dev()), libc::minor(data.dev()))
        );
        let link = folder.path().join("link");
        symlink(&path, &link).expect("a link");
        assert_eq!(socket_at(&link).expect_err("a link").kind(), io::ErrorKind::InvalidInput);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("mode");
        assert_eq!(socket_at(&path).expect_err("anybody's").kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).expect("mode");
        assert_eq!(socket_at(&path).expect_err("still").kind(), io::ErrorKind::PermissionDenied);
        let below = folder.path().join("below");
        fs::create_dir(&below).expect("a folder");
        let _another = UnixListener::bind(below.join("log")).expect("bind");
        socket_at(&below.join("log")).expect("root's, in root's, in one where that stays so");
    }
}
