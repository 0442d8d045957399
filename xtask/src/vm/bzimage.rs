//! The ELF image inside a kernel's bzImage, which QEMU starts directly (PVH): to let the kernel
//! unpack itself takes longer than all the rest of booting.
//!
//! The layout is that of Linux's `Documentation/arch/x86/boot.rst`.

use std::{
    fmt,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

/// `setup_sects`: how many sectors lie between the boot sector and the kernel; 0 means 4.
const SETUP_SECTORS: usize = 0x1f1;
/// `header`, which says that the rest is there.
const MAGIC: usize = 0x202;
/// `payload_offset`, counted from the kernel's beginning, and `payload_length` after it.
const PAYLOAD: usize = 0x248;
const SECTOR: usize = 512;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packer {
    Lz4,
    Xz,
    Zstd,
}

/// What a bzImage holds.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'a> {
    packer: Packer,
    packed: &'a [u8],
    /// How long it will be.
    length: usize,
}

/// Takes the ELF image out.
pub(super) fn elf(bzimage: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(bzimage)?;
    let elf = payload.packer.unpack(payload.packed)?;
    ensure!(
        elf.len() == payload.length && elf.starts_with(b"\x7fELF"),
        "{} made {} bytes of the kernel, which should be an ELF image of {}",
        payload.packer,
        elf.len(),
        payload.length
    );
    Ok(elf)
}

fn payload(bzimage: &[u8]) -> Result<Payload<'_>> {
    let is_new = bzimage.get(MAGIC..MAGIC + 4).is_some_and(|magic| magic == b"HdrS");
    ensure!(is_new, "it is no bzImage");
    find_payload(bzimage).context(
        "its payload is not where it says, or is packed in another way than by lz4, xz or zstd",
    )
}

fn find_payload(bzimage: &[u8]) -> Option<Payload<'_>> {
    let sectors = match bzimage.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (sectors + 1) * SECTOR + number(bzimage, PAYLOAD)?;
    let end = start.checked_add(number(bzimage, PAYLOAD + 4)?)?;
    // The kernel's build appends the length of what was packed.
    let (packed, length) = bzimage.get(start..end)?.split_last_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let packers = [
        (Packer::Lz4, b"\x02\x21\x4c\x18".as_slice()),
        (Packer::Xz, b"\xfd7zXZ\0"),
        (Packer::Zstd, b"\x28\xb5\x2f\xfd"),
    ];
    let (packer, _) = packers.into_iter().find(|(_, magic)| packed.starts_with(magic))?;
    Some(Payload { packer, packed, length })
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

impl Packer {
    fn unpack(self, packed: &[u8]) -> Result<Vec<u8>> {
        let mut program = Command::new(self.to_string());
        unpack(program.arg("-dc"), packed)
    }
}

impl fmt::Display for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

/// What a program makes of its standard input.
pub(super) fn unpack(program: &mut Command, packed: &[u8]) -> Result<Vec<u8>> {
    let name = program.get_program().display().to_string();
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().with_context(|| format!("run {name}"))?;
    let mut stdin = child.stdin.take().context("its input is a pipe")?;
    let (written, output) = thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(packed));
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let output = output.with_context(|| format!("wait for {name}"))?;
    if !output.status.success() || !matches!(written, Ok(Ok(()))) {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name} could not unpack it ({}): {}", output.status, complaint.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one sector of set-up, and 16 bytes before the payload.
    fn bzimage(packed: &[u8], length: u32) -> Vec<u8> {
        let mut bytes = vec![0; 2 * SECTOR + 16];
        bytes[SETUP_SECTORS] = 1;
        bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[PAYLOAD..PAYLOAD + 4].copy_from_slice(&16_u32.to_le_bytes());
        let whole = u32::try_from(packed.len()).unwrap() + 4;
        bytes[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&whole.to_le_bytes());
        bytes.extend_from_slice(packed);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(b"the rest");
        bytes
    }

    #[test]
    fn the_payload_is_found() {
        for (packer, packed) in [
            (Packer::Lz4, b"\x02\x21\x4c\x18 and more".as_slice()),
            (Packer::Xz, b"\xfd7zXZ\0 and more"),
            (Packer::Zstd, b"\x28\xb5\x2f\xfd and more"),
        ] {
            let bytes = bzimage(packed, 99);
            assert_eq!(payload(&bytes).unwrap(), Payload { packer, packed, length: 99 });
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let whole = bzimage(b"\x28\xb5\x2f\xfd and more", 99);
        assert!(payload(&whole[..whole.len() - 20]).is_err());
        assert!(payload(&bzimage(b"plain", 99)).is_err());
        assert!(payload(b"\x7fELF").is_err());
    }

    #[test]
    fn what_a_program_says_is_kept_and_its_complaint_is_told() {
        assert_eq!(unpack(&mut Command::new("cat"), b"bytes").unwrap(), b"bytes");
        let error = unpack(Command::new("sh").args(["-c", "echo odd >&2; cat; exit 3"]), b"");
        assert!(error.unwrap_err().to_string().contains("odd"));
    }
}
