//! Threads that wait at sockets while these are replaced: none learns of it, and what wakes them comes through the new
//! ones.

use std::time::{Duration, Instant};

use ucr_tests::{Need, Victim, World, needs, outside, wait, world::hex};

use super::{number, refresh};
use crate::world;

/// How often.
const TIMES: usize = 5;

/// Limits of time, in milliseconds: none, and one that nobody comes near.
const LIMITS: [&str; 2] = ["-1", "600000"];
/// The same as a `struct timeval`, for `SO_RCVTIMEO`.
const SECONDS: u64 = 600;

/// The calls that the victim's orders come down to, whichever of them its libraries take.
const ACCEPTING: &[i64] = &[libc::SYS_accept, libc::SYS_accept4];
const RECEIVING: &[i64] = &[libc::SYS_recvfrom];
/// With a limit, the kernel goes on with it by a call of its own.
const POLLING: &[i64] = &[libc::SYS_poll, libc::SYS_ppoll, libc::SYS_restart_syscall];
const SELECTING: &[i64] = &[libc::SYS_select, libc::SYS_pselect6, libc::SYS_restart_syscall];
const AWAITING: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

/// A thread that waits, and what wakes it.
struct Waiter {
    thread: i32,
    calls: &'static [i64],
    /// An order that has something come.
    wakes: String,
    /// The answer then; of an accepted connection, which has a number that nobody foretells, none.
    told: Option<String>,
}

impl Waiter {
    fn new(
        victim: &mut Victim,
        order: &str,
        calls: &'static [i64],
        wakes: String,
        told: Option<&str>,
    ) -> Self {
        let thread = victim.number(&format!("thread {order}"));
        let waiter = Self { thread, calls, wakes, told: told.map(str::to_owned) };
        waiter.waits(victim);
        waiter
    }

    /// It is in its call, again.
    fn waits(&self, victim: &Victim) {
        wait::until(&format!("thread {} to wait in {:?}", self.thread, self.calls), || {
            let call = outside::blocked_in(victim.pid(), self.thread);
            call.is_some_and(|call| self.calls.contains(&call)).then_some(())
        });
    }

    fn wakes(self, victim: &mut Victim) {
        victim.ask(&self.wakes);
        let told = victim.ask(&format!("join {}", self.thread));
        match self.told {
            Some(expected) => assert_eq!(told, expected, "{:?}", self.calls),
            None => assert!(told.parse::<i32>().is_ok(), "{told}"),
        }
    }
}

/// Gives a socket a limit of time for whatever is received through it.
fn limit(victim: &mut Victim, fd: i32) {
    let time = [SECONDS.to_ne_bytes(), 0_u64.to_ne_bytes()].concat();
    victim.ask(&format!("setopt {fd} {} {}", libc::SO_RCVTIMEO, hex(&time)));
}

/// One thread for each way of waiting.
fn waiters(world: &World, victim: &mut Victim) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for is_limited in [false, true] {
        let name = world.path_name(if is_limited { "limited" } else { "endless" });
        let listener = victim.listener("stream", &name, 5);
        let (from, to) = victim.pair("stream");
        let (sender, receiver) = victim.pair("dgram");
        if is_limited {
            [listener, to, receiver].into_iter().for_each(|fd| limit(victim, fd));
        }
        let client = victim.socket("stream");
        let connect = format!("connect {client} {}", hex(&name));
        waiters.push(Waiter::new(victim, &format!("accept {listener}"), ACCEPTING, connect, None));
        for (from, to) in [(from, to), (sender, receiver)] {
            let send = format!("send {from} something");
            let order = format!("recv {to}");
            waiters.push(Waiter::new(victim, &order, RECEIVING, send, Some("something")));
        }
    }
    for limit in LIMITS {
        for (order, calls) in [("poll", POLLING), ("select", SELECTING)] {
            let (from, to) = victim.pair("seqpacket");
            let send = format!("send {from} something");
            let order = format!("{order} {to} {limit}");
            waiters.push(Waiter::new(victim, &order, calls, send, Some("1")));
        }
        let (from, to) = victim.pair("stream");
        let epoll = victim.number("epoll");
        victim.ask(&format!("watch {epoll} {to} 1 beef"));
        let send = format!("send {from} something");
        let order = format!("await {epoll} {limit}");
        waiters.push(Waiter::new(victim, &order, AWAITING, send, Some("beef:1")));
    }
    waiters
}

