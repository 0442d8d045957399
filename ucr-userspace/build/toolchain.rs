//! Finds what compiles the eBPF programs: a Rust compiler for `bpfel-unknown-none`, and bpf-linker.
//!
//! Shared by the build script, which uses what is found, and by `cargo xtask setup`, which installs
//! what is missing.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Little-endian eBPF. Rust has no compiled core library for it to download.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A rustc to be used for the eBPF programs, before any other.
pub(crate) const RUSTC_VARIABLE: &str = "UCR_EBPF_RUSTC";
/// The rustup toolchain with library sources to be used. If unset, `nightly` or one that stays as
/// it is.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "UCR_EBPF_TOOLCHAIN";
/// The bpf-linker to be used, before any other.
pub(crate) const LINKER_VARIABLE: &str = "BPF_LINKER";

/// A rustup toolchain that stays what it is, unlike `nightly`.
const PINNED_TOOLCHAIN: &str = "1.95.0";

/// Major version of the LLVM that bpf-linker is built with. It cannot read what a newer one wrote.
const LLVM: u32 = 22;

/// What can compile for [`TARGET`], in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// A rustc with a compiled core library, as Debian packages one.
    Prebuilt {
        /// Program.
        rustc: PathBuf,
    },
    /// A rustup toolchain with library sources.
    Rustup {
        /// As `rustup run` takes it.
        toolchain: String,
    },
    /// A rustc with library sources.
    Sources {
        /// Program.
        rustc: PathBuf,
    },
}

/// No compiler was found: what was tried, and why each will not do.
#[derive(Debug)]
pub(crate) struct NoCompiler {
    tried: Vec<String>,
}

impl fmt::Display for NoCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no rustc can compile for {TARGET} ({})", self.tried.join("; "))
    }
}

/// No bpf-linker was found.
#[derive(Debug)]
pub(crate) struct NoLinker {
    looked_in: Vec<PathBuf>,
}

impl fmt::Display for NoLinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no bpf-linker in ")?;
        for (nth, path) in self.looked_in.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{}", path.display())?;
        }
        Ok(())
    }
}

/// Picks the compiler. One that the environment names is not asked for its version.
pub(crate) fn compiler() -> Result<Compiler, NoCompiler> {
    let mut tried = Vec::new();
    let mut with_sources = None;
    let chosen = env::var_os(RUSTC_VARIABLE).map(PathBuf::from);
    for rustc in chosen.iter().cloned().chain(rustcs()) {
        let name = rustc.display();
        let Some(sysroot) = sysroot(Command::new(&rustc)) else {
            tried.push(format!("{name} does not run"));
            continue;
        };
        if !has_core(&sysroot) && !has_sources(&sysroot) {
            tried.push(format!("{name} has no core library for it"));
        } else if chosen.as_ref() != Some(&rustc) && !fits_linker(Command::new(&rustc)) {
            tried.push(format!("{name} has an LLVM newer than {LLVM}, that of bpf-linker"));
        } else if has_core(&sysroot) {
            return Ok(Compiler::Prebuilt { rustc });
        } else if with_sources.is_none() {
            with_sources = Some(rustc);
        }
    }

    let chosen = env::var(TOOLCHAIN_VARIABLE).ok();
    let toolchains = match &chosen {
        Some(toolchain) => vec![toolchain.as_str()],
        None => vec!["nightly", PINNED_TOOLCHAIN],
    };
    for toolchain in toolchains {
        let rustc = || {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", toolchain, "rustc"]);
            rustup
        };
        match sysroot(rustc()) {
            None => tried.push(format!("rustup has no {toolchain}")),
            Some(sysroot) if !has_sources(&sysroot) => {
                tried.push(format!("rustup's {toolchain} has no rust-src"));
            }
            Some(_) if chosen.is_none() && !fits_linker(rustc()) => {
                tried.push(format!(
                    "rustup's {toolchain} has an LLVM newer than {LLVM}, that of bpf-linker"
                ));
            }
            Some(_) => {
                return Ok(Compiler::Rustup { toolchain: toolchain.to_owned() });
            }
        }
    }

    with_sources.map(|rustc| Compiler::Sources { rustc }).ok_or(NoCompiler { tried })
}

/// Finds bpf-linker. `root` is the workspace's folder, where set-up installs one in `.tools/`.
pub(crate) fn linker(root: &Path) -> Result<PathBuf, NoLinker> {
    if let Some(path) = env::var_os(LINKER_VARIABLE).map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(NoLinker { looked_in: vec![path] }) };
    }
    let mut folders = vec![root.join(".tools/bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    folders.extend(cargo_home.map(|home| home.join("bin")));
    folders
        .iter()
        .map(|folder| folder.join("bpf-linker"))
        .find(|path| path.is_file())
        .ok_or(NoLinker { looked_in: folders })
}

/// Takes away what the cargo that runs us, or rustup, has put into the environment for its own
/// compiler. A cargo for another compiler would obey it: with `RUSTUP_TOOLCHAIN` it would run the
/// wrong rustc, with the (empty) `CARGO_ENCODED_RUSTFLAGS` it would silently leave out BTF.
pub(crate) fn without_outer_cargo(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 9] = [
        "CARGO_BUILD_JOBS",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "RUSTUP_DIST_SERVER",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_theirs = ["CARGO", "RUST", "__CARGO"].iter().any(|start| text.starts_with(start));
        if is_theirs && !KEPT.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    // The rustup proxy points it at the libraries of its own toolchain.
    command.env_remove("LD_LIBRARY_PATH")
}

/// Every rustc that is at hand.
fn rustcs() -> impl Iterator<Item = PathBuf> {
    let cargos = env::var_os("RUSTC").map(PathBuf::from).or_else(|| {
        let beside_cargo = PathBuf::from(env::var_os("CARGO")?).with_file_name("rustc");
        beside_cargo.is_file().then_some(beside_cargo)
    });
    let debians = Some(PathBuf::from("/usr/bin/rustc")).filter(|path| path.is_file());
    cargos.into_iter().chain(debians)
}

/// Whether bpf-linker can read what a rustc compiles.
fn fits_linker(mut rustc: Command) -> bool {
    let Ok(output) = without_outer_cargo(&mut rustc).arg("-vV").output() else {
        return false;
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
        .any(|major: u32| major <= LLVM)
}

/// The folder that holds a rustc's libraries; none if it does not run.
fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = without_outer_cargo(&mut rustc).args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

fn has_core(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let path = PathBuf::from(entry.file_name());
            path.extension() == Some(OsStr::new("rlib"))
                && path.to_string_lossy().starts_with("libcore-")
        })
    })
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}
