//! Virtual machines as `cargo xtask vm` runs them: what a command's end is, what a guest cannot do to
//! its host, and that nothing is left behind.
//!
//! Those that boot one are in `slow`, which `cargo xtask test --quick` leaves out.
#![cfg(test)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use ucr_tests::{Need, needs};

fn xtask() -> Command {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.env_remove("UCR_SKIPPED");
    xtask
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `virtiofsd` runs as.
fn read_only(command: &[&str]) -> Command {
    let mut child = xtask();
    let parent = std::process::id().to_string();
    child.args(["vm-child", "--read-only", "--parent", &parent, "--"]).args(command);
    child
}

#[test]
fn who_serves_the_root_can_write_nowhere_and_everybody_else_can() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let before = mounts();
    let folder = tempfile::tempdir().expect("a folder");
    let in_workspace = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    for folder in [folder.path(), in_workspace.path(), Path::new("/dev/shm")] {
        let file = folder.join("ucr-test-written");
        let touched = read_only(&["touch", &file.display().to_string()]).output();
        let touched = touched.expect("run xtask");
        assert!(!touched.status.success(), "{} was written", file.display());
        assert!(stderr(&touched).contains("Read-only file system"), "{}", stderr(&touched));
        assert!(!file.exists());
    }
    let sysctl = "echo 1 > /proc/sys/kernel/printk_ratelimit";
    let written = read_only(&["sh", "-c", sysctl]).output().expect("run xtask");
    assert!(!written.status.success(), "a setting of the kernel was written");
    let read = read_only(&["cat", "/proc/self/mountinfo"]).output().expect("run xtask");
    assert!(read.status.success(), "{}", stderr(&read));

    fs::write(folder.path().join("ours"), "").expect("write as before");
    fs::write(in_workspace.path().join("ours"), "").expect("write as before");
    assert_eq!(mounts(), before);
}

#[test]
fn a_child_of_somebody_else_does_not_begin() {
    let mut child = xtask();
    let output = child.args(["vm-child", "--parent", "1", "--", "true"]).output();
    let output = output.expect("run xtask");
    assert!(!output.status.success());
    assert!(stderr(&output).contains("process 1 is gone already"), "{}", stderr(&output));
}

mod slow {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, Stdio},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use tempfile::TempDir;
    use ucr_tests::wait;

    use super::*;

    /// What xtask answers instead of a status that the command did not have.
    const NO_STATUS: i32 = 125;

    fn can_boot() -> bool {
        // Set-up unpacks it there where it cannot be installed.
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/qemu").is_dir();
        let qemu = Need::Program(if unpacked { "busybox" } else { "qemu-system-x86_64" });
        needs::met(&[Need::Root, Need::Program("busybox"), qemu])
    }

    fn vm(arguments: &[&str], command: &str) -> Command {
        let mut vm = xtask();
        vm.args(["vm", "--kernel", "6.12"]).args(arguments).args(["--", "sh", "-c", command]);
        vm
    }

    #[test]
    fn a_guest_is_told_what_to_do_and_cannot_change_its_host() {
        if !can_boot() {
            return;
        }
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let file = folder.path().join("written");
        let command = format!(
            "uname -r; mount -o remount,rw / && touch {}; echo 'not the end' >&2; printf done; exit 7",
            file.display()
        );
        let output = vm(&[], &command).output().expect("run xtask");
        assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = said.split('\n').collect();
        assert!(lines[0].starts_with("6.12.") && lines[0].ends_with("-cloud-amd64"), "{said:?}");
        assert!(lines[1].ends_with("Read-only file system"), "{said:?}");
        assert_eq!(lines[2..], ["not the end", "done"]);
        assert!(!file.exists());
    }

    #[test]
    fn a_panic_a_hang_and_silence_are_failures() {
        if !can_boot() {
            return;
        }
        for (arguments, command, complaint) in [
            (&[][..], "echo c > /proc/sysrq-trigger; sleep 600", "the kernel panicked"),
            (&["--timeout", "1"], "sleep 600", "the command did not end within 1 s"),
            (&[], "busybox poweroff -f; sleep 600", "no result was seen"),
        ] {
            let output = vm(arguments, &format!("echo begun; {command}")).output();
            let output = output.expect("run xtask");
            let complaints = stderr(&output);
            assert_eq!(output.status.code(), Some(NO_STATUS), "{complaints}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "begun\n");
            assert!(complaints.contains(complaint), "{complaints}");
            assert!(complaints.contains("the console's last lines:"), "{complaints}");
        }
    }

    /// A guest whose command runs, and the folder for its temporary files, by which its processes are
    /// known.
    fn begun() -> (Child, TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut vm = vm(&[], "echo begun; sleep 600");
        vm.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = vm.spawn().expect("start xtask");
        let mut line = String::new();
        let pipe = child.stdout.take().expect("its output");
        BufReader::new(pipe).read_line(&mut line).expect("read from the guest");
        assert_eq!(line, "begun\n");
        (child, folder)
    }

    /// Whether a process runs that has the folder in its command line.
    fn is_used(folder: &Path) -> bool {
        let folder = folder.as_os_str().as_encoded_bytes();
        let processes = fs::read_dir("/proc").expect("list the processes");
        processes.flatten().any(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|window| window == folder)
        })
    }

    #[test]
    fn nothing_is_left_when_xtask_is_told_to_end_or_killed() {
        if !can_boot() {
            return;
        }
        for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
            let (mut child, folder) = begun();
            assert!(is_used(folder.path()), "QEMU is not known by its files");
            let pid = i32::try_from(child.id()).expect("a pid");
            kill(Pid::from_raw(pid), signal).expect("signal xtask");
            assert_eq!(wait::for_end(&mut child).code(), code);
            wait::until("QEMU to end", || (!is_used(folder.path())).then_some(()));
            let left: Vec<_> = fs::read_dir(folder.path()).expect("list it").flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}
