//! Whenever ucr is killed, a process goes on with all of its old sockets, or with all the new ones, and nothing is left
//! in it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{
    Need, Victim, World,
    doomed::{self, Call, Moment, Seen},
    needs, outside, wait,
};

use super::{
    figure::{blocked, figure},
    folder::{Folder, all_names, are_left, names, socket},
};
use crate::world;

/// What changes something in a stopped process, or for others: requests of `ptrace`, …
const REQUESTS: [i64; 7] = [
    7,      // PTRACE_CONT
    13,     // PTRACE_SETREGS
    17,     // PTRACE_DETACH
    24,     // PTRACE_SYSCALL
    0x4206, // PTRACE_SEIZE
    0x4207, // PTRACE_INTERRUPT
    0x420b, // PTRACE_SETSIGMASK
];
/// … and other calls.
const CALLS: [i64; 8] = [
    libc::SYS_mkdirat,
    libc::SYS_pidfd_getfd,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_renameat2,
    libc::SYS_sendmsg,
    libc::SYS_unlinkat,
    libc::SYS_write,
];

/// A process before ucr comes.
struct Before {
    pid: i32,
    figure: BTreeSet<String>,
    blocked: Vec<String>,
    sockets: BTreeMap<i32, u32>,
}

impl Before {
    fn of(pid: i32) -> Self {
        let (figure, blocked) = (figure(pid), blocked(pid));
        Self { pid, figure, blocked, sockets: outside::sockets(pid) }
    }

    /// It lives, nobody holds it any more, and no code of ours runs in it: that blocks all signals.
    fn goes_on(&self, moment: Moment) {
        let status = || fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("read");
        let goes = wait::holds(|| {
            // The last number is the signal that it died of.
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
            let died = stat.split_whitespace().next_back().unwrap_or_default();
            assert!(wait::is_alive(self.pid), "{moment:?}: {} has died of {died}", self.pid);
            let is_held = !status().contains("TracerPid:\t0\n");
            !is_held
                && !matches!(outside::state(self.pid), Some('t' | 'T'))
                && blocked(self.pid) == self.blocked
        });
        assert!(goes, "{moment:?}: {:?} {}", self.blocked, status());
    }

    /// Whether all sockets are others now. Some and not all is what must not be.
    fn has_others(&self) -> bool {
        let (before, after) = (&self.sockets, outside::sockets(self.pid));
        let numbers = |of: &BTreeMap<i32, u32>| of.keys().copied().collect::<Vec<_>>();
        assert_eq!(numbers(before), numbers(&after));
        let same = before.iter().filter(|(fd, inode)| after.get(fd) == Some(inode)).count();
        assert!(same == 0 || same == before.len(), "{same} are the same: {before:?} {after:?}");
        same == 0
    }

    /// What is different, but for the sockets themselves.
    fn problems(&self) -> Vec<String> {
        let now = figure(self.pid);
        let gone = self.figure.difference(&now).map(|line| format!("gone: {line}"));
        gone.chain(now.difference(&self.figure).map(|line| format!("left: {line}"))).collect()
    }
}

/// Moments spread over all the calls of a run, and those around calls that matter.
pub(super) fn moments(seen: &Seen, spread: usize, of_each: usize) -> Vec<Moment> {
    let evenly = |count: usize, most: usize| {
        let most = most.min(count);
        (0..most).map(move |at| at * count.saturating_sub(1) / most.saturating_sub(1).max(1))
    };
    let mut moments: Vec<_> = evenly(seen.calls.len(), spread).map(Moment::Before).collect();
    let matters = [&REQUESTS.map(Call::ptrace)[..], &CALLS.map(Call::of)].concat();
    for (call, count) in seen.counts() {
        if matters.contains(&call) {
            for at in evenly(count, of_each) {
                moments.extend([Moment::BeforeThe(at, call), Moment::AfterThe(at, call)]);
            }
        }
    }
    moments
}

/// What a process is about when ucr comes. What it is about ends when somebody connects.
#[derive(Clone, Copy, Debug)]
enum About {
    /// It waits for an order.
    Nothing,
    Working,
    Awaiting,
    Accepting,
}

impl About {
    /// (Not in `poll` with a time limit: the kernel knows how much is left of it only as long as nothing else comes
    /// between, and a stop that comes on top of another one ends it, if ucr is killed then, with `EINTR`.)
    const ALL: [Self; 4] = [Self::Nothing, Self::Working, Self::Accepting, Self::Awaiting];
}

/// A process with sockets of all kinds, which are connected with each other.
struct Target<'a> {
    world: &'a World,
    victim: Victim,
    listener: i32,
    /// Watches the connections, and the listener.
    epolls: [i32; 2],
    connected: Vec<(i32, i32)>,
    about: About,
}

