//! The image is there whole or not at all.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ucr_tests::{Need, needs, ucr::FAILED};

use super::dump;
use crate::world;

#[test]
fn a_folder_that_is_missing_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let nowhere = world.path("missing/image");
    let answer = dump(&world, &victim, &nowhere, &[]).ended(FAILED);
    let _named = answer.complains("missing").complains("No such file or directory");
    let _refused = dump(&world, &victim, world.folder(), &[]).ended(FAILED);
}

/// A file system of 32 KiB, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a folder");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=32k"))
            .expect("mount a small file system");
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("left mounted: {}: {errno}", self.0.display());
        }
    }
}

#[test]
fn a_full_disk_leaves_no_half_of_an_image() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.ask("limit 8192");
    victim.ask("pairs 1000");
    let disk = Small::mount(world.path("disk"));
    let image = disk.0.join("image");
    fs::write(&image, "an older one").expect("write");

    let answer = dump(&world, &victim, &image, &["--kill"]).ended(FAILED);
    let _named = answer.complains("No space left on device");
    assert_eq!(fs::read(&image).expect("read"), b"an older one");
    let left: Vec<_> = fs::read_dir(&disk.0).expect("list").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    victim.socket("stream");
}

#[test]
fn an_image_that_is_there_is_replaced() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let image = world.path("image");
    fs::write(&image, "an older one").expect("write");
    victim.pair("stream");
    let report = dump(&world, &victim, &image, &[]).done().json();
    assert_eq!(report["image"]["bytes"], fs::metadata(&image).expect("the image").len());
    world.ucr.run(&["show", image.to_str().expect("text")]).done();
}

#[test]
fn an_image_may_lie_under_a_name_that_is_no_text() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let image = world.folder().join(OsStr::from_bytes(b"im\xff\ne"));
    let pid = format!("--pid={}", victim.pid());
    let file = image.as_os_str();
    let arguments = |words: &[&'static str], file: &OsStr| {
        let words = words.iter().map(OsString::from);
        words.chain([file.to_owned()]).collect::<Vec<_>>()
    };
    for json in [true, false] {
        let mut dump = arguments(if json { &["dump", "--json"] } else { &["dump"] }, pid.as_ref());
        dump.extend(arguments(&["-o"], file));
        let written = world.ucr.run(&dump).done();
        assert!(image.exists());
        assert!(!written.stderr.contains("panicked"), "{}", written.stderr);
        if json {
            let hex = written.json()["image"]["path"]["hex"].as_str().map(str::to_owned);
            assert_eq!(hex, Some(ucr_tests::world::hex(file.as_bytes())));
        }
    }
    world.ucr.run(&arguments(&["show"], file)).done();
    let shown = world.ucr.run(&arguments(&["show", "--json"], file)).done().json();
    assert_eq!(shown["sockets"].as_array().expect("a list").len(), 2);
    let dry_run = arguments(&["restore", "--dry-run", "--json"], file);
    assert_eq!(world.ucr.run(&dry_run).done().json()["pairs"], 1);
    fs::remove_file(&image).expect("remove the image");
    let missing = world.ucr.run(&arguments(&["show"], file)).ended(FAILED);
    assert!(!missing.stderr.contains("panicked"), "{}", missing.stderr);
}

#[test]
fn a_device_is_not_replaced() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let device = Path::new("/dev/full");
    let answer = dump(&world, &victim, device, &[]).ended(FAILED);
    let _named = answer.complains("/dev/full is not a regular file");
    assert!(fs::metadata(device).expect("the device").file_type().is_char_device());
}
