//! What a test cannot do without. A test that lacks it says so by name, and fails where
//! `UCR_NO_SKIP` is set.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Something that a test needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To run as root: eBPF programs, other processes' sockets, namespaces.
    Root,
    /// A program, by its name.
    Program(&'static str),
    /// Perl with a module.
    Perl(&'static str),
}

impl Need {
    /// What is missing, if it is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root if nix::unistd::geteuid().is_root() => None,
            Self::Root => Some("needs root".to_owned()),
            Self::Program(name) if find_program(name).is_some() => None,
            Self::Program(name) => Some(format!("needs the program {name}")),
            Self::Perl(module) if has_perl(module) => None,
            Self::Perl(module) => Some(format!("needs perl with its module {module}")),
        }
    }
}

/// Whether a test can run. If not, it says why.
///
/// # Panics
/// If it cannot, and `UCR_NO_SKIP` is set.
#[must_use]
pub fn met(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let why = missing.join(", ");
    assert!(env::var_os("UCR_NO_SKIP").is_none(), "{test} cannot run here: {why}");
    eprintln!("skipped: {test} {why}");
    false
}

fn has_perl(module: &str) -> bool {
    let mut perl = Command::new("perl");
    perl.arg(format!("-M{module}")).args(["-e", "0"]).stderr(Stdio::null());
    perl.status().is_ok_and(|status| status.success())
}

/// A program in `PATH`, or among those that set-up installed.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([workspace.join(".tools/bin")])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
