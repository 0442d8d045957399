//! Where it was measured: figures without that mean nothing.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// This machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    memory_mib: u64,
    /// Of the last minute, before anything was measured.
    load: String,
    /// Unix sockets of our network namespace that others have.
    sockets: usize,
}

impl Machine {
    /// As it is now.
    pub(super) fn look() -> Result<Self> {
        let name = nix::sys::utsname::uname().context("ask for the kernel's name")?;
        let read =
            |path: &'static str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpus = read("/proc/cpuinfo")?;
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        let processor = fields.find(|(name, _)| name.trim() == "model name");
        let memory = read("/proc/meminfo")?;
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Self {
            kernel: name.release().display().to_string(),
            processor: processor.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            processors: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: kib.unwrap_or(0) / 1024,
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or("?").to_owned(),
            sockets: read("/proc/net/unix")?.lines().count().saturating_sub(1),
        })
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        format!(
            "{} x {}, {} MiB, kernel {}, load {}, {} unix sockets of others",
            self.processors, self.processor, self.memory_mib, self.kernel, self.load, self.sockets
        )
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "memory_mib": self.memory_mib,
            "load_before": self.load,
            "sockets_of_others": self.sockets,
        })
    }
}
