//! Files that are not where the names say: faults at any step of making them, and what is found to differ.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ucr::image::*;
use ucr::model::*;
use ucr::restore::execute::{Execution, Failed, StepError, execute};
use ucr::restore::names::{Foreign, Here, survey};
use ucr::restore::plan::step::Step;
use ucr::restore::plan::{Plan, PlanError, Spellings, plan, plan_beneath};
use ucr::restore::verify::{Field, compare, observe};

use crate::execution::{differences, files};
use crate::support::*;

/// A renamed listener with a connection, its client's file gone; one beneath another root, and the
/// relative names of a listener that was lost with its folder.
fn image(directory: &Path) -> Image {
    let at = |name: &str| directory.join(name);
    let mut b = Builder::new();
    let id = FileId { device: 1, inode: 2, born: None };
    let path = at("to/after").as_os_str().as_bytes().to_vec();
    let moved = SocketFile::Moved { path, id, mode: 0o640, uid: 1, gid: 2 };
    let moved = path_name(at("before"), moved);
    let listener = b.listener(SocketType::Stream, moved.clone());
    let client = path_name(at("client"), SocketFile::Replaced);
    b.accepted(SocketType::Stream, Some(listener), moved, Some(client));
    let mut prisoner = path_name("/../run/x", present(0o751));
    prisoner.root = Some(at("jail").as_os_str().as_bytes().to_vec());
    b.listener(SocketType::Seqpacket, prisoner);
    let lost = Bound {
        name: UnixName::Pathname(b"../lost/./x".to_vec()),
        directory: Some(at("no/such").as_os_str().as_bytes().to_vec()),
        root: None,
        file: Some(SocketFile::Deleted),
    };
    let listener = b.listener(SocketType::Stream, lost.clone());
    b.accepted(SocketType::Stream, Some(listener), lost.clone(), None);
    // Of a listener that is gone.
    b.accepted(SocketType::Seqpacket, None, lost, None);
    b.0
}

fn folders(directory: &Path) {
    for folder in ["to", "jail/run"] {
        fs::create_dir_all(directory.join(folder)).unwrap();
    }
}

/// Everything below a directory, and what this process has among the temporary files.
fn traces(directory: &Path) -> BTreeSet<Vec<u8>> {
    let own = format!(".ucr-root-{}-", std::process::id());
    let temporary = files(&std::env::temp_dir()).into_iter();
    let temporary = temporary.filter(|name| name.starts_with(own.as_bytes()));
    let below = |folder: &str| {
        let found = files(&directory.join(folder)).into_iter();
        let folder = folder.as_bytes().to_vec();
        found.map(move |name| [folder.as_slice(), b"/", &name].concat())
    };
    let below = ["", "to", "jail", "jail/run"].into_iter().flat_map(below);
    temporary.chain(below).collect()
}

/// What this process has open below a directory, or as a private one. (Other tests have other files.)
fn held_open(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let is_ours = |path: &PathBuf| {
        path.starts_with(directory) || path.to_string_lossy().contains("/.ucr-root-")
    };
    links.filter(is_ours).collect()
}

#[test]
fn a_fault_at_any_step_leaves_no_private_directory() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    folders(directory.path());
    fs::write(directory.path().join("before"), "foreign").unwrap();
    fs::write(directory.path().join("to/after"), "precious").unwrap();
    let before = traces(directory.path());
    let image = image(directory.path());
    let plan = plan(&image).unwrap();
    let shown = plan.to_string().replace(directory.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(shown);
    let seen = view();
    let here = Here { boot_id: "another boot", view: &seen, somaxconn: None, in_place: None };
    let asides = survey(&plan, &image, here, Foreign::Replace).unwrap();
    assert_eq!(asides.len(), 1);
    let plan = plan.with_asides(asides);
    for fail_before in 0..=plan.steps.len() {
        let how = Execution { fail_before: Some(fail_before), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        let on_purpose = matches!(&error.failed, Failed::Step { source: StepError::OnPurpose, .. });
        assert!(on_purpose && error.left.is_empty(), "{error}");
        assert_eq!(traces(directory.path()), before, "{error}");
        assert_eq!(fs::read(directory.path().join("to/after")).unwrap(), b"precious");
        assert_eq!(held_open(directory.path()), Vec::<PathBuf>::new(), "{error}");
    }
    let mut restored = execute(&plan, &image, Execution::default()).unwrap();
    assert_eq!(differences(&image, &restored), []);
    restored.discard_asides().unwrap();
    let made = ["/before", "/jail", "/to", "jail/run", "jail/run/x", "to/after"];
    assert_eq!(traces(directory.path()), made.map(|name| name.as_bytes().to_vec()).into());
    assert_eq!(fs::read(directory.path().join("before")).unwrap(), b"foreign");
    let file = fs::metadata(directory.path().join("to/after")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, 1, 2));
    drop(UnixStream::connect(directory.path().join("to/after")).unwrap());
}

