//! A restore that is killed: nothing stays locked, and nobody is told more than that there is nobody any more.

use std::{io::Write as _, process::Command};

use ucr_tests::wait;

use super::{Scene, Way, can, is_locked};

#[test]
fn its_lock_ends_with_it() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    // That of the dump is over soon, also if the restore has not taken its place yet when it is killed.
    scene.dump(&["--kill", "--lock-for", "2s"]).done();
    let image = scene.image().display().to_string();
    // Stopped again and again, so that it is seen on its way.
    wait::until("a restore that has locked the connection", || {
        let mut started = scene.world.ucr.start(&["restore", &image, "--", "sleep", "1000"]);
        let pid = started.pid();
        let is_now = || is_locked(pid);
        let seen = wait::holds(|| is_now() || !wait::is_alive(pid)) && is_now();
        if seen {
            let stopped = Command::new("kill").args(["-STOP", &pid.to_string()]).status();
            assert!(stopped.expect("run kill").success());
        }
        // It may have let go of it before it stood still; or be the program already.
        let is_there = seen && is_now();
        started.child().kill().expect("kill");
        drop(started.finish());
        is_there.then_some(())
    });
    scene.remote.write_all(b"?").expect("write");
    wait::until("a reset", || scene.has_noticed().then_some(()));
}
