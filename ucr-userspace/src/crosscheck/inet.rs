//! The same for internet sockets: by their cookies, with both ends in place of a name and a peer.

use super::{Difference, Field, Held, Judged, Verdict, differ, number};
use crate::{
    ledger::{Ledger, Tracked, TrackedInet},
    model::{
        InetView, SeenInet, Shutdown,
        inet::{Endpoint, Over, TcpState},
    },
};

/// Judges each socket against one or more snapshots: see [`judge`](super::judge).
#[must_use]
pub fn judge(held: &[Held], ledger: &Ledger, views: &[&InetView]) -> Vec<Judged> {
    held.iter()
        .map(|socket| {
            let seen: Vec<&SeenInet> =
                views.iter().filter_map(|view| view.get(socket.cookie)).collect();
            let verdict = match (ledger.get(socket.sk), seen.is_empty()) {
                // Somebody holds it: the kernel has it in any case.
                (None, _) => Verdict::OnlySnapshot,
                (Some(_), true) => Verdict::OnlyTracked,
                (Some(tracked), false) => verdict(tracked, &seen),
            };
            Judged { inode: socket.inode, cookie: socket.cookie, verdict }
        })
        .collect()
}

fn verdict(tracked: &Tracked, seen: &[&SeenInet]) -> Verdict {
    let Some(inet) = &tracked.inet else {
        // At this address the ledger has another socket.
        let seen = seen.first().map(|seen| seen.kind.to_string()).unwrap_or_default();
        let tracked = format!("unix {}", tracked.socket_type);
        return Verdict::Conflict(vec![Difference { field: Field::Type, tracked, seen }]);
    };
    let mut passes = seen.iter().map(|seen| compare(tracked, inet, seen));
    let mut standing = passes.next().unwrap_or_default();
    for again in passes {
        standing.retain(|difference| again.iter().any(|d| d.field == difference.field));
    }
    super::settled(tracked, standing)
}

