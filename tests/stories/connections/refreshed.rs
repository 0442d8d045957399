//! Connections whose socket is replaced in the process that has it. The other end stays, and must not notice.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use serde_json::Value;
use ucr_tests::{
    doomed::{self, Call, Moment},
    outside,
    perl::Perl,
    ucr::REFUSED,
};

use super::{PATTERN, Scene, Way, can, pattern};

impl Scene {
    /// Has the sockets of the perl replaced, while it is in the middle of something.
    fn refresh(&self) -> Value {
        let before = outside::sockets(self.victim.pid());
        let pid = self.victim.pid().to_string();
        let report = self.world.ucr.run(&["refresh", "--json", "--pid", &pid]).done().json();
        assert_eq!((&report["replaced"], &report["kept"]), (&1.into(), &0.into()), "{report:#}");
        let after = outside::sockets(self.victim.pid());
        let same = before.iter().filter(|(fd, inode)| after.get(fd) == Some(inode)).count();
        assert_eq!((after.len(), same), (before.len(), 0), "{before:?} {after:?}");
        report
    }

    /// So much of what comes to the perl.
    fn victim_hears(&mut self, length: usize) -> String {
        self.victim.ask(&format!(
            r#"$g = ""; while (length($g) < {length}) {{ sysread($s, $q, {length} - length($g)); $g .= $q }} $g"#
        ))
    }

    /// What a dump says of the only socket, but for what is another one's.
    fn looks(&self) -> Value {
        self.dump(&[]).done();
        let image = self.image().display().to_string();
        let shown = self.world.ucr.run(&["show", "--json", &image]).done().json();
        let mut socket = shown["sockets"][0].clone();
        let fields = socket.as_object_mut().expect("an object");
        for other in ["cookie", "inode", "created_at", "creator", "known_from", "sources"] {
            fields.remove(other);
        }
        // Its own clock goes on, and the other end was asked for its window.
        socket["inet"]["tcp"]["agreed"]["timestamp"].take();
        socket["inet"]["tcp"]["window"]["send_update"].take();
        // How it acknowledges changes by itself.
        let options = socket["inet"]["options"].as_array_mut().expect("options");
        options.retain(|option| option["name"] != "TCP_QUICKACK");
        socket
    }
}

/// In the middle of a conversation, more than once.
fn talking(way: Way) {
    if !can() {
        return;
    }
    let mut scene = Scene::new(way);
    scene.remote.write_all(&pattern(100)).expect("write");
    scene.victim_writes("one");
    // What is on its way comes before it is looked at.
    scene.until_shown("what was sent", |shown| !shown["received"]["data"]["hex"].is_null());
    let before = scene.looks();
    for _ in 0..3 {
        scene.refresh();
        assert_eq!(scene.looks(), before);
    }
    assert_eq!(scene.read(3), b"one");
    assert!(scene.victim_reads(100));
    scene.goes_on(0, 0);
}

#[test]
fn over_ipv4() {
    talking(Way::Four);
}

#[test]
fn over_ipv6() {
    talking(Way::Six);
}

#[test]
fn over_ipv4_by_a_socket_of_ipv6() {
    talking(Way::Mapped);
}

#[test]
fn with_full_queues_in_both_directions() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Six);
    let (sent, received) = (scene.fill(), scene.fill_victim());
    for _ in 0..2 {
        scene.refresh();
    }
    assert!(scene.read(sent) == pattern(sent));
    assert!(scene.victim_reads(received));
    scene.victim_writes("bye");
    assert_eq!(scene.read(3), b"bye");
    assert!(!scene.has_noticed());
}

/// Somebody has closed, and what was said before waits, or does not fit in.
fn closing(state: &str, own: bool, theirs: bool, is_full: bool) {
    let mut scene = Scene::new(Way::Four);
    let sent = if is_full { scene.fill() } else { 0 };
    scene.closes(state, own, theirs);
    scene.until_shown(state, |shown| shown["state"] == state);
    let before = scene.looks();
    scene.refresh();
    scene.refresh();
    assert_eq!(scene.looks(), before);
    if !theirs {
        scene.remote.shutdown(Shutdown::Write).expect("shut down");
    }
    assert_eq!(scene.victim_reads_all(), "words");
    if !own {
        scene.victim.ask("shutdown($s, 1)");
    }
    let mut all = Vec::new();
    scene.remote.read_to_end(&mut all).expect("read");
    assert!(all == pattern(sent), "{} of {sent} bytes", all.len());
}

#[test]
fn in_every_state_of_closing() {
    if !can() {
        return;
    }
    closing("close_wait", false, true, false);
    closing("fin_wait2", true, false, false);
    closing("fin_wait1", true, false, true);
    closing("closing", true, true, true);
    closing("last_ack", true, true, true);
}

