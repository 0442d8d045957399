//! A victim for system calls that a safe program cannot make: a perl that is given its code line by
//! line. What one line assigns, the next ones find.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::AsFd as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use crate::wait;

/// Evaluates a line in list context and answers with one line.
const LOOP: &str = r#"$| = 1; use Socket;
    while (my $line = <STDIN>) { my @r = eval $line; print $@ ? "error $@" : "ok @r", "\n"; }"#;

/// A perl. It is killed when this is dropped.
#[derive(Debug)]
pub struct Perl {
    child: Child,
    code: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Perl {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Perl {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no perl.
    #[must_use]
    pub fn start() -> Self {
        let mut command = Command::new("perl");
        command.args(["-e", LOOP]);
        Self::of(command)
    }

    /// Has a command start one that takes a program and its arguments, as `ucr restore FILE --` does.
    ///
    /// # Panics
    /// When that command cannot be started.
    #[must_use]
    pub fn by(mut command: Command) -> Self {
        command.args(["perl", "-e", LOOP]);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start perl");
        let code = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        // Part of the output of the test: written past it, it would stand amid the results.
        let said = BufReader::new(child.stderr.take().expect("its standard error"));
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self { child, code, answers }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// Gives it a line; who does not ask for the answer gets it with the next one.
    ///
    /// # Panics
    /// When it is gone.
    pub fn tell(&mut self, line: &str) {
        self.code.write_all(format!("{line}\n").as_bytes()).expect("write to perl");
    }

    /// The value of a line of code; of a list, its elements with blanks between them.
    ///
    /// # Panics
    /// When it is no good.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// What comes of a line that it was told.
    ///
    /// # Panics
    /// When it is no good.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        // A line is written at once: what is not there is not begun.
        let is_there = !self.answers.buffer().is_empty()
            || wait::readable(self.answers.get_ref().as_fd(), wait::patience());
        assert!(is_there, "perl does not answer");
        self.answers.read_line(&mut answer).expect("read from perl");
        let value = answer.trim_end().strip_prefix("ok");
        value.unwrap_or_else(|| panic!("perl: {answer}")).trim_start().to_owned()
    }

    /// The same, as a number.
    ///
    /// # Panics
    /// When it is none.
    pub fn number(&mut self, line: &str) -> i32 {
        let answer = self.ask(line);
        answer.parse().unwrap_or_else(|_| panic!("`{line}`: {answer}"))
    }

    /// Makes a system call by its number, with arguments as perl takes them; the error is the errno.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Panics
    /// When the code is no good.
    pub fn call(&mut self, number: i64, arguments: &str) -> Result<i32, i32> {
        let result =
            self.number(&format!("my $r = syscall({number}, {arguments}); $r < 0 ? 0 - $! : $r"));
        if result < 0 { Err(-result) } else { Ok(result) }
    }

    /// A pair of stream sockets.
    pub fn pair(&mut self) -> (i32, i32) {
        let made = "socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, 0); push @kept, $x, $y; fileno";
        let a = self.number(&format!("{made} $x"));
        let b = self.number("fileno $kept[-1]");
        (a, b)
    }
}
