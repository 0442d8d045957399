//! Waiting for conditions, never for time to pass.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Child, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::outside;

/// How long anything may take. It is reached only when something is broken.
///
/// A minute, or as many as `UCR_PATIENCE` says.
#[must_use]
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let factor = std::env::var("UCR_PATIENCE").ok().and_then(|factor| factor.parse().ok());
        Duration::from_secs(60) * factor.unwrap_or(1)
    })
}

/// How often a condition is looked at for which there is nothing to wait on.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits until there is an answer.
///
/// # Panics
/// When there is none in time; `what` says for what it was waited.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        glance(&mut [], GLANCE);
    }
}

/// Waits until a condition holds; whether it did in time.
pub fn holds(mut look: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience();
    loop {
        if look() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        glance(&mut [], GLANCE);
    }
}

/// Waits until a descriptor can be read, at most so long; whether it can.
pub fn readable(fd: BorrowedFd<'_>, at_most: Duration) -> bool {
    glance(&mut [PollFd::new(fd, PollFlags::POLLIN)], at_most)
}

fn glance(fds: &mut [PollFd<'_>], at_most: Duration) -> bool {
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    // A signal that comes meanwhile is as good as a time-out.
    poll(fds, timeout).is_ok_and(|ready| ready > 0)
}

/// Waits for a child to end.
///
/// # Panics
/// When it does not in time; it is killed then.
pub fn for_end(child: &mut Child) -> ExitStatus {
    let pidfd = pidfd(child.id());
    if !readable(pidfd.as_fd(), patience()) {
        let killed = child.kill();
        panic!("process {} did not end ({killed:?})", child.id());
    }
    child.wait().expect("reap a child")
}

/// A descriptor that can be read once the process has ended.
fn pidfd(pid: u32) -> OwnedFd {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a pid");
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("open a pidfd")
}

/// Waits until a process is in a state (one letter, as `ps` shows it).
///
/// # Panics
/// When it does not come into it in time.
pub fn for_state(pid: i32, state: char) {
    until(&format!("process {pid} to be in state {state}"), || {
        (outside::state(pid) == Some(state)).then_some(())
    });
}

/// Whether a process is there and no zombie.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    outside::state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// What a file holds that a child wrote to, from its beginning.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn content(mut file: File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read what a child wrote");
    String::from_utf8_lossy(&bytes).into_owned()
}
