//! Other hosts, as far as one machine can have them: network namespaces with cables between them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `ip` in the network namespace of this thread.
///
/// # Panics
/// When it fails.
pub fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdin(Stdio::null());
    assert!(command.status().expect("run ip").success(), "ip {arguments}");
}

/// A network namespace. It is gone when nobody is in it and this is dropped.
#[derive(Debug)]
pub struct Host(File);

/// Has the kernel choose other ports in this network namespace than in those that other stories have at the same time:
/// two connections with the same addresses and ports would be locked as one.
fn own_ports() {
    const EACH: usize = 1000;
    const FIRST: usize = 10_000;
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let first = FIRST + MADE.fetch_add(1, Ordering::Relaxed) % 50 * EACH;
    let range = format!("{first} {}", first + EACH - 1);
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).expect("choose a range of ports");
}

impl Host {
    /// A new one with nothing but loopback.
    ///
    /// # Panics
    /// When there is none to be had.
    #[must_use]
    pub fn new() -> Self {
        let before = Self::here();
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        own_ports();
        let new = Self::here();
        before.enter();
        new
    }

    /// Two of them with a cable in between: `near` of the first with 10.99.0.1 and fd99::1, `far` of the second with
    /// 10.99.0.2 and fd99::2.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (near, far) = (Self::new(), Self::new());
        near.cable("near", &far, "far");
        near.address("near", 1);
        far.address("far", 2);
        (near, far)
    }

    fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("the network namespace"))
    }

    /// Has this thread, and whatever it starts from now on, live there.
    ///
    /// # Panics
    /// When that fails.
    pub fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
    }

    /// Does something there. Processes that are started and sockets that are made by it stay there.
    ///
    /// # Panics
    /// When the thread cannot go there, or back.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = Self::here();
        self.enter();
        let done = work();
        before.enter();
        done
    }

    /// Lays a cable from an interface of a new name to another one elsewhere.
    ///
    /// # Panics
    /// When that fails.
    pub fn cable(&self, name: &str, other: &Self, there: &str) {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.within(|| {
            ip(&format!("link add {name} type veth peer name {there} netns {namespace}"));
        });
    }

    /// Gives an interface the addresses that end with a number, and switches it on.
    ///
    /// # Panics
    /// When that fails.
    pub fn address(&self, name: &str, number: u8) {
        self.within(|| {
            ip(&format!("addr add 10.99.0.{number}/24 dev {name}"));
            ip(&format!("addr add fd99::{number}/64 dev {name} nodad"));
            ip(&format!("link set {name} up"));
        });
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Two hosts, of which one takes the other's place, a third one, and a switch between them.
#[derive(Debug)]
pub struct Removal {
    /// Has the first address of [`Host::pair`] on its interface `near`.
    pub old: Host,
    /// Will have it, with the same hardware address.
    pub new: Host,
    /// Has the second address on its interface `far`.
    pub far: Host,
    switch: Host,
}

impl Default for Removal {
    fn default() -> Self {
        Self::new()
    }
}

impl Removal {
    /// All of them, with cables to the switch, of which that of the new host is not plugged in.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        let [old, new, far, switch] = [(); 4].map(|()| Host::new());
        switch.within(|| {
            ip("link add switch type bridge");
            ip("link set switch up");
        });
        for (host, name, there) in
            [(&old, "near", "port-old"), (&new, "near", "port-new"), (&far, "far", "port-far")]
        {
            host.cable(name, &switch, there);
            switch.within(|| ip(&format!("link set {there} up")));
        }
        for host in [&old, &new] {
            // The neighbours need not learn another one.
            host.within(|| ip("link set near address 02:00:00:00:00:01"));
        }
        old.address("near", 1);
        far.address("far", 2);
        let removal = Self { old, new, far, switch };
        removal.port("port-old", true);
        removal.port("port-far", true);
        removal
    }

    /// Takes the old host off the switch, and its address to the new one.
    ///
    /// # Panics
    /// When that fails.
    pub fn unplug_old(&self) {
        self.port("port-old", false);
        self.old.within(|| ip("addr flush dev near"));
        self.new.address("near", 1);
    }

    /// Plugs in the new host. Not before its sockets are there: else it answers that nobody is.
    ///
    /// # Panics
    /// When that fails.
    pub fn plug_new(&self) {
        self.port("port-new", true);
    }

    fn port(&self, name: &str, is_plugged: bool) {
        let master = if is_plugged { "master switch" } else { "nomaster" };
        self.switch.within(|| ip(&format!("link set {name} {master}")));
    }
}

/// Where a story takes place whose second part is on the host of the first one, or on another one that takes its place.
#[derive(Debug)]
pub enum Stage {
    /// One host, and the other end's.
    Here {
        /// Has the first address of [`Host::pair`].
        near: Host,
        /// Has the second one.
        far: Host,
    },
    /// With another host for the second part.
    Moved(Removal),
}

impl Stage {
    /// All on one host.
    ///
    /// # Panics
    /// As [`Host::pair`].
    #[must_use]
    pub fn here() -> Self {
        let (near, far) = Host::pair();
        Self::Here { near, far }
    }

    /// The second part on another one.
    ///
    /// # Panics
    /// As [`Removal::new`].
    #[must_use]
    pub fn moved() -> Self {
        Self::Moved(Removal::new())
    }

    /// That of the first part.
    #[must_use]
    pub fn first(&self) -> &Host {
        match self {
            Self::Here { near, .. } => near,
            Self::Moved(removal) => &removal.old,
        }
    }

    /// That of the second part.
    #[must_use]
    pub fn second(&self) -> &Host {
        match self {
            Self::Here { near, .. } => near,
            Self::Moved(removal) => &removal.new,
        }
    }

    /// That of the other end.
    #[must_use]
    pub fn far(&self) -> &Host {
        match self {
            Self::Here { far, .. } => far,
            Self::Moved(removal) => &removal.far,
        }
    }

    /// Between the parts: the first host is not there any more.
    ///
    /// # Panics
    /// As [`Removal::unplug_old`].
    pub fn unplug(&self) {
        if let Self::Moved(removal) = self {
            removal.unplug_old();
        }
    }

    /// When all is there that packets could come for.
    ///
    /// # Panics
    /// As [`Removal::plug_new`].
    pub fn plug(&self) {
        if let Self::Moved(removal) = self {
            removal.plug_new();
        }
    }
}
