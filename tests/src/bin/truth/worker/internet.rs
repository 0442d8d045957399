//! TCP and UDP over loopback. They have a bag of their own: what is only in a message the census, which goes by
//! descriptors, does not find.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind,
    connect, ipproto, recv, sendto, socket_with,
    sockopt::{set_socket_linger, set_socket_reuseaddr},
};
use std::time::Duration;

use super::Worker;

/// Most that a worker has.
const BAG: usize = 40;
/// Ports that are fought over, at an address that is nobody else's.
const PORTS: std::ops::Range<u16> = 20_000..20_006;

/// An address to listen at or to connect to: of either version, or of the fourth in disguise.
fn address(worker: &mut Worker, family: AddressFamily) -> SocketAddr {
    let rng = &mut worker.calls.rng;
    let port = if rng.u8(0..4) == 0 { 0 } else { rng.u16(PORTS) };
    let own = Ipv4Addr::new(127, 77, 0, rng.u8(1..3));
    let ip = match family {
        AddressFamily::INET if rng.u8(0..6) == 0 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::INET => IpAddr::V4(own),
        _ if rng.bool() => IpAddr::V6(own.to_ipv6_mapped()),
        _ if rng.bool() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, port)
}

fn socket(
    worker: &mut Worker,
    socket_type: SocketType,
    protocol: Protocol,
) -> Option<(OwnedFd, AddressFamily)> {
    let family = if worker.calls.rng.bool() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let made = socket_with(family, socket_type, flags, Some(protocol));
    let fd = worker.calls.count(made)?;
    Some((fd, family))
}

fn keep(worker: &mut Worker, fd: OwnedFd) {
    worker.internet.push(fd);
    while worker.internet.len() > BAG {
        drop_one(worker);
    }
}

/// One of those that it has, taken out.
fn any(worker: &mut Worker) -> Option<OwnedFd> {
    let len = worker.internet.len();
    (len > 0).then(|| worker.internet.swap_remove(worker.calls.rng.usize(0..len)))
}

pub(super) fn listener(worker: &mut Worker) -> Option<()> {
    let (fd, family) = socket(worker, SocketType::STREAM, ipproto::TCP)?;
    let reuse = set_socket_reuseaddr(&fd, true);
    worker.calls.count(reuse)?;
    let address = address(worker, family);
    if worker.calls.rng.u8(0..8) > 0 {
        let bound = bind(&fd, &address);
        worker.calls.count(bound)?;
    }
    worker.calls.listen(&fd)?;
    keep(worker, fd);
    Some(())
}

pub(super) fn client(worker: &mut Worker) -> Option<()> {
    let (fd, family) = socket(worker, SocketType::STREAM, ipproto::TCP)?;
    let address = address(worker, family);
    let connected = connect(&fd, &address);
    // That it is refused, or under way, changes it as well.
    let _perhaps = worker.calls.count(connected);
    keep(worker, fd);
    Some(())
}

pub(super) fn accept(worker: &mut Worker) -> Option<()> {
    let fd = any(worker)?;
    for _ in 0..worker.calls.rng.u8(1..4) {
        let accepted = accept_with(&fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        let Some(accepted) = worker.calls.count(accepted) else { break };
        keep(worker, accepted);
    }
    keep(worker, fd);
    Some(())
}

/// Does something to whatever comes to hand.
pub(super) fn disturb(worker: &mut Worker) -> Option<()> {
    let fd = any(worker)?;
    match worker.calls.rng.u8(0..6) {
        0 => drop(worker.calls.shutdown(&fd)),
        1 => drop(worker.calls.disconnect(&fd)),
        2 => drop(worker.calls.listen(&fd)),
        3 => {
            let family =
                if worker.calls.rng.bool() { AddressFamily::INET } else { AddressFamily::INET6 };
            let address = address(worker, family);
            let connected = connect(&fd, &address);
            let _perhaps = worker.calls.count(connected);
        }
        4 => {
            let received = recv(&fd, &mut [0_u8; 64][..], RecvFlags::DONTWAIT);
            let _perhaps = worker.calls.count(received);
        }
        _ => drop(worker.calls.send(&fd)),
    }
    keep(worker, fd);
    Some(())
}

/// Closes one, now and then so that the other end has an error.
pub(super) fn drop_one(worker: &mut Worker) {
    let Some(fd) = any(worker) else { return };
    if worker.calls.rng.u8(0..3) == 0 {
        let set = set_socket_linger(&fd, Some(Duration::ZERO));
        let _perhaps = worker.calls.count(set);
    }
    worker.close(fd);
}

pub(super) fn close(worker: &mut Worker) -> Option<()> {
    drop_one(worker);
    Some(())
}

pub(super) fn datagrams(worker: &mut Worker) -> Option<()> {
    let protocol = if worker.calls.rng.u8(0..5) == 0 { ipproto::UDPLITE } else { ipproto::UDP };
    let (fd, family) = socket(worker, SocketType::DGRAM, protocol)?;
    if worker.calls.rng.bool() {
        let address = address(worker, family);
        let bound = bind(&fd, &address);
        let _perhaps = worker.calls.count(bound);
    }
    let address = address(worker, family);
    match worker.calls.rng.u8(0..4) {
        0 => {
            let connected = connect(&fd, &address);
            let _perhaps = worker.calls.count(connected);
        }
        1 => {
            let sent = sendto(&fd, b"datagram", SendFlags::DONTWAIT, &address);
            let _perhaps = worker.calls.count(sent);
        }
        2 => {
            let connected = connect(&fd, &address);
            worker.calls.count(connected)?;
            worker.calls.disconnect(&fd);
        }
        _ => {}
    }
    keep(worker, fd);
    Some(())
}
