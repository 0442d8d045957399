//! Orders about waiting for many sockets at once, and about work that leaves off for nothing. Events and data are in
//! hexadecimal digits, limits in milliseconds, -1 for none.
//!
//! ```text
//! epoll                            an event poll
//! watch POLL FD EVENTS DATA        has it watch something
//! rearm POLL FD EVENTS DATA        the same for what it watches already
//! await POLL LIMIT                 what has come, in order: DATA:EVENTS …
//! thread await|poll|select FD LIMIT   in a thread; what poll and select tell is how many there are
//! poll|select FD LIMIT             the same, not in a thread
//! own FD                           gives what the victim was given a number that it knows for its own
//! compute FD                       works until FD can be read: how often, and how often the result was another one
//! ```

use std::{
    hint::black_box,
    io,
    os::fd::{AsFd as _, BorrowedFd, RawFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        select::{FdSet, select},
        time::TimeVal,
    },
    unistd::close,
};
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use ucr::sys::descriptor::duplicate_of;

use super::world::{Done, World, done, name_of, number, text_of};

/// At most so many are told of at once.
const MOST: usize = 16;
const ROUNDS: u32 = 20_000;

/// Obeys one line, if it is one of these.
pub(crate) fn obey(world: &mut World, words: &[&str]) -> Option<Done> {
    Some(match words {
        ["epoll"] => match epoll::create(CreateFlags::empty()) {
            Ok(made) => Ok(world.keep(made).to_string()),
            Err(errno) => Err(text_of(&errno.into())),
        },
        ["watch", poll, fd, events, data] => {
            watch(world, poll, fd, (events, data), |p, f, d, e| epoll::add(p, f, d, e))
        }
        ["rearm", poll, fd, events, data] => {
            watch(world, poll, fd, (events, data), |p, f, d, e| epoll::modify(p, f, d, e))
        }
        ["await", poll, limit] => number(limit).and_then(|limit: i64| {
            world.with(poll, |poll| awaited(poll, limit).map_err(io::Error::other))
        }),
        ["thread", what, fd, limit] => waiting(world, what, fd, limit),
        ["poll", fd, limit] => number(limit)
            .and_then(|limit| world.with(fd, |fd| polled(fd, limit).map_err(io::Error::other))),
        ["select", fd, limit] => number(limit)
            .and_then(|limit| world.with(fd, |fd| selected(fd, limit).map_err(io::Error::other))),
        ["own", fd] => owned(world, fd),
        ["compute", fd] => world.with(fd, computed),
        _ => return None,
    })
}

type Act = fn(BorrowedFd<'_>, BorrowedFd<'_>, EventData, EventFlags) -> rustix::io::Result<()>;

fn watch(world: &World, poll: &str, fd: &str, event: (&str, &str), act: Act) -> Done {
    let wrong = |_| "not hexadecimal".to_owned();
    let events = EventFlags::from_bits_retain(u32::from_str_radix(event.0, 16).map_err(wrong)?);
    let data = EventData::new_u64(u64::from_str_radix(event.1, 16).map_err(wrong)?);
    world.with(fd, |fd| {
        let done = world.with(poll, |poll| Ok(act(poll, fd, data, events)?));
        done.map_err(io::Error::other)
    })?;
    done()
}

fn awaited(poll: BorrowedFd<'_>, limit: i64) -> Done {
    let limit = u64::try_from(limit).ok().map(|limit| Timespec {
        tv_sec: i64::try_from(limit / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(limit % 1000 * 1_000_000).unwrap_or_default(),
    });
    let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
    let mut events = [nothing; MOST];
    let count = epoll::wait(poll, &mut events[..], limit.as_ref());
    let count = count.map_err(|errno| text_of(&errno.into()))?;
    let came = events.get(..count).unwrap_or_default();
    let told = |event: &Event| {
        let (data, flags) = (event.data, event.flags);
        (data.u64(), flags.bits())
    };
    let mut told: Vec<(u64, u32)> = came.iter().map(told).collect();
    told.sort_unstable();
    let told: Vec<_> = told.iter().map(|(data, events)| format!("{data:x}:{events:x}")).collect();
    Ok(told.join(" "))
}

fn owned(world: &mut World, fd: &str) -> Done {
    let given: RawFd = number(fd)?;
    let made = duplicate_of(given).map_err(|error| text_of(&error))?;
    let (own, _) = made.ok_or_else(|| "EBADF".to_owned())?;
    close(given).map_err(name_of)?;
    Ok(world.keep(own).to_string())
}

fn waiting(world: &mut World, what: &str, fd: &str, limit: &str) -> Done {
    let limit: i32 = number(limit)?;
    // A thread that waits is not to depend on what becomes of the victim's own.
    let own: RawFd = number(fd)?;
    let made = duplicate_of(own).map_err(|error| text_of(&error))?;
    let (fd, _) = made.ok_or_else(|| "EBADF".to_owned())?;
    match what {
        "await" => world.thread(move || awaited(fd.as_fd(), limit.into())),
        "poll" => world.thread(move || polled(fd.as_fd(), limit)),
        "select" => world.thread(move || selected(fd.as_fd(), limit)),
        _ => Err(format!("no such thing to wait for: {what}")),
    }
}

fn polled(fd: BorrowedFd<'_>, limit: i32) -> Done {
    let limit = PollTimeout::try_from(limit).map_err(|error| error.to_string())?;
    let count = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], limit);
    count.map(|count| count.to_string()).map_err(name_of)
}

fn selected(fd: BorrowedFd<'_>, limit: i32) -> Done {
    let mut set = FdSet::new();
    set.insert(fd);
    let mut limit = (limit >= 0).then(|| {
        let limit = i64::from(limit);
        TimeVal::new(limit / 1000, limit % 1000 * 1000)
    });
    let count = select(None, Some(&mut set), None, None, limit.as_mut());
    count.map(|count| count.to_string()).map_err(name_of)
}

/// Numbers of both kinds in many registers. The same each time.
fn result() -> (u64, u64) {
    let mut whole = black_box([1_u64, 2, 3, 5, 7, 11, 13, 17]);
    let mut broken = black_box([1.0_f64, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]);
    for round in 0..ROUNDS {
        for (whole, broken) in whole.iter_mut().zip(&mut broken) {
            *whole = whole.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(round);
            *broken = (*broken * 1.000_1 + 0.5).sqrt();
        }
    }
    let whole = whole.iter().fold(0, |all: u64, one| all.rotate_left(1) ^ one);
    let broken = broken.iter().fold(0, |all: u64, one| all.rotate_left(1) ^ one.to_bits());
    (whole, broken)
}

fn computed(fd: BorrowedFd<'_>) -> io::Result<String> {
    let expected = result();
    let (mut rounds, mut others) = (0_u64, 0_u64);
    loop {
        rounds += 1;
        others += u64::from(result() != expected);
        if poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO)? > 0 {
            return Ok(format!("{rounds} {others}"));
        }
    }
}
