//! What commands print as JSON is what the published schemas say, no less and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::admin::CHANGES;
use crate::commanded::{Commanded, Told, command};
use crate::scripted::{fleet, round};
use crate::served::{coordinator, in_time};

/// Who asks.
enum By {
    /// An admin who may only look, from elsewhere.
    Viewer,
    /// The coordinator's own key, beside its files.
    Here,
    /// Nobody that a coordinator knows.
    Alone,
}

/// Every command that reads, with how it is asked.
const READS: [(By, &str, &str); 20] = [
    (By::Viewer, "status", ""),
    (By::Viewer, "top", ""),
    (By::Viewer, "run status", ""),
    (By::Viewer, "round list", "--limit 5"),
    (By::Viewer, "round show", "1"),
    (By::Viewer, "worker list", ""),
    (By::Viewer, "worker show", "w2"),
    (By::Viewer, "release list", ""),
    (By::Here, "release list", ""),
    (By::Here, "release show", "1"),
    (By::Here, "release diff", "1 2"),
    (By::Here, "release verify", ""),
    (By::Viewer, "rollout status", "1"),
    (By::Viewer, "rollout status", "--watch"),
    (By::Viewer, "rollout history", ""),
    (By::Alone, "config check", "--config coordinator.toml"),
    (By::Alone, "admin key", "viewer/admin.key"),
    (By::Alone, "admin init", "new --address a:1 --coordinator-key KEY"),
    (By::Alone, "replay", "audit --config coordinator.toml"),
    (By::Alone, "schema", ""),
];

/// Reads of what the store holds when nobody serves.
const STORED: [&str; 8] = [
    "status",
    "run status",
    "round list",
    "round show 1",
    "worker list",
    "worker show w2",
    "rollout status 1",
    "rollout history",
];

/// What writes files or nothing but a coordinator's folder; the last two are held to their schemas where they are run.
const LOCAL: [&str; 4] = ["release export", "release delete", "init", "serve"];

/// The schemas, by command.
async fn schemas(folder: &Path) -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for entry in command(folder, "schema --json").await.json().as_array().unwrap() {
        let text = command(folder, &format!("schema {}", entry["name"].as_str().unwrap())).await.json();
        for of in entry["commands"].as_array().unwrap() {
            schemas.insert(of.as_str().unwrap().to_owned(), text.clone());
        }
    }
    schemas
}

/// Holds JSON to a schema: it has all that it must and nothing else.
fn hold(command: &str, schema: &Value, told: &Value) {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    let wrong: Vec<String> =
        validator.iter_errors(told).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{command}: {wrong:?} in {told}");
    let mut other = told.clone();
    let object = if other.is_array() { other.get_mut(0) } else { Some(&mut other) };
    if let Some(Value::Object(fields)) = object {
        fields.insert("unknown".to_owned(), 1.into());
        assert!(!validator.is_valid(&other), "{command}: a field that no schema knows passes");
        let mut other = told.clone();
        let object = if other.is_array() { other.get_mut(0).unwrap() } else { &mut other };
        let first = object.as_object().unwrap().keys().next().unwrap().clone();
        object.as_object_mut().unwrap().remove(&first);
        assert!(!validator.is_valid(&other), "{command}: {first} may be missing");
    }
}

#[tokio::test]
async fn what_is_printed_is_what_the_schemas_say() {
    in_time(async {
        let mut commanded = Commanded::start(5);
        let schemas = schemas(commanded.path()).await;
        let mut workers = fleet(2, commanded.serving()).await;
        round(&mut workers).await;
        let mut printed = BTreeSet::new();
        commanded.owner("release create --notes one").await;
        let open = commanded.owner("round list").await["open"]["round"].clone();
        hold("round show", &schemas["round show"], &commanded.owner(&format!("round show {open}")).await);
        for (role, change) in CHANGES {
            let name = change.split(' ').take(2).collect::<Vec<_>>().join(" ");
            hold(&name, &schemas[&name], &commanded.by(role, &format!("{change} --json")).await.json());
            printed.insert(name);
        }
        for (by, name, rest) in READS {
            let line = format!("{name} {rest}").trim_end().to_owned() + " --json";
            let line = line.replace("KEY", &coordinator().id().to_string());
            let told = match by {
                By::Viewer => commanded.by("viewer", &line).await,
                By::Here => commanded.here(&line).await,
                By::Alone => command(commanded.path(), &line).await,
            };
            let Told { code, out, err } = &told;
            // The rollout was rolled back before.
            assert_eq!(*code, if rest == "--watch" { 4 } else { 0 }, "{line}: {err}");
            hold(name, &schemas[name], &serde_json::from_str(out).unwrap());
            printed.insert(name.to_owned());
        }
        let export = commanded.here("release export 1 --out out.packfed --json").await.json();
        hold("release export", &schemas["release export"], &export);
        let delete = commanded.here("release delete 2 --yes --json").await.json();
        hold("release delete", &schemas["release delete"], &delete);
        printed.extend(LOCAL.map(ToOwned::to_owned));
        assert_eq!(printed, schemas.keys().cloned().collect(), "every command that prints JSON is here");

        commanded.stop().await;
        for question in STORED {
            let told = commanded.here(&format!("{question} --json")).await;
            assert_eq!(told.code, 3, "{question}: {}", told.err);
            let name = question.split(' ').filter(|word| word.parse::<u64>().is_err() && *word != "w2");
            let name = name.collect::<Vec<_>>().join(" ");
            hold(&name, &schemas[&name], &serde_json::from_str(&told.out).unwrap());
        }
        let init = command(commanded.path(), "init other --json").await.json();
        hold("init", &schemas["init"], &init);
    })
    .await;
}

#[tokio::test]
async fn a_serving_coordinator_prints_lines_of_its_schema() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let schema = command(folder.path(), "schema serve").await.json();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let run = "00".repeat(16);
        let listening = serde_json::json!({
            "listening": "127.0.0.1:4600", "public_key": "00".repeat(32), "run": run,
            "resumed": { "round": 1, "reports": 0, "cohort": 2 },
        });
        assert!(validator.is_valid(&listening));
        let commanded = Commanded::start(1);
        let mut told = commanded.owner("status").await;
        assert!(validator.is_valid(&told));
        told["unknown"] = 1.into();
        assert!(!validator.is_valid(&told));
    })
    .await;
}
