//! A program of the C library's is entered, and left.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use super::*;
use crate::process::freeze::{Scope, freeze};

struct Victim(Child);

impl Victim {
    /// A program of the C library's, once it is in this system call with its input.
    fn start(program: &str, arguments: &[&str], call: &str) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let victim = Self(command.spawn().expect("start a victim"));
        // From its input: its linker reads as well, from others.
        let is_there = |text: String| text.starts_with(&format!("{call} 0x0 "));
        while !is_there(victim.read("syscall")) {
            std::thread::yield_now();
        }
        victim
    }

    fn pid(&self) -> Pid {
        Pid(i32::try_from(self.0.id()).expect("a pid"))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("read of a victim")
    }

    fn descriptors(&self) -> BTreeSet<String> {
        let list = fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("list descriptors");
        list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `read`, on x86-64.
const READ: &str = "0";

#[test]
fn calls_leave_no_trace() {
    let victim = Victim::start("cat", &[], READ);
    let look = || (victim.read("maps"), victim.descriptors());
    let before = look();
    let mut frozen = freeze(victim.pid(), Scope::Process).expect("freeze");
    let registers = Registers::of(victim.pid().0).expect("registers");
    let mut known = Known::default();
    for _ in 0..3 {
        let mut parasite =
            Parasite::enter(&mut frozen, victim.pid(), 4096, 64, &mut known).expect("enter");
        let mut order = parasite.order();
        order.call(libc::SYS_getpid, File::Number(0), &[], Else::GoOn);
        order.call(libc::SYS_close, File::Number(999), &[], Else::Stop);
        order.call(libc::SYS_getpid, File::Number(0), &[], Else::GoOn);
        let results = parasite.perform(&mut order, &[]).expect("perform");
        assert_eq!(results, [i64::from(victim.pid().0), -i64::from(libc::EBADF)]);
        assert_ne!(look(), before);
        parasite.leave().expect("leave");
        assert_eq!(Registers::of(victim.pid().0).expect("registers"), registers);
    }
    drop(frozen);
    assert_eq!(look(), before);
    // It begins its call again.
    while victim.read("syscall").split(' ').next() != Some(READ) {
        std::thread::yield_now();
    }
}

#[test]
fn descriptors_go_over_and_are_closed_unless_they_are_put_somewhere() {
    let victim = Victim::start("cat", &[], READ);
    let before = victim.descriptors();
    let mut frozen = freeze(victim.pid(), Scope::Process).expect("freeze");
    let mut parasite =
        Parasite::enter(&mut frozen, victim.pid(), 4096, 64, &mut Known::default()).expect("enter");
    let sent = [fs::File::open("/dev/null").expect("open"), fs::File::open("/").expect("open")];
    let mut order = parasite.order();
    let received = order.receive(parasite.channel(), 2);
    order.call(libc::SYS_dup3, *received.last().expect("two"), &[77, 0], Else::GoOn);
    let files = vec![sent.iter().map(AsFd::as_fd).collect()];
    let results = parasite.perform(&mut order, &files).expect("perform");
    assert_eq!(results, [1, 77]);
    parasite.leave().expect("leave");
    drop(frozen);
    let mut after = victim.descriptors();
    assert!(after.remove("77"), "{after:?}");
    assert_eq!(after, before);
    let link = fs::read_link(format!("/proc/{}/fd/77", victim.pid())).expect("read the link");
    assert_eq!(link.as_os_str(), "/");
}

/// Whoever lets go of it in the middle (as the kernel does if we are killed) finds it where it was: the code does
/// its last list, and returns by the frame.
#[test]
fn a_process_that_is_let_go_of_in_the_middle_goes_on_by_itself() {
    let blocking = ["--block-signal=USR1,WINCH", "cat"];
    let mut victim = Victim::start("env", &blocking, READ);
    let blocked = |victim: &Victim| {
        let status = victim.read("status");
        let line = status.lines().find(|line| line.starts_with("SigBlk")).expect("a line");
        line.to_owned()
    };
    let look =
        |victim: &Victim| (victim.read("maps"), victim.descriptors(), victim.read("syscall"));
    let (before, blocked_before) = (look(&victim), blocked(&victim));
    let mut frozen = freeze(victim.pid(), Scope::Process).expect("freeze");
    let mut parasite =
        Parasite::enter(&mut frozen, victim.pid(), 4096, 64, &mut Known::default()).expect("enter");
    let mut order = parasite.order();
    order.receive(parasite.channel(), 1);
    let root = fs::File::open("/").expect("open");
    parasite.perform(&mut order, &[vec![root.as_fd()]]).expect("perform");
    assert_ne!(look(&victim), before);
    // What the kernel does at our end.
    parasite.has_left = true;
    parasite.stop().expect("stop");
    drop(parasite);
    drop(frozen);
    // It reads its input again, from the same place.
    while look(&victim) != before {
        std::thread::yield_now();
    }
    assert_eq!(blocked(&victim), blocked_before);
    let mut input = victim.0.stdin.take().expect("a pipe");
    io::Write::write_all(&mut input, b"still here").expect("write");
    drop(input);
    let said = io::read_to_string(victim.0.stdout.take().expect("a pipe")).expect("read");
    assert_eq!(said, "still here");
    assert!(victim.0.wait().expect("wait").success());
}
