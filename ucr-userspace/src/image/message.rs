//! What waits in a socket's receive queue, as an image holds it.

use serde::{Deserialize, Serialize};

use super::schema::SocketIndex;
use crate::model::{Credentials, Pid, UnixName};

/// Something that was sent and not yet received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What is left of it.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Who sent it; only of datagrams.
    pub sender: Option<Sender>,
    /// `SCM_CREDENTIALS`, if the kernel keeps some with it.
    pub credentials: Option<Credentials>,
    /// `SCM_RIGHTS`.
    pub files: Vec<Passed>,
    /// `MSG_OOB`.
    pub out_of_band: OutOfBand,
}

/// Who sent a datagram, or made a connection that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// A socket of the image.
    Socket(SocketIndex),
    /// One that is not in the image, with the name that it had.
    Gone(UnixName),
}

/// A descriptor in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// A socket of the image, which need not have any other descriptor.
    Socket(SocketIndex),
    /// Something else, which can only be taken from a process that still has it.
    File(ForeignFile),
}

/// An open file that is no unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignFile {
    /// What `/proc/PID/fd` calls it, raw bytes.
    pub name: Vec<u8>,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Who else has it open, when the image was made.
    pub holder: (Pid, i32),
}

/// Whether a message is an out-of-band byte (`MSG_OOB`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfBand {
    /// It is not.
    #[default]
    No,
    /// It is, and has not been received.
    Waiting,
    /// It was, and has been received: what is left is its place, where receiving stops.
    Taken,
}