impl<'a> Target<'a> {
    fn new(world: &'a World) -> Self {
        let mut victim = world.victim();
        let name = world.path_name("socket");
        let listener = victim.listener("stream", &name, 8);
        let mut connected = Vec::new();
        for _ in 0..3 {
            let client = victim.client("stream", &name);
            let accepted = victim.accept(listener);
            connected.push((client, victim.number(&format!("own {accepted}"))));
        }
        connected.push(victim.pair("seqpacket"));
        connected.push(victim.pair("dgram+cloexec"));
        let epolls = [victim.number("epoll"), victim.number("epoll")];
        for (_, fd) in &connected {
            // EPOLLIN | EPOLLET
            victim.ask(&format!("watch {} {fd} 80000001 fedcba98000000{fd:02x}", epolls[0]));
        }
        victim.ask(&format!("watch {} {listener} 1 1", epolls[1]));
        let about = About::Nothing;
        let mut target = Self { world, victim, listener, epolls, connected, about };
        // What it needs memory for, it has by now.
        for about in About::ALL {
            target.begins(about);
            assert_eq!(target.serves(), None);
        }
        target
    }

    fn command(&self) -> Command {
        self.world.ucr.command(&["refresh", "--pid", &self.victim.pid().to_string()])
    }

    fn begins(&mut self, about: About) {
        self.about = about;
        let (listener, pid) = (self.listener, self.victim.pid());
        let (order, calls) = match about {
            About::Nothing => return,
            About::Working => {
                self.victim.order(&format!("compute {listener}"));
                return wait::for_state(pid, 'R');
            }
            About::Awaiting => (
                format!("await {} 600000", self.epolls[1]),
                [libc::SYS_epoll_wait, libc::SYS_epoll_pwait],
            ),
            About::Accepting => {
                (format!("accept {listener}"), [libc::SYS_accept, libc::SYS_accept4])
            }
        };
        self.victim.order(&order);
        wait::until(&format!("a victim to wait in {order}"), || {
            outside::blocked_in(pid, pid).is_some_and(|call| calls.contains(&call)).then_some(())
        });
    }

    /// It goes on with what it was about, and all that it has is good. What it was told of the stop, if anything.
    fn serves(&mut self) -> Option<String> {
        let mut client = UnixStream::connect(socket(self.world)).expect("connect by its path");
        client.set_read_timeout(Some(wait::patience())).expect("not for ever");
        let (listener, victim) = (self.listener, &mut self.victim);
        let mut noticed = None;
        let accepted = match self.about {
            About::Accepting => victim.answer("accept").parse().expect("a descriptor"),
            about => {
                match about {
                    About::Working => {
                        let counts = victim.answer("compute");
                        let (rounds, others) = counts.split_once(' ').expect("two numbers");
                        assert_eq!(others, "0", "of {rounds}");
                    }
                    About::Awaiting => match victim.answered("await") {
                        Err(error) => noticed = Some(error),
                        Ok(came) => assert_eq!(came, "1:1"),
                    },
                    _ => {}
                }
                victim.accept(listener)
            }
        };
        client.write_all(b"question").expect("ask");
        assert_eq!(victim.ask(&format!("recv {accepted}")), "question");
        victim.ask(&format!("send {accepted} answer"));
        let mut answer = [0; 6];
        client.read_exact(&mut answer).expect("hear");
        assert_eq!(&answer, b"answer");
        victim.close(accepted);
        for (fd, other) in self.connected.clone() {
            victim.ask(&format!("send {fd} there"));
            let came = victim.ask(&format!("await {} 0", self.epolls[0]));
            assert_eq!(came, format!("fedcba98000000{other:02x}:1"));
            assert_eq!(victim.ask(&format!("recv {other}")), "there");
            victim.ask(&format!("send {other} back"));
            assert_eq!(victim.ask(&format!("recv {fd}")), "back");
        }
        noticed
    }
}

/// What should not have been, each with its moment.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// What is left in a process, or gone from it.
    pub(super) left: Vec<String>,
    /// What it was told of the stop.
    noticed: Vec<String>,
    /// Whether directories were left, which later ones have removed.
    left_directories: bool,
}

