//! The pin directory: what somebody else could have put there is neither trusted nor touched.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Permissions},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
};

use ucr::tracer::hooks::{Hook, Need};
use ucr_common::control::Control;
use ucr_tests::{
    Answer, Need as Needs, Ucr, World, needs,
    ucr::{FAILED, NOBODY},
    world::hex,
};

use crate::world;

/// Runs a verb on another pin directory.
fn on(world: &World, directory: &Path, arguments: &[&str]) -> Answer {
    let directory = directory.to_str().expect("text");
    world.ucr.run(&[&["--pin-dir", directory], arguments].concat())
}

/// Every verb that would use what is pinned.
fn refused_by_all(world: &World, directory: &Path, words: &str) {
    let victim = world.victim();
    let image = world.path("image");
    let (pid, file) = (victim.pid().to_string(), image.display().to_string());
    let verbs: [&[&str]; 4] =
        [&["detach"], &["status"], &["trace"], &["dump", "--pid", &pid, "-o", &file]];
    for verb in verbs {
        let answer = on(world, directory, verb).ended(FAILED);
        let _named = answer.complains(directory.to_str().expect("text")).complains(words);
    }
    assert!(!image.exists());
}

/// A directory on the bpf file system. It goes when this is dropped.
struct Foreign(PathBuf);

impl Foreign {
    /// With a subdirectory, whose mode others may not write to.
    fn new(world: &World) -> Self {
        // Mounts a bpf file system where there is none.
        world.ucr.attach();
        let path = PathBuf::from(format!("{}-foreign", world.ucr.pins().display()));
        for directory in [path.clone(), path.join("maps")] {
            DirBuilder::new().mode(0o700).create(directory).expect("a directory");
        }
        Self(path)
    }

    fn is_whole(&self) -> bool {
        self.0.join("maps").is_dir()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let removed = fs::remove_dir(self.0.join("maps")).and_then(|()| fs::remove_dir(&self.0));
        if let Err(error) = removed {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

#[test]
fn a_directory_that_is_no_pin_directory_is_left_alone() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    let folder = world.path("folder");
    for inner in ["maps", "links"] {
        fs::create_dir_all(folder.join(inner)).expect("folders");
    }
    let files = ["maps/LEDGER", "maps/CONTROL", "links/sys_enter", "precious"];
    for file in files {
        fs::write(folder.join(file), file).expect("write");
    }
    refused_by_all(&world, &folder, "not on a bpf file system");
    for file in files {
        assert_eq!(fs::read(folder.join(file)).expect("read"), file.as_bytes());
    }
    let file = folder.join("precious");
    refused_by_all(&world, &file, "Not a directory");
    assert!(file.exists());
    let _refused = on(&world, &folder, &["attach"]).ended(FAILED).complains("bpf file system");
    assert_eq!(fs::read_dir(&folder).expect("list").count(), 3);
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    let foreign = Foreign::new(&world);
    chown(&foreign.0, Some(NOBODY), Some(NOBODY)).expect("give the directory away");
    refused_by_all(&world, &foreign.0, "belongs to another user");
    let _refused = on(&world, &foreign.0, &["attach"]).ended(FAILED).complains("another user");
    assert!(foreign.is_whole());
}

#[test]
fn a_directory_that_others_may_write_to_is_left_alone() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    let foreign = Foreign::new(&world);
    for mode in [0o720, 0o702, 0o1777] {
        fs::set_permissions(&foreign.0, Permissions::from_mode(mode)).expect("set a mode");
        refused_by_all(&world, &foreign.0, "others may write to it");
        assert!(foreign.is_whole());
    }
    // So is what is attached, once it has become such a directory.
    let pins = world.ucr.pins();
    fs::set_permissions(pins, Permissions::from_mode(0o770)).expect("set a mode");
    refused_by_all(&world, pins, "others may write to it");
    fs::set_permissions(pins, Permissions::from_mode(0o700)).expect("set a mode");
    world.ucr.run(&["status"]).done();
}

#[test]
fn a_symbolic_link_is_not_followed() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let link = world.path("link");
    symlink(world.ucr.pins(), &link).expect("link");
    refused_by_all(&world, &link, "open");
    assert!(link.is_symlink());
    world.ucr.run(&["status"]).done();
}

