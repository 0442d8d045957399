//! What becomes of a world: it is built, dumped, killed, restored, and dumped again.

use std::{
    cell::RefCell,
    collections::HashSet,
    fs,
    os::unix::net::UnixDatagram,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Once,
};

use anyhow::{Context as _, Result};
use ucr::{
    image::{Image, Role, file},
    model::{Pid, UnixName},
    snapshot::diag,
};
use ucr_tests::{
    Answer, Victim, World, outside,
    ucr::{DONE, REFUSED, Started},
    wait,
};

use crate::{
    build::{Built, build},
    generate::Plan,
    normal::{Outlook, Pids, differences, facts},
};

/// How a world failed: what was done, in a word, and what was said.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) stage: &'static str,
    pub(crate) lines: Vec<String>,
}

/// What came of a world.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Equal,
    /// By the first dump: these are the obstacles.
    Refused(Failure),
    Failed(Failure),
}

/// A world that was tried.
pub(crate) struct Tried {
    pub(crate) outcome: Outcome,
    /// Which operations took place.
    pub(crate) done: Vec<bool>,
    /// The first image.
    pub(crate) image: Option<Image>,
    /// Whether a saved pid was not to be had.
    pub(crate) pids: Pids,
}

impl Tried {
    /// Before anything has become of it.
    pub(crate) fn nothing() -> Self {
        Self { outcome: Outcome::Equal, done: Vec::new(), image: None, pids: Pids::Count }
    }
}

impl Outcome {
    /// The failure, whichever it is.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Equal => None,
            Self::Refused(failure) | Self::Failed(failure) => Some(failure),
        }
    }
}

impl Failure {
    fn new(stage: &'static str, text: &str) -> Self {
        Self { stage, lines: text.lines().map(str::to_owned).collect() }
    }

    /// What two failures of the same kind have in common: the first line without numbers and names.
    pub(crate) fn kind(&self) -> String {
        let line =
            self.lines.iter().find(|line| !line.contains("note:")).map_or("", String::as_str);
        // Of a difference only which field it is in.
        let line = line.split(" before, ").next().unwrap_or(line);
        let line = match self.stage {
            DIFFERS => line.rsplit_once("): ").map_or(line, |(_, rest)| rest),
            _ => line,
        };
        let words = line.split(' ').filter(|word| word.chars().all(char::is_alphabetic));
        let words: Vec<&str> = words.take(8).collect();
        format!("{}: {}", self.stage, words.join(" "))
    }
}

const DIFFERS: &str = "the images differ";

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How worlds are tried.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    /// The program of the processes.
    pub(crate) victim: &'static str,
    /// Where tracing is attached.
    pub(crate) pins: Option<&'a Path>,
    /// Whether the second image is falsified.
    pub(crate) plant: bool,
}

/// Tries a world.
pub(crate) fn try_out(plan: &Plan, how: How<'_>) -> Tried {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        panic::set_hook(Box::new(|info| {
            PANIC.with(|text| *text.borrow_mut() = info.to_string());
        }));
    });
    let mut tried = Tried::nothing();
    let run = AssertUnwindSafe(|| run(plan, how, &mut tried));
    let outcome = panic::catch_unwind(run);
    tried.outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(Failure::new("the test failed", &format!("{error:#}"))),
        Err(_) => {
            let text = PANIC.with(|text| text.borrow().clone());
            Outcome::Failed(Failure::new("the test failed", &text))
        }
    };
    tried
}

