//! What a worker does, from its start to its end. Async-signal-safe; system calls are made directly, since
//! the library's functions that change ids would look for threads that a fork does not have.

use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use super::desk::{ANSWERED, AS_THEY_ARE, CONNECT, Desk, LISTEN, MOST_CALLS, ORDERED, PAIRS};
use super::gate;

const UNCHANGED: u32 = u32::MAX;

/// Serves until it is killed, or its parent is gone.
pub(super) fn serve(desk: &Desk, parent: i32) -> ! {
    name();
    end_with(parent);
    loop {
        desk.hand_over(ANSWERED);
        while !desk.wait_for(ORDERED) {}
        desk.pairs.store(0, Relaxed);
        let result = if is_who_is_wanted(desk) {
            call(desk)
        } else {
            let result = obey(desk);
            // Before the answer: a change of ids takes it away (`commit_creds`).
            end_with(parent);
            result
        };
        desk.answer.store(result.err().unwrap_or(0), Relaxed);
    }
}

fn name() {
    // SAFETY: the name is a string with a NUL that lives for ever.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"ucr: caller".as_ptr()) };
}

fn end_with(parent: i32) {
    // SAFETY: this request takes a number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: getppid touches no memory.
    if unsafe { libc::getppid() } != parent {
        gate::end(0);
    }
}

/// 0 or more, or an error number.
fn checked(result: libc::c_long) -> Result<(), i32> {
    if result < 0 { Err(gate::errno()) } else { Ok(()) }
}

fn set_uid(uid: u32) -> Result<(), i32> {
    // SAFETY: this touches no memory. It acts on this thread, the only one.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, uid, UNCHANGED) })
}

fn set_gid(gid: u32) -> Result<(), i32> {
    // SAFETY: as above.
    checked(unsafe { libc::syscall(libc::SYS_setresgid, UNCHANGED, gid, UNCHANGED) })
}

fn set_groups(desk: &Desk) -> Result<(), i32> {
    match desk.group_count.load(Relaxed) {
        AS_THEY_ARE => Ok(()),
        count => {
            let list = desk.groups.as_ptr();
            // SAFETY: the kernel reads `count` numbers, which was held against the length of the array.
            checked(unsafe { libc::syscall(libc::SYS_setgroups, count as usize, list) })
        }
    }
}

/// Whether the call can be made as it is. The file system ids are the effective ones between two orders.
fn is_who_is_wanted(desk: &Desk) -> bool {
    // SAFETY: this touches no memory, and neither does the next one.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    let wanted = (desk.uid.load(Relaxed), desk.gid.load(Relaxed));
    wanted == (uid, gid) && desk.group_count.load(Relaxed) == AS_THEY_ARE
}

/// The call, under the ids. Permissions are checked by the file system ids, which follow the effective
/// ones and are set back at once (see `restore::identity`).
fn obey(desk: &Desk) -> Result<(), i32> {
    // SAFETY: this touches no memory, and so do the next three.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    set_groups(desk)?;
    let wanted = (desk.uid.load(Relaxed), desk.gid.load(Relaxed));
    let result = set_gid(wanted.1).and_then(|()| set_uid(wanted.0)).and_then(|()| {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
        call(desk)
    });
    set_uid(uid).and_then(|()| set_gid(gid)).and(result)
}

fn call(desk: &Desk) -> Result<(), i32> {
    let (subject, detail) = (desk.subject.load(Relaxed), desk.detail.load(Relaxed));
    match desk.kind.load(Relaxed) {
        LISTEN => {
            // SAFETY: this touches no memory.
            checked(unsafe { libc::syscall(libc::SYS_listen, subject, detail) })
        }
        CONNECT => {
            let address = desk.address.as_ptr();
            desk.clients.iter().take(count(detail)).try_for_each(|client| {
                let client = client.load(Relaxed);
                // SAFETY: the kernel reads `subject` bytes, which the address has.
                checked(unsafe { libc::syscall(libc::SYS_connect, client, address, subject) })
            })
        }
        PAIRS => {
            let count = count(detail);
            desk.made.iter().take(count).try_for_each(|place| pair(desk, subject, place))
        }
        _ => Err(libc::EINVAL),
    }
}

/// How many calls.
fn count(detail: i32) -> usize {
    usize::try_from(detail).unwrap_or(0).min(MOST_CALLS)
}

fn pair(desk: &Desk, kind: i32, place: &[AtomicI32; 2]) -> Result<(), i32> {
    let mut made = [-1; 2];
    let (family, kind) = (libc::AF_UNIX, kind | libc::SOCK_CLOEXEC);
    let ends = made.as_mut_ptr();
    // SAFETY: the kernel writes two numbers.
    checked(unsafe { libc::syscall(libc::SYS_socketpair, family, kind, 0, ends) })?;
    place.iter().zip(made).for_each(|(to, from)| to.store(from, Relaxed));
    desk.pairs.fetch_add(1, Relaxed);
    Ok(())
}
