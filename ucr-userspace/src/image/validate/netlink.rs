//! What must hold in a netlink socket.

use std::collections::HashSet;

use super::{MAX_OPTION_LEN, Problem};
use crate::image::{Netlink, Role, Socket};
use crate::model::netlink::{LEVEL, NetlinkProtocol, OPTIONS};
use crate::model::{Shutdown, SocketType};

/// Groups, at most: those of generic netlink are given out one by one.
const MAX_GROUPS: usize = 65_536;

pub(super) fn check(socket: &Socket, netlink: &Netlink) -> Result<(), Problem> {
    let wrong = |what| Err(Problem::Netlink(what));
    let is_plain = socket.socket_type == SocketType::Dgram
        && socket.role == Role::Unconnected
        && socket.shutdown == Shutdown::default();
    let has_more = socket.name.is_some()
        || socket.inet.is_some()
        || socket.peer_credentials.is_some()
        || socket.listener_credentials.is_some()
        || socket.groups.is_some()
        || socket.error != 0
        || !socket.queue.is_empty();
    if !is_plain || has_more {
        return wrong("has what only other sockets have");
    }
    if !NetlinkProtocol(netlink.protocol).is_all() {
        return wrong("is of a protocol that ucr does not know whole");
    }
    let is_ascending = netlink.groups.is_sorted_by(|one, next| one < next);
    if netlink.groups.len() > MAX_GROUPS || netlink.groups.first() == Some(&0) || !is_ascending {
        return wrong("is in groups that are not possible");
    }
    let mut there = HashSet::new();
    for option in &netlink.options {
        if option.value.is_empty() || option.value.len() > MAX_OPTION_LEN {
            return Err(Problem::OptionSize { name: option.number, len: option.value.len() });
        }
        let is_known = OPTIONS.iter().any(|(number, _)| *number == option.number);
        if option.level != LEVEL || !is_known || !there.insert(option.number) {
            return wrong("has an option that it cannot have, or one twice");
        }
    }
    Ok(())
}
