//! Programs that get the sockets. Each test restores in a child of its own, because a successful
//! restore replaces the process: this very test binary, told by the environment what to do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ucr::cli::restore::RestoreArgs;
use ucr::image::file as imagefile;
use ucr::image::*;
use ucr::model::*;
use ucr::restore::program::{ProgramError, each, single};
use ucr::tracer::pins::{self, PinDirectory};

use crate::support::*;

/// JSON-free: one argument a line.
const ARGUMENTS: &str = "UCR_TEST_ARGUMENTS";

/// Not a test of its own: what the children run. Without the variable it checks that clap reads
/// the command line that the others rely on.
#[test]
fn child() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        restore: RestoreArgs,
    }
    let parse = |lines: &str| {
        let line = ["restore"].into_iter().chain(lines.lines());
        <Line as clap::Parser>::try_parse_from(line).map(|line| line.restore)
    };
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        let both = parse("image\n--exec\n1=true\n--\ntrue").unwrap_err();
        assert_eq!(both.kind(), clap::error::ErrorKind::ArgumentConflict);
        assert_eq!(parse("image\n--\nsh\n-c\nx").unwrap().command.len(), 3);
        return;
    };
    let args = parse(&arguments).unwrap();
    let code = match ucr::cli::restore::run(&args, &PinDirectory::new(pins::DEFAULT.into()), || {
        Ok(view())
    }) {
        Ok(code) if code == std::process::ExitCode::from(2) => 2,
        Ok(code) if code == std::process::ExitCode::from(3) => 3,
        Ok(code) if code == std::process::ExitCode::SUCCESS => 0,
        Ok(_) => 1,
        Err(error) => {
            eprintln!("ucr: {error:#}");
            1
        }
    };
    std::process::exit(code);
}