fn run(plan: &Plan, how: How<'_>, tried: &mut Tried) -> Result<Outcome> {
    let world = World::new(how.victim);
    if let Some(pins) = how.pins {
        world.ucr.share(pins.to_owned());
    }
    let Built { mut victims, done } = build(&world, &plan.ops)?;
    tried.done = done;
    let saved: Vec<i32> = victims.iter().map(Victim::pid).collect();
    let path = world.path("first");
    let answer = dump(&world, &victims, &path, &["--kill"]);
    match answer.code {
        Some(DONE) => {}
        Some(REFUSED) => {
            return Ok(Outcome::Refused(Failure::new("the dump was refused", &answer.stderr)));
        }
        _ => return Ok(Outcome::Failed(Failure::new("the dump failed", &answer.stderr))),
    }
    let root = victims.swap_remove(0);
    let _status = root.ended();
    drop(victims);
    // Reaped as well: a restore wants their pids.
    for pid in &saved {
        wait::until("the end of a victim", || outside::state(*pid).is_none().then_some(()));
    }
    let before = file::read(&path)?;
    tried.image = Some(before.clone());
    names_are_free(&before);

    let mut victims = match restore(&world, &path, &saved)? {
        Ok((victims, said)) => {
            if said.contains("in SO_PEERCRED, not the saved one") {
                tried.pids = Pids::Differ;
            }
            victims
        }
        Err(said) => return Ok(Outcome::Failed(Failure::new("the restore failed", &said))),
    };
    for descriptor in before.descriptors.iter().filter(|descriptor| descriptor.close_on_exec) {
        let whose = saved.iter().position(|pid| *pid == descriptor.pid.0);
        let whose = whose.and_then(|whose| victims.get_mut(whose)).context("a victim")?;
        // As the program would, which is told by the environment.
        whose.ask(&format!("dupcloexec {0} {0}", descriptor.fd));
    }
    let path = world.path("second");
    let answer = dump(&world, &victims, &path, &[]);
    if answer.code != Some(DONE) {
        let failure = Failure::new("the second dump failed", &answer.stderr);
        return Ok(Outcome::Failed(failure));
    }
    let mut after = file::read(&path)?;
    if how.plant {
        falsify(&mut after);
    }
    let own: Vec<(Pid, Pid)> = saved.iter().map(|pid| (Pid(*pid), Pid(*pid))).collect();
    let new: Vec<(Pid, Pid)> =
        saved.iter().zip(&victims).map(|(pid, victim)| (Pid(*pid), Pid(victim.pid()))).collect();
    let pids = tried.pids;
    let differences = differences(
        &facts(&before, &Outlook { processes: &own, pids }),
        &facts(&after, &Outlook { processes: &new, pids }),
    );
    if differences.is_empty() {
        return Ok(Outcome::Equal);
    }
    Ok(Outcome::Failed(Failure { stage: DIFFERS, lines: differences }))
}

/// Says something wrong of every listener.
fn falsify(image: &mut Image) {
    for socket in &mut image.sockets {
        if let Role::Listening { backlog } = &mut socket.role {
            *backlog += 1;
        }
    }
}

fn dump(world: &World, victims: &[Victim], image: &Path, options: &[&str]) -> Answer {
    let pid = victims.first().map_or(0, Victim::pid).to_string();
    let image = image.display().to_string();
    let mut arguments = vec!["dump", "--tree", "--pid", &pid, "-o", &image];
    arguments.extend(options);
    world.ucr.run(&arguments)
}

/// Waits until the names of the world are nobody's any more. Sockets that only messages held, which went with
/// their victims, are collected by the kernel in its own time, whenever some unix socket is closed. What does not
/// come about in time the restore will tell.
fn names_are_free(image: &Image) {
    let bound = image.sockets.iter().filter_map(|socket| socket.name.as_ref());
    // A relative path may be another world's as well, where it is another file.
    let names = bound.map(|bound| &bound.name).filter(|name| !name.is_relative_path());
    let names: HashSet<&UnixName> = names.collect();
    let _in_time = wait::holds(|| {
        drop(UnixDatagram::unbound());
        let view = diag::unix_sockets().unwrap_or_default();
        !view.sockets.values().any(|socket| names.contains(&socket.name))
    });
}

/// The new victims and what was said; or what was said when it failed.
fn restore(
    world: &World,
    image: &Path,
    saved: &[i32],
) -> Result<Result<(Vec<Victim>, String), String>> {
    let controls: Vec<PathBuf> = saved.iter().map(|_| world.control()).collect();
    let mut arguments = vec!["restore".to_owned(), image.display().to_string()];
    for (pid, control) in saved.iter().zip(&controls) {
        let [program, control] = world.victim_command(control);
        arguments.push(format!("--exec={pid}={program} {control}"));
    }
    let mut victims: Vec<_> = controls.iter().map(|base| Victim::expected(base)).collect();
    let started = world.ucr.start(&arguments);
    // It ends, or becomes the program of the root.
    let program = fs::canonicalize(world.victim_command(Path::new("")).first().context("one")?)?;
    let has_become = |started: &Started| {
        let exe = fs::read_link(format!("/proc/{}/exe", started.pid()));
        exe.is_ok_and(|exe| exe == program)
    };
    let is_there = wait::until("ucr restore", || {
        if has_become(&started) {
            return Some(true);
        }
        (!wait::is_alive(started.pid())).then_some(false)
    });
    if !is_there {
        return Ok(Err(started.finish().stderr));
    }
    for victim in &mut victims {
        victim.greet(&started);
    }
    let said = started.complaint();
    world.keep(started);
    Ok(Ok((victims, said)))
}
