//! What a guest starts with: its first programs, the modules, and what it is told to do.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{Job, cache::Files, cpio::Archive, modules};
use crate::commands;

const INIT: &str = include_str!("guest/init");
const MAIN: &str = include_str!("guest/main");

/// A static busybox, wherever the system has it.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.is_file())
}

/// The file system that a kernel starts with.
pub(super) fn initramfs(files: &Files, job: &Job, token: &str) -> Result<Vec<u8>> {
    let busybox = busybox().context("find busybox: install busybox-static")?;
    let busybox = fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "job", "mnt", "modules", "proc", "sys"] {
        archive.folder(folder);
    }
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &busybox);
    let mut order = String::new();
    for module in modules::wanted(&files.modules())? {
        archive.file(&format!("modules/{}.ko", module.name), &module.bytes);
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("job/main", MAIN.as_bytes());
    archive.file("job/settings", &settings(token, &visible()?)?);
    archive.file("job/command", &script(job)?);
    Ok(archive.finish())
}

/// Folders that a guest has to see although it mounts its own file systems on `/tmp` and the like:
/// the workspace, and where the built programs are.
fn visible() -> Result<Vec<PathBuf>> {
    let program = env::current_exe().context("find out where xtask is")?;
    let programs = program.parent().unwrap_or(&program);
    let mut folders = vec![commands::root().to_owned()];
    if !programs.starts_with(commands::root()) {
        folders.push(programs.to_owned());
    }
    folders.retain(|folder| OWN.iter().any(|own| folder.starts_with(own)));
    Ok(folders)
}

/// Where a guest mounts file systems of its own. As in `guest/init`.
const OWN: [&str; 4] = ["/tmp", "/run", "/var/tmp", "/dev/shm"];

/// What the guest's scripts are told, as shell variables.
fn settings(token: &str, visible: &[PathBuf]) -> Result<Vec<u8>> {
    let visible: Vec<&OsStr> = visible.iter().map(|path| path.as_os_str()).collect();
    let visible = join(&visible)?;
    let mut text = Vec::new();
    for (name, value) in [
        ("token", token.as_bytes()),
        ("host", b"ucr-vm"),
        ("folder", commands::root().as_os_str().as_bytes()),
        ("visible", &visible),
    ] {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(&quote(OsStr::from_bytes(value))?);
        text.push(b'\n');
    }
    Ok(text)
}

/// The job as a shell script, which becomes the command.
fn script(job: &Job) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (name, value) in &job.env {
        text.extend_from_slice(b"export ");
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(&quote(value)?);
        text.push(b'\n');
    }
    text.extend_from_slice(b"exec ");
    let command: Vec<&OsStr> = job.command.iter().map(OsString::as_os_str).collect();
    text.extend_from_slice(&join(&command)?);
    text.push(b'\n');
    Ok(text)
}

fn quote(word: &OsStr) -> Result<Vec<u8>> {
    join(&[word])
}

fn join(words: &[&OsStr]) -> Result<Vec<u8>> {
    shlex::bytes::try_join(words.iter().map(|word| word.as_bytes()))
        .context("a NUL byte cannot be part of a command or a variable")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn job(command: &[&str], env: &[(&str, &str)]) -> Job {
        let mut job = Job::new(command);
        job.env = env.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        job
    }

    #[test]
    fn a_command_arrives_as_it_is() {
        let show = r#"printf '%s|' "$@" "$WORDS" "$EMPTY""#;
        let job = job(
            &["sh", "-c", show, "sh", "a b", "$HOME", "it's", ""],
            &[("WORDS", "x; y"), ("EMPTY", "")],
        );
        let script = String::from_utf8(script(&job).unwrap()).unwrap();
        // By the shell that would run it.
        let said = commands::run_quietly(Command::new("sh").args(["-c", &script]));
        assert_eq!(said.unwrap(), "a b|$HOME|it's||x; y||");
    }

    #[test]
    fn settings_are_variables_of_a_shell() {
        let folders = [PathBuf::from("/tmp/a b"), PathBuf::from("/run/c")];
        let text = String::from_utf8(settings("0123", &folders).unwrap()).unwrap();
        let test = format!("{text}eval \"set -- $visible\"\nprintf '%s|' \"$token\" \"$@\"");
        let said = commands::run_quietly(Command::new("sh").args(["-c", &test]));
        assert_eq!(said.unwrap(), "0123|/tmp/a b|/run/c|");
    }
}
