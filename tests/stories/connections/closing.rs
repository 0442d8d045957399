//! Connections that are being made, or closed.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
};

use ucr_tests::{Host, outside, perl::Perl, wait};

use super::{PATTERN, Scene, Way, can, pattern};
use crate::world;

/// Dumps a connection in this state, which is waited for.
fn stopped_in(scene: &mut Scene, state: &str) {
    scene.until_shown(state, |shown| shown["state"] == state);
    scene.dump_and_kill();
    assert_eq!(scene.shown()["state"], state);
    scene.asks_in_vain();
}

#[test]
fn when_the_other_end_has_closed() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Six);
    scene.remote.write_all(b"last words").expect("write");
    scene.remote.shutdown(Shutdown::Write).expect("shut down");
    stopped_in(&mut scene, "close_wait");
    scene.restore();
    assert_eq!(scene.victim_reads_all(), "last words");
    scene.victim_writes("answer");
    assert_eq!(scene.victim.ask("close($s)"), "1");
    let mut answer = String::new();
    scene.remote.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "answer");
}

#[test]
fn when_this_end_has_closed() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.victim_writes("that was all");
    scene.victim.ask("shutdown($s, 1)");
    let mut all = String::new();
    scene.remote.read_to_string(&mut all).expect("read");
    assert_eq!(all, "that was all");
    scene.remote.write_all(b"one ").expect("write");
    stopped_in(&mut scene, "fin_wait2");
    scene.restore();
    scene.remote.write_all(b"two").expect("write");
    scene.remote.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(scene.victim_reads_all(), "one two");
}

#[test]
fn when_this_end_does_not_read_any_more() {
    if !can() {
        return;
    }
    for how in ["read", "both"] {
        let mut scene = Scene::new(Way::Four);
        scene.remote.write_all(b"one").expect("write");
        let number = if how == "read" { 0 } else { 2 };
        scene.victim.ask(&format!("shutdown($s, {number})"));
        scene.until_shown("what came", |shown| !shown["received"]["data"]["hex"].is_null());
        scene.dump_and_kill();
        scene.asks_in_vain();
        scene.restore();
        // What had come is there, and then it ends.
        assert_eq!(scene.victim_reads_all(), "one");
        if how == "read" {
            scene.victim_writes("and on");
            assert_eq!(scene.read(6), b"and on");
        }
        assert_eq!(scene.victim.ask("close($s)"), "1");
        let mut all = Vec::new();
        scene.remote.read_to_end(&mut all).expect("read");
        assert_eq!(all, b"");
    }
}

impl Scene {
    /// Says something to the victim, and closes one end, or both, so that its connection comes to a state: whoever
    /// closes first decides which.
    pub(super) fn closes(&mut self, state: &str, own: bool, theirs: bool) {
        self.remote.write_all(b"words").expect("write");
        let theirs_first = state == "last_ack";
        if theirs && theirs_first {
            self.remote.shutdown(Shutdown::Write).expect("shut down");
            self.until_shown("its FIN", |shown| shown["state"] == "close_wait");
        }
        if own {
            self.victim.ask("shutdown($s, 1)");
        }
        if theirs && !theirs_first {
            self.remote.shutdown(Shutdown::Write).expect("shut down");
        }
    }
}

/// Somebody's FIN stands behind data that the other end has no room for.
fn full(state: &str, own: bool, theirs: bool) {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Mapped);
    let sent = scene.fill();
    scene.closes(state, own, theirs);
    stopped_in(&mut scene, state);
    scene.restore();
    let mut all = Vec::new();
    if !theirs {
        scene.remote.shutdown(Shutdown::Write).expect("shut down");
    }
    scene.remote.read_to_end(&mut all).expect("read");
    assert!(all == pattern(sent), "{} of {sent} bytes", all.len());
    assert_eq!(scene.victim_reads_all(), "words");
}

#[test]
fn when_this_end_has_closed_and_it_is_not_known_there() {
    full("fin_wait1", true, false);
}

#[test]
fn when_both_have_closed_at_once() {
    full("closing", true, true);
}

#[test]
fn when_this_end_has_closed_last() {
    full("last_ack", true, true);
}

#[test]
fn when_nobody_has_answered_yet() {
    if can() {
        unanswered(Way::Four, Then::Restore);
    }
}

#[test]
fn when_nobody_has_answered_yet_over_ipv6() {
    if can() {
        unanswered(Way::Six, Then::Restore);
    }
}

#[test]
fn when_nobody_has_answered_yet_and_the_program_lives() {
    if can() {
        unanswered(Way::Four, Then::Replace);
        unanswered(Way::Six, Then::Replace);
    }
}

/// What becomes of a socket that was dumped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another program gets it.
    Restore,
    /// The same program gets a new one.
    Replace,
}

fn unanswered(way: Way, then: Then) {
    Host::new().enter();
    let world = world();
    let listener = TcpListener::bind((way.address(), 0)).expect("listen");
    // Nobody is let in any more: what asks for a connection is not answered.
    rustix::net::listen(&listener, 0).expect("listen");
    let address = listener.local_addr().expect("its address");
    let crowd: Vec<_> =
        (0..3).map(|_| thread::spawn(move || drop(TcpStream::connect(address)))).collect();
    // Of a listener this says how many wait to be accepted (`tcp_get_info`).
    wait::until("the queue to be full", || {
        let (level, option) = (libc::SOL_TCP, libc::TCP_INFO);
        let info = ucr::sys::sockopt::get_at(listener.as_fd(), level, option, 256);
        (info.expect("TCP_INFO")[24] > 0).then_some(())
    });
    let mut victim = Perl::start();
    victim.ask(PATTERN);
    let number = victim.number(&way.code(address.ip(), address.port()));
    victim.ask("use Fcntl; fcntl($s, F_SETFL, O_NONBLOCK); connect($s, $a)");
    let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
    let more: &[&str] = if then == Then::Restore { &["--kill"] } else { &[] };
    world.ucr.run(&[&["dump", "--pid", &pid, "-o", &image], more].concat()).done();
    let shown = world.ucr.run(&["show", "--json", &image]).done().json();
    assert_eq!(shown["sockets"][0]["inet"]["tcp"]["state"], "syn_sent");

    if then == Then::Restore {
        victim = Perl::by(world.ucr.command(&["restore", &image, "--"]));
        victim.ask(&format!(r#"open($s, "+<&=", {number})"#));
    } else {
        let before = outside::sockets(victim.pid());
        world.ucr.run(&["refresh", "--pid", &pid]).done();
        assert_ne!(outside::sockets(victim.pid()), before);
    }
    // There is room again. (All connections are made by cookies here, and the last ACK of one that is gone may pass for
    // the first of another, which is mute for ever.)
    let (tell, told) = mpsc::channel();
    let door = listener.try_clone().expect("a second descriptor");
    let doorman = thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut said = String::new();
                if stream.read_to_string(&mut said).is_ok() && said == "at last" {
                    tell.send(()).ok();
                }
            });
        }
    });
    victim.ask(r#"$w = ""; vec($w, fileno($s), 1) = 1; select(undef, $w, undef, 60)"#);
    assert_eq!(victim.ask(r#"syswrite($s, "at last")"#), "7");
    victim.ask("close($s)");
    for one in crowd {
        one.join().expect("a thread");
    }
    told.recv_timeout(wait::patience()).expect("what was said");
    rustix::net::shutdown(&door, rustix::net::Shutdown::Both).expect("close the door");
    doorman.join().expect("a thread");
}
