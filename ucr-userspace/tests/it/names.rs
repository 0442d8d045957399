//! Names that are taken, files that are moved aside, and one file under several names.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use ucr::image::*;
use ucr::model::*;
use ucr::process::files::Facts;
use ucr::restore::execute::{Execution, Failed, StepError, execute};
use ucr::restore::names::{Foreign, Here, NameError, spellings, survey};
use ucr::restore::plan::{PlanError, plan, plan_knowing};

use crate::execution::{differences, files};
use crate::support::*;

/// As `/run` and `/var/run` are one: a listener that lost its file, the one that has it now, and a
/// name that leads there by way of another directory.
#[test]
fn one_file_under_several_spellings_is_one_name() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("run")).unwrap();
    std::os::unix::fs::symlink("run", at("varrun")).unwrap();
    drop(UnixListener::bind(at("run/x")).unwrap());
    let id = Facts::at(at("run/x").as_os_str().as_bytes()).unwrap().unwrap().id;
    let own = SocketFile::Present { id, mode: 0o600, uid: 0, gid: 0 };
    let mut b = Builder::new();
    b.listener(SocketType::Stream, path_name(at("varrun/x"), SocketFile::Replaced));
    b.listener(SocketType::Stream, path_name(at("run/../run/x"), SocketFile::Deleted));
    b.listener(SocketType::Stream, path_name(at("run/x"), own.clone()));
    b.listener(SocketType::Stream, path_name(at("varrun/other"), own.clone()));
    let plan = plan(&b.0).unwrap();
    assert_eq!(plan.paths.len(), 2);
    assert!(spellings(&plan).is_empty());
    let seen = view();
    let here = Here { boot_id: "this boot", view: &seen, somaxconn: None, in_place: None };
    let asides = survey(&plan, &b.0, here, Foreign::Refuse).unwrap();
    assert_eq!(asides.len(), 1);
    let restored = execute(&plan.with_asides(asides), &b.0, Execution::default()).unwrap();
    assert_eq!(differences(&b.0, &restored), []);
    drop(restored);

    // Two that keep one place are found out by whoever looks.
    b.listener(SocketType::Stream, path_name(at("varrun/x"), own));
    let first = ucr::restore::plan::plan(&b.0).unwrap();
    assert_eq!(first.paths.len(), 3);
    let error = plan_knowing(&b.0, &spellings(&first)).unwrap_err();
    assert!(matches!(error, PlanError::NameTwice { .. }), "{error}");
}

#[test]
fn foreign_files_are_left_alone_and_all_of_them_named() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("file"), "foreign").unwrap();
    fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();
    drop(UnixListener::bind(at("stale")).unwrap());
    let live = UnixListener::bind(at("live")).unwrap();
    let mut b = Builder::new();
    for name in ["file", "directory", "link", "stale", "live", "free", "missing/x"] {
        b.listener(SocketType::Stream, path_name(at(name), present(0o600)));
    }
    let abstract_live = OwnedFd::from(rustix_listener(b"ucr-test-live"));
    b.listener(SocketType::Stream, abstract_name(b"ucr-test-live"));
    let plan = plan(&b.0).unwrap();
    let seen = view();
    let here = Here { boot_id: "this boot", view: &seen, somaxconn: None, in_place: None };
    let before = files(directory.path());
    let said = |foreign| {
        let errors = survey(&plan, &b.0, here, foreign).unwrap_err();
        let root = directory.path().to_str().unwrap();
        let show = |error: &NameError| error.to_string().replace(root, "DIR");
        errors.iter().map(show).collect::<Vec<_>>()
    };
    let inode = |fd: BorrowedFd<'_>| ucr::process::state::inode(fd).unwrap();
    let live = format!("DIR/live is taken by a live socket (inode {})", inode(live.as_fd()));
    let taken = inode(abstract_live.as_fd());
    let taken = format!("@ucr-test-live is taken by a live socket (inode {taken})");
    let missing = "open the directory of DIR/missing/x: No such file or directory (os error 2)";
    assert_eq!(
        said(Foreign::Refuse),
        [
            &taken,
            "DIR/file: there is a regular file; it is left alone",
            "DIR/directory: there is a directory; it is left alone",
            "DIR/link: there is a symbolic link; it is left alone",
            "DIR/stale: there is a socket file that is not the image's own; it is left alone",
            &live,
            missing,
        ]
    );
    assert_eq!(
        said(Foreign::Replace),
        [&taken, "DIR/directory: there is a directory; it is left alone", &live, missing]
    );
    assert_eq!(files(directory.path()), before);
    // Without having asked, the step fails, and nothing is touched either.
    let error = execute(&plan, &b.0, Execution::default()).unwrap_err();
    assert!(error.to_string().contains("bind socket 0 to"), "{error}");
    assert_eq!(files(directory.path()), before);
    assert_eq!(fs::read(at("file")).unwrap(), b"foreign");
}

