//! The one way into the ring buffer: reserve, copy, submit, and count what did not fit.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use ucr_common::{
    control::counter,
    event::{BindEvent, Event},
    identity::SocketId,
};

use crate::{
    maps::{CONTROL, EVENTS, count},
    task,
};

/// Now, in `CLOCK_BOOTTIME` nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no conditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Begins an event: everything but what is particular to its kind.
#[inline(always)]
pub(crate) fn begin(event: &mut Event, kind: u32, result: i64, fd: i32) {
    event.kind = kind;
    event.result = result as i32;
    event.time = now();
    task::fill(&mut event.actor);
    event.fd = fd;
    event.fd2 = -1;
    event.socket = SocketId::NONE;
    event.peer = SocketId::NONE;
    event.listener = SocketId::NONE;
    event.netns = 0;
    event.socket_type = 0;
    event.argument = 0;
    event.reserved = 0;
    event.name.len = 0;
}

/// Whether somebody follows.
#[inline(always)]
fn is_followed(time: u64) -> bool {
    let Some(control) = CONTROL.get_ptr(0) else { return false };
    // SAFETY: a non-null element of an array map; user space writes the field as a whole.
    time < unsafe { (*control).follow_until }
}

/// Sends an event if somebody follows.
#[inline(always)]
pub(crate) fn send(event: &Event) {
    if is_followed(event.time) {
        output(EVENTS.output::<Event>(event, 0));
    }
}

/// Sends the bind of a pathname with its directories if somebody follows.
#[inline(always)]
pub(crate) fn send_bind(event: &BindEvent) {
    if is_followed(event.event.time) {
        output(EVENTS.output::<BindEvent>(event, 0));
    }
}

#[inline(always)]
fn output(result: Result<(), i32>) {
    count(if result.is_ok() { counter::EMITTED } else { counter::LOST });
}
