//! What a test cannot do without. A test that lacks it says so by name. Where `UCR_NO_SKIP` is set
//! it fails, unless it is the kernel that does not have it: that, no set-up can change.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ucr::tracer::hooks::Backend;

use crate::backends;

/// Something that a test needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To run as root: eBPF programs, other processes' sockets, namespaces.
    Root,
    /// A program, by its name.
    Program(&'static str),
    /// Perl with a module.
    Perl(&'static str),
    /// A kernel that lets this backend attach.
    Backend(Backend),
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
            Self::Backend(backend) if backends::attachable().contains(&backend) => None,
            Self::Backend(backend) => {
                Some(format!("needs a kernel with the {} backend", backend.name()))
            }
        }
    }

    /// Whether only another kernel could have it.
    fn is_of_kernel(self) -> bool {
        matches!(self, Self::Backend(_))
    }
}

/// Whether a test can run. If not, it says why.
///
/// # Panics
/// If it cannot, `UCR_NO_SKIP` is set, and it is not for the kernel.
#[must_use]
pub fn met(needs: &[Need]) -> bool {
    // The kernel is asked only if all else is there, which asking it takes.
    let (kernel, rest): (Vec<Need>, Vec<Need>) = needs.iter().partition(|need| need.is_of_kernel());
    let missing: Vec<String> = rest.iter().filter_map(|need| need.missing()).collect();
    if !missing.is_empty() {
        let why = missing.join(", ");
        assert!(env::var_os("UCR_NO_SKIP").is_none(), "{} cannot run here: {why}", test());
        skip(&why);
        return false;
    }
    let missing: Vec<String> = kernel.iter().filter_map(|need| need.missing()).collect();
    if !missing.is_empty() {
        skip(&missing.join(", "));
    }
    missing.is_empty()
}

/// Says that a test does not run, since the kernel has not what it is about: `why`.
pub fn absent(why: &str) {
    skip(&format!("needs another kernel: {why}"));
}

fn skip(why: &str) {
    eprintln!("skipped: {} {why}", test());
    note(&test(), why);
}

fn test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// Adds a line to the file that `UCR_SKIPPED` names. What a test prints that passes, as one that skips
/// does, is seen by nobody.
fn note(test: &str, why: &str) {
    let Some(path) = env::var_os("UCR_SKIPPED") else { return };
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write: other tests do the same.
    let written = file.and_then(|mut file| file.write_all(format!("{test}\t{why}\n").as_bytes()));
    written.expect("note that a test was skipped");
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
