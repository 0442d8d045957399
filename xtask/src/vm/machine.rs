//! A machine: QEMU, and virtiofsd, which gives it the host's root.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Seek as _},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use anyhow::{Context, Result};

use super::{
    Job,
    cache::Files,
    child::{self, Access},
    guest,
};
use crate::{
    commands,
    leftovers::{Folder, Process},
};

/// A line that came out of a machine, with its end.
pub(super) enum Line {
    /// Of the command.
    Output(Vec<u8>),
    /// Of the kernel, or of QEMU.
    Console(Vec<u8>),
}

/// A machine that runs. It is off once this is dropped.
pub(super) struct Machine {
    qemu: Process,
    share: Process,
    /// What virtiofsd complains of.
    complaints: File,
    /// Everything that comes out; it ends when QEMU does.
    pub(super) lines: Receiver<Line>,
    /// Needed until the guest has started.
    folder: Option<Folder>,
}

/// Where distributions keep virtiofsd, which is not in `PATH`. QEMU's own, that is: the one that
/// succeeded it has other options.
const VIRTIOFSD: &str = "usr/lib/qemu/virtiofsd";

/// Where Debian has the firmware. A folder that is not there does no harm.
const FIRMWARE: &str = "/usr/share/seabios";

/// Quiet but for warnings. A panic ends the machine; a kernel that believes the clocks that QEMU gives
/// it boots a second sooner.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 tsc=reliable no_timer_check";

/// The program that gives a guest the host's root, if it is there.
pub(crate) fn virtiofsd() -> Option<PathBuf> {
    let roots = [PathBuf::from("/"), commands::unpacked_qemu()];
    roots.iter().map(|root| root.join(VIRTIOFSD)).find(|path| path.is_file())
}

/// The program that is a machine, if it is there. It finds what belongs to it beside itself.
pub(crate) fn qemu() -> Option<PathBuf> {
    let name = "qemu-system-x86_64";
    let unpacked = commands::unpacked_qemu().join("usr/bin").join(name);
    commands::in_path(name).or_else(|| Some(unpacked).filter(|path| path.is_file()))
}

impl Machine {
    /// Switches one on.
    pub(super) fn start(files: &Files, job: &Job, token: &str) -> Result<Self> {
        let folder = Folder::new("ucr-vm-")?;
        let initramfs = folder.path().join("initramfs");
        fs::write(&initramfs, guest::initramfs(files, job, token)?)
            .with_context(|| format!("write {}", initramfs.display()))?;
        let socket = folder.path().join("share");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listen at {}", socket.display()))?;
        let complaints = tempfile::tempfile().context("make a temporary file")?;
        let log = complaints.try_clone().context("duplicate a descriptor")?;

        // The listener is its standard input: nobody else gets it, and QEMU need not wait for it.
        let mut share = child::command(Access::ReadOnly, &share()?);
        share.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log);
        let share = Process::start(&mut share)?;
        let mut qemu = child::command(Access::Ours, &machine(files, job, &initramfs, &socket)?);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Process::start(&mut qemu)?;

        let (send, lines) = channel();
        let child = qemu.child();
        let output = child.stdout.take().context("QEMU's output is a pipe")?;
        let console = child.stderr.take().context("QEMU's complaints are a pipe")?;
        read(output, Line::Output, send.clone());
        read(console, Line::Console, send);
        Ok(Self { qemu, share, complaints, lines, folder: Some(folder) })
    }

    /// Removes what only starting takes.
    pub(super) fn has_started(&mut self) {
        self.folder = None;
    }

    /// Switches it off.
    pub(super) fn kill(&self) {
        self.qemu.kill();
        self.share.kill();
    }

    /// What virtiofsd complained of.
    pub(super) fn complaints(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = self.complaints.rewind().and_then(|()| self.complaints.read_to_end(&mut bytes));
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) => format!("what virtiofsd said cannot be read: {error}"),
        }
    }
}

fn share() -> Result<Command> {
    let program = virtiofsd().context("find virtiofsd: install qemu-system-common")?;
    let mut share = Command::new(program);
    // Caching is safe: who changes a file that a guest uses has asked for trouble.
    share.args(["--fd=0", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    share.args(["-o", "announce_submounts", "-o", "no_posix_lock", "-o", "log_level=warn"]);
    Ok(share)
}

fn machine(files: &Files, job: &Job, initramfs: &Path, socket: &Path) -> Result<Command> {
    let memory = format!("{}M", job.memory);
    let program = qemu().context("find qemu-system-x86_64: install qemu-system-x86")?;
    let mut qemu = Command::new(program);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-no-reboot"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    // It is installed also where QEMU is unpacked, which would look for it beside itself only.
    qemu.args(["-L", FIRMWARE]);
    qemu.args(["-M", "q35,memory-backend=memory", "-smp", &job.cpus.to_string(), "-m", &memory]);
    qemu.args(["-object", &format!("memory-backend-memfd,id=memory,size={memory},share=on")]);
    for (name, file) in [("console", "/proc/self/fd/2"), ("output", "/proc/self/fd/1")] {
        qemu.args(["-chardev", &format!("file,id={name},path={file}")]);
        qemu.args(["-serial", &format!("chardev:{name}")]);
    }
    qemu.args(["-chardev", &format!("socket,id=share,path={}", socket.display())]);
    qemu.args(["-device", "vhost-user-fs-pci,chardev=share,tag=root"]);
    qemu.arg("-kernel").arg(files.image()).arg("-initrd").arg(initramfs);
    qemu.args(["-append", KERNEL_ARGUMENTS]);
    Ok(qemu)
}

/// Lets a thread send every line of a pipe, to its end.
fn read(pipe: impl Read + Send + 'static, line: fn(Vec<u8>) -> Line, send: Sender<Line>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        loop {
            let mut bytes = Vec::new();
            let length = pipe.read_until(b'\n', &mut bytes);
            if !length.is_ok_and(|length| length > 0) || send.send(line(bytes)).is_err() {
                return;
            }
        }
    });
}
