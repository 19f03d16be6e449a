//! What a file may say, and what is said about one that may not.

use std::path::Path;

use packfed_codec::Profile;

use super::*;

const EXAMPLE: &str = include_str!("../../coordinator.example.toml");

#[test]
fn the_example_is_complete_and_valid() {
    let config = CoordinatorFile::parse(EXAMPLE).unwrap().check(Path::new("folder")).unwrap();
    assert_eq!(config.store, Path::new("folder").join("coordinator.redb"));
    assert_eq!(config.limits, ShellLimits::default());
    let raw = config.plan.raw();
    assert_eq!((raw.examples_max, raw.profile, raw.levels, raw.history), (65_536, Profile::Plain, 1.0, 64));
    assert_eq!((raw.over_selection, raw.layers[0].gain_exponent), (0, 6));
}

#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let shown = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => setting,
        _ => line,
    });
    let shown: Vec<&str> = shown.collect();
    assert!(shown.iter().filter(|line| !EXAMPLE.lines().any(|l| &l == *line)).count() >= 10, "{shown:?}");
    assert_eq!(CoordinatorFile::parse(&shown.join("\n")), CoordinatorFile::parse(EXAMPLE));
}

#[test]
fn the_example_shows_a_buffered_run_with_its_defaults() {
    let uncommented = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first == '[' || first.is_alphabetic()) => setting,
        _ => line,
    };
    let shown: Vec<&str> = EXAMPLE.lines().map(uncommented).collect();
    let file = CoordinatorFile::parse(&shown.join("\n")).unwrap();
    assert_eq!(file.buffered, Some(BufferedTable::new(8)));
    assert_eq!(CoordinatorFile::parse(&file.to_toml().unwrap()), Ok(file.clone()));
    let defaults: String =
        shown.iter().filter(|line| !line.starts_with("staleness")).map(|l| format!("{l}\n")).collect();
    assert_eq!(CoordinatorFile::parse(&defaults), Ok(file));
}

#[test]
fn the_tables_that_the_example_shows_are_read() {
    let uncommented = |line: &'static str| line.strip_prefix("#   ").unwrap_or(line);
    let shown: Vec<&str> = EXAMPLE.lines().map(uncommented).collect();
    let config = CoordinatorFile::parse(&shown.join("\n")).unwrap().check(Path::new("")).unwrap();
    assert!(config.metrics.is_some() && config.audit.is_some());
    assert_eq!((config.admins[0].name.as_str(), config.admins[0].role), ("ann", crate::admin::Role::Operator));
}

#[test]
fn the_dashboard_is_off_unless_asked_for_and_then_on_loopback() {
    let dashboard = |table: &str| {
        let file = CoordinatorFile::parse(&format!("{EXAMPLE}\n{table}"))?;
        assert_eq!(CoordinatorFile::parse(&file.to_toml().unwrap()), Ok(file.clone()));
        file.check(Path::new("")).map(|config| config.dashboard)
    };
    let shown: Vec<&str> = EXAMPLE.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let at = shown.iter().position(|line| *line == "[dashboard]").expect("the example shows it");
    let default = Some(SocketAddr::from(([127, 0, 0, 1], 9_465)));
    assert_eq!(dashboard(""), Ok(None));
    assert_eq!(dashboard("[dashboard]"), Ok(default));
    assert_eq!(dashboard(&shown[at..at + 2].join("\n")), Ok(default));
    assert_eq!(dashboard("[dashboard]\nlisten = \"[::]:80\""), Ok(Some("[::]:80".parse().unwrap())));
    let error = |table: &str| dashboard(table).unwrap_err().to_string();
    assert!(error("[dashboard]\nlisten = \"9465\"").contains("(`listen = \"9465\"`): invalid socket address"));
    assert!(error("[dashboard]\nlisten = \"127.0.0.1:65536\"").contains("invalid socket address"));
    assert!(error("[dashboard]\nwrite = true").contains("unknown field `write`"));
}

#[test]
fn a_written_file_is_read_as_itself() {
    let file = CoordinatorFile::parse(EXAMPLE).unwrap();
    assert_eq!(CoordinatorFile::parse(&file.to_toml().unwrap()), Ok(file.clone()));
    let again = CoordinatorFile::new(file.listen, file.identity.clone(), file.store.clone(), file.run_config());
    assert_eq!(again, file);
}

#[test]
fn another_name_seed_base_or_layer_is_another_run() {
    let run = CoordinatorFile::parse(EXAMPLE).unwrap().run_config();
    let id = |change: fn(&mut RunConfig)| {
        let mut run = run.clone();
        change(&mut run);
        run.plan().unwrap().raw().run
    };
    let ids = [
        id(|_| ()),
        id(|run| run.run.name.push('2')),
        id(|run| run.run.seed = 1),
        id(|run| run.run.base.0[0] = 1),
        id(|run| run.layers[1].rows = 11),
    ];
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "{index}");
    }
    assert_eq!(ids[0], id(|run| run.run.rounds = 61), "a run may be made longer");
}

#[test]
fn an_error_names_the_file_the_key_the_value_and_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let error = |from: &str, to: &str| {
        assert!(EXAMPLE.contains(from), "{from}");
        std::fs::write(&path, EXAMPLE.replacen(from, to, 1)).unwrap();
        let text = CoordinatorConfig::load(&path).unwrap_err().to_string();
        text.strip_prefix(&format!("{}: ", path.display())).expect("the file is named").to_owned()
    };
    assert_eq!(
        error("learning_rate = 0.05", "learning_rate = -1.0"),
        "training learning_rate is -1, allowed is 0.000000001 to 1000"
    );
    assert_eq!(error("# queue_max = 32", "queue_max = 1"), "limits queue_max is 1, allowed is 4 to 65536");
    assert_eq!(
        error("goal = 4\nmin = 2\ntimeout_ms = 600000", "goal = 4\nmin = 5\ntimeout_ms = 1"),
        "reporting min is 5, allowed is 1 to 4"
    );
    assert!(error("rounds = 60", "rounds = \"60\"").contains("(`rounds = \"60\"`): invalid type: string"));
    assert!(error("rounds = 60", "round = 60").contains("(`round = 60`): unknown field `round`"));
    assert!(error("rounds = 60", "").contains("missing field `rounds`"));
    assert!(error("base = \"00", "base = \"0").contains("digest has 63 hex digits, needs 64"));
    assert!(error("kind = \"fedavg\"", "kind = \"sgd\"").contains("unknown variant `sgd`"));
    assert!(error("name = \"fc1.weight\"", "name = \"\"").starts_with("layers name is \"\", allowed are 1 to 128"));
}

#[test]
fn a_missing_file_is_named() {
    let error = CoordinatorConfig::load(Path::new("no/such.toml")).unwrap_err();
    assert_eq!(error.to_string(), "no/such.toml: cannot read it: entity not found");
}
