//! Privileges given up in threads and processes of their own, as the kernel shows them afterwards.

use std::{env, fs, process::Command, thread};

use super::*;

/// What makes this test program do what a test's child does.
const ROLE: &str = "UCR_TEST_PRIVILEGES";

const THIS: &str = "daemon::privileges::tests::a_process_has_what_is_kept_and_nothing_else";

/// A line of the calling thread's status.
fn status(name: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").expect("our status");
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.expect("a line").to_owned()
}

fn set(name: &str) -> CapabilitySet {
    let bits = u64::from_str_radix(&status(name), 16).expect("a set");
    CapabilitySet::from_bits_retain(bits)
}

fn all_kept() -> CapabilitySet {
    KEPT.iter().fold(CapabilitySet::empty(), |all, one| all | one.set)
}

/// Whether we lack what the daemon keeps, so that a test cannot show what becomes of it.
fn lacks_some() -> bool {
    let missing = all_kept() - capabilities(None).expect("ours").permitted;
    if missing.is_empty() {
        return false;
    }
    assert!(env::var_os("UCR_NO_SKIP").is_none(), "capabilities are missing: {missing:?}");
    eprintln!("skipped: capabilities are missing: {missing:?}");
    true
}

/// In a thread that has only these of its capabilities, if not all.
fn with<T: Send>(only: Option<CapabilitySet>, work: impl FnOnce() -> T + Send) -> T {
    let limited = move || {
        if let Some(only) = only {
            let had = capabilities(None).expect("ours").permitted;
            let (effective, permitted) = (only & had, only & had);
            let inheritable = CapabilitySet::empty();
            let sets = CapabilitySets { effective, permitted, inheritable };
            set_capabilities(None, sets).expect("less than before");
        }
        work()
    };
    thread::scope(|scope| scope.spawn(limited).join().expect("no panic"))
}

#[test]
fn a_thread_has_what_is_kept_and_nothing_else() {
    if lacks_some() {
        return;
    }
    with(None, || {
        let kept = drop_of_thread(&KEPT).expect("we have all");
        assert_eq!(kept.held, all_kept());
        assert_eq!(kept.missing, Vec::<&Capability>::new());
        for name in ["CapEff", "CapPrm"] {
            assert_eq!(set(name), all_kept(), "{name}");
        }
        assert_eq!(set("CapBnd"), all_kept() | kept.left_in_bounding_set);
        for name in ["CapInh", "CapAmb"] {
            assert_eq!(set(name), CapabilitySet::empty(), "{name}");
        }
        assert_eq!(status("NoNewPrivs"), "1");
        // A second time there is nothing left to give up.
        assert_eq!(drop_of_thread(&KEPT).expect("still"), kept);
    });
}

#[test]
fn without_the_right_to_the_bounding_set_the_rest_is_given_up_and_that_is_told() {
    if lacks_some() {
        return;
    }
    let before = set("CapBnd");
    with(Some(all_kept()), || {
        let kept = drop_of_thread(&KEPT).expect("we have all");
        assert_eq!(kept.left_in_bounding_set, before - all_kept());
        assert_eq!(set("CapBnd"), before);
        assert_eq!(status("NoNewPrivs"), "1");
    });
}

#[test]
fn what_is_useful_may_be_missing_and_is_named() {
    if lacks_some() {
        return;
    }
    let only = CapabilitySet::BPF | CapabilitySet::PERFMON;
    with(Some(only), || {
        let kept = drop_of_thread(&KEPT).expect("what is required is there");
        let missing: Vec<&str> = kept.missing.iter().map(|missing| missing.name).collect();
        assert_eq!(missing, ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
        assert_eq!((kept.held, set("CapEff")), (only, only));
    });
    // The one that the kernel takes for both.
    with(Some(CapabilitySet::SYS_ADMIN), || {
        let kept = drop_of_thread(&KEPT).expect("it stands in for what is required");
        let missing: Vec<&str> = kept.missing.iter().map(|missing| missing.name).collect();
        assert_eq!(missing, ["CAP_SYS_PTRACE"]);
    });
}

#[test]
fn what_is_required_is_named_and_nothing_is_given_up_without_it() {
    let only = CapabilitySet::BPF | CapabilitySet::SYS_PTRACE;
    with(Some(only), || {
        let before = (set("CapPrm"), set("CapBnd"), status("NoNewPrivs"));
        let error = drop_of_thread(&KEPT).expect_err("one is missing");
        let missing = if before.0.is_empty() { "CAP_BPF" } else { "CAP_PERFMON" };
        assert!(error.to_string().starts_with(&format!("{missing} is missing (")), "{error}");
        assert_eq!((set("CapPrm"), set("CapBnd"), status("NoNewPrivs")), before);
    });
}

#[test]
fn a_process_with_threads_is_refused() {
    // Tests run in threads beside that of the program.
    let error = drop_privileges(&KEPT).expect_err("several threads");
    assert!(matches!(error, PrivilegeError::Threads(2..)), "{error}");
}

#[test]
fn a_process_has_what_is_kept_and_nothing_else() {
    if env::var_os(ROLE).is_some() {
        limit_process().expect("limited");
        println!("umask {}", status("Umask"));
        let limits = fs::read_to_string("/proc/self/limits").expect("our limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        println!("{}", core.expect("a line").split_whitespace().collect::<Vec<_>>().join(" "));
        return;
    }
    let mut child = Command::new(env::current_exe().expect("this program"));
    child.args(["--exact", THIS, "--nocapture"]).env(ROLE, "1");
    let output = child.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    for line in ["umask 0077", "Max core file size 0 0 bytes"] {
        assert!(said.lines().any(|said| said.ends_with(line)), "{line}: {said}");
    }
}

#[test]
fn the_table_says_what_each_is_for() {
    let table = Table(&KEPT).to_string();
    assert_eq!(table.lines().count(), KEPT.len());
    for capability in KEPT {
        assert!(table.contains(&format!("{}: {}", capability.name, capability.reason)), "{table}");
    }
}
