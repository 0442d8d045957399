//! Builds the eBPF programs (`../ucr-ebpf`) and leaves the objects in `$OUT_DIR` (`ucr-ebpf`, `ucr-lock`,
//! `ucr-filter`), from where `aya::include_bytes_aligned!` embeds them.
//!
//! They are built for another target, by another compiler (`build/toolchain.rs` finds it), always
//! in release. `UCR_EBPF_OBJECTS` names a folder with objects that were built before, to be used instead.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use toolchain::{Compiler, NoCompiler, NoLinker, TARGET};

/// A folder with objects that were built before.
const OBJECTS_VARIABLE: &str = "UCR_EBPF_OBJECTS";
/// What they are called there and here.
const OBJECTS: [&str; 3] = ["ucr-ebpf", "ucr-lock", "ucr-filter"];
/// More flags for rustc, parted by blanks. CI denies warnings with it.
const FLAGS_VARIABLE: &str = "UCR_EBPF_RUSTFLAGS";

fn main() -> ExitCode {
    let Err(error) = build() else {
        return ExitCode::SUCCESS;
    };
    for line in error.to_string().lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn build() -> Result<(), Error> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = package.parent().unwrap_or(&package);
    let out = PathBuf::from(variable("OUT_DIR")?);
    for name in [
        OBJECTS_VARIABLE,
        FLAGS_VARIABLE,
        toolchain::RUSTC_VARIABLE,
        toolchain::TOOLCHAIN_VARIABLE,
        toolchain::LINKER_VARIABLE,
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["ucr-ebpf/src", "ucr-ebpf/Cargo.toml", "ucr-ebpf/Cargo.lock", "ucr-common"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }

    let objects = match env::var_os(OBJECTS_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => compile(root, &out)?,
    };
    for name in OBJECTS {
        let (from, to) = (objects.join(name), out.join(name));
        if env::var_os(OBJECTS_VARIABLE).is_some() {
            println!("cargo::rerun-if-changed={}", from.display());
        }
        fs::copy(&from, &to).map_err(|source| Error::Copy { from, to, source })?;
    }
    Ok(())
}

/// Compiles ucr-ebpf and says in which folder the objects are.
fn compile(root: &Path, out: &Path) -> Result<PathBuf, Error> {
    let compiler = toolchain::compiler().map_err(Error::NoCompiler)?;
    let linker = toolchain::linker(root).map_err(Error::NoLinker)?;
    let target_folder = target_folder(out);

    let mut cargo = cargo_for(&compiler)?;
    cargo
        .current_dir(root.join("ucr-ebpf"))
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_folder);
    if !matches!(compiler, Compiler::Prebuilt { .. }) {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker)?);

    let output =
        cargo.output().map_err(|source| Error::Run { cargo: format!("{cargo:?}"), source })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Error::Compile { said: said.into_owned() });
    }
    // Quiet cargo says nothing but warnings.
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    Ok(target_folder.join(TARGET).join("release"))
}

/// The cargo that goes with a compiler.
fn cargo_for(compiler: &Compiler) -> Result<Command, Error> {
    let mut cargo = match compiler {
        Compiler::Rustup { toolchain } => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", toolchain, "cargo"]);
            rustup
        }
        Compiler::Prebuilt { rustc } | Compiler::Sources { rustc } => {
            // Debian packages cargo apart from rustc. Any cargo drives any rustc of about its age.
            let beside = rustc.with_file_name("cargo");
            let program = if beside.is_file() { beside.into() } else { variable("CARGO")? };
            Command::new(program)
        }
    };
    toolchain::without_outer_cargo(&mut cargo);
    if let Compiler::Prebuilt { rustc } | Compiler::Sources { rustc } = compiler {
        cargo.env("RUSTC", rustc);
    }
    // What a stable compiler has to be told: aya-ebpf uses one unstable feature of the language,
    // build-std is an unstable one of cargo.
    let unstable = if let Compiler::Prebuilt { .. } = compiler { "aya_ebpf" } else { "1" };
    cargo.env("RUSTC_BOOTSTRAP", unstable);
    Ok(cargo)
}

/// Flags for the eBPF target, in cargo's encoding. Because `--target` is given, they do not reach
/// build scripts and procedural macros.
fn rustflags(linker: &Path) -> Result<OsString, Error> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")
        .map_err(|_| Error::Variable { name: "CARGO_CFG_TARGET_ARCH" })?;
    // aya-ebpf asks for it: where `pt_regs` keeps arguments is the architecture's affair.
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{architecture}\""));
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker=");
    flags.push(linker);
    for flag in env::var(FLAGS_VARIABLE).unwrap_or_default().split_whitespace() {
        flags.push("\x1f");
        flags.push(flag);
    }
    Ok(flags)
}

/// One folder for all profiles of the outer build, `<target>/ebpf`. Cargo marks its target folder
/// with a file; where that is missing, this build keeps to its own folder.
fn target_folder(out: &Path) -> PathBuf {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(out).join("ebpf")
}

fn variable(name: &'static str) -> Result<OsString, Error> {
    env::var_os(name).ok_or(Error::Variable { name })
}

/// Why there is no object.
enum Error {
    Variable { name: &'static str },
    NoCompiler(NoCompiler),
    NoLinker(NoLinker),
    Run { cargo: String, source: io::Error },
    Compile { said: String },
    Copy { from: PathBuf, to: PathBuf, source: io::Error },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HINT: &str = "`cargo xtask setup` installs what the eBPF programs need";
        match self {
            Self::Variable { name } => write!(f, "read {name}: cargo did not set it"),
            Self::NoCompiler(error) => write!(f, "build ucr-ebpf: {error}\n{HINT}"),
            Self::NoLinker(error) => write!(f, "build ucr-ebpf: {error}\n{HINT}"),
            Self::Run { cargo, source } => write!(f, "run {cargo}: {source}"),
            Self::Compile { said } => write!(f, "build ucr-ebpf:\n{said}"),
            Self::Copy { from, to, source } => {
                write!(f, "copy {} to {}: {source}", from.display(), to.display())
            }
        }
    }
}
