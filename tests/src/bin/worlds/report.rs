//! What is told of the worlds: those that failed, as stories; how many of what there was; and the last line.

use std::{collections::BTreeMap, fmt};

use ucr::image::{Connection, Image, OutOfBand, Passed, Role, Sender, Socket, SocketFile};

use crate::{
    generate::Plan,
    normal::Pids,
    trial::{Failure, Outcome, Tried},
};

/// How many lines of a failure are shown.
const LINES: usize = 12;

/// A world in words, and what became of it.
pub(crate) fn story(plan: &Plan, tried: &Tried, again: &str) -> String {
    let Some(Failure { stage, lines }) = tried.outcome.failure() else { return String::new() };
    let traced = if plan.traced { "traced" } else { "not traced" };
    let mut told = vec![format!("A world that is {traced} ({again}):")];
    let done = tried.done.iter().copied().chain(std::iter::repeat(true));
    for (number, (op, done)) in plan.ops.iter().zip(done).enumerate() {
        let skipped = if done { "" } else { " (not possible)" };
        told.push(format!("{:4}. {op}{skipped}", number + 1));
    }
    told.push(format!("Then {stage}:"));
    told.extend(lines.iter().take(LINES).map(|line| format!("      {line}")));
    if lines.len() > LINES {
        told.push(format!("      and {} lines more", lines.len() - LINES));
    }
    told.join("\n")
}

/// Sums over all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) worlds: u64,
    pub(crate) equal: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    traced: u64,
    other_pids: u64,
    /// How often each operation took place, and was not possible.
    acts: BTreeMap<&'static str, (u64, u64)>,
    /// How often each state was in an image, and in how many images.
    states: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    /// Adds a world as it was drawn.
    pub(crate) fn add(&mut self, plan: &Plan, tried: &Tried) {
        self.worlds += 1;
        self.traced += u64::from(plan.traced);
        self.other_pids += u64::from(tried.pids == Pids::Differ);
        match tried.outcome {
            Outcome::Equal => self.equal += 1,
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
        for (op, done) in plan.ops.iter().zip(&tried.done) {
            let (was_done, was_not) = self.acts.entry(op.act.title()).or_default();
            *(if *done { was_done } else { was_not }) += 1;
        }
        for (state, count) in tried.image.as_ref().map(states).unwrap_or_default() {
            let (all, images) = self.states.entry(state).or_default();
            *all += count;
            *images += u64::from(count > 0);
        }
    }

    /// How many operations took place.
    pub(crate) fn operations(&self) -> u64 {
        self.acts.values().map(|(done, _)| done).sum()
    }

    /// The tables.
    pub(crate) fn tables(&self) -> String {
        let mut lines = vec![format!("{:32} {:>8} {:>12}", "operation", "done", "not possible")];
        lines.extend(
            self.acts.iter().map(|(act, (done, not))| format!("{act:32} {done:8} {not:12}")),
        );
        lines.push(format!("{:32} {:>8} {:>12}", "state in the first image", "times", "images"));
        let states = self.states.iter();
        lines
            .extend(states.map(|(state, (all, images))| format!("{state:32} {all:8} {images:12}")));
        lines.push(format!(
            "{} worlds were traced; in {} a saved pid was not to be had",
            self.traced, self.other_pids
        ));
        lines.join("\n")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, equal, refused, failed, .. } = self;
        write!(f, "worlds={worlds} equal={equal} refused={refused} failed={failed}")
    }
}

/// What there is in an image that is not a matter of course, and how often.
fn states(image: &Image) -> BTreeMap<&'static str, u64> {
    let mut states = BTreeMap::new();
    let mut count = |state, times: usize| {
        *states.entry(state).or_default() += u64::try_from(times).unwrap_or(u64::MAX);
    };
    count("sockets", image.sockets.len());
    count("processes beside the root", image.processes.len().saturating_sub(1));
    let socket = |is_it: fn(&Socket) -> bool| image.sockets.iter().filter(|s| is_it(s)).count();
    count("with an error", socket(|s| s.error != 0));
    count("with options", socket(|s| !s.options.is_empty()));
    count("with a filter", socket(|s| s.filter.is_some()));
    count("with an owner", socket(|s| s.notification.is_some()));
    count("with flags", socket(|s| s.status_flags != 0));
    count("shut down", socket(|s| !s.shutdown.is_none()));
    count("listening", socket(|s| matches!(s.role, Role::Listening { .. })));
    count(
        "other user's",
        socket(|s| s.peer_credentials.or(s.listener_credentials).is_some_and(|who| who.uid != 0)),
    );
    let file = |is_it: fn(&SocketFile) -> bool| {
        let names = image.sockets.iter().filter_map(|socket| socket.name.as_ref());
        names.filter(|bound| bound.file.as_ref().is_some_and(is_it)).count()
    };
    count("file present", file(|file| matches!(file, SocketFile::Present { .. })));
    count("file deleted", file(|file| *file == SocketFile::Deleted));
    count("file replaced", file(|file| *file == SocketFile::Replaced));
    count("file moved", file(|file| matches!(file, SocketFile::Moved { .. })));
    let names = image.sockets.iter().filter_map(|socket| socket.name.as_ref());
    count("name relative", names.filter(|bound| bound.directory.is_some()).count());
    let messages = || image.sockets.iter().flat_map(|socket| &socket.queue);
    count("messages", messages().count());
    count("messages without data", messages().filter(|m| m.data.is_empty()).count());
    count("messages with sockets", messages().filter(|m| !m.files.is_empty()).count());
    count("messages out of band", messages().filter(|m| m.out_of_band != OutOfBand::No).count());
    count(
        "messages of somebody gone",
        messages().filter(|m| matches!(m.sender, Some(Sender::Gone(_)))).count(),
    );
    count("messages with credentials", messages().filter(|m| m.credentials.is_some()).count());
    let has_descriptor =
        |at: u32| image.descriptors.iter().any(|descriptor| descriptor.socket.0 == at);
    let flying = messages().flat_map(|message| &message.files).filter_map(|file| match file {
        Passed::Socket(socket) => Some(socket.0),
        Passed::File(_) => None,
    });
    let flying: std::collections::BTreeSet<u32> = flying.collect();
    count("in flight only", flying.into_iter().filter(|at| !has_descriptor(*at)).count());
    for connection in &image.connections {
        count(kind(connection), 1);
    }
    states
}

fn kind(connection: &Connection) -> &'static str {
    match connection {
        Connection::Pair { .. } => "pair",
        Connection::Accepted { listener: Some(_), .. } => "accepted",
        Connection::Accepted { listener: None, .. } => "accepted from a lost listener",
        Connection::Datagram { sender, receiver } if sender == receiver => "connected to itself",
        Connection::Datagram { .. } => "datagram",
        Connection::Waiting { client: Sender::Gone(_), .. } => "waiting, the client gone",
        Connection::Waiting { .. } => "waiting",
        Connection::Ended { .. } => "ended",
        Connection::External { .. } => "external",
    }
}
