//! What each end says of how much it takes.

use std::{fs, io::Write as _, net::TcpListener, thread};

use ucr_tests::{Host, Need, needs, wait};

use super::{Scene, Way, can, pattern};
use crate::world;

/// How often somebody on a host has asked another end for its window (`TCPWinProbe`).
fn questions(host: &Host) -> u64 {
    let told = host.within(|| fs::read_to_string("/proc/thread-self/net/netstat"));
    let told = told.expect("the counters of the network");
    let mut lines = told.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let mut line = || lines.next().expect("names and numbers").split(' ');
    let number = line().zip(line()).find(|(name, _)| *name == "TCPWinProbe");
    number.and_then(|(_, number)| number.parse().ok()).expect("the number")
}

/// Whoever has filled the queue of the dumped end asks more and more rarely whether there is room again. When there is
/// it must be told: it may not ask again for as long as the dumped end was away.
#[test]
fn the_other_end_is_told_when_there_is_room_again() {
    if !can() || !needs::met(&[Need::Program("ip")]) {
        return;
    }
    let (near, far) = Host::pair();
    let listener = far.within(|| TcpListener::bind("10.99.0.2:0").expect("listen"));
    near.enter();
    let is_told = || {
        let mut scene = Scene::with(world(), Way::Four, [10, 99, 0, 2].into(), &listener);
        // For whoever reads much the kernel makes the buffer larger than what it tells another end at first.
        let (data, mut remote) = (pattern(15_000_000), scene.remote.try_clone().expect("the same"));
        thread::scope(|scope| {
            let much = &data[..2_000_000];
            let writes = scope.spawn(move || remote.write_all(much).expect("write"));
            assert!(scene.victim_reads(much.len()));
            writes.join().expect("all is written");
        });
        let (mut written, before) = (0, questions(&far));
        scene.remote.set_nonblocking(true).expect("no waiting");
        wait::until("the window to be shut", || {
            while let Ok(more @ 1..) = scene.remote.write(&data[written..]) {
                written += more;
            }
            (questions(&far) > before).then_some(())
        });
        scene.dump_and_kill();
        // After so many the next one comes in more than a second.
        let before = questions(&far);
        wait::until("questions", || (questions(&far) >= before + 2).then_some(()));
        let before = questions(&far);
        scene.restore();
        assert!(scene.victim_reads(written));
        questions(&far) == before
    };
    // On a machine that is slow just now it may have asked all the same.
    assert!((0..5).any(|_| is_told()));
}
