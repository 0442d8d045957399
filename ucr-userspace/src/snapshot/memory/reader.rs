//! Pieces of kernel memory: one by one, or many ahead in one run of the program.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    ops::Range,
    os::fd::{AsFd as _, OwnedFd},
    rc::Rc,
};

use ucr_common::memory::{ALIGN, BATCH, MEMORY, PIECE, ROOM, Want};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::MemoryError;
use crate::sys::bpf;

/// How many bytes are kept at most of what was read ahead: what is more is read when it is asked for.
const AHEAD: usize = 8 << 20;

/// A piece of kernel memory.
#[derive(Clone, Debug)]
pub(super) struct Block {
    bytes: Rc<Vec<u8>>,
    span: Range<usize>,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.span.clone()).unwrap_or_default()
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], MemoryError> {
        let bytes = self.bytes().get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or(MemoryError::Senseless("a structure is shorter than its members"))
    }

    pub(super) fn u8(&self, at: usize) -> Result<u8, MemoryError> {
        self.array(at).map(|[byte]| byte)
    }

    pub(super) fn u16(&self, at: usize) -> Result<u16, MemoryError> {
        self.array(at).map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&self, at: usize) -> Result<u32, MemoryError> {
        self.array(at).map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&self, at: usize) -> Result<u64, MemoryError> {
        self.array(at).map(u64::from_ne_bytes)
    }
}

/// Where something lies, and how long it is.
pub(super) type Piece = (u64, usize);

/// The program that copies, and what it has copied.
#[derive(Debug)]
pub(super) struct Reader {
    program: OwnedFd,
    wants: RefCell<bpf::Mapped>,
    memory: bpf::Mapped,
    /// What was read ahead.
    ahead: RefCell<HashMap<Piece, Block, foldhash::fast::FixedState>>,
    /// How many bytes that are.
    kept: Cell<usize>,
}

impl Reader {
    pub(super) fn new(program: OwnedFd, wants: &OwnedFd, memory: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            program,
            wants: RefCell::new(bpf::Mapped::writable(
                wants.as_fd(),
                (BATCH * size_of::<Want>()).next_multiple_of(4096),
            )?),
            memory: bpf::Mapped::new(memory.as_fd(), MEMORY)?,
            ahead: RefCell::default(),
            kept: Cell::new(0),
        })
    }

    /// One piece: as it was read ahead, or else as it is now.
    pub(super) fn read(
        &self,
        what: &'static str,
        address: u64,
        length: usize,
    ) -> Result<Block, MemoryError> {
        if let Some(known) = self.ahead.borrow().get(&(address, length)) {
            return Ok(known.clone());
        }
        self.read_now(what, address, length)
    }

    /// One piece as it is now.
    pub(super) fn read_now(
        &self,
        what: &'static str,
        address: u64,
        length: usize,
    ) -> Result<Block, MemoryError> {
        let unreadable = |source| MemoryError::Unreadable { what, length, source };
        match self.copy(&[(address, length)]).map_err(unreadable)?.pop() {
            Some(Ok(block)) => Ok(block),
            Some(Err(error)) => Err(unreadable(error)),
            None => Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads pieces ahead, and gives each that could be read to `next`, which names more; those are read, too.
    /// What cannot be read is left for [`read`](Self::read) to complain of.
    pub(super) fn read_ahead<W: Copy>(
        &self,
        wanted: impl IntoIterator<Item = (Piece, W)>,
        mut next: impl FnMut(&Block, W, &mut Vec<(Piece, W)>),
    ) {
        let mut wanted: Vec<(Piece, W)> = wanted.into_iter().collect();
        let (mut more, mut pieces) = (Vec::new(), Vec::new());
        while !wanted.is_empty() && self.kept.get() < AHEAD {
            pieces.clear();
            pieces.extend(wanted.iter().map(|(piece, _)| *piece));
            // A run takes as much as there is room for.
            let copied = self.copy(&pieces).unwrap_or_default();
            let rest = wanted.split_off(copied.len().max(1).min(wanted.len()));
            for ((piece, which), block) in wanted.drain(..).zip(copied) {
                let Ok(block) = block else { continue };
                next(&block, which, &mut more);
                self.kept.set(self.kept.get() + piece.1);
                self.ahead.borrow_mut().insert(piece, block);
            }
            let ahead = self.ahead.borrow();
            // Several lead to the same thing.
            more.retain(|(piece, _)| !ahead.contains_key(piece) && piece.1 <= PIECE);
            wanted = rest;
            wanted.append(&mut more);
        }
    }

    /// Forgets what was read ahead.
    pub(super) fn forget(&self) {
        self.ahead.borrow_mut().clear();
        self.kept.set(0);
    }

    /// Copies pieces, as many of the first ones as there is room for: at least one.
    fn copy(&self, pieces: &[Piece]) -> io::Result<Vec<io::Result<Block>>> {
        let (mut wants, mut spans, mut at) = (Vec::new(), Vec::new(), 0);
        for &(address, length) in pieces.iter().take(BATCH) {
            let wide = u32::try_from(length).ok().filter(|_| length <= PIECE);
            let (Some(wide), true) = (wide, at < ROOM) else { break };
            wants.push(Want { address, length: wide, result: -libc::EIO });
            spans.push(at..at + length);
            at += length.next_multiple_of(ALIGN);
        }
        if wants.is_empty() && !pieces.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let count = u64::try_from(wants.len()).unwrap_or(u64::MAX);
        let mut table = self.wants.borrow_mut();
        table.write(wants.as_bytes());
        let result = bpf::run(self.program.as_fd(), [count, 0])?;
        if result != 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        let results = table.copy(size_of_val(wants.as_slice()));
        let results = results.chunks_exact(size_of::<Want>());
        let bytes = Rc::new(self.memory.copy(spans.last().map_or(0, |span| span.end)));
        let block = |(span, result): (Range<usize>, &[u8])| match Want::read_from_bytes(result)
            .map_or(-libc::EIO, |want| want.result)
        {
            0 => Ok(Block { bytes: Rc::clone(&bytes), span }),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        Ok(spans.into_iter().zip(results).map(block).collect())
    }
}
