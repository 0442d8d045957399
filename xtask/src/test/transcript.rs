//! Several test programs run by one shell, and their outputs told apart again.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use anyhow::{Context, Result};

/// Begins the lines that the script itself writes.
const MARK: &str = "== xtask: ";

/// What a program left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) output: String,
    /// How it ended, if it did.
    pub(super) status: Option<String>,
    /// What the tests have said that did not run.
    pub(super) skipped: String,
}

/// A line of a script: a command in a folder.
pub(super) fn command(folder: &Path, words: &[&OsStr]) -> Result<OsString> {
    let no_nul = "a NUL byte cannot be part of a command";
    let folder = shlex::bytes::try_quote(folder.as_os_str().as_bytes()).context(no_nul)?;
    let words = shlex::bytes::try_join(words.iter().map(|word| word.as_bytes())).context(no_nul)?;
    Ok(OsString::from_vec([b"cd ", folder.as_ref(), b" && ", &words].concat()))
}

/// A script that runs commands one after the other, whatever comes of them.
pub(super) fn script(commands: Vec<OsString>) -> OsString {
    let mut script = OsString::from("export UCR_SKIPPED=/tmp/skipped\n");
    for command in commands {
        script.push(format!("echo '{MARK}begin'; : > $UCR_SKIPPED\n("));
        script.push(command);
        // What was written last need not have had an end.
        script.push(format!(")\nprintf '\\n{MARK}status %s\\n' $?; cat $UCR_SKIPPED\n"));
    }
    script
}

/// What each command left, as far as the script came.
pub(super) fn sections(output: &[u8]) -> Vec<Section> {
    let output = String::from_utf8_lossy(output);
    let mut sections: Vec<Section> = Vec::new();
    for line in output.lines() {
        if line.strip_prefix(MARK) == Some("begin") {
            sections.push(Section::default());
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        let status = line.strip_prefix(MARK).and_then(|mark| mark.strip_prefix("status "));
        if let Some(status) = status {
            section.status = Some(status.to_owned());
            continue;
        }
        let text =
            if section.status.is_none() { &mut section.output } else { &mut section.skipped };
        text.push_str(line);
        text.push('\n');
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::commands::run_quietly;

    #[test]
    fn what_programs_leave_is_told_apart() {
        let show = r#"pwd; echo "$1"; printf 'b\twhy\n' >> $UCR_SKIPPED; exit 3"#;
        let words = ["sh", "-c", show, "sh", "it's"].map(OsStr::new);
        let ends = ["sh", "-c", "printf unended"].map(OsStr::new);
        let commands = [command(Path::new("/usr"), &words), command(Path::new("/"), &ends)];
        let script = script(commands.map(Result::unwrap).into());
        // Not where another test might write at the same time.
        let skipped = tempfile::NamedTempFile::new().unwrap();
        let script =
            script.to_str().unwrap().replace("/tmp/skipped", skipped.path().to_str().unwrap());
        let said = run_quietly(Command::new("sh").args(["-c", &script])).unwrap();
        let first = Section {
            output: "/usr\nit's\n\n".to_owned(),
            status: Some("3".to_owned()),
            skipped: "b\twhy\n".to_owned(),
        };
        let second = Section {
            output: "unended\n".to_owned(),
            status: Some("0".to_owned()),
            skipped: String::new(),
        };
        assert_eq!(sections(said.as_bytes()), [first, second]);
    }

    #[test]
    fn a_program_that_did_not_end_has_no_status() {
        let output = format!("noise\n{MARK}begin\ntest a ... ok\ntest b");
        let [section] = sections(output.as_bytes()).try_into().unwrap();
        let section: Section = section;
        assert_eq!(section.output, "test a ... ok\ntest b\n");
        assert_eq!(section.status, None);
    }
}
