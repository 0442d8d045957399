//! What only internet sockets have, as JSON.

use serde::Serialize;

use crate::image::{self, Agreed, Buffers, Membership, Urgent, Window};
use crate::model::inet::{Endpoint, Family, Protocol, TcpState};
use crate::model::inet_options;
use crate::model::name::{Bytes, Hex};

#[derive(Serialize)]
pub(super) struct Inet<'a> {
    family: Family,
    protocol: Protocol,
    local: Option<String>,
    remote: Option<String>,
    options: Vec<Setting<'a>>,
    memberships: &'a [Membership],
    turn: Option<u32>,
    datagrams: Vec<Datagram<'a>>,
    held_back: Option<HeldBack<'a>>,
    tcp: Option<Tcp<'a>>,
    waiting: Vec<Waiting<'a>>,
}

#[derive(Serialize)]
struct Waiting<'a> {
    client: u32,
    received: Stream<'a>,
    urgent: Option<Urgent>,
}

#[derive(Serialize)]
struct HeldBack<'a> {
    data: Bytes<'a>,
    to: String,
}

#[derive(Serialize)]
pub(super) struct Setting<'a> {
    pub(super) level: i32,
    pub(super) number: i32,
    pub(super) name: String,
    pub(super) hex: Hex<'a>,
}

#[derive(Serialize)]
struct Datagram<'a> {
    data: Bytes<'a>,
    from: String,
    to: String,
}

#[derive(Serialize)]
struct Tcp<'a> {
    state: TcpState,
    received: Stream<'a>,
    sent: Stream<'a>,
    unsent: u32,
    agreed: Agreed,
    window: Option<Window>,
    buffers: Buffers,
    urgent: Option<Urgent>,
    sent_urgent: Option<u32>,
}

#[derive(Serialize)]
struct Stream<'a> {
    end: u32,
    data: Bytes<'a>,
}

impl<'a> Stream<'a> {
    fn of(stream: &'a image::Stream) -> Self {
        Self { end: stream.end, data: Bytes(&stream.data) }
    }
}

impl<'a> Inet<'a> {
    pub(super) fn of(inet: &'a image::Inet) -> Self {
        let shown = |end: &Endpoint| end.to_string();
        let setting = |option: &'a image::InetOption| Setting {
            level: option.level,
            number: option.number,
            name: inet_options::name(option.level, option.number),
            hex: Hex(&option.value),
        };
        let datagram = |datagram: &'a image::Datagram| Datagram {
            data: Bytes(&datagram.data),
            from: shown(&datagram.from),
            to: shown(&datagram.to),
        };
        let waiting = |waiting: &'a image::Waiting| Waiting {
            client: waiting.client.0,
            received: Stream::of(&waiting.received),
            urgent: waiting.urgent,
        };
        Self {
            family: inet.family,
            protocol: inet.protocol,
            local: inet.local.as_ref().map(shown),
            remote: inet.remote.as_ref().map(shown),
            options: inet.options.iter().map(setting).collect(),
            memberships: &inet.memberships,
            turn: inet.turn,
            datagrams: inet.datagrams.iter().map(datagram).collect(),
            held_back: inet.held_back.as_ref().map(|held_back| HeldBack {
                data: Bytes(&held_back.data),
                to: shown(&held_back.to),
            }),
            tcp: inet.tcp.as_deref().map(|tcp| Tcp {
                state: tcp.state,
                received: Stream::of(&tcp.received),
                sent: Stream::of(&tcp.sent),
                unsent: tcp.unsent,
                agreed: tcp.agreed,
                window: tcp.window,
                buffers: tcp.buffers,
                urgent: tcp.urgent,
                sent_urgent: tcp.sent_urgent,
            }),
            waiting: inet.waiting.iter().map(waiting).collect(),
        }
    }
}