fn restore(arguments: &[&str]) -> Output {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    // A low soft limit, and a high descriptor number to reach beyond it.
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(me);
    command.args(["--exact", "programs::child", "--nocapture", "--test-threads=1"]);
    command.env(ARGUMENTS, arguments.join("\n")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A listener and a pair, in a root process and its child.
fn family(directory: &Path) -> (PathBuf, Image) {
    let mut b = Builder::new();
    b.0.processes.push(process(101, 100));
    let bound = path_name(directory.join("listener"), present(0o600));
    let listener = b.listener(SocketType::Stream, bound);
    let (one, other) = b.pair(SocketType::Stream);
    b.0.descriptors = [(100, 900, listener, true), (100, 7, one, true), (101, 0, other, false)]
        .map(|(pid, fd, socket, close_on_exec)| Descriptor {
            pid: Pid(pid),
            fd,
            socket,
            close_on_exec,
        })
        .to_vec();
    let file = directory.join("image");
    imagefile::write(&file, &b.0).unwrap();
    (file, b.0)
}

#[test]
fn a_tree_gets_its_sockets_and_talks() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let file = file.to_str().unwrap();
    // The child speaks through its standard input; the root hears it at descriptor 7.
    let root = "100=sh -c 'read line <&7; echo \"heard $line\"; echo \"flags $UCR_CLOEXEC_FDS\"; \
                readlink /proc/$$/fd/900; ulimit -Sn; ls -l /proc/$$/fd | grep -c socket:'";
    let output =
        restore(&[file, "--exec", root, "--exec", "101=sh -c 'echo \"hello from $$\" >&0'"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("heard hello from "), "{out}{err}");
    assert!(out.contains("flags 7,900\nsocket:["), "{out}");
    assert!(out.contains("]\n256\n2\n"), "nothing else is left open: {out}");
    let line =
        "ucr: restored 3 sockets (1 listener, 0 connections, 1 pair), verified: 0 differences\n";
    assert!(err.contains(line), "{err}");
    assert!(directory.path().join("listener").exists());
}

#[test]
fn a_program_that_cannot_run_undoes_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let file = file.to_str().unwrap();
    let marker = directory.path().join("survived");
    // It lives until its standard input, the other end of the pair, is closed; killed before, it
    // never writes.
    let child = format!("101=sh -c 'cat >/dev/null; echo > {}'", marker.display());
    let broken = broken(directory.path());
    let root = format!("100={}", broken.display());
    let output = restore(&[file, "--exec", &root, "--exec", &child]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("execute `"), "{err}");
    assert!(err.contains("` for saved process 100: No such file or directory"), "{err}");
    assert!(!directory.path().join("listener").exists());
    assert!(!marker.exists());
}

/// The root's program is the first that may fail: what was moved aside must be there until then.
#[test]
fn what_was_moved_aside_is_deleted_only_when_the_program_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let file = file.to_str().unwrap();
    let listener = directory.path().join("listener");
    fs::write(&listener, "foreign").unwrap();
    let hidden = || {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with(".ucr-aside"))
    };
    let marker = directory.path().join("ran");
    let child = format!("101=sh -c 'echo > {}'", marker.display());
    let root = format!("100={}", broken(directory.path()).display());
    let output = restore(&[file, "--replace", "--exec", &root, "--exec", &child]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(fs::read(&listener).unwrap(), b"foreign");
    assert!(!hidden());
    assert!(!marker.exists());

    // The program waits for the file to go, and has no child but the saved one's.
    let root = format!(
        "100=sh -c 'while ls -A {} | grep -q ucr-aside; do :; done; \
         read children </proc/$$/task/$$/children; set -- $children; echo \"children: $#\"'",
        directory.path().display()
    );
    let output = restore(&[file, "--replace", "--exec", &root, "--exec", "101=cat"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.ends_with("children: 1\n"), "{out}{err}");
    assert!(std::os::unix::fs::FileTypeExt::is_socket(&listener.metadata().unwrap().file_type()));
}

/// Found by nobody but the child itself, when the root's program runs already.
#[test]
fn a_child_that_cannot_run_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (file, mut image) = family(directory.path());
    // Its standard error is a socket; people hear of it nevertheless.
    image.descriptors[2].fd = 2;
    imagefile::write(&file, &image).unwrap();
    let child = format!("101={}", broken(directory.path()).display());
    // The end of the pair's other end is the end of the child.
    let output =
        restore(&[file.to_str().unwrap(), "--exec", "100=sh -c 'cat <&7'", "--exec", &child]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        err.contains("broken` for saved process 101: No such file or directory\n"),
        "{out}{err}"
    );
}

/// A file that is no program and names no interpreter: the shell's, as everywhere.
#[test]
fn a_script_without_interpreter_is_run_by_the_shell() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let script = directory.path().join("script");
    fs::write(&script, "echo \"$1 $2\" >&0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let child = format!("101={} one two", script.display());
    let root = "100=sh -c 'read line <&7; echo \"heard $line\"'";
    let output = restore(&[file.to_str().unwrap(), "--exec", root, "--exec", &child]);
    assert!(text(&output.stdout).contains("heard one two\n"), "{}", text(&output.stderr));
}

/// A program that only `execve` itself finds fault with.
fn broken(directory: &Path) -> PathBuf {
    let broken = directory.join("broken");
    fs::write(&broken, "#!/nowhere\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    broken
}

#[test]
fn programs_are_looked_for_before_anything_is_done_and_all_of_them_named() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let file = file.to_str().unwrap();
    let closed = directory.path().join("closed");
    fs::write(&closed, "").unwrap();
    let child = format!("101={}", closed.display());
    for dry_run in [["--dry-run"].as_slice(), &[]] {
        let arguments = [&[file, "--exec", "100=no-such-program", "--exec", &child], dry_run];
        let output = restore(&arguments.concat());
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{err}");
        let first = "ucr: execute `no-such-program` for saved process 100: No such file";
        assert!(err.contains(first), "{err}");
        let second = "closed` for saved process 101: Permission denied";
        assert!(err.contains(second), "{err}");
        assert!(!directory.path().join("listener").exists());
    }
}

