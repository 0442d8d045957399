//! What can be chosen.

use std::time::Duration;

use ucr::tracer::{
    hooks::{Backend, Choice},
    object::Sizes,
};

use crate::{freezer::Way, plant::Plant, worker};

/// Fewest workers: with fewer it is no crowd.
const WORKERS_MIN: usize = 8;
/// How long it takes if nothing is said, in seconds.
const SECONDS: u64 = 10;
/// Most sockets that the kernel is expected to have during a run.
const CENSUS: u32 = 262_144;

/// What can be chosen.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// End after this time
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// End after so many operations
    #[arg(long)]
    pub(crate) operations: Option<u64>,
    /// Go on until there were so many, also if the time is over: on a slow machine
    #[arg(long, default_value_t = 0)]
    pub(crate) at_least: u64,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// What chance begins with
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Processes that work, beside the foreman and the children of workers
    #[arg(long, default_value_t = 12)]
    pub(crate) workers: usize,
    /// How often the workload is frozen
    #[arg(long, default_value_t = 4.0)]
    pub(crate) checks_per_second: f64,
    /// Size of the ring buffer
    #[arg(long, default_value_t = 16 << 20)]
    pub(crate) ring_bytes: u32,
    /// Most sockets that the ledger holds
    #[arg(long, default_value_t = Sizes::default().sockets)]
    pub(crate) max_sockets: u32,
    /// How the workload is frozen; without it, in the best way there is
    #[arg(long)]
    pub(crate) freezer: Option<Way>,
    /// Let the workers do only this, to look closer: streams, datagrams, rights, descriptors, crowd,
    /// internet, races, doors, namespaces
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Print a JSON object instead of a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Falsify the ledger, to see that it is noticed
    #[arg(long, hide = true)]
    pub(crate) plant: Option<Plant>,
}

impl Options {
    /// What is wrong with them.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.choice.backend == Some(Backend::Snapshot) {
            return Err("there is nothing to prove: snapshot keeps no ledger".to_owned());
        }
        if self.workers < WORKERS_MIN {
            return Err(format!("--workers: {WORKERS_MIN} at least"));
        }
        if let Some(unknown) = self.only.iter().find(|name| !worker::has_acts(name)) {
            return Err(format!("--only: there is no `{unknown}`"));
        }
        if !(0.01..=1000.0).contains(&self.checks_per_second) {
            return Err("--checks-per-second: from 0.01 to 1000".to_owned());
        }
        Ok(())
    }

    /// When it is enough. With both limits the first that is reached counts.
    pub(crate) fn limits(&self) -> (Option<Duration>, Option<u64>) {
        let seconds = match (self.seconds, self.operations) {
            (None, None) => Some(SECONDS),
            (seconds, _) => seconds,
        };
        (seconds.map(Duration::from_secs), self.operations)
    }

    /// How large the maps are made.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            ring_bytes: self.ring_bytes,
            sockets: self.max_sockets,
            census: CENSUS,
            ..Sizes::default()
        }
    }
}
