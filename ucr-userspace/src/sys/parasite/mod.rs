//! What differs from machine to machine when a stopped thread is to make system calls for somebody
//! else: registers, the frame that leads back, and the code. Everything that knows an instruction or
//! a register is in the one file of its architecture.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use self::x86_64::{
    CALL, POP, RETURN, Registers, code, extended_state, frame, frame_room, is_shadowed,
};

/// Addresses in the memory of a traced process, where code stands that it has anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gadgets {
    /// A system call, and the return from a function.
    pub call: u64,
    /// Takes a number from the stack to be that of the next call, and returns; not every program has such code.
    pub pop: Option<u64>,
    /// The system call that returns from a signal handler.
    pub sigreturn: u64,
}

/// What is put on the stack of a thread so that it returns to what it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it is to stand.
    pub at: u64,
    /// What.
    pub bytes: Vec<u8>,
    /// Stack with which a call returns to what the thread was about.
    pub back: u64,
    /// The same, but what was mapped by that call is unmapped before, if there is code for it.
    pub unmapping: u64,
}

/// One system call of a list, in the memory of the process that makes it ([`code`] reads it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its number; [`LAST`] ends the list.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// [`MUST_WORK`], [`MUST_GIVE`], [`FIRST_IS_AT`], [`FORGET_FIRST`].
    pub flags: u64,
    /// What it returned; what stood here before if it was not made.
    pub result: i64,
}

/// In the place of a number: the list ends here.
pub const LAST: i64 = -1;
/// If it fails, the rest of the list is not done.
pub const MUST_WORK: u64 = 1;
/// If it fails or returns 0, the rest of the list is not done.
pub const MUST_GIVE: u64 = 2;
/// The first argument is the address of the 32-bit number that is meant.
pub const FIRST_IS_AT: u64 = 4;
/// With [`FIRST_IS_AT`]: afterwards the number there is -1, so that nobody closes a descriptor twice.
pub const FORGET_FIRST: u64 = 8;

impl Entry {
    /// How many bytes one takes.
    pub const SIZE: usize = 9 * 8;

    /// How far behind the beginning of a list the result of a call stands.
    #[must_use]
    pub fn result_of(call: usize) -> u64 {
        let at = (call + 1) * Self::SIZE - size_of::<i64>();
        u64::try_from(at).unwrap_or_default()
    }

    /// As it stands in memory.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = std::iter::once(self.number.cast_unsigned()).chain(self.arguments);
        let words = words.chain([self.flags, self.result.cast_unsigned()]);
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// What [`code`] finds at the beginning of its data: numbers of 64 bits, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Two 32-bit numbers: the ends of the channel. The code makes them, keeps the first and closes the second.
    pub channel: u64,
    /// One byte that goes through the channel.
    pub byte: u64,
    /// Address of the list that is done for each byte that comes.
    pub list: u64,
    /// Address of the list that is done when the channel is closed.
    pub farewell: u64,
    /// Address of the stack on which the frame is that leads back.
    pub back: u64,
    /// Address of [`Gadgets::call`].
    pub call: u64,
    /// What is unmapped at the end: where it begins.
    pub mapping: u64,
    /// How many bytes.
    pub mapped: u64,
}

impl Head {
    /// How many bytes it takes.
    pub const SIZE: usize = 8 * 8;

    /// As it stands in memory.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [
            self.channel,
            self.byte,
            self.list,
            self.farewell,
            self.back,
            self.call,
            self.mapping,
            self.mapped,
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
