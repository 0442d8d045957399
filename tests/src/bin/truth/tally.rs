//! How many operations the workload has made: every process of it adds to a sum, by a pipe that is
//! its standard output. What a killed process had not reported yet is not counted.

use std::io::{self, PipeReader, PipeWriter, Read as _};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::write,
};

/// How many operations make a report.
const REPORT: u64 = 64;
/// Size of a report: a number, least significant byte first.
const WORD: usize = 8;

/// The end that is read.
pub(crate) struct Tally {
    reports: PipeReader,
    rest: Vec<u8>,
    sum: u64,
}

impl Tally {
    /// The tally, and what is to be the standard output of the workload.
    pub(crate) fn new() -> io::Result<(Self, PipeWriter)> {
        let (reports, output) = io::pipe()?;
        // A worker shall not wait for us, nor we for it.
        for end in [
            fcntl(&reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)),
            fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)),
        ] {
            end?;
        }
        Ok((Self { reports, rest: Vec::new(), sum: 0 }, output))
    }

    /// All that was reported until now.
    pub(crate) fn sum(&mut self) -> io::Result<u64> {
        let mut buffer = [0; 4096];
        loop {
            match self.reports.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.rest.extend(buffer.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let whole = self.rest.len() / WORD * WORD;
        let (words, _) = self.rest.as_chunks::<WORD>();
        self.sum += words.iter().copied().map(u64::from_le_bytes).sum::<u64>();
        self.rest.drain(..whole);
        Ok(self.sum)
    }
}

/// The end that counts. What it counted is reported at the latest when it is dropped.
pub(crate) struct Counter {
    unreported: u64,
    is_muted: bool,
}

impl Counter {
    /// Reports by standard output.
    pub(crate) fn new() -> Self {
        Self { unreported: 0, is_muted: false }
    }

    /// Counts.
    pub(crate) fn add(&mut self, operations: u64) {
        self.unreported += operations;
        if self.unreported >= REPORT {
            self.report();
        }
    }

    /// Says how many there were since the last report.
    pub(crate) fn report(&mut self) {
        if self.is_muted {
            return;
        }
        // Not by the library's buffer, which keeps what could not be written. So few bytes are
        // written as a whole or not at all (`pipe(7)`).
        match write(io::stdout(), &self.unreported.to_le_bytes()) {
            Ok(_) => self.unreported = 0,
            // Full: later, then.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody listens any more: then there is nothing to work for.
            Err(Errno::EPIPE) => std::process::exit(0),
            Err(_) => self.is_muted = true,
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn reports_add_up_however_they_are_cut() {
        let (mut tally, mut output) = Tally::new().expect("a pipe");
        assert_eq!(tally.sum().expect("nothing yet"), 0);
        output.write_all(&300_u64.to_le_bytes()).expect("write");
        let [first, rest] = [7_u64.to_le_bytes()[..3].to_vec(), 7_u64.to_le_bytes()[3..].to_vec()];
        output.write_all(&first).expect("write");
        assert_eq!(tally.sum().expect("read"), 300);
        output.write_all(&rest).expect("write");
        drop(output);
        assert_eq!(tally.sum().expect("read"), 307);
    }
}
