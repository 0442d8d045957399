//! Socket files that are not where their names say: gone, replaced, renamed, beneath another root.

use std::{
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use ucr_tests::{
    Need, Victim, World, needs, outside,
    ucr::{FAILED, NOBODY, REFUSED},
    victim::talk,
    wait,
    world::hex,
};

use super::{bring_back, take};
use crate::world;

/// The socket at a descriptor, as the image has its name.
fn bound(world: &World, image: &Path, fd: i32) -> serde_json::Value {
    let shown = world.ucr.run(&["show", "--json", image.to_str().expect("text")]).done().json();
    let descriptors = shown["descriptors"].as_array().expect("a list");
    let found = descriptors.iter().find(|descriptor| descriptor["fd"] == fd).expect("it");
    let index = usize::try_from(found["socket"].as_u64().expect("an index")).expect("an index");
    shown["sockets"][index]["bound"].clone()
}

/// Nothing of a restore is left in a folder of its own, nor, where others restore as well, of this process. (One that
/// was killed before may have had the same pid.)
fn no_traces(folder: &Path, pid: i32) {
    let beginnings = [".ucr-root-", ".ucr-aside-"];
    let own = beginnings.map(|beginning| format!("{beginning}{pid}-"));
    // Some file systems do not tell.
    let begun = fs::metadata(folder).and_then(|facts| facts.created());
    no_file(folder, SystemTime::UNIX_EPOCH, &beginnings);
    no_file(&std::env::temp_dir(), begun.unwrap_or(SystemTime::UNIX_EPOCH), &own);
}

fn no_file(folder: &Path, since: SystemTime, beginnings: &[impl AsRef<str>]) {
    let is_new = |entry: &fs::DirEntry| {
        let changed = entry.metadata().and_then(|facts| facts.modified());
        changed.is_ok_and(|changed| changed >= since)
    };
    // Somebody may be about to remove it, once the program is there.
    let left = || {
        let entries = fs::read_dir(folder).expect("list").flatten().filter(is_new);
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .find(|name| beginnings.iter().any(|beginning| name.starts_with(beginning.as_ref())))
    };
    assert!(wait::holds(|| left().is_none()), "{} {:?}", folder.display(), left());
}

fn talk_within(victim: &mut Victim, a: i32, b: i32) {
    for (from, to) in [(a, b), (b, a)] {
        victim.ask(&format!("send {from} from-{from}"));
        assert_eq!(victim.ask(&format!("recv {to}")), format!("from-{from}"));
    }
}

/// A stranger reaches a listener by a path.
fn is_reached(world: &World, back: &mut Victim, listener: i32, path: &Path) {
    let mut stranger = world.victim();
    let fd = stranger.client("stream", path.as_os_str().as_bytes());
    let fresh = back.accept(listener);
    talk(&mut stranger, fd, back, fresh);
    back.close(fresh);
}

#[test]
fn what_lies_at_a_lost_name_is_not_touched() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let [lost, busy, own] = ["lost", "busy", "own"].map(|name| world.path_name(name));
    let listener = victim.listener("stream", &lost, 7);
    let client = victim.socket("stream");
    victim.bind(client, &own);
    victim.connect(client, &lost);
    let accepted = victim.accept(listener);
    let second = victim.listener("seqpacket", &busy, 3);
    let (near, far) = (victim.client("seqpacket", &busy), victim.accept(second));
    victim.close(second);
    for name in ["lost", "busy", "own"] {
        fs::remove_file(world.path(name)).expect("delete");
    }
    fs::write(world.path("lost"), "foreign").expect("write");
    fs::create_dir(world.path("own")).expect("a folder");
    fs::write(world.path("own/inside"), "foreign, too").expect("write");
    let _live = UnixListener::bind(world.path("busy")).expect("bind");
    let inodes = || {
        ["lost", "own", "busy"].map(|name| fs::metadata(world.path(name)).expect("the file").ino())
    };
    let before = inodes();

    let image = take(&world, victim);
    let plan = world.ucr.run(&["restore", "--dry-run", image.to_str().expect("text")]).done();
    let line = "/lost (privately: the file is gone)";
    assert!(plan.stdout.contains(line), "{}", plan.stdout);
    let mut back = bring_back(&world, &image);
    assert_eq!(back.name(listener), lost);
    assert_eq!((back.name(client), back.peer_name(client)), (own.clone(), lost.clone()));
    assert_eq!((back.name(accepted), back.peer_name(accepted)), (lost, own));
    assert_eq!((back.name(far), back.peer_name(near)), (busy.clone(), busy));
    talk_within(&mut back, client, accepted);
    talk_within(&mut back, near, far);
    assert_eq!(outside::seen(back.pid(), listener).send_queue, 7, "the backlog");
    assert_eq!(inodes(), before);
    assert_eq!(fs::read(world.path("lost")).expect("read"), b"foreign");
    assert_eq!(fs::read(world.path("own/inside")).expect("read"), b"foreign, too");
    no_traces(world.folder(), back.pid());

    // What was restored can be dumped, and says the same.
    let again = world.path("again");
    let _written = crate::dumping::dump(&world, &back, &again, &[]).done();
    for fd in [listener, client, accepted, near, far] {
        assert_eq!(bound(&world, &again, fd), bound(&world, &image, fd));
    }
}

