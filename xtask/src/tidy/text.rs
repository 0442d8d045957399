//! Rules that lines of text can keep or break.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::source::{Report, Source};

/// A file longer than this says why near its top.
const LONG: usize = 500;
/// How near: lines.
const NEAR_TOP: usize = 20;
const LONG_BECAUSE: &str = "// long because: ";

/// Tests' expected output holds what was printed, whatever that is.
const VERBATIM: [&str; 1] = ["snap"];

/// Folders that are there on one machine only.
pub(super) struct Machine {
    folders: Vec<String>,
}

impl Machine {
    /// Homes anywhere, and the folders that we are in.
    pub(super) fn this(root: &Path) -> Self {
        // In parts, or this file would break the rule.
        let mut folders: Vec<String> =
            ["home", "root", "work", "Users"].map(|name| format!("/{name}/")).into();
        let home = env::home_dir();
        let own = home.iter().map(PathBuf::as_path).chain([root]);
        folders.extend(own.filter(|path| *path != Path::new("/")).map(with_slash));
        Self { folders }
    }

    /// These folders, each with a slash at its end.
    #[cfg(test)]
    pub(super) fn with_folders(folders: &[&str]) -> Self {
        Self { folders: folders.iter().map(|&folder| folder.to_owned()).collect() }
    }

    /// The folder that a line names, if it names one.
    fn folder_in(&self, line: &str) -> Option<&str> {
        let names = |folder: &String| {
            line.match_indices(folder.as_str()).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                before.is_none_or(|c| !(c.is_alphanumeric() || "._-~}".contains(c)))
            })
        };
        self.folders.iter().find(|folder| names(folder)).map(String::as_str)
    }
}

fn with_slash(path: &Path) -> String {
    format!("{}/", path.display())
}

/// Rules for every file.
pub(super) fn check(path: &Path, text: &str, machine: &Machine, report: &mut Report<'_>) {
    let is_verbatim = path
        .extension()
        .is_some_and(|extension| VERBATIM.iter().any(|verbatim| extension == *verbatim));
    for (line, number) in text.lines().zip(1..) {
        if let Some(folder) = machine.folder_in(line) {
            report(number, "machine", format!("`{folder}` is a folder of one machine"));
        }
        if !is_verbatim && line.ends_with([' ', '\t', '\r']) {
            report(number, "whitespace", "blanks at the end of the line".to_owned());
        }
    }
}

/// Rules for Rust files.
pub(super) fn check_rust(source: &Source<'_>, report: &mut Report<'_>) {
    if !source.text.starts_with("//!") {
        report(1, "docs", "the file does not begin with `//!` and what it is for".to_owned());
    }
    let length = source.text.lines().count();
    if length > LONG
        && !source.text.lines().take(NEAR_TOP).any(|line| line.starts_with(LONG_BECAUSE))
    {
        let message = format!("{length} lines, and no line `{LONG_BECAUSE}…` near the top");
        report(LONG + 1, "length", message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Violation, check, tests::broken};
    use super::*;

    #[test]
    fn rust_files_begin_with_what_they_are_for() {
        assert_eq!(broken("a.rs", "fn f() {}\n"), [(1, "docs")]);
        assert_eq!(broken("a.rs", "use b;\n//! Too late.\n").first(), Some(&(1, "docs")));
        assert_eq!(broken("a.md", "Not Rust.\n"), []);
    }

    #[test]
    fn long_files_have_a_reason() {
        let body = "\n".repeat(LONG);
        assert_eq!(broken("a.rs", &format!("//! D.{body}")), []);
        assert_eq!(broken("a.rs", &format!("//! D.{body}\n")), [(LONG + 1, "length")]);
        let reason = format!("//! D.\n{LONG_BECAUSE}one table{body}");
        assert_eq!(broken("a.rs", &reason), []);
        let late = format!("//! D.{body}\n{LONG_BECAUSE}one table");
        assert_eq!(broken("a.rs", &late), [(LONG + 1, "length")]);
    }

    #[test]
    fn blanks_at_the_end_of_a_line_are_found() {
        assert_eq!(broken("a.md", "x \ny\nz\t\n"), [(1, "whitespace"), (3, "whitespace")]);
        assert_eq!(broken("a.snap", "x \n"), []);
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        let machine = Machine::with_folders(&["/den/", "/mine/"]);
        let mut found: Vec<Violation> = Vec::new();
        let text = "cd /den/me\nsrc/den/x\n\"/mine/y\"\n/dens/\n";
        check(Path::new("a.md"), text, &machine, &mut found);
        let lines: Vec<_> =
            found.iter().map(|violation| (violation.line, violation.rule)).collect();
        assert_eq!(lines, [(1, "machine"), (3, "machine")]);
    }

    #[test]
    fn this_machines_folders_are_known() {
        let machine = Machine::this(Path::new("/srv/ucr"));
        assert_eq!(machine.folder_in("see /srv/ucr/x"), Some("/srv/ucr/"));
        assert!(machine.folder_in(&format!("/{}/me/x", "home")).is_some());
        assert_eq!(machine.folder_in("/run/x.sock"), None);
    }
}
