//! Names that are taken: nothing of others is touched, and what was begun is undone.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    os::unix::net::UnixListener,
    path::PathBuf,
};

use ucr_tests::{
    Answer, Need, World, needs, outside,
    ucr::{FAILED, NOBODY, REFUSED},
};

use super::{bring_back, take};
use crate::world;

/// An image of a listener by path, one by name, and a pair.
fn image(world: &World) -> PathBuf {
    let mut victim = world.victim();
    victim.listener("stream", &world.path_name("socket"), 3);
    victim.listener("stream", &world.abstract_name(b""), 3);
    victim.pair("stream");
    take(world, victim)
}

fn restore(world: &World, options: &[&str]) -> Answer {
    let image = world.path("image").display().to_string();
    let ran = world.path("ran").display().to_string();
    let arguments = [&["restore", image.as_str()], options, &["--", "touch", &ran]].concat();
    world.ucr.run(&arguments)
}

/// Nothing was restored: the name is free, the file is as it was.
fn nothing_is_left(world: &World) {
    assert!(!world.path("ran").exists());
    assert!(!outside::is_name_taken(&world.abstract_name(b"")[1..]));
}

#[test]
fn a_path_with_somebody_s_file_is_left_alone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    image(&world);
    let path = world.path("socket");
    fs::remove_file(&path).expect("the old socket file");
    fs::write(&path, "precious").expect("write");
    let inode = fs::metadata(&path).expect("the file").ino();
    let answer = restore(&world, &[]).ended(REFUSED);
    let _named = answer.complains("regular file").complains("--replace");
    nothing_is_left(&world);
    assert_eq!(fs::read(&path).expect("read"), b"precious");
    assert_eq!(fs::metadata(&path).expect("the file").ino(), inode);

    // With leave, its place is taken.
    let replaced = restore(&world, &["--replace"]).done();
    assert!(world.path("ran").exists(), "{}", replaced.stderr);
    assert!(fs::metadata(&path).expect("the file").file_type().is_socket());
}

#[test]
fn a_path_with_another_s_socket_is_left_alone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    image(&world);
    let path = world.path("socket");
    fs::remove_file(&path).expect("the old socket file");
    let live = UnixListener::bind(&path).expect("bind");
    for options in [&[][..], &["--replace"]] {
        let answer = restore(&world, options).ended(REFUSED);
        let _named = answer.complains("taken by a live socket");
        nothing_is_left(&world);
    }
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "it is still served");
    // Dead, it is still not ours.
    drop(live);
    let answer = restore(&world, &[]).ended(REFUSED);
    let _named = answer.complains("not the image's own");
    nothing_is_left(&world);
    restore(&world, &["--replace"]).done();
}

#[test]
fn the_image_s_own_socket_file_is_replaced_without_asking() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = image(&world);
    assert!(world.path("socket").exists(), "the dead process's file");
    let _back = bring_back(&world, &image);
}

#[test]
fn an_abstract_name_that_is_taken_is_named_with_its_holder() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    image(&world);
    let mut other = world.victim();
    let holder = other.listener("stream", &world.abstract_name(b""), 1);
    let file = fs::metadata(world.path("socket")).expect("the old socket file").ino();
    let answer = restore(&world, &[]).ended(REFUSED);
    let inode = other.inode(holder);
    let _named = answer.complains("taken by a live socket").complains(&inode.to_string());
    assert!(!world.path("ran").exists());
    // What it could have replaced is still there, the same.
    assert_eq!(fs::metadata(world.path("socket")).expect("the file").ino(), file);
}

#[test]
fn a_process_that_still_runs_holds_its_names() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.listener("stream", &world.abstract_name(b""), 3);
    let path = world.path("image");
    crate::dumping::dump(&world, &victim, &path, &["--leave-running"]).done();
    let answer = restore(&world, &[]).ended(REFUSED);
    let _named = answer.complains("taken by a live socket");
    victim.socket("stream");
}

#[test]
fn a_command_that_does_not_exist_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = image(&world).display().to_string();
    let path = world.path("socket");
    let restore = |replace: &[&str]| {
        let arguments = [&["restore", image.as_str()], replace, &["--", "/no/such/program"]];
        let answer = world.ucr.run(&arguments.concat()).ended(REFUSED);
        let _named = answer.complains("/no/such/program").complains("No such file or directory");
        nothing_is_left(&world);
    };
    // What was moved aside is back: the very same file, the image's own and another's.
    let before = fs::metadata(&path).expect("the old socket file").ino();
    restore(&[]);
    assert_eq!(fs::metadata(&path).expect("the old socket file").ino(), before);
    fs::remove_file(&path).expect("the old socket file");
    fs::write(&path, "precious").expect("write");
    restore(&["--replace"]);
    assert_eq!(fs::read(&path).expect("somebody's file"), b"precious");
}

#[test]
fn a_folder_that_is_gone_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    fs::create_dir(world.path("folder")).expect("a folder");
    let mut victim = world.victim();
    victim.listener("stream", &world.path_name("folder/socket"), 3);
    victim.listener("stream", &world.abstract_name(b""), 3);
    take(&world, victim);
    fs::remove_dir_all(world.path("folder")).expect("remove");
    let answer = restore(&world, &[]).ended(REFUSED);
    let _named = answer.complains("folder/socket");
    nothing_is_left(&world);
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = image(&world).display().to_string();
    let before = fs::metadata(world.path("socket")).expect("the old socket file").ino();
    let plan = world.ucr.run(&["restore", "--dry-run", &image]).done();
    assert!(plan.stdout.contains("listen on"), "{}", plan.stdout);
    let plan = world.ucr.run(&["restore", "--dry-run", "--json", &image]).done().json();
    assert_eq!(
        (&plan["sockets"], &plan["listeners"], &plan["pairs"]),
        (&4.into(), &2.into(), &1.into())
    );
    nothing_is_left(&world);
    assert_eq!(fs::metadata(world.path("socket")).expect("the file").ino(), before);
}

#[test]
fn without_privilege_nothing_is_touched() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = image(&world);
    let mode = |mode| <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(mode);
    fs::set_permissions(world.folder(), mode(0o755)).expect("let others in");
    let command = ["restore", image.to_str().expect("text"), "--", "true"];
    let unreadable = world.ucr.run_as_nobody(&command).ended(FAILED);
    let _named = unreadable.complains("Permission denied");
    std::os::unix::fs::chown(&image, Some(NOBODY), Some(NOBODY)).expect("give the image away");
    let answer = world.ucr.run_as_nobody(&command).ended(REFUSED);
    let _named = answer.complains("ermi");
    nothing_is_left(&world);
    assert!(world.path("socket").exists());
}
