//! What the end of a socket does to the ledger.

use ucr_common::{control::counter, event::kind};

use super::{
    announce_first, describe,
    record::{LISTENING, abandon, forget, lookup, note_partner},
};
use crate::{
    emit::{self, Head, Moment},
    kernel::{self, Known, Pointer},
    maps::count,
};

/// The last descriptor of a socket of whatever family is about to be closed.
#[inline(always)]
pub(crate) fn ended(known: Known, fd: i32) {
    if known.is_unix {
        closed(known.sk, fd);
    } else {
        super::inet::closed(known.sk, fd);
    }
}

/// The last descriptor of `sk` is about to be closed. Connections that wait to be accepted go with a
/// listener.
#[inline(never)]
pub(crate) fn closed(sk: Pointer, fd: i32) -> u32 {
    announce_first(sk);
    report(sk, fd, 0);
    if kernel::state_of(sk) == LISTENING {
        kernel::for_each_embryo(sk, end_embryo);
    }
    end(sk);
    0
}

/// The kernel lets go of `sk`; `embryo` is 1 if it was never accepted, and its listener has closed. Its
/// own embryos come by themselves.
#[inline(never)]
pub(crate) fn released(sk: Pointer, embryo: u32) -> u32 {
    // What `connect` made and threw away was never anybody's.
    if lookup(sk).is_some() || kernel::has_socket(sk) {
        announce_first(sk);
        report(sk, -1, embryo);
    }
    end(sk);
    0
}

/// The memory of `sk` is about to be freed. If it is still in the ledger, its release was missed.
#[inline(always)]
pub(crate) fn destroyed(sk: Pointer) {
    if lookup(sk).is_some() {
        count(counter::STALE);
        forget(sk);
    }
}

/// Not inlined: where a listener's embryos go with it, this would stand on the stack twice, and before
/// 6.13 all frames together have 512 bytes.
#[inline(never)]
fn report(sk: Pointer, fd: i32, embryo: u32) -> u32 {
    if !emit::is_followed(emit::now()) {
        return 0;
    }
    let moment = Moment::now();
    let head = Head { kind: kind::CLOSE, result: 0, fd, fd2: -1 };
    let record = lookup(sk);
    emit::send_close(&head, &moment, record.as_deref(), |close| {
        describe(&mut close.event, sk);
        close.event.argument = embryo;
        close.event.name = close.record.name;
        // That of a peer that has closed is in the record.
        note_partner(kernel::peer_pointer(sk), &mut close.record.partner);
    });
    0
}

/// One that waited to be accepted goes with its listener.
#[inline(always)]
fn end_embryo(sk: Pointer) {
    report(sk, -1, 1);
    end(sk);
}

/// Its peer sees it go (`ECONNRESET`, where it was an embryo).
#[inline(always)]
fn end(sk: Pointer) {
    if let Some(peer) = kernel::peer_of(sk) {
        abandon(peer, sk);
    }
    forget(sk);
}
