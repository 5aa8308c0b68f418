//! What this kernel can do for us, found out by trying it: for `doctor`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{Btf, Ebpf, programs::links::PinnedLink};
use interceptor_common::names::{
    CGROUP_PROGRAMS, GUARD_PROGRAMS, KEPT_GUARD, LAYER_PROGRAMS, TRACEPOINT_PROGRAMS, UNIX_LINKS,
};

use super::{
    KernelError, belt, btf, cgroup, diag,
    layer::{self, Lack},
    load, neighbours, pins, unix,
};
use crate::places::Places;

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Works,
    /// It does not, and captured connections would not be safe.
    Missing,
    /// It does not, and nothing depends on it.
    Optional,
    /// It does not, although this kernel says that it would: capture holds, and what this would close stays open.
    Broken,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub what: String,
    /// How it ended.
    pub outcome: Outcome,
    /// For a hook: whether ours is in force now.
    pub attached: Option<bool>,
    /// What was seen, in a line.
    pub detail: String,
}

impl Finding {
    fn of<T>(what: &str, result: Result<T, String>, show: impl FnOnce(T) -> String) -> Self {
        let (outcome, detail) = match result {
            Ok(value) => (Outcome::Works, show(value)),
            Err(detail) => (Outcome::Missing, detail),
        };
        Self { what: what.to_owned(), outcome, attached: None, detail }
    }
}

/// Tries everything. Changes nothing that stays, but for the bpffs mount if there was none.
pub fn probe(places: &Places) -> Vec<Finding> {
    let mut findings = vec![
        Finding::of("cgroup2", said(cgroup::root()), |path| format!("mounted at {}", path.display())),
        Finding::of("bpffs", said(pins::ensure_bpffs()), |()| "mounted at /sys/fs/bpf".into()),
        Finding::of("BTF", said(btf::offsets()), |_| "the fields that are needed are where it says".into()),
        Finding::of("sock_diag", said(diag::open()), |_| "can be asked".into()),
        legacy_controllers(),
        lsm(),
        nftables(),
    ];
    // Names on bpffs may not hold a dot.
    let mut scratch = places.pins().into_os_string();
    scratch.push(format!("-probe-{}", std::process::id()));
    let scratch = PathBuf::from(scratch);
    findings.extend(hooks(places, &scratch));
    findings.push(others(places));
    if let Err(error) = pins::remove_tree(&scratch) {
        tracing::warn!(%error, "a probe's maps stay behind");
    }
    findings
}

fn hooks(places: &Places, scratch: &Path) -> Vec<Finding> {
    let failed = |detail: String| vec![Finding::of::<()>("programs", Err(detail), |()| String::new())];
    if let Err(error) = fs::create_dir(scratch) {
        return failed(format!("{}: {error}", scratch.display()));
    }
    let loaded = load::object(scratch).and_then(|object| Ok((object, load::kernel_types()?)));
    let (mut object, types) = match said(loaded) {
        Ok(loaded) => loaded,
        Err(detail) => return failed(detail),
    };
    let links = pins::Pins::of(places).links();
    let plain = CGROUP_PROGRAMS.iter().chain(&GUARD_PROGRAMS).chain([&KEPT_GUARD]).map(|name| (*name, None));
    let traced = TRACEPOINT_PROGRAMS.iter().map(|(name, point)| (*name, Some(*point)));
    let unix = unix_hooks(&object, &links);
    let layer = layer_hooks(&mut object, &types, &links);
    plain
        .chain(traced)
        .map(|(name, point)| {
            let verified = match object.program_mut(name) {
                Some(program) => load::verify(program, point, &types).map_err(|error| load::explain(&error)),
                None => Err("not in the object".to_owned()),
            };
            let attached = PinnedLink::from_pin(links.join(name)).is_ok();
            let mut finding = Finding::of(&format!("hook {name}"), verified, |()| "loads".into());
            // This one is there only while something is kept.
            finding.attached = (attached || name != KEPT_GUARD).then_some(attached);
            finding
        })
        .chain(unix)
        .chain(layer)
        .collect()
}

