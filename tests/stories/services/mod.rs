//! Programs out of Debian's packages that talk over the network: one end is dumped, killed and brought back for a
//! program that knows how to go on, and the other end, on another host, gets everything.

mod curl;
mod echo;
mod nginx;
pub(crate) mod redis;

use std::{
    fs::File,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use ucr_tests::{Program, World, wait};

/// A world that is watched.
fn watched() -> World {
    let world = crate::world();
    world.ucr.watch();
    world
}

/// Dumps a program without a word to anybody. It has ended then. All that it has was seen live from its beginning.
fn dump_and_kill(world: &World, mut program: Program) -> Image<'_> {
    let (pid, path) = (program.pid().to_string(), world.path("image"));
    let image = Image { world, path };
    let arguments = ["dump", "--json", "--pid", &pid, "--kill", "-o", &image.path()];
    let report = world.ucr.run(&arguments).done().json();
    let sockets = report["sockets"].as_array().expect("sockets");
    assert_eq!(report["counts"]["confirmed"], sockets.len(), "{report:#}");
    let status = program.ends();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    image
}

/// What a dump has left.
struct Image<'a> {
    world: &'a World,
    path: PathBuf,
}

impl Image<'_> {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// The only internet socket that is this: where it was, and what it is.
    fn only(&self, role: &str) -> (String, serde_json::Value) {
        let shown = self.world.ucr.run(&["show", "--json", &self.path()]).done().json();
        let sockets = shown["sockets"].as_array().expect("sockets").iter();
        let mut found =
            sockets.filter(|socket| socket["role"] == role && !socket["inet"].is_null());
        let socket = found.next().expect("one");
        assert!(found.next().is_none(), "{shown:#}");
        let mut descriptors = shown["descriptors"].as_array().expect("a list").iter();
        let holder = descriptors.find(|descriptor| descriptor["socket"] == socket["index"]);
        (holder.expect("its descriptor")["fd"].to_string(), socket["inet"].clone())
    }

    /// Gives the sockets to a command.
    fn restore(&self, command: &Command, input: Stdio) -> Program {
        let mut restore = self.world.ucr.command(&["restore", &self.path(), "--"]);
        restore.arg(command.get_program()).args(command.get_args()).stdin(input);
        Program::start(&mut restore)
    }
}

/// How much of something the image has.
fn length(data: &serde_json::Value) -> usize {
    data["hex"].as_str().expect("bytes").len() / 2
}

/// 100 MiB in which each 4096 bytes are unlike all others.
fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let numbers = (0..1 << 17).flat_map(|_| {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        });
        let mut content = numbers.collect::<Vec<u8>>().repeat(100);
        for (number, piece) in (0_u64..).zip(content.chunks_exact_mut(4096)) {
            piece[..8].copy_from_slice(&number.to_ne_bytes());
        }
        content
    })
}

/// Expects all of it in a file, and nothing else.
fn is_whole(path: &Path) {
    assert_eq!(size(path), content().len());
    let mut file = File::open(path).expect("what came");
    let mut found = vec![0; 1 << 20];
    for (number, expected) in content().chunks_exact(found.len()).enumerate() {
        file.read_exact(&mut found).expect("what came");
        assert!(found == expected, "MiB {number} came otherwise");
    }
}

/// How long a file is by now.
fn size(path: &Path) -> usize {
    std::fs::metadata(path).map_or(0, |found| usize::try_from(found.len()).expect("a size"))
}

/// Waits until a download is under way.
fn has_begun(path: &Path) {
    wait::until("a part of it", || (size(path) > 1 << 20).then_some(()));
}
