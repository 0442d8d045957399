//! The table, the struct, the example and the errors, held against each other.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/ucr/ucr.toml"))
}

fn wrong(text: &str) -> String {
    parse(text).expect_err("it makes no sense").to_string()
}

#[test]
fn every_default_is_allowed_and_the_usual_one() {
    let mut config = Config::blank();
    for key in &KEYS {
        assert_eq!(key.set_default(&mut config), Some(()), "{key} = {}", key.default);
    }
    assert_eq!(config, Config::default());
    assert_eq!(config.control.socket, Path::new("/run/ucr/control.sock"));
    assert_eq!(config.control.max_request, 65_536);
    assert_eq!(config.tracing.pin_dir, Path::new(crate::tracer::pins::DEFAULT));
    let sizes = crate::tracer::object::Sizes::default();
    assert_eq!(config.tracing.ring_bytes, sizes.ring_bytes);
    assert_eq!(config.tracing.max_sockets, sizes.sockets);
    assert_eq!(config.history.max_age, Duration::from_secs(30 * 86_400));
    assert_eq!(config.metrics.listen, None);
}

/// The fields as `Debug` names them, which the compiler writes: `section.key`.
fn fields(config: &Config) -> Vec<String> {
    let shown = format!("{config:#?}");
    let (mut section, mut fields) = ("", Vec::new());
    for line in shown.lines() {
        let name = line.trim().split(':').next().unwrap_or_default();
        match line.len() - line.trim_start().len() {
            4 if line.contains(':') => section = name,
            8 if line.contains(':') => fields.push(format!("{section}.{name}")),
            _ => {}
        }
    }
    fields
}

#[test]
fn the_table_has_every_field_and_every_field_is_in_the_table() {
    let keys: Vec<String> = KEYS.iter().map(ToString::to_string).collect();
    assert_eq!(fields(&Config::default()), keys);
}

/// A value other than the default for each key.
const OTHERS: [(&str, &str); KEYS.len()] = [
    ("control.socket", "'/x'"),
    ("control.group", "'adm'"),
    ("control.max_clients", "1"),
    ("control.max_request", "'1KiB'"),
    ("control.request_timeout", "'1s'"),
    ("control.idle_timeout", "'1s'"),
    ("tracing.pin_dir", "'/x'"),
    ("tracing.backend", "'tracepoint'"),
    ("tracing.ring_bytes", "'4KiB'"),
    ("tracing.max_sockets", "1"),
    ("tracing.on_stop", "'detach'"),
    ("tracing.reconcile_every", "'0s'"),
    ("tracing.reconcile_after_loss", "false"),
    ("history.enabled", "false"),
    ("history.file", "'/x'"),
    ("history.max_size", "'1MiB'"),
    ("history.max_age", "'1m'"),
    ("history.events", "false"),
    ("history.flush_every", "'10ms'"),
    ("followers.queue", "16"),
    ("metrics.listen", "'[::1]:1'"),
    ("log.level", "'trace'"),
];

#[test]
fn each_key_changes_its_own_field_and_says_whether_a_reload_does() {
    let usual = Config::default();
    for (key, (name, value)) in KEYS.iter().zip(OTHERS) {
        assert_eq!(key.to_string(), name);
        let new = parse(&format!("{name} = {value}")).expect("it is allowed");
        let changes = usual.changes(&new);
        let (told, kept) = match key.reload {
            Reload::Applies => (changes.applied, changes.needs_restart),
            Reload::NeedsRestart => (changes.needs_restart, changes.applied),
        };
        assert_eq!((told, kept), (vec![name.to_owned()], vec![]), "{name}");
        let taken = usual.reloaded(&new);
        assert_eq!(taken == new, key.reload == Reload::Applies, "{name}");
        assert_eq!(taken == usual, key.reload == Reload::NeedsRestart, "{name}");
    }
}

#[test]
fn the_same_file_changes_nothing() {
    let usual = Config::default();
    assert_eq!(usual.changes(&usual), Changes::default());
}

