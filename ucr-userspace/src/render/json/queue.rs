//! What waits in a socket's queue, as JSON.

use serde::Serialize;

use crate::image::{self, OutOfBand, Passed, Sender, SocketIndex};
use crate::model::name::{Bytes, Exact};
use crate::model::{Credentials, Pid};

#[derive(Serialize)]
pub(super) struct Message<'a> {
    data: Bytes<'a>,
    sender: Option<From<'a>>,
    credentials: Option<Credentials>,
    files: Vec<File<'a>>,
    out_of_band: OutOfBand,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum From<'a> {
    Socket(SocketIndex),
    Gone(Exact<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum File<'a> {
    Socket(SocketIndex),
    File { name: Bytes<'a>, device: u64, inode: u64, pid: Pid, fd: i32 },
}

impl<'a> Message<'a> {
    pub(super) fn of(message: &'a image::Message) -> Self {
        let sender = message.sender.as_ref().map(|sender| match sender {
            Sender::Socket(index) => From::Socket(*index),
            Sender::Gone(name) => From::Gone(Exact(name)),
        });
        let file = |file: &'a Passed| match file {
            Passed::Socket(index) => File::Socket(*index),
            Passed::File(file) => File::File {
                name: Bytes(&file.name),
                device: file.device,
                inode: file.inode,
                pid: file.holder.0,
                fd: file.holder.1,
            },
        };
        Self {
            data: Bytes(&message.data),
            sender,
            credentials: message.credentials,
            files: message.files.iter().map(file).collect(),
            out_of_band: message.out_of_band,
        }
    }
}
