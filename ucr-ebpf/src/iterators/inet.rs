//! Passes over all internet sockets that somebody has a descriptor of, in whatever network namespace: to seed the
//! ledger, to correct it, to check it. What waits in an accept queue nobody has; what only a message or io_uring
//! holds is not come across, and its record is left alone as long as its memory says so (`mark_gone`).

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_socket_cookie};
use ucr_common::{control::counter, record::origin};

use super::{TaskFileContext, is_seeded, own_socket};
use crate::{
    emit,
    kernel::{self, Pointer, is_dead},
    ledger::{
        correction::correct_inet,
        inet::survey,
        record::{BLANK, add, lookup},
    },
    maps::{CENSUS, FRESH, count},
};

/// The tracked internet sock behind the descriptor that the iterator has come to, with a cookie.
///
/// # Safety
/// `ctx` must be what the kernel calls the iterator with.
#[inline(always)]
unsafe fn sock_of(ctx: *mut TaskFileContext) -> Option<Pointer> {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    // SAFETY: as above.
    let sk = unsafe { own_socket(task, file) }?;
    let family = kernel::family_of(sk);
    if !kernel::inet::is_inet(family) || !kernel::inet::is_tracked(sk, family as u16) {
        return None;
    }
    // SAFETY: `sk` is a `struct sock *`; the helper gives it a cookie if it has none.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) };
    Some(sk)
}

/// Adds those that the ledger does not know, and corrects the others.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn visit_inet(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel calls with this context.
    let Some(sk) = (unsafe { sock_of(ctx) }) else { return 0 };
    let time = emit::now();
    if lookup(sk).is_some() {
        correct_inet(sk, time);
        return 0;
    }
    if is_dead(sk) {
        return 0;
    }
    let seeding = !is_seeded();
    let origin = if seeding { origin::SEED } else { origin::FOUND };
    let Some(fresh) = FRESH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a non-null element of a per-CPU array, and one process runs one pass at a time.
    let fresh = unsafe { &mut *fresh };
    if add(fresh, sk, origin, time, survey, correct_inet) && !seeding {
        count(counter::FOUND);
    }
    0
}

/// Puts what the kernel says of each into the census.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn census_inet(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel calls with this context.
    let Some(sk) = (unsafe { sock_of(ctx) }) else { return 0 };
    let key = sk as u64;
    if CENSUS.insert(&key, &BLANK, BPF_ANY.into()).is_err() {
        count(counter::CENSUS_FULL);
        return 0;
    }
    let Some(record) = CENSUS.get_ptr_mut(&key) else { return 0 };
    // SAFETY: a non-null map value, which nobody else writes to.
    survey(unsafe { &mut *record }, sk, emit::now());
    0
}
