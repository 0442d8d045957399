//! A second daemon, or a third: refused by name, and none the worse for the first.

use std::{
    fmt::Write as _,
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use ucr_tests::{
    Need, World,
    daemon::Daemon,
    needs,
    ucr::{Answer, FAILED, Started},
    wait,
};

use super::{Kept, status};
use crate::world_alone;

/// Runs a second one, which has everything for itself but what is the first one's; its folder.
fn run_beside(world: &World, first: &Daemon<'_>, shared: &str) -> (Answer, PathBuf) {
    let folder = world.path(shared);
    fs::create_dir_all(&folder).expect("make a folder");
    let mut pins = world.ucr.pins().as_os_str().to_owned();
    pins.push("-second");
    let own = [
        ("control", "control.socket", folder.join("control.sock"), first.control()),
        ("history", "history.file", folder.join("history.db"), first.history()),
        ("pins", "tracing.pin_dir", pins.into(), world.ucr.pins().to_owned()),
    ];
    let mut settings = "tracing.on_stop = 'detach'\n".to_owned();
    for (what, key, own, of_first) in own {
        let path = if what == shared { of_first } else { own };
        writeln!(settings, "{key} = {path:?}").expect("write to a text");
    }
    let config = folder.join("ucr.toml");
    fs::write(&config, settings).expect("write a configuration");
    let mut command = world.ucr.command(&["daemon", "--config"]);
    command.arg(config);
    (Started::new(command).finish(), folder)
}

#[test]
fn a_second_daemon_is_refused_by_name_and_harms_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut first = Daemon::start(&world);
    let pid = first.pid();
    for (shared, why) in [
        ("control", format!("the daemon with pid {pid} answers at")),
        ("history", format!("is being written by process {pid}")),
        ("pins", format!("process {pid}")),
    ] {
        let (answer, folder) = run_beside(&world, &first, shared);
        answer.ended(FAILED).complains(&why);
        assert!(!folder.join("control.sock").exists(), "{shared}: its own socket is gone");
        let mut pins = world.ucr.pins().as_os_str().to_owned();
        pins.push("-second");
        assert!(!Path::new(&pins).exists(), "{shared}: it has attached nothing");
        assert!(world.ucr.pins().exists(), "{shared}");
        let mut victim = world.victim();
        let (closed, _) = victim.pair("stream");
        let inode = victim.inode(closed);
        victim.close(closed);
        wait::until("the first one to go on", || {
            let kept = Kept::read(&first.history());
            kept.gone.iter().any(|gone| gone.inode == Some(inode)).then_some(())
        });
        assert_eq!(status(&first).pid.to_string(), pid.to_string());
    }
    first.stop().done();
}

#[test]
fn what_a_killed_daemon_left_behind_is_in_nobodys_way() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start(&world);
    daemon.kill();
    assert!(daemon.control().exists());
    daemon.begin();
    daemon.stop().done();
    assert!(!daemon.control().exists());
}

#[test]
fn what_is_not_the_daemons_is_left_alone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::configured(&world, &[]);
    let path = daemon.control();
    fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
    fs::write(&path, "precious").expect("write a file");
    daemon.run_to_its_end().ended(FAILED).complains("is no socket");
    assert_eq!(fs::read_to_string(&path).expect("read the file"), "precious");

    fs::remove_file(&path).expect("remove the file");
    std::os::unix::fs::symlink(world.path("target"), &path).expect("make a link");
    daemon.run_to_its_end().ended(FAILED).complains("is no socket");
    fs::remove_file(&path).expect("remove the link");

    // Somebody else's server.
    let other = UnixListener::bind(&path).expect("listen");
    daemon.run_to_its_end().ended(FAILED).complains("somebody answers at");
    assert!(path.exists());
    drop(other);
    assert!(!world.ucr.pins().exists());
}
