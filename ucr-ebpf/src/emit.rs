//! The one way into the ring buffer: reserve, fill, submit, and count what did not fit.

use aya_ebpf::helpers::{
    bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_buf,
};
use ucr_common::{
    control::counter,
    event::{BindEvent, CloseEvent, Event},
    identity::{Actor, SocketId},
    paths::BindPaths,
    record::Record,
};

use crate::{
    kernel,
    ledger::record::BLANK,
    maps::{EVENTS, LEASE, SEQUENCE, count},
    task,
};

/// Now, in `CLOCK_BOOTTIME` nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no conditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// When, and who: what every hook takes down first.
pub(crate) struct Moment {
    pub(crate) time: u64,
    pub(crate) actor: Actor,
}

impl Moment {
    /// Now, by the current task.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        let mut moment = Self { time: now(), actor: Actor::UNKNOWN };
        task::fill(&mut moment.actor);
        moment
    }
}

/// What every event has, beside when and who.
pub(crate) struct Head {
    pub(crate) kind: u32,
    pub(crate) result: i32,
    pub(crate) fd: i32,
    pub(crate) fd2: i32,
}

/// Whether somebody follows.
#[inline(always)]
pub(crate) fn is_followed(time: u64) -> bool {
    let Some(lease) = LEASE.get_ptr(0) else { return false };
    // SAFETY: a non-null element of an array map; user space writes the field as a whole.
    time < unsafe { (*lease).until }
}

/// Sends an event if somebody follows: `fill` writes what is particular to its kind.
#[inline(always)]
pub(crate) fn send(head: &Head, moment: &Moment, fill: impl FnOnce(&mut Event)) {
    if !is_followed(moment.time) {
        return;
    }
    let sequence = next_number();
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(counter::LOST);
        return;
    };
    // SAFETY: reserved for an event, and ours until it is submitted; `begin` writes all of it.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    begin(event, head, moment, sequence);
    fill(event);
    entry.submit(0);
    count(counter::EMITTED);
}

/// Sends the bind of a pathname with its directories if somebody follows.
#[inline(always)]
pub(crate) fn send_bind(
    head: &Head,
    moment: &Moment,
    paths: &BindPaths,
    fill: impl FnOnce(&mut Event),
) {
    if !is_followed(moment.time) {
        return;
    }
    let sequence = next_number();
    let Some(mut entry) = EVENTS.reserve::<BindEvent>(0) else {
        count(counter::LOST);
        return;
    };
    // SAFETY: reserved for such an event, and ours until it is submitted; all of it is written.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    begin(&mut event.event, head, moment, sequence);
    fill(&mut event.event);
    copy(paths, &mut event.paths);
    entry.submit(0);
    count(counter::EMITTED);
}

/// Sends the end of a socket with what the ledger holds of it if somebody follows.
#[inline(always)]
pub(crate) fn send_close(
    head: &Head,
    moment: &Moment,
    record: Option<&Record>,
    fill: impl FnOnce(&mut CloseEvent),
) {
    if !is_followed(moment.time) {
        return;
    }
    let sequence = next_number();
    let Some(mut entry) = EVENTS.reserve::<CloseEvent>(0) else {
        count(counter::LOST);
        return;
    };
    // SAFETY: reserved for such an event, and ours until it is submitted; all of it is written.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    begin(&mut event.event, head, moment, sequence);
    copy(record.unwrap_or(&BLANK), &mut event.record);
    fill(event);
    entry.submit(0);
    count(counter::EMITTED);
}

/// Copies a shape: the compiler would call a loop over its bytes.
#[inline(always)]
fn copy<T>(from: &T, to: &mut T) {
    // SAFETY: both have this size and, being shared shapes, no padding.
    let copied = unsafe {
        let to = core::slice::from_raw_parts_mut(core::ptr::from_mut(to).cast(), size_of::<T>());
        bpf_probe_read_kernel_buf(core::ptr::from_ref(from).cast(), to)
    };
    if copied.is_err() {
        // The helper has cleared what it could not fill.
        count(counter::UNREADABLE);
    }
}

/// The number of the next event on this CPU: also of one that finds no room.
#[inline(always)]
fn next_number() -> u64 {
    let Some(next) = SEQUENCE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a non-null element of a per-CPU array. If a program is interrupted here, two events get the
    // same number, which a follower takes for what it is: nothing is missing.
    unsafe {
        let number = *next;
        *next = number + 1;
        number
    }
}

#[inline(always)]
fn begin(event: &mut Event, head: &Head, moment: &Moment, sequence: u64) {
    event.kind = head.kind;
    event.result = head.result;
    event.time = moment.time;
    event.actor = moment.actor;
    event.fd = head.fd;
    event.fd2 = head.fd2;
    event.socket = SocketId::NONE;
    event.peer = SocketId::NONE;
    event.listener = SocketId::NONE;
    event.netns = 0;
    event.socket_type = 0;
    event.family = 0;
    event.protocol = 0;
    event.argument = 0;
    // SAFETY: the helper has no conditions.
    event.cpu = unsafe { bpf_get_smp_processor_id() };
    event.sequence = sequence;
    kernel::clear_name(&mut event.name);
}
