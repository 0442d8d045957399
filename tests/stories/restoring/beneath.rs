//! `restore --root`: everything beneath one directory; and mount namespaces, with mounts that hide and
//! show socket files.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use ucr_tests::{Need, Victim, World, needs, ucr::REFUSED, ucr::Started, victim::talk};

use super::take;
use crate::{dumping::dump, world};

/// A listener with a connection, names that go up, a relative one and one that was lost.
fn victim_with_names(world: &World) -> (Victim, [i32; 4]) {
    fs::create_dir_all(world.path("srv/app")).expect("folders");
    let mut victim = world.victim();
    let name = world.path_name("srv/listener");
    let listener = victim.listener("stream", &name, 3);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    let up = victim.socket("stream");
    victim.bind(up, &world.path_name("srv/app/../../up"));
    victim.ask(&format!("chdir {}", world.path("srv/app").display()));
    let relative = victim.listener("seqpacket", b"relative", 3);
    let lost = victim.listener("stream", b"lost", 3);
    fs::remove_file(world.path("srv/app/lost")).expect("delete");
    assert!(client < accepted && lost > 0);
    (victim, [listener, client, up, relative])
}

/// A path of this world, beneath a copy's folder.
fn within(copy: &Path, path: &Path) -> PathBuf {
    copy.join(path.strip_prefix("/").expect("an absolute path"))
}

#[test]
fn a_root_is_where_everything_is_looked_up() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let (victim, [listener, client, up, relative]) = victim_with_names(&world);
    let image = take(&world, victim);
    let before = fs::metadata(world.path("srv/listener")).expect("the old socket file").ino();
    let copy = world.path("copy");
    fs::create_dir(&copy).expect("a folder");

    // What is missing is named, and nothing is made.
    let root = format!("--root={}", copy.display());
    let text = image.to_str().expect("text");
    let answer = world.ucr.run(&["restore", &root, text, "--", "true"]).ended(REFUSED);
    let missing = format!("{} beneath {}", world.path("srv/listener").display(), copy.display());
    let _named = answer.complains(&missing).complains("No such file or directory");
    assert_eq!(fs::read_dir(&copy).expect("list").count(), 0);

    fs::create_dir_all(within(&copy, &world.path("srv"))).expect("folders");
    fs::create_dir_all(within(&copy, &world.path("real/app"))).expect("folders");
    // Absolute, and as high as can be: both stay inside.
    symlink(world.path("real/app"), within(&copy, &world.path("srv/app"))).expect("a link");
    let plan = world.ucr.run(&["restore", "--dry-run", &root, text]).done();
    assert!(plan.stdout.contains(&format!("the file goes to {missing}")), "{}", plan.stdout);
    let (mut back, started) = world.restore_with(&[&root], &image, &[0]);
    let mut back = back.pop().expect("one victim");
    world.keep(started);
    assert_eq!(back.name(listener), world.path_name("srv/listener"));
    assert_eq!(back.peer_name(client), world.path_name("srv/listener"));
    assert_eq!(back.name(up), world.path_name("srv/app/../../up"));
    assert_eq!(back.name(relative), b"relative");
    // `..` goes up from where the link leads.
    for path in ["srv/listener", "up", "real/app/relative"] {
        let file = fs::symlink_metadata(within(&copy, &world.path(path))).expect(path);
        assert!(file.file_type().is_socket(), "{path}");
    }
    assert_eq!(fs::metadata(world.path("srv/listener")).expect("the old one").ino(), before);
    assert!(!world.path("real").exists());
    let mut stranger = world.victim();
    stranger.ask(&format!("chdir {}", within(&copy, &world.path("srv")).display()));
    let fd = stranger.client("stream", b"listener");
    let fresh = back.accept(listener);
    talk(&mut stranger, fd, &mut back, fresh);
    back.close(fresh);
    let again = world.path("again");
    let report = dump(&world, &back, &again, &["--verify", "strict"]).done().json();
    assert_eq!(report["obstacles"], Value::Array(Vec::new()));

    // Once more, its place is taken there.
    let answer = world.ucr.run(&["restore", "--replace", &root, text, "--", "true"]).ended(REFUSED);
    let _named = answer.complains("taken by a live socket");
}

