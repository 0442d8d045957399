//! Holds what was tracked against what the kernel reports: ledger × snapshot → verdicts. Pure.

pub mod inet;

use std::{borrow::Borrow, fmt};

use serde::Serialize;

use crate::{
    ledger::{Ledger, Tracked},
    model::{SeenSocket, Shutdown, SocketState, SocketType, UnixName, VerdictCounts, View},
};

/// A socket that is to be judged: as the process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Address of the sock: the ledger's key.
    pub sk: u64,
    /// Its inode: the snapshot's key.
    pub inode: u32,
    /// Its cookie.
    pub cookie: u64,
}

/// What came out for one socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Seen live from the beginning, and every field agrees.
    Confirmed,
    /// In the ledger, but its beginning was not seen; what is known agrees.
    Predates,
    /// In the ledger, not in the snapshot.
    OnlyTracked,
    /// In the snapshot, not in the ledger.
    OnlySnapshot,
    /// At least one field differs.
    Conflict(Vec<Difference>),
}

impl Verdict {
    /// Whether what was tracked and what the kernel says do not agree.
    #[must_use]
    pub fn is_disagreement(&self) -> bool {
        !matches!(self, Self::Confirmed | Self::Predates)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Predates => "predates the tracer",
            Self::OnlyTracked => "only tracked",
            Self::OnlySnapshot => "only in the snapshot",
            Self::Conflict(_) => "conflict",
        })
    }
}

/// A field that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// Inode number.
    Inode,
    /// Cookie, once the ledger knows it.
    Cookie,
    /// `SO_TYPE`.
    Type,
    /// `sk_state`.
    State,
    /// Own name.
    Name,
    /// Own end of an internet socket.
    Local,
    /// The other end.
    Remote,
    /// Inode of the peer.
    Peer,
    /// Directions shut down.
    Shutdown,
    /// Backlog of a listener.
    Backlog,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inode => "inode",
            Self::Cookie => "cookie",
            Self::Type => "type",
            Self::State => "state",
            Self::Name => "name",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Peer => "peer",
            Self::Shutdown => "shutdown",
            Self::Backlog => "backlog",
        })
    }
}

/// A field with both its values, as text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which field.
    pub field: Field,
    /// What the ledger has.
    pub tracked: String,
    /// What the kernel reports.
    pub seen: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: tracked {}, kernel says {}", self.field, self.tracked, self.seen)
    }
}

/// One socket with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its inode.
    pub inode: u32,
    /// Its cookie.
    pub cookie: u64,
    /// What came out.
    pub verdict: Verdict,
}

/// Judges each socket against one or more snapshots. Since a dump is not atomic, a mismatch counts
/// only if it stands in all of them: take a second one if the first [`is_disputed`].
#[must_use]
pub fn judge(held: &[Held], ledger: &Ledger, views: &[&View]) -> Vec<Judged> {
    held.iter()
        .map(|socket| {
            let (views, seen): (Vec<&View>, Vec<&SeenSocket>) =
                views.iter().filter_map(|view| Some((*view, view.get(socket.inode)?))).unzip();
            let verdict = match (ledger.get(socket.sk), seen.is_empty()) {
                // Somebody holds it: the kernel has it in any case.
                (None, _) => Verdict::OnlySnapshot,
                (Some(_), true) => Verdict::OnlyTracked,
                (Some(tracked), false) => verdict(tracked, &seen, ledger, &views),
            };
            Judged { inode: socket.inode, cookie: socket.cookie, verdict }
        })
        .collect()
}

fn verdict(tracked: &Tracked, seen: &[&SeenSocket], ledger: &Ledger, views: &[&View]) -> Verdict {
    let peer = ledger.peer_inode(tracked);
    let mut passes = seen.iter().zip(views).map(|(seen, view)| {
        compare(tracked, peer, seen, is_end_explained(tracked, peer, seen, view))
    });
    let mut standing = passes.next().unwrap_or_default();
    for again in passes {
        standing.retain(|difference| again.iter().any(|d| d.field == difference.field));
    }
    settled(tracked, standing)
}

/// What comes of what stands in all snapshots.
fn settled(tracked: &Tracked, standing: Vec<Difference>) -> Verdict {
    if !standing.is_empty() {
        Verdict::Conflict(standing)
    } else if tracked.is_live() {
        Verdict::Confirmed
    } else {
        Verdict::Predates
    }
}