#[test]
fn generations_of_a_daemon_have_one_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.path_name("daemon");
    let generation = |victim: &mut Victim| {
        let _gone = fs::remove_file(world.path("daemon"));
        let listener = victim.listener("stream", &name, 3);
        let client = victim.client("stream", &name);
        (listener, client, victim.accept(listener))
    };
    let all = [(); 3].map(|()| generation(&mut victim));
    victim.close(all[0].0);
    // And datagram sockets under another one.
    let service = world.path_name("service");
    let generation = |victim: &mut Victim| {
        let _gone = fs::remove_file(world.path("service"));
        let receiver = victim.socket("dgram");
        victim.bind(receiver, &service);
        (receiver, victim.client("dgram", &service))
    };
    let receivers = [(); 2].map(|()| generation(&mut victim));

    let image = take(&world, victim);
    let mut back = bring_back(&world, &image);
    for (_, client, accepted) in all {
        assert_eq!((back.peer_name(client), back.name(accepted)), (name.clone(), name.clone()));
        talk_within(&mut back, client, accepted);
    }
    for (receiver, sender) in receivers {
        assert_eq!(
            (back.peer_name(sender), back.name(receiver)),
            (service.clone(), service.clone())
        );
        back.ask(&format!("send {sender} to-{receiver}"));
        assert_eq!(back.ask(&format!("recv {receiver}")), format!("to-{receiver}"));
    }
    // The file is the last one's.
    is_reached(&world, &mut back, all[2].0, &world.path("daemon"));
    no_traces(world.folder(), back.pid());
}

#[test]
fn a_folder_that_was_removed_stays_removed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    fs::create_dir_all(world.path("folder/deep")).expect("folders");
    let mut victim = world.victim();
    let name = world.path_name("folder/../folder/deep/socket");
    let listener = victim.listener("stream", &name, 3);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    victim.ask(&format!("chdir {}", world.path("folder/deep").display()));
    let relative = victim.listener("seqpacket", b"../up", 3);
    let near = victim.client("seqpacket", b"../up");
    let far = victim.accept(relative);
    victim.ask("chdir /");
    fs::remove_dir_all(world.path("folder")).expect("remove");

    let image = take(&world, victim);
    let folder = world.path("folder/deep");
    assert_eq!(
        bound(&world, &image, relative)["directory"]["text"],
        folder.to_str().expect("text")
    );
    let mut back = bring_back(&world, &image);
    assert_eq!((back.name(listener), back.peer_name(client)), (name.clone(), name));
    assert_eq!((back.name(relative), back.name(far)), (b"../up".to_vec(), b"../up".to_vec()));
    assert_eq!(back.peer_name(near), b"../up");
    talk_within(&mut back, client, accepted);
    talk_within(&mut back, near, far);
    assert!(!world.path("folder").exists());
    no_traces(world.folder(), back.pid());

    // The tracer has seen the binder where it stood, in a directory that was made for this.
    let again = world.path("again");
    let _written = crate::dumping::dump(&world, &back, &again, &["--verify", "strict"]).done();
    assert_eq!(bound(&world, &again, relative), bound(&world, &image, relative));
}