#[test]
fn what_went_wrong_is_said_to_people_not_to_a_restored_socket() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let mut b = Builder::new();
    b.pair(SocketType::Stream);
    b.0.descriptors[0].fd = 1;
    b.0.descriptors[1].fd = 2;
    imagefile::write(&file, &b.0).unwrap();
    let broken = broken(directory.path());
    let output = restore(&[file.to_str().unwrap(), "--", broken.to_str().unwrap()]);
    let err = text(&output.stderr);
    assert!(err.contains("broken` for saved process 100: No such file"), "{err}");
}

#[test]
fn a_restore_that_cannot_say_so_has_still_succeeded() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let mut ucr = Command::new("sh");
    ucr.args(["-c", "exec \"$@\" 2>/dev/full", "-", env!("CARGO_BIN_EXE_ucr"), "restore"]);
    ucr.arg(file).args(["--exec", "100=echo ran", "--exec", "101=true"]);
    let output = ucr.output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stdout), "ran\n");
    assert!(directory.path().join("listener").exists());
}

#[test]
fn what_is_in_the_way_of_a_restore_comes_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let mut b = Builder::new();
    b.add(socket(SocketType::Stream, Role::Unconnected));
    b.0.descriptors[0].fd = i32::MAX - 1;
    imagefile::write(&file, &b.0).unwrap();
    let mut ucr = Command::new(env!("CARGO_BIN_EXE_ucr"));
    let output = ucr.arg("restore").arg(file).args(["--", "true"]).output().unwrap();
    let err = text(&output.stderr);
    assert!(err.contains("descriptor 2147483646 is beyond the hard limit"), "{err}");
    assert!(err.contains("\nucr: hint: raise the hard limit first"), "{err}");
}

#[test]
fn a_dry_run_prints_the_plan_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    let file = file.to_str().unwrap();
    let output = restore(&[file, "--dry-run"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(out.contains("   4  listen on socket 0 with backlog 7\n"), "{out}");
    assert!(!directory.path().join("listener").exists());

    fs::write(directory.path().join("listener"), "foreign").unwrap();
    let output = restore(&[file, "--dry-run"]);
    assert_eq!(output.status.code(), Some(3));
    let err = text(&output.stderr);
    assert!(err.contains("listener: there is a regular file; it is left alone"), "{err}");
    assert!(err.contains("ucr: hint: --replace takes its place"), "{err}");
}

#[test]
fn a_restore_that_differs_is_undone_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let (file, mut image) = family(directory.path());
    // Less than the system allows: the kernel takes its minimum silently.
    image.sockets[0].options =
        vec![SocketOption { name: libc::SO_SNDBUF, value: 2i32.to_ne_bytes().to_vec() }];
    imagefile::write(&file, &image).unwrap();
    let output =
        restore(&[file.to_str().unwrap(), "--exec", "100=echo ran", "--exec", "101=echo ran"]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("socket 0: SO_SNDBUF: wanted 02 00 00 00, found "), "{err}");
    assert!(!text(&output.stdout).contains("\nran"), "{}", text(&output.stdout));
    assert!(!directory.path().join("listener").exists());
}

#[test]
fn a_backlog_that_this_machine_would_cut_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (file, mut image) = family(directory.path());
    image.sockets[0].role = Role::Listening { backlog: u32::MAX };
    imagefile::write(&file, &image).unwrap();
    let output = restore(&[file.to_str().unwrap(), "--exec", "100=true", "--exec", "101=true"]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{err}");
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let expected = format!(
        "ucr: socket 0 has a backlog of 4294967295, and net.core.somaxconn is {} here\n",
        somaxconn.trim()
    );
    assert!(err.contains(&expected), "{err}");
    assert!(err.contains("ucr: hint: raise net.core.somaxconn"), "{err}");
}

