//! Connections through listeners: made several at a time, accepted one by one.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{self, SocketFlags};

use super::{Restored, StepError, call};
use crate::model::Pid;
use crate::process::state;
use crate::restore::plan::step::{Holder, Identity, Place, Step};
use crate::sys::worker::{Call, MOST_CALLS};

/// The clients of the first steps that connect to one listener as one and the same: whoever calls `connect`
/// for one calls it for all in one go.
fn alike(steps: &[Step]) -> impl Iterator<Item = Holder> {
    let to = |step: &Step| match step {
        Step::Connect { client, listener, identity, .. } => {
            Some((*client, *listener, identity.clone()))
        }
        _ => None,
    };
    let first = steps.first().and_then(to);
    let clients = steps.iter().take(MOST_CALLS).map_while(to);
    clients
        .take_while(move |(_, listener, identity)| {
            first.as_ref().is_some_and(|(_, to, by)| (to, by) == (listener, identity))
        })
        .map(|(client, _, _)| client)
}

impl Restored {
    /// Takes the first of these steps, or finds that it has been taken with one before.
    pub(super) fn connect(
        &mut self,
        listener: Holder,
        place: &Place,
        identity: Option<&Identity>,
        steps: &[Step],
    ) -> Result<(), StepError> {
        if self.ahead > 0 {
            self.ahead -= 1;
            return Ok(());
        }
        let sockets = &self.sockets;
        let find = |client| sockets.get(&client).ok_or(StepError::Missing(client));
        let clients = alike(steps).map(|client| find(client).map(AsFd::as_fd));
        let clients = clients.collect::<Result<Vec<_>, StepError>>()?;
        let (name, file) = self.way_to(listener, place)?;
        let file = file.as_ref().map(AsFd::as_fd);
        let made = self.workers.make(identity, Call::Connect(&clients, &name, file));
        let by = made.map_err(call("connect"))?.by;
        let count = clients.len();
        for _ in 0..count {
            self.workers.connected(listener, by);
        }
        self.ahead = count.saturating_sub(1);
        Ok(())
    }

    pub(super) fn accept(&mut self, server: Holder, listener: Holder) -> Result<(), StepError> {
        let listening = self.get(listener)?;
        let accepted = net::accept_with(listening, SocketFlags::CLOEXEC).map_err(call("accept"))?;
        let who = state::credentials(accepted.as_fd()).map_err(|error| StepError::Call {
            call: "SO_PEERCRED",
            source: io::Error::other(error),
        })?;
        let pid = who.map_or(Pid(0), |who| who.pid);
        if pid != self.workers.next(listener) {
            return Err(StepError::Stranger(pid));
        }
        self.keep(server, accepted)
    }

    /// Takes `O_NONBLOCK` from the sockets that are not to have it.
    pub(super) fn slow_down(&mut self) -> Result<(), StepError> {
        for made in self.hasty.drain() {
            // Temporary ones are closed by now.
            if let Some(socket) = self.sockets.get(&made) {
                fcntl_setfl(socket, OFlags::empty()).map_err(call("fcntl F_SETFL"))?;
            }
        }
        Ok(())
    }
}
