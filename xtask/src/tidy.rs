//! `cargo xtask tidy`: the house rules that a compiler does not check. Every breach is listed; none is mended.

mod layers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use syn::{Attribute, Item, Meta, visit::Visit};

use crate::{cargo, workspace};

/// The longest file, its tests left out.
const LONGEST_FILE: usize = 600;
/// The longest function.
const LONGEST_FUNCTION: usize = 80;
/// Packages whose sources are held to the rules.
const PACKAGES: &[&str] = &[
    "interceptor",
    "interceptor-common",
    "interceptor-core",
    "interceptor-ebpf",
    "interceptor-protocols",
    "tests",
    "xtask",
];
/// Where `unsafe` may stand, with what for.
const UNSAFE: &[(&str, &str)] = &[
    ("interceptor/src/kernel/", "the kernel side"),
    ("interceptor/src/channel.rs", "descriptors from control messages"),
    ("interceptor/src/store/journal/", "the mapping between proxy and keeper"),
    ("interceptor/src/store/index.rs", "the priority of its thread"),
    ("interceptor/src/launch/", "clone3 and what comes before exec"),
    ("interceptor-ebpf/", "the kernel programs"),
    ("interceptor-common/", "what is copied to and from the kernel"),
    ("tests/src/bin/interceptor-fuzz.rs", "the mapping that outlives an abort"),
];
/// Files that must be there.
const REQUIRED: &[&str] =
    &["LICENSE", "interceptor-ebpf/LICENSE-GPL-2.0", "README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

/// Workspaces beside this one, which are built `--locked` and not by every build.
const BESIDE: &[&str] = &["interceptor-ebpf", "second-opinion"];

/// A source file, read and parsed.
pub(crate) struct Source {
    /// Its path from the workspace.
    path: String,
    text: String,
    syntax: syn::File,
    /// Whether it holds only tests.
    test: bool,
}

/// Checks everything and lists what is wrong.
pub(crate) fn run() -> Result<()> {
    let root = workspace()?;
    let mut wrong = Vec::new();
    for file in REQUIRED {
        if !root.join(file).exists() {
            wrong.push(format!("{file} is missing"));
        }
    }
    let sources = sources(&root)?;
    for source in &sources {
        documented(source, &mut wrong);
        sized(source, &mut wrong);
        words(source, &mut wrong);
    }
    only_one_committed(&sources, &mut wrong);
    layers::check(&sources, &mut wrong);
    locked(&root, &mut wrong)?;
    deny(&root, &mut wrong)?;
    wrong.sort();
    wrong.iter().for_each(|line| println!("{line}"));
    ensure!(wrong.is_empty(), "{} breaches of the house rules", wrong.len());
    println!("tidy: {} files keep the house rules", sources.len());
    Ok(())
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for package in PACKAGES {
        for folder in ["src", "tests"] {
            rust_files(&root.join(package).join(folder), &mut paths)?;
        }
    }
    paths.sort();
    let mut sources = paths.into_iter().map(|path| source(root, &path)).collect::<Result<Vec<_>>>()?;
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.test |= tests.iter().any(|module| source.path.starts_with(module));
    }
    Ok(sources)
}

/// What the paths of modules begin with that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let (folder, stem) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let below = match stem.trim_end_matches(".rs") {
        "mod" | "lib" | "main" => folder.to_owned(),
        stem => format!("{folder}/{stem}"),
    };
    let modules = source.syntax.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => Some(&module.ident),
        _ => None,
    });
    modules.flat_map(|name| [format!("{below}/{name}.rs"), format!("{below}/{name}/")]).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn source(root: &Path, path: &Path) -> Result<Source> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let syntax = syn::parse_file(&text).with_context(|| path.display().to_string())?;
    let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let stem = path.rsplit('/').next().unwrap_or(&path).trim_end_matches(".rs");
    let integration = path.split('/').nth(1) == Some("tests");
    let test = integration || stem == "tests" || stem.ends_with("_tests") || path.contains("/tests/");
    let test = test && !path.starts_with("tests/src/");
    Ok(Source { path, text, syntax, test })
}

fn documented(source: &Source, wrong: &mut Vec<String>) {
    let documented = source.syntax.attrs.iter().any(|attribute| attribute.path().is_ident("doc"));
    if !documented && !source.test {
        wrong.push(format!(
            "{}: opens without `//!`: say its purpose, its promises, what it must never know",
            source.path
        ));
    }
}

