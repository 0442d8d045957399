//! Orders about messages, with all that one can have: `msg send …`, `msg recv …`. Data and names are in
//! hexadecimal digits.
//!
//! ```text
//! send FD [data=HEX] [fill=COUNT] [oob] [fds=1,2] [creds=PID,UID,GID] [to=HEX]
//! recv FD [size=COUNT] [oob] [peek]      data=HEX from=HEX creds=PID,UID,GID|- fds=1,2 end=EOR|-
//! drain FD COUNT                         whether that many bytes of a filling are as they were sent
//! ```

use std::{
    io,
    os::fd::{BorrowedFd, IntoRawFd as _, RawFd},
};

use ucr::sys::message;
use ucr_tests::world::{hex, unhex};

use crate::world::{number, trimmed};

/// Obeys one of those about a descriptor, which is the second word.
pub(crate) fn obey(fd: BorrowedFd<'_>, words: &[&str]) -> io::Result<String> {
    match words {
        ["send", _, rest @ ..] => sent(fd, rest),
        ["recv", _, rest @ ..] => received(fd, rest),
        ["drain", _, count] => {
            let count = number(count).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            drained(fd, count)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Bytes that differ from one place to another.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from((at * 31 + at / 251) % 251).unwrap_or(0)).collect()
}

fn numbers<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').filter(|word| !word.is_empty()).map(number).collect()
}

fn sent(fd: BorrowedFd<'_>, words: &[&str]) -> io::Result<String> {
    let (mut data, mut files, mut to, mut along) =
        (Vec::new(), Vec::new(), None, message::Along::default());
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("data", digits) => data = unhex(digits).map_err(wrong)?,
            ("fill", count) => data = pattern(number(count).map_err(wrong)?),
            ("oob", _) => along.out_of_band = true,
            ("fds", list) => files = numbers::<RawFd>(list).map_err(wrong)?,
            ("creds", list) => match numbers::<u32>(list).map_err(wrong)?.as_slice() {
                &[pid, uid, gid] => along.credentials = Some((pid.cast_signed(), uid, gid)),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            },
            ("to", name) => to = Some(unhex(name).map_err(wrong)?),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    along.files = &files;
    along.to = to.as_deref();
    message::send(fd, &data, along).map(|length| length.to_string())
}

fn received(fd: BorrowedFd<'_>, words: &[&str]) -> io::Result<String> {
    let (mut size, mut flags) = (65_536, 0);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("size", count) => {
                size = number(count).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            }
            ("oob", _) => flags |= libc::MSG_OOB,
            ("peek", _) => flags |= libc::MSG_PEEK,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    let message::Received { data, from, files, credentials, flags } =
        message::receive(fd, size, flags)?;
    let credentials =
        credentials.map_or("-".to_owned(), |(pid, uid, gid)| format!("{pid},{uid},{gid}"));
    // They stay open: the victim goes by their numbers.
    let files: Vec<_> = files.into_iter().map(|file| file.into_raw_fd().to_string()).collect();
    let end = if flags & libc::MSG_EOR != 0 { "EOR" } else { "-" };
    let (data, from) = (hex(&data), hex(trimmed(&from)));
    Ok(format!("data={data} from={from} creds={credentials} fds={} end={end}", files.join(",")))
}

fn drained(fd: BorrowedFd<'_>, count: usize) -> io::Result<String> {
    let mut data = Vec::new();
    while data.len() < count {
        match message::receive(fd, count - data.len(), 0)?.data {
            part if part.is_empty() => return Ok(format!("only {} bytes", data.len())),
            part => data.extend(part),
        }
    }
    let same = data == pattern(count);
    Ok(if same { "as sent".to_owned() } else { "other bytes".to_owned() })
}
