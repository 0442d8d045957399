//! The root of the workload: makes what all workers share, starts them, kills them with SIGKILL at
//! random moments and replaces whatever has ended.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nix::{
    poll::{PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with};
use ucr::sys::addr;

use crate::{
    own_program,
    tally::Counter,
    worker::{Names, Task},
};

/// Longest time between two kills, at least, and in starts of a worker: where starting takes long (an
/// emulated machine) they shall work as well, and not only start.
const KILL_WITHIN: Duration = Duration::from_millis(250);
const STARTS: u32 = 50;
/// How often it is looked whether one has ended by itself, in milliseconds.
const GLANCE: u8 = 20;

/// What the foreman is told on its command line.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Orders {
    /// The run's folder
    #[arg(long)]
    folder: PathBuf,
    /// What its chance begins with
    #[arg(long)]
    seed: u64,
    /// How many workers
    #[arg(long)]
    workers: usize,
    /// Let the workers do only what is in these modules
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// File to write our process id to, to be in the run's cgroup
    #[arg(long)]
    join: Option<PathBuf>,
}

/// Runs the workload until killed.
pub(crate) fn run(orders: &Orders) -> Result<()> {
    if let Some(join) = &orders.join {
        // Before there is anybody to leave outside.
        fs::write(join, "0").with_context(|| format!("join {}", join.display()))?;
    }
    let rng = Rng::with_seed(orders.seed);
    let mut counter = Counter::new();
    let names = Names::new(&orders.folder);
    let common = common(&names, &mut counter)?;
    let crew = vec![None; orders.workers];
    let mut foreman = Foreman { orders, common, crew, quickest: None, rng, counter };
    loop {
        foreman.fill()?;
        let longest = KILL_WITHIN.max(foreman.quickest.unwrap_or_default() * STARTS);
        let moment = Instant::now() + longest.mul_f64(foreman.rng.f64());
        while Instant::now() < moment {
            let _interrupted = poll(&mut [], PollTimeout::from(GLANCE));
            foreman.reap();
            foreman.fill()?;
        }
        foreman.strike();
    }
}

/// Listeners that all workers inherit and accept at: both connecting types, a path and an abstract
/// name.
fn common(names: &Names, counter: &mut Counter) -> Result<Vec<OwnedFd>> {
    let types = [SocketType::STREAM, SocketType::STREAM, SocketType::SEQPACKET];
    let mut made = Vec::new();
    for (n, socket_type) in types.into_iter().enumerate() {
        // Not closed on exec: that is how they are handed on.
        let fd = socket_with(AddressFamily::UNIX, socket_type, SocketFlags::NONBLOCK, None)
            .context("make a listener")?;
        addr::bind(fd.as_fd(), &names.common(n)).context("bind a listener")?;
        listen(&fd, 16).context("listen")?;
        counter.add(3);
        made.push(fd);
    }
    Ok(made)
}

struct Foreman<'a> {
    orders: &'a Orders,
    common: Vec<OwnedFd>,
    /// By number; the last is the forker, the one before it works in another network namespace.
    crew: Vec<Option<Pid>>,
    /// The shortest time that it took to start one: in any other we may have been frozen.
    quickest: Option<Duration>,
    rng: Rng,
    counter: Counter,
}

impl Foreman<'_> {
    /// Starts a worker at each free place.
    fn fill(&mut self) -> Result<()> {
        for number in 0..self.crew.len() {
            if self.crew.get(number).copied().flatten().is_none() {
                let pid = self.start(number)?;
                if let Some(place) = self.crew.get_mut(number) {
                    *place = Some(pid);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, number: usize) -> Result<Pid> {
        let workers = self.crew.len();
        let seed = self.rng.u64(..);
        let mut command = if number + 1 == workers {
            let mut forker = own_program("fork")?;
            forker.arg(&self.orders.folder).arg(seed.to_string());
            forker
        } else {
            let common = self.common.iter().map(AsRawFd::as_raw_fd).collect();
            let folder = self.orders.folder.clone();
            // Two of the places are in network namespaces of their own.
            let foreign = number + 3 >= workers;
            let only = self.orders.only.clone();
            let task = Task { folder, seed, number, workers, common, foreign, only, acts: None };
            let mut worker = own_program("work")?;
            worker.args(task.arguments());
            worker
        };
        let begun = Instant::now();
        let child = command.stdin(Stdio::null()).spawn().context("start a worker")?;
        let took = begun.elapsed();
        self.quickest = Some(self.quickest.map_or(took, |quickest| quickest.min(took)));
        self.counter.add(1);
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    /// Frees the places of those that have ended.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                return;
            }
            for place in &mut self.crew {
                if *place == status.pid() {
                    *place = None;
                }
            }
        }
    }

    /// Kills one, most often.
    fn strike(&mut self) {
        let place = self.rng.usize(0..self.crew.len());
        if let Some(pid) = self.crew.get(place).copied().flatten()
            && self.rng.u8(0..4) > 0
        {
            // It may have ended already; as long as it is not reaped, its number is its own.
            kill(pid, Signal::SIGKILL).ok();
            self.counter.add(1);
        }
        self.counter.report();
    }
}
