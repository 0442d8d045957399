//! `ucr daemon`, running with a configuration of its own; and who else follows events.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

use super::stage::{Stage, until};
use crate::leftovers::{Pins, Process};

/// A program that follows events. It ends when this is dropped, and tracing with it.
#[derive(Debug)]
pub(super) struct Follower {
    // Goes before its tracing does.
    process: Process,
    complaints: File,
    pub(super) pins: Pins,
}

impl Follower {
    /// Starts the daemon, and waits until it answers.
    pub(super) fn daemon(stage: &Stage, name: &str) -> Result<Self> {
        let pins = stage.pins(name);
        let folder = stage.new_folder(name)?;
        let (socket, config) = (folder.join("control.sock"), folder.join("ucr.toml"));
        // Paths without quotes: the folder's name is ours.
        let text = format!(
            "[control]\nsocket = '{}'\n\n[tracing]\npin_dir = '{}'\n\n[history]\nfile = '{}'\n",
            socket.display(),
            pins.path().display(),
            folder.join("history.db").display(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let config = config.display().to_string();
        let mut follower =
            Self::start(stage, pins, &["daemon", "--config", &config], &folder.join("complaints"))?;
        until("the daemon to answer", || {
            follower.has_to_live()?;
            let answers = UnixStream::connect(&socket).is_ok();
            Ok((answers && stage.status(&follower.pins).is_ok()).then_some(()))
        })?;
        Ok(follower)
    }

    /// Starts `ucr trace` on tracing that is attached for it, and waits until it follows.
    pub(super) fn trace(stage: &Stage, name: &str) -> Result<Self> {
        let pins = stage.pins(name);
        stage.attach(&pins)?;
        let complaints = stage.new_folder(name)?.join("complaints");
        let mut follower = Self::start(stage, pins, &["trace", "--json"], &complaints)?;
        until("ucr trace to follow", || {
            follower.has_to_live()?;
            let status = stage.status(&follower.pins)?;
            Ok(status.get("follower").filter(|pid| pid.is_number()).map(drop))
        })?;
        Ok(follower)
    }

    fn start(stage: &Stage, pins: Pins, arguments: &[&str], complaints: &Path) -> Result<Self> {
        let create = || File::create(complaints);
        let created = create().with_context(|| format!("create {}", complaints.display()))?;
        let mut command = stage.ucr(&pins, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(created);
        let process = Process::start(&mut command)?;
        let complaints = File::open(complaints).context("open what it complains of")?;
        Ok(Self { process, complaints, pins })
    }

    /// Fails with what it said if it has ended.
    fn has_to_live(&mut self) -> Result<()> {
        let ended = self.process.child().try_wait().context("wait for ucr")?;
        let Some(status) = ended else { return Ok(()) };
        let mut said = String::new();
        self.complaints.read_to_string(&mut said).context("read what ucr said")?;
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing said");
        bail!("ended with {status}: {first}")
    }

    /// How long it has run on a processor, in its own code and in the kernel (`utime` and `stime` of
    /// `proc_pid_stat(5)`).
    pub(super) fn cpu(&mut self) -> Result<Duration> {
        self.has_to_live()?;
        let path = format!("/proc/{}/stat", self.process.child().id());
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ticks = ticks_of(&stat).with_context(|| format!("understand {path}"))?;
        let second = sysconf(SysconfVar::CLK_TCK).context("ask how long a tick is")?;
        let second = u32::try_from(second.context("a tick has no length")?)?;
        Ok(Duration::from_secs(ticks) / second)
    }

    /// What it has of memory that is its own and present (`VmRSS` of `proc_pid_status(5)`), in bytes.
    pub(super) fn memory(&mut self) -> Result<u64> {
        self.has_to_live()?;
        let path = format!("/proc/{}/status", self.process.child().id());
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("find VmRSS in {path}"))? * 1024)
    }
}

/// `utime` and `stime`: the 14th and 15th field, where the second one is a name in brackets that may have
/// anything in it.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_counted_from_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 40 2 5 6 20 0 1 0 100 8 9";
        assert_eq!(ticks_of(stat), Some(42));
        assert_eq!(ticks_of("7 (a) S 1 7"), None);
        assert_eq!(ticks_of("nothing"), None);
    }
}
