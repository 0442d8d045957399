//! `cargo xtask tidy`: what prose only asks for and the compiler does not check.

mod fence;
mod paths;
mod rooms;
mod source;
mod text;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::commands;
use source::Source;

/// Check the project's own rules: documented files, fenced unsafe code, imports one way, …
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Prints every violation as `file:line: rule: message`; fails if there is one.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = commands::root();
        let files = tracked_files(root)?;
        let machine = text::Machine::this(root);
        let mut violations = Vec::new();
        for file in &files {
            let path = root.join(file);
            // A tracked file may have been deleted; a link is checked where it leads.
            if !path.is_file() || path.is_symlink() {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                check(file, &text, &machine, &mut violations);
            }
        }
        for violation in &violations {
            println!("{violation}");
        }
        if violations.is_empty() {
            println!("tidy: {} files are in order", files.len());
            return Ok(ExitCode::SUCCESS);
        }
        println!("tidy: {} violations", violations.len());
        Ok(ExitCode::FAILURE)
    }
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: PathBuf,
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, message } = self;
        write!(f, "{}:{line}: {rule}: {message}", path.display())
    }
}

/// Holds one file against every rule for its kind.
fn check(path: &Path, text: &str, machine: &text::Machine, found: &mut Vec<Violation>) {
    let mut report = |line, rule, message| {
        found.push(Violation { path: path.to_owned(), line, rule, message });
    };
    text::check(path, text, machine, &mut report);
    if path.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    match Source::parse(path, text) {
        Ok(source) => {
            text::check_rust(&source, &mut report);
            fence::check(&source, &mut report);
            rooms::check(&source, &mut report);
        }
        Err(error) => report(error.span().start().line, "lex", error.to_string()),
    }
}

/// What git tracks or would track, relative to the workspace.
fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed =
        commands::run_quietly(&mut git).context("list the files: tidy needs git, and a clone")?;
    Ok(listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that a file breaks, with the lines.
    pub(super) fn broken(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        let machine = text::Machine::with_folders(&[]);
        check(Path::new(path), text, &machine, &mut found);
        found.into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_file_in_order_breaks_nothing() {
        let text = "//! Docs.\n\nuse crate::model::Pid;\n";
        assert_eq!(broken("ucr-userspace/src/ledger/mod.rs", text), []);
    }

    #[test]
    fn each_violation_says_where_which_and_why() {
        let mut found = Vec::new();
        let machine = text::Machine::with_folders(&[]);
        check(Path::new("a/b.rs"), "//! Docs.\nfn f() { unsafe { g() } }\n", &machine, &mut found);
        let shown: Vec<String> = found.iter().map(Violation::to_string).collect();
        assert_eq!(
            shown,
            ["a/b.rs:2: fence: unsafe code belongs in ucr-ebpf/ or ucr-userspace/src/sys/"]
        );
    }

    #[test]
    fn what_is_no_rust_is_reported_as_such() {
        assert_eq!(broken("a.rs", "//! Docs.\nfn f() {\n"), [(2, "lex")]);
    }
}
