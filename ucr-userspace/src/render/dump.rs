//! A dump for people and programs: each socket with its verdict, and the figures.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, json};

use crate::{
    crosscheck::{Judged, Verdict, count},
    dump::{Dump, Tracing},
    model::{Count, Pid, SocketState, SocketType, UnixName, VerdictCounts, name::Exact},
    query::{
        Side, Value,
        listing::{Heading, Sink as _},
    },
    render::{
        json::path,
        listing::{self, Layout},
        obstacle::Placed,
    },
};

/// What is shown of a dump. It holds nothing of the processes, which may go on.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Row>,
    tracing: Tracing,
    descriptors: usize,
    processes: usize,
}

#[derive(Clone, Debug)]
struct Row {
    judged: Judged,
    holders: Vec<(Pid, i32)>,
    socket_type: SocketType,
    state: Option<SocketState>,
    name: UnixName,
    peer: Option<u32>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where the image was to be written.
    pub path: PathBuf,
    /// Its size, if it was written.
    pub bytes: Option<u64>,
    /// How long the processes stood still.
    pub stopped: Duration,
    /// What was in the way.
    pub obstacles: Vec<Placed>,
}

impl Table {
    /// Takes from a dump what is to be shown.
    #[must_use]
    pub fn of(dump: &Dump) -> Self {
        let rows = dump.inventory.sockets.iter().zip(&dump.judged).map(|(stock, judged)| {
            let seen = dump.inventory.view.get(stock.held.inode);
            let holders = stock.holders.iter().filter_map(|at| {
                let descriptor = dump.inventory.descriptors.get(*at)?;
                Some((Pid(descriptor.pid.cast_signed()), descriptor.fd.cast_signed()))
            });
            Row {
                judged: judged.clone(),
                holders: holders.collect(),
                socket_type: stock.details.socket_type,
                state: seen.map(|seen| seen.state),
                name: stock.details.name.clone(),
                peer: seen.and_then(|seen| seen.peer),
            }
        });
        Self {
            rows: rows.collect(),
            tracing: dump.tracing,
            descriptors: dump.image.descriptors.len(),
            processes: dump.image.processes.len(),
        }
    }

