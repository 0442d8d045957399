//! Directories that are looked up beneath another one: neither `..` nor a symbolic link leads out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::files::Facts;

/// How the name of a directory begins in which a restore binds what has lost its file; a pid and a number
/// follow.
pub const PRIVATE: &str = ".ucr-root-";

/// Whether that is what one is called.
#[must_use]
pub fn is_private(name: &[u8]) -> bool {
    name.starts_with(PRIVATE.as_bytes())
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How often a look-up is tried that somebody's renaming has disturbed (`EAGAIN`).
const TRIES: usize = 100;

/// Opens a directory (`O_PATH`) beneath the last of `roots`, each of which is looked up beneath the one
/// before. Without any, the path is an ordinary one.
///
/// # Errors
///
/// What `open` or `openat2` refuses; `ELOOP` where a link of `/proc` would have led out.
pub fn directory(roots: &[Vec<u8>], path: &[u8]) -> io::Result<OwnedFd> {
    let mut paths = roots.iter().map(Vec::as_slice).chain([path]);
    let first = paths.next().unwrap_or(path);
    let mut directory = open(OsStr::from_bytes(first), DIRECTORY, Mode::empty())?;
    for path in paths {
        directory = within(&directory, path)?;
    }
    Ok(directory)
}

fn within(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = OsStr::from_bytes(path);
    for _ in 1..TRIES {
        match openat2(&root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN) => {}
            result => return Ok(result?),
        }
    }
    Ok(openat2(&root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

/// Opens whatever a path leads to (`O_PATH`), as [`directory`]; a symbolic link at its end is followed.
///
/// # Errors
///
/// As [`directory`].
pub fn anything(root: Option<&[u8]>, path: &[u8]) -> io::Result<OwnedFd> {
    const ANYTHING: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
    match root {
        None => Ok(open(OsStr::from_bytes(path), ANYTHING, Mode::empty())?),
        Some(root) => {
            let root = directory(&[], root)?;
            let path = OsStr::from_bytes(path);
            Ok(openat2(root, path, ANYTHING, Mode::empty(), ResolveFlags::IN_ROOT)?)
        }
    }
}

/// An absolute path as its directory and the entry in it.
///
/// # Errors
///
/// `InvalidInput` for a path without a slash.
pub fn split(path: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/').ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.split_at(at + 1))
}

/// Facts about what lies at a path beneath these roots; a symbolic link at its end is not followed.
/// `None` if there is nothing.
///
/// # Errors
///
/// What `openat2` or `statx` refuses.
pub fn facts(roots: &[Vec<u8>], path: &[u8]) -> io::Result<Option<Facts>> {
    if roots.is_empty() {
        return Facts::at(path);
    }
    let (parent, name) = split(path)?;
    match directory(roots, parent) {
        Ok(directory) => Facts::in_directory(directory, OsStr::from_bytes(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out() {
        let outside = tempfile::tempdir().expect("a directory");
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("a/b")).expect("directories");
        fs::create_dir(outside.path().join("x")).expect("a directory outside");
        symlink(outside.path(), root.join("absolute")).expect("a link");
        symlink("../../..", root.join("a/relative")).expect("a link");
        symlink("/proc/self/cwd", root.join("magic")).expect("a link");
        let roots = [root.as_os_str().as_bytes().to_vec()];
        let id = |directory| Facts::of(&directory).expect("statx").id;
        let own =
            |path: &str| id(directory(&[], root.join(path).as_os_str().as_bytes()).expect("it"));
        for (path, leads_to) in [
            ("/", "."),
            ("/a/../../../..", "."),
            ("/a/relative", "."),
            ("/a/relative/a/b", "a/b"),
            ("a/b", "a/b"),
        ] {
            assert_eq!(id(directory(&roots, path.as_bytes()).expect(path)), own(leads_to));
        }
        for path in ["/absolute", "/absolute/x", "/a/relative/x", "/magic", "/x"] {
            assert!(directory(&roots, path.as_bytes()).is_err(), "{path}");
        }
        // One root beneath another.
        let nested = [roots[0].clone(), b"/a/relative/a".to_vec()];
        assert_eq!(id(directory(&nested, b"/../b").expect("nested")), own("a/b"));
        let found = anything(Some(&roots[0]), b"/a/relative").expect("followed");
        assert_eq!(id(found), own("."));
        assert!(anything(Some(&roots[0]), b"/magic").is_err());
        assert!(facts(&roots, b"/../../x").expect("statx").is_none());
    }
}