#[test]
fn a_dry_run_as_json_has_steps_as_data_and_what_is_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let (file, mut image) = family(directory.path());
    image.descriptors[0].fd = i32::MAX - 1;
    imagefile::write(&file, &image).unwrap();
    fs::write(directory.path().join("listener"), "foreign").unwrap();
    let mut ucr = Command::new(env!("CARGO_BIN_EXE_ucr"));
    let output = ucr.arg("restore").arg(file).args(["--dry-run", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = json["steps"].as_array().unwrap();
    let bind = steps.iter().find(|line| line["step"]["bind"].is_object()).unwrap();
    let path = directory.path().join("listener");
    assert_eq!(bind["text"], format!("bind socket 0 to {}", path.display()));
    assert_eq!(bind["step"]["bind"]["made"]["saved"], 0);
    assert_eq!(bind["step"]["bind"]["place"]["name"]["kind"], "pathname");
    assert_eq!(bind["step"]["bind"]["place"]["name"]["text"], path.to_str().unwrap());
    let obstacles = json["obstacles"].as_array().unwrap();
    let kinds: Vec<_> = obstacles.iter().map(|obstacle| &obstacle["kind"]).collect();
    assert_eq!(kinds, ["name", "descriptors"]);
    assert_eq!(obstacles[0]["hint"], "--replace takes its place");
}

/// As if ucr had been killed between moving a file aside and deleting it.
#[test]
fn what_a_killed_restore_left_is_mentioned() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = family(directory.path());
    // Beyond what a pid can be (PID_MAX_LIMIT), so surely dead; and one that is alive.
    let dead = directory.path().join(".ucr-aside-2000000000-3");
    fs::write(&dead, "foreign").unwrap();
    let private = directory.path().join(".ucr-root-2000000000-0");
    fs::create_dir(&private).unwrap();
    for other in [format!(".ucr-aside-{}-0", std::process::id()), ".ucr-aside-x-y".to_owned()] {
        fs::write(directory.path().join(other), "").unwrap();
    }
    let output = restore(&[file.to_str().unwrap(), "--dry-run"]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let expected = format!(
        "ucr: note: {} is a file that a restore by pid 2000000000 moved aside before it was killed\n\
         ucr: note: {} is a directory that a restore by pid 2000000000 worked in before it was \
         killed\n\
         ucr: hint: move such a file, or one in such a directory, back, or delete it; ucr removes \
         only files of sockets that are no more\n",
        dead.display(),
        private.display()
    );
    assert!(err.ends_with(&expected), "{err}");
    assert_eq!(err.matches("note: ").count(), 2, "{err}");
    // A trial changes nothing.
    assert!(private.exists());
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[test]
fn commands_and_processes_have_to_fit() {
    let directory = tempfile::tempdir().unwrap();
    let (_, image) = family(directory.path());
    let says = |values: &[&str]| each(&image, &words(values)).unwrap_err().to_string();
    assert_eq!(
        says(&["7=true", "8=true", "101=a", "101=b"]),
        "no command for saved process 100; not in the image: process 7, 8; \
         more than one command for process 101"
    );
    for bad in ["true", "x=true", "100=", "100='open"] {
        assert_eq!(
            each(&image, &words(&[bad])),
            Err(ProgramError::Syntax(bad.to_owned())),
            "{bad}"
        );
    }
    let programs = each(&image, &words(&["101=b 'c d'", "100=a"])).unwrap();
    let found: BTreeMap<_, _> =
        programs.iter().map(|p| (p.pid.0, (p.command.clone(), p.arguments.clone()))).collect();
    assert_eq!(found[&101], ("b".into(), words(&["c d"])));
    let error = single(&image, &words(&["a"])).unwrap_err().to_string();
    assert!(error.starts_with("the image holds 2 processes (100, 101): "), "{error}");
    assert_eq!(single(&image, &[]), Err(ProgramError::None));
}

/// A forged image: as many processes as descriptors, each the only one.
#[test]
fn many_processes_are_shown() {
    let mut b = Builder::new();
    b.0.processes.clear();
    for pid in 1..=40_000 {
        b.0.processes.push(process(pid, 1));
        b.add(socket(SocketType::Stream, Role::Unconnected));
        b.0.descriptors.last_mut().unwrap().pid = Pid(pid);
    }
    let shown = ucr::render::image::Shown(&decode(&encode(&b.0).unwrap()).unwrap()).to_string();
    assert_eq!(shown.matches("unconnected").count(), 40_000);
}

/// As a tree of values the arguments alone would take some 500 MB.
#[test]
fn an_image_is_written_as_json_in_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let mut b = Builder::new();
    b.0.processes[0].arguments = vec![Vec::new(); 1_000_000];
    imagefile::write(&file, &b.0).unwrap();
    let mut show = Command::new("sh");
    show.args(["-c", "ulimit -v 262144; \"$0\" show --json \"$1\" | tail -c 100"]);
    let output = show.arg(env!("CARGO_BIN_EXE_ucr")).arg(&file).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.ends_with("  \"interfaces\": []\n}\n"), "{out}{err}");
}

