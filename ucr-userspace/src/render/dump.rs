//! A dump for people and programs: each socket with its verdict, and the figures.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, json};

use crate::{
    crosscheck::{Held, Judged, Verdict, count},
    dump::{Dump, Tracing, assemble::LeftOut, pairs::OtherEnd},
    model::{
        Count, Pid, SocketState, SocketType, UnixName, VerdictCounts,
        inet::{Endpoint, Over, TcpState},
        name::Exact,
        netlink::NetlinkProtocol,
    },
    query::{
        Side, Value,
        listing::{Heading, Sink as _},
    },
    render::{
        json::{bytes, path},
        listing::{self, Layout},
        obstacle::Placed,
    },
};

/// What is not known if that could not be looked up.
pub const UNPAIRED: &str = "who is at the other ends of TCP and UDP connections";

/// What is shown of a dump. It holds nothing of the processes, which may go on.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Row>,
    tracing: Tracing,
    unpaired: Option<String>,
    descriptors: usize,
    processes: usize,
}

#[derive(Clone, Debug)]
struct Row {
    inode: u32,
    cookie: u64,
    /// `None`: sockets like it are not traced.
    judged: Option<Judged>,
    holders: Vec<(Pid, i32)>,
    what: What,
}

impl Row {
    fn of(judged: &Judged, holders: Vec<(Pid, i32)>, what: What) -> Self {
        let Judged { inode, cookie, .. } = *judged;
        Self { inode, cookie, judged: Some(judged.clone()), holders, what }
    }

    fn verdict(&self) -> Option<&Verdict> {
        self.judged.as_ref().map(|judged| &judged.verdict)
    }
}

/// What a socket is, and with whom.
#[derive(Clone, Debug)]
enum What {
    Unix {
        socket_type: SocketType,
        state: Option<SocketState>,
        name: UnixName,
        peer: Option<u32>,
    },
    Inet {
        kind: Over,
        state: TcpState,
        local: Option<Endpoint>,
        remote: Option<Endpoint>,
        /// Where that is tracked as well.
        other: Option<OtherEnd>,
    },
    /// Of these nothing is tracked.
    Netlink {
        protocol: NetlinkProtocol,
        port: u32,
        peer: Option<u32>,
    },
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
    /// What the user has said is not to be in the image.
    pub left_out: Vec<LeftOut>,
    /// For how long its TCP connections stay locked, if they do.
    pub locked_for: Option<Duration>,
}

impl Table {
    /// Takes from a dump what is to be shown.
    #[must_use]
    pub fn of(dump: &Dump) -> Self {
        let holders = |holders: &[usize]| {
            let known = holders.iter().filter_map(|at| dump.inventory.descriptors.get(*at));
            known.map(|d| (Pid(d.pid.cast_signed()), d.fd.cast_signed())).collect::<Vec<_>>()
        };
        let rows = dump.inventory.sockets.iter().zip(&dump.judged).map(|(stock, judged)| {
            let seen = dump.inventory.view.get(stock.held.inode);
            let what = What::Unix {
                socket_type: stock.details.socket_type,
                state: seen.map(|seen| seen.state),
                name: stock.details.name.clone(),
                peer: seen.and_then(|seen| seen.peer),
            };
            Row::of(judged, holders(&stock.holders), what)
        });
        let inet = dump.inventory.inet.iter().zip(&dump.judged_inet).map(|(stock, judged)| {
            let inet = &stock.details.inet;
            let what = What::Inet {
                kind: Over(inet.protocol, inet.family),
                state: stock.details.state,
                local: inet.local,
                remote: inet.remote,
                other: dump.other_ends.found.get(&stock.held.sk).copied(),
            };
            Row::of(judged, holders(&stock.holders), what)
        });
        let netlink = dump.inventory.netlink.iter().map(|stock| {
            let netlink = &stock.details.netlink;
            let what = What::Netlink {
                protocol: NetlinkProtocol(netlink.protocol),
                port: netlink.port,
                peer: netlink.peer.map(|(port, _)| port),
            };
            let Held { inode, cookie, .. } = stock.held;
            Row { inode, cookie, judged: None, holders: holders(&stock.holders), what }
        });
        Self {
            rows: rows.chain(inet).chain(netlink).collect(),
            tracing: dump.tracing,
            unpaired: dump.other_ends.failed.clone(),
            descriptors: dump.image.descriptors.len(),
            processes: dump.image.processes.len(),
        }
    }

