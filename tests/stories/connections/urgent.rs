//! Urgent bytes (`MSG_OOB`).

use std::os::fd::AsFd as _;

use rustix::net::{SendFlags, send};

use super::{Scene, Way, can};

fn shout(scene: &Scene, text: &[u8]) {
    send(scene.remote.as_fd(), text, SendFlags::OOB).expect("send an urgent byte");
}

#[test]
fn one_that_waits() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    send(scene.remote.as_fd(), b"before", SendFlags::empty()).expect("send");
    shout(&scene, b"!");
    send(scene.remote.as_fd(), b"behind", SendFlags::empty()).expect("send");
    scene
        .until_shown("all of it", |shown| shown["received"]["data"].to_string().contains("behind"));
    scene.dump_and_kill();
    assert_eq!(scene.shown()["urgent"]["progress"], "waiting");
    scene.restore();
    assert_eq!(scene.victim.ask("recv($s, $q, 1, MSG_OOB); $q"), "!");
    // It parts what is before it from what is behind it.
    assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "before");
    assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "behind");
}

#[test]
fn one_that_was_read_parts_what_is_left() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Six);
    send(scene.remote.as_fd(), b"before", SendFlags::empty()).expect("send");
    shout(&scene, b"!");
    send(scene.remote.as_fd(), b"behind", SendFlags::empty()).expect("send");
    scene
        .until_shown("all of it", |shown| shown["received"]["data"].to_string().contains("behind"));
    assert_eq!(scene.victim.ask("recv($s, $q, 1, MSG_OOB); $q"), "!");
    scene.dump_and_kill();
    assert_eq!(scene.shown()["urgent"]["progress"], "read");
    scene.restore();
    assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "before");
    assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "behind");
}

#[test]
fn one_that_is_announced_and_one_that_waits_to_be_sent() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Mapped);
    let (sent, received) = (scene.fill(), scene.fill_victim());
    // There is room for neither, but in larger buffers (`SO_SNDBUFFORCE`).
    assert_eq!(
        scene.victim.ask(r#"setsockopt($s, SOL_SOCKET, 32, 30_000_000); send($s, "%", MSG_OOB)"#),
        "1"
    );
    rustix::net::sockopt::set_socket_send_buffer_size_force(&scene.remote, 30_000_000)
        .expect("room");
    shout(&scene, b"!");
    scene.until_shown("its announcement", |shown| !shown["urgent"].is_null());
    scene.dump_and_kill();
    let shown = scene.shown();
    assert!(shown["sent_urgent"].is_u64(), "{}", shown["sent_urgent"]);
    scene.restore();
    assert!(scene.victim_reads(received));
    assert_eq!(scene.victim.ask("recv($s, $q, 1, MSG_OOB); $q"), "!");
    scene.read(sent);
    let mut byte = [0_u8; 1];
    rustix::net::recv(&scene.remote, &mut byte, rustix::net::RecvFlags::OOB).expect("receive it");
    assert_eq!(&byte, b"%");
}
