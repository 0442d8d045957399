//! What comes out of a guest: the command's output with how it ended, and the kernel's messages.
//!
//! They come by two serial ports, so that neither breaks the other's lines. The guest's first process
//! says when the command begins and how it ended, in lines that begin with a random token of this
//! run, which no test can write by accident.

use std::{fmt, time::Duration};

/// The command's output, line by line.
#[derive(Debug)]
pub(super) struct Output {
    token: String,
    state: State,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The kernel boots.
    Booting,
    /// The command runs. The guest's clock said so when it began.
    Running(Duration),
    /// The command has ended with this status, as a shell gives it.
    Ended(u8),
}

impl Output {
    /// Of a guest that was given this token.
    pub(super) fn new(token: String) -> Self {
        Self { token, state: State::Booting }
    }

    /// How far it is.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Takes the next line, with its end; what of it the command has written.
    pub(super) fn line<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        let token = self.token.as_bytes();
        // The last line of the command need not have an end.
        let at = line.windows(token.len()).position(|window| window == token);
        let Some((written, word)) = at.and_then(|at| line.split_at_checked(at)) else {
            return line;
        };
        let word = String::from_utf8_lossy(word);
        let mut words = word.split_whitespace().skip(1);
        match (words.next(), words.next()) {
            (Some("begin"), Some(seconds)) => {
                let clock =
                    seconds.parse().ok().and_then(|clock| Duration::try_from_secs_f32(clock).ok());
                self.state = State::Running(clock.unwrap_or_default());
            }
            (Some("end"), Some(status)) => {
                self.state = status.parse().map_or(self.state, State::Ended);
            }
            // Cut off.
            _ => {}
        }
        written
    }
}

/// The kernel's messages, and what QEMU has to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console(Vec<String>);

/// How many lines of the console are shown when something went wrong.
const TAIL: usize = 40;

const PANIC: &str = "Kernel panic";
/// What a kernel says when it has found a fault in itself, or was too slow for its own liking.
const ODDITIES: [&str; 10] = [
    PANIC,
    "BUG:",
    "Oops",
    "WARNING:",
    "soft lockup",
    "detected stall",
    "self-detected stall",
    "blocked for more than",
    "general protection fault",
    "Out of memory",
];

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Console {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.0.push(line.trim_end_matches(['\r', '\n']).to_owned());
    }

    /// Whether the kernel gave up.
    pub(crate) fn has_panicked(&self) -> bool {
        self.0.iter().any(|line| line.contains(PANIC))
    }

    /// Lines that should not be there, even if all went well.
    pub(crate) fn oddities(&self) -> impl Iterator<Item = &str> {
        let is_odd = |line: &&str| ODDITIES.iter().any(|odd| line.contains(odd));
        self.0.iter().map(String::as_str).filter(is_odd)
    }

    /// The last lines, with a heading.
    pub(crate) fn tail(&self) -> String {
        if self.0.is_empty() {
            return "the console is empty".to_owned();
        }
        let skipped = self.0.len().saturating_sub(TAIL);
        let lines = self.0.iter().skip(skipped).map(|line| format!("\n  | {line}"));
        format!("the console's last lines:{}", lines.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// What the command wrote, and the state in the end.
    fn read(text: &str) -> (String, State) {
        let mut output = Output::new(TOKEN.to_owned());
        let written: Vec<u8> = text
            .as_bytes()
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| output.line(line).to_vec())
            .collect();
        (String::from_utf8(written).unwrap(), output.state())
    }

    #[test]
    fn a_command_that_ended_has_a_status() {
        let text = format!("{TOKEN} begin 2.50\none\ntwo\n{TOKEN} end 7\n");
        assert_eq!(read(&text), ("one\ntwo\n".to_owned(), State::Ended(7)));
    }

    #[test]
    fn the_last_line_may_have_no_end() {
        let text = format!("{TOKEN} begin 2.50\ntwo{TOKEN} end 0\n");
        assert_eq!(read(&text), ("two".to_owned(), State::Ended(0)));
    }

    #[test]
    fn without_the_token_nothing_has_ended() {
        let running = State::Running(Duration::from_millis(2500));
        for rest in ["begin 1\nend 0\n", "RESULT end 0\n", "0123456789abcde end 0\n"] {
            let text = format!("{TOKEN} begin 2.50\n{rest}");
            assert_eq!(read(&text), (rest.to_owned(), running));
        }
        assert_eq!(read("ucr-vm: fails\n").1, State::Booting);
        // The machine died while it wrote.
        assert_eq!(read(&format!("{TOKEN} begin 2.5\n{TOKEN} en")).1, running);
        assert_eq!(read(&format!("{TOKEN} begin 2.5\n{TOKEN} end 256\n")).1, running);
    }

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for line in lines {
            console.line(line.as_bytes());
        }
        console
    }

    #[test]
    fn faults_of_the_kernel_are_found() {
        let fine = console(&["[    0.1] Booting\r\n", "[    0.2] a bug no more"]);
        assert!(!fine.has_panicked());
        assert_eq!(fine.oddities().count(), 0);
        let odd = console(&[
            "fine",
            "[ 12.5] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [stories:99]\r\n",
            "[ 13.0] WARNING: CPU: 0 PID: 1 at kernel/bpf/core.c:1",
        ]);
        assert!(!odd.has_panicked());
        assert_eq!(odd.oddities().count(), 2);
        let dead = console(&["[ 1.0] Kernel panic - not syncing: Attempted to kill init!"]);
        assert!(dead.has_panicked());
    }

    #[test]
    fn the_tail_is_the_end() {
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let tail = console(&lines).tail();
        assert!(tail.contains("line 60\n") && tail.ends_with("line 99"), "{tail}");
        assert!(!tail.contains("line 59"), "{tail}");
        assert_eq!(console(&[]).tail(), "the console is empty");
    }
}
