//! Installing Debian packages, and unpacking some beside what is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::commands::run_quietly;

/// Whether this system has apt at all.
pub(crate) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// What installing some packages would do to this system.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// All that would be installed, what they depend on among it.
    pub(crate) installed: Vec<String>,
    /// What would have to go.
    pub(crate) removed: Vec<String>,
}

/// What installing packages would do.
///
/// The package lists are fetched only if they do not know a package, or know one that is no longer
/// to be had.
pub(crate) fn plan(packages: &[&str]) -> Result<Plan> {
    make_known(packages)?;
    let mut simulation = apt_get();
    simulation.arg("--simulate").args(INSTALL).args(packages).env("LC_ALL", "C");
    run_quietly(&mut simulation).map(|said| planned(&said))
}

/// What apt-get's simulation says.
fn planned(said: &str) -> Plan {
    let mut plan = Plan::default();
    for line in said.lines() {
        let mut words = line.split_whitespace();
        let list = match words.next() {
            Some("Inst") => &mut plan.installed,
            Some("Remv") => &mut plan.removed,
            _ => continue,
        };
        list.extend(words.next().map(str::to_owned));
    }
    plan
}

/// Installs packages and what they depend on. It never removes a package to make room for another:
/// Debian's `rustc-web` conflicts with its `rustc` and with its `rustup`.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let is_fresh = make_known(packages)?;
    again_if_outdated(is_fresh, || run_install(packages))
}

/// Downloads packages and unpacks them into a folder, without what they depend on; nothing of them
/// is run. The folder is there only if all of it is.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    let beside = folder.parent().unwrap_or(folder);
    fs::create_dir_all(beside).with_context(|| format!("create {}", beside.display()))?;
    let is_fresh = make_known(packages)?;
    let temporary = TempDir::new_in(beside)
        .with_context(|| format!("make a folder in {}", beside.display()))?;
    let unpacked = temporary.path().join("unpacked");
    for (package, number) in packages.iter().zip(0..) {
        let archives = temporary.path().join(format!("{number}"));
        fs::create_dir(&archives).with_context(|| format!("create {}", archives.display()))?;
        let mut archive = None;
        again_if_outdated(is_fresh, || {
            archive = Some(download(package, &archives)?);
            Ok(())
        })?;
        let archive = archive.context("what was downloaded is somewhere")?;
        extract(&archive, &unpacked)?;
    }
    match fs::rename(&unpacked, folder) {
        // Another task was quicker.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("rename to {}", folder.display())),
    }
}

/// Unpacks a package that was downloaded.
pub(crate) fn extract(archive: &Path, into: &Path) -> Result<()> {
    run_quietly(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(into)).map(drop)
}

/// Sees to it that the package lists know some packages; whether they are of this moment.
fn make_known(packages: &[&str]) -> Result<bool> {
    if unknown(packages)?.is_empty() {
        return Ok(false);
    }
    update()?;
    let unknown = unknown(packages)?;
    if !unknown.is_empty() {
        bail!(
            "this system's package sources do not have {}\n\
             On Debian 12 all of them are there once the suite `bookworm-security` is among the \
             sources, as the installer sets it up.",
            unknown.join(", ")
        );
    }
    Ok(true)
}

/// Does it once more with new package lists, if it fails and they may be old.
fn again_if_outdated(is_fresh: bool, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let first = work();
    if first.is_ok() || is_fresh {
        return first;
    }
    update()?;
    work()
}

/// One of the packages whose names begin like this. `choose` gets the names of those that the
/// package sources have now, or, if they cannot be reached, had the last time.
pub(crate) fn newest(prefix: &str, choose: impl Fn(&[&str]) -> Option<String>) -> Result<String> {
    if !is_here() {
        bail!("there is no apt here to ask for packages {prefix}*");
    }
    if let Err(error) = update() {
        eprintln!("the newest package {prefix}* is looked up in old lists: {error:#}");
    }
    // A literal dot is all that has a meaning in these names.
    let pattern = format!("^{}", prefix.replace('.', "\\."));
    let mut search = Command::new("apt-cache");
    let found = run_quietly(search.args(["search", "--names-only", &pattern]))?;
    let names: Vec<&str> =
        found.lines().filter_map(|line| line.split_whitespace().next()).collect();
    choose(&names)
        .with_context(|| format!("this system's package sources have no fitting {prefix}*"))
}

/// Downloads a package into an empty folder, without installing it; where it is.
pub(crate) fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    let mut apt_get = apt_get();
    // Else it warns that the user for downloads cannot write there.
    apt_get.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
    run_quietly(&mut apt_get)?;
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.next().with_context(|| format!("apt-get download {package} wrote nothing"))
}

fn update() -> Result<()> {
    run_quietly(apt_get().arg("update")).map(drop)
}

const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

fn run_install(packages: &[&str]) -> Result<()> {
    run_quietly(apt_get().args(INSTALL).arg("--no-remove").args(packages)).map(drop)
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    // Another apt may be at work, as on a machine that updates itself at boot: wait for it.
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
    apt_get
}

/// Those of the packages that no source offers.
fn unknown<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut unknown = Vec::new();
    for package in packages {
        let policy =
            run_quietly(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
        if !has_candidate(&policy) {
            unknown.push(*package);
        }
    }
    Ok(unknown)
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|version| version.trim() != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_to_be_had_if_it_has_a_candidate() {
        assert!(has_candidate("gcc:\n  Installed: (none)\n  Candidate: 4:12.2.0-3\n"));
        assert!(!has_candidate("gcc:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn a_simulation_tells_what_comes_and_what_goes() {
        let said = "Remv qemu-utils [1:10.0]\nInst libfdt1 (1.6 Debian:12 [amd64])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12 [amd64])\nConf libfdt1 (1.6)\n";
        let plan = planned(said);
        assert_eq!(plan.installed, ["libfdt1", "qemu-system-x86"]);
        assert_eq!(plan.removed, ["qemu-utils"]);
    }
}
