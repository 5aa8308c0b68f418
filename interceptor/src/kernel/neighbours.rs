//! Programs of others on the hooks that ours are on. The kernel runs all that are attached, those below first, and lets
//! pass what all of them let pass, so that beside us nobody can open what ours close. But somebody may have attached a
//! program so that it is alone, and then ours cannot be.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_programs,
};

use super::{KernelError, cgroup, sys};

/// Every kind of hook that a program of ours is on, as the kernel numbers them.
const HOOKS: [(&str, u32); 16] = [
    ("ingress", 0),
    ("egress", 1),
    ("sock_create", 2),
    ("sock_ops", 3),
    ("connect4", 10),
    ("connect6", 11),
    ("post_bind4", 12),
    ("post_bind6", 13),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("setsockopt", sys::SETSOCKOPT),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("sock_release", 34),
];

/// A program on one of our hooks.
pub(super) struct Neighbour {
    hook: &'static str,
    cgroup: PathBuf,
    id: u32,
    terms: sys::Terms,
}

/// Those that are attached to the cgroup itself.
fn attached(cgroup: &Path) -> Result<Vec<Neighbour>, KernelError> {
    let file = File::open(cgroup).map_err(KernelError::place("open", cgroup))?;
    let mut found = Vec::new();
    for (hook, number) in HOOKS {
        let (ids, terms) = sys::attached(file.as_fd(), number)
            .map_err(KernelError::refused(format!("to say what is on {hook} at {}", cgroup.display())))?;
        found.extend(ids.into_iter().map(|id| Neighbour { hook, cgroup: cgroup.to_owned(), id, terms }));
    }
    Ok(found)
}

/// The cgroup and all above it.
fn upwards(cgroup: &Path) -> Result<impl Iterator<Item = &Path>, KernelError> {
    let root = cgroup::root()?;
    Ok(cgroup.ancestors().take_while(move |path| path.starts_with(&root)))
}

/// The program that keeps ours from being attached to `cgroup`, if there is one.
pub(super) fn in_the_way(cgroup: &Path) -> Result<Option<KernelError>, KernelError> {
    let mut settled = Vec::new();
    for place in upwards(cgroup)? {
        for Neighbour { hook, cgroup: at, id, terms } in attached(place)? {
            // The nearest one above decides.
            if settled.contains(&hook) {
                continue;
            }
            settled.push(hook);
            let yields = match terms {
                sys::Terms::Beside => true,
                sys::Terms::UnlessBelow => place != cgroup,
                sys::Terms::Alone => false,
            };
            if !yields {
                return Ok(Some(KernelError::Alone { program: called(&names(), id), hook, cgroup: at }));
            }
        }
    }
    Ok(None)
}

/// The programs of others that see what ours see in `cgroup`, but for those whose links are pinned in `own`.
pub(super) fn of_others(cgroup: &Path, own: &Path) -> Result<Vec<String>, KernelError> {
    let own = pinned(own);
    let names = names();
    let mut shown: BTreeMap<(String, PathBuf), Vec<&str>> = BTreeMap::new();
    for place in upwards(cgroup)? {
        for Neighbour { hook, cgroup, id, .. } in
            attached(place)?.into_iter().filter(|one| !own.contains(&one.id))
        {
            shown.entry((called(&names, id), cgroup)).or_default().push(hook);
        }
    }
    let line = |((name, cgroup), mut hooks): ((String, PathBuf), Vec<&str>)| {
        // Several of one name, as other installations of ours have.
        hooks.dedup();
        format!("{name} at {} ({})", cgroup.display(), hooks.join(", "))
    };
    Ok(shown.into_iter().map(line).collect())
}

/// The programs of the links that are pinned in a folder.
fn pinned(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| PinnedLink::from_pin(entry.path()).ok());
    links.filter_map(|link| Some(FdLink::from(link).info().ok()?.program_id())).collect()
}

fn names() -> BTreeMap<u32, String> {
    let programs = loaded_programs().flatten();
    programs.filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned()))).collect()
}

/// Its name, which not every program has.
fn called(names: &BTreeMap<u32, String>, id: u32) -> String {
    names.get(&id).filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("program {id}"))
}
