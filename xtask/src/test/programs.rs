//! The built test programs and their tests.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::commands;

/// A test program that also runs elsewhere than on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The stories of `ucr-tests`.
    Stories,
    /// The integration tests of `ucr-userspace`.
    Integration,
    /// The unit tests of `ucr-userspace`.
    Unit,
}

impl Program {
    const ALL: [Self; 3] = [Self::Stories, Self::Integration, Self::Unit];

    /// Cargo's name for it, and the kind of what is tested.
    fn target(self) -> (&'static str, &'static str) {
        match self {
            Self::Stories => ("stories", "test"),
            Self::Integration => ("it", "test"),
            Self::Unit => ("ucr", "lib"),
        }
    }
}

/// A program that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) program: Program,
    pub(super) path: PathBuf,
    /// Its package's folder, in which cargo would run it.
    pub(super) folder: PathBuf,
}

/// The programs, which have been built before.
pub(super) fn built() -> Result<Vec<Built>> {
    let mut cargo = commands::cargo();
    cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "cargo could not build the tests");
    let messages = String::from_utf8(output.stdout).context("read what cargo built")?;
    let found = Program::ALL.map(|program| {
        let mut messages = messages.lines();
        messages.find_map(|message| of_message(program, message)).with_context(|| {
            let (name, kind) = program.target();
            format!("cargo built no tests of the {kind} target {name}")
        })
    });
    found.into_iter().collect()
}

/// The program, if that is what one of cargo's messages is about.
#[expect(clippy::indexing_slicing, reason = "a JSON value is null at a key that it lacks")]
fn of_message(program: Program, message: &str) -> Option<Built> {
    let message: Value = serde_json::from_str(message).ok()?;
    let (name, kind) = program.target();
    let target = &message["target"];
    let is_it = message["profile"]["test"] == true
        && target["name"] == name
        && target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|known| known == kind));
    let path = message["executable"].as_str().filter(|_| is_it)?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Built { program, path: path.into(), folder: manifest.parent()?.to_owned() })
}

impl Built {
    /// The names of its tests that contain the filter.
    pub(super) fn tests(&self, filter: Option<&str>) -> Result<Vec<String>> {
        let mut list = Command::new(&self.path);
        list.args(["--list", "--format", "terse"]).args(filter);
        let listed = commands::run_quietly(&mut list)?;
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"reason":"compiler-artifact","manifest_path":"/ws/tests/Cargo.toml",
        "target":{"kind":["test"],"name":"stories"},"profile":{"test":true},
        "executable":"/ws/target/debug/deps/stories-cf4a"}"#;

    #[test]
    fn a_program_is_found_in_cargos_messages() {
        let built = of_message(Program::Stories, MESSAGE).expect("a program");
        assert_eq!(built.path, Path::new("/ws/target/debug/deps/stories-cf4a"));
        assert_eq!(built.folder, Path::new("/ws/tests"));
        assert_eq!(of_message(Program::Integration, MESSAGE), None);
    }

    #[test]
    fn what_is_no_test_program_is_none() {
        for (from, to) in [
            (r#""test":true"#, r#""test":false"#),
            (r#"["test"]"#, r#"["bin"]"#),
            (r#""/ws/target/debug/deps/stories-cf4a""#, "null"),
        ] {
            assert_eq!(of_message(Program::Stories, &MESSAGE.replace(from, to)), None, "{to}");
        }
        assert_eq!(of_message(Program::Stories, "no JSON"), None);
    }
}