fn compare(tracked: &Tracked, inet: &TrackedInet, seen: &SeenInet) -> Vec<Difference> {
    let listening = seen.state == TcpState::Listening;
    let is_chosen = is_chosen(inet, seen);
    [
        differ(Field::Inode, &tracked.inode, &Some(seen.inode), number),
        tracked.cookie.and_then(|c| differ(Field::Cookie, &c, &seen.cookie, u64::to_string)),
        differ(Field::Type, &inet.kind, &seen.kind, Over::to_string),
        differ(Field::State, &inet.state, &seen.state, TcpState::to_string),
        differ(Field::Local, &place(inet.local), &place(seen.local), end).filter(|_| !is_chosen),
        differ(Field::Remote, &place(inet.remote), &place(seen.remote), end),
        differ(Field::Shutdown, &tracked.shutdown, &seen.shutdown, Shutdown::to_string),
        listening
            .then(|| differ(Field::Backlog, &tracked.backlog, &seen.backlog, u32::to_string))
            .flatten(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether its own end is a port that the kernel chose when something was sent, which not everybody sees.
fn is_chosen(inet: &TrackedInet, seen: &SeenInet) -> bool {
    let any = seen.local.is_some_and(|local| local.address.is_unspecified());
    inet.kind.0.is_datagram() && inet.local.is_none() && any
}

fn place(end: Option<Endpoint>) -> Option<Endpoint> {
    end.map(Endpoint::place)
}

fn end(end: &Option<Endpoint>) -> String {
    end.map_or_else(|| "none".to_owned(), |end| end.to_string())
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use ucr_common::{
        identity::SocketId,
        inet::{AF_INET, RawEnds},
        record::{Record, origin},
    };
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::model::inet::{Family, Protocol};

    const HELD: Held = Held { sk: 1, inode: 10, cookie: 100 };

    fn at(text: &str) -> Endpoint {
        Endpoint::from(text.parse::<SocketAddr>().expect("an address"))
    }

    fn ledger(change: impl FnOnce(&mut Record)) -> Ledger {
        let mut record = Record::new_zeroed();
        record.socket = SocketId { sk: 1, cookie: 100, inode: 10 };
        (record.family, record.protocol, record.socket_type) = (AF_INET, 6, 1);
        (record.state, record.origin) = (1, origin::ACCEPT);
        let ends =
            RawEnds { local: at("10.0.0.1:80").to_raw(), remote: at("10.0.0.2:999").to_raw() };
        record.name = ends.to_name();
        change(&mut record);
        let mut ledger = Ledger::default();
        ledger.insert(Tracked::new(&record, None).expect("a sound record"));
        ledger
    }

    fn view(change: impl FnOnce(&mut SeenInet)) -> InetView {
        let mut seen = SeenInet {
            inode: 10,
            cookie: 100,
            kind: Over(Protocol::Tcp, Family::V4),
            state: TcpState::Established,
            local: Some(at("10.0.0.1:80")),
            remote: Some(at("10.0.0.2:999")),
            shutdown: Shutdown(0),
            backlog: 0,
        };
        change(&mut seen);
        InetView { sockets: [(100, seen)].into_iter().collect() }
    }

    fn verdict(ledger: &Ledger, view: &InetView) -> Verdict {
        judge(&[HELD], ledger, &[view]).remove(0).verdict
    }

    fn fields(verdict: Verdict) -> Vec<(Field, String, String)> {
        let Verdict::Conflict(all) = verdict else { panic!("no conflict: {verdict}") };
        all.into_iter().map(|one| (one.field, one.tracked, one.seen)).collect()
    }

    #[test]
    fn what_agrees_is_confirmed_or_predates() {
        assert_eq!(verdict(&ledger(|_| {}), &view(|_| {})), Verdict::Confirmed);
        let seeded = ledger(|r| r.origin = origin::SEED);
        assert_eq!(verdict(&seeded, &view(|_| {})), Verdict::Predates);
        assert_eq!(verdict(&Ledger::default(), &view(|_| {})), Verdict::OnlySnapshot);
        assert_eq!(verdict(&ledger(|_| {}), &InetView::default()), Verdict::OnlyTracked);
        let neither = verdict(&Ledger::default(), &InetView::default());
        assert_eq!(neither, Verdict::OnlySnapshot, "nothing was tracked of it");
    }

    #[test]
    fn each_field_that_differs_is_named_with_both_values() {
        type Change = (Field, fn(&mut SeenInet), &'static str, &'static str);
        let changes: [Change; 6] = [
            (Field::Inode, |s| s.inode = 11, "10", "11"),
            (Field::Type, |s| s.kind = Over(Protocol::Tcp, Family::V6), "tcp", "tcp6"),
            (Field::State, |s| s.state = TcpState::CloseWait, "ESTABLISHED", "CLOSE-WAIT"),
            (Field::Local, |s| s.local = None, "10.0.0.1:80", "none"),
            (Field::Remote, |s| s.remote = Some(at("10.0.0.2:1")), "10.0.0.2:999", "10.0.0.2:1"),
            (Field::Shutdown, |s| s.shutdown = Shutdown(1), "none", "receive"),
        ];
        for (field, change, tracked, seen) in changes {
            let found = fields(verdict(&ledger(|_| {}), &view(change)));
            assert_eq!(found, [(field, tracked.to_owned(), seen.to_owned())]);
        }
        let listening = view(|s| (s.state, s.remote, s.backlog) = (TcpState::Listening, None, 8));
        let found = fields(verdict(&ledger(|r| r.state = 10), &listening));
        assert_eq!(found, [(Field::Backlog, "0".to_owned(), "8".to_owned())]);
        let unix = ledger(|r| (r.family, r.protocol, r.name.len) = (1, 0, 0));
        assert_eq!(fields(verdict(&unix, &view(|_| {})))[0].1, "unix stream");
    }

    #[test]
    fn only_a_port_that_a_send_chose_may_come_unseen() {
        let udp = |local: &str| {
            view(|s| {
                s.kind = Over(Protocol::Udp, Family::V4);
                (s.state, s.local, s.remote) = (TcpState::Closed, Some(at(local)), None);
            })
        };
        let unbound = ledger(|r| {
            (r.protocol, r.socket_type, r.state) = (17, 2, 7);
            r.name = RawEnds::default().to_name();
        });
        assert_eq!(verdict(&unbound, &udp("0.0.0.0:999")), Verdict::Confirmed);
        assert_eq!(fields(verdict(&unbound, &udp("10.0.0.1:999")))[0].0, Field::Local);
    }

    #[test]
    fn only_what_stands_twice_counts() {
        let (disputing, agreeing) = (view(|s| s.state = TcpState::FinWait1), view(|_| {}));
        let judged = judge(&[HELD], &ledger(|_| {}), &[&disputing, &agreeing]);
        assert_eq!(judged[0].verdict, Verdict::Confirmed);
        let judged = judge(&[HELD], &ledger(|_| {}), &[&disputing, &disputing]);
        assert_eq!(fields(judged[0].verdict.clone())[0].0, Field::State);
    }
}
