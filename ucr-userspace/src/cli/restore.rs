//! `ucr restore`: bring the sockets of an image back and give them to programs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use nix::net::if_::if_nametoindex;

use super::exit;
use super::into;
use super::report::{hint, say};
use crate::causes::one_line;
use crate::image::{Image, Interface, file, interfaces};
use crate::kernel::interrupts::HeldBack;
use crate::lock::kept;
use crate::model::{Pid, View};
use crate::render::{json, output};
use crate::restore::collector::Collector;
use crate::restore::execute::{Execution, Restored, execute};
use crate::restore::leftover;
use crate::restore::names::{self, Foreign, Here};
use crate::restore::obstacle::{Obstacle, Takers, survey};
use crate::restore::plan::step::Aside;
use crate::restore::plan::{Plan, Spellings, plan_beneath};
use crate::restore::program::{self, Program, ProgramError};
use crate::restore::target;
use crate::restore::undo::UndoProblem;
use crate::restore::verify::{self, Insight, MANY, Observed};
use crate::restore::workers::Workers;
use crate::snapshot::descriptors::{DescriptorError, Lister};
use crate::tracer::pins::PinDirectory;

/// Bring the sockets of an image back and run programs with them
///
/// The sockets stand at the same descriptor numbers as in the saved processes. Descriptors that
/// were close-on-exec are left open, or they would not survive; their numbers are in the
/// environment variable UCR_CLOEXEC_FDS, separated by commas, for a program that sets the flag
/// again. Standard input, output and error are ucr's own, unless the image has sockets there.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The image
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print the plan and what is in its way; do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print the plan as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Take the place of files that are not the image's own (never of directories, never of sockets
    /// in use)
    #[arg(long)]
    pub replace: bool,
    /// Look all paths of the image up beneath this directory, and never outside of it: neither `..` nor
    /// symbolic links lead out. The sockets still say the saved names. (The programs are run as ever, with
    /// the root directory that ucr has.)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Give the sockets to live processes: those with the saved pids, or for each saved pid OLD the process NEW. What
    /// stands at the descriptor numbers is replaced; a process that `ucr dump --leave-stopped`
    /// has left stopped goes on
    #[arg(
        long,
        value_name = "OLD=NEW",
        num_args = 0..,
        value_parser = pair,
        conflicts_with_all = ["exec", "command", "root", "dry_run"]
    )]
    pub into: Option<Vec<(Pid, Pid)>>,
    /// The command for one saved process; once for each of a tree
    #[arg(long, value_name = "PID=COMMAND", conflicts_with = "command")]
    pub exec: Vec<OsString>,
    /// The command for the only saved process
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs the verb. On success it does not return: the process has become the program of the saved
/// root process. `look` takes a snapshot of the live unix sockets.
///
/// # Errors
///
/// Whatever stands in the way; everything is undone by then.
pub fn run(
    args: &RestoreArgs,
    pins: &PinDirectory,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<ExitCode> {
    kept::take_off_old();
    let mut image = file::read(&args.file)?;
    let unknown = interfaces::renumber(&mut image, |name| if_nametoindex(name).ok());
    tracing::debug!(sockets = image.sockets.len(), "the image is read");
    if let Some(pairs) = &args.into {
        let foreign = if args.replace { Foreign::Replace } else { Foreign::Refuse };
        return into::restore(image, pairs, foreign, pins, look);
    }
    let mut programs = match programs(args, &image) {
        Ok(programs) => programs,
        Err(error) => {
            say(&error.to_string());
            return Ok(ExitCode::from(exit::USAGE));
        }
    };
    let root = args.root.as_ref().map(|root| {
        let found = fs::canonicalize(root).map(PathBuf::into_os_string);
        found.with_context(|| format!("failed to find the directory {}", root.display()))
    });
    let root = root.transpose()?;
    let plan = planned(&image, root.as_ref().map(|root| root.as_bytes()))?;
    let foreign = if args.replace { Foreign::Replace } else { Foreign::Refuse };
    let mut takers = Takers::Programs(&mut programs);
    let (plan, mut obstacles) = match surveyed(&plan, &image, foreign, &mut takers, &look)? {
        Ok(asides) => (plan.with_asides(asides), Vec::new()),
        Err(obstacles) => (plan, obstacles),
    };
    obstacles
        .extend(unknown.into_iter().map(|Interface { name, .. }| Obstacle::Interface { name }));
    if args.dry_run {
        print_plan(&plan, &obstacles, args).context("write to standard output")?;
    }
    mention_leftovers(&plan, args.dry_run || !obstacles.is_empty());
    if !obstacles.is_empty() {
        refuse(&obstacles);
        return Ok(ExitCode::from(exit::REFUSED));
    }
    if args.dry_run {
        return Ok(ExitCode::from(exit::OK));
    }
    // From here to the exec there is something to be undone: Ctrl-C is seen between two steps.
    let signals = HeldBack::begin().context("hold back signals")?;
    tracing::debug!("nothing is in the way");
    let how = Execution { signals: Some(&signals), ..Execution::default() };
    let restored = execute(&plan, &image, how)?;
    tracing::debug!("the steps are taken");
    let lister = || Lister::open(pins);
    let Some((mut restored, observed)) = verified(&image, restored, MANY, lister, look)? else {
        return Ok(ExitCode::from(exit::FAILED));
    };
    announce(&image, &plan, &restored, &observed);
    tracing::debug!("what was made is as it should be");
    if let Err(error) = restored.release() {
        say(&format!("the restore failed: let TCP connections go on: {}", one_line(&error)));
        left_behind(&restored.undo());
        return Ok(ExitCode::from(exit::FAILED));
    }
    match target::launch(restored, &image, &programs, &signals) {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}

/// Says what killed restores have left where this one works, and removes what is of no use to anybody, unless
/// nothing is to be changed.
pub(super) fn mention_leftovers(plan: &Plan, is_trial: bool) {
    let found = leftover::find(plan);
    let left = match is_trial {
        true => found.into_iter().map(|leftover| (leftover, None)).collect(),
        false => leftover::sweep(found),
    };
    for (leftover, error) in &left {
        let error = error.as_ref().map(|error| format!(" (remove it: {error})"));
        say(&format!("note: {leftover}{}", error.unwrap_or_default()));
    }
    if !left.is_empty() {
        say(
            "hint: move such a file, or one in such a directory, back, or delete it; ucr removes only files \
             of sockets that are no more",
        );
    }
}

/// Plans a restore.
pub(super) fn planned(image: &Image, root: Option<&[u8]>) -> anyhow::Result<Plan> {
    let first = Spellings::default();
    let mut plan = plan_beneath(image, &first, root).context("failed to plan the restore")?;
    let spellings = names::spellings(&plan);
    if !spellings.is_empty() {
        plan = plan_beneath(image, &spellings, root).context("failed to plan the restore")?;
    }
    tracing::debug!(steps = plan.steps.len(), "the restore is planned");
    Ok(plan)
}

/// Looks for all that is in the way, and waits for what the kernel is about to clear away.
pub(super) fn surveyed(
    plan: &Plan,
    image: &Image,
    foreign: Foreign,
    takers: &mut Takers<'_>,
    look: &impl Fn() -> anyhow::Result<View>,
) -> anyhow::Result<Result<Vec<Aside>, Vec<Obstacle>>> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let somaxconn = somaxconn.and_then(|number| number.trim().parse().ok());
    let in_place = match takers {
        Takers::Processes(replaced) => Some(*replaced),
        Takers::Programs(_) => None,
    };
    let mut collector = Collector::of(image);
    loop {
        let view = look().context("failed to take a snapshot of the live sockets")?;
        let here = Here { boot_id: boot_id.trim(), view: &view, somaxconn, in_place };
        match survey(plan, image, here, foreign, takers) {
            Err(obstacles) if collector.may_free(&obstacles).context("make a socket pair")? => {}
            surveyed => return Ok(surveyed),
        }
    }
}

/// `OLD=NEW`.
fn pair(text: &str) -> Result<(Pid, Pid), String> {
    let parsed = text.split_once('=').and_then(|(old, new)| {
        let pid = |text: &str| text.parse().ok().filter(|pid| *pid > 0).map(Pid);
        Some((pid(old)?, pid(new)?))
    });
    parsed.ok_or_else(|| format!("`{text}` is not OLD=NEW, two pids"))
}

fn programs(args: &RestoreArgs, image: &Image) -> Result<Vec<Program>, ProgramError> {
    if args.dry_run && args.exec.is_empty() && args.command.is_empty() {
        Ok(Vec::new())
    } else if args.exec.is_empty() {
        program::single(image, &args.command)
    } else {
        program::each(image, &args.exec)
    }
}

fn print_plan(plan: &Plan, obstacles: &[Obstacle], args: &RestoreArgs) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        let whole = serde_json::to_writer_pretty(&mut out, &json::Planned { plan, obstacles });
        whole.map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{plan}")
    };
    output::unless_broken_pipe(written.and_then(|()| out.flush()))
}

