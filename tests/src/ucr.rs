//! Running `ucr`, each test with a pin directory of its own; or, where attaching takes long, with one
//! that is attached already.

use std::{
    cell::OnceCell,
    env,
    ffi::OsStr,
    fs::File,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::Value;
use ucr::tracer::{hooks::Backend, pins::PinDirectory, session, store::Store};
use ucr_common::record::Record;

use crate::{Follower, wait};

/// User and group `nobody` of Debian.
pub const NOBODY: u32 = 65_534;

/// Done.
pub const DONE: i32 = 0;
/// Failed.
pub const FAILED: i32 = 1;
/// The command line makes no sense.
pub const USAGE: i32 = 2;
/// Refused: obstacles, or a conflict under `--verify strict`.
pub const REFUSED: i32 = 3;

/// A pin directory, and `ucr` made to use it. Detaches at the end.
#[derive(Debug)]
pub struct Ucr {
    own: PathBuf,
    /// In place of its own.
    shared: OnceCell<PathBuf>,
    backend: Option<Backend>,
    /// Whether it hangs programs on interfaces as on kernels before 6.6.
    has_filters: bool,
}

/// Held while a shared tracer may be attached, which only one test must do.
static ATTACHING: Mutex<()> = Mutex::new(());

impl Default for Ucr {
    fn default() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = format!("/sys/fs/bpf/ucr-test-{}-{count}", std::process::id());
        Self::at(pins.into())
    }
}

impl Drop for Ucr {
    fn drop(&mut self) {
        if self.shared.get().is_none() && self.own.exists() {
            let detached = session::detach(&PinDirectory::new(self.own.clone()));
            if let Err(error) = detached {
                eprintln!("left behind: {}: {error}", self.own.display());
            }
        }
    }
}

/// A program that anybody may run, also where its folders are not for everybody (a clone in root's
/// home): by a descriptor that is open already.
#[derive(Debug)]
pub struct OpenProgram(File);

