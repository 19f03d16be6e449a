//! A coordinator in this process over files, and the command line of whoever administers it.

use std::path::{Path, PathBuf};
use std::process::Command;

use packfed_coordinator::audit::{Entry, replay};
use packfed_coordinator::config::{AuditTable, CoordinatorConfig, CoordinatorFile};
use packfed_coordinator::event::Event;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::server::Server;
use serde_json::Value;

use crate::served::{Serving, coordinator, file, registry};

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Told {
    /// Its JSON, if it succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// Runs the command in a folder; words are apart by spaces.
pub(crate) async fn command(folder: &Path, line: &str) -> Told {
    command_of(folder, &line.split(' ').collect::<Vec<_>>()).await
}

/// Runs the command in a folder.
pub(crate) async fn command_of(folder: &Path, arguments: &[&str]) -> Told {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coordinator"));
    let output = command.args(arguments).current_dir(folder).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    Told { code, out: text(output.stdout), err: text(output.stderr) }
}

/// A run in a folder with an audit log, and three admins with the names of their roles.
pub(crate) struct Commanded {
    folder: tempfile::TempDir,
    pub(crate) config: CoordinatorConfig,
    pub(crate) serving: Option<Serving>,
}

impl Commanded {
    /// Serves a run of two workers; every admin has made a key and sent the table that was printed.
    pub(crate) fn start(rounds: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        coordinator().save(&path.join("coordinator.key")).unwrap();
        drop(RedbStore::create(&path.join("coordinator.redb"), &registry(2)).unwrap());
        let audit = AuditTable { directory: PathBuf::from("audit"), segment_bytes_max: 1 << 20, segments_max: 0 };
        let mut text = CoordinatorFile { audit: Some(audit), ..file(2, rounds) }.to_toml().unwrap();
        for role in ["viewer", "operator", "owner"] {
            let key = coordinator().id().to_string();
            let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
            command.args(["admin", "init", role, "--address", "localhost:1", "--coordinator-key", &key, "--json"]);
            let output = command.args(["--name", role, "--role", role]).current_dir(path).output().unwrap();
            let made: Value = serde_json::from_slice(&output.stdout).unwrap();
            text += "\n";
            text += made["table"].as_str().unwrap();
        }
        std::fs::write(path.join("coordinator.toml"), text).unwrap();
        let config = CoordinatorConfig::load(&path.join("coordinator.toml")).unwrap();
        let mut commanded = Self { folder, config, serving: None };
        commanded.serve();
        commanded
    }

    fn serve(&mut self) {
        let serving = Serving::of(Server::bind(&self.config).unwrap(), &self.config);
        for role in ["viewer", "operator", "owner"] {
            let path = self.path().join(role).join("admin.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.lines().find(|line| line.starts_with("address")).unwrap();
            let address = format!("address = \"{}\"", serving.address);
            std::fs::write(&path, text.replace(line, &address)).unwrap();
        }
        self.serving = Some(serving);
    }

    pub(crate) fn serving(&self) -> &Serving {
        self.serving.as_ref().unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command as an admin of this role.
    pub(crate) async fn by(&self, role: &str, line: &str) -> Told {
        command(self.path(), &format!("{line} --admin {role}/admin.toml")).await
    }

    /// Runs a command on the coordinator's machine.
    pub(crate) async fn here(&self, line: &str) -> Told {
        let address = self.serving.as_ref().map_or("127.0.0.1:0".to_owned(), |serving| serving.address.to_string());
        command(self.path(), &format!("{line} --config coordinator.toml --address {address}")).await
    }

    /// What an owner's command prints as JSON.
    pub(crate) async fn owner(&self, line: &str) -> Value {
        self.by("owner", &format!("{line} --json")).await.json()
    }

    /// Ends the process as one that is told to stop.
    pub(crate) async fn stop(&mut self) {
        self.serving.take().unwrap().stopped().await.unwrap();
    }

    /// Who has ordered what and why, as the audit log has it.
    pub(crate) fn ordered(&self) -> Vec<[String; 3]> {
        let mut ordered = Vec::new();
        replay(&self.config.plan, &self.path().join("audit"), |located| {
            if let Entry::Told(event) = &located.entry
                && let Event::Ordered { by, why, change, .. } = event.as_ref()
            {
                ordered.push([by.clone(), change.name().to_owned(), why.clone()]);
            }
        })
        .unwrap();
        ordered
    }
}