/// The program has read the end and not closed yet: the FIN has been read as well.
#[test]
fn whose_end_was_read() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.remote.write_all(b"last words").expect("write");
    scene.remote.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(scene.victim_reads_all(), "last words");
    scene.refresh();
    assert_eq!(scene.victim_reads_all(), "");
    scene.victim_writes("answer");
    scene.victim.ask("close($s)");
    let mut answer = String::new();
    scene.remote.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "answer");
}

#[test]
fn with_an_urgent_byte() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.remote.write_all(b"ab").expect("write");
    let flags = rustix::net::SendFlags::OOB;
    rustix::net::send(&scene.remote, b"!", flags).expect("send out of band");
    scene.remote.write_all(b"cd").expect("write");
    scene.until_shown("the urgent byte", |shown| !shown["urgent"].is_null());
    scene.refresh();
    assert_eq!(scene.victim.ask(r#"recv($s, $u, 1, MSG_OOB); $u"#), "!");
    assert_eq!(scene.victim_hears(4), "abcd");
    scene.goes_on(0, 0);
}

/// Left stopped, its connection is locked until it has it again. What came meanwhile comes again.
#[test]
fn by_a_dump_that_leaves_it_stopped_and_a_restore() {
    if !can() {
        return;
    }
    for way in [Way::Four, Way::Six] {
        let mut scene = Scene::new(way);
        scene.victim_writes("before");
        assert_eq!(scene.read(6), b"before");
        scene.dump(&["--leave-stopped"]).done().complains("locked");
        scene.remote.write_all(b"meanwhile").expect("write");
        assert!(scene.asks_in_vain());
        let before = outside::sockets(scene.victim.pid());
        let image = scene.image().display().to_string();
        scene.world.ucr.run(&["restore", &image, "--into"]).done();
        let after = outside::sockets(scene.victim.pid());
        assert!(before.keys().eq(after.keys()) && before.values().ne(after.values()));
        assert_eq!(scene.victim_hears(9), "meanwhile");
        scene.goes_on(0, 0);
    }
}

/// The lock that a dump has left lasts until there is a socket again, whoever dies in between.
#[test]
fn by_a_restore_after_one_that_was_killed() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.dump(&["--leave-stopped"]).done();
    let image = scene.image().display().to_string();
    let restore = scene.world.ucr.command(&["restore", &image, "--into"]);
    scene.world.ucr.watch();
    let moment = Moment::AfterThe(0, Call::of(libc::SYS_connect));
    assert_eq!(doomed::run(&restore, Some(moment)).code, None);
    scene.remote.write_all(b"meanwhile").expect("write");
    assert!(scene.asks_in_vain());
    scene.world.ucr.run(&["restore", &image, "--into"]).done();
    assert_eq!(scene.victim_hears(9), "meanwhile");
    scene.goes_on(0, 0);
}

/// Into a program that has something else at that number.
#[test]
fn in_another_program() {
    if !can() {
        return;
    }
    for way in [Way::Four, Way::Six] {
        let mut scene = Scene::new(way);
        let old = scene.victim.pid();
        scene.dump_and_kill();
        scene.remote.write_all(b"meanwhile").expect("write");
        let mut other = Perl::start();
        other.ask(PATTERN);
        assert_eq!(other.number("socket($s, AF_INET, SOCK_DGRAM, 0); fileno($s)"), scene.fd);
        let (image, map) = (scene.image().display().to_string(), format!("{old}={}", other.pid()));
        scene.world.ucr.run(&["restore", &image, "--into", &map]).done();
        scene.victim = other;
        assert_eq!(scene.victim_hears(9), "meanwhile");
        scene.goes_on(0, 0);
    }
}

#[test]
fn from_an_image_whose_sockets_were_replaced_since_it_is_refused() {
    if !can() {
        return;
    }
    for way in [Way::Four, Way::Six] {
        let mut scene = Scene::new(way);
        scene.dump(&[]).done();
        let image = scene.image().display().to_string();
        scene.world.ucr.run(&["restore", &image, "--into"]).done();
        let before = outside::sockets(scene.victim.pid());
        let refused = scene.world.ucr.run(&["restore", &image, "--into"]).ended(REFUSED);
        let _told = refused.complains("is another socket than when the image was made");
        assert_eq!(outside::sockets(scene.victim.pid()), before);
        scene.goes_on(0, 0);
    }
}

#[test]
fn from_an_image_that_is_not_true_any_more_it_is_refused() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.dump(&[]).done();
    scene.remote.write_all(b"more").expect("write");
    let (before, image) =
        (outside::sockets(scene.victim.pid()), scene.image().display().to_string());
    let refused = scene.world.ucr.run(&["restore", &image, "--into"]);
    refused.ended(REFUSED).complains("has sent or received something since the image was made");
    assert_eq!(outside::sockets(scene.victim.pid()), before);
    assert_eq!(scene.victim_hears(4), "more");
    scene.goes_on(0, 0);
}
