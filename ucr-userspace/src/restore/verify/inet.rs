//! Internet sockets that were made, held against the image.

use std::os::fd::AsRawFd as _;

use super::waiting::{self, is_same_state};
use super::{Check, Difference, Field, Insight, ObserveError, Shown, indexed, value};
use crate::image::{
    Datagram, HeldBack, Image, Inet, Membership, Role, Socket, SocketIndex, SocketOption,
};
use crate::model::inet::{Endpoint, Over, TcpState};
use crate::model::{Count, inet_options};
use crate::process::inet::{InetDetails, InetStates};
use crate::process::state::{NotRestorable, StateError};
use crate::process::states::Unknown;
use crate::process::tcp;
use crate::restore::execute::Restored;
use crate::snapshot::memory::{MemoryError, RawWaiting};

/// Reads every internet socket that was made, and compares it.
///
/// # Errors
///
/// If one cannot be read.
pub fn look_at_inet(
    image: &Image,
    restored: &Restored,
    insight: Option<&Insight>,
) -> Result<Vec<Difference>, ObserveError> {
    let mut differences = Vec::new();
    let clients = waiting::clients(image);
    let all = indexed(image).filter_map(|(at, socket)| Some((at, socket, socket.inet.as_deref()?)));
    let all: Vec<_> = all.collect();
    let Some(&(first, ..)) = all.first() else { return Ok(differences) };
    let insight = insight.ok_or(ObserveError::NotMade(first))?;
    let failed = |index: SocketIndex| {
        move |unknown| {
            let source = match unknown {
                Unknown::OutOfReach(source) | Unknown::Refused(source) => source,
                Unknown::Senseless(error) => {
                    let fd = restored.socket(index).map_or(-1, |socket| socket.as_raw_fd());
                    senseless(error, fd)
                }
            };
            ObserveError::State { socket: index, source }
        }
    };
    let expected = all.iter().filter_map(|(index, _, inet)| {
        Some((*insight.socks.get(index)?, Over(inet.protocol, inet.family)))
    });
    let states = InetStates::new(&insight.memory, expected.collect());
    let mut states = states.map_err(failed(first))?;
    let mut listeners = Vec::new();
    for (index, socket, wanted) in all {
        let descriptor = restored.socket(index).ok_or(ObserveError::NotMade(index))?;
        let listed = insight.listed(descriptor).ok_or(ObserveError::NotMade(index))?;
        let kind = Over(wanted.protocol, wanted.family);
        let found = states.read(descriptor, listed, kind);
        let mut found = found.map_err(failed(index))?;
        if restored.is_beside(index) {
            // As long as the old one is there as well.
            found.not_restorable.retain(|lost| *lost != NotRestorable::ReuseportProgram);
        }
        if let Some(linger) = restored.linger(index) {
            // What it is as long as that is not certain is something else.
            let (name, value) = (libc::SO_LINGER, linger.to_vec());
            found.options.retain(|option| option.name != name);
            if value.iter().any(|byte| *byte != 0) {
                found.options.push(SocketOption { name, value });
            }
        }
        let is_client = clients.contains_key(&index);
        let mut check = Check { socket: index, differences: &mut differences };
        check.inet(socket, wanted, &found, is_client);
        if !wanted.waiting.is_empty() {
            listeners.push((index, wanted, found.waiting));
        }
    }
    insight.memory.look_anew();
    for (index, wanted, found) in listeners {
        let content = |raw: &RawWaiting, client: SocketIndex| {
            let sk = insight.socks.get(&client).ok_or(ObserveError::NotMade(client))?;
            let failed = |error| failed(client)(Unknown::Senseless(error));
            let to_come = tcp::sent(*sk, &insight.memory).map_err(failed)?;
            let (_, came) = tcp::waiting(raw.sk, client, &insight.memory).map_err(failed)?;
            Ok((came, to_come))
        };
        waiting::compare(image, (index, wanted), &found, &mut differences, &content)?;
    }
    Ok(differences)
}

fn senseless(error: MemoryError, fd: i32) -> StateError {
    let source = std::io::Error::other(error);
    StateError::Read { operation: "the kernel's memory", fd, source }
}

/// Whether the kernel changes an option by itself: how a connection acknowledges depends on what has come, and when.
fn is_its_own(inet: &Inet, level: i32, number: i32) -> bool {
    inet.tcp.is_some() && (level, number) == (libc::SOL_TCP, libc::TCP_QUICKACK)
}

