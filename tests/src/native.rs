//! Victims in C, for doors into the kernel that a safe program cannot use: io_uring, and the 32-bit
//! entry. They are compiled when a test needs them.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{World, wait};

/// Bytes of memory that a 32-bit victim has for what arguments point to.
const MEMORY: usize = 256;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("victims").join(name)
}

/// Compiles a victim into the folder of a test.
fn compiled(world: &World, name: &str, options: &[&str]) -> Result<PathBuf, String> {
    let program = world.path(name).with_extension("victim");
    if program.exists() {
        return Ok(program);
    }
    let mut compiler = Command::new("cc");
    compiler.args(options).arg("-o").arg(&program).arg(source(name));
    let output = compiler.output().expect("start cc");
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(program) } else { Err(said()) }
}

/// A child that is told on its standard input what to do, and answers on its standard output.
#[derive(Debug)]
struct Told {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Told {
    fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        Ok(Self { child, orders, answers })
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    fn end(mut self) {
        self.child.kill().expect("kill a victim");
        wait::for_end(&mut self.child);
    }
}

/// A victim that goes through io_uring. Its orders are in `victims/uring.c`.
#[derive(Debug)]
pub struct Uring(Told);

/// A number, or an errno.
pub type Outcome = Result<i32, i32>;

impl Uring {
    /// Starts one, with who is to do the work: `plain`, `async` or `poll`.
    ///
    /// # Errors
    /// Why there is no io_uring.
    ///
    /// # Panics
    /// When it cannot be compiled.
    pub fn start(world: &World, mode: &str) -> Result<Self, String> {
        let program = compiled(world, "uring.c", &["-O1", "-Wall", "-Wextra"]);
        let mut command = Command::new(program.unwrap_or_else(|said| panic!("{said}")));
        command.arg(mode);
        let mut uring = Self(Told::start(command).expect("start a victim"));
        match uring.answer() {
            Ok(_) => Ok(uring),
            Err(errno) => {
                let errno = nix::errno::Errno::from_raw(errno);
                Err(format!("io_uring is refused ({errno:?})"))
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn answer(&mut self) -> Outcome {
        let mut line = String::new();
        self.0.answers.read_line(&mut line).expect("read from a victim");
        let number = |text: &str| text.trim_end().parse().expect("a number");
        match line.split_once(' ') {
            Some(("ok", result)) => Ok(number(result)),
            Some(("err", errno)) => Err(number(errno)),
            _ => panic!("no answer: {line}"),
        }
    }

    /// Gives an order; the error is the errno.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Panics
    /// When it is gone.
    pub fn tell(&mut self, order: &str) -> Outcome {
        writeln!(self.0.orders, "{order}").expect("write to a victim");
        self.answer()
    }

    /// Gives an order that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ask(&mut self, order: &str) -> i32 {
        self.tell(order).unwrap_or_else(|errno| panic!("`{order}`: errno {errno}"))
    }

    /// Kills it and waits for its end.
    pub fn end(self) {
        self.0.end();
    }
}

/// A victim that makes system calls by the 32-bit entry.
#[derive(Debug)]
pub struct I386 {
    told: Told,
    memory: u32,
}

impl I386 {
    /// Starts one.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn start(world: &World) -> Result<Self, String> {
        let options = ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie"];
        let more = ["-fno-stack-protector", "-O1", "-Wall", "-Wextra"];
        let program = compiled(world, "i386.c", &[&options[..], &more].concat())
            .map_err(|said| format!("cc makes no 32-bit programs: {said}"))?;
        let mut told = Told::start(Command::new(program))
            .map_err(|error| format!("the kernel runs no 32-bit programs ({error})"))?;
        let mut memory = [0; 4];
        told.answers
            .read_exact(&mut memory)
            .map_err(|error| format!("the kernel has no 32-bit system calls ({error})"))?;
        Ok(Self { told, memory: u32::from_ne_bytes(memory) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.told.pid()
    }

    /// An address in its memory.
    #[must_use]
    pub fn address(&self, offset: u32) -> u32 {
        self.memory + offset
    }

    /// Makes a system call with `memory` in its memory; the result, and what its memory holds then.
    ///
    /// # Panics
    /// When it is gone.
    pub fn call(&mut self, number: u32, arguments: &[u32], memory: &[u8]) -> (Outcome, Vec<u8>) {
        let mut order = number.to_ne_bytes().to_vec();
        for at in 0..5 {
            order.extend(arguments.get(at).copied().unwrap_or(0).to_ne_bytes());
        }
        order.extend(memory);
        order.resize(6 * size_of::<u32>() + MEMORY, 0);
        self.told.orders.write_all(&order).expect("write to a victim");
        let (mut result, mut memory) = ([0; 4], vec![0; MEMORY]);
        let read = self.told.answers.read_exact(&mut result);
        read.and_then(|()| self.told.answers.read_exact(&mut memory)).expect("read from a victim");
        let result = i32::from_ne_bytes(result);
        (if result < 0 { Err(-result) } else { Ok(result) }, memory)
    }

    /// Kills it and waits for its end.
    pub fn end(self) {
        self.told.end();
    }
}
