//! `coordinator worker`: who is enrolled, and who may take part.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use packfed_coordinator::registry::token_digest;
use packfed_coordinator::server::{Roster, Row, There, now};
use packfed_protocol::{NAME_CHARS_MAX, Order, Timestamp, Token, WorkerId};
use serde_json::{Value, json};

use super::confirm::{Sure, Why};
use super::operator::{Operator, Whom};
use super::output::{ago, facts, or_dash, show, table};

/// Say who is enrolled, or say who may take part.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator worker list --config run1/coordinator.toml --json | jq '.[] | select(.strikes > 0)'
  coordinator worker suspend kitchen-tablet --config run1/coordinator.toml --why 'drops every round'
  coordinator worker revoke 3d40…660c --admin admin.toml --yes
  coordinator worker label kitchen-tablet channel=beta region= --admin admin.toml
  coordinator worker token 20 --admin admin.toml --json > secrets.json

A worker is named by its key, or by its name if no other has it. Only the coordinator that serves changes anything:
what is changed is in its store and in its audit log when it answers. `admit`, `suspend` and `label` need the role
operator, `revoke` and `token` the role owner.
Exit codes: 0 done, 3 none serves and this is what the store holds, 6 the role does not allow it, 1 failed.")]
pub(super) struct WorkerCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say who is enrolled, connected and in good standing.
    List,
    /// Say all of one worker.
    Show(Named),
    /// Let a worker take part again; nothing counts against it.
    Admit(Changed),
    /// Let a worker take no part until it is admitted again.
    Suspend(Changed),
    /// Disconnect a worker and never let its key take part again, unless it is admitted.
    Revoke(Revoke),
    /// Set labels of a worker, which say what is rolled out to it: `channel` is the one that rollouts follow.
    Label(Label),
    /// Make one-time tokens, each of which enrols one worker; they are printed this once.
    Token(NewTokens),
}

#[derive(Debug, Args)]
struct Named {
    /// The worker's key, or its name if no other has it.
    #[arg(value_name = "NAME_OR_KEY")]
    worker: String,
}

#[derive(Debug, Args)]
struct Changed {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Revoke {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    sure: Sure,
}

#[derive(Debug, Args)]
struct Label {
    #[command(flatten)]
    named: Named,
    /// Names and values; a name without a value, such as `region=`, takes that label away.
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct NewTokens {
    /// How many, 1 to 10000.
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    #[command(flatten)]
    why: Why,
}

impl WorkerCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let operator = self.whom.operator()?;
        let json = self.whom.json;
        match &self.verb {
            Verb::List => {
                let rows = enrolled(&operator)?;
                show(json, &rows, || render(&rows))?;
            }
            Verb::Show(named) => {
                let row = found(&enrolled(&operator)?, &named.worker)?;
                show(json, &row, || render_one(&row))?;
            }
            Verb::Admit(Changed { named, why }) => self.order(&operator, named, why, Order::Admit)?,
            Verb::Suspend(Changed { named, why }) => self.order(&operator, named, why, Order::Suspend)?,
            Verb::Revoke(Revoke { named, why, sure }) => {
                sure.about(&format!("revoke worker {}", named.worker), "its updates count no more from now on")?;
                self.order(&operator, named, why, Order::Revoke)?;
            }
            Verb::Label(Label { named, labels, why }) => {
                self.order(&operator, named, why, |worker| Order::Label { worker, labels: labels.clone() })?;
            }
            Verb::Token(new) => new.run(&operator, json)?,
        }
        Ok(operator.code())
    }

    fn order(&self, operator: &Operator, named: &Named, why: &Why, order: impl Fn(WorkerId) -> Order) -> Result<()> {
        // A key needs no list; who changes something may not read one that nobody serves.
        let key = match named.worker.parse() {
            Ok(key) => key,
            Err(_) => found(&served(operator)?, &named.worker)?.key,
        };
        let row: Row = operator.order(&why.text, order(key))?;
        show(self.whom.json, &row, || render_one(&row))
    }
}

impl NewTokens {
    fn run(&self, operator: &Operator, json: bool) -> Result<()> {
        let tokens: Vec<Token> = (0..self.count).map(|_| Token::generate()).collect::<Result<_, _>>()?;
        let hashes = tokens.iter().map(token_digest).collect();
        let _: Value = operator.order(&self.why.text, Order::Tokens(hashes))?;
        let tokens: Vec<String> = tokens.iter().map(Token::to_string).collect();
        show(json, &json!({ "tokens": tokens }), || {
            format!("tokens (shown this once; each enrols one worker):\n  {}", tokens.join("\n  "))
        })
    }
}

/// Every enrolled worker, as the coordinator tells or the store if none does.
fn enrolled(operator: &Operator) -> Result<Vec<Row>> {
    pages(|after| {
        operator
            .read(Order::List(after), |engine| Ok(Roster::page(engine.registry(), after, now(), |_| There::default())))
    })
}

/// Every enrolled worker, as the coordinator tells.
fn served(operator: &Operator) -> Result<Vec<Row>> {
    pages(|after| match operator.tell(Order::List(after))? {
        Some(page) => Ok(page),
        None => bail!(NOBODY.replace("{}", &operator.address.to_string())),
    })
}

