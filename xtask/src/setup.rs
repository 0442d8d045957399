//! `cargo xtask setup`: installs what building and testing need and what is not there yet.
//!
//! The other tasks do this first. When nothing is missing it only looks, which takes a moment.

#[path = "../../ucr-userspace/build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{apt, commands};

/// Its LLVM has to be at least as new as that of the compiler for eBPF.
const LINKER_VERSION: &str = "0.13.0";
const LLVM_FEATURE: &str = "llvm-22";
const LLVM_LIBRARY: &str = "libLLVM.so.22.1";

/// Install what building and testing need (the other tasks do it first)
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Does it, and says so also if there was nothing to do.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let start = Instant::now();
        if let Outcome::NothingMissing = ensure()? {
            println!("setup: nothing is missing ({:.1} s)", start.elapsed().as_secs_f32());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What set-up did.
pub(crate) enum Outcome {
    /// Everything was there.
    NothingMissing,
    /// Something was installed.
    Installed,
}

/// Something that a package brings.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    /// How to get it where there is no apt.
    elsewhere: &'static str,
    is_met: fn() -> bool,
}

/// `gcc` comes along with `rustc-web`, `libllvm22` as well: they are named for systems that have a
/// compiler for eBPF already.
const NEEDS: [Need; 5] = [
    Need {
        what: "a C compiler, to link with",
        packages: &["gcc", "libc6-dev"],
        elsewhere: "install gcc or clang",
        is_met: || commands::is_in_path("cc"),
    },
    Need {
        what: "a Rust compiler for eBPF",
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        elsewhere: "rustup toolchain install 1.95.0 --component rust-src",
        is_met: || toolchain::compiler().is_ok(),
    },
    Need {
        what: "LLVM 22, for bpf-linker",
        packages: &["libllvm22"],
        elsewhere: "install LLVM 22 with its shared library; LLVM_PREFIX names its folder if it \
                    is not /usr",
        is_met: || linker_works() || llvm_library().is_some(),
    },
    // Not the package redis-server, which would also start one. The program is the same file.
    Need {
        what: "redis-server, a program to trace",
        packages: &["redis-tools"],
        elsewhere: "install Redis, so that redis-server is in PATH",
        is_met: || commands::is_in_path("redis-server") || Path::new(REDIS_PROGRAM).is_file(),
    },
    // Debian's essential perl-base has no threads.
    Need {
        what: "perl with threads, for programs of the tests that do odd things",
        packages: &["perl"],
        elsewhere: "install perl, built with threads",
        is_met: perl_has_threads,
    },
];

/// What `redis-server` is a link to in Debian's package of that name.
const REDIS_PROGRAM: &str = "/usr/bin/redis-check-rdb";

/// Installs what is missing, saying so first.
pub(crate) fn ensure() -> Result<Outcome> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_met)()).collect();
    let lacks_linker = !linker_works();
    if missing.is_empty() && !lacks_linker {
        link_redis()?;
        return Ok(Outcome::NothingMissing);
    }

    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    if !missing.is_empty() {
        if !apt::is_here() {
            bail!("{}", without_apt(&missing, lacks_linker));
        }
        if !commands::is_root() {
            bail!(
                "installing packages needs root. Run as root:\n  \
                 apt-get install --no-install-recommends {}",
                packages.join(" ")
            );
        }
    }
    announce(&missing, lacks_linker);
    if !missing.is_empty() {
        timed("packages installed", || apt::install(&packages))?;
        if let Some(need) = missing.iter().find(|need| !(need.is_met)()) {
            bail!("{} installed, but there still is not {}", need.packages.join(" "), need.what);
        }
    }
    if lacks_linker {
        timed("bpf-linker compiled", install_linker)?;
        if !linker_works() {
            bail!(
                "bpf-linker was compiled into .tools/, but the one that would be used does not start (is BPF_LINKER set?)"
            );
        }
    }
    link_redis()?;
    Ok(Outcome::Installed)
}

fn announce(missing: &[&Need], lacks_linker: bool) {
    let duration = match (missing.is_empty(), lacks_linker) {
        (false, true) => "a minute and a half",
        (true, _) => "a minute",
        (false, false) => "half a minute",
    };
    println!("setup: this is missing and is installed now, which takes about {duration}:");
    for need in missing {
        println!("  {}: Debian package {}", need.what, need.packages.join(", "));
    }
    if lacks_linker {
        println!("  bpf-linker {LINKER_VERSION}: compiled into .tools/");
    }
}

fn without_apt(missing: &[&Need], lacks_linker: bool) -> String {
    let mut text = "there is no apt here to install it with. Get it another way:".to_owned();
    for need in missing {
        text.push_str("\n  ");
        text.push_str(need.what);
        text.push_str(": ");
        text.push_str(need.elsewhere);
    }
    if lacks_linker {
        text.push_str("\nThen run this again: bpf-linker will be compiled.");
    }
    text
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work()?;
    println!("setup: {what} in {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// Whether bpf-linker is there and starts: its LLVM may have gone. The one in `.tools/` also has to
/// be the version wanted; a linker from elsewhere is its owner's choice.
fn linker_works() -> bool {
    let Ok(path) = toolchain::linker(commands::root()) else {
        return false;
    };
    let Ok(output) = Command::new(&path).arg("--version").output() else {
        return false;
    };
    let version = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && (!path.starts_with(commands::tools())
            || version.split_whitespace().any(|word| word == LINKER_VERSION))
}

/// Optimised as little as is bearable: it runs for a second, and compiling it takes a minute.
fn install_linker() -> Result<()> {
    let mut cargo = commands::cargo();
    cargo
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", LLVM_FEATURE, "--root"])
        .arg(commands::tools())
        .env("LLVM_PREFIX", llvm_prefix()?)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    commands::run_quietly(&mut cargo).map(drop)
}

/// A folder for bpf-linker's build script to find `lib/libLLVM.so` in. That name is otherwise in
/// the package of LLVM's headers and static libraries only, half a gigabyte that nothing needs.
fn llvm_prefix() -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(prefix.into());
    }
    let library = llvm_library().with_context(|| format!("find {LLVM_LIBRARY}"))?;
    let prefix = commands::tools().join("llvm");
    link(&library, &prefix.join("lib/libLLVM.so"))?;
    Ok(prefix)
}

/// LLVM's shared library, where distributions keep it.
fn llvm_library() -> Option<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Some(PathBuf::from(prefix).join("lib/libLLVM.so")).filter(|path| path.is_file());
    }
    let debian = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    ["/usr/lib/llvm-22/lib", &debian, "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|folder| Path::new(folder).join(LLVM_LIBRARY))
        .find(|path| path.is_file())
}

fn perl_has_threads() -> bool {
    let mut perl = Command::new("perl");
    perl.args(["-Mthreads", "-e", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
    perl.status().is_ok_and(|status| status.success())
}

/// Gives Redis's program the name under which it is a server, unless it has it.
fn link_redis() -> Result<()> {
    if commands::is_in_path("redis-server") {
        return Ok(());
    }
    link(Path::new(REDIS_PROGRAM), &commands::tools().join("bin/redis-server"))
}

/// Makes a symbolic link, in place of one that was there.
fn link(to: &Path, at: &Path) -> Result<()> {
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    if at.is_symlink() {
        fs::remove_file(at).with_context(|| format!("remove {}", at.display()))?;
    }
    symlink(to, at).with_context(|| format!("link {} to {}", at.display(), to.display()))
}
