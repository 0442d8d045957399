//! The questions that people ask (who is it, what is there, who talks with whom, what was, what happens now),
//! each asked of the kernel with and without attached tracing, and of the daemon.

mod graph;
mod history;
mod ls;
mod others;
mod trace;
mod who;

use std::os::unix::fs::symlink;

use serde_json::Value;
use ucr::{kernel::clock, model::time::Utc};
use ucr_tests::{
    Answer, Daemon, Victim, World,
    ucr::Started,
    world::{hex, unhex},
};

use crate::world;

/// Whom a question is put to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The kernel, without attached tracing.
    Snapshot,
    /// The kernel, with attached tracing.
    Attached,
    /// The daemon.
    Daemon,
}

/// A world in which questions are asked in one way.
struct Scene<'a> {
    world: &'a World,
    way: Way,
    daemon: Option<Daemon<'a>>,
}

/// Tells a story once for each way of asking. Tracing, where there is any, has begun before it.
fn in_every_way(story: impl Fn(&Scene<'_>)) {
    for way in [Way::Snapshot, Way::Attached, Way::Daemon] {
        let world = world();
        story(&Scene::new(&world, way));
    }
}

impl<'a> Scene<'a> {
    fn new(world: &'a World, way: Way) -> Self {
        // Shown when the test fails.
        eprintln!("asked this way: {way:?}");
        let mut daemon = None;
        match way {
            Way::Snapshot => {}
            Way::Attached => world.ucr.attach(),
            Way::Daemon => daemon = Some(Daemon::start(world)),
        }
        Self { world, way, daemon }
    }

    /// Whether what happened is known.
    fn is_traced(&self) -> bool {
        self.way != Way::Snapshot
    }

    /// What is said of sockets that were made since the scene began.
    fn known(&self) -> &'static str {
        if self.is_traced() { "seen-live" } else { "snapshot" }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        match &self.daemon {
            Some(daemon) => daemon.command(arguments),
            None => {
                let mut command = self.world.ucr.command(arguments);
                command.env("UCR_VIA", "kernel");
                command
            }
        }
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        Started::new(self.command(arguments)).finish()
    }

    /// Asks for JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        self.ask(&[arguments, &["--json"]].concat()).done().json()
    }

    /// The rows of a listing.
    fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        rows(&self.json(arguments))
    }
}

fn rows(listing: &Value) -> Vec<Value> {
    listing["rows"].as_array().unwrap_or_else(|| panic!("no rows: {listing:#}")).clone()
}

/// One column of rows.
fn column<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    rows.iter().map(|row| row.get(name).unwrap_or_else(|| panic!("no {name}: {row:#}"))).collect()
}

/// All of a listing's columns, for `-o`.
fn all<T>(columns: &[ucr::query::Column<T>]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(",")
}

/// A command's name that would harm a terminal, and XML, and dot.
const ODD: &str = "o\x1b\n\"<&\\";

/// A victim with that name.
fn odd_victim(world: &World) -> Victim {
    let program = world.path(ODD);
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_victim"), &program).expect("a link");
    }
    let program = program.to_str().expect("text");
    world.victim_under(&["sh", "-c", r#"exec "$0" "$2""#, program])
}

/// The bytes of a name, command or path in JSON.
fn bytes(value: &Value) -> Vec<u8> {
    let digits = value["hex"].as_str().unwrap_or_else(|| panic!("no bytes: {value:#}"));
    unhex(digits).expect("digits")
}

/// A name as it is typed.
fn typed(sun_path: &[u8]) -> String {
    ucr::model::UnixName::from_sun_path(sun_path).to_string()
}

/// A moment as it stands in JSON: such texts are in order of time.
fn now() -> String {
    Utc(clock::realtime()).to_string()
}

/// `PID:FD`.
fn end(victim: &Victim, fd: i32) -> String {
    format!("{}:{fd}", victim.pid())
}

/// Whether a text is lines of printable characters, whatever names are in it.
fn is_safe(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

/// What no answer for people or programs may have in it.
fn has_kernel_address(text: &str) -> bool {
    let words = || text.split(|c: char| !c.is_ascii_hexdigit());
    words().any(|word| word.starts_with("ffff") && word.len() == 16)
        || words().any(|word| word.parse::<u64>().is_ok_and(|number| number >= 1 << 63))
}

#[test]
fn a_kernel_address_is_recognized() {
    assert!(has_kernel_address("at 0xffff888012345678,"));
    assert!(has_kernel_address("{\"sk\":18446612682161410048}"));
    assert!(!has_kernel_address("inode 4026531840 ffff deadbeef"));
    assert_eq!(hex(ODD.as_bytes()).len(), 2 * ODD.len());
}
