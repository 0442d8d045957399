//! What a parasite is told to do: a list of calls, and the memory that they refer to.

use crate::sys::parasite::{Entry, FIRST_IS_AT, FORGET_FIRST, LAST, MUST_GIVE, MUST_WORK};

/// Descriptors in one message, at most (`SCM_MAX_FD`).
pub const MOST_FILES: usize = 253;

/// `struct cmsghdr` on a 64-bit machine, and `struct msghdr`.
const CONTROL_HEAD: usize = 16;

/// What is to be done if a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Else {
    /// The next one.
    GoOn,
    /// Nothing more of this list.
    Stop,
    /// The same, also if it returns 0.
    StopIfNothing,
}

/// A descriptor of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// By its number.
    Number(i32),
    /// By the address at which its number will stand, or -1.
    At(u64),
}

/// The numbers of descriptors, as they stand in memory. They are in one list, which is read at once, as far as they go.
pub(super) fn numbers<E>(
    files: &[File],
    read: impl FnOnce(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<i32>, E> {
    let places = files.iter().filter_map(|file| match *file {
        File::Number(_) => None,
        File::At(at) => Some(at),
    });
    let first = places.clone().min().unwrap_or_default();
    let span = places.max().map_or(0, |last| last - first + 4);
    let mut bytes = vec![0; usize::try_from(span).unwrap_or_default()];
    if span > 0 {
        read(first, &mut bytes)?;
    }
    let number = |file: &File| match *file {
        File::Number(number) => number,
        File::At(at) => {
            let at = usize::try_from(at - first).unwrap_or(usize::MAX);
            let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
            number.map_or(-1, |number| i32::from_ne_bytes(*number))
        }
    };
    Ok(files.iter().map(number).collect())
}

/// Calls in their order, with the memory that they refer to. When they are made others may follow, which refer
/// to the same memory.
#[derive(Debug)]
pub struct Order {
    /// Where the memory begins in the process.
    at: u64,
    memory: Vec<u8>,
    /// How much of it is in the process already.
    written: usize,
    list: Vec<Entry>,
    /// Where the list before this one stands.
    list_at: u64,
    farewell: Vec<Entry>,
    /// Which of the farewell closes what which call of the list has opened.
    opening: Vec<(usize, usize)>,
}

fn bits(number: i32) -> u64 {
    i64::from(number).cast_unsigned()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or_default()
}

impl Order {
    /// One whose memory begins at an address.
    pub(super) fn new(at: u64) -> Self {
        Self {
            at,
            memory: Vec::new(),
            written: 0,
            list: Vec::new(),
            list_at: 0,
            farewell: Vec::new(),
            opening: Vec::new(),
        }
    }

    /// A list that stands at an address for good, with what it refers to: it puts a limit of descriptors back, if any
    /// was raised.
    pub(super) fn lasting(at: u64, limit: Option<(u64, u64)>) -> Vec<u8> {
        let last = Entry { number: LAST, ..Entry::default() };
        let Some((soft, hard)) = limit else { return last.bytes().to_vec() };
        let put_back = Self::limit_back(at);
        let mut bytes = [put_back.bytes(), last.bytes()].concat();
        bytes.extend(soft.to_ne_bytes());
        bytes.extend(hard.to_ne_bytes());
        bytes
    }

    /// The call that puts the limit back which stands behind a lasting list.
    fn limit_back(at: u64) -> Entry {
        let limit = at + 2 * u64::try_from(Entry::SIZE).unwrap_or_default();
        let rest = [u64::from(libc::RLIMIT_NOFILE), limit, 0];
        // Of the process itself.
        Self::entry(libc::SYS_prlimit64, File::Number(0), &rest, Else::GoOn)
    }

    /// The same as the first of what is done when the parasite goes; `lasting` is where that list is.
    pub(super) fn put_limit_back(&mut self, lasting: u64) {
        self.farewell.push(Self::limit_back(lasting));
    }

    /// Bytes in the memory of the process: their address.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        self.memory.resize(self.memory.len().next_multiple_of(8), 0);
        let at = self.at + length(&self.memory);
        self.memory.extend_from_slice(bytes);
        at
    }

    fn entry(number: i64, first: File, rest: &[u64], otherwise: Else) -> Entry {
        let (first, at) = match first {
            File::Number(number) => (bits(number), 0),
            File::At(address) => (address, FIRST_IS_AT),
        };
        let mut arguments = [first, 0, 0, 0, 0, 0];
        arguments.iter_mut().skip(1).zip(rest).for_each(|(to, from)| *to = *from);
        let otherwise = match otherwise {
            Else::GoOn => 0,
            Else::Stop => MUST_WORK,
            Else::StopIfNothing => MUST_WORK | MUST_GIVE,
        };
        Entry { number, arguments, flags: at | otherwise, result: i64::MIN }
    }

    /// A call whose first argument is a descriptor: its place in the list.
    pub fn call(&mut self, number: i64, first: File, rest: &[u64], otherwise: Else) -> usize {
        self.list.push(Self::entry(number, first, rest, otherwise));
        self.list.len() - 1
    }

    /// A call that returns a descriptor: its place in the list. When the parasite goes it is closed, whatever happens.
    pub fn open(&mut self, number: i64, first: i32, rest: &[u64], otherwise: Else) -> usize {
        let at = self.call(number, File::Number(first), rest, otherwise);
        if let Some(entry) = self.list.last_mut() {
            // What is closed if it is not made.
            entry.result = -1;
        }
        self.opening.push((self.farewell.len(), at));
        self.close_finally(File::At(0));
        at
    }

    /// What such a call of the last list has opened.
    #[must_use]
    pub fn opened(&self, call: usize) -> File {
        File::At(self.list_at + Entry::result_of(call))
    }

    /// Receives descriptors that will be sent along, [`MOST_FILES`] at most: where each one's number will
    /// stand. When the parasite goes they are closed, whatever happens.
    pub fn receive(&mut self, channel: i32, count: usize) -> Vec<File> {
        let control = CONTROL_HEAD + count * 4;
        let empty = vec![0xff; control.next_multiple_of(8)];
        let control_at = self.put(&empty);
        let byte = self.put(&[0; 8]);
        let part = self.put(&[byte.to_ne_bytes(), 1_u64.to_ne_bytes()].concat());
        let size = u64::try_from(empty.len()).unwrap_or_default();
        // Name, its length, parts, their number, control, its length, flags.
        let head = [0, 0, part, 1, control_at, size, 0].map(u64::to_ne_bytes).concat();
        let head = self.put(&head);
        let flags = u64::from(libc::MSG_CMSG_CLOEXEC.cast_unsigned());
        self.call(libc::SYS_recvmsg, File::Number(channel), &[head, flags], Else::StopIfNothing);
        let first = control_at + u64::try_from(CONTROL_HEAD).unwrap_or_default();
        let places: Vec<_> = (first..).step_by(4).take(count).map(File::At).collect();
        places.iter().for_each(|file| self.close_finally(*file));
        places
    }

    /// Closes a descriptor; nobody closes it once more.
    pub fn close(&mut self, file: File) {
        let mut entry = Self::entry(libc::SYS_close, file, &[], Else::GoOn);
        if matches!(file, File::At(_)) {
            entry.flags |= FORGET_FIRST;
        }
        self.list.push(entry);
    }

    /// Closes a descriptor when the parasite goes, unless it is closed by then.
    pub fn close_finally(&mut self, file: File) {
        let mut entry = Self::entry(libc::SYS_close, file, &[], Else::GoOn);
        entry.flags |= FORGET_FIRST;
        self.farewell.push(entry);
    }

    fn put_list(&mut self, mut list: Vec<Entry>, last: Entry) -> u64 {
        list.push(last);
        let bytes: Vec<u8> = list.iter().flat_map(Entry::bytes).collect();
        self.put(&bytes)
    }

    /// What is to be written into the process. The list is empty afterwards.
    pub(super) fn finish(&mut self) -> Finished {
        let calls = self.list.len();
        let last = Entry { number: LAST, ..Entry::default() };
        let list = std::mem::take(&mut self.list);
        let list = self.put_list(list, last);
        self.list_at = list;
        for (closing, call) in std::mem::take(&mut self.opening) {
            let File::At(at) = self.opened(call) else { continue };
            if let Some([first, ..]) = self.farewell.get_mut(closing).map(|e| &mut e.arguments) {
                *first = at;
            }
        }
        let farewell = self.put_list(self.farewell.clone(), last);
        let from = std::mem::replace(&mut self.written, self.memory.len());
        let memory = self.memory.get(from..).unwrap_or_default();
        let at = self.at + u64::try_from(from).unwrap_or_default();
        Finished { at, memory: memory.to_vec(), list, farewell, calls }
    }
}

/// An order as it is written into the process.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) at: u64,
    pub(super) memory: Vec<u8>,
    pub(super) list: u64,
    pub(super) farewell: u64,
    pub(super) calls: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_closed_in_the_end() {
        let mut order = Order::new(0x1000);
        order.put(&[0; 12]);
        order.call(libc::SYS_getpid, File::Number(0), &[], Else::GoOn);
        let call = order.open(libc::SYS_socket, libc::AF_INET, &[1, 0], Else::Stop);
        let finished = order.finish();
        // Behind twelve bytes, the first call, and all of the second but its result.
        let result = 0x1000 + 16 + 72 + 64;
        assert_eq!(order.opened(call), File::At(result));
        let word = |at: u64| {
            let at = usize::try_from(at - finished.at).expect("an offset");
            let bytes = finished.memory.get(at..at + 8).expect("in memory");
            u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
        };
        // Nothing was opened yet.
        assert_eq!(word(result), u64::MAX);
        // The first argument of the only call of the farewell.
        assert_eq!(word(finished.farewell + 8), result);
    }

    #[test]
    fn what_is_received_is_closed_in_the_end() {
        let mut order = Order::new(0x1000);
        let files = order.receive(7, 3);
        assert_eq!(files, [File::At(0x1010), File::At(0x1014), File::At(0x1018)]);
        let done = order.call(libc::SYS_dup3, File::At(0x1014), &[9, 0], Else::GoOn);
        let finished = order.finish();
        assert_eq!((done, finished.calls), (1, 2));
        let at = usize::try_from(finished.farewell - finished.at).expect("an offset");
        let farewell = finished.memory.get(at..).expect("the farewell");
        assert_eq!(farewell.len(), 4 * Entry::SIZE);
        // Nothing has come yet.
        assert_eq!(finished.memory.get(16..28), Some(&[0xff; 12][..]));
    }
}