impl Check<'_> {
    fn inet(&mut self, socket: &Socket, wanted: &Inet, found: &InetDetails, is_client: bool) {
        let Inet { family, protocol, .. } = *wanted;
        let kind = Over(found.inet.protocol, found.inet.family);
        self.equal(Field::Type, &Over(protocol, family), &kind);
        self.equal(Field::Name, &Shown(wanted.local), &Shown(found.inet.local));
        self.equal(Field::PeerName, &Shown(wanted.remote), &Shown(found.inet.remote));
        let flags = socket.status_flags & !libc::O_ASYNC;
        self.equal(Field::StatusFlags, &flags, &found.status_flags);
        self.equal(Field::Shutdown, &socket.shutdown, &found.shutdown);
        // One that waits to be accepted is made anew, by both ends.
        let is_as_it_was = is_client && is_same_state(state(socket, wanted), found.state);
        if !is_as_it_was {
            self.equal(Field::Role, &state(socket, wanted), &found.state);
        }
        if let Role::Listening { backlog } = socket.role {
            self.equal(Field::Backlog, &Shown(Some(backlog)), &Shown(found.backlog));
        }
        self.options(&socket.options, &found.options);
        self.filter(socket.filter.as_ref(), found.filter.as_ref());
        self.inet_options(wanted, &found.inet);
        let groups = |all: &[Membership]| {
            let mut all: Vec<_> = all.iter().map(|one| format!("{one:?}")).collect();
            // The kernel keeps those of IPv4 and of IPv6 apart.
            all.sort();
            all.join(", ")
        };
        self.equal(
            Field::Memberships,
            &groups(&wanted.memberships),
            &groups(&found.inet.memberships),
        );
        self.datagrams(&wanted.datagrams, &found.inet.datagrams);
        let held_back = |inet: &Inet| {
            let held_back = inet.held_back.as_ref();
            Shown(held_back.map(|HeldBack { data, to }| {
                let (length, sum) = (data.len(), crc32fast::hash(data));
                format!("{length} bytes (CRC {sum:08x}) to {}", to.unmapped())
            }))
        };
        self.equal(Field::HeldBack, &held_back(wanted), &held_back(&found.inet));
        if let (Some(wanted), Some(found), false) = (&wanted.tcp, &found.inet.tcp, is_client) {
            self.tcp(wanted, found);
        }
        for lost in &found.not_restorable {
            self.differs(Field::NotRestorable, "none", lost);
        }
    }

    fn inet_options(&mut self, wanted: &Inet, found: &Inet) {
        let of = |inet: &Inet, level, number| {
            let mut all = inet.options.iter();
            let option = all.find(|o| (o.level, o.number) == (level, number));
            option.map(|option| option.value.clone())
        };
        for known in inet_options::TABLE {
            let (level, number) = (known.level, known.number);
            if is_its_own(wanted, level, number) {
                continue;
            }
            let (wanted, found) = (of(wanted, level, number), of(found, level, number));
            if wanted != found {
                let field = Field::InetOption(level, number);
                self.differs(field, value(wanted.as_deref()), value(found.as_deref()));
            }
        }
    }

    /// What came from the network meanwhile stands behind what was there.
    fn datagrams(&mut self, wanted: &[Datagram], found: &[Datagram]) {
        if found.len() < wanted.len() {
            let shown = |all: &[Datagram]| Count(all.len(), "datagram").to_string();
            return self.differs(Field::Queue, shown(wanted), shown(found));
        }
        for (number, (wanted, found)) in wanted.iter().zip(found).enumerate() {
            let content = |datagram: &Datagram| (datagram.data.clone(), source(datagram));
            if content(wanted) != content(found) {
                let shown = |datagram: &Datagram| {
                    let (length, sum) = (datagram.data.len(), crc32fast::hash(&datagram.data));
                    format!("{length} bytes (CRC {sum:08x}) from {}", source(datagram))
                };
                self.differs(Field::Message(number), shown(wanted), shown(found));
            }
        }
    }
}

/// Where it came from. By which interface, an address of a link says; it has come by another one since.
fn source(datagram: &Datagram) -> Endpoint {
    Endpoint { scope: 0, ..datagram.from.unmapped() }
}

/// In which state it is to be.
fn state(socket: &Socket, inet: &Inet) -> TcpState {
    match (socket.role, &inet.tcp) {
        (Role::Listening { .. }, _) => TcpState::Listening,
        (_, Some(tcp)) => tcp.state,
        // UDP borrows these two.
        (Role::Connected, None) => TcpState::Established,
        _ => TcpState::Closed,
    }
}