/// A listener whose file was renamed and given away.
fn renamed(world: &World) -> (PathBuf, i32, i32, i32) {
    let mut victim = world.victim();
    let name = world.path_name("before");
    let listener = victim.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    fs::create_dir(world.path("to")).expect("a folder");
    fs::rename(world.path("before"), world.path("to/after")).expect("rename");
    fs::set_permissions(world.path("to/after"), Permissions::from_mode(0o640)).expect("a mode");
    chown(world.path("to/after"), Some(1), Some(NOBODY)).expect("an owner");
    (take(world, victim), listener, client, accepted)
}

#[test]
fn a_renamed_socket_file_is_where_it_was_and_the_name_is_as_before() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (image, listener, client, accepted) = renamed(&world);
    // Nobody needs that place.
    fs::write(world.path("before"), "foreign").expect("write");
    let mut back = bring_back(&world, &image);
    let name = world.path_name("before");
    assert_eq!((back.name(listener), back.peer_name(client)), (name.clone(), name.clone()));
    assert_eq!(back.name(accepted), name);
    talk_within(&mut back, client, accepted);
    let file = fs::metadata(world.path("to/after")).expect("the socket file");
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, 1, NOBODY));
    is_reached(&world, &mut back, listener, &world.path("to/after"));
    assert_eq!(fs::read(world.path("before")).expect("read"), b"foreign");
    no_traces(&world.path("to"), back.pid());

    let again = world.path("again");
    let _written = crate::dumping::dump(&world, &back, &again, &[]).done();
    let name = bound(&world, &again, listener);
    assert_eq!((&name["file"]["state"], &name["file"]["mode"]), (&"moved".into(), &0o640.into()));
}

#[test]
fn where_a_renamed_file_was_lies_another_s() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (image, ..) = renamed(&world);
    let image = image.to_str().expect("text");
    let after = world.path("to/after");
    fs::remove_file(&after).expect("the old socket file");
    fs::write(&after, "precious").expect("write");
    let inode = fs::metadata(&after).expect("the file").ino();
    let untouched = || {
        assert_eq!(fs::read(&after).expect("read"), b"precious");
        assert_eq!(fs::metadata(&after).expect("the file").ino(), inode);
        assert_eq!(fs::read_dir(world.path("to")).expect("list").count(), 1);
        assert!(!world.path("before").exists());
    };
    let answer = world.ucr.run(&["restore", image, "--", "true"]).ended(REFUSED);
    let _named = answer.complains("to/after: there is a regular file").complains("--replace");
    untouched();
    // With leave, but the program is none: it is put back.
    let program = world.path("program");
    fs::write(&program, "#!/no/such/interpreter\n").expect("write");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a mode");
    let arguments = ["restore", image, "--replace", "--", program.to_str().expect("text")];
    let answer = world.ucr.run(&arguments).ended(FAILED);
    let _named = answer.complains("execute");
    untouched();
    world.ucr.run(&["restore", image, "--replace", "--", "true"]).done();
    assert_ne!(fs::metadata(&after).expect("the file").ino(), inode);
}

