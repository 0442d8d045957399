//! What several tasks need: where the workspace is, running a program, finding one.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where set-up puts programs: the folder is not tracked.
pub(crate) fn tools() -> PathBuf {
    root().join(".tools")
}

/// Where set-up unpacks QEMU, as below `/`, if it cannot be installed.
pub(crate) fn unpacked_qemu() -> PathBuf {
    tools().join("qemu")
}

/// Where PostgreSQL is unpacked, as below `/`, if it is not installed.
pub(crate) fn unpacked_postgres() -> PathBuf {
    tools().join("postgresql")
}

/// The cargo that runs us, in the workspace's folder, with the tools that set-up installed in PATH.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("PATH", search_path());
    cargo
}

/// `PATH`, and the tools that set-up installed after it.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(tools().join("bin"));
    path
}

/// Whether a program can be started by its name.
pub(crate) fn is_in_path(program: &str) -> bool {
    in_path(program).is_some()
}

/// Where a program is that can be started by its name.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let folders = search_path();
    let mut paths = env::split_paths(&folders).map(|folder| folder.join(program));
    paths.find(|path| path.is_file())
}

/// Whether we run as root: `/proc/self` belongs to the effective user (`proc(5)`).
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs a command and keeps what it says to itself, unless it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {}", shown(command)))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({})\n{said}{complaint}", shown(command), output.status);
    }
    Ok(said.into_owned())
}

/// A command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