impl OpenProgram {
    /// Opens it.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        let file = File::open(program).expect("open a program");
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("keep it open on exec");
        Self(file)
    }

    /// A command that runs it, as long as this is open.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Ucr {
    /// With this pin directory.
    #[must_use]
    pub fn at(pins: PathBuf) -> Self {
        Self { own: pins, shared: OnceCell::new(), backend: None, has_filters: false }
    }

    /// The pin directory; whether it is there depends on `ucr attach`.
    #[must_use]
    pub fn pins(&self) -> &Path {
        self.shared.get().unwrap_or(&self.own)
    }

    /// What no other one is called.
    pub(crate) fn name(&self) -> &OsStr {
        self.own.file_name().unwrap_or_default()
    }

    /// The backend that it sticks to.
    pub(crate) fn backend_wanted(&self) -> Option<Backend> {
        self.backend
    }

    /// From now on it hangs filters on interfaces, also where the kernel has links for that.
    pub fn force_filters(&mut self) {
        self.has_filters = true;
    }

    /// A command, ready to be run.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(program());
        command.env("UCR_PIN_DIR", self.pins()).env_remove("UCR_CLOEXEC_FDS");
        if let Some(backend) = self.backend {
            command.env("UCR_BACKEND", backend.name());
        }
        if self.has_filters {
            command.env("UCR_LOCK_EARLY", "tc");
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `ucr` to its end.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Answer {
        Started::new(self.command(arguments)).finish()
    }

    /// Runs it as `nobody`.
    #[must_use]
    pub fn run_as_nobody<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Answer {
        let open = OpenProgram::new(program());
        let mut command = open.command();
        command.env("UCR_PIN_DIR", self.pins()).args(arguments).stdin(Stdio::null());
        command.uid(NOBODY).gid(NOBODY);
        Started::new(command).finish()
    }

    /// Starts `ucr` and lets it run.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Started {
        Started::new(self.command(arguments))
    }

    /// Attaches tracing.
    ///
    /// # Panics
    /// When that fails.
    pub fn attach(&self) {
        self.run(&["attach"]).done();
    }

    /// Attaches tracing with a certain backend, and sticks to it, whatever the environment says.
    ///
    /// # Panics
    /// When that fails.
    pub fn attach_as(&mut self, backend: Backend) {
        self.attach_with(backend, &[]);
    }

    /// The same with more options.
    ///
    /// # Panics
    /// When that fails.
    pub fn attach_with(&mut self, backend: Backend, options: &[&str]) {
        self.backend = Some(backend);
        self.run(&[&["attach", "--backend", backend.name()], options].concat()).done();
    }

    /// Sees to it that tracing is attached, for a test to which it does not matter since when and
    /// whether another test had it before. `UCR_SHARED` makes such tests share it; nobody detaches it.
    ///
    /// # Panics
    /// When that fails.
    pub fn watch(&self) {
        let Some(folder) = env::var_os("UCR_SHARED") else { return self.attach() };
        let _others_wait = ATTACHING.lock().unwrap_or_else(PoisonError::into_inner);
        let forced = env::var("UCR_BACKEND");
        let backend = self.backend.map(Backend::name).or(forced.as_deref().ok());
        let name = format!("ucr-shared-{}", backend.unwrap_or("best"));
        let pins = Path::new(&folder).join(name);
        self.shared.set(pins.clone()).expect("watched once");
        if !pins.exists() {
            self.attach();
        }
    }

    /// Uses what somebody else has attached there, and will detach.
    ///
    /// # Panics
    /// When it uses another one already.
    pub fn share(&self, pins: PathBuf) {
        self.shared.set(pins).expect("shared once");
    }

    /// The same with a certain backend.
    ///
    /// # Panics
    /// When that fails.
    pub fn watch_as(&mut self, backend: Backend) {
        self.backend = Some(backend);
        self.watch();
    }

    /// The backend that is attached.
    ///
    /// # Panics
    /// When none is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        let status = self.run(&["status", "--json"]).done().json();
        let name = status.get("backend").and_then(Value::as_str);
        let known = Backend::ALL.into_iter().find(|backend| Some(backend.name()) == name);
        known.expect("a backend that is known")
    }

    /// Follows events as JSON from the moment this returns.
    #[must_use]
    pub fn follow(&self, filters: &[&str]) -> Follower {
        Follower::start(self.command(&[&["trace", "--json"], filters].concat()))
    }

    /// The pinned ledger.
    ///
    /// # Panics
    /// When nothing is attached.
    #[must_use]
    pub fn ledger(&self) -> Store {
        session::open(&PinDirectory::new(self.pins().to_owned())).expect("open the pinned ledger")
    }

    /// What the ledger holds of the socket with this inode.
    ///
    /// # Panics
    /// When nothing is attached.
    #[must_use]
    pub fn record(&self, inode: u32) -> Option<Record> {
        let records = self.ledger().records().expect("read the ledger");
        records.into_iter().find(|record| record.socket.inode == u64::from(inode))
    }

    /// Puts something wrong into the ledger.
    ///
    /// # Panics
    /// When the socket is not there.
    pub fn falsify(&self, inode: u32, change: impl FnOnce(&mut Record)) {
        let mut record = self.record(inode).expect("a record to falsify");
        change(&mut record);
        self.ledger().put(&record).expect("write to the ledger");
    }
}

/// The `ucr` to be tested: from the environment, or built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = env::var_os("UCR_BIN") {
            return program.into();
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--package", "ucr-userspace"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "ucr could not be built");
        // Tests lie in a folder below that of the programs.
        let own = env::current_exe().expect("find out where the test is");
        let mut folders = own.ancestors().skip(1);
        let folder = folders.find(|folder| !folder.ends_with("deps"));
        folder.expect("the folder of the programs").join("ucr")
    })
}

/// `ucr`, running.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Started {
    /// By a whole command that becomes `ucr`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn new(mut command: Command) -> Self {
        // Files, not pipes: nobody has to read them while it runs.
        let file = || tempfile::tempfile().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        let copy = |file: &File| file.try_clone().expect("duplicate a descriptor");
        command.stdout(copy(&stdout)).stderr(copy(&stderr));
        let child = command.spawn().expect("start ucr");
        Self { child, stdout, stderr }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// The process itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it has written to standard error so far.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn complaint(&self) -> String {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.stderr));
        std::fs::read_to_string(path).expect("read what ucr wrote")
    }

    /// Waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Answer {
        let status = wait::for_end(&mut self.child);
        Answer {
            code: status.code(),
            stdout: wait::content(self.stdout),
            stderr: wait::content(self.stderr),
        }
    }
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Expects a certain exit code.
    ///
    /// # Panics
    /// When it is another.
    #[must_use]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Expects success.
    pub fn done(self) -> Self {
        self.ended(DONE)
    }

    /// Expects words on standard error.
    ///
    /// # Panics
    /// When they are not there.
    pub fn complains(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "no `{words}` in: {}", self.stderr);
        self
    }

    /// Standard output as one JSON value.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}