#[test]
fn nothing_leads_out_of_a_root() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    fs::create_dir(world.path("srv")).expect("a folder");
    victim.listener("stream", &world.path_name("srv/x"), 3);
    let image = take(&world, victim);
    fs::remove_file(world.path("srv/x")).expect("the old socket file");
    fs::create_dir(world.path("outside")).expect("a folder");
    let copy = world.path("copy");
    fs::create_dir_all(within(&copy, world.folder())).expect("folders");
    let link = within(&copy, &world.path("srv"));
    let up =
        PathBuf::from("../".repeat(30)).join(world.path("outside").strip_prefix("/").expect("it"));
    let root = format!("--root={}", copy.display());
    let process = PathBuf::from("/proc/self/cwd");
    // The last one leads out where /proc is there, as in a container's root.
    for target in [world.path("outside"), up, process] {
        symlink(&target, &link).expect("a link");
        let command = ["restore", &root, image.to_str().expect("text"), "--", "true"];
        let answer = world.ucr.run(&command).ended(REFUSED);
        let _named = answer.complains("open the directory of");
        assert_eq!(fs::read_dir(world.path("outside")).expect("list").count(), 0);
        assert_eq!(fs::read_dir(world.path("srv")).expect("list").count(), 0);
        fs::remove_file(&link).expect("the link");
    }
}

/// A victim in a mount namespace of its own.
fn in_mounts(world: &World) -> Victim {
    world.victim_under(&["unshare", "--mount", "--propagation=private", "--"])
}

/// A command in the mount namespace of a process.
fn inside(of: &Victim, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--target={}", of.pid())).args(["--mount", "--"]);
    inside.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

fn mount(of: &Victim, arguments: &[&str]) {
    let status = inside(of, Command::new(arguments[0]).args(&arguments[1..])).status();
    assert!(status.expect("run nsenter").success(), "{arguments:?}");
}

#[test]
fn below_a_bind_mount_in_another_mount_namespace() {
    if !needs::met(&[Need::Root, Need::Program("unshare"), Need::Program("nsenter")]) {
        return;
    }
    let world = world();
    let keeper = in_mounts(&world);
    for folder in ["real", "seen"] {
        fs::create_dir(world.path(folder)).expect("a folder");
    }
    let folder = |name: &str| world.path(name).to_str().expect("text").to_owned();
    mount(&keeper, &["mount", "--bind", &folder("real"), &folder("seen")]);
    let mut victim =
        world.victim_under(&["nsenter", &format!("--target={}", keeper.pid()), "--mount", "--"]);
    let name = world.path_name("seen/x");
    let listener = victim.listener("stream", &name, 3);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);

    // From here that path leads elsewhere.
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    assert_eq!(report["obstacles"][0]["kind"], "other_mounts", "{report:#}");
    let hint = report["obstacles"][0]["hint"].as_str().expect("text");
    assert!(hint.contains(&format!("nsenter --mount --target {}", victim.pid())), "{hint}");

    // In there, it is where it is.
    let pid = victim.pid().to_string();
    let dump = ["dump", "--kill", "--pid", &pid, "-o", image.to_str().expect("text")];
    let hidden = folder("hidden");
    fs::create_dir(&hidden).expect("a folder");
    mount(&keeper, &["mount", "--bind", &hidden, &folder("seen")]);
    let answer = Started::new(inside(&keeper, &world.ucr.command(&dump))).finish();
    let _named = answer.ended(REFUSED).complains("below a mount");
    mount(&keeper, &["umount", &folder("seen")]);
    Started::new(inside(&keeper, &world.ucr.command(&dump))).finish().done();
    let _status = victim.ended();

    let control = world.control();
    let mut command = vec!["restore".to_owned(), folder("image"), "--".to_owned()];
    command.extend(world.victim_command(&control));
    let mut back = Victim::expected(&control);
    let started = Started::new(inside(&keeper, &world.ucr.command(&command)));
    back.greet(&started);
    world.keep(started);
    assert_eq!((back.name(listener), back.peer_name(client)), (name.clone(), name));
    assert_eq!(back.name(accepted), world.path_name("seen/x"));
    // The file is in what was mounted, and reached from outside as well.
    assert_eq!(fs::read_dir(world.path("seen")).expect("list").count(), 0);
    let mut stranger = world.victim();
    let fd = stranger.client("stream", world.path("real/x").as_os_str().as_bytes());
    let fresh = back.accept(listener);
    talk(&mut stranger, fd, &mut back, fresh);
}
