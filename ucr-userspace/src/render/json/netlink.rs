//! What only netlink sockets have, as JSON.

use serde::Serialize;

use super::inet::Setting;
use crate::image;
use crate::model::name::Hex;
use crate::model::netlink::{NetlinkProtocol, option_name};

#[derive(Serialize)]
pub(super) struct Netlink<'a> {
    is_raw: bool,
    protocol: i32,
    protocol_name: String,
    port: u32,
    groups: &'a [u32],
    peer: Option<Peer>,
    options: Vec<Setting<'a>>,
}

#[derive(Serialize)]
struct Peer {
    port: u32,
    groups: u32,
}

impl<'a> Netlink<'a> {
    pub(super) fn of(netlink: &'a image::Netlink) -> Self {
        let setting = |option: &'a image::InetOption| Setting {
            level: option.level,
            number: option.number,
            name: option_name(option.number),
            hex: Hex(&option.value),
        };
        Self {
            is_raw: netlink.is_raw,
            protocol: netlink.protocol,
            protocol_name: NetlinkProtocol(netlink.protocol).to_string(),
            port: netlink.port,
            groups: &netlink.groups,
            peer: netlink.peer.map(|(port, groups)| Peer { port, groups }),
            options: netlink.options.iter().map(setting).collect(),
        }
    }
}
