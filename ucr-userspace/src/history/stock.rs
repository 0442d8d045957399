//! What the entries of a block have in common: actors, names, directories, each once.

use std::{collections::HashMap, hash::Hash};

use serde::Deserialize;

use super::entry::Partner;
use crate::model::{Directories, UnixName, Who};

/// The tables of a block that was read.
#[derive(Debug, Default, Deserialize)]
pub struct Stock {
    /// Who did something.
    pub actors: Vec<Who>,
    /// Who was at the other end.
    pub partners: Vec<Partner>,
    /// Names of sockets.
    pub names: Vec<UnixName>,
    /// Where binders stood.
    pub directories: Vec<Directories>,
}

/// What stands at a place, if the row names one. `None`: it names one where nothing stands.
pub(super) fn at<T: Clone>(place: Option<u32>, table: &[T]) -> Option<Option<T>> {
    let Some(place) = place else { return Some(None) };
    table.get(usize::try_from(place).ok()?).map(|thing| Some(thing.clone()))
}

/// The tables of a block in the making.
#[derive(Debug, Default)]
pub struct Tables {
    /// Who did something.
    pub actors: Table<Who>,
    /// Who was at the other end.
    pub partners: Table<Partner>,
    /// Names of sockets.
    pub names: Table<UnixName>,
    /// Where binders stood.
    pub directories: Table<Directories>,
}

/// Things, each once.
#[derive(Debug)]
pub struct Table<T> {
    things: Vec<T>,
    places: HashMap<T, u32>,
    /// No fewer than the bytes that the things are written in.
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { things: Vec::new(), places: HashMap::new(), len: 0 }
    }
}

impl Tables {
    /// Empties them, and keeps their memory.
    pub fn clear(&mut self) {
        let Self { actors, partners, names, directories } = self;
        actors.clear();
        partners.clear();
        names.clear();
        directories.clear();
    }

    /// No fewer than the bytes that they are written in.
    #[must_use]
    pub fn len(&self) -> usize {
        let Self { actors, partners, names, directories } = self;
        actors.len + partners.len + names.len + directories.len
    }

    /// Writes them behind `bytes`, as [`Stock`] is read.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn write(&self, bytes: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
        let Self { actors, partners, names, directories } = self;
        let all = (&actors.things, &partners.things, &names.things, &directories.things);
        postcard::to_extend(&all, bytes)
    }
}

impl<T: Clone + Eq + Hash + Weighs> Table<T> {
    /// Where a thing stands, having been put there if it was not.
    pub fn place(&mut self, thing: &T) -> u32 {
        if let Some(place) = self.places.get(thing) {
            return *place;
        }
        // A block has far fewer entries than there are numbers.
        let place = u32::try_from(self.things.len()).unwrap_or(u32::MAX);
        self.len += thing.weight();
        self.things.push(thing.clone());
        self.places.insert(thing.clone(), place);
        place
    }
}

impl<T> Table<T> {
    fn clear(&mut self) {
        self.things.clear();
        self.places.clear();
        self.len = 0;
    }
}

/// A thing whose length is known before it is written.
pub trait Weighs {
    /// No fewer than the bytes that it is written in.
    fn weight(&self) -> usize;
}

/// More than the numbers of any of these things need.
const NUMBERS: usize = 48;

impl Weighs for Who {
    fn weight(&self) -> usize {
        NUMBERS + self.comm.len()
    }
}

impl Weighs for Partner {
    fn weight(&self) -> usize {
        NUMBERS + self.comm.len()
    }
}

impl Weighs for UnixName {
    fn weight(&self) -> usize {
        NUMBERS + self.as_bytes().len()
    }
}

impl Weighs for Directories {
    fn weight(&self) -> usize {
        NUMBERS + self.cwd.path.len() + self.root.path.len()
    }
}
