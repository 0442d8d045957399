//! Connections: listeners, clients, accepting ends, and all that can go wrong between them.

use super::Worker;

/// A new listener with a name that is fought over.
pub(super) fn listener(worker: &mut Worker) -> Option<()> {
    let name = worker.shared_name();
    let socket_type = worker.calls.connecting_type();
    let fd = worker.calls.listener(socket_type, &name)?;
    worker.keep(fd);
    Some(())
}

/// A client, bound before or not, with credentials or not; whether it gets through or not.
pub(super) fn client(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.connecting_type();
    let fd = worker.calls.socket(socket_type)?;
    match worker.calls.rng.u8(0..8) {
        0 => drop(worker.calls.bind(&fd, &worker.names.own())),
        1 => drop(worker.calls.autobind(&fd)),
        2 => drop(worker.calls.want_credentials(&fd)),
        _ => {}
    }
    let name = worker.some_listener();
    worker.calls.connect(&fd, &name);
    if worker.calls.rng.bool() {
        worker.calls.send(&fd);
    }
    worker.keep_perhaps(fd);
    Some(())
}

/// Accepts at a listener that all have, or at whatever comes out of the bag.
pub(super) fn accept(worker: &mut Worker) -> Option<()> {
    let common = worker.common.len();
    let accepted = if common > 0 && worker.calls.rng.bool() {
        let place = worker.calls.rng.usize(0..common);
        worker.calls.accept(worker.common.get(place)?)
    } else {
        let place = worker.any_place()?;
        worker.calls.accept(worker.bag.get(place)?)
    };
    worker.keep_perhaps(accepted?);
    Some(())
}

/// A connection from its beginning to some point.
pub(super) fn conversation(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = worker.calls.listener(socket_type, &name)?;
    let client = worker.calls.client(socket_type, &name)?;
    let server = worker.calls.accept(&listener)?;
    worker.close(listener);
    worker.calls.send(&client);
    worker.calls.receive(&server);
    match worker.calls.rng.u8(0..6) {
        0 => drop(worker.calls.shutdown(&client)),
        1 => drop(worker.calls.shutdown(&server)),
        2 => {
            worker.calls.shutdown(&server);
            worker.calls.shutdown(&client);
        }
        _ => {}
    }
    worker.keep_perhaps(client);
    worker.keep_perhaps(server);
    Some(())
}

/// A listener that closes with connections waiting: some of their clients are gone already, some have
/// sent something, some are shut down.
pub(super) fn dying_listener(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = worker.calls.listener(socket_type, &name)?;
    for _ in 0..worker.calls.rng.u8(1..5) {
        let Some(client) = worker.calls.client(socket_type, &name) else { break };
        if worker.calls.rng.bool() {
            worker.calls.send(&client);
        }
        match worker.calls.rng.u8(0..4) {
            0 => worker.close(client),
            1 => {
                worker.calls.shutdown(&client);
                worker.keep(client);
            }
            _ => worker.keep(client),
        }
    }
    if worker.calls.rng.u8(0..3) == 0
        && let Some(server) = worker.calls.accept(&listener)
    {
        worker.keep(server);
    }
    if worker.calls.rng.u8(0..4) == 0 {
        worker.calls.shutdown(&listener);
    }
    worker.close(listener);
    Some(())
}

/// Connections whose clients are gone before they are accepted.
pub(super) fn vanishing_clients(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = worker.calls.listener(socket_type, &name)?;
    for _ in 0..worker.calls.rng.u8(1..4) {
        let client = worker.calls.client(socket_type, &name)?;
        worker.calls.send(&client);
        worker.close(client);
    }
    while let Some(server) = worker.calls.accept(&listener) {
        worker.keep_perhaps(server);
    }
    worker.keep_perhaps(listener);
    Some(())
}

/// A socket that connects to its own name, before it listens and after.
pub(super) fn to_itself(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let fd = worker.calls.socket(socket_type)?;
    worker.calls.bind(&fd, &name)?;
    worker.calls.connect(&fd, &name);
    worker.calls.listen(&fd)?;
    worker.calls.connect(&fd, &name);
    worker.keep_perhaps(fd);
    Some(())
}

/// A name for a socket that is in use: a connected one, a listener, one that has a name.
pub(super) fn late_name(worker: &mut Worker) -> Option<()> {
    let name = worker.shared_name();
    let place = worker.any_place()?;
    let fd = worker.bag.get(place)?;
    if worker.calls.rng.bool() { worker.calls.bind(fd, &name) } else { worker.calls.autobind(fd) }
}

/// `listen` or `connect` once more, or on a socket for which it makes no sense.
pub(super) fn again(worker: &mut Worker) -> Option<()> {
    let name = worker.some_listener();
    let place = worker.any_place()?;
    let fd = worker.bag.get(place)?;
    if worker.calls.rng.bool() { worker.calls.listen(fd) } else { worker.calls.connect(fd, &name) }
}

/// `shutdown` of whatever comes.
pub(super) fn shut_down(worker: &mut Worker) -> Option<()> {
    let place = worker.any_place()?;
    worker.calls.shutdown(worker.bag.get(place)?)
}

/// Sends to, and receives from, whatever comes: a datagram socket finds out so that its peer is gone.
pub(super) fn talk(worker: &mut Worker) -> Option<()> {
    for _ in 0..4 {
        let place = worker.any_place()?;
        let fd = worker.bag.get(place)?;
        let _outcome = if worker.calls.rng.bool() {
            worker.calls.send(fd).map(drop)
        } else {
            worker.calls.receive(fd)
        };
    }
    Some(())
}

/// Both ends of a pair, or one whose other end is gone.
pub(super) fn pair(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.any_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    worker.keep_perhaps(a);
    worker.keep_perhaps(b);
    Some(())
}

/// A path is taken from its owner, who keeps the name, and given to another socket.
pub(super) fn rebind(worker: &mut Worker) -> Option<()> {
    let (path, name) = worker.names.shared_path(&mut worker.calls.rng);
    let socket_type = worker.calls.any_type();
    let before = worker.calls.socket(socket_type)?;
    worker.calls.unlink(&path);
    worker.calls.bind(&before, &name);
    worker.calls.unlink(&path);
    let after = worker.calls.socket(socket_type)?;
    worker.calls.bind(&after, &name);
    for fd in [before, after] {
        worker.calls.listen(&fd);
        worker.keep_perhaps(fd);
    }
    Some(())
}