#[test]
fn what_is_not_ours_stays_and_is_named() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let pins = world.ucr.pins();
    let foreign = [pins.join("foreign"), pins.join("maps/foreign"), pins.join("links/foreign")];
    for directory in &foreign {
        fs::create_dir(directory).expect("a directory");
    }
    let answer = world.ucr.run(&["detach"]).ended(FAILED);
    let _named = answer.complains(&pins.display().to_string()).complains("not empty");
    for directory in &foreign {
        assert!(directory.is_dir(), "{}", directory.display());
    }
    // Ours is gone all the same: nothing traces any more.
    for ours in ["maps", "links"] {
        let left: Vec<_> = fs::read_dir(pins.join(ours)).expect("list").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    for directory in &foreign {
        fs::remove_dir(directory).expect("remove");
    }
    world.ucr.run(&["detach"]).done();
    assert!(!pins.exists());
}

#[test]
fn nobody_else_may_look_into_it() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let pins = world.ucr.pins();
    for directory in [pins.to_owned(), pins.join("maps"), pins.join("links")] {
        let mode = fs::metadata(&directory).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{}", directory.display());
    }
}

/// What was attached half-way is said to be by all, and cleared away.
fn incomplete(world: &World, words: &str) {
    let pins = world.ucr.pins();
    let victim = world.victim();
    let image = world.path("image").display().to_string();
    let pid = victim.pid().to_string();
    let verbs: [&[&str]; 3] = [&["status"], &["trace"], &["dump", "--pid", &pid, "-o", &image]];
    for verb in verbs {
        let answer = world.ucr.run(verb).ended(FAILED).complains("incomplete").complains(words);
        let _hinted = answer.complains("ucr detach");
    }
    assert!(!world.path("image").exists());
    let _taken = world.ucr.run(&["attach"]).ended(FAILED).complains("ucr detach");
    world.ucr.run(&["detach"]).done();
    assert!(!pins.exists());
    world.ucr.attach();
}

#[test]
fn an_attach_that_was_killed_before_it_had_seeded_is_incomplete() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut ledger = world.ucr.ledger();
    let control = ledger.control().expect("the control record");
    assert!(control.seeded_at >= control.attached_at && control.attached_at > 0);
    ledger.set_control(Control { seeded_at: 0, ..control }).expect("write the control record");
    drop(ledger);
    incomplete(&world, "seeding");
}

#[test]
fn an_attach_that_was_killed_before_it_had_pinned_is_incomplete() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let required = |hook: &&Hook| hook.need == Need::Required;
    let last = world.ucr.backend().hooks().iter().rfind(required).expect("a hook");
    let link = format!("links/{}", last.program);
    fs::remove_file(world.ucr.pins().join(&link)).expect("remove a pin");
    incomplete(&world, &link);
    fs::remove_file(world.ucr.pins().join("maps/LEDGER")).expect("remove a pin");
    incomplete(&world, "maps/LEDGER");
}

#[test]
fn a_name_that_is_no_text_is_a_name() {
    if !needs::met(&[Needs::Root]) {
        return;
    }
    let world = world();
    let mut name = world.ucr.pins().as_os_str().as_bytes().to_vec();
    name.extend_from_slice(b"-\xff\n");
    let pins = PathBuf::from(OsString::from_vec(name.clone()));
    let other = Ucr::at(pins.clone());
    other.attach();
    assert!(pins.join("maps/LEDGER").exists());
    let status = other.run(&["status", "--json"]).done().json();
    assert_eq!(status["pin_dir"]["hex"], hex(&name));
    let shown = other.run(&["status"]).done();
    assert!(shown.stdout.contains("attached at"), "{}", shown.stdout);
    let victim = world.victim();
    let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
    let report = other.run(&["dump", "--json", "--pid", &pid, "-o", &image]).done().json();
    assert_eq!(report["tracing_attached"], true);
    let _refused = other.run(&["attach"]).ended(FAILED).complains("attached already");
    other.run(&["detach"]).done();
    assert!(!pins.exists());
    let _refused = other.run(&["status", "--json"]).ended(FAILED).complains("not attached");
}