/// Whether what was tracked of the peer is merely older than its end. Not every last close can be
/// seen, but that a peer is gone leaves no doubt: the kernel reports none, and nobody in this
/// network namespace has the inode that the peer had.
fn is_end_explained(
    tracked: &Tracked,
    peer: Option<u32>,
    seen: &SeenSocket,
    view: &View,
) -> Explained {
    let gone = seen.peer.is_none() && peer.is_none_or(|inode| view.get(inode).is_none());
    let ended = tracked.socket_type == SocketType::Dgram || seen.shutdown == Shutdown::BOTH;
    let had_peer = tracked.peer.is_some() || tracked.peer_closed;
    if gone && ended && had_peer { Explained::Yes } else { Explained::No }
}

/// Whether a missing peer is explained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Explained {
    Yes,
    No,
}

fn compare(
    tracked: &Tracked,
    peer: Option<u32>,
    seen: &SeenSocket,
    end: Explained,
) -> Vec<Difference> {
    let listening = seen.state == SocketState::Listening;
    let of_peer = end == Explained::No;
    // A name that the kernel gave by itself, on a send or for SO_PASSCRED, is seen by nobody.
    let named = tracked.name.is_named() || !is_autobound(&seen.name);
    [
        differ(Field::Inode, &tracked.inode, &Some(seen.inode), number),
        tracked.cookie.and_then(|c| differ(Field::Cookie, &c, &seen.cookie, u64::to_string)),
        differ(Field::Type, &tracked.socket_type, &seen.socket_type, SocketType::to_string),
        differ(Field::State, &tracked.state, &seen.state, SocketState::to_string),
        differ(Field::Name, &tracked.name, &seen.name, UnixName::to_string).filter(|_| named),
        differ(Field::Peer, &peer, &seen.peer, number).filter(|_| of_peer),
        differ(Field::Shutdown, &tracked.shutdown, &seen.shutdown, Shutdown::to_string)
            .filter(|_| of_peer),
        listening
            .then(|| differ(Field::Backlog, &tracked.backlog, &seen.send_queue, u32::to_string))
            .flatten(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a name could have been given by `unix_autobind`: five hexadecimal digits.
fn is_autobound(name: &UnixName) -> bool {
    matches!(name, UnixName::Abstract(digits)
        if digits.len() == 5 && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')))
}

fn differ<T: PartialEq>(
    field: Field,
    tracked: &T,
    seen: &T,
    show: fn(&T) -> String,
) -> Option<Difference> {
    (tracked != seen).then(|| Difference { field, tracked: show(tracked), seen: show(seen) })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "one of several that `differ` takes")]
fn number(value: &Option<u32>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// Whether looking again could change something.
#[must_use]
pub fn is_disputed(judged: &[Judged]) -> bool {
    judged.iter().any(|j| matches!(j.verdict, Verdict::Conflict(_) | Verdict::OnlyTracked))
}

/// How many sockets got which verdict.
#[must_use]
pub fn count(judged: impl IntoIterator<Item = impl Borrow<Judged>>) -> VerdictCounts {
    let mut counts = VerdictCounts::default();
    for socket in judged {
        let counter = match socket.borrow().verdict {
            Verdict::Confirmed => &mut counts.confirmed,
            Verdict::Predates => &mut counts.predates,
            Verdict::OnlyTracked => &mut counts.only_tracked,
            Verdict::OnlySnapshot => &mut counts.only_snapshot,
            Verdict::Conflict(_) => &mut counts.conflict,
        };
        *counter += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use ucr_common::{
        identity::SocketId,
        record::{Record, origin},
    };
    use zerocopy::FromZeros as _;

    use super::*;
    const HELD: Held = Held { sk: 1, inode: 10, cookie: 100 };

    fn record(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = Record::new_zeroed();
        record.socket = SocketId { sk: 1, cookie: 100, inode: 10 };
        record.peer = SocketId { sk: 2, cookie: 0, inode: 20 };
        (record.family, record.socket_type) = (1, 1);
        record.state = 1;
        record.origin = origin::SOCKET;
        record.name.len = 2;
        record.name.bytes[..2].copy_from_slice(b"\0n");
        change(&mut record);
        record
    }

    fn ledger(change: impl FnOnce(&mut Record)) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.insert(Tracked::new(&record(change), None).expect("a sound record"));
        ledger
    }

    fn view(change: impl FnOnce(&mut SeenSocket)) -> View {
        let mut seen = SeenSocket {
            inode: 10,
            cookie: 100,
            socket_type: SocketType::Stream,
            state: SocketState::Connected,
            name: UnixName::Abstract(b"n".to_vec()),
            file: None,
            peer: Some(20),
            pending: Vec::new(),
            receive_queue: 0,
            send_queue: 0,
            shutdown: Shutdown(0),
        };
        change(&mut seen);
        View { sockets: [(10, seen)].into_iter().collect() }
    }

    fn verdict(ledger: &Ledger, view: &View) -> Verdict {
        let mut judged = judge(&[HELD], ledger, &[view]);
        judged.remove(0).verdict
    }

    #[test]
    fn what_agrees_is_confirmed_or_predates() {
        assert_eq!(verdict(&ledger(|_| {}), &view(|_| {})), Verdict::Confirmed);
        let seeded = ledger(|r| r.origin = origin::SEED);
        assert_eq!(verdict(&seeded, &view(|_| {})), Verdict::Predates);
        let without_cookie = ledger(|r| r.socket.cookie = 0);
        assert_eq!(verdict(&without_cookie, &view(|_| {})), Verdict::Confirmed);
    }

    #[test]
    fn what_one_side_lacks_is_said() {
        assert_eq!(verdict(&Ledger::default(), &view(|_| {})), Verdict::OnlySnapshot);
        assert_eq!(verdict(&ledger(|_| {}), &View::default()), Verdict::OnlyTracked);
    }

    #[test]
    fn each_field_that_differs_is_named_with_both_values() {
        type Change = (Field, fn(&mut Record), &'static str, &'static str);
        let changes: [Change; 7] = [
            (Field::Inode, |r| r.socket.inode = 11, "11", "10"),
            (Field::Cookie, |r| r.socket.cookie = 101, "101", "100"),
            (Field::Type, |r| r.socket_type = 5, "seqpacket", "stream"),
            (Field::State, |r| r.state = 7, "unconnected", "connected"),
            (Field::Name, |r| r.name.len = 0, "-", "@n"),
            (Field::Peer, |r| r.peer.inode = 21, "21", "20"),
            (Field::Shutdown, |r| r.shutdown = 2, "send", "none"),
        ];
        for (field, change, tracked, seen) in changes {
            let found = verdict(&ledger(change), &view(|_| {}));
            let wanted = Difference { field, tracked: tracked.to_owned(), seen: seen.to_owned() };
            assert_eq!(found, Verdict::Conflict(vec![wanted]));
        }
        let listening = view(|s| {
            s.state = SocketState::Listening;
            s.send_queue = 8;
        });
        let found = verdict(&ledger(|r| r.state = 10), &listening);
        let wanted =
            Difference { field: Field::Backlog, tracked: "0".to_owned(), seen: "8".to_owned() };
        assert_eq!(found, Verdict::Conflict(vec![wanted]));
    }

    #[test]
    fn a_peer_whose_end_was_not_seen_is_no_conflict_but_a_wrong_one_is() {
        let ended = |change: fn(&mut SeenSocket)| {
            view(|s| {
                (s.peer, s.shutdown) = (None, Shutdown::BOTH);
                change(s);
            })
        };
        assert_eq!(verdict(&ledger(|_| {}), &ended(|_| {})), Verdict::Confirmed);
        // The kernel says that the peer is gone, but somebody still has its inode.
        let mut alive = ended(|_| {});
        let mut other = alive.sockets[&10].clone();
        other.inode = 20;
        alive.sockets.insert(20, other);
        assert!(matches!(verdict(&ledger(|_| {}), &alive), Verdict::Conflict(_)));
        // Nothing has ended: the ledger dreamt up a peer.
        let still_open = ended(|s| s.shutdown = Shutdown(0));
        assert!(matches!(verdict(&ledger(|_| {}), &still_open), Verdict::Conflict(_)));
    }

    #[test]
    fn only_a_name_that_the_kernel_gives_may_come_unseen() {
        let unnamed = ledger(|r| r.name.len = 0);
        let named = |name: &[u8]| view(|s| s.name = UnixName::Abstract(name.to_vec()));
        assert_eq!(verdict(&unnamed, &named(b"0a1f9")), Verdict::Confirmed);
        assert!(matches!(verdict(&unnamed, &named(b"0A1f9")), Verdict::Conflict(_)));
        assert!(matches!(verdict(&unnamed, &named(b"0a1f")), Verdict::Conflict(_)));
    }

    #[test]
    fn only_what_stands_twice_counts() {
        let tracked = ledger(|r| r.peer.inode = 21);
        let (disputing, agreeing) = (view(|_| {}), view(|s| s.peer = Some(21)));
        let once = judge(&[HELD], &tracked, &[&disputing]);
        assert!(is_disputed(&once));
        assert_eq!(count(&once).conflict, 1);
        let settled = judge(&[HELD], &tracked, &[&disputing, &agreeing]);
        assert!(!is_disputed(&settled));
        assert_eq!(count(&settled).confirmed, 1);
        assert_eq!(count(judge(&[HELD], &tracked, &[&disputing, &disputing])).conflict, 1);
        let late = judge(&[HELD], &tracked, &[&View::default(), &agreeing]);
        assert_eq!(count(&late).confirmed, 1);
    }
}
