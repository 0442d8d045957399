//! Writing a cpio archive, in which a kernel takes its first root file system: the format "newc",
//! by Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive(Vec<u8>);

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// Adds a folder; those above it have to be there.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, content);
    }

    /// Adds a file that can be executed.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    /// The whole.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.0
    }

    /// Everything belongs to root and is from 1970. The fields are: inode, mode, user, group, links,
    /// time, size, four device numbers, length of the name with its NUL, checksum.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let (size, name) = (content.len(), path.len() + 1);
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name:08x}{:08x}",
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(path.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.0.len().next_multiple_of(4);
        self.0.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_writes() {
        let mut archive = Archive::default();
        archive.folder("d");
        archive.file("d/f", b"text\n");
        let bytes = archive.finish();
        let zero = "00000000";
        let expected = [
            // The folder: 110 bytes of header, 2 of name.
            &format!(
                "07070100000000000041ed{zero}{zero}00000001{zero}{zero}{zero}{zero}{zero}{zero}00000002{zero}d\0"
            ),
            // The file: 110 and 4, 2 to fill; 5 and 3 to fill.
            &format!(
                "07070100000000000081a4{zero}{zero}00000001{zero}00000005{zero}{zero}{zero}{zero}00000004{zero}d/f\0\0\0text\n\0\0\0"
            ),
            &format!(
                "0707010000000000000000{zero}{zero}00000001{zero}{zero}{zero}{zero}{zero}{zero}0000000b{zero}TRAILER!!!\0\0\0\0"
            ),
        ];
        let expected: String = expected.iter().map(|part| part.as_str()).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
