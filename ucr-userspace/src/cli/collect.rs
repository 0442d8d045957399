//! What `ucr dump` and `ucr check` have in common: everything up to the image, with the options that make a
//! difference to what comes out.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;

use crate::{
    dump::{
        Dump, Verify, dump,
        external::{Rule, Rules, Then},
        obstacle::Obstacle,
    },
    lock,
    model::Pid,
    process::freeze::Scope,
    restore::plan::{PlanError, plan},
    tracer::{hooks::Backend, pins::PinDirectory},
};

/// What is to be dumped, and what stands in the way of it.
#[derive(Clone, Debug, clap::Args)]
pub struct CollectOptions {
    /// With all its descendants
    #[arg(long)]
    tree: bool,
    /// What a disagreement between what was tracked and what the kernel says means
    #[arg(long, value_enum, default_value_t)]
    pub verify: Verify,
    /// Check against what this backend has tracked; snapshot: against nothing, only the kernel is asked
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// What becomes of connections with processes that are not dumped: refuse (the default), reconnect (by
    /// the peer's name), dangling (the peer seems to have closed; datagram sockets outside that send to one
    /// of these have nobody left), keep (the very socket, from a process that still has it: one outside, or
    /// without --kill the one that is dumped); also NAME=POLICY with * in the peer's name, or inode:N=POLICY
    /// for the peer's inode or that of the end that is dumped
    #[arg(long, value_name = "[NAME=]POLICY")]
    external: Vec<Rule>,
}

/// All that is needed for an image. The processes stand still as long as this lives.
#[derive(Debug)]
pub struct Collected {
    /// What was found, and each obstacle.
    pub dumped: Dump,
    /// Why no restore could bring the image back, which is then of no use to anybody. Only asked if there
    /// are no obstacles.
    pub hopeless: Option<PlanError>,
    verify: Verify,
}

impl CollectOptions {
    /// These, with a policy for connections with processes outside where the user has named none.
    #[must_use]
    pub fn or_external(&self, rule: Rule) -> Self {
        let mut options = self.clone();
        options.external.insert(0, rule);
        options
    }

    /// Whether its descendants are dumped as well.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.tree
    }

    /// Stops the process or tree and takes its sockets down; `then` is what would become of it.
    ///
    /// # Errors
    /// See [`dump`]; the processes go on.
    pub fn collect(
        &self,
        pid: Pid,
        then: Then,
        lock_for: Duration,
        pins: &PinDirectory,
    ) -> anyhow::Result<Collected> {
        self.collect_by(pid, &Rules::new(self.external.clone(), then), lock_for, pins)
    }

    /// The same for a caller who has some of the sockets himself: their inodes, and how many times he has each.
    ///
    /// # Errors
    /// See [`dump`]; the processes go on.
    pub fn collect_beside(
        &self,
        pid: Pid,
        own: HashMap<u32, u64>,
        pins: &PinDirectory,
    ) -> anyhow::Result<Collected> {
        let rules = Rules::new(self.external.clone(), Then::GoOn).beside(own);
        self.collect_by(pid, &rules, lock::USUAL, pins)
    }

    fn collect_by(
        &self,
        pid: Pid,
        rules: &Rules,
        lock_for: Duration,
        pins: &PinDirectory,
    ) -> anyhow::Result<Collected> {
        let scope = if self.tree { Scope::Tree } else { Scope::Process };
        let dumped = dump(pid, scope, pins, self.backend, rules, lock_for)
            .with_context(|| format!("dump process {pid}"))?;
        let hopeless = if dumped.obstacles.is_empty() { plan(&dumped.image).err() } else { None };
        Ok(Collected { dumped, hopeless, verify: self.verify })
    }
}

impl Collected {
    /// Passes over obstacles of which somebody knows that they are none.
    pub fn overlook(&mut self, is_none: impl Fn(&Obstacle) -> bool) {
        let obstacles = &mut self.dumped.obstacles;
        let before = obstacles.len();
        obstacles.retain(|obstacle| !is_none(obstacle));
        if obstacles.is_empty() && before > 0 {
            self.hopeless = plan(&self.dumped.image).err();
        }
    }

    /// Whether nothing may be written.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let is_disputed = self.verify == Verify::Strict && self.dumped.is_disputed();
        !self.dumped.obstacles.is_empty() || self.hopeless.is_some() || is_disputed
    }
}
