//! Network interfaces, which an image names: numbers are another host's own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Image, Inet, InetOption};
use crate::model::inet::Endpoint;

/// Not in libc.
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;

/// An interface that something in an image is bound to or belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its number (`ifindex`) in the network namespace that the sockets were in.
    pub number: u32,
    /// Its name there.
    pub name: Vec<u8>,
}

/// Numbers of all interfaces that sockets have to do with.
#[must_use]
pub fn used(image: &mut Image) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    visit(image, |number| {
        numbers.insert(*number);
    });
    numbers
}

/// Gives all interfaces the numbers that they have here, by their names; `here` knows these. What could not be found
/// keeps its number, and is returned.
pub fn renumber(image: &mut Image, here: impl Fn(&[u8]) -> Option<u32>) -> Vec<Interface> {
    let mut missing = Vec::new();
    let mut known = Vec::new();
    for interface in &mut image.interfaces {
        match here(&interface.name) {
            Some(number) => {
                known.push((interface.number, number));
                interface.number = number;
            }
            None => missing.push(interface.clone()),
        }
    }
    visit(image, |number| {
        if let Some((_, new)) = known.iter().find(|(old, _)| old == number) {
            *number = *new;
        }
    });
    missing
}

/// Shows every number that is one of an interface, and takes what becomes of it.
fn visit(image: &mut Image, mut each: impl FnMut(&mut u32)) {
    let mut one = |number: &mut u32| {
        if *number != 0 {
            each(number);
        }
    };
    for socket in &mut image.sockets {
        let Some(inet) = socket.inet.as_deref_mut() else { continue };
        for option in &mut socket.options {
            if option.name == libc::SO_BINDTOIFINDEX {
                native(&mut option.value, &mut one);
            }
        }
        of_inet(inet, &mut one);
    }
}

fn of_inet(inet: &mut Inet, one: &mut impl FnMut(&mut u32)) {
    for InetOption { level, number, value } in &mut inet.options {
        match (*level, *number) {
            // `struct ip_mreqn`; without its end there is only an address.
            (libc::SOL_IP, libc::IP_MULTICAST_IF) => {
                if let Some(end) = value.get_mut(8..12) {
                    native(end, one);
                }
            }
            (libc::SOL_IPV6, libc::IPV6_MULTICAST_IF) => native(value, one),
            (libc::SOL_IP, IP_UNICAST_IF) | (libc::SOL_IPV6, IPV6_UNICAST_IF) => {
                of_network(value, one);
            }
            _ => {}
        }
    }
    for joined in &mut inet.memberships {
        one(&mut joined.interface);
    }
    let own = [&mut inet.local, &mut inet.remote].into_iter().flatten();
    let waiting = inet.datagrams.iter_mut().flat_map(|data| [&mut data.from, &mut data.to]);
    let held_back = inet.held_back.iter_mut().map(|held_back| &mut held_back.to);
    for Endpoint { scope, .. } in own.chain(waiting).chain(held_back) {
        one(scope);
    }
}

/// A number in the byte order of this host.
fn native(value: &mut [u8], one: &mut impl FnMut(&mut u32)) {
    if let Ok(bytes) = <&mut [u8; 4]>::try_from(value) {
        let mut number = u32::from_ne_bytes(*bytes);
        one(&mut number);
        *bytes = number.to_ne_bytes();
    }
}

/// A number in the byte order of the network.
fn of_network(value: &mut [u8], one: &mut impl FnMut(&mut u32)) {
    if let Ok(bytes) = <&mut [u8; 4]>::try_from(value) {
        let mut number = u32::from_be_bytes(*bytes);
        one(&mut number);
        *bytes = number.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv6Addr, SocketAddrV6};

    use super::*;
    use crate::model::inet::{Family, Protocol};

    /// An option, a group and an address of one interface each.
    fn inet(numbers: [u32; 3]) -> Inet {
        let local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 7, 0, numbers[2]);
        Inet {
            family: Family::V6,
            protocol: Protocol::Udp,
            local: Some(Endpoint::from(core::net::SocketAddr::V6(local))),
            remote: None,
            options: vec![InetOption {
                level: libc::SOL_IPV6,
                number: IPV6_UNICAST_IF,
                value: numbers[0].to_be_bytes().to_vec(),
            }],
            memberships: vec![crate::image::Membership {
                group: "ff02::7".parse().expect("an address"),
                interface: numbers[1],
                excludes: true,
                sources: Vec::new(),
            }],
            turn: None,
            datagrams: Vec::new(),
            held_back: None,
            tcp: None,
            waiting: Vec::new(),
        }
    }

    fn seen(inet: &mut Inet) -> Vec<u32> {
        let mut seen = Vec::new();
        of_inet(inet, &mut |number: &mut u32| seen.push(*number));
        seen
    }

    #[test]
    fn numbers_can_change_places_and_nothing_is_nothing() {
        let mut changed = inet([3, 4, 5]);
        let swap = |number: &mut u32| match *number {
            3 => *number = 4,
            4 => *number = 3,
            _ => {}
        };
        of_inet(&mut changed, &mut { swap });
        assert_eq!(changed, inet([4, 3, 5]));
        assert_eq!(seen(&mut inet([0, 4, 5])), [0, 4, 5]);
        let mut short = vec![1, 2];
        native(&mut short, &mut |number: &mut u32| *number = 9);
        assert_eq!(short, [1, 2]);
    }
}
