//! What the programs write of a socket that they see.

use std::{
    fs::File,
    io::{self, Read as _},
};

use ucr_common::{
    name::RawName,
    sighting::{SIGHT_DEAD, Sighting},
};
use zerocopy::FromBytes as _;

use crate::model::UnixName;

/// As much as the kernel hands over at once.
const PIECE: usize = 32 << 10;

/// What is left by a look at one socket: a sighting, and a `RawName`.
pub(super) const LOOK_LEN: usize = size_of::<Sighting>() + size_of::<RawName>();

/// A socket as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Everything but its name.
    pub raw: Sighting,
    /// Its name.
    pub name: UnixName,
}

/// Reads what `see_descriptors` writes.
pub(super) fn read(mut pass: File, mut piece: impl FnMut(Vec<u8>)) -> io::Result<()> {
    loop {
        let mut buffer = vec![0; PIECE];
        match pass.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                buffer.truncate(length);
                piece(buffer);
            }
            // After a million descriptors that are no unix sockets the kernel wants to be asked again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes sights out of pieces.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// The beginning of a record whose end is in the next piece. The kernel hands over whole ones, and does not
    /// promise it.
    rest: Vec<u8>,
}

impl Parser {
    /// Takes the next piece.
    pub fn take(&mut self, piece: &[u8], each: impl FnMut(Sight)) {
        if self.rest.is_empty() {
            let taken = parse(piece, each);
            self.rest.extend_from_slice(piece.get(taken..).unwrap_or_default());
        } else {
            self.rest.extend_from_slice(piece);
            let taken = parse(&self.rest, each);
            self.rest.drain(..taken);
        }
    }
}

/// Takes whole records; how many bytes they have.
fn parse(bytes: &[u8], mut each: impl FnMut(Sight)) -> usize {
    let mut left = bytes;
    while let Ok((raw, rest)) = Sighting::read_from_prefix(left) {
        let length = usize::try_from(raw.name_len).unwrap_or(usize::MAX);
        let Some((name, rest)) = rest.split_at_checked(length) else { break };
        each(Sight { raw, name: UnixName::from_sun_path(name) });
        left = rest;
    }
    bytes.len() - left.len()
}

/// What is left by a look at one socket, if it is a living one.
pub(super) fn living(bytes: &[u8]) -> Option<Sight> {
    let (raw, rest) = Sighting::read_from_prefix(bytes).ok()?;
    if raw.flags & SIGHT_DEAD != 0 {
        return None;
    }
    // A `RawName`: its length, and its bytes.
    let name = rest.get(4..)?;
    let length = usize::try_from(raw.name_len).unwrap_or(usize::MAX).min(name.len());
    Some(Sight { raw, name: UnixName::from_sun_path(name.split_at(length).0) })
}

#[cfg(test)]
mod tests {
    use ucr_common::identity::SocketId;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn record(sk: u64, name: &[u8]) -> Vec<u8> {
        let mut raw = Sighting::new_zeroed();
        raw.socket = SocketId { sk, ..SocketId::NONE };
        raw.name_len = name.len().try_into().expect("a short name");
        [raw.as_bytes(), name].concat()
    }

    #[test]
    fn records_are_put_together_wherever_they_were_cut() {
        let all = [record(1, b"\0a"), record(2, b""), record(3, b"/run/x")].concat();
        let expected = [(1, "@a"), (2, "-"), (3, "/run/x")].map(|(sk, name)| (sk, name.to_owned()));
        for size in [1, 7, 175, 176, 177, 178, 300, all.len()] {
            let (mut parser, mut seen) = (Parser::default(), Vec::new());
            for piece in all.chunks(size) {
                parser
                    .take(piece, |sight| seen.push((sight.raw.socket.sk, sight.name.to_string())));
            }
            assert_eq!(seen, expected, "pieces of {size}");
        }
    }
}