#[test]
fn whoever_waits_is_woken_by_what_comes_through_the_new_ones() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let waiters = waiters(&world, &mut victim);
    for _ in 0..TIMES {
        let before = outside::sockets(victim.pid());
        let report = refresh(&world, victim.pid());
        assert_eq!(number(&report, "kept"), 0, "{report:#}");
        let after = outside::sockets(victim.pid());
        assert!(before.iter().all(|(fd, inode)| after.get(fd).is_some_and(|now| now != inode)));
        waiters.iter().for_each(|waiter| waiter.waits(&victim));
    }
    for waiter in waiters {
        waiter.wakes(&mut victim);
    }
}

#[test]
fn a_dump_is_not_seen_by_whoever_waits() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let waiters = waiters(&world, &mut victim);
    let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
    for _ in 0..TIMES {
        world.ucr.run(&["dump", "--pid", &pid, "-o", &image]).done();
        waiters.iter().for_each(|waiter| waiter.waits(&victim));
    }
    for waiter in waiters {
        waiter.wakes(&mut victim);
    }
}

/// The thread that ucr has make calls waits, too, in each of these ways.
#[test]
fn who_makes_calls_for_ucr_goes_on_waiting() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.path_name("socket");
    let listener = victim.listener("stream", &name, 5);
    let (from, to) = victim.pair("stream");
    let epoll = victim.number("epoll");
    victim.ask(&format!("watch {epoll} {to} 1 beef"));
    let mut child = victim.child(&world.control());
    let root = victim.pid();
    let mut orders = Vec::new();
    for is_limited in [false, true] {
        let limit = LIMITS[usize::from(is_limited)];
        orders.extend([
            (is_limited, format!("recv {to}"), RECEIVING, Some("something")),
            (is_limited, format!("accept {listener}"), ACCEPTING, None),
            (is_limited, format!("poll {to} {limit}"), POLLING, Some("1")),
            (is_limited, format!("select {to} {limit}"), SELECTING, Some("1")),
            (is_limited, format!("await {epoll} {limit}"), AWAITING, Some("beef:1")),
        ]);
    }
    for (is_limited, order, calls, told) in orders {
        if is_limited {
            [listener, to].into_iter().for_each(|fd| limit(&mut victim, fd));
        }
        victim.order(&order);
        let waits = || {
            wait::until(&format!("a victim to wait in {order}"), || {
                let call = outside::blocked_in(root, root);
                call.is_some_and(|call| calls.contains(&call)).then_some(())
            });
        };
        waits();
        for _ in 0..2 {
            let before = outside::inode(root, to);
            refresh(&world, root);
            assert_ne!(outside::inode(root, to), before);
            waits();
        }
        match told {
            Some(told) => {
                child.ask(&format!("send {from} something"));
                assert_eq!(victim.answer(&order), told, "{order}");
                if told != "something" {
                    assert_eq!(victim.ask(&format!("recv {to}")), "something");
                }
            }
            None => {
                let client = child.client("stream", &name);
                let accepted: i32 = victim.answer(&order).parse().expect("a descriptor");
                victim.close(accepted);
                child.close(client);
            }
        }
    }
}

#[test]
fn a_limit_of_time_is_over_when_it_is_over() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (_from, to) = victim.pair("stream");
    let epoll = victim.number("epoll");
    victim.ask(&format!("watch {epoll} {to} 1 beef"));
    let limit = Duration::from_millis(500);
    for (order, told) in [("poll", "0"), ("select", "0"), ("await", "")] {
        let fd = if order == "await" { epoll } else { to };
        let order = format!("{order} {fd} {}", limit.as_millis());
        let begun = Instant::now();
        let thread = victim.number(&format!("thread {order}"));
        victim.order(&order);
        refresh(&world, victim.pid());
        assert_eq!(victim.answer(&order), told, "{order}");
        assert!(begun.elapsed() >= limit, "{order}: {:?}", begun.elapsed());
        assert_eq!(victim.ask(&format!("join {thread}")), told, "{order}");
    }
}
