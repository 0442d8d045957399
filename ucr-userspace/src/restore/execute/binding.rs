//! Names: giving one to a socket, connecting by it, and the files that this makes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, chmod, chownat, fchmod};

use super::{Restored, StepError, call};
use crate::image::FileId;
use crate::model::UnixName;
use crate::process::beneath;
use crate::process::files::{Facts, same_file};
use crate::restore::files::{Entry, InDirectory, known_as, through_proc};
use crate::restore::plan::spot::{Landing, Spot};
use crate::restore::plan::step::{Holder, Place};
use crate::restore::private::{Failure, PrivateRoot};
use crate::sys::{addr, sockopt};

/// Mode of a new socket file until all is done: nobody else connects meanwhile.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Mode of a socket's inode in sockfs (`sock_alloc`), which becomes that of its file.
const SOCKET_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

pub(super) fn failed((call, source): Failure) -> StepError {
    StepError::Call { call, source }
}

impl Restored {
    pub(super) fn bind(
        &mut self,
        made: Holder,
        place: &Place,
        landing: &Landing,
    ) -> Result<(), StepError> {
        match (&place.name, landing) {
            (UnixName::Pathname(_), Landing::ByName) => self.bind_by_name(made, place),
            (UnixName::Pathname(_), Landing::Nowhere) => self.bind_nowhere(made, place),
            (UnixName::Pathname(_), Landing::At(spot)) => self.bind_at(made, place, spot),
            (UnixName::Pathname(_), Landing::Over(spot)) => self.bind_over(made, place, spot),
            (name, _) => addr::bind(self.get(made)?, &name.to_sun_path()).map_err(call("bind")),
        }
    }

    fn bind_by_name(&mut self, made: Holder, place: &Place) -> Result<(), StepError> {
        let spot = Spot::here(place.path().unwrap_or_default());
        let entry = Entry::of(&spot).map_err(call("open directory"))?;
        let socket = self.get(made)?;
        fchmod(socket, PRIVATE).map_err(call("fchmod"))?;
        let inside = InDirectory::enter(place.directory.as_deref()).map_err(call("chdir"))?;
        addr::bind(socket, &place.name.to_sun_path()).map_err(call("bind"))?;
        // Without CAP_NET_ADMIN: what lies there must be it, a moment later.
        let file = sockopt::bound_file(socket).or_else(|_| entry.open());
        let file = file.map_err(call("find the file"))?;
        let id = Facts::of(&file).map_err(call("find the file"))?.id;
        if !entry.is(id) {
            let landed = known_as(&file).map_err(call("find the file"))?;
            self.undo.made_astray(landed.clone(), id);
            return Err(StepError::Astray { landed });
        }
        self.undo.made(spot, entry, id);
        self.files.insert(made, id);
        fchmod(self.get(made)?, SOCKET_MODE).map_err(call("fchmod"))?;
        inside.leave().map_err(call("chdir back"))
    }

    /// The file is gone at once; whoever holds it still connects through it.
    fn bind_nowhere(&mut self, made: Holder, place: &Place) -> Result<(), StepError> {
        if self.private.is_none() {
            let private = PrivateRoot::temporary().map_err(call("make a private directory"))?;
            self.private = Some(private);
        }
        let socket = self.get(made)?;
        let bound = self.private.as_ref().map(|private| private.bind(socket, place));
        let landed = bound.ok_or(StepError::Missing(made))?.map_err(failed)?;
        let id = Facts::of(&landed.file).map_err(call("find the file"))?.id;
        if self.exchange.is_in_place() {
            // Processes of other users are to connect by its descriptor.
            let path = through_proc(&landed.file);
            chmod(OsStr::from_bytes(&path), SOCKET_MODE).map_err(call("chmod"))?;
        }
        if !landed.entry.unlink_if(id).map_err(call("unlink"))? {
            return Err(call("unlink")(io::Error::other("another file lies there now")));
        }
        // Who may ask the socket gets it back when it is needed.
        if sockopt::bound_file(self.get(made)?).is_err() {
            self.unreachable.insert(made, landed.file);
        }
        Ok(())
    }

