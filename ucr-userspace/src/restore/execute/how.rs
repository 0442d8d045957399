//! How a plan is executed: where its sockets go, and what there is already.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Predecessor;
use crate::image::SocketIndex;
use crate::kernel::interrupts::HeldBack;
use crate::sys::guard::Barrier;

/// How a plan is executed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Execution<'a> {
    /// Fails on purpose before the step with this index; with the number of steps, behind the last
    /// one. For tests of the undoing.
    pub fail_before: Option<usize>,
    /// Signals that are held back meanwhile: one that comes ends the restore between two steps.
    pub signals: Option<&'a HeldBack>,
    /// Where the sockets are put.
    pub places: Places,
    /// Where somebody waits meanwhile who puts back files that were exchanged if it is not opened.
    pub barrier: Option<&'a Rc<Barrier>>,
    /// Sockets that have been made before, with their names: they may have got something already.
    pub adopted: Option<&'a BTreeMap<SocketIndex, OwnedFd>>,
    /// The sockets that live until all is done and have the addresses of those that are made.
    pub predecessors: Option<&'a BTreeMap<SocketIndex, Predecessor>>,
    /// Whether processes go on with these before others take their places.
    pub go_on: bool,
}

/// In whose table of descriptors the sockets get the numbers that they had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// In this process's, and that of its children.
    #[default]
    Ours,
    /// In that of processes that live: here they have any number.
    Others,
}