    /// Whether there was a ledger to judge by.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.tracing == Tracing::Attached
    }

    /// Why nobody knows who is at the other ends of its TCP connections, if that could not be looked up.
    #[must_use]
    pub fn unpaired(&self) -> Option<&str> {
        self.unpaired.as_deref()
    }

    fn disputed(&self) -> impl Iterator<Item = &Row> {
        let is_checked = self.is_checked();
        let is_disputed =
            |row: &&Row| row.judged.as_ref().is_some_and(|judged| judged.verdict.is_disagreement());
        self.rows.iter().filter(move |row| is_checked && is_disputed(row))
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
            let mut words = format!("{place} (inode {}): {}", row.inode, self.verdict(row));
            if let Some(Verdict::Conflict(differences)) = row.verdict() {
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
        count(self.rows.iter().filter_map(|row| row.judged.as_ref()))
    }

    fn verdict(&self, row: &Row) -> String {
        match self.tracing {
            Tracing::Attached => {
                row.verdict().map_or_else(|| "not traced".to_owned(), ToString::to_string)
            }
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
        let end = |end: &Option<Endpoint>| end.map_or(Value::Absent, |end| text(&end.to_string()));
        let [kind, state, name, peer] = match &row.what {
            What::Unix { socket_type, state, name, peer } => [
                text(socket_type.name()),
                state.map_or_else(|| text("?"), |state| text(&state.to_string())),
                Value::Name(name.clone()),
                peer.map_or(Value::Absent, |inode| Value::Number(inode.into())),
            ],
            What::Netlink { protocol, port, peer } => {
                let shown = |port: Option<u32>| {
                    port.map_or(Value::Absent, |port| text(&format!("port {port}")))
                };
                let own = Some(*port).filter(|port| *port != 0);
                [text(&protocol.to_string()), text("-"), shown(own), shown(*peer)]
            }
            What::Inet { kind, state, local, remote, other } => {
                let remote = match (remote, other) {
                    (Some(remote), Some(other)) => {
                        text(&format!("{remote} (inode {})", other.inode))
                    }
                    _ => end(remote),
                };
                [text(&kind.to_string()), text(state.name()), end(local), remote]
            }
        };
        [
            number(pid.0),
            number(fd),
            Value::Number(row.inode.into()),
            kind,
            state,
            name,
            peer,
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
            if let Some(Verdict::Conflict(differences)) = row.verdict() {
                for difference in differences {
                    writeln!(f, "conflict at inode {}: {difference}", row.inode)?;
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
    let left_out = outcome.left_out.iter().map(|LeftOut { local, remote }| {
        json!({ "local": local.to_string(), "remote": remote.to_string() })
    });
    fields.insert("left_out".to_owned(), left_out.collect());
    fields.insert("stopped_ms".to_owned(), json!(outcome.stopped.as_secs_f64() * 1000.0));
    fields.into()
}

/// What was found, whatever became of it.
pub(super) fn found(table: &Table, obstacles: &[Placed]) -> Map<String, serde_json::Value> {
    let sockets = table.rows.iter().map(|row| {
        let verdict = match table.tracing {
            Tracing::Attached => {
                row.verdict().map_or_else(|| json!("not_traced"), |verdict| json!(verdict))
            }
            Tracing::NotAttached | Tracing::NotAsked => json!("not_tracked"),
        };
        let holders: Vec<_> =
            row.holders.iter().map(|(pid, fd)| json!({ "pid": pid, "fd": fd })).collect();
        let mut fields = json!({
            "inode": row.inode,
            "cookie": row.cookie,
            "descriptors": holders,
            "verdict": verdict,
        });
        let what = match &row.what {
            What::Unix { socket_type, state, name, peer } => json!({
                "type": socket_type,
                "state": state,
                "name": Exact(name),
                "peer": peer,
            }),
            What::Netlink { protocol, port, peer } => json!({
                "type": protocol.to_string(),
                "port": port,
                "peer": peer,
            }),
            What::Inet { kind, state, local, remote, other } => json!({
                "type": kind.to_string(),
                "state": state,
                "local": local.map(|end| end.to_string()),
                "remote": remote.map(|end| end.to_string()),
                "peer": other.map(|other| other.inode),
                "peer_netns": other.map(|other| other.netns),
                "peer_opener": other.and_then(|other| other.opener).map(|who| {
                    json!({ "pid": who.pid, "uid": who.uid, "comm": bytes(who.comm()) })
                }),
            }),
        };
        if let (Some(fields), serde_json::Value::Object(more)) = (fields.as_object_mut(), what) {
            fields.extend(more);
        }
        fields
    });
    let fields = [
        ("sockets", json!(sockets.collect::<Vec<_>>())),
        ("obstacles", obstacles.iter().map(Placed::json).collect()),
        ("tracing_attached", json!(table.is_checked())),
        ("peers_not_looked_up", json!(table.unpaired)),
        ("counts", json!(table.counts())),
        ("descriptors", json!(table.descriptors)),
        ("processes", json!(table.processes)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
