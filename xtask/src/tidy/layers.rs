//! Which module of the shell may name which: the arrows of the architecture, as a table.

use std::collections::BTreeSet;

use syn::{UseTree, visit::Visit};

use super::{Source, is_test};

/// Each module of `interceptor/src`, with those that it may name. What is not listed is not allowed.
const ARROWS: &[(&str, &[&str])] = &[
    ("places", &[]),
    ("channel", &[]),
    ("telemetry", &[]),
    ("kernel", &["places", "telemetry"]),
    ("identity", &["places", "kernel", "telemetry"]),
    ("store", &["places", "telemetry"]),
    // The keeper signs what the proxy's TLS shows: it is asked over a channel.
    ("keeper", &["places", "channel", "store", "tls", "telemetry"]),
    ("tls", &["keeper", "channel", "telemetry"]),
    // The launcher knows the broker and the runtime by their messages only.
    ("engine", &["places", "channel", "telemetry"]),
    // A launch asks the helper for a run, and the helper starts its roles by the launcher's primitives.
    ("launch", &["places", "channel", "engine", "helper", "telemetry"]),
    ("helper", &["places", "channel", "engine", "launch", "telemetry"]),
    ("approval", &["places", "store", "keeper", "tls", "telemetry"]),
    ("binding", &["store", "keeper", "telemetry"]),
    ("opinion", &["telemetry"]),
    ("rescue", &["places", "store", "telemetry"]),
    ("gate", &["places", "identity", "store", "approval", "binding", "telemetry"]),
    (
        "proxy",
        &[
            "places",
            "channel",
            "kernel",
            "identity",
            "tls",
            "store",
            "keeper",
            "gate",
            "helper",
            "telemetry",
            "config",
        ],
    ),
    ("config", &["places", "kernel", "gate", "rescue", "telemetry"]),
    (
        "control",
        &[
            "places",
            "channel",
            "kernel",
            "identity",
            "tls",
            "store",
            "gate",
            "config",
            "helper",
            "launch",
            "rescue",
            "telemetry",
            "app",
        ],
    ),
    // Only this one wires.
    (
        "app",
        &[
            "places",
            "channel",
            "telemetry",
            "kernel",
            "identity",
            "tls",
            "store",
            "keeper",
            "approval",
            "binding",
            "opinion",
            "rescue",
            "gate",
            "proxy",
            "control",
            "config",
            "engine",
            "helper",
            "launch",
        ],
    ),
    ("main", &["app", "control"]),
];

/// Lists every use of a module against the arrows, and every module that is in no room.
pub(super) fn check(sources: &[Source], wrong: &mut Vec<String>) {
    for source in sources.iter().filter(|source| !source.test) {
        let Some(rest) = source.path.strip_prefix("interceptor/src/") else { continue };
        let room = rest.split(['/', '.']).next().unwrap_or(rest);
        if room == "lib" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!(
                "{}: `{room}` is in no room: add it to the arrows in xtask's tidy",
                source.path
            ));
            continue;
        };
        let mut named = Named::default();
        named.visit_file(&source.syntax);
        for module in named.0 {
            let known = ARROWS.iter().any(|(name, _)| *name == module);
            if known && module != room && !allowed.contains(&module.as_str()) {
                wrong.push(format!("{}: {room} may not name {module}", source.path));
            }
        }
    }
}

/// The first word after `crate::` in uses and paths, tests left out.
#[derive(Default)]
struct Named(BTreeSet<String>);

impl Named {
    fn tree(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => drop(self.0.insert(path.ident.to_string())),
            UseTree::Name(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Rename(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree)),
            UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        if let UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(second) = segments.next()
        {
            self.0.insert(second.ident.to_string());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }
}