    /// Whether there was a ledger to judge by.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.tracing == Tracing::Attached
    }

    fn disputed(&self) -> impl Iterator<Item = &Row> {
        let is_checked = self.is_checked();
        self.rows.iter().filter(move |row| is_checked && row.judged.verdict.is_disagreement())
    }

    /// Whether a verdict stands against the image.
    #[must_use]
    pub fn has_conflicts(&self) -> bool {
        self.disputed().next().is_some()
    }

    /// Each such verdict in words, with its place.
    #[must_use]
    pub fn disagreements(&self) -> Vec<String> {
        let words = self.disputed().map(|row| {
            let place = match row.holders.first() {
                Some((pid, fd)) => format!("pid {pid} fd {fd}"),
                None => "in flight".to_owned(),
            };
            let Judged { inode, verdict, .. } = &row.judged;
            let mut words = format!("{place} (inode {inode}): {verdict}");
            if let Verdict::Conflict(differences) = verdict {
                for difference in differences {
                    // Writing to a string cannot fail.
                    let _: fmt::Result = write!(words, "; {difference}");
                }
            }
            words
        });
        words.collect()
    }

    /// One line with the figures.
    #[must_use]
    pub fn summary(&self, path: &Path, bytes: u64, stopped: Duration) -> String {
        format!(
            "wrote {} ({}): {}; {}; stopped for {:.1} ms",
            path.display(),
            Count(bytes, "byte"),
            self.figures(),
            self.verdicts(),
            stopped.as_secs_f64() * 1000.0
        )
    }

    /// How much there is.
    #[must_use]
    pub fn figures(&self) -> String {
        format!(
            "{}, {}, {}",
            Count(self.rows.len(), "socket"),
            Count(self.descriptors, "descriptor"),
            Count(self.processes, "process"),
        )
    }

    /// How many got which verdict, or why none got any.
    #[must_use]
    pub fn verdicts(&self) -> String {
        let VerdictCounts { confirmed, predates, only_tracked, only_snapshot, conflict } =
            self.counts();
        match self.tracing {
            Tracing::NotAttached => {
                "nothing was tracked: tracing is not attached, so nothing could be checked"
                    .to_owned()
            }
            Tracing::NotAsked => "nothing was checked: only the kernel was asked".to_owned(),
            Tracing::Attached => format!(
                "{confirmed} confirmed, {predates} predate the tracer, {only_tracked} only tracked, \
                 {only_snapshot} only in the snapshot, {}",
                Count(conflict, "conflict")
            ),
        }
    }

    fn counts(&self) -> VerdictCounts {
        let judged: Vec<Judged> = self.rows.iter().map(|row| row.judged.clone()).collect();
        count(&judged)
    }

    fn verdict(&self, row: &Row) -> String {
        match self.tracing {
            Tracing::Attached => row.judged.verdict.to_string(),
            Tracing::NotAttached | Tracing::NotAsked => "not tracked".to_owned(),
        }
    }

    fn headings() -> [Heading; 8] {
        ["pid", "fd", "inode", "type", "state", "name", "peer", "verdict"].map(|name| {
            let is_number = matches!(name, "pid" | "fd" | "inode" | "peer");
            Heading {
                name: name.to_owned(),
                side: if is_number { Side::Right } else { Side::Left },
            }
        })
    }

    /// What is shown of one of a socket's descriptors.
    fn cells(&self, row: &Row, index: usize, (pid, fd): (Pid, i32)) -> [Value; 8] {
        let text = |text: &str| Value::Text(text.to_owned().into());
        let number = |number: i32| Value::Number(u64::try_from(number).unwrap_or_default());
        [
            number(pid.0),
            number(fd),
            Value::Number(row.judged.inode.into()),
            text(row.socket_type.name()),
            row.state.map_or_else(|| text("?"), |state| text(&state.to_string())),
            Value::Name(row.name.clone()),
            row.peer.map_or(Value::Absent, |inode| Value::Number(inode.into())),
            if index == 0 { text(&self.verdict(row)) } else { text("(same socket)") },
        ]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = listing::Table::default();
        table.headings(&Self::headings());
        for row in &self.rows {
            for (index, holder) in row.holders.iter().enumerate() {
                table.row(self.cells(row, index, *holder).into_iter());
            }
        }
        let mut text = Vec::new();
        table.print(Layout::default(), &mut text).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
        if !self.is_checked() {
            return Ok(());
        }
        for row in &self.rows {
            if let Verdict::Conflict(differences) = &row.judged.verdict {
                for difference in differences {
                    writeln!(f, "conflict at inode {}: {difference}", row.judged.inode)?;
                }
            }
        }
        Ok(())
    }
}

/// Everything as JSON.
#[must_use]
pub fn json(table: &Table, outcome: &Outcome) -> serde_json::Value {
    let mut fields = found(table, &outcome.obstacles);
    let image = outcome.bytes.map(|bytes| json!({ "path": path(&outcome.path), "bytes": bytes }));
    fields.insert("image".to_owned(), json!(image));
    fields.insert("stopped_ms".to_owned(), json!(outcome.stopped.as_secs_f64() * 1000.0));
    fields.into()
}

/// What was found, whatever became of it.
pub(super) fn found(table: &Table, obstacles: &[Placed]) -> Map<String, serde_json::Value> {
    let sockets = table.rows.iter().map(|row| {
        let verdict = match table.tracing {
            Tracing::Attached => json!(row.judged.verdict),
            Tracing::NotAttached | Tracing::NotAsked => json!("not_tracked"),
        };
        let holders: Vec<_> =
            row.holders.iter().map(|(pid, fd)| json!({ "pid": pid, "fd": fd })).collect();
        json!({
            "inode": row.judged.inode,
            "cookie": row.judged.cookie,
            "type": row.socket_type,
            "state": row.state,
            "name": Exact(&row.name),
            "peer": row.peer,
            "descriptors": holders,
            "verdict": verdict,
        })
    });
    let fields = [
        ("sockets", json!(sockets.collect::<Vec<_>>())),
        ("obstacles", obstacles.iter().map(Placed::json).collect()),
        ("tracing_attached", json!(table.is_checked())),
        ("counts", json!(table.counts())),
        ("descriptors", json!(table.descriptors)),
        ("processes", json!(table.processes)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
