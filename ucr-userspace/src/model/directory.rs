//! Where a task stood when it bound a socket to a pathname.

use serde::{Deserialize, Serialize};
use ucr_common::paths::{BindPaths, PATH_TRUNCATED, PATH_UNREADABLE};

/// Where a binder stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directories {
    /// Working directory, absolute in its mount namespace.
    pub cwd: Directory,
    /// Root directory, absolute in its mount namespace.
    pub root: Directory,
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute path; if it is not whole, only its lower end is there.
    pub path: Vec<u8>,
    /// Whether all of it could be read.
    pub whole: bool,
}

impl Directories {
    /// The working directory as the task itself would spell it, if it lies beneath its root and both
    /// are whole.
    #[must_use]
    pub fn cwd_from_root(&self) -> Option<&[u8]> {
        if !self.cwd.whole || !self.root.whole {
            return None;
        }
        if self.root.path == b"/" {
            return Some(&self.cwd.path);
        }
        match self.cwd.path.strip_prefix(self.root.path.as_slice())? {
            [] => Some(b"/"),
            rest if rest.starts_with(b"/") => Some(rest),
            _ => None,
        }
    }

    /// From the dentries that the program climbed.
    #[must_use]
    pub fn spell(paths: &BindPaths) -> Self {
        Self {
            cwd: Directory::spell(&paths.cwd, paths.cwd_len, paths.cwd_flags),
            root: Directory::spell(&paths.root, paths.root_len, paths.root_flags),
        }
    }
}

impl Directory {
    fn spell(bytes: &[u8], len: u32, flags: u32) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let climbed = bytes.get(..len).unwrap_or(bytes);
        let mut components: Vec<&[u8]> =
            climbed.split(|b| *b == b'/').filter(|c| !c.is_empty()).collect();
        components.reverse();
        let mut path = Vec::with_capacity(climbed.len() + 1);
        for component in components {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Self { path, whole: flags & (PATH_TRUNCATED | PATH_UNREADABLE) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_sees_its_directory_from_its_own_root() {
        let directory = |path: &[u8]| Directory { path: path.to_vec(), whole: true };
        let of =
            |cwd: &[u8], root: &[u8]| Directories { cwd: directory(cwd), root: directory(root) };
        assert_eq!(of(b"/a/b", b"/").cwd_from_root(), Some(&b"/a/b"[..]));
        assert_eq!(of(b"/a/b", b"/a").cwd_from_root(), Some(&b"/b"[..]));
        assert_eq!(of(b"/a", b"/a").cwd_from_root(), Some(&b"/"[..]));
        assert_eq!(of(b"/ab", b"/a").cwd_from_root(), None);
        assert_eq!(of(b"/x", b"/a").cwd_from_root(), None);
        let mut cut = of(b"/a/b", b"/a");
        cut.cwd.whole = false;
        assert_eq!(cut.cwd_from_root(), None);
    }

    #[test]
    fn a_climbed_path_is_turned_round() {
        let spelled = Directory::spell(b"leaf/parent/top/", 16, 0);
        assert_eq!(spelled, Directory { path: b"/top/parent/leaf".to_vec(), whole: true });
        assert_eq!(Directory::spell(&[0; 8], 0, 0).path, b"/");
        assert!(!Directory::spell(b"leaf/", 5, PATH_TRUNCATED).whole);
        // A length beyond the array must not reach beyond it.
        assert_eq!(Directory::spell(b"a/", 4096, 0).path, b"/a");
    }
}
