//! Reading the file, having made sure that nobody else could have written it: it says what root runs.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::geteuid;

use super::ConfigError;

/// Most that is read: far more than anybody writes by hand.
const MAX_BYTES: u64 = 1 << 20;

/// All of a file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    // A named pipe would keep us waiting for a writer.
    let mut file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let facts = Facts::from(&file.metadata().map_err(failed)?);
    if let Some(why) = facts.objection(geteuid().as_raw()) {
        return Err(ConfigError::NotTrusted { path: path.to_owned(), why });
    }
    let mut text = String::new();
    let read = file.by_ref().take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_BYTES) {
        Ok(text)
    } else {
        Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")))
    }
}

/// What decides whether a file is trusted.
#[derive(Clone, Copy, Debug)]
struct Facts {
    kind_and_mode: u32,
    owner: u32,
    group: u32,
}

impl From<&Metadata> for Facts {
    fn from(of: &Metadata) -> Self {
        Self { kind_and_mode: of.mode(), owner: of.uid(), group: of.gid() }
    }
}

impl Facts {
    /// Why the file is not trusted by this user.
    fn objection(self, user: u32) -> Option<&'static str> {
        if self.kind_and_mode & libc::S_IFMT != libc::S_IFREG {
            Some("it is no regular file")
        } else if self.owner != 0 && self.owner != user {
            Some("it belongs to another user than root")
        } else if self.kind_and_mode & 0o002 != 0 {
            Some("everybody may write to it")
        } else if self.kind_and_mode & 0o020 != 0 && self.group != 0 {
            Some("a group other than root's may write to it")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_others_could_have_written_is_not_trusted() {
        let file = |mode, owner, group| Facts { kind_and_mode: libc::S_IFREG | mode, owner, group };
        assert_eq!(file(0o644, 0, 0).objection(0), None);
        assert_eq!(file(0o660, 0, 0).objection(0), None);
        assert_eq!(file(0o600, 1000, 1000).objection(1000), None);
        assert_eq!(file(0o644, 0, 0).objection(1000), None);
        for (facts, user) in [
            (file(0o646, 0, 0), 0),
            (file(0o600, 1000, 0), 0),
            (file(0o600, 1001, 0), 1000),
            (file(0o664, 0, 1000), 0),
            (Facts { kind_and_mode: libc::S_IFIFO | 0o600, owner: 0, group: 0 }, 0),
        ] {
            assert!(facts.objection(user).is_some(), "{facts:?}");
        }
    }

    #[test]
    fn what_everybody_may_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ucr.toml");
        fs::write(&path, "[log]\nlevel = 'debug'\n").expect("a file");
        let allow = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        allow(0o600).expect("ours");
        assert_eq!(read(&path).expect("trusted"), "[log]\nlevel = 'debug'\n");
        allow(0o606).expect("everybody's");
        let error = read(&path).expect_err("not trusted").to_string();
        assert!(error.contains("ucr.toml is not trusted: everybody may write to it"), "{error}");
    }

    #[test]
    fn a_pipe_or_a_huge_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(matches!(read(&pipe), Err(ConfigError::NotTrusted { .. })));
        let huge = folder.path().join("huge");
        File::create(&huge).and_then(|file| file.set_len(MAX_BYTES + 1)).expect("a huge file");
        assert!(matches!(read(&huge), Err(ConfigError::Read { .. })));
        assert!(matches!(read(folder.path()), Err(ConfigError::NotTrusted { .. })));
    }
}
