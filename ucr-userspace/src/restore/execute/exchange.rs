//! Socket files that take the place of others, whose sockets live until all is done.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use rustix::fs::{Mode, chmod};

use super::{Restored, StepError, call};
use crate::image::FileId;
use crate::process::files::Facts;
use crate::restore::execute::binding::failed;
use crate::restore::files::{Entry, through_proc};
use crate::restore::plan::spot::Spot;
use crate::restore::plan::step::{Holder, Place};
use crate::restore::private::PrivateRoot;
use crate::restore::undo::UndoProblem;
use crate::sys::guard::{self, Barrier, Swapped, Undoing};
use crate::sys::sockopt;

/// Where files wait, and who puts them back.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    waiting: HashMap<Holder, Waiting>,
    /// Removed with all that is in them when this is dropped.
    roots: Vec<PrivateRoot>,
    /// At which somebody is to wait who puts files back if it is never opened.
    barrier: Option<Rc<Barrier>>,
    is_guarded: bool,
}

/// A file that was bound beneath a root directory of its own.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    id: FileId,
    /// Where it is to be.
    wanted: Entry,
}

impl Exchange {
    /// Whose guard is to wait there.
    pub(super) fn guarded_by(barrier: Option<&Rc<Barrier>>) -> Self {
        Self { barrier: barrier.cloned(), ..Self::default() }
    }

    /// At which others wait.
    pub(super) fn barrier(&self) -> Option<Rc<Barrier>> {
        self.barrier.clone()
    }

    /// Whether live processes are to have what is made.
    pub(super) fn is_in_place(&self) -> bool {
        self.barrier.is_some()
    }

    /// Removes the directories, and says which could not be.
    pub(super) fn clear(&mut self) -> Vec<UndoProblem> {
        self.waiting.clear();
        let removed = self.roots.drain(..).filter_map(|root| {
            let path = root.path();
            let source = root.remove().err()?;
            Some(UndoProblem::Private { path, source })
        });
        removed.collect()
    }

    /// Where the file of a socket waits.
    pub(super) fn entry(&self, made: Holder) -> Option<&Entry> {
        self.waiting.get(&made).map(|waiting| &waiting.entry)
    }

    /// Whoever is to put files back, if this process dies now.
    fn guard(&mut self) -> io::Result<()> {
        let Some(barrier) = self.barrier.as_deref() else { return Ok(()) };
        let swapped: io::Result<Vec<_>> = self.waiting.values().map(Waiting::swapped).collect();
        guard::start(&Undoing { swapped: swapped?, ..Undoing::default() }, barrier)?;
        self.is_guarded = true;
        Ok(())
    }
}

impl Waiting {
    fn swapped(&self) -> io::Result<Swapped<'_>> {
        let name = |entry: &Entry| CString::new(entry.file_name());
        Ok(Swapped {
            place: (self.wanted.directory_fd(), name(&self.wanted)?),
            other: (self.entry.directory_fd(), name(&self.entry)?),
            inode: self.id.inode,
        })
    }
}

impl Restored {
    /// Binds beneath a root directory in the very directory where the file is to be, and leaves it there.
    pub(super) fn bind_over(
        &mut self,
        made: Holder,
        place: &Place,
        spot: &Spot,
    ) -> Result<(), StepError> {
        let wanted = Entry::of(spot).map_err(call("open directory"))?;
        let parent = wanted.parent().map_err(call("open directory"))?;
        let private = PrivateRoot::within(parent).map_err(call("make a private directory"))?;
        let landed = private.bind(self.get(made)?, place).map_err(failed)?;
        let id = Facts::of(&landed.file).map_err(call("find the file"))?.id;
        // Nobody else comes here, and processes of other users are to connect by its descriptor.
        let path = through_proc(&landed.file);
        chmod(OsStr::from_bytes(&path), Mode::RWXU | Mode::RWXG | Mode::RWXO)
            .map_err(call("chmod"))?;
        // Who may ask the socket gets it back when it is needed.
        if sockopt::bound_file(self.get(made)?.as_fd()).is_err() {
            self.unreachable.insert(made, landed.file);
        }
        self.files.insert(made, id);
        self.exchange.roots.push(private);
        self.exchange.waiting.insert(made, Waiting { entry: landed.entry, id, wanted });
        Ok(())
    }

    /// Puts a file where it is to be, for what lies there, if something does.
    pub(super) fn exchange(&mut self, made: Holder, spot: &Spot) -> Result<(), StepError> {
        if !self.exchange.is_guarded {
            self.exchange.guard().map_err(call("start who puts files back"))?;
        }
        let waiting = self.exchange.waiting.get(&made).ok_or(StepError::Missing(made))?;
        let Waiting { entry, id, wanted } = waiting;
        let (here, id) = (wanted.again().map_err(call("duplicate a descriptor"))?, *id);
        match entry.exchange(wanted) {
            Ok(()) => {
                let hidden = entry.again().map_err(call("duplicate a descriptor"))?;
                self.undo.exchanged(spot.clone(), here, id, hidden);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                entry.move_to(wanted).map_err(call("rename"))?;
                self.undo.made(spot.clone(), here, id);
            }
            Err(error) => return Err(call("renameat2")(error)),
        }
        Ok(())
    }

    /// Puts every file back where it was, and every old socket.
    pub(in crate::restore) fn give_way(&mut self) {
        self.beside.put_back();
        for problem in self.undo.undo() {
            tracing::error!(%problem, "failed to undo");
        }
    }

    /// What was replaced is deleted; what was made stays, also when this is dropped. What could not be
    /// deleted is said.
    #[must_use]
    pub fn finish(&mut self) -> Vec<UndoProblem> {
        self.make_final();
        self.exchange.clear()
    }
}
