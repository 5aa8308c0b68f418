//! `build-ebpf`: compiles the kernel programs, or checks that the committed object is what the sources give.
//!
//! The object's bytes depend on the sources and the toolchain alone: every path in it is remapped. The manifest
//! beside it says which sources and which toolchain. With the same toolchain a check wants the same bytes; with
//! another one, the same programs, maps and types of maps, and that the fresh object passes the kernel tests.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cargo::{cargo, elevate_tests, succeed},
    elf, workspace,
};

const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const LINKER_VERSION: &str = "0.10.3";
const TARGET: &str = "bpfel-unknown-none";
const NAME: &str = "interceptor-ebpf";
/// Set when Cargo is to call us in front of rustc.
const STAND_IN: &str = "XTASK_STANDS_IN_FOR_RUSTC";

/// What `build-ebpf` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Builds without writing and compares with what is committed
    #[arg(long)]
    check: bool,
}

/// What the committed object was made of, and by what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// SHA-256 over the sources' paths and contents.
    source_sha256: String,
    /// SHA-256 of the object.
    object_sha256: String,
    /// What made it.
    toolchain: Versions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    rustc: String,
    bpf_linker: String,
    llvm: String,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace()?;
    let prebuilt = root.join("interceptor-ebpf/prebuilt");
    let (object, manifest) = (prebuilt.join("interceptor.bpf.o"), prebuilt.join("manifest.toml"));
    let sources = hash_sources(&root)?;
    if arguments.check {
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        let manifest: Manifest = toml::from_str(&text).context("interceptor-ebpf/prebuilt/manifest.toml")?;
        return check(&root, &manifest, &sources, &fs::read(&object)?);
    }
    let toolchain = Toolchain::find(&root)?;
    let bytes = toolchain.build(&root)?;
    let written =
        Manifest { source_sha256: sources, object_sha256: sha256(&bytes), toolchain: toolchain.versions };
    fs::create_dir_all(&prebuilt)?;
    fs::write(&object, &bytes)?;
    let head = "# Written by `cargo xtask build-ebpf`. Commit it together with the object.\n";
    fs::write(&manifest, format!("{head}{}", toml::to_string(&written)?))?;
    println!("wrote {} ({} bytes, sha256 {})", object.display(), bytes.len(), written.object_sha256);
    Ok(())
}

