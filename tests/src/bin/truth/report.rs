//! What is told: one line or one object at the end, and before it what was wrong.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde_json::json;
use ucr::model::{UnixName, name::Escaped};
use ucr_common::{
    control::counter,
    identity::{Actor, SocketId},
    record::Record,
};

use crate::{
    chronicle::Chronicle,
    judge::{Finding, Judge},
};

/// How many discrepancies are told in detail.
const DETAILED: usize = 20;

/// What the run has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The ledger is the truth.
    True,
    /// It is not.
    Untrue,
}

/// Tells what was wrong, in detail as long as it is not too much.
pub(crate) struct Reporter {
    told: usize,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self { told: 0 }
    }

    /// Tells of new findings, with everything known of their socks.
    pub(crate) fn tell(&mut self, findings: &[Finding], chronicle: &Chronicle) {
        for Finding { discrepancy, ledger, kernel } in findings {
            self.told += 1;
            if self.told > DETAILED {
                continue;
            }
            eprintln!("{discrepancy}");
            for (side, record) in [("ledger", ledger), ("kernel", kernel)] {
                match record {
                    Some(record) => eprintln!("  {side}: {}", described(record)),
                    None => eprintln!("  {side}: nothing"),
                }
            }
            for event in chronicle.of(discrepancy.sk) {
                eprintln!("  {event}");
            }
        }
    }

    /// The last words.
    pub(crate) fn conclude(
        &self,
        judge: &Judge,
        operations: u64,
        as_json: bool,
    ) -> Result<Outcome> {
        if self.told > DETAILED {
            eprintln!("and {} more", self.told - DETAILED);
        }
        let private = &judge.tracing().private;
        let counters = private.store.counters()?;
        for (name, count) in counters.iter().filter(|(name, _)| *name != "emitted") {
            if count > 0 {
                eprintln!("counted: {name} {count}");
            }
        }
        let sums = &judge.sums;
        let values = [
            ("operations", operations),
            ("checks", sums.checks),
            ("missing", judge.count("missing")),
            ("stale", judge.count("stale")),
            ("wrong", judge.count("wrong")),
            ("lost_events", counters.get(counter::LOST)),
            ("unborn", sums.unborn),
            ("reconciled_added", sums.added),
            ("reconciled_removed", sums.removed),
            ("reconciled_repaired", sums.repaired),
            ("unvisited", sums.unvisited),
            ("compared", sums.compared),
        ];
        let kernel = nix::sys::utsname::uname().context("ask for the kernel's name")?;
        let kernel = kernel.release().to_string_lossy();
        let backend = private.backend.name();
        let line = if as_json {
            let mut object = serde_json::Map::new();
            object.insert("kernel".to_owned(), json!(kernel));
            object.insert("backend".to_owned(), json!(backend));
            object.extend(values.map(|(name, value)| (name.to_owned(), json!(value))));
            serde_json::Value::Object(object).to_string()
        } else {
            let values = values.map(|(name, value)| format!("{name}={value}")).join(" ");
            format!("kernel={kernel} backend={backend} {values}")
        };
        writeln!(io::stdout(), "{line}").context("print the outcome")?;
        let wrong = ["missing", "stale", "wrong"].iter().any(|kind| judge.count(kind) > 0);
        Ok(if wrong { Outcome::Untrue } else { Outcome::True })
    }
}

/// All that a record says.
fn described(record: &Record) -> String {
    let Record { socket, peer, listener, .. } = record;
    let id = |id: &SocketId| format!("{:#x}/cookie {}/inode {}", id.sk, id.cookie, id.inode);
    let actor = |what: &str, at: u64, actor: &Actor| match at {
        0 => String::new(),
        at => format!("; {what} at {at} by {}[{}/{}]", Escaped(actor.comm()), actor.pid, actor.tid),
    };
    format!(
        "{}, type {}, state {}, shutdown {}, backlog {}, netns {}, name {}, peer {}, listener {}, \
         origin {}, role {}, flags {:#x}{}{}{}",
        id(socket),
        record.socket_type,
        record.state,
        record.shutdown,
        record.backlog,
        record.netns,
        UnixName::from_sun_path(record.name.as_bytes()),
        id(peer),
        id(listener),
        record.origin,
        record.role,
        record.flags,
        actor("created", record.created_at, &record.creator),
        actor("bound", record.bound_at, &record.binder),
        actor("opened", record.opened_at, &record.opener),
    )
}
