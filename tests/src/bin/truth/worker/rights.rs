//! Descriptors in messages: passed on, lost on the way, in flight for ever.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType, recvmsg};

use super::Worker;

/// A few descriptors out of the bag, by their places.
fn some(worker: &mut Worker) -> Vec<usize> {
    let count = worker.calls.rng.usize(1..5);
    let len = worker.bag.len();
    worker.calls.rng.choose_multiple(0..len, count)
}

/// Over whatever comes; perhaps only the message has them then.
pub(super) fn pass(worker: &mut Worker) -> Option<()> {
    let over = worker.any_place()?;
    let places = some(worker);
    let fds: Vec<&OwnedFd> = places.iter().filter_map(|place| worker.bag.get(*place)).collect();
    worker.calls.pass(&fds, worker.bag.get(over)?, None)?;
    forget_perhaps(worker, places);
    Some(())
}

/// To another worker, in whatever network namespace.
pub(super) fn mail(worker: &mut Worker) -> Option<()> {
    let to = worker.calls.rng.usize(0..worker.task.workers);
    let places = some(worker);
    let fds: Vec<&OwnedFd> = places.iter().filter_map(|place| worker.bag.get(*place)).collect();
    let name = worker.names.mailbox(to);
    worker.calls.pass(&fds, worker.mailbox.as_ref()?, Some(&name))?;
    forget_perhaps(worker, places);
    Some(())
}

fn forget_perhaps(worker: &mut Worker, mut places: Vec<usize>) {
    if worker.calls.rng.bool() {
        places.sort_unstable();
        for place in places.into_iter().rev() {
            let fd = worker.bag.swap_remove(place);
            worker.close(fd);
        }
    }
}

/// Takes descriptors out of a message: all, or as many as there is room for (the kernel drops the
/// rest), or copies (`MSG_PEEK`).
pub(super) fn receive(worker: &mut Worker) -> Option<()> {
    let place = worker.any_place();
    let is_mail = worker.calls.rng.bool();
    let from = match &worker.mailbox {
        Some(mailbox) if is_mail => mailbox.as_fd(),
        _ => worker.bag.get(place?)?.as_fd(),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let room = if worker.calls.rng.u8(0..4) == 0 {
        rustix::cmsg_space!(ScmRights(1))
    } else {
        space.len()
    };
    let mut ancillary = RecvAncillaryBuffer::new(space.get_mut(..room)?);
    let mut data = [0_u8; 16];
    let mut flags = RecvFlags::DONTWAIT;
    flags.set(RecvFlags::PEEK, worker.calls.rng.u8(0..6) == 0);
    flags.set(RecvFlags::CMSG_CLOEXEC, worker.calls.rng.bool());
    let received = recvmsg(from, &mut [io::IoSliceMut::new(&mut data)], &mut ancillary, flags);
    let taken: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    worker.calls.count(received)?;
    for fd in taken {
        worker.keep_perhaps(fd);
    }
    Some(())
}

/// Two ends in each other's queues and nowhere else: only the kernel's garbage collector finds them.
pub(super) fn circle(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.any_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    worker.calls.pass(&[&a], &b, None);
    if worker.calls.rng.bool() {
        worker.calls.pass(&[&b, &a], &a, None);
    }
    // Something innocent goes with them.
    if let Some(place) = worker.any_place() {
        let fd = worker.bag.swap_remove(place);
        worker.calls.pass(&[&fd], &a, None);
        worker.close(fd);
    }
    worker.close(a);
    worker.close(b);
    Some(())
}

/// A listener in the queue of a connection that waits at it.
pub(super) fn circle_by_embryo(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = worker.calls.listener(socket_type, &name)?;
    let client = worker.calls.client(socket_type, &name)?;
    worker.calls.pass(&[&listener, &client], &client, None);
    if worker.calls.rng.bool() {
        worker.close(client);
        worker.close(listener);
    } else {
        worker.keep(client);
        worker.close(listener);
    }
    Some(())
}

/// A socket that no process has, in the queue of one that is kept.
pub(super) fn only_in_flight(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.any_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    let (c, d) = worker.calls.pair(SocketType::STREAM)?;
    worker.calls.pass(&[&c], &a, None);
    worker.close(c);
    match worker.calls.rng.u8(0..4) {
        // It goes with the queue.
        0 => {
            worker.close(b);
            worker.keep(a);
        }
        1 => {
            worker.close(a);
            worker.keep(b);
        }
        _ => {
            worker.keep(a);
            worker.keep(b);
        }
    }
    worker.keep_perhaps(d);
    Some(())
}
