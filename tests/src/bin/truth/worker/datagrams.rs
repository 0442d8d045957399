//! Datagram sockets: they connect as often as they like, to each other, to themselves, to nobody;
//! and a peer that has gone is noticed only when something is sent.

use std::os::fd::OwnedFd;

use rustix::net::SocketType;

use super::Worker;

fn bound(worker: &mut Worker) -> Option<(OwnedFd, Vec<u8>)> {
    let name = worker.names.own();
    let fd = worker.calls.socket(SocketType::DGRAM)?;
    worker.calls.bind(&fd, &name)?;
    Some((fd, name))
}

/// One that others may connect to.
pub(super) fn receiver(worker: &mut Worker) -> Option<()> {
    let name = worker.shared_name();
    let fd = worker.calls.socket(SocketType::DGRAM)?;
    worker.calls.bind(&fd, &name)?;
    worker.keep(fd);
    Some(())
}

/// Two that are connected to each other; then perhaps one of them to nobody, or to a third.
pub(super) fn mutual(worker: &mut Worker) -> Option<()> {
    let (a, name_a) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    worker.calls.connect(&a, &name_b);
    worker.calls.connect(&b, &name_a);
    match worker.calls.rng.u8(0..5) {
        0 => drop(worker.calls.disconnect(&a)),
        1 => {
            let (c, name_c) = bound(worker)?;
            worker.calls.connect(&a, &name_c);
            worker.keep_perhaps(c);
        }
        2 => drop(worker.calls.shutdown(&a)),
        3 => {
            worker.calls.disconnect(&a);
            worker.calls.disconnect(&b);
        }
        _ => {}
    }
    worker.keep_perhaps(a);
    worker.keep_perhaps(b);
    Some(())
}

/// One that is its own peer.
pub(super) fn to_itself(worker: &mut Worker) -> Option<()> {
    let (fd, name) = bound(worker)?;
    worker.calls.connect(&fd, &name);
    worker.calls.send(&fd);
    match worker.calls.rng.u8(0..4) {
        0 => drop(worker.calls.disconnect(&fd)),
        1 => drop(worker.calls.shutdown(&fd)),
        _ => {}
    }
    worker.keep_perhaps(fd);
    Some(())
}

/// One whose peer is gone: it notices when it sends, the kernel disconnects it (`ECONNREFUSED`).
pub(super) fn orphan(worker: &mut Worker) -> Option<()> {
    let (survivor, gone) = if worker.calls.rng.bool() {
        worker.calls.pair(SocketType::DGRAM)?
    } else {
        let (gone, name) = bound(worker)?;
        let survivor = worker.calls.client(SocketType::DGRAM, &name)?;
        (survivor, gone)
    };
    worker.close(gone);
    if worker.calls.rng.u8(0..3) > 0 {
        worker.calls.send(&survivor);
        worker.calls.send(&survivor);
    }
    worker.keep_perhaps(survivor);
    Some(())
}

/// Three in a row, each connected to the next; the first leaves the second for the third.
pub(super) fn faithless(worker: &mut Worker) -> Option<()> {
    let (a, _) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    let (c, name_c) = bound(worker)?;
    worker.calls.connect(&a, &name_b);
    if worker.calls.rng.bool() {
        worker.calls.connect(&b, &name_c);
    }
    worker.calls.connect(&a, &name_c);
    for fd in [a, b, c] {
        worker.keep_perhaps(fd);
    }
    Some(())
}

/// A new peer, or none, for whatever comes.
pub(super) fn reconnect(worker: &mut Worker) -> Option<()> {
    let name = worker.shared_name();
    let place = worker.any_place()?;
    let fd = worker.bag.get(place)?;
    if worker.calls.rng.u8(0..3) == 0 {
        worker.calls.disconnect(fd)
    } else {
        worker.calls.connect(fd, &name)
    }
}

/// Who asks for credentials is given a name, when it connects or when it sends.
pub(super) fn credentials(worker: &mut Worker) -> Option<()> {
    let name = worker.shared_name();
    let fd = worker.calls.socket(SocketType::DGRAM)?;
    worker.calls.want_credentials(&fd)?;
    if worker.calls.rng.bool() {
        worker.calls.send_to(&fd, &name);
    } else {
        worker.calls.connect(&fd, &name);
    }
    worker.keep_perhaps(fd);
    Some(())
}
