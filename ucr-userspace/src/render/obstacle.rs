//! An obstacle with its place: whose descriptor of what name, for people and programs.

use std::{fmt, mem};

use serde_json::{Value, json};

use crate::{
    dump::{Dump, obstacle::Obstacle},
    model::{
        UnixName,
        name::{Escaped, Exact},
    },
};

/// An obstacle, with what of the dump tells one where it is.
#[derive(Clone, Debug)]
pub struct Placed {
    obstacle: Obstacle,
    /// The process's command, safe to show; empty if it is not one of those that were dumped.
    comm: String,
    /// The socket's own name.
    name: UnixName,
}

impl Placed {
    /// Those of a dump, in its order.
    #[must_use]
    pub fn of(dump: &Dump) -> Vec<Self> {
        let placed = dump.obstacles.iter().map(|obstacle| {
            let comm = dump.image.processes.iter().find(|process| process.pid == obstacle.pid);
            Self {
                obstacle: obstacle.clone(),
                comm: comm.map_or_else(String::new, |process| Escaped(&process.comm).to_string()),
                name: name_at(dump, obstacle),
            }
        });
        placed.collect()
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(&self) -> String {
        self.obstacle.hint()
    }

    /// As JSON: place, reason with its particulars, the same in words, and what to do.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.obstacle);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("comm".to_owned(), json!(self.comm));
            // `name` is that of the peer where the reason has one.
            fields.insert("socket_name".to_owned(), json!(Exact(&self.name)));
            fields.insert("text".to_owned(), json!(self.to_string()));
            fields.insert("hint".to_owned(), json!(self.hint()));
        }
        value
    }
}

/// What to do about each kind of obstacle, with how many more of that kind want something else.
pub fn hints(obstacles: &[Placed]) -> impl Iterator<Item = (String, usize)> {
    let kind = |placed: &Placed| mem::discriminant(&placed.obstacle.reason);
    let is_first = move |at: usize, placed: &Placed| {
        !obstacles.iter().take(at).any(|earlier| kind(earlier) == kind(placed))
    };
    let first = obstacles.iter().enumerate().filter(move |(at, placed)| is_first(*at, placed));
    first.map(move |(_, placed)| {
        let hint = placed.hint();
        let alike = obstacles.iter().filter(|other| kind(other) == kind(placed));
        let others = alike.filter(|other| other.hint() != hint).count();
        (hint, others)
    })
}

/// By its descriptor, since sockets that were not accepted have no inode; else, in flight, by that.
fn name_at(dump: &Dump, obstacle: &Obstacle) -> UnixName {
    let inventory = &dump.inventory;
    let mut sockets = inventory.sockets.iter();
    let stock = sockets.find(|stock| {
        let is_at = |at: &usize| {
            inventory.descriptors.get(*at).is_some_and(|descriptor| {
                descriptor.pid.cast_signed() == obstacle.pid.0
                    && descriptor.fd.cast_signed() == obstacle.fd
            })
        };
        let is_same = obstacle.inode != 0 && stock.held.inode == obstacle.inode;
        is_same || stock.holders.iter().any(is_at)
    });
    stock.map_or(UnixName::Unnamed, |stock| stock.details.name.clone())
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { pid, fd, inode, reason } = &self.obstacle;
        write!(f, "pid {pid}")?;
        if !self.comm.is_empty() {
            write!(f, " ({})", self.comm)?;
        }
        match fd {
            ..0 => f.write_str(" in a message")?,
            fd => write!(f, " fd {fd}")?,
        }
        write!(f, " (inode {inode}")?;
        if self.name.is_named() {
            write!(f, ", name {}", self.name)?;
        }
        write!(f, "): {reason}")
    }
}
