//! Killed in the middle of writing: sequence numbers and entries agree.

use std::{
    env,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use super::*;
use crate::history::samples::{closed_socket, event};

/// Tells the child where to write.
const WHERE: &str = "UCR_TEST_HISTORY";

/// Not a test of its own: what the child of the next one does.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = env::var_os(WHERE).map(PathBuf::from) else { return };
    let mut store = Store::open(&path, Limits::default()).expect("opened").store;
    let mut next = next(&store);
    let mut out = std::io::stdout();
    for size in [1, 300, 2, 4000, 7, 50].into_iter().cycle() {
        let gone = (next..next + size).map(closed_socket).collect();
        let events = (next..next + size).map(event).collect();
        next += size;
        let batch = Batch { sequences: vec![(0, next)], ..batch(gone, events) };
        store.append(&batch).expect("appended");
        // Only behind a line's end does the parent read it.
        writeln!(out, "\nwritten").and_then(|()| out.flush()).expect("told");
    }
}

fn next(store: &Store) -> u64 {
    store.sequences(&this_boot()).expect("read").first().map_or(0, |(_, next)| *next)
}

/// A process that writes until it is killed.
pub(super) struct Victim {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// One that has written a few batches.
    pub(super) fn new(place: &Place) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "history::store::tests::killed::writes_until_it_is_killed"])
            .args(["--nocapture", "--test-threads=1"])
            .env(WHERE, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("begun");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut victim = Self { child, lines };
        victim.writes(3);
        victim
    }

    /// Waits until it has written so many more.
    fn writes(&mut self, batches: usize) {
        let lines = self.lines.by_ref().map(|line| line.expect("read"));
        let written = lines.filter(|line| line == "written").take(batches).count();
        assert_eq!(written, batches, "it ended by itself");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

#[test]
fn whatever_was_written_when_it_was_killed_is_whole() {
    let place = Place::new();
    let mut before = 0;
    for round in 0..8 {
        let mut victim = Victim::new(&place);
        victim.writes(round * 3);
        drop(victim);

        // Without a writer first: what the killed one left in its log counts.
        let read = numbers(&place);
        let store = place.open();
        let next = next(&store);
        assert!(next > before, "round {round}");
        before = next;
        assert_eq!(read, ((0..next).collect::<Vec<_>>(), (0..next).collect::<Vec<_>>()));
        assert_eq!(numbers(&place), read);
        let figures = store.figures().expect("figures");
        assert_eq!((figures.gone.entries, figures.events.entries), (next, next));
        schema::check(&store.connection, &place.path()).expect("whole");
    }
}

/// The cookies of closed sockets and of events.
pub(super) fn numbers(place: &Place) -> (Vec<u64>, Vec<u64>) {
    let reader = place.reader();
    let gone = entries(reader.gone(Span::ALL, Order::OldestFirst).expect("a search"));
    let events = entries(reader.events(Span::ALL, Order::OldestFirst).expect("a search"));
    let of_event = |event: Past| event.socket.and_then(|socket| socket.cookie);
    (
        gone.into_iter().filter_map(|gone| gone.cookie).collect(),
        events.into_iter().filter_map(of_event).collect(),
    )
}
