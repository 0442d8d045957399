//! What a worker is told, and how it is told.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

/// What a worker is told on its command line.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Task {
    /// The run's folder
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// What its chance begins with
    #[arg(long)]
    pub(crate) seed: u64,
    /// Its number
    #[arg(long)]
    pub(crate) number: usize,
    /// How many workers there are
    #[arg(long)]
    pub(crate) workers: usize,
    /// Descriptors of the foreman's listeners
    #[arg(long, value_delimiter = ',')]
    pub(crate) common: Vec<RawFd>,
    /// Work in a network namespace of its own
    #[arg(long)]
    pub(crate) foreign: bool,
    /// Do only what is in these modules
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// End after so many acts, with all descriptors open
    #[arg(long)]
    pub(crate) acts: Option<u32>,
}

impl Task {
    /// As they stand on a command line.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut words = vec!["--folder".into(), self.folder.clone().into_os_string()];
        for (flag, number) in [
            ("--seed", self.seed.to_string()),
            ("--number", self.number.to_string()),
            ("--workers", self.workers.to_string()),
        ] {
            words.extend([flag.into(), number.into()]);
        }
        if !self.common.is_empty() {
            let common: Vec<String> = self.common.iter().map(ToString::to_string).collect();
            words.extend(["--common".into(), common.join(",").into()]);
        }
        if !self.only.is_empty() {
            words.extend(["--only".into(), self.only.join(",").into()]);
        }
        if self.foreign {
            words.push("--foreign".into());
        }
        if let Some(acts) = self.acts {
            words.extend(["--acts".into(), acts.to_string().into()]);
        }
        words
    }
}
