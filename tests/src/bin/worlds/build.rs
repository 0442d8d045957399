//! A world of data becomes one of processes and sockets.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use ucr_tests::{Victim, World, outside, world::hex};

use crate::op::{ARRIVING, Act, Name, Op, Parcel, Slot};

/// The processes of a world, and what became of each operation.
pub(crate) struct Built {
    /// The root first.
    pub(crate) victims: Vec<Victim>,
    /// Whether each took place.
    pub(crate) done: Vec<bool>,
}

/// Carries the operations out, as far as the kernel lets it.
pub(crate) fn build(world: &World, ops: &[Op]) -> Result<Built> {
    let mut root = world.victim();
    let home = home(world, 0);
    fs::create_dir(&home).context("make a folder")?;
    root.ask(&format!("chdir {}", home.display()));
    let mut builder = Builder { world, victims: vec![root], fds: HashMap::new() };
    let done = ops.iter().map(|op| builder.carry_out(op).is_some()).collect();
    Ok(Built { victims: builder.victims, done })
}

fn home(world: &World, who: usize) -> PathBuf {
    world.path(&format!("d{who}"))
}

struct Builder<'a> {
    world: &'a World,
    victims: Vec<Victim>,
    fds: HashMap<(usize, Slot), i32>,
}

impl Builder<'_> {
    fn carry_out(&mut self, op: &Op) -> Option<()> {
        let who = op.who;
        self.victims.get(who)?;
        match &op.act {
            Act::Socket { made, kind, flags } => {
                let fd = self.number(who, &format!("socket {}{flags}", kind.word()))?;
                self.put(who, *made, fd);
            }
            Act::Pair { made: [a, b], kind, flags } => {
                let answer = self.tell(who, &format!("pair {}{flags}", kind.word()))?;
                let (one, other) = answer.split_once(' ')?;
                self.put(who, *a, one.parse().ok()?);
                self.put(who, *b, other.parse().ok()?);
            }
            Act::Child { child } => return self.child(*child),
            Act::Close { slot } => {
                let fd = self.fds.remove(&(who, *slot))?;
                self.tell(who, &format!("close {fd}"))?;
            }
            Act::Accept { slot, made } => {
                let fd = self.fd(who, *slot)?;
                let fd = self.number(who, &format!("gently accept {fd}"))?;
                self.put(who, *made, fd);
            }
            Act::Dup { slot, made, close_on_exec } => {
                let (fd, to) = (self.fd(who, *slot)?, 100 + i32::from(*made));
                let verb = if *close_on_exec { "dupcloexec" } else { "dup" };
                self.tell(who, &format!("{verb} {fd} {to}"))?;
                self.put(who, *made, to);
            }
            Act::Send { slot, parcel } => {
                let order = self.send(who, *slot, parcel)?;
                self.tell(who, &order)?;
            }
            Act::Receive { slot, size, how, made } => {
                return self.receive(who, *slot, *size, how, *made);
            }
            Act::Ids { uid, gid } => self.tell(who, &format!("ids {uid} {gid}")).map(drop)?,
            Act::Unlink { name } => fs::remove_file(self.path(name)?).ok()?,
            Act::Rename { name, to } => {
                fs::rename(self.path(name)?, self.path(&Name::Path(*to))?).ok()?;
            }
            Act::Touch { name } => drop(fs::File::create_new(self.path(name)?).ok()?),
            act => {
                let order = self.simple(who, act)?;
                self.tell(who, &order)?;
            }
        }
        Some(())
    }

    /// What is one order about one descriptor.
    fn simple(&self, who: usize, act: &Act) -> Option<String> {
        Some(match act {
            Act::Bind { slot, name } => {
                format!("bind {} {}", self.fd(who, *slot)?, self.sun_path(who, name)?)
            }
            Act::Autobind { slot } => format!("autobind {}", self.fd(who, *slot)?),
            Act::Listen { slot, backlog } => format!("listen {} {backlog}", self.fd(who, *slot)?),
            Act::Connect { slot, name } => {
                let name = self.sun_path(who, name)?;
                format!("gently connect {} {name}", self.fd(who, *slot)?)
            }
            Act::Disconnect { slot } => format!("disconnect {}", self.fd(who, *slot)?),
            Act::Nonblock { slot } => format!("nonblock {}", self.fd(who, *slot)?),
            Act::Shutdown { slot, how } => format!("shutdown {} {how}", self.fd(who, *slot)?),
            Act::Set { slot, option, value } => {
                format!("setopt {} {option} {}", self.fd(who, *slot)?, hex(value))
            }
            Act::Filter { slot, kept } => format!("filter {} {kept}", self.fd(who, *slot)?),
            Act::Owner { slot, kind, of, signal } => {
                let (fd, pid) = (self.fd(who, *slot)?, self.victims.get(*of)?.pid());
                format!("owner {fd} {kind} {pid} {signal}")
            }
            Act::TakeError { slot } => format!("error {}", self.fd(who, *slot)?),
            _ => return None,
        })
    }

    fn send(&self, who: usize, slot: Slot, parcel: &Parcel) -> Option<String> {
        let mut words = vec![format!("msg send {} fill={}", self.fd(who, slot)?, parcel.bytes)];
        words.extend(parcel.oob.then(|| "oob".to_owned()));
        if !parcel.files.is_empty() {
            let fds = parcel.files.iter().filter_map(|slot| self.fd(who, *slot));
            let fds: Vec<_> = fds.map(|fd| fd.to_string()).collect();
            words.push(format!("fds={}", fds.join(",")));
        }
        if let Some((uid, gid)) = parcel.credentials {
            words.push(format!("creds=1,{uid},{gid}"));
        }
        if let Some(to) = &parcel.to {
            words.push(format!("to={}", self.sun_path(who, to)?));
        }
        Some(words.join(" "))
    }

    fn receive(
        &mut self,
        who: usize,
        slot: Slot,
        size: usize,
        how: &str,
        made: Slot,
    ) -> Option<()> {
        let fd = self.fd(who, slot)?;
        let answer = self.tell(who, format!("msg recv {fd} size={size} {how}").trim_end())?;
        let fds = answer.split(' ').find_map(|word| word.strip_prefix("fds="))?;
        let fds: Vec<i32> = fds.split(',').filter_map(|fd| fd.parse().ok()).collect();
        for (n, fd) in (0..).zip(fds) {
            if n < ARRIVING {
                self.put(who, made + n, fd);
            } else {
                self.tell(who, &format!("close {fd}"))?;
            }
        }
        Some(())
    }

    /// A child of the root, which has all of its sockets that are not close-on-exec.
    fn child(&mut self, number: usize) -> Option<()> {
        if number != self.victims.len() {
            return None;
        }
        let control = self.world.control();
        let mut child = self.victims.first_mut()?.child(&control);
        let home = home(self.world, number);
        fs::create_dir(&home).ok()?;
        child.ask(&format!("chdir {}", home.display()));
        let inherited: Vec<_> = self.fds.iter().filter(|((who, _), _)| *who == 0).collect();
        let inherited = inherited.into_iter();
        let inherited = inherited.filter(|(_, fd)| outside::inode(child.pid(), **fd).is_some());
        let inherited: Vec<_> = inherited.map(|((_, slot), fd)| ((number, *slot), *fd)).collect();
        self.fds.extend(inherited);
        self.victims.push(child);
        Some(())
    }

    fn put(&mut self, who: usize, slot: Slot, fd: i32) {
        self.fds.insert((who, slot), fd);
    }

    fn fd(&self, who: usize, slot: Slot) -> Option<i32> {
        self.fds.get(&(who, slot)).copied()
    }

    fn tell(&mut self, who: usize, order: &str) -> Option<String> {
        self.victims.get_mut(who)?.tell(order).ok()
    }

    fn number(&mut self, who: usize, order: &str) -> Option<i32> {
        self.tell(who, order)?.parse().ok()
    }

    fn path(&self, name: &Name) -> Option<PathBuf> {
        match name {
            Name::Abstract(_) => None,
            Name::Path(n) => Some(self.world.path(&format!("s{n}"))),
            Name::Relative(of, n) => Some(home(self.world, *of).join(format!("r{n}"))),
        }
    }

    /// As this process has to spell it, in hexadecimal digits.
    fn sun_path(&self, who: usize, name: &Name) -> Option<String> {
        let bytes = match name {
            Name::Abstract(rest) => {
                let mut name = self.world.abstract_name(rest);
                name.truncate(108);
                name
            }
            Name::Relative(of, n) if *of == who => format!("r{n}").into_bytes(),
            name => path_bytes(&self.path(name)?),
        };
        Some(hex(&bytes))
    }
}

fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}
