//! `cargo xtask setup`: installs what building and testing need and what is not there yet.
//!
//! The other tasks do this first. When nothing is missing it only looks, which takes a moment.

#[path = "../../../ucr-userspace/build/toolchain.rs"]
mod toolchain;

mod needs;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    slice,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{apt, commands};
use needs::Need;

/// Its LLVM has to be at least as new as that of the compiler for eBPF.
const LINKER_VERSION: &str = "0.13.0";
const LLVM_FEATURE: &str = "llvm-22";
const LLVM_LIBRARY: &str = "libLLVM.so.22.1";

/// Install what building and testing need (the other tasks do it first)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what booting other kernels needs
    #[arg(long)]
    vms: bool,
    /// Also what benchmarks compare ucr with
    #[arg(long)]
    bench: bool,
}

impl Args {
    /// Does it, and says so also if there was nothing to do.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let start = Instant::now();
        let mut outcomes = vec![ensure()?];
        if self.vms {
            outcomes.push(ensure_vms()?);
        }
        if self.bench {
            outcomes.push(ensure_bench()?);
        }
        if outcomes.iter().all(|outcome| *outcome == Outcome::NothingMissing) {
            println!("setup: nothing is missing ({:.1} s)", start.elapsed().as_secs_f32());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What set-up did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was there.
    NothingMissing,
    /// Something was installed.
    Installed,
}

/// Installs what building and testing lack, saying so first.
pub(crate) fn ensure() -> Result<Outcome> {
    let outcome = install_missing(&needs::BUILDING, !linker_works())?;
    link_redis()?;
    Ok(if unpack_nginx()? == Outcome::Installed { Outcome::Installed } else { outcome })
}

/// Installs what booting other kernels lacks, saying so first.
pub(crate) fn ensure_vms() -> Result<Outcome> {
    install_missing(&needs::VMS, false)
}

/// Installs what benchmarks compare ucr with and is not there, saying so first.
pub(crate) fn ensure_bench() -> Result<Outcome> {
    install_missing(&needs::BENCH, false)
}

/// Installs a message bus, if there is none, saying so first.
pub(crate) fn ensure_dbus() -> Result<Outcome> {
    install_missing(slice::from_ref(&needs::DBUS), false)
}

/// Installs Node, if it is not there, saying so first.
pub(crate) fn ensure_node() -> Result<Outcome> {
    install_missing(slice::from_ref(&needs::NODE), false)
}

/// Unpacks PostgreSQL, if it is not there, saying so first.
pub(crate) fn ensure_postgres() -> Result<Outcome> {
    let postgres = &needs::POSTGRES;
    if (postgres.is_met)() {
        return Ok(Outcome::NothingMissing);
    }
    if !apt::is_here() {
        bail!("{}", without_apt(&[postgres], false));
    }
    announce(&[postgres], false);
    let mut packages = apt::plan(postgres.packages)?.installed;
    // A hundred megabytes that only its just-in-time compiler takes, which is not used.
    packages.retain(|package| !package.starts_with("libllvm"));
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    timed("packages unpacked into .tools/", || {
        apt::unpack(&packages, &commands::unpacked_postgres())
    })?;
    if !(postgres.is_met)() {
        bail!("{} unpacked, but there still is not {}", packages.join(" "), postgres.what);
    }
    Ok(Outcome::Installed)
}

/// Where PostgreSQL's programs are.
pub(crate) fn postgres() -> Option<PathBuf> {
    needs::postgres()
}

fn install_missing(needs: &'static [Need], lacks_linker: bool) -> Result<Outcome> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_met)()).collect();
    if missing.is_empty() && !lacks_linker {
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
        timed("packages installed", || install(&packages))?;
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
    Ok(Outcome::Installed)
}

/// Installs packages, or, where something that is installed would have to go for them, unpacks those
/// of QEMU into `.tools/`, where they run as well: a machine may have tools of a newer QEMU, with
/// which Debian's own does not get along.
fn install(packages: &[&str]) -> Result<()> {
    let plan = apt::plan(packages)?;
    if plan.removed.is_empty() {
        return apt::install(packages);
    }
    let removed = plan.removed.join(" ");
    let (aside, others): (Vec<&str>, Vec<&str>) =
        plan.installed.iter().map(String::as_str).partition(|name| name.starts_with("qemu-"));
    if aside.is_empty() {
        bail!(
            "installing {} would remove {removed}, which is left to you: it would be done by\n  \
             apt-get install --no-install-recommends {}",
            packages.join(" "),
            packages.join(" ")
        );
    }
    println!("setup: QEMU is unpacked into .tools/: installed, it would remove {removed}");
    let folder = commands::unpacked_qemu();
    if folder.is_dir() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    if !others.is_empty() {
        apt::install(&others)?;
    }
    apt::unpack(&aside, &folder)
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

/// Gives Redis's program the name under which it is a server, unless it has it.
fn link_redis() -> Result<()> {
    if commands::is_in_path("redis-server") {
        return Ok(());
    }
    link(Path::new(needs::REDIS_PROGRAM), &commands::tools().join("bin/redis-server"))
}

/// Puts nginx into `.tools/`, unless there is one.
fn unpack_nginx() -> Result<Outcome> {
    let nginx = &needs::NGINX;
    if (nginx.is_met)() {
        return Ok(Outcome::NothingMissing);
    }
    if !apt::is_here() {
        bail!("{}", without_apt(&[nginx], false));
    }
    announce(&[nginx], false);
    let tools = commands::tools();
    timed("package unpacked into .tools/", || apt::unpack(nginx.packages, &tools.join("nginx")))?;
    link(Path::new("../nginx/usr/sbin/nginx"), &tools.join("bin/nginx"))?;
    Ok(Outcome::Installed)
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
