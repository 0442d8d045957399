//! Where each fact of a socket comes from, so that whoever reads the image can judge it.

use super::{Assembly, Stock};
use crate::{
    image::{Fact, Role, Socket, Source},
    ledger::{Tracked, TrackedRole},
    model::SocketType,
};

impl Assembly<'_> {
    /// Says of every socket how its facts are known.
    pub(super) fn sources(&self, sockets: &mut [Socket]) {
        for (stock, socket) in self.inventory.sockets.iter().zip(sockets) {
            socket.sources = self.sources_of(stock, socket);
        }
    }

    fn sources_of(&self, stock: &Stock, socket: &Socket) -> Vec<(Fact, Source)> {
        let is_embryo = socket.role == Role::Embryo;
        // Nobody can ask an embryo.
        let told = if is_embryo { Source::Memory } else { Source::Asked };
        let tracked = self.tracked(stock);
        let mut sources = Vec::new();
        if let Some(bound) = &socket.name {
            sources.push((Fact::Name, told));
            if let Some(directory) = &bound.directory {
                let seen = |tracked: &Tracked| {
                    let ledger = self.inventory.ledger.as_ref();
                    let listener = || ledger?.listener(tracked)?.directories.as_ref();
                    let known = tracked.directories.as_ref().or_else(listener);
                    known.and_then(|known| known.cwd_from_root()) == Some(directory.as_slice())
                };
                let is_seen = tracked.is_some_and(seen);
                let source = if is_seen { Source::SeenLive } else { Source::Concluded };
                sources.push((Fact::Directory, source));
            }
        }
        if matches!(socket.role, Role::Connected | Role::Embryo) {
            sources.push((Fact::Peer, Source::Memory));
            if socket.socket_type != SocketType::Dgram {
                let is_seen = tracked.is_some_and(|tracked| tracked.role != TrackedRole::None);
                let ends = match (is_seen, is_embryo) {
                    (true, _) => Source::SeenLive,
                    (false, true) => Source::Memory,
                    (false, false) => Source::Concluded,
                };
                sources.push((Fact::Ends, ends));
            }
            if self.listener_of(stock).is_some() {
                let is_seen = tracked.is_some_and(|tracked| tracked.listener.is_some());
                let listener = match (is_embryo, is_seen) {
                    (true, _) => Source::Memory,
                    (false, true) => Source::SeenLive,
                    (false, false) => Source::Concluded,
                };
                sources.push((Fact::Listener, listener));
            }
        }
        if socket.peer_credentials.or(socket.listener_credentials).is_some() {
            sources.push((Fact::Credentials, told));
        }
        if !socket.options.is_empty() {
            sources.push((Fact::Options, Source::Asked));
        }
        if !socket.queue.is_empty() {
            sources.push((Fact::Queue, Source::Memory));
        }
        sources
    }
}