fn sized(source: &Source, wrong: &mut Vec<String>) {
    if source.test {
        return;
    }
    let mut lines = source.text.lines().count();
    for item in &source.syntax.items {
        if let Item::Mod(module) = item
            && is_test(&module.attrs)
            && module.content.is_some()
        {
            lines -= span_lines(item);
        }
    }
    if lines > LONGEST_FILE {
        wrong.push(format!("{}: {lines} lines, more than {LONGEST_FILE}: divide it", source.path));
    }
    let mut functions = Functions { path: &source.path, wrong };
    functions.visit_file(&source.syntax);
}

/// Looks at the length of each function.
struct Functions<'a> {
    path: &'a str,
    wrong: &'a mut Vec<String>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, block: &syn::Block) {
        let open = block.brace_token.span.open().start().line;
        let close = block.brace_token.span.close().end().line;
        let lines = close.saturating_sub(open) + 1;
        // A body that is one `matches!` is a table: its length is its contents.
        let table = matches!(
            block.stmts.as_slice(),
            [syn::Stmt::Expr(syn::Expr::Macro(_), None) | syn::Stmt::Macro(_)]
        );
        if !table && lines > LONGEST_FUNCTION {
            let text =
                format!("{}:{open}: `{name}` has {lines} lines, more than {LONGEST_FUNCTION}", self.path);
            self.wrong.push(text);
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }
}

/// Whether attributes say `#[cfg(test)]`.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn span_lines(item: &Item) -> usize {
    use syn::spanned::Spanned;
    let span = item.span();
    span.end().line.saturating_sub(span.start().line) + 1
}

/// Words that may not stand in sources, outside of this file.
fn words(source: &Source, wrong: &mut Vec<String>) {
    if source.path.starts_with("xtask/src/tidy") {
        return;
    }
    let unsafe_allowed = UNSAFE.iter().any(|(place, _)| source.path.starts_with(place)) || source.test;
    for (number, line) in (1..).zip(source.text.lines()) {
        let code = line.split("//").next().unwrap_or(line);
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            if code.contains(word) {
                wrong.push(format!("{}:{number}: `{word}`: finish it", source.path));
            }
        }
        if ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(&format!("// {word}"))) {
            wrong.push(format!("{}:{number}: a note to come back: do it now, or open an issue", source.path));
        }
        let kernels = source.path.starts_with("interceptor/src/kernel/")
            || source.path.starts_with("interceptor-ebpf/")
            || source.path.starts_with("interceptor-common/");
        if !kernels && !source.test && (code.contains("aya::") || code.contains("use aya")) {
            wrong.push(format!("{}:{number}: only kernel/ says `aya`", source.path));
        }
        let is_unsafe =
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        if is_unsafe && !unsafe_allowed {
            let places: Vec<_> = UNSAFE.iter().map(|(place, why)| format!("{place} ({why})")).collect();
            wrong.push(format!("{}:{number}: `unsafe` stands only in {}", source.path, places.join(", ")));
        }
    }
}

/// A permit rests on a record that is committed: only the store can say so.
fn only_one_committed(sources: &[Source], wrong: &mut Vec<String>) {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.test) {
        for item in &source.syntax.items {
            if let Item::Impl(implementation) = item
                && let Some((_, path, _)) = &implementation.trait_
                && path.segments.last().is_some_and(|segment| segment.ident == "Committed")
            {
                found.push(source.path.clone());
            }
        }
    }
    if found.len() != 1 || !found.iter().all(|path| path.starts_with("interceptor/src/store/")) {
        wrong
            .push(format!("`Committed` has exactly one implementor, in store/; found: {}", found.join(", ")));
    }
}

/// A lock file beside this workspace's names all that its packages need by now. Where it does, this asks no registry.
fn locked(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for folder in BESIDE {
        let mut command = cargo::cargo()?;
        command.args(["update", "--workspace", "--locked", "--quiet"]).current_dir(root.join(folder));
        if !command.status()?.success() {
            wrong.push(format!(
                "{folder}/Cargo.lock is not what its packages need: `cargo update --workspace` there mends it"
            ));
        }
    }
    Ok(())
}

/// Bans and licences, where cargo-deny is installed.
fn deny(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let installed =
        cargo::cargo()?.args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !installed || !root.join("deny.toml").exists() {
        println!("tidy: cargo-deny is not installed: bans and licences are not checked");
        return Ok(());
    }
    let mut command: Command = cargo::cargo()?;
    command.args(["deny", "--offline", "check", "bans", "licenses", "sources"]);
    if !command.status()?.success() {
        wrong.push("cargo deny found something: see above".to_owned());
    }
    Ok(())
}
