//! Image files: written whole or not at all, read with suspicion.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ucr::image::DecodeError;
use ucr::image::file::{ImageFileError, read, write};

use crate::support::*;

#[test]
fn a_file_is_private_replaces_an_old_one_and_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fs::write(&path, "something older").unwrap();
    let image = everything(Path::new("/run/ucr"));
    let size = write(&path, &image).unwrap();
    let facts = fs::metadata(&path).unwrap();
    assert_eq!((facts.len(), facts.permissions().mode() & 0o7777), (size, 0o600));
    assert_eq!(read(&path).unwrap(), image);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn only_regular_files_are_replaced_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let image = everything(Path::new("/run/ucr"));
    let link = directory.path().join("link");
    symlink("/nowhere/at/all", &link).unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&link, &pipe, &directory.path().to_path_buf()] {
        assert!(matches!(write(path, &image), Err(ImageFileError::NotRegular { .. })));
    }
    // A pipe without a writer must not be waited for.
    assert!(matches!(read(&pipe), Err(ImageFileError::NotRegular { .. })));
    assert!(matches!(read(directory.path()), Err(ImageFileError::NotRegular { .. })));
    assert!(matches!(read(Path::new("-")), Err(ImageFileError::Stream)));
    assert!(matches!(write(Path::new("-"), &image), Err(ImageFileError::Stream)));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = everything(Path::new("/run/ucr"));
    let missing = directory.path().join("missing/image");
    assert!(matches!(write(&missing, &image), Err(ImageFileError::Io { .. })));
    image.processes.clear();
    let path = directory.path().join("image");
    assert!(matches!(write(&path, &image), Err(ImageFileError::Encode(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_bad_file_is_named_with_its_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty");
    fs::write(&path, "").unwrap();
    match read(&path).unwrap_err() {
        ImageFileError::Decode { path: named, source: DecodeError::Empty } => {
            assert_eq!(named, path);
        }
        other => panic!("{other:?}"),
    }
}
