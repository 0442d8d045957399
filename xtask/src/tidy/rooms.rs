//! Imports go one way: which room of `ucr-userspace` may use which, and which do no I/O.

use super::{
    paths::{self, NamedPath},
    source::{Report, Source},
};

/// A folder or file of `ucr-userspace/src`.
struct Room {
    /// As a path of modules. The longest one that fits a file is the file's room.
    name: &'static str,
    /// The rooms it may use besides itself, parted by blanks: only such that stand before it in
    /// [`ROOMS`].
    uses: &'static str,
    effects: Effects,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effects {
    /// Functions over data: what can be tested by tables and properties.
    Pure,
    /// May talk to the kernel.
    Io,
}

const fn pure(name: &'static str, uses: &'static str) -> Room {
    Room { name, uses, effects: Effects::Pure }
}

const fn io(name: &'static str, uses: &'static str) -> Room {
    Room { name, uses, effects: Effects::Io }
}

/// In the order in which data flows.
///
/// `image` and `restore::plan` know nothing of tracing: an image made by other means restores just
/// as well.
const ROOMS: [Room; 23] = [
    pure("causes", ""),
    pure("model", ""),
    io("sys", "model"),
    io("kernel", "model sys"),
    pure("ledger", "model"),
    pure("query", "model ledger"),
    io("tracer", "causes model sys kernel ledger"),
    io("snapshot", "model sys kernel tracer"),
    io("lock", "causes model sys kernel tracer"),
    io("features", "causes model sys kernel tracer snapshot lock"),
    pure("crosscheck", "model ledger"),
    pure("image", "model"),
    io("image::file", "model sys image"),
    io("process", "model sys kernel snapshot image"),
    io(
        "dump",
        "causes model sys kernel ledger tracer snapshot lock crosscheck image image::file \
         process",
    ),
    io("history", "causes model sys kernel ledger query tracer"),
    io("inspect", "causes model sys kernel ledger query tracer snapshot process"),
    io("daemon", "causes model sys kernel ledger query tracer snapshot process history inspect"),
    pure("restore::plan", "model image"),
    io("restore", "model sys kernel snapshot lock image image::file process restore::plan"),
    io(
        "render",
        "model kernel ledger query tracer snapshot features crosscheck image process dump history \
         inspect daemon restore::plan restore",
    ),
    io(
        "cli",
        "causes model sys kernel ledger query tracer snapshot lock features crosscheck image \
         image::file process dump history inspect daemon restore::plan restore render",
    ),
    // `lib.rs` and `main.rs`.
    io("", "cli"),
];

/// What leads out of the process, as the beginning of a path. `libc` has rules of its own.
const OUTSIDE: [&[&str]; 16] = [
    &["aya"],
    &["aya_log"],
    &["netlink_packet_core"],
    &["netlink_packet_sock_diag"],
    &["netlink_sys"],
    &["nix"],
    &["procfs"],
    &["rusqlite"],
    &["rustix"],
    &["sd_notify"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["tokio"],
];

/// Arithmetic on device numbers: the only functions of libc that call nothing.
const PURE_LIBC: [&str; 3] = ["major", "makedev", "minor"];

/// Holds every path in a file of `ucr-userspace/src` against the table.
pub(super) fn check(source: &Source<'_>, report: &mut Report<'_>) {
    let Some(module) = source.module() else {
        return;
    };
    let Some(own) = room_of(&module) else {
        let message = format!("`{}` is not in the table of rooms", module.join("::"));
        return report(1, "rooms", message);
    };
    for path in paths::all(source.tokens.clone()) {
        if let Some(target) = absolute(&module, &path) {
            check_target(own, &target, path.line, report);
        } else if own.effects == Effects::Pure && !is_in_tests(&module, &path) {
            check_effects(own, &path, report);
        }
    }
}

fn check_target(own: &Room, target: &[String], line: usize, report: &mut Report<'_>) {
    let shown = format!("crate::{}", target.join("::"));
    let Some(room) = room_of(target).filter(|room| !room.name.is_empty()) else {
        // The library's root has no names of its own; `crate` alone is that of `pub(crate)`.
        if !target.is_empty() && !own.name.is_empty() {
            report(line, "rooms", format!("`{shown}` is in no room of the table"));
        }
        return;
    };
    if room.name != own.name && !own.may_use(room.name) {
        let message = format!("`{}` may not use `{}` (`{shown}`)", own.name, room.name);
        report(line, "rooms", message);
    }
}

fn check_effects(own: &Room, path: &NamedPath, report: &mut Report<'_>) {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let leads_outside = match segments.as_slice() {
        // Names as bytes: `OsStrExt` and `OsStringExt` convert, and do nothing else.
        ["std", "os", "unix", "ffi", ..] => false,
        ["libc", name, ..] => !is_constant(name) && !PURE_LIBC.contains(name),
        all => OUTSIDE.iter().any(|start| all.starts_with(start)),
    };
    if leads_outside {
        let message = format!("`{}` does no I/O (`{}`)", own.name, segments.join("::"));
        report(path.line, "pure", message);
    }
}

fn is_constant(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Tests of a pure room may read what they are about from files.
fn is_in_tests(module: &[String], path: &NamedPath) -> bool {
    module.iter().chain(&path.modules).any(|name| name == "tests")
}

/// The path from the library's root, if it leads there: `crate`, `super`, `self`.
fn absolute(module: &[String], path: &NamedPath) -> Option<Vec<String>> {
    let mut base = [module, &path.modules].concat();
    let mut rest = path.segments.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = rest.get(1..)?;
        }
        // Also the value `self`, which then is taken for its module: that is the file's own room.
        "self" => rest = rest.get(1..)?,
        "super" => {
            while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
                base.pop();
                rest = after;
            }
        }
        _ => return None,
    }
    base.extend_from_slice(rest);
    Some(base)
}

