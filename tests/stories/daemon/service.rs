//! What a service manager is told.

use std::{os::unix::net::UnixDatagram, time::Duration};

use nix::sys::signal::Signal;
use ucr_tests::{Need, daemon::Daemon, needs, wait};

use crate::world_alone;

/// A service manager's socket, and the first words of what came.
struct Manager(UnixDatagram);

impl Manager {
    fn next(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for a message; before it only pings may come, so many of them.
    fn hears(&self, word: &str) -> usize {
        let mut pings = 0;
        loop {
            match self.next() {
                told if told.starts_with(word) => return pings,
                told if told == "WATCHDOG=1" => pings += 1,
                told => panic!("{told} in place of {word}"),
            }
        }
    }
}

#[test]
fn a_life_is_told_in_its_order() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let path = world.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("bind"));
    manager.0.set_read_timeout(Some(wait::patience())).expect("set a time-out");
    let mut daemon = Daemon::configured(&world, &[]);
    let mut command = daemon.daemon_command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    daemon.begin_by(command);
    manager.hears("READY=1");
    // Twice as often as is asked for, until something else happens.
    for _ in 0..4 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP);
    manager.hears("RELOADING=1\nMONOTONIC_USEC=");
    manager.hears("READY=1");
    assert_eq!(manager.hears("WATCHDOG=1"), 0);
    let answer = daemon.stop().done();
    manager.hears("STOPPING=1");
    manager.0.set_read_timeout(Some(Duration::from_millis(1))).expect("set a time-out");
    assert!(manager.0.recv(&mut [0; 16]).is_err(), "that was the last word");
    assert!(answer.stderr.contains("ready"), "{}", answer.stderr);
}

#[test]
fn a_daemon_that_is_ready_overhears_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let path = world.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("bind"));
    manager.0.set_read_timeout(Some(wait::patience())).expect("set a time-out");
    let mut victim = world.victim();
    let mut daemon = Daemon::configured(&world, &[]);
    let mut command = daemon.daemon_command();
    command.env("NOTIFY_SOCKET", &path);
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            manager.hears("READY=1");
            victim.pair("stream");
        });
        daemon.begin_by(command);
        started.join().expect("the victim");
    });
    let pid = u32::try_from(victim.pid()).expect("a pid");
    wait::until("the pair", || {
        (super::Kept::read(&daemon.history()).events_of(pid) == 1).then_some(())
    });
    manager.0.set_nonblocking(true).expect("not wait");
    assert!(manager.0.recv(&mut [0; 16]).is_err(), "without a watchdog no pings");
}