#[test]
fn names_beneath_another_root() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    for folder in ["jail/deep", "jail/run", "jail/gone"] {
        fs::create_dir_all(world.path(folder)).expect("folders");
    }
    // Where this leads depends on who goes.
    symlink("/deep", world.path("jail/link")).expect("a link");
    let mut victim = world.victim();
    victim.ask(&format!("chroot {}", world.path("jail").display()));
    victim.ask("chdir /deep");
    let relative = victim.listener("stream", b"./relative", 3);
    victim.ask("chdir /");
    let [run, linked, gone, moved] = [&b"/../run/x"[..], b"/link/y", b"/gone/z", b"/run/old"]
        .map(|name| (victim.listener("stream", name, 3), name));
    let client = victim.client("stream", b"/run/x");
    let accepted = victim.accept(run.0);
    let near = victim.client("stream", b"/gone/z");
    let far = victim.accept(gone.0);
    fs::remove_dir_all(world.path("jail/gone")).expect("remove");
    fs::rename(world.path("jail/run/old"), world.path("jail/run/new")).expect("rename");

    let image = take(&world, victim);
    let jail = world.path("jail");
    let name = bound(&world, &image, relative);
    assert_eq!(name["root"]["text"], jail.to_str().expect("text"));
    assert_eq!(name["directory"]["text"], "/deep");
    let mut back = bring_back(&world, &image);
    for (listener, name) in [run, linked, gone, moved, (relative, b"./relative")] {
        assert_eq!(back.name(listener), name);
    }
    assert_eq!((back.peer_name(client), back.name(accepted)), (run.1.to_vec(), run.1.to_vec()));
    assert_eq!(back.peer_name(near), gone.1);
    talk_within(&mut back, client, accepted);
    talk_within(&mut back, near, far);
    for (listener, path) in [
        (relative, "jail/deep/relative"),
        (run.0, "jail/run/x"),
        (linked.0, "jail/deep/y"),
        (moved.0, "jail/run/new"),
    ] {
        is_reached(&world, &mut back, listener, &world.path(path));
    }
    assert!(!world.path("jail/gone").exists());
    no_traces(&world.path("jail/run"), back.pid());
    // Now it is no prisoner any more, and its files are where no name leads.
    let again = world.path("again");
    let _written = crate::dumping::dump(&world, &back, &again, &["--verify", "strict"]).done();
    let name = bound(&world, &again, run.0);
    assert_eq!(name["file"]["state"], "moved");
    assert_eq!(name["file"]["path"]["text"], world.path("jail/run/x").to_str().expect("text"));
}

#[test]
fn a_prisoner_whom_nobody_saw() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    fs::create_dir_all(world.path("jail/run")).expect("folders");
    let mut victim = world.victim();
    let before = victim.listener("stream", &world.path_name("before"), 3);
    victim.ask(&format!("chroot {}", world.path("jail").display()));
    let inside = victim.listener("stream", b"/run/x", 3);
    victim.ask("chdir /run");
    let relative = victim.listener("stream", b"relative", 3);

    let image = take(&world, victim);
    let jail = world.path("jail");
    assert_eq!(bound(&world, &image, inside)["root"]["text"], jail.to_str().expect("text"));
    // That one is from before.
    assert!(bound(&world, &image, before)["root"].is_null());
    let mut back = bring_back(&world, &image);
    assert_eq!((back.name(inside), back.name(relative)), (b"/run/x".into(), b"relative".into()));
    is_reached(&world, &mut back, before, &world.path("before"));
    is_reached(&world, &mut back, inside, &world.path("jail/run/x"));
    is_reached(&world, &mut back, relative, &world.path("jail/run/relative"));
}

#[test]
fn a_root_that_no_path_leads_to_is_refused() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    fs::create_dir(world.path("jail")).expect("a folder");
    let mut victim = world.victim();
    victim.ask(&format!("chroot {}", world.path("jail").display()));
    victim.listener("stream", b"/x", 3);
    fs::remove_dir_all(world.path("jail")).expect("remove");
    let report = crate::dumping::dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED);
    assert_eq!(report.json()["obstacles"][0]["kind"], "other_root", "{}", report.stdout);
}

#[test]
fn who_may_not_change_the_root_is_told() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.listener("stream", &world.path_name("gone"), 3);
    fs::remove_file(world.path("gone")).expect("delete");
    let image = take(&world, victim);
    fs::set_permissions(world.folder(), Permissions::from_mode(0o755)).expect("let others in");
    chown(&image, Some(NOBODY), Some(NOBODY)).expect("give the image away");
    let command = ["restore", image.to_str().expect("text"), "--", "true"];
    let answer = world.ucr.run_as_nobody(&command).ended(REFUSED);
    let _named = answer.complains("Operation not permitted").complains("CAP_SYS_CHROOT");
}

#[test]
fn nobody_is_reached_by_a_name_that_was_lost() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.path_name("gone");
    victim.listener("stream", &name, 3);
    fs::remove_file(world.path("gone")).expect("delete");
    let image = take(&world, victim);
    let _back = bring_back(&world, &image);
    let mut stranger = world.victim();
    let fd = stranger.socket("stream");
    let refused = stranger.tell(&format!("connect {fd} {}", hex(&name)));
    assert_eq!(refused, Err("ENOENT".to_owned()));
}
