//! Installing Debian packages, and fetching some that are not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::commands::run_quietly;

/// Whether this system has apt at all.
pub(crate) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// Installs packages and what they depend on. It never removes a package to make room for another:
/// Debian's `rustc-web` conflicts with its `rustc` and with its `rustup`.
///
/// The package lists are fetched only if they do not know a package, or know one that is no longer
/// to be had.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut is_fresh = false;
    if !unknown(packages)?.is_empty() {
        update()?;
        is_fresh = true;
        let unknown = unknown(packages)?;
        if !unknown.is_empty() {
            bail!(
                "this system's package sources do not have {}\n\
                 On Debian 12 all of them are there once the suite `bookworm-security` is among \
                 the sources, as the installer sets it up.",
                unknown.join(", ")
            );
        }
    }
    let first = run_install(packages);
    if first.is_ok() || is_fresh {
        return first;
    }
    update()?;
    run_install(packages)
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

fn run_install(packages: &[&str]) -> Result<()> {
    let options = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    run_quietly(apt_get().args(options).args(packages)).map(drop)
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
}