#[test]
fn the_example_changes_nothing_and_shows_every_default() {
    let example = example();
    assert_eq!(parse(&example).expect("it is allowed"), Config::default());
    // Uncommented, it says the same.
    let mut keys = 0;
    let shown: Vec<&str> = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => {
                keys += 1;
                key
            }
            _ => line,
        })
        .collect();
    assert_eq!(keys, KEYS.len());
    assert_eq!(parse(&shown.join("\n")).expect("it is allowed"), Config::default());
    assert!(example.lines().all(|line| line.chars().count() <= 100), "{example}");
    let marked = example.lines().filter(|line| line.starts_with("# * ")).count();
    let reloadable = KEYS.iter().filter(|key| key.reload == Reload::Applies).count();
    assert_eq!(marked, reloadable);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "\
max_age = '1d'
[contorl]
socket = '/x'
[control]
sokcet = '/x'
max_clients = 0
request_timeout = 10
[tracing]
ring_bytes = '3MiB'
backend = 'snapshot'
max_size = '1GiB'
[history]
file = 'history.db'
[metrics]
listen = \"a\\nb\"
frequency = 1
";
    insta::assert_snapshot!(wrong(text), @r#"
    11 errors in the configuration:
      /etc/ucr/ucr.toml:1: unknown key max_age; is history.max_age meant?
      /etc/ucr/ucr.toml:2: unknown section [contorl]; is [control] meant?
      /etc/ucr/ucr.toml:5: unknown key control.sokcet; is control.socket meant?
      /etc/ucr/ucr.toml:6: control.max_clients = 0: it must be a whole number from 1 to 10000
      /etc/ucr/ucr.toml:7: control.request_timeout = 10: it must be a time from "100ms" to "1h", with ms, s, m, h or d
      /etc/ucr/ucr.toml:9: tracing.ring_bytes = '3MiB': it must be a size from "4KiB" to "1GiB", with B, KiB, MiB, GiB or TiB, and a power of two
      /etc/ucr/ucr.toml:10: tracing.backend = 'snapshot': it must be "auto", "trampoline" or "tracepoint"
      /etc/ucr/ucr.toml:11: unknown key tracing.max_size; is history.max_size meant?
      /etc/ucr/ucr.toml:13: history.file = 'history.db': it must be an absolute path, in quotes
      /etc/ucr/ucr.toml:15: metrics.listen = "a\\nb": it must be an IP address and a port, such as "127.0.0.1:9764" or "[::1]:9764", or ""
      /etc/ucr/ucr.toml:16: unknown key metrics.frequency
    "#);
}

#[test]
fn what_is_like_a_known_key_is_taken_for_a_slip_and_all_else_is_not() {
    for (given, meant) in [
        ("log.lvl", "unknown key log.lvl; is log.level meant?"),
        ("tracing.reconcile_evry", "is tracing.reconcile_every meant?"),
        ("tracing.reconcile_after_los", "is tracing.reconcile_after_loss meant?"),
        ("history.max_size_of_file", "unknown key history.max_size_of_file"),
        ("'é'.x", "unknown section [\\xc3\\xa9]"),
    ] {
        let said = wrong(&format!("{given} = 1"));
        assert!(said.ends_with(meant), "{said}");
    }
}

#[test]
fn a_section_without_keys_is_told_of() {
    insta::assert_snapshot!(wrong("control = 3\n[[log]]\n"), @r"
    2 errors in the configuration:
      /etc/ucr/ucr.toml:1: control is a section: it must be [control], with keys
      /etc/ucr/ucr.toml:2: log is a section: it must be [log], with keys
    ");
}

#[test]
fn what_is_no_toml_is_told_with_its_line_and_the_rest_all_the_same() {
    let text = "[log]\nlevel = \n[control]\nmax_clients = 0\nmax_clients = 1\n";
    insta::assert_snapshot!(wrong(text), @r"
    3 errors in the configuration:
      /etc/ucr/ucr.toml:2: string values must be quoted, expected literal string
      /etc/ucr/ucr.toml:4: control.max_clients = 0: it must be a whole number from 1 to 10000
      /etc/ucr/ucr.toml:5: duplicate key: max_clients
    ");
}

#[test]
fn no_text_makes_it_panic_or_shows_control_characters() {
    proptest::proptest!(|(text in "[\\[\\]a-z=.'\"#\\n\\x00-\\x7fé]{0,60}")| {
        if let Err(error) = parse(&text) {
            let shown = error.to_string();
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    });
}

#[test]
fn a_file_that_was_chosen_has_to_be_there_and_the_usual_one_need_not() {
    let absent = Path::new("/nonexistent/ucr.toml");
    assert!(matches!(Config::find(Some(absent)), Err(ConfigError::Read { .. })));
    assert_eq!(or_default(Config::load(absent)).expect("the defaults"), Config::default());
    let is_a_folder = or_default(Config::load(Path::new("/")));
    assert!(matches!(is_a_folder, Err(ConfigError::NotTrusted { .. })));
}