pub(super) fn refuse(obstacles: &[Obstacle]) {
    say(&format!("refused: {}", plural(obstacles.len(), "obstacle")));
    obstacles.iter().for_each(|obstacle| say(&obstacle.to_string()));
    let hints: BTreeSet<_> = obstacles.iter().filter_map(|obstacle| hint(obstacle)).collect();
    hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
}

pub(super) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Which pids `SO_PEERCRED` does not show as before, and why.
fn note_of_pids(others: &BTreeMap<Pid, usize>, workers: &Workers) -> Option<String> {
    const NAMED: usize = 5;
    let count: usize = others.values().sum();
    let reason = |pid: &Pid| match workers.unavailable().get(pid) {
        None if pid.0 == 0 => "it was outside of the pid namespace that was dumped from".to_owned(),
        None => "a socket of another process made it".to_owned(),
        Some(why) => why.to_string(),
    };
    let reasons: Vec<_> =
        others.keys().take(NAMED).map(|pid| format!("pid {pid}: {}", reason(pid))).collect();
    let more = match others.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; {more} more"),
    };
    let (own, reasons) = (std::process::id(), reasons.join("; "));
    (count > 0).then(|| {
        format!("note: {count} of them show pid {own} in SO_PEERCRED, not the saved one ({reasons}{more})")
    })
}

