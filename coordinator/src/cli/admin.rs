//! `coordinator admin`: keys for people who administer a coordinator from elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use packfed_coordinator::admin::{Admin, Role};
use packfed_protocol::{CoordinatorId, Identity, NAME_CHARS_MAX};
use serde::Serialize;
use serde_json::json;

use super::admin_file::AdminFile;
use super::advise;
use super::output::show;

/// Make keys for people who administer a coordinator with a role of their own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator admin init ann --address fleet.example.org:4600 --coordinator-key 3d40…660c --name ann
  coordinator admin key ann/admin.key --name ann --role operator

An admin makes a key and sends its public half; an owner puts the [[admins]] table that is printed into coordinator.toml
and starts the coordinator again. Roles: a viewer asks; an operator also steers workers, rounds, releases and rollouts;
an owner also revokes workers, makes tokens and sets what the run is.
Exit codes: 0 done, 1 failed.")]
pub(super) struct AdminCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key file if there is none, and print its public half.
    Key {
        /// The key file.
        file: PathBuf,
        #[command(flatten)]
        who: Who,
    },
    /// Make a folder with a key and an admin.toml, with which every command runs from this machine.
    Init {
        /// The folder; it is made if it is not there.
        directory: PathBuf,
        /// Where the coordinator is.
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
        /// The coordinator's public key, as `coordinator serve` and `init` print it.
        #[arg(long, value_name = "KEY")]
        coordinator_key: CoordinatorId,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, Args)]
struct Who {
    /// What the audit log is to call its holder.
    #[arg(long, default_value = "admin", value_parser = name)]
    name: String,
    /// The role in the table that is printed.
    #[arg(long, value_enum, default_value_t = RoleName::Viewer)]
    role: RoleName,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Asks.
    Viewer,
    /// Also steers workers, rounds, releases and rollouts.
    Operator,
    /// Also decides who takes part, and what the run is.
    Owner,
}

impl AdminCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        match &self.verb {
            Verb::Key { file, who } => {
                let identity = if file.exists() { Identity::load(file)? } else { generated(file)? };
                who.print(&identity, file, None)?;
            }
            Verb::Init { directory, address, coordinator_key, who } => {
                init(directory, address, *coordinator_key, who)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn init(directory: &Path, address: &str, coordinator_key: CoordinatorId, who: &Who) -> Result<()> {
    if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        bail!("address {address:?} has no port; write HOST:PORT, such as fleet.example.org:4600");
    }
    let (path, key) = (directory.join("admin.toml"), directory.join(KEY_FILE));
    for there in [&path, &key] {
        if there.exists() {
            bail!("{} is there; name another folder, nothing was written", there.display());
        }
    }
    std::fs::create_dir_all(directory).with_context(|| format!("make folder {}", directory.display()))?;
    let identity = generated(&key)?;
    let file = AdminFile { address: address.to_owned(), coordinator_key, identity: PathBuf::from(KEY_FILE) };
    let text =
        format!("# A packfed admin: every `coordinator` command takes --admin FILE.\n{}", toml::to_string(&file)?);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    who.print(&identity, &key, Some(&path))
}

fn generated(path: &Path) -> Result<Identity> {
    let identity = Identity::generate()?;
    identity.save(path).map_err(|error| advise(error, "name another file in a folder that is there"))?;
    Ok(identity)
}

/// `[[admins]]` of a configuration.
#[derive(Serialize)]
struct Admins {
    admins: [Admin; 1],
}

impl Who {
    fn print(&self, identity: &Identity, file: &Path, admin: Option<&Path>) -> Result<()> {
        let role = match self.role {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::Owner => Role::Owner,
        };
        let key = identity.id();
        let table = toml::to_string(&Admins { admins: [Admin { name: self.name.clone(), key, role }] })?;
        let told = json!({ "key_file": file, "public_key": key, "admin_file": admin, "table": table });
        show(self.json, &told, || {
            let made = admin.map_or(String::new(), |admin| format!("made {}\n", admin.display()));
            format!(
                "{made}key file: {}\npublic key: {key}\nnext: an owner adds this to coordinator.toml and starts the \
                 coordinator again\n\n{}",
                file.display(),
                table.trim_end()
            )
        })
    }
}

fn name(text: &str) -> Result<String, String> {
    let characters = text.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&characters) || text.chars().any(char::is_control) {
        return Err(format!("name {text:?} has {characters} characters, allowed are 1 to {NAME_CHARS_MAX} to print"));
    }
    Ok(text.to_owned())
}

const KEY_FILE: &str = "admin.key";
