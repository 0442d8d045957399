//! What must hold of what waits to be received.

use std::collections::HashSet;

use super::{Invalid, Problem, check_ids, look_up};
use crate::image::{Image, Message, OutOfBand, Passed, Role, Sender, Socket, SocketIndex};
use crate::model::SocketType;

/// Messages of all queues, at most: with the smallest ones, what 1.5 GiB of the kernel's memory holds.
pub const MAX_MESSAGES: usize = 1 << 21;

/// Descriptors in one message, at most (`SCM_MAX_FD`).
pub const MAX_PASSED: usize = 253;

/// Checks all queues; returns the sockets that are in flight.
pub(super) fn check(image: &Image) -> Result<HashSet<SocketIndex>, Invalid> {
    let found = image.sockets.iter().map(|socket| socket.queue.len()).sum();
    if found > MAX_MESSAGES {
        return Err(Invalid::TooMany { what: "messages", found, limit: MAX_MESSAGES });
    }
    let mut passed = HashSet::new();
    for (index, socket) in (0u32..).zip(&image.sockets) {
        let wrong = |problem| Invalid::Socket { index, problem };
        check_owner(socket).map_err(wrong)?;
        for message in &socket.queue {
            check_message(socket, message).map_err(wrong)?;
            if let Some(Sender::Socket(sender)) = message.sender {
                let sender = look_up(image, "a message", sender)?;
                if sender.socket_type != SocketType::Dgram {
                    return Err(wrong(Problem::Message("comes from no datagram socket")));
                }
            }
            for file in &message.files {
                if let Passed::Socket(socket) = *file {
                    look_up(image, "a message", socket)?;
                    passed.insert(socket);
                }
            }
        }
    }
    Ok(passed)
}

fn check_owner(socket: &Socket) -> Result<(), Problem> {
    let is_datagram = socket.socket_type == SocketType::Dgram;
    let may_have = is_datagram || matches!(socket.role, Role::Connected | Role::Embryo);
    if !socket.queue.is_empty() && !may_have {
        return Err(Problem::Message("waits at a socket that is not connected"));
    }
    let waiting = |message: &&Message| message.out_of_band == OutOfBand::Waiting;
    if socket.queue.iter().filter(waiting).count() > 1 {
        return Err(Problem::Message("is a second out-of-band byte"));
    }
    Ok(())
}

fn check_message(socket: &Socket, message: &Message) -> Result<(), Problem> {
    let is_stream = socket.socket_type == SocketType::Stream;
    let wanted = match message.out_of_band {
        OutOfBand::Waiting => Some(1),
        OutOfBand::Taken => Some(0),
        OutOfBand::No => None,
    };
    if wanted.is_some() && !is_stream {
        return Err(Problem::Message("is out of band, which only streams have"));
    }
    if wanted.is_some_and(|wanted| wanted != message.data.len()) {
        return Err(Problem::Message("is out of band and has another length than one byte"));
    }
    if wanted.is_none() && is_stream && message.data.is_empty() {
        return Err(Problem::Message("has no data, which a stream cannot carry"));
    }
    if (socket.socket_type == SocketType::Dgram) != message.sender.is_some() {
        return Err(Problem::Message("has a sender and is no datagram, or is one and has none"));
    }
    if let Some(Sender::Gone(name)) = &message.sender
        && !name.is_possible()
    {
        return Err(Problem::ImpossibleName(name.clone()));
    }
    if message.files.len() > MAX_PASSED {
        return Err(Problem::Message("has more descriptors than one can have"));
    }
    for file in &message.files {
        if let Passed::File(file) = file
            && (file.holder.0.0 <= 0 || file.holder.1 < 0)
        {
            return Err(Problem::Keeper(file.holder.0, file.holder.1));
        }
    }
    message.credentials.map_or(Ok(()), |c| check_ids(c.uid, c.gid))
}
