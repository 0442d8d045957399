//! What sockets get when nothing is sent through them any more.

use std::collections::BTreeSet;

use super::across::kept;
use super::binders::{Key, indexed};
use super::inet::is_deafened;
use super::step::Step;
use super::{Plan, Planner, Summary, paths};
use crate::image::{
    Connection, Image, Notification, Owner, Role, Socket, SocketFile, SocketOption,
};
use crate::model::option_table;

impl Planner<'_> {
    pub(super) fn done(self, beneath: Option<&[u8]>) -> Plan {
        let abstract_names: BTreeSet<_> = self
            .binders
            .iter()
            .filter_map(|binder| match &binder.key {
                Key::Abstract(name, socket_type) => Some((name.clone(), *socket_type)),
                Key::Path(_) | Key::Nobodys => None,
            })
            .collect();
        let roles = self.image.sockets.iter().map(|socket| socket.role);
        let of = |fits: fn(&Connection) -> bool| {
            self.image.connections.iter().filter(|connection| fits(connection)).count()
        };
        let over_tcp = self.image.sockets.iter().filter_map(|socket| socket.inet.as_ref());
        let waiting_at = over_tcp.clone().map(|inet| inet.waiting.len()).sum::<usize>();
        let over_tcp = over_tcp.filter(|inet| inet.tcp.is_some());
        let summary = Summary {
            sockets: self.image.sockets.len(),
            listeners: roles.filter(|role| matches!(role, Role::Listening { .. })).count(),
            connections: of(|connection| matches!(connection, Connection::Accepted { .. }))
                + over_tcp.count().saturating_sub(waiting_at),
            waiting: waiting_at + of(|connection| matches!(connection, Connection::Waiting { .. })),
            messages: self.image.sockets.iter().map(|socket| socket.queue.len()).sum(),
            pairs: of(|connection| matches!(connection, Connection::Pair { .. })),
            outside: of(|connection| matches!(connection, Connection::External { .. })),
            datagram_peers: of(|connection| matches!(connection, Connection::Datagram { .. })),
        };
        Plan {
            arming: arming(self.image),
            steps: self.steps,
            finishing: Vec::new(),
            paths: paths::uses(&self.binders),
            beneath: beneath.map(<[u8]>::to_vec),
            abstract_names: abstract_names.into_iter().collect(),
            summary,
        }
    }

    pub(super) fn finish(&mut self) {
        let shut = self.shut_down();
        for (socket, saved) in indexed(self.image) {
            if self.kept.contains(&socket) || saved.role == Role::Embryo || saved.inet.is_some() {
                continue;
            }
            let how = shut.get(&socket).copied().unwrap_or(saved.shutdown);
            if !how.is_none() {
                self.steps.push(Step::Shutdown { socket, how });
            }
            let set = in_order(saved).into_iter();
            let set = set.map(|option| Step::SetOption { socket, option });
            self.steps.extend(set);
            let flags = saved.status_flags & !libc::O_ASYNC;
            if flags != 0 {
                self.steps.push(Step::SetFlags { socket, flags });
            }
        }
        self.filters();
        for binder in &self.binders {
            if let Some(
                SocketFile::Present { mode, uid, gid, .. }
                | SocketFile::Moved { mode, uid, gid, .. },
            ) = binder.file
                && let Key::Path(spot) = &binder.key
            {
                let (made, spot) = (binder.made, spot.clone());
                self.steps.push(Step::Attributes { made, spot, mode, uid, gid });
            }
        }
    }

    /// A filter can drop what is sent, and one that is locked cannot be taken away for it.
    pub(super) fn filters(&mut self) {
        for (socket, saved) in indexed(self.image) {
            if self.kept.contains(&socket) {
                continue;
            }
            let is_set = saved.inet.as_deref().is_some_and(is_deafened);
            let filter = saved.filter.clone();
            // Such a one has it already, but for a lock without a filter.
            let filter = filter.filter(|filter| !is_set || filter.instructions.is_empty());
            self.steps.extend(filter.map(|filter| Step::SetFilter { socket, filter }));
        }
    }
}

/// Who is told by signals: set when whoever is told is there, and nothing is done any more that it
/// would be told of.
pub(super) fn arming(image: &Image) -> Vec<Step> {
    let nobody = Notification { owner: Owner::Nobody, signal: 0 };
    let kept = kept(image);
    let told = indexed(image).filter(|(index, saved)| {
        let is_told = saved.notification.is_some() || saved.status_flags & libc::O_ASYNC != 0;
        is_told && !kept.contains(index)
    });
    told.map(|(socket, saved)| {
        let (notification, flags) = (saved.notification.unwrap_or(nobody), saved.status_flags);
        Step::Notify { socket, notification, flags }
    })
    .collect()
}

/// A socket's options in an order in which they can be set. Setting a buffer's size locks it
/// (`SO_BUF_LOCK`); the image has no lock if it was off, as it is for a new socket.
pub(super) fn in_order(saved: &Socket) -> Vec<SocketOption> {
    let mut options = saved.options.clone();
    let has = |number| saved.options.iter().any(|option| option.name == number);
    if (has(libc::SO_SNDBUF) || has(libc::SO_RCVBUF)) && !has(libc::SO_BUF_LOCK) {
        options.push(SocketOption::unlocked_buffers());
    }
    let rank = |number| option_table::TABLE.iter().position(|known| known.number == number);
    options.sort_by_key(|option| rank(option.name));
    options
}
