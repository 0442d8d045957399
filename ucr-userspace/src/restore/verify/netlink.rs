//! Netlink sockets that were made, held against the image. What the kernel has sent to their groups since, waits there.

use super::{Check, Difference, Field, ObserveError, Shown, indexed};
use crate::image::{Image, Netlink, Socket};
use crate::model::netlink::NetlinkProtocol;
use crate::process::netlink::{self, NetlinkDetails, Usual};
use crate::process::state::NotRestorable;
use crate::restore::execute::Restored;

/// Reads every netlink socket that was made, and compares it.
///
/// # Errors
/// If one cannot be read.
pub fn look_at_netlink(
    image: &Image,
    restored: &Restored,
) -> Result<Vec<Difference>, ObserveError> {
    let (mut differences, mut usual) = (Vec::new(), Usual::default());
    for (index, socket) in indexed(image) {
        let Some(wanted) = socket.netlink.as_deref() else { continue };
        let descriptor = restored.socket(index).ok_or(ObserveError::NotMade(index))?;
        let found = netlink::read(descriptor, &mut usual)
            .map_err(|source| ObserveError::State { socket: index, source })?;
        Check { socket: index, differences: &mut differences }.netlink(socket, wanted, &found);
    }
    Ok(differences)
}

impl Check<'_> {
    fn netlink(&mut self, socket: &Socket, wanted: &Netlink, found: &NetlinkDetails) {
        let made = &found.netlink;
        let kind = |of: &Netlink| {
            let kind = if of.is_raw { "raw" } else { "dgram" };
            format!("{}, {kind}", NetlinkProtocol(of.protocol))
        };
        self.equal(Field::Type, &kind(wanted), &kind(made));
        self.equal(Field::Name, &wanted.port, &made.port);
        let peer = |of: &Netlink| {
            Shown(of.peer.map(|(port, groups)| format!("port {port}, groups {groups:#x}")))
        };
        self.equal(Field::PeerName, &peer(wanted), &peer(made));
        let groups = |of: &Netlink| format!("{:?}", of.groups);
        self.equal(Field::Memberships, &groups(wanted), &groups(made));
        let options = |of: &Netlink| {
            let mut all: Vec<_> = of.options.iter().map(|one| (one.number, &one.value)).collect();
            all.sort();
            format!("{all:?}")
        };
        self.equal(Field::Connection("SOL_NETLINK options"), &options(wanted), &options(made));
        let flags = socket.status_flags & !libc::O_ASYNC;
        self.equal(Field::StatusFlags, &flags, &found.status_flags);
        self.options(&socket.options, &found.options);
        self.filter(socket.filter.as_ref(), found.filter.as_ref());
        let lost = found.not_restorable.iter().filter(|lost| **lost != NotRestorable::Answers);
        for lost in lost {
            self.differs(Field::NotRestorable, "none", lost);
        }
    }
}
