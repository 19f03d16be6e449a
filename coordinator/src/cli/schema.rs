//! `coordinator schema`: what commands print with --json, as JSON Schemas that are part of the program.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::exit::Usage;
use super::output::{print, show, table};

/// Print the JSON Schema of what a command prints with --json.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator schema
  coordinator schema rollout-status > rollout-status.schema.json

Schemas are of draft 2020-12. A field that is there stays and keeps its meaning; a new one may come with a new version.
Exit codes: 0 done, 2 there is no such schema.")]
pub(super) struct Schema {
    /// Which; all are listed if it is not given.
    name: Option<String>,
    /// Print the list as JSON.
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

impl Schema {
    pub(super) fn run(&self) -> Result<ExitCode> {
        match &self.name {
            Some(name) => {
                let found = SCHEMAS.iter().find(|(known, ..)| known == name);
                let unknown = || Usage(format!("there is no schema {name:?}; `coordinator schema` lists them"));
                print(found.ok_or_else(unknown)?.2.trim_end())?;
            }
            None => {
                let entry = |(name, commands, _): &(&str, &[&str], &str)| json!({ "name": name, "commands": commands });
                let list: Vec<Value> = SCHEMAS.iter().map(entry).collect();
                show(self.json, &list, render)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render() -> String {
    let mut table = table(&["schema", "of what these print"]);
    for (name, commands, _) in SCHEMAS {
        table.add_row([*name, commands.join(", ").as_str()]);
    }
    table.trim_fmt()
}

/// A schema by its name, and the commands that print such.
macro_rules! schema {
    ($name:literal, $($command:literal),+ $(,)?) => {
        ($name, &[$($command),+], include_str!(concat!("../../schemas/", $name, ".json")))
    };
}

/// Every schema: no command prints JSON without one, which a test makes sure of.
const SCHEMAS: &[(&str, &[&str], &str)] = &[
    schema!("status", "status"),
    schema!("picture", "top"),
    schema!("run-status", "run status", "run pause", "run resume", "run set"),
    schema!("round-list", "round list"),
    schema!("round-show", "round show"),
    schema!("round-abandon", "round abandon"),
    schema!("worker-list", "worker list"),
    schema!("worker-show", "worker show", "worker admit", "worker suspend", "worker revoke", "worker label"),
    schema!("worker-token", "worker token"),
    schema!("release-list", "release list"),
    schema!("release-show", "release show"),
    schema!("release-create", "release create"),
    schema!("release-diff", "release diff"),
    schema!("release-verify", "release verify"),
    schema!("release-export", "release export"),
    schema!("release-delete", "release delete"),
    schema!(
        "rollout-status",
        "rollout status",
        "rollout start",
        "rollout promote",
        "rollout pause",
        "rollout resume",
        "rollout abort",
        "rollout rollback",
        "rollout undo"
    ),
    schema!("rollout-history", "rollout history"),
    schema!("admin-key", "admin key", "admin init"),
    schema!("config-check", "config check"),
    schema!("schema-list", "schema"),
    schema!("init", "init"),
    schema!("serve", "serve"),
    schema!("replay", "replay"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, CommandFactory};

    use super::*;
    use crate::cli::Cli;

    /// Commands below this one that take --json.
    fn printing(command: &Command, path: &str, inherited: bool, found: &mut BTreeSet<String>) {
        let json = |arg: &&clap::Arg| arg.get_long() == Some("json");
        let own = command.get_arguments().find(json);
        let inherited = inherited || own.is_some_and(clap::Arg::is_global_set);
        if !command.has_subcommands() && (inherited || own.is_some()) {
            found.insert(path.to_owned());
        }
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            printing(below, path.trim_start(), inherited, found);
        }
    }

    #[test]
    fn every_command_that_prints_json_has_one_schema() {
        let mut found = BTreeSet::new();
        printing(&Cli::command(), "", false, &mut found);
        let told: Vec<String> =
            SCHEMAS.iter().flat_map(|(_, commands, _)| *commands).map(ToString::to_string).collect();
        assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), found);
        assert_eq!(told.len(), found.len(), "none is there twice");
    }

    #[test]
    fn every_schema_names_itself_and_forbids_what_it_does_not_know() {
        for (name, _, text) in SCHEMAS {
            let schema: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
            assert_eq!(schema["$id"], format!("urn:packfed:coordinator:{name}"));
            closed(&schema, name);
        }
    }

    /// Whatever lists properties lists all of them.
    fn closed(schema: &Value, name: &str) {
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{name}: {schema}");
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(|below| closed(below, name)),
            Value::Array(items) => items.iter().for_each(|below| closed(below, name)),
            _ => {}
        }
    }
}
