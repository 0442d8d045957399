//! Why a configuration file is not taken, and what is wrong with it.

use std::{fmt, io, path::PathBuf};

use crate::model::Count;

/// A configuration file that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("read the configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else than root could have written it, or it is no file at all.
    #[error("the configuration {path} is not trusted: {why}")]
    NotTrusted {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What it says makes no sense.
    #[error("{} in the configuration:{}", Count(problems.len(), "error"), Lines(self))]
    Invalid {
        /// Which.
        path: PathBuf,
        /// All that is wrong, by line.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } => None,
            Self::NotTrusted { .. } => Some("chown root: it, and chmod go-w it"),
            Self::Invalid { .. } => {
                Some("`ucr daemon --print-config` prints every key and its default")
            }
        }
    }
}

/// Something that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In which line, from 1.
    pub line: usize,
    /// What.
    pub wrong: Wrong,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// A table that nobody reads.
    #[error("unknown section [{name}]{}", Meant(nearest.map(|name| format!("[{name}]"))))]
    UnknownSection {
        /// Its name, safe to show.
        name: String,
        /// The section that may be meant.
        nearest: Option<&'static str>,
    },
    /// A key that nobody reads.
    #[error("unknown key {name}{}", Meant(nearest.clone()))]
    UnknownKey {
        /// Its name, with that of its section, safe to show.
        name: String,
        /// The key that may be meant, likewise.
        nearest: Option<String>,
    },
    /// A section that has a value instead of keys.
    #[error("{name} is a section: it must be [{name}], with keys")]
    NotASection {
        /// Which.
        name: &'static str,
    },
    /// A value that is not allowed.
    #[error("{key} = {value}: it must be {allowed}")]
    Value {
        /// Which key, with its section.
        key: String,
        /// The value as it is written, safe to show.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// A suggestion.
struct Meant(Option<String>);

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |meant| write!(f, "; is {meant} meant?"))
    }
}

/// A line for each problem, as compilers write them.
struct Lines<'a>(&'a ConfigError);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError::Invalid { path, problems } = self.0 else { return Ok(()) };
        problems.iter().try_for_each(|Problem { line, wrong }| {
            write!(f, "\n  {}:{line}: {wrong}", path.display())
        })
    }
}
