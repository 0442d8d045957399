//! What the lock does, and when it ends.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use ucr_tests::{outside, wait};

use super::{Scene, Way, can, is_locked, pattern};

#[test]
fn nobody_answers_for_a_process_that_was_killed() {
    if !can() {
        return;
    }
    for way in [Way::Four, Way::Six] {
        let mut scene = Scene::new(way);
        // Connections of others between the very same addresses: one that is there, and one that comes later.
        let listener = TcpListener::bind((way.address(), 0)).expect("listen");
        let there = listener.local_addr().expect("its address");
        let mut others = vec![(TcpStream::connect(there).expect("connect"), listener.accept())];
        scene.dump_and_kill();
        scene.remote.write_all(b"is there anybody?").expect("write");
        scene.asks_in_vain();
        assert!(!scene.has_noticed(), "{way:?}");
        others.push((TcpStream::connect(there).expect("connect"), listener.accept()));
        for (near, far) in &mut others {
            let (far, _) = far.as_mut().expect("accept");
            near.write_all(b"all the same").expect("write");
            let mut heard = [0; 12];
            far.read_exact(&mut heard).expect("read");
            assert_eq!(&heard, b"all the same");
        }
        scene.restore();
        assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "is there anybody?");
    }
}

#[test]
fn it_ends_when_its_time_is_over() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.dump(&["--kill", "--lock-for", "2s"]).done();
    scene.remote.write_all(b"?").expect("write");
    assert!(!scene.has_noticed());
    // Then the kernel says that there is nobody.
    wait::until("a reset", || scene.has_noticed().then_some(()));
}

#[test]
fn it_ends_when_a_restore_fails() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.dump_and_kill();
    let image = scene.image().display().to_string();
    scene.world.ucr.run(&["restore", &image, "--dry-run"]).done();
    scene.remote.write_all(b"?").expect("write");
    scene.asks_in_vain();
    assert!(!scene.has_noticed());
    let _refused = scene.world.ucr.run(&["restore", &image, "--", "/nonexistent"]).ended(3);
    assert!(!scene.has_noticed(), "nothing was begun");
    // A program that is there and cannot be executed.
    let broken = scene.world.path("broken");
    std::fs::write(&broken, b"#!/nonexistent\n").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&broken, mode).expect("executable");
    let broken = broken.display().to_string();
    let _failed = scene.world.ucr.run(&["restore", &image, "--", &broken]).ended(1);
    wait::until("a reset", || scene.has_noticed().then_some(()));
}

#[test]
fn it_ends_with_the_process_that_is_dumping() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    let (pid, image) = (scene.victim.pid().to_string(), scene.image().display().to_string());
    let victim = scene.victim.pid();
    let stands = |_: i32| outside::state(victim) == Some('t');
    let moments: [(&str, &dyn Fn(i32) -> bool); 2] =
        [("the process stands", &stands), ("the connection is locked", &is_locked)];
    for (what, is_now) in moments {
        // A dump may be over before anybody sees that.
        wait::until(what, || {
            let mut started = scene.world.ucr.start(&["dump", "--pid", &pid, "-o", &image]);
            let seen = wait::holds(|| is_now(started.pid()) || !wait::is_alive(started.pid()))
                && is_now(started.pid());
            started.child().kill().expect("kill");
            drop(started.finish());
            seen.then_some(())
        });
        wait::until("the process to go on", || {
            outside::state(victim).filter(|state| *state != 't')
        });
        scene.victim_writes("still here");
        assert_eq!(scene.read(10), b"still here");
    }
    scene.remote.write_all(&pattern(1000)).expect("write");
    assert!(scene.victim_reads(1000));
}

/// What came since it was over was acknowledged, and is in no image: whoever is dumped lives on.
#[test]
fn a_lock_that_is_over_before_the_end_kills_nobody() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.dump(&["--kill", "--lock-for", "1us"]).ended(1).complains("--lock-for");
    scene.dump(&["--kill", "--lock-for", "0s"]).ended(2).complains("a lock of no time");
    scene.victim_writes("still here");
    assert_eq!(scene.read(10), b"still here");
    scene.remote.write_all(&pattern(1000)).expect("write");
    assert!(scene.victim_reads(1000));
}
