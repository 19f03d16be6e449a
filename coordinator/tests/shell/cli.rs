//! The command line: what it makes, what it says, and how it ends.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::token_digest;
use packfed_coordinator::store::Store;
use packfed_protocol::{Digest, Identity, Token};
use serde_json::Value;

fn coordinator(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn init_makes_what_serve_needs() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"head.weight":{"dtype":"F32","shape":[10,64],"data_offsets":[0,2560]}}"#;
    let base = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 2560]].concat();
    fs::write(folder.path().join("base.safetensors"), &base).unwrap();
    let arguments = ["init", "run", "--tokens", "3", "--base", "base.safetensors", "--json"];
    let output = coordinator(&arguments, folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();

    let config = CoordinatorConfig::load(&folder.path().join("run/coordinator.toml")).unwrap();
    assert_eq!(config.plan.raw().base, Digest::of(&base));
    let layer = &config.plan.raw().layers[0];
    assert_eq!((layer.name.as_str(), layer.rows, layer.cols, layer.block), ("head.weight", 10, 64, 4));
    let identity = Identity::load(&config.identity).unwrap();
    assert_eq!(made["public_key"], identity.id().to_string());
    let registry = RedbStore::open(&config.store).unwrap().registry().unwrap();
    let tokens = made["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().parse::<Token>().unwrap());
    assert_eq!(tokens.map(|token| token_digest(&token)).collect::<Vec<_>>().len(), 3);
    assert_eq!(registry.tokens().len(), 3);
}

#[test]
fn init_leaves_a_folder_that_is_not_empty_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "").unwrap();
    let output = coordinator(&["init", "."], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: folder . is not empty"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn status_reads_the_store_when_nobody_serves() {
    let folder = tempfile::tempdir().unwrap();
    assert!(coordinator(&["init", "run"], folder.path()).status.success());
    // Port 0 is nobody's, so the answer does not depend on what else runs here.
    let arguments = ["status", "--config", "run/coordinator.toml", "--address", "127.0.0.1:0"];
    let output = coordinator(&arguments, folder.path());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no coordinator answers"));
    assert!(text(&output.stdout).lines().next().unwrap().ends_with("false"));
    let output = coordinator(&[&arguments[..], &["--json"]].concat(), folder.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["serving"], &report["version"]), (&Value::Bool(false), &Value::from(0)));
}

#[cfg(unix)]
#[test]
fn serve_says_where_it_listens_and_stops_when_told() {
    use std::io::{BufRead, BufReader, Read};

    let folder = tempfile::tempdir().unwrap();
    assert!(coordinator(&["init", "run"], folder.path()).status.success());
    let path = folder.path().join("run/coordinator.toml");
    let config = fs::read_to_string(&path).unwrap().replace("127.0.0.1:4600", "127.0.0.1:0");
    fs::write(&path, config).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    serve.args(["serve", "--log-format", "json", "--config"]).arg(&path);
    let mut process = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let key = Identity::load(&folder.path().join("run/coordinator.key")).unwrap().id();
    let address = first.strip_prefix("listening on ").and_then(|rest| rest.strip_suffix(&format!(" as {key}\n")));
    let address: SocketAddr = address.expect("its key is named").parse().unwrap();
    assert_ne!(address.port(), 0);

    let status =
        coordinator(&["status", "--config", "run/coordinator.toml", "--address", &address.to_string()], folder.path());
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    assert!(text(&status.stdout).contains("selecting"));

    let kill = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", process.id())).status().unwrap();
    assert!(kill.success() && process.wait().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("version"), "{rest}");
    let mut logs = String::new();
    process.stderr.take().unwrap().read_to_string(&mut logs).unwrap();
    assert!(logs.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{logs}");
}

#[cfg(unix)]
#[test]
fn the_operator_says_who_takes_part_while_a_coordinator_serves() {
    use std::io::{BufRead, BufReader};

    use packfed_coordinator::registry::{Member, Registry, Standing};
    use packfed_protocol::WorkerId;

    let folder = tempfile::tempdir().unwrap();
    assert!(coordinator(&["init", "run"], folder.path()).status.success());
    let path = folder.path().join("run/coordinator.toml");
    let config = fs::read_to_string(&path).unwrap().replace("127.0.0.1:4600", "127.0.0.1:0");
    fs::write(&path, config).unwrap();
    let store = folder.path().join("run/coordinator.redb");
    fs::remove_file(&store).unwrap();
    let member = |n: u8, name: &str| (WorkerId([n; 32]), Member::new(name.to_owned(), Standing::Admitted));
    let members = [member(1, "tablet"), member(2, "phone"), member(3, "phone")].into();
    drop(RedbStore::create(&store, &Registry::new(members, [].into())).unwrap());
    let worker = |arguments: &[&str], address: &str| {
        let shared = ["--config", "run/coordinator.toml", "--json", "--address", address];
        let output = coordinator(&[&["worker"], arguments, &shared].concat(), folder.path());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, list, error) = worker(&["list"], "127.0.0.1:0");
    assert_eq!(
        (code, serde_json::from_str::<Value>(&list).unwrap().as_array().unwrap().len()),
        (Some(3), 3),
        "{error}"
    );
    let (code, _, error) = worker(&["revoke", "tablet", "--yes"], "127.0.0.1:0");
    assert_eq!((code, error.contains("only the one that serves changes anything")), (Some(1), true), "{error}");

    let mut serve = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    serve.args(["serve", "--config"]).arg(&path);
    let mut process = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.split_whitespace().nth(2).unwrap();
    let (code, row, error) = worker(&["suspend", "tablet"], address);
    let row: Value = serde_json::from_str(&row).unwrap_or_else(|_| panic!("{error}"));
    assert_eq!((code, &row["name"], &row["standing"]), (Some(0), &"tablet".into(), &"suspended".into()));
    let (code, _, error) = worker(&["revoke", "phone", "--yes"], address);
    assert_eq!((code, error.contains("2 workers are named")), (Some(1), true), "{error}");
    assert_eq!(worker(&["revoke", &"03".repeat(32), "--yes"], address).0, Some(0));
    process.kill().unwrap();
    process.wait().unwrap();
    let (code, list, _) = worker(&["list"], "127.0.0.1:0");
    let list: Value = serde_json::from_str(&list).unwrap();
    let standings: Vec<_> = list.as_array().unwrap().iter().map(|row| row["standing"].as_str().unwrap()).collect();
    assert_eq!((code, standings), (Some(3), vec!["suspended", "admitted", "revoked"]), "it outlives a kill");
}

#[test]
fn a_bad_configuration_is_one_line_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let output = coordinator(&["serve", "--config", "none.toml"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.starts_with("error: none.toml: cannot read it") && error.contains("coordinator init"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn help_documents_the_exit_codes() {
    let output = coordinator(&["--help"], Path::new("."));
    assert!(text(&output.stdout).contains("Exit codes:"));
    assert_eq!(coordinator(&["nonsense"], Path::new(".")).status.code(), Some(2));
}