/// None where the kernel does not call them.
fn layer_hooks(object: &mut Ebpf, types: &Btf, links: &Path) -> Vec<Finding> {
    if layer::is_called().is_err() {
        return Vec::new();
    }
    if let Err(detail) = said(btf::layer_offsets()) {
        let what = "LSM hooks".to_owned();
        return vec![Finding { what, outcome: Outcome::Broken, attached: None, detail }];
    }
    let labels = layer::label_programs();
    let all = LAYER_PROGRAMS.iter().map(|one| (one, true)).chain(labels.iter().map(|one| (one, false)));
    let findings = all.filter_map(|(&(name, hook), is_always_there)| {
        let tried = layer::load_one(object, (name, hook), types);
        let attached = links.join(name).exists();
        let (outcome, detail, attached) = match tried {
            Ok(()) => (Outcome::Works, "loads".to_owned(), (attached || is_always_there).then_some(attached)),
            Err(Lack::NoUse) => return None,
            Err(Lack::Because(why)) => (Outcome::Broken, why, None),
        };
        Some(Finding { what: format!("hook {name}"), outcome, attached, detail })
    });
    findings.collect()
}

/// Kernels before 6.7 do without these.
fn unix_hooks(object: &Ebpf, links: &Path) -> Vec<Finding> {
    let tried = match said(unix::is_known()) {
        Ok(false) => Err((Outcome::Optional, "not in this kernel (Linux 6.7)".to_owned())),
        Ok(true) => said(unix::loaded(object)).map_err(|detail| (Outcome::Missing, detail)),
        Err(detail) => Err((Outcome::Missing, detail)),
    };
    let (outcome, detail) = match tried {
        Ok(_) => (Outcome::Works, "loads".to_owned()),
        Err(failed) => failed,
    };
    let finding = |(name, _): &(&str, u32)| Finding {
        what: format!("hook {name}"),
        outcome,
        attached: (outcome != Outcome::Optional).then(|| links.join(name).exists()),
        detail: detail.clone(),
    };
    UNIX_LINKS.iter().map(finding).collect()
}

/// Programs of others do no harm, but whoever wonders about a refusal, or about who sees a run's traffic, wants to know.
fn others(places: &Places) -> Finding {
    let slice = cgroup::slice(places)
        .map(|slice| if slice.exists() { slice } else { slice.parent().unwrap_or(&slice).to_owned() });
    let found = slice.and_then(|slice| neighbours::of_others(&slice, &pins::Pins::of(places).links()));
    Finding::of("other programs", said(found), |found| {
        if found.is_empty() {
            "none on our hooks".into()
        } else {
            format!("beside ours: {}", found.join("; "))
        }
    })
}

/// Kernels before 5.15 forget a socket's cgroup when these are used.
fn legacy_controllers() -> Finding {
    let path = "/proc/self/cgroup";
    let text = fs::read_to_string(path).unwrap_or_default();
    let used: Vec<&str> =
        text.lines().filter(|line| line.contains("net_cls") || line.contains("net_prio")).collect();
    let detail = if used.is_empty() { "not mounted".into() } else { format!("in use: {}", used.join(", ")) };
    let outcome = if used.is_empty() { Outcome::Works } else { Outcome::Optional };
    Finding { what: "net_cls and net_prio".into(), outcome, attached: None, detail }
}

/// The belt to the braces. Where it cannot be put on, the braces hold.
fn nftables() -> Finding {
    let (outcome, detail) = match said(belt::probe()) {
        Ok(()) => {
            (Outcome::Works, "rules can be put around runs and cgroups, behind the programs".to_owned())
        }
        Err(detail) => {
            (Outcome::Optional, format!("no rules behind the programs, which hold by themselves: {detail}"))
        }
    };
    Finding { what: "nftables".into(), outcome, attached: None, detail }
}

/// A second layer, which runs are captured without. Which of its programs load is said of each.
fn lsm() -> Finding {
    let (outcome, detail) = match layer::is_called() {
        Ok(()) => (Outcome::Works, "switched on: its programs close more, above all in `attach`".to_owned()),
        Err(why) => (Outcome::Optional, why),
    };
    Finding { what: "BPF LSM".into(), outcome, attached: None, detail }
}

fn said<T>(result: Result<T, KernelError>) -> Result<T, String> {
    result.map_err(|error| crate::telemetry::chain(&error))
}