    /// In the very directory where the file is to be: a rename does not leave the file system.
    fn bind_at(&mut self, made: Holder, place: &Place, spot: &Spot) -> Result<(), StepError> {
        let wanted = Entry::of(spot).map_err(call("open directory"))?;
        let parent = wanted.parent().map_err(call("open directory"))?;
        let private = PrivateRoot::within(parent).map_err(call("make a private directory"))?;
        let landed = private.bind(self.get(made)?, place).map_err(failed)?;
        let id = Facts::of(&landed.file).map_err(call("find the file"))?.id;
        landed.entry.move_to(&wanted).map_err(call("rename"))?;
        self.undo.made(spot.clone(), wanted, id);
        self.files.insert(made, id);
        private.remove().map_err(call("remove a private directory"))
    }

    /// Removes the directory in which sockets were bound, if there is one.
    pub(super) fn leave_private(&mut self) -> Result<(), StepError> {
        let removed = self.private.take().map(PrivateRoot::remove);
        removed.unwrap_or(Ok(())).map_err(call("remove a private directory"))
    }

    /// The bytes by which to connect to a socket: through its very file, whatever lies under its name
    /// by now. (Whoever connects is told the name that the socket has, by whatever path he came.) The
    /// file has to be kept open until that is done.
    pub(in crate::restore) fn way_to(
        &self,
        listener: Holder,
        place: &Place,
    ) -> Result<(Vec<u8>, Option<OwnedFd>), StepError> {
        if !matches!(place.name, UnixName::Pathname(_)) {
            return Ok((place.name.to_sun_path(), None));
        }
        let file = match sockopt::bound_file(self.get(listener)?) {
            Ok(file) => file,
            Err(_) => self.kept_file(listener)?,
        };
        Ok((through_proc(&file), Some(file)))
    }

    /// The same for a socket that is not the image's: whatever its path leads to.
    pub(super) fn way_outside(
        &self,
        place: &Place,
    ) -> Result<(Vec<u8>, Option<OwnedFd>), StepError> {
        let Some(path) = place.path() else { return Ok((place.name.to_sun_path(), None)) };
        let file = beneath::anything(self.beneath(), &path).map_err(call("open"))?;
        Ok((through_proc(&file), Some(file)))
    }

    /// The file of a socket that we may not ask for it.
    fn kept_file(&self, made: Holder) -> Result<OwnedFd, StepError> {
        if let Some(file) = self.unreachable.get(&made) {
            return file.try_clone().map_err(call("duplicate a descriptor"));
        }
        let id = *self.files.get(&made).ok_or(StepError::Missing(made))?;
        self.own_file(made, id)
    }

    /// Opens a file that was made for a socket and stays.
    fn own_file(&self, made: Holder, id: FileId) -> Result<OwnedFd, StepError> {
        let entry = self.exchange.entry(made).or_else(|| self.undo.entry(id));
        let file = entry.ok_or(StepError::Missing(made))?.open().map_err(call("open"))?;
        if !same_file(Facts::of(&file).map_err(call("statx"))?.id, id) {
            return Err(call("open")(io::Error::other("another file lies there now")));
        }
        Ok(file)
    }

    /// Owner first: a change of owner may clear mode bits.
    pub(super) fn set_attributes(
        &self,
        made: Holder,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), StepError> {
        let id = *self.files.get(&made).ok_or(StepError::Missing(made))?;
        let file = self.own_file(made, id)?;
        let facts = Facts::of(&file).map_err(call("statx"))?;
        if (facts.uid, facts.gid) != (uid, gid) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(call("chown"))?;
        }
        // An O_PATH descriptor takes no fchmod; its entry in /proc leads to the same file.
        let path = through_proc(&file);
        chmod(OsStr::from_bytes(&path), Mode::from_raw_mode(mode)).map_err(call("chmod"))
    }

    /// Connects a datagram socket.
    pub(super) fn connect_datagram(
        &self,
        sender: BorrowedFd<'_>,
        receiver: Holder,
        place: &Place,
    ) -> Result<(), StepError> {
        let (path, _file) = self.way_to(receiver, place)?;
        addr::connect(sender, &path).map_err(call("connect"))
    }
}