/// Goes over all the moments: `run` has ucr die, `serve` looks whether the processes go on.
pub(super) fn go_over(
    world: &World,
    pids: &[i32],
    moments: &[Moment],
    mut run: impl FnMut(usize, Option<Moment>) -> Seen,
    mut serve: impl FnMut() -> Option<String>,
) -> Problems {
    let (mut outcomes, mut problems) = (BTreeSet::new(), Problems::default());
    for (at, moment) in moments.iter().enumerate() {
        let before: Vec<_> = pids.iter().map(|pid| Before::of(*pid)).collect();
        let folder = Folder::of(world);
        let seen = run(at, Some(*moment));
        // One that comes to its end before the moment does is as good as any.
        assert!(seen.code.is_none_or(|code| code == 0), "{}", seen.said);
        before.iter().for_each(|before| before.goes_on(*moment));
        let have_others: BTreeSet<bool> = before.iter().map(Before::has_others).collect();
        assert_eq!(have_others.len(), 1, "{moment:?}: some processes have others");
        let has_others = have_others.contains(&true);
        assert!(seen.code.is_none() || has_others, "{}", seen.said);
        folder.settles(has_others);
        problems.left_directories |= all_names(world.folder()) != names(world.folder());
        let noticed = serve();
        problems.noticed.extend(noticed.map(|noticed| format!("{moment:?}: {noticed}")));
        let left = before.iter().flat_map(Before::problems);
        problems.left.extend(left.map(|left| format!("{moment:?}: {left}")));
        outcomes.insert(has_others);
    }
    assert_eq!(outcomes.len(), 2, "killed too early each time, or too late");
    assert!(wait::holds(|| are_left(world.folder())), "{:?}", all_names(world.folder()));
    let seen = run(moments.len(), None);
    assert_eq!(seen.code, Some(0), "{}", seen.said);
    assert_eq!(all_names(world.folder()), names(world.folder()));
    let _noticed = serve();
    problems
}

/// Somebody whose sockets were replaced once, and what ucr did for that.
fn refreshed_once(world: &World) -> (Target<'_>, Seen) {
    world.ucr.watch();
    let mut target = Target::new(world);
    let undisturbed = doomed::run(&target.command(), None);
    assert_eq!(undisturbed.code, Some(0), "{}", undisturbed.said);
    target.begins(About::Nothing);
    assert_eq!(target.serves(), None);
    (target, undisturbed)
}

fn whatever_it_is_about(abouts: &[About], moments: impl FnOnce(&Seen) -> Vec<Moment>) -> Problems {
    if !needs::met(&[Need::Root]) {
        return Problems::default();
    }
    let world = world();
    let (target, undisturbed) = refreshed_once(&world);
    let (pid, command) = (target.victim.pid(), target.command());
    let target = RefCell::new(target);
    let run = |at: usize, moment: Option<Moment>| {
        let about = abouts.get(at % abouts.len()).copied();
        target.borrow_mut().begins(about.unwrap_or(About::Nothing));
        doomed::run(&command, moment)
    };
    let moments = moments(&undisturbed);
    go_over(&world, &[pid], &moments, run, || target.borrow_mut().serves())
}

#[test]
fn a_process_has_all_the_old_ones_or_all_the_new_ones() {
    let [abouts @ .., _] = About::ALL;
    let problems = whatever_it_is_about(&abouts, |seen| moments(seen, 40, 4));
    assert!(problems.left.is_empty(), "{problems:#?}");
    assert!(problems.left_directories, "it was never killed while it worked in one");
}

/// What it is to do is written piece by piece, while it may have to go on at any moment.
#[test]
fn a_process_does_nothing_that_is_half_written() {
    let write = Call::of(libc::SYS_pwrite64);
    let writes = |seen: &Seen| {
        let count = seen.counts().get(&write).copied().unwrap_or_default();
        (0..count).map(|at| Moment::AfterThe(at, write)).collect()
    };
    whatever_it_is_about(&[About::Nothing], writes);
}

#[test]
fn who_awaits_events_is_not_told_that_he_was_interrupted() {
    // But for the moment between its stop and the next call but one: then the kernel has told it already.
    let [interrupt, give] = [0x4207, 13].map(Call::ptrace);
    let in_between = [Moment::AfterThe(0, interrupt), Moment::BeforeThe(0, give)];
    let problems = whatever_it_is_about(&[About::Awaiting], |seen| {
        let mut moments = moments(seen, 20, 1);
        moments.retain(|moment| !in_between.contains(moment));
        moments
    });
    assert!(problems.noticed.is_empty(), "{problems:#?}");
}

