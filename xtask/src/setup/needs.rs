//! What set-up knows how to get.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{linker_works, llvm_library, toolchain};
use crate::{commands, vm};

/// Something that a package brings.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) what: &'static str,
    pub(super) packages: &'static [&'static str],
    /// How to get it where there is no apt.
    pub(super) elsewhere: &'static str,
    pub(super) is_met: fn() -> bool,
}

/// To build and to test.
///
/// `gcc` comes along with `rustc-web`, `libllvm22` as well: they are named for systems that have a
/// compiler for eBPF already.
pub(super) const BUILDING: [Need; 9] = [
    Need {
        what: "a C compiler, to link with",
        packages: &["gcc", "libc6-dev"],
        elsewhere: "install gcc or clang",
        is_met: || commands::is_in_path("cc"),
    },
    Need {
        what: "a Rust compiler for eBPF",
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        elsewhere: "rustup toolchain install 1.95.0 --component rust-src",
        is_met: || toolchain::compiler().is_ok(),
    },
    Need {
        what: "LLVM 22, for bpf-linker",
        packages: &["libllvm22"],
        elsewhere: "install LLVM 22 with its shared library; LLVM_PREFIX names its folder if it \
                    is not /usr",
        is_met: || linker_works() || llvm_library().is_some(),
    },
    // Not the package redis-server, which would also start one. The program is the same file.
    Need {
        what: "redis-server, a program to trace",
        packages: &["redis-tools"],
        elsewhere: "install Redis, so that redis-server is in PATH",
        is_met: || commands::is_in_path("redis-server") || Path::new(REDIS_PROGRAM).is_file(),
    },
    // Debian's essential perl-base has no threads.
    Need {
        what: "perl with threads, for programs of the tests that do odd things",
        packages: &["perl"],
        elsewhere: "install perl, built with threads",
        is_met: perl_has_threads,
    },
    Need {
        what: "ip, to make other hosts of network namespaces",
        packages: &["iproute2"],
        elsewhere: "install iproute2",
        is_met: || commands::is_in_path("ip"),
    },
    Need {
        what: "curl, a program to dump in the middle of a download",
        packages: &["curl"],
        elsewhere: "install curl",
        is_met: || commands::is_in_path("curl"),
    },
    Need {
        what: "Debian's Python, for servers and clients that know how to go on",
        packages: &["python3"],
        elsewhere: "install Python 3 as /usr/bin/python3",
        is_met: || Path::new("/usr/bin/python3").is_file(),
    },
    Need {
        what: "ssh-agent, a program whose sockets are replaced",
        packages: &["openssh-client"],
        elsewhere: "install OpenSSH's ssh-agent, ssh-add and ssh-keygen",
        is_met: || ["ssh-agent", "ssh-add", "ssh-keygen"].into_iter().all(commands::is_in_path),
    },
];

/// Installed, it would serve port 80 from then on: it is unpacked into `.tools/`. The libraries that it takes come with
/// curl and with what is essential.
pub(super) const NGINX: Need = Need {
    what: "nginx, a server to download from",
    packages: &["nginx"],
    elsewhere: "install nginx",
    is_met: || commands::is_in_path("nginx"),
};

/// To boot other kernels.
pub(super) const VMS: [Need; 4] = [
    Need {
        what: "QEMU with its virtiofsd, to boot other kernels on the host's root file system",
        packages: &["qemu-system-x86", "qemu-system-common"],
        elsewhere: "install QEMU 7, of which virtiofsd was a part",
        is_met: || vm::qemu().is_some() && vm::virtiofsd().is_some(),
    },
    Need {
        what: "a static busybox, to start them with",
        packages: &["busybox-static"],
        elsewhere: "install busybox, linked statically",
        is_met: || vm::busybox().is_some(),
    },
    Need {
        what: "lz4, to unpack a kernel",
        packages: &["lz4"],
        elsewhere: "install lz4",
        is_met: || commands::is_in_path("lz4"),
    },
    Need {
        what: "zstd and xz, to unpack a kernel and its modules",
        packages: &["zstd", "xz-utils"],
        elsewhere: "install zstd and xz",
        is_met: || ["zstd", "xz"].into_iter().all(commands::is_in_path),
    },
];

/// To compare ucr with. (lsfd comes with util-linux; where it does not, its rows say so.)
pub(super) const BENCH: [Need; 3] = [
    Need {
        what: "ss, to list sockets with",
        packages: &["iproute2"],
        elsewhere: "install iproute2",
        is_met: || commands::is_in_path("ss"),
    },
    Need {
        what: "lsof, to list open files with",
        packages: &["lsof"],
        elsewhere: "install lsof",
        is_met: || commands::is_in_path("lsof"),
    },
    Need {
        what: "criu, which dumps and restores whole processes",
        packages: &["criu"],
        elsewhere: "install CRIU",
        is_met: || commands::is_in_path("criu"),
    },
];

/// For `refresh-programs` only. Debian's package brings the program alone; it starts no bus.
pub(super) const DBUS: Need = Need {
    what: "dbus-daemon, whose sockets are replaced",
    packages: &["dbus-daemon"],
    elsewhere: "install D-Bus, so that dbus-daemon is in PATH",
    is_met: || commands::is_in_path("dbus-daemon"),
};

/// For `refresh-programs` only.
pub(super) const NODE: Need = Need {
    what: "Node, of which a program's sockets are replaced",
    packages: &["nodejs"],
    elsewhere: "install Node, so that node is in PATH",
    is_met: || commands::is_in_path("node"),
};

/// For `refresh-programs` only. Installed, it would make a cluster and start it: it is unpacked into `.tools/`, with
/// what it depends on and is not there.
pub(super) const POSTGRES: Need = Need {
    what: "PostgreSQL, whose sockets are replaced",
    packages: &["postgresql-15"],
    elsewhere: "install PostgreSQL as Debian does, below /usr/lib/postgresql",
    is_met: || postgres().is_some(),
};

/// Where PostgreSQL's programs are, in the newest version that is there.
pub(super) fn postgres() -> Option<PathBuf> {
    let places = [PathBuf::from("/"), commands::unpacked_postgres()];
    places.into_iter().find_map(|place| {
        let versions = fs::read_dir(place.join("usr/lib/postgresql")).ok()?;
        let folders = versions.flatten().map(|version| version.path().join("bin"));
        let has_all = |folder: &PathBuf| {
            ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file())
        };
        folders.filter(has_all).max()
    })
}

/// What `redis-server` is a link to in Debian's package of that name.
pub(super) const REDIS_PROGRAM: &str = "/usr/bin/redis-check-rdb";

fn perl_has_threads() -> bool {
    let mut perl = Command::new("perl");
    perl.args(["-Mthreads", "-e", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
    perl.status().is_ok_and(|status| status.success())
}