/// The magic link means another directory once `bind` has changed into the one it works from.
#[test]
fn a_file_that_is_made_in_another_directory_is_found_and_removed() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd", directory.path().join("link")).unwrap();
    let mut b = Builder::new();
    let bound = Bound {
        name: UnixName::Pathname(b"link/x".to_vec()),
        directory: Some(directory.path().as_os_str().as_bytes().to_vec()),
        root: None,
        file: Some(present(0o600)),
    };
    b.listener(SocketType::Stream, bound);
    let error = execute(&plan(&b.0).unwrap(), &b.0, Execution::default()).unwrap_err();
    match &error.failed {
        Failed::Step { source: StepError::Astray { landed }, .. } => {
            assert_eq!(landed, directory.path().join("x").as_os_str().as_bytes());
        }
        other => panic!("{other}"),
    }
    assert!(error.left.is_empty(), "{error}");
    assert_eq!(files(directory.path()), [b"link".to_vec()].into());
}

#[test]
fn a_file_that_cannot_be_moved_back_is_named_with_its_hidden_path() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, "foreign").unwrap();
    let mut b = Builder::new();
    b.listener(SocketType::Stream, path_name(&path, present(0o600)));
    let plan = plan(&b.0).unwrap();
    let seen = view();
    let here = Here { boot_id: "this boot", view: &seen, somaxconn: None, in_place: None };
    let asides = survey(&plan, &b.0, here, Foreign::Replace).unwrap();
    let restored = execute(&plan.with_asides(asides), &b.0, Execution::default()).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    let left: Vec<_> = restored.undo().iter().map(ToString::to_string).collect();
    let shown = path.display();
    let hidden = directory.path().join(format!(".ucr-aside-{}-0", std::process::id()));
    let expected = format!("{shown} is now {}: File exists (os error 17)", hidden.display());
    assert_eq!(left, [expected]);
    assert_eq!(fs::read(&hidden).unwrap(), b"foreign");
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
}

fn rustix_listener(name: &[u8]) -> UnixListener {
    use std::os::linux::net::SocketAddrExt;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    UnixListener::bind_addr(&name).unwrap()
}

#[test]
fn the_images_own_stale_file_is_replaced_within_one_boot_only() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("own");
    drop(UnixListener::bind(&path).unwrap());
    let id = Facts::at(path.as_os_str().as_bytes()).unwrap().unwrap().id;
    let mut b = Builder::new();
    let file = SocketFile::Present { id, mode: 0o600, uid: 0, gid: 0 };
    b.listener(SocketType::Stream, path_name(&path, file));
    let plan = plan(&b.0).unwrap();
    let seen = view();
    let rebooted = Here { boot_id: "another boot", view: &seen, somaxconn: None, in_place: None };
    assert!(survey(&plan, &b.0, rebooted, Foreign::Refuse).is_err());
    let here = Here { boot_id: "this boot", view: &seen, somaxconn: None, in_place: None };
    let plan = plan.clone().with_asides(survey(&plan, &b.0, here, Foreign::Refuse).unwrap());

    let restored = execute(&plan, &b.0, Execution::default()).unwrap();
    assert_eq!(files(directory.path()).len(), 2);
    assert_eq!(differences(&b.0, &restored), []);
    drop(restored);
    let back = Facts::at(path.as_os_str().as_bytes()).unwrap().unwrap();
    assert_eq!(back.id, id);

    let mut restored = execute(&plan, &b.0, Execution::default()).unwrap();
    restored.discard_asides().unwrap();
    assert_eq!(files(directory.path()), [b"own".to_vec()].into());
    // Put in the place of ours meanwhile: it is not removed.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    assert!(restored.undo().is_empty());
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
}