pub(super) fn left_behind(problems: &[UndoProblem]) {
    problems.iter().for_each(|problem| say(&format!("left behind: {problem}")));
}

/// Holds what was made against the image, and says what is different. From `many` sockets on they are read from the
/// kernel's memory. `None`: something is, and all was undone.
pub(super) fn verified(
    image: &Image,
    restored: Restored,
    many: usize,
    lister: impl FnOnce() -> Result<Lister, DescriptorError>,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<Option<(Restored, Vec<Option<Observed>>)>> {
    let insight = Insight::open(image, &restored, many, lister);
    tracing::debug!("there is a way to read the sockets");
    let seen = insight.as_ref().ok().and_then(Option::as_ref);
    let (observed, view) = thread::scope(|threads| {
        // What the kernel tells of its own accord is heard while the sockets are read.
        let view = threads.spawn(&look);
        let observed = verify::observe(image, &restored, seen);
        (observed, view.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload)))
    });
    let observed = observed.context("failed to verify the restore")?;
    let view = view.context("failed to take a snapshot of what was restored")?;
    tracing::debug!("what was made is read back");
    let mut differences = verify::compare(image, &observed, &view);
    // A dump of sock_diag may skip some while others come and go: a mismatch counts if it stands in two.
    if differences.iter().any(|difference| difference.field == verify::Field::Snapshot) {
        let again = look().context("failed to take a second snapshot of what was restored")?;
        differences = verify::compare(image, &observed, &again);
    }
    let deeper = match &insight {
        Ok(insight) => verify::look_deeper(image, insight.as_ref()).map_err(|e| one_line(&e)),
        Err(error) => Err(one_line(error)),
    };
    match &deeper {
        Ok(more) => differences.extend(more.iter().flatten().cloned()),
        Err(error) => say(&format!(
            "note: what waits to be received was sent again and not verified: {error}"
        )),
    }
    let more = verify::look_at_netlink(image, &restored);
    differences.extend(more.context("failed to verify the restore")?);
    match (&insight, image.sockets.iter().any(|socket| socket.inet.is_some())) {
        (_, false) => {}
        (Ok(insight), true) => {
            let more = verify::look_at_inet(image, &restored, insight.as_ref());
            differences.extend(more.context("failed to verify the restore")?);
        }
        (Err(_), true) => {
            insight.context("failed to verify the restore: of internet sockets only the kernel's memory tells all")?;
            return Ok(None);
        }
    }
    differences.retain(|d| !(d.field.is_arrival() && restored.is_adopted(d.socket)));
    if !differences.is_empty() {
        say(&format!("the restore failed: {} differences", differences.len()));
        differences.iter().for_each(|difference| say(&difference.to_string()));
        left_behind(&restored.undo());
        return Ok(None);
    }
    Ok(Some((restored, observed)))
}

/// Says what was restored, and what of it is not as it was.
fn announce(image: &Image, plan: &Plan, restored: &Restored, observed: &[Option<Observed>]) {
    let sum = plan.summary;
    let mut parts = vec![
        plural(sum.listeners, "listener"),
        plural(sum.connections, "connection"),
        plural(sum.pairs, "pair"),
    ];
    if sum.waiting > 0 {
        parts.push(format!("{} not accepted yet", plural(sum.waiting, "connection")));
    }
    if sum.outside > 0 {
        parts.push(format!("{} with processes outside", plural(sum.outside, "connection")));
    }
    if sum.messages > 0 {
        parts.push(format!("{} to be received", plural(sum.messages, "message")));
    }
    let sockets = plural(sum.sockets, "socket");
    say(&format!("restored {sockets} ({}), verified: 0 differences", parts.join(", ")));
    note(image, restored, observed);
}

/// Says what is not as it was.
pub(super) fn note(image: &Image, restored: &Restored, observed: &[Option<Observed>]) {
    if restored.substituted() > 0 {
        let messages = plural(restored.substituted(), "message");
        say(&format!(
            "note: {messages} that wait carry another pid in SCM_CREDENTIALS: that of ucr"
        ));
    }
    let workers = restored.workers();
    let others = verify::other_pids(image, observed, workers.unavailable());
    if let Some(note) = note_of_pids(&others, workers) {
        say(&note);
    }
}