#[test]
fn an_image_is_shown() {
    let mut image = everything(Path::new("/run/ucr"));
    image.sockets[0].creator =
        Some(Actor { pid: Pid(100), tid: Pid(100), uid: 0, comm: b"vic\ntim".to_vec(), cgroup: 1 });
    image.sockets[0].created_at = Some(12_345_678_901);
    image.sockets[0].known_from = KnownFrom::SeenLive;
    insta::assert_snapshot!(ucr::render::image::Shown(&image));
    let json = serde_json::to_value(ucr::render::json::Image(&image)).unwrap();
    assert_eq!(json["sockets"][1]["bound"]["name"]["hex"], "7563722d74657374000aff");
    assert_eq!(json["sockets"][0]["creator"]["comm"]["text"], "vic\ntim");
    assert_eq!(json["connections"].as_array().unwrap().len(), 6);
    assert_eq!(json["descriptors"][15]["socket"], 15);
}

#[test]
fn an_image_with_ends_that_are_not_in_it_is_shown() {
    let stream = SocketType::Stream;
    let mut b = Builder::new();
    let listener = b.listener(stream, abstract_name(b"listener"));
    let connected = |name: Option<Bound>| Socket { name, ..socket(stream, Role::Connected) };
    let named = |name: &[u8]| UnixName::Abstract(name.to_vec());
    let half = b.add(connected(None));
    let orphan = b.add(connected(None));
    let anew = b.add(connected(None));
    let kept = b.add(connected(Some(abstract_name(b"kept"))));
    let client = b.add(connected(None));
    let (sender, receiver) = b.pair(stream);
    let (only, other) = b.pair(stream);
    let [embryo, left] = [(), ()].map(|()| b.add(socket(stream, Role::Embryo)));
    b.0.descriptors.retain(|d| ![other, embryo, left].contains(&d.socket));
    let message =
        Message { data: b"x".to_vec(), files: vec![Passed::Socket(other)], ..Message::default() };
    b.get(receiver).queue = vec![message];
    let name = UnixName::Pathname(b"lib/\x1b".to_vec());
    let was = Was::Server { name: named(b"gone"), listener: None };
    let how = External::Reconnect { name, directory: Some(b"/var".to_vec()) };
    b.0.connections.extend([
        Connection::Ended { survivor: half, was: Was::Half(UnixName::Unnamed) },
        Connection::Ended { survivor: orphan, was },
        Connection::External { socket: anew, how },
        Connection::External { socket: kept, how: External::Keep { pid: Pid(7), fd: 9 } },
        Connection::Waiting { client: Sender::Socket(client), embryo, listener, order: 0 },
        Connection::Waiting {
            client: Sender::Gone(named(b"left")),
            embryo: left,
            listener,
            order: 1,
        },
    ]);
    for embryo in [embryo, left] {
        b.get(embryo).name = Some(abstract_name(b"listener"));
    }
    validate::check(&b.0).unwrap();
    assert_ne!((sender, only), (receiver, other));
    insta::assert_snapshot!(ucr::render::image::Shown(&b.0));
}
