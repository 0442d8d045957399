//! What is installed beside the program (`ucr-userspace/dist`), held against the code that it is about.

use std::path::Path;

use super::{
    config::{Config, DEFAULT_FILE, example},
    privileges::KEPT,
};

const UNIT: &str = include_str!("../../dist/ucr.service");
const CONFIGURATION: &str = include_str!("../../dist/ucr.toml");

/// What the unit assigns to a name, if it does so once.
fn setting(name: &str) -> &'static str {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().expect(name);
    assert_eq!(values.next(), None, "{name} is set twice");
    value
}

/// The names that the unit assigns to, by line.
fn names() -> impl Iterator<Item = &'static str> {
    let settings = UNIT.lines().filter(|line| !line.starts_with(['#', '[']));
    settings.filter_map(|line| line.split_once('=').map(|(name, _)| name))
}

#[test]
fn the_example_is_what_the_program_prints() {
    assert_eq!(
        CONFIGURATION,
        example(),
        "write it anew: ucr daemon --print-config > ucr-userspace/dist/ucr.toml"
    );
}

#[test]
fn the_unit_grants_what_the_daemon_keeps_and_nothing_else() {
    let kept: Vec<&str> = KEPT.iter().map(|capability| capability.name).collect();
    assert_eq!(setting("CapabilityBoundingSet").split(' ').collect::<Vec<_>>(), kept);
    assert_eq!(setting("AmbientCapabilities"), "");
    assert_eq!(setting("NoNewPrivileges"), "yes");
}

#[test]
fn the_units_directories_are_those_of_the_defaults() {
    let config = Config::default();
    let parent = |path: &Path| path.parent().expect("a directory").display().to_string();
    assert_eq!(parent(&config.control.socket), format!("/run/{}", setting("RuntimeDirectory")));
    assert_eq!(parent(&config.history.file), format!("/var/lib/{}", setting("StateDirectory")));
    assert_eq!(parent(&config.tracing.pin_dir), setting("ReadWritePaths"));
    assert_eq!(parent(&config.tracing.pin_dir), setting("AssertPathIsMountPoint"));
    let configuration = format!("/etc/{}", setting("ConfigurationDirectory"));
    assert_eq!(parent(Path::new(DEFAULT_FILE)), configuration);
    assert_eq!(setting("UMask"), "0077");
}

#[test]
fn the_unit_lets_the_daemon_see_the_machine_as_it_is() {
    for (name, value) in [
        ("Type", "notify"),
        ("RestrictNamespaces", "net"),
        ("PrivateTmp", "no"),
        ("PrivateUsers", "no"),
        ("PrivateNetwork", "no"),
        ("ProtectHome", "read-only"),
        ("ProtectProc", "default"),
        ("ProcSubset", "all"),
    ] {
        assert_eq!(setting(name), value, "{name}");
    }
    for family in ["AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"] {
        assert!(setting("RestrictAddressFamilies").split(' ').any(|f| f == family), "{family}");
    }
}

#[test]
fn each_group_of_settings_says_why() {
    // A comment speaks for what follows it, until a blank line.
    let mut is_explained = false;
    for line in UNIT.lines() {
        match line {
            "" => is_explained = false,
            line if line.starts_with('#') => is_explained = true,
            line if line.starts_with('[') => {}
            line if line.starts_with("Description=") || line.starts_with("WantedBy=") => {}
            line if line.starts_with("Documentation=") => {}
            line => assert!(is_explained, "{line}"),
        }
    }
    assert!(names().count() > 40);
}