#[test]
fn a_file_that_comes_meanwhile_is_not_overwritten() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    folders(directory.path());
    let image = image(directory.path());
    let plan = plan(&image).unwrap();
    fs::write(directory.path().join("jail/run/x"), "foreign").unwrap();
    let before = traces(directory.path());
    // Nobody has looked what is in the way.
    let error = execute(&plan, &image, Execution::default()).unwrap_err();
    let Failed::Step { source: StepError::Call { call: "rename", source }, .. } = &error.failed
    else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(error.left.is_empty(), "{error}");
    assert_eq!(traces(directory.path()), before);
    assert_eq!(fs::read(directory.path().join("jail/run/x")).unwrap(), b"foreign");
}

#[test]
fn a_file_in_the_wrong_place_is_a_difference() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    folders(directory.path());
    let image = image(directory.path());
    let restored = execute(&plan(&image).unwrap(), &image, Execution::default()).unwrap();
    let observed = observe(&image, &restored, None).unwrap();
    type Spoil = fn(&mut Bound);
    let spoils: [(usize, Field, Spoil); 5] = [
        (0, Field::File, |bound| bound.file = Some(SocketFile::Deleted)),
        (0, Field::FileMode, |bound| {
            if let Some(SocketFile::Moved { mode, .. }) = &mut bound.file {
                *mode = 0o600;
            }
        }),
        (0, Field::FileOwner, |bound| {
            if let Some(SocketFile::Moved { uid, .. }) = &mut bound.file {
                *uid = 5;
            }
        }),
        (3, Field::File, |bound| bound.file = Some(SocketFile::Deleted)),
        (4, Field::File, |bound| bound.file = Some(present(0o600))),
    ];
    for (socket, field, spoil) in spoils {
        let mut image = image.clone();
        spoil(image.sockets[socket].name.as_mut().unwrap());
        let found = compare(&image, &observed, &view());
        let index = u32::try_from(socket).unwrap();
        let named = |d: &&ucr::restore::verify::Difference| d.socket.0 == index && d.field == field;
        assert!(found.iter().any(|d| named(&d)), "{field} of {socket} is missing in {found:?}");
    }
    // And what is seen of the machine: somebody renames a file.
    fs::rename(directory.path().join("to/after"), directory.path().join("to/elsewhere")).unwrap();
    let found = differences(&image, &restored);
    assert!(found.iter().any(|d| d.socket.0 == 0 && d.field == Field::File), "{found:?}");
}

/// Whatever lies under a listener's name by then: connections go through its very file.
#[test]
fn nobody_connects_by_a_name() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut image = everything(directory.path());
    let datagrams = datagrams(directory.path());
    for image in [&mut image, &mut datagrams.clone()] {
        let mut plan = plan(image).unwrap();
        for step in &mut plan.steps {
            if let Step::Connect { place, .. } | Step::ConnectDatagram { place, .. } = step
                && matches!(place.name, UnixName::Pathname(_))
            {
                place.name = UnixName::Pathname(b"/no/such/path".to_vec());
            }
        }
        let restored = execute(&plan, image, Execution::default()).unwrap();
        assert_eq!(differences(image, &restored), []);
    }
}

/// Without CAP_NET_ADMIN a socket may not be asked for its file, and what is made has to be kept open.
#[test]
fn sockets_that_may_not_be_asked_for_their_files() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    folders(directory.path());
    // Of this thread alone, which ends with the test.
    let mut own = capabilities(None).unwrap();
    own.effective -= CapabilitySet::NET_ADMIN;
    set_capabilities(None, own).unwrap();
    for image in
        [image(directory.path()), everything(directory.path()), datagrams(directory.path())]
    {
        let restored = execute(&plan(&image).unwrap(), &image, Execution::default()).unwrap();
        let bound =
            observe(&image, &restored, None).unwrap().into_iter().find_map(|one| one?.bound);
        assert_eq!(bound, None);
        assert_eq!(differences(&image, &restored), []);
        assert!(restored.undo().is_empty());
    }
    assert_eq!(held_open(directory.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_root_is_put_before_every_path() {
    let image = image(Path::new("/srv"));
    let Plan { paths, .. } = plan_beneath(&image, &Spellings::default(), Some(b"/copy")).unwrap();
    let shown: Vec<_> = paths.iter().map(|used| used.spot.to_string()).collect();
    assert_eq!(shown, ["/srv/to/after beneath /copy", "/../run/x beneath /srv/jail beneath /copy"]);
}

#[test]
fn places_that_are_none_are_refused() {
    for path in ["/", "/run/..", "/run/x/../."] {
        let mut b = Builder::new();
        let id = FileId { device: 1, inode: 2, born: None };
        let path = path.as_bytes().to_vec();
        let moved = SocketFile::Moved { path, id, mode: 0, uid: 0, gid: 0 };
        b.listener(SocketType::Stream, path_name("/run/x", moved));
        assert!(matches!(plan(&b.0), Err(PlanError::NoFileName { .. })));
    }
    // A renamed file and another socket's at one place.
    let mut b = Builder::new();
    let id = FileId { device: 1, inode: 2, born: None };
    let moved = SocketFile::Moved { path: b"/run/y".to_vec(), id, mode: 0, uid: 0, gid: 0 };
    b.listener(SocketType::Stream, path_name("/run/x", moved));
    b.listener(SocketType::Stream, path_name("/run/./y", present(0o600)));
    assert!(matches!(plan(&b.0), Err(PlanError::NameTwice { .. })));
}