fn pages(page: impl Fn(WorkerId) -> Result<Roster>) -> Result<Vec<Row>> {
    let (mut rows, mut after) = (Vec::<Row>::new(), FIRST);
    loop {
        let Roster { workers, more } = page(after)?;
        rows.extend(workers);
        match rows.last() {
            Some(last) if more => after = last.key,
            _ => return Ok(rows),
        }
    }
}

/// The one worker that is meant.
fn found(rows: &[Row], worker: &str) -> Result<Row> {
    if let Ok(key) = worker.parse::<WorkerId>() {
        return match rows.iter().find(|row| row.key == key) {
            Some(row) => Ok(row.clone()),
            None => bail!("no worker has key {key}; `coordinator worker list` says who is enrolled"),
        };
    }
    let meant: Vec<&Row> = rows.iter().filter(|row| row.name == worker).collect();
    match meant[..] {
        [row] => Ok(row.clone()),
        [] => bail!("no worker is named {worker:?}; `coordinator worker list` says who is enrolled"),
        _ => {
            let keys: Vec<String> = meant.iter().map(|row| row.key.to_string()).collect();
            bail!("{} workers are named {worker:?}; name one by its key: {}", meant.len(), keys.join(", "))
        }
    }
}

/// A label's name and value.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("label {text:?} has no `=`; write NAME=VALUE, or NAME= for none"))?;
    if name.is_empty() {
        return Err(format!("label {text:?} has an empty name; write NAME=VALUE"));
    }
    for part in [name, value] {
        let characters = part.chars().count();
        if characters > NAME_CHARS_MAX {
            return Err(format!("label {part:?} has {characters} characters, allowed are {NAME_CHARS_MAX}"));
        }
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn render(rows: &[Row]) -> String {
    let mut table = table(&["name", "standing", "strikes", "connected", "seen", "release", "labels", "key"]);
    for row in rows {
        let [name, standing, strikes, connected, seen, release, labels, key] = cells(row);
        table.add_row([name, standing, strikes, connected, seen, release, labels, key]);
    }
    table.trim_fmt()
}

fn render_one(row: &Row) -> String {
    let names = ["name", "standing", "strikes", "connected", "seen", "release", "labels", "key"];
    let rows: Vec<(&str, String)> = names.into_iter().zip(cells(row)).collect();
    facts(&rows)
}

fn cells(row: &Row) -> [String; 8] {
    let seen = row.seen_ms.map_or("never".to_owned(), |ms| ago(Timestamp(ms)));
    let until = row.until_ms.map(|ms| super::duration::Milliseconds(Timestamp(ms).since(now())).roughly());
    let standing = until.map_or_else(|| row.standing.clone(), |left| format!("{} for {left}", row.standing));
    let labels: Vec<String> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let connected = if row.connected { "yes" } else { "no" };
    let (strikes, release) = (row.strikes.to_string(), or_dash(row.release));
    [row.name.clone(), standing, strikes, connected.to_owned(), seen, release, labels.join(" "), row.key.to_string()]
}

/// No worker's key: the list begins after it.
const FIRST: WorkerId = WorkerId([0; 32]);
const NOBODY: &str =
    "no coordinator answers at {}; only the one that serves changes anything: start it with `coordinator serve`";

#[cfg(test)]
mod tests {
    use packfed_coordinator::registry::{Member, Registry, Standing};

    use super::*;

    #[test]
    fn a_worker_is_meant_by_its_key_or_by_a_name_that_no_other_has() {
        let row = |n: u8, name: &str| {
            let members = [(WorkerId([n; 32]), Member::new(name.into(), Standing::Admitted))].into();
            let registry = Registry::new(members, [].into());
            Row::of(&registry, &WorkerId([n; 32]), Timestamp(0), There::default()).unwrap()
        };
        let rows = [row(1, "a"), row(2, "b"), row(3, "b")];
        assert_eq!(found(&rows, "a").unwrap().key, WorkerId([1; 32]));
        assert_eq!(found(&rows, &WorkerId([3; 32]).to_string()).unwrap().key, WorkerId([3; 32]));
        assert!(found(&rows, "c").unwrap_err().to_string().starts_with("no worker is named \"c\""));
        assert!(found(&rows, &"04".repeat(32)).unwrap_err().to_string().starts_with("no worker has key 0404"));
        let several = found(&rows, "b").unwrap_err().to_string();
        assert!(several.starts_with("2 workers are named \"b\"; name one by its key: 0202"), "{several}");
    }

    #[test]
    fn labels_are_names_and_values() {
        let of = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(label("channel=beta"), of("channel", "beta"));
        assert_eq!(label("region="), of("region", ""));
        assert_eq!(label("a=b=c"), of("a", "b=c"));
        assert_eq!(label("beta"), Err("label \"beta\" has no `=`; write NAME=VALUE, or NAME= for none".to_owned()));
        assert!(label("=x").unwrap_err().contains("empty name"));
        assert!(label(&format!("{}=x", "n".repeat(65))).unwrap_err().ends_with("has 65 characters, allowed are 64"));
    }
}