/// Who is asked to end takes everything back, or comes to the end of what he is about.
#[test]
fn nothing_is_left_by_who_is_interrupted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut target, undisturbed) = refreshed_once(&world);
    let (pid, command) = (target.victim.pid(), target.command());
    let (mut outcomes, mut problems) = (BTreeSet::new(), Vec::new());
    for moment in moments(&undisturbed, 25, 1) {
        let (before, folder) = (Before::of(pid), Folder::of(&world));
        let seen = doomed::run_until(&command, Some(moment), Signal::SIGTERM);
        before.goes_on(moment);
        let has_others = before.has_others();
        // If it comes late, all is done before it has an effect.
        let is_told_right = seen.code.is_none_or(|code| (code == 0) == has_others);
        assert!(is_told_right, "{moment:?}: {:?} {has_others} {}", seen.code, seen.said);
        folder.settles(has_others);
        assert_eq!(all_names(world.folder()), folder.names, "{moment:?}: {:?}", seen.code);
        assert_eq!(target.serves(), None);
        let left = before.problems();
        problems.extend(left.iter().map(|left| format!("{moment:?}: {:?} {left}", seen.code)));
        outcomes.insert((seen.code, has_others));
    }
    assert!(outcomes.len() > 1, "{outcomes:?}");
    assert!(problems.is_empty(), "{outcomes:?} {problems:#?}");
}

/// Whoever refreshes right away again need not know that somebody is still setting things back.
#[test]
fn the_next_one_comes_right_after_who_was_killed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut target, undisturbed) = refreshed_once(&world);
    let (pid, command) = (target.victim.pid(), target.command());
    let mut killed = 0;
    for moment in moments(&undisturbed, 15, 2) {
        target.begins(About::Nothing);
        let folder = Folder::of(&world);
        let before = outside::sockets(pid);
        killed += usize::from(doomed::run(&command, Some(moment)).code.is_none());
        let seen = doomed::run(&command, None);
        assert_eq!(seen.code, Some(0), "{moment:?}: {}", seen.said);
        assert!(outside::sockets(pid).iter().all(|(fd, inode)| before[fd] != *inode));
        // Whoever put a file back removes the other one after that.
        let is_clean = wait::holds(|| names(world.folder()) == folder.names);
        assert!(is_clean, "{moment:?}: {:?}", all_names(world.folder()));
        assert_eq!(target.serves(), None, "{moment:?}");
    }
    assert!(killed > 0, "it always came to its end");
}

/// One that a dump has left stopped goes on when it is told to, whatever has become of the restore.
#[test]
fn who_was_left_stopped_has_all_the_old_ones_or_all_the_new_ones() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let image = world.path("image").display().to_string();
    let target = RefCell::new(Target::new(&world));
    let pid = target.borrow().victim.pid();
    let own = pid.to_string();
    let dump = || world.ucr.run(&["dump", "--pid", &own, "-o", &image, "--leave-stopped"]).done();
    let restore = world.ucr.command(&["restore", &image, "--into"]);
    dump();
    let undisturbed = doomed::run(&restore, None);
    assert_eq!(undisturbed.code, Some(0), "{}", undisturbed.said);
    target.borrow_mut().begins(About::Nothing);
    assert_eq!(target.borrow_mut().serves(), None);
    let run = |_, moment| {
        dump();
        let seen = doomed::run(&restore, moment);
        kill(Pid::from_raw(pid), Signal::SIGCONT).expect("let a victim go on");
        seen
    };
    let moments = moments(&undisturbed, 15, 1);
    let problems = go_over(&world, &[pid], &moments, run, || target.borrow_mut().serves());
    assert!(problems.left.is_empty(), "{problems:#?}");
}

#[test]
fn of_a_tree_all_processes_have_the_old_ones_or_all_the_new_ones() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut parent = world.victim();
    let name = world.path_name("socket");
    let listener = parent.listener("stream", &name, 8);
    let (a, b) = parent.pair("stream");
    let mut child = parent.child(&world.control());
    let client = child.client("stream", &name);
    let accepted = parent.accept(listener);
    let root = parent.pid().to_string();
    let command = world.ucr.command(&["refresh", "--tree", "--pid", &root]);
    let pids = [parent.pid(), child.pid()];
    let mut serve = || {
        for (one, other) in [(a, b), (b, a)] {
            parent.ask(&format!("send {one} shared"));
            assert_eq!(child.ask(&format!("recv {other}")), "shared");
        }
        child.ask(&format!("send {client} question"));
        assert_eq!(parent.ask(&format!("recv {accepted}")), "question");
        let _late = UnixStream::connect(socket(&world)).expect("connect by its path");
        let late = child.accept(listener);
        child.close(late);
        for fd in [listener, a, b] {
            assert_eq!(outside::inode(pids[0], fd), outside::inode(pids[1], fd));
        }
        None
    };
    assert_eq!(serve(), None);
    let undisturbed = doomed::run(&command, None);
    assert_eq!(undisturbed.code, Some(0), "{}", undisturbed.said);
    assert_eq!(serve(), None);
    let run = |_, moment| doomed::run(&command, moment);
    let problems = go_over(&world, &pids, &moments(&undisturbed, 15, 2), run, serve);
    assert!(problems.left.is_empty(), "{problems:#?}");
}
