//! How a test talks to a victim: two named pipes, one line each way. Named, so that a program that
//! takes the victim's place after a restore is talked to in the same way; pipes, so that no socket
//! is there that the test did not ask for.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

use crate::wait;

/// How often the test looks whether the victim is still there.
const GLANCE: Duration = Duration::from_millis(50);

fn pipe(base: &Path, direction: &str) -> PathBuf {
    let mut path = OsString::from(base);
    path.push(direction);
    path.into()
}

/// The victim's end.
///
/// # Errors
/// When the pipes are not there.
pub fn answer(base: &Path) -> io::Result<(BufReader<File>, File)> {
    let orders = File::open(pipe(base, ".in"))?;
    let answers = OpenOptions::new().write(true).open(pipe(base, ".out"))?;
    Ok((BufReader::new(orders), answers))
}

/// The test's end.
#[derive(Debug)]
pub struct Control {
    orders: File,
    answers: File,
    read: Vec<u8>,
}

impl Control {
    /// Makes the pipes, or opens those that are there.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        let open = |direction| {
            let path = pipe(base, direction);
            if !path.exists() {
                mkfifo(&path, Mode::S_IRWXU).expect("make a named pipe");
                // Also for a victim that runs as somebody else, once its folder is open to it.
                fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("open the pipe");
            }
            // For both, so that opening blocks neither side and no end of file is seen between
            // two programs.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
            options.open(path).expect("open a named pipe")
        };
        Self { orders: open(".in"), answers: open(".out"), read: Vec::new() }
    }

    /// Gives an order without waiting for the answer.
    ///
    /// # Panics
    /// When the pipe is broken.
    pub fn tell(&mut self, line: &str) {
        self.orders.write_all(format!("{line}\n").as_bytes()).expect("write to a victim");
    }

    /// The next line of the answers.
    ///
    /// # Panics
    /// When none comes in time, or whoever should write it is gone.
    pub fn line(&mut self, what: &str, is_there: impl Fn() -> bool) -> String {
        let deadline = Instant::now() + wait::patience();
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            // Looked at first: what it wrote before it went is still read.
            let was_there = is_there();
            if wait::readable(self.answers.as_fd(), GLANCE) {
                let mut chunk = [0; 4096];
                let length = self.answers.read(&mut chunk).expect("read from a victim");
                self.read.extend(chunk.iter().take(length));
            } else {
                assert!(was_there, "the victim is gone, no answer to `{what}`");
                assert!(Instant::now() < deadline, "no answer to `{what}`");
            }
        }
    }
}