impl Room {
    fn may_use(&self, name: &str) -> bool {
        self.uses.split(' ').any(|used| used == name)
    }
}

/// The room with the longest name that a path begins with.
fn room_of(path: &[String]) -> Option<&'static Room> {
    ROOMS
        .iter()
        .filter(|room| {
            let mut parts = room.name.split("::").filter(|part| !part.is_empty());
            let mut names = path.iter();
            parts.all(|part| names.next().is_some_and(|name| name == part))
                && (!room.name.is_empty() || path.is_empty())
        })
        .max_by_key(|room| room.name.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::broken;
    use super::*;

    fn in_room(file: &str, code: &str) -> Vec<(usize, &'static str)> {
        broken(&format!("ucr-userspace/src/{file}"), &format!("//! Docs.\n{code}\n"))
    }

    #[test]
    fn rooms_use_only_rooms_before_them() {
        for (nth, room) in ROOMS.iter().enumerate() {
            for used in room.uses.split_whitespace() {
                assert!(
                    ROOMS[..nth].iter().any(|before| before.name == used),
                    "{} uses {used}",
                    room.name
                );
            }
        }
    }

    #[test]
    fn tracing_is_unknown_to_image_plan_and_restore() {
        for room in ROOMS
            .iter()
            .filter(|room| room.name.starts_with("image") || room.name.starts_with("restore"))
        {
            for tracing in ["tracer", "ledger", "crosscheck"] {
                assert!(!room.may_use(tracing), "{} uses {tracing}", room.name);
            }
        }
    }

    #[test]
    fn a_forbidden_import_is_found_however_it_is_written() {
        for code in [
            "use crate::tracer::Tracer;",
            "use crate::{model::Pid, tracer};",
            "use super::super::tracer::Tracer;",
            "fn f() { m!(crate::tracer::g()); }",
            "mod tests { use super::super::super::tracer; }",
        ] {
            assert_eq!(in_room("image/codec.rs", code), [(2, "rooms")], "{code}");
        }
    }

    #[test]
    fn allowed_imports_are_left_alone() {
        for code in [
            "use crate::model::Pid;",
            "use super::schema::Image;",
            "use super::*;",
            "pub(crate) struct S; impl S { fn f(&self) { self.g(); } }",
            "mod tests { use super::*; use crate::image::schema::Image; }",
        ] {
            assert_eq!(in_room("image/codec.rs", code), [], "{code}");
        }
        assert_eq!(in_room("lib.rs", "pub mod model;"), []);
        assert_eq!(in_room("cli/dump.rs", "use crate::{dump, render, tracer};"), []);
    }

    #[test]
    fn the_plan_is_a_room_within_restore() {
        assert_eq!(in_room("restore/plan.rs", "use super::execute::run;"), [(2, "rooms")]);
        assert_eq!(in_room("restore/plan/order.rs", "use super::Plan;"), []);
        assert_eq!(in_room("restore/execute.rs", "use super::plan::Plan;"), []);
    }

    #[test]
    fn a_room_that_is_not_in_the_table_is_named() {
        assert_eq!(in_room("attic/mod.rs", ""), [(1, "rooms")]);
        assert_eq!(in_room("ledger/mod.rs", "use crate::attic::Chest;"), [(2, "rooms")]);
        assert_eq!(in_room("ledger/mod.rs", "use crate::*;"), [(2, "rooms")]);
    }

    #[test]
    fn pure_rooms_do_no_io() {
        for code in [
            "use std::fs;",
            "use std::{collections::HashMap, net::TcpStream};",
            "use std::os::fd::OwnedFd;",
            "fn f() { std::process::exit(1) }",
            "use nix::unistd::Pid;",
            "fn f() { libc::getpid(); }",
            "use aya::Ebpf;",
        ] {
            for file in ["model/mod.rs", "ledger.rs", "crosscheck.rs", "image/header.rs"] {
                assert_eq!(in_room(file, code), [(2, "pure")], "{file}: {code}");
            }
            assert_eq!(in_room("restore/plan.rs", code), [(2, "pure")], "{code}");
            assert_eq!(in_room("restore/execute.rs", code), [], "{code}");
        }
    }

    #[test]
    fn numbers_and_bytes_are_not_io() {
        for code in [
            "const A: i32 = libc::SOCK_STREAM;",
            "fn f() { libc::major(1); }",
            "use std::os::unix::ffi::OsStrExt;",
            "mod tests { use std::fs; }",
        ] {
            assert_eq!(in_room("model/mod.rs", code), [], "{code}");
        }
    }
}