/// Calls rustc with the arguments that Cargo gave, if that is what we were started for.
///
/// Cargo hashes the path of `interceptor-common` into the crate's metadata, and so into symbols: the one thing that
/// remapping does not reach. Our own crates get fixed metadata instead.
pub(crate) fn stand_in_for_rustc() -> Option<ExitCode> {
    env::var_os(STAND_IN)?;
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next()?;
    let mut arguments: Vec<OsString> = arguments.collect();
    let name = arguments.iter().skip_while(|argument| *argument != "--crate-name").nth(1).cloned();
    let ours = name.filter(|name| name == "interceptor_common" || name == "interceptor_ebpf");
    if let Some(name) = ours.as_ref().and_then(|name| name.to_str()) {
        for argument in &mut arguments {
            if argument.to_str().is_some_and(|text| text.starts_with("metadata=")) {
                *argument = format!("metadata={name}").into();
            }
        }
    }
    let error = Command::new(&rustc).args(arguments).exec();
    eprintln!("error: running {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

fn check(root: &Path, manifest: &Manifest, sources: &str, committed: &[u8]) -> Result<()> {
    const MEND: &str = "run `cargo xtask build-ebpf` and commit interceptor-ebpf/prebuilt";
    ensure!(
        manifest.source_sha256 == sources,
        "the kernel programs have changed since their object was built: {MEND}"
    );
    ensure!(
        manifest.object_sha256 == sha256(committed),
        "the object is not the one its manifest names: {MEND}"
    );
    let toolchain = Toolchain::find(root)?;
    let fresh = toolchain.build(root)?;
    if toolchain.versions == manifest.toolchain {
        ensure!(fresh == committed, "the same sources and toolchain give other bytes: {MEND}");
        println!("the object is, byte for byte, what the sources give");
        return Ok(());
    }
    let (theirs, ours) = (elf::outline(committed)?, elf::outline(&fresh)?);
    ensure!(
        theirs == ours,
        "another toolchain gives other programs or maps: {theirs:?} is committed, {ours:?} built"
    );
    println!(
        "built by another toolchain ({:?}; the manifest has {:?}): the same programs, maps and types of maps; now \
         the kernel tests with the fresh object",
        toolchain.versions, manifest.toolchain
    );
    try_out(root)
}

/// Runs the kernel tests with the object that was just built in the place of the committed one.
fn try_out(root: &Path) -> Result<()> {
    let mut tests = cargo()?;
    tests.args(["test", "--package", "interceptor", "--test", "kernel_capture", "--test", "kernel_life"]);
    tests.args(["--", "--test-threads", "3"]).env("INTERCEPTOR_OBJECT", built(root));
    elevate_tests(&mut tests)?;
    succeed(&mut tests)
}

/// Where a build leaves the object.
fn built(root: &Path) -> PathBuf {
    root.join("target/bpf").join(TARGET).join("release").join(NAME)
}

/// Programs that together can compile for the kernel.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    linker: PathBuf,
    llvm: PathBuf,
    versions: Versions,
}

impl Toolchain {
    fn find(root: &Path) -> Result<Self> {
        let (cargo, rustc, sysroot) = find_compiler()?;
        let linker = find_linker(root)?;
        let (llvm, llvm_name) = find_llvm(&sysroot)?;
        let version =
            |program: &Path| output(Command::new(program).arg("--version").env("LD_LIBRARY_PATH", &llvm));
        let versions = Versions { rustc: version(&rustc)?, bpf_linker: version(&linker)?, llvm: llvm_name };
        Ok(Self { cargo, rustc, sysroot, linker, llvm, versions })
    }

    fn build(&self, root: &Path) -> Result<Vec<u8>> {
        let target = root.join("target/bpf");
        let home = env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from);
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let core = self.sysroot.join("lib/rustlib/src/rust");
        let flags = [
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".into(),
            "-Cdebuginfo=2".into(),
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            // The last one that fits wins.
            remap(&home, "/cargo"),
            remap(root, "/interceptor"),
            remap(&core, "/rust"),
            // Debian's is a link to elsewhere, and both paths get into the object.
            remap(&core.canonicalize().unwrap_or_else(|_| core.clone()), "/rust"),
        ];
        println!("building {NAME} with {} and {}", self.versions.rustc, self.versions.bpf_linker);
        let status = Command::new(&self.cargo)
            .args([
                "build",
                "--release",
                "--locked",
                "-Z",
                "build-std=core",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target)
            .current_dir(root.join(NAME))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.rustc)
            .env("RUSTC_WRAPPER", env::current_exe().context("this program's path")?)
            .env(STAND_IN, "1")
            .env("LD_LIBRARY_PATH", &self.llvm)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET_DIR")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .status()
            .with_context(|| format!("running {}", self.cargo.display()))?;
        ensure!(status.success(), "the kernel programs do not build: {status}");
        let object = built(root);
        fs::read(&object).with_context(|| format!("reading {}", object.display()))
    }
}

/// A compiler that comes with the sources of `core`: Debian's, else a nightly of rustup's; else Debian's is installed.
fn find_compiler() -> Result<(PathBuf, PathBuf, PathBuf)> {
    if let Some(found) = compiler_in(Path::new("/usr/bin")) {
        return Ok(found);
    }
    let nightly = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    if let Some(found) = nightly.ok().and_then(|sysroot| compiler_in(&Path::new(&sysroot).join("bin"))) {
        return Ok(found);
    }
    install_compiler()?;
    compiler_in(Path::new("/usr/bin"))
        .context("the packages are installed, yet there is no compiler with its sources")
}

fn compiler_in(folder: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let (cargo, rustc) = (folder.join("cargo"), folder.join("rustc"));
    let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?);
    let has_core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
    (cargo.exists() && has_core).then_some((cargo, rustc, sysroot))
}

