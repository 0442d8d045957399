//! The one way into the ring buffer: reserve, fill, submit, and count what did not fit.

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_buf};
use ucr_common::{
    control::counter,
    event::{BindEvent, Event},
    identity::{Actor, SocketId},
    paths::BindPaths,
};

use crate::{
    kernel,
    maps::{EVENTS, LEASE, count},
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
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(counter::LOST);
        return;
    };
    // SAFETY: reserved for an event, and ours until it is submitted; `begin` writes all of it.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    begin(event, head, moment);
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
    let Some(mut entry) = EVENTS.reserve::<BindEvent>(0) else {
        count(counter::LOST);
        return;
    };
    // SAFETY: reserved for such an event, and ours until it is submitted; all of it is written.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    begin(&mut event.event, head, moment);
    fill(&mut event.event);
    // SAFETY: both have this size and no padding.
    let copied = unsafe {
        let to = core::ptr::addr_of_mut!(event.paths).cast::<u8>();
        let to = core::slice::from_raw_parts_mut(to, size_of::<BindPaths>());
        bpf_probe_read_kernel_buf(core::ptr::from_ref(paths).cast(), to)
    };
    if copied.is_err() {
        // The helper has cleared what it could not fill.
        count(counter::UNREADABLE);
    }
    entry.submit(0);
    count(counter::EMITTED);
}

#[inline(always)]
fn begin(event: &mut Event, head: &Head, moment: &Moment) {
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
    event.argument = 0;
    event.reserved = 0;
    kernel::clear_name(&mut event.name);
}