fn install_compiler() -> Result<()> {
    println!("installing the distribution's {} (the compiler for the kernel programs)", PACKAGES.join(", "));
    let is_root = output(Command::new("id").arg("-u"))? == "0";
    let mut command = if is_root { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root {
        command.arg("apt-get");
    }
    let status = command.args(["install", "-y", "-q"]).args(PACKAGES).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "no compiler for the kernel programs: install the packages {}, or a rustup nightly with the component \
             rust-src",
            PACKAGES.join(", ")
        ),
    }
}

fn find_linker(root: &Path) -> Result<PathBuf> {
    let own = root.join("target/bpf-linker");
    let mut places: Vec<PathBuf> = vec![own.join("bin")];
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let find = |places: &[PathBuf]| {
        places.iter().map(|place| place.join("bpf-linker")).find(|path| is_program(path))
    };
    if let Some(found) = find(&places) {
        return Ok(found);
    }
    println!("installing bpf-linker {LINKER_VERSION} into {}", own.display());
    let status = Command::new("cargo")
        .args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION, "--root"])
        .arg(&own)
        .status()
        .context("running cargo install")?;
    ensure!(status.success(), "bpf-linker could not be installed: {status}");
    find(&places).context("bpf-linker was installed but is not there")
}

/// The folder of the LLVM that the linker loads. It must be able to read what the compiler's LLVM writes.
fn find_llvm(compiler: &Path) -> Result<(PathBuf, String)> {
    let mut places = vec![compiler.join("lib")];
    if let Ok(sysroot) = output(Command::new("rustc").args(["--print", "sysroot"])) {
        places.push(Path::new(&sysroot).join("lib"));
    }
    for place in places {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        if let Some(name) = names.into_iter().find(|name| name.starts_with("libLLVM-22-rust")) {
            return Ok((place, name));
        }
    }
    bail!(
        "bpf-linker needs a libLLVM 22, as the lib folder of rustup's 1.95 toolchain has it: `rustup default 1.95`"
    )
}

fn hash_sources(root: &Path) -> Result<String> {
    let mut files = vec![
        root.join("interceptor-ebpf/Cargo.toml"),
        root.join("interceptor-ebpf/Cargo.lock"),
        root.join("interceptor-common/Cargo.toml"),
    ];
    for folder in ["interceptor-ebpf/src", "interceptor-common/src"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root)?.as_os_str().as_encoded_bytes().to_vec();
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        for part in [name, content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hex::encode(hash.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_program(path: &Path) -> bool {
    File::open(path)
        .and_then(|file| file.metadata())
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    ensure!(done.status.success(), "{:?} failed: {}", command.get_program(), done.status);
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_belongs_to_the_committed_sources() {
        let root = workspace().expect("workspace");
        let prebuilt = root.join("interceptor-ebpf/prebuilt");
        let text = fs::read_to_string(prebuilt.join("manifest.toml")).expect("manifest");
        let manifest: Manifest = toml::from_str(&text).expect("manifest");
        let object = fs::read(prebuilt.join("interceptor.bpf.o")).expect("object");
        assert_eq!(manifest.object_sha256, sha256(&object));
        assert_eq!(
            manifest.source_sha256,
            hash_sources(&root).expect("sources"),
            "run `cargo xtask build-ebpf`"
        );
        let outline = elf::outline(&object).expect("outline");
        assert!(outline["maps"].contains_key("FLOWS") && outline["cgroup/connect4"].contains_key("connect4"));
        assert!(outline["maps"]["FLOWS"].len() >= 20, "the definition of a map");
        let types = &outline[elf::MAP_TYPES];
        assert_eq!(types.keys().collect::<Vec<_>>(), outline["maps"].keys().collect::<Vec<_>>());
        let flows = String::from_utf8_lossy(&types["FLOWS"]);
        assert!(flows.starts_with("HashMap") && flows.contains("Flow"), "{flows}");
        assert!(elf::outline(&object[..object.len() / 2]).is_err(), "a cut object");
        let home = object.windows(6).any(|part| part == b"/root/" || part == b"/home/");
        assert!(!home, "a path of the machine that built it");
    }
}
