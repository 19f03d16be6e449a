//! The admin commands: who may order what, what it leads to, and how each ends.

use packfed_protocol::{Enroll, Message};
use serde_json::{Value, json};

use crate::commanded::{Commanded, Told, command, command_of};
use crate::scripted::{Worker, fleet, round};
use crate::served::{in_time, worker};

/// Every command that changes something at the coordinator, as it may be said with one release and one rollout there;
/// each may be done after those before it. With the role that it needs.
pub(crate) const CHANGES: [(&str, &str); 18] = [
    ("operator", "run pause"),
    ("operator", "round abandon --yes"),
    ("operator", "run resume"),
    ("operator", "worker suspend w1"),
    ("operator", "worker admit w1"),
    ("operator", "worker label w1 channel=beta region=eu"),
    ("owner", "worker revoke w1 --yes"),
    ("owner", "worker token 2"),
    ("owner", "run set --rounds 9 --learning-rate 0.25"),
    ("operator", "release create --notes two"),
    ("operator", "rollout start 1 --stages 50%:1h,100%:1h"),
    ("operator", "rollout promote 1"),
    ("operator", "rollout undo 1"),
    ("operator", "rollout resume 1"),
    ("operator", "rollout pause 1"),
    ("operator", "rollout abort 1 --yes"),
    ("operator", "rollout undo 1"),
    ("operator", "rollout rollback 1 --yes"),
];

/// A run with one version and one release of it, and its second round open.
async fn begun() -> (Commanded, Vec<Worker>) {
    let commanded = Commanded::start(5);
    let mut workers = fleet(2, commanded.serving()).await;
    round(&mut workers).await;
    commanded.owner("release create --notes one").await;
    (commanded, workers)
}

async fn state(commanded: &Commanded) -> Vec<Value> {
    let mut state = Vec::new();
    for question in ["run status", "round list", "worker list", "release list", "rollout history"] {
        state.push(commanded.owner(question).await);
    }
    state
}

#[tokio::test]
async fn who_may_only_look_changes_nothing_by_any_command() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        let before = state(&commanded).await;
        for (_, change) in CHANGES {
            let Told { code, out, err } = commanded.by("viewer", &format!("{change} --why because")).await;
            assert_eq!((code, out.as_str()), (6, ""), "{change}: {err}");
            assert!(err.contains("viewer has the role viewer; an owner may change it"), "{change}: {err}");
        }
        assert_eq!(state(&commanded).await, before);
        commanded.stop().await;
        assert_eq!(commanded.ordered(), [["owner", "release create", ""].map(ToOwned::to_owned)]);
    })
    .await;
}

#[tokio::test]
async fn every_change_is_done_by_the_least_role_and_stands_in_the_log_with_who_and_why() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        let mut expected = vec![["owner".to_owned(), "release create".to_owned(), String::new()]];
        for (index, (role, change)) in CHANGES.into_iter().enumerate() {
            if role == "owner" {
                let refused = commanded.by("operator", change).await;
                assert_eq!(refused.code, 6, "{change}: {refused:?}");
                assert!(refused.err.contains("that needs the role owner, operator has the role operator"));
            }
            let line = format!("{change} --json --why reason-{index}");
            let done = commanded.by(role, &line).await;
            assert_eq!(done.code, 0, "{change}: {}", done.err);
            let name = change.split(' ').take(2).collect::<Vec<_>>().join(" ");
            expected.push([role.to_owned(), name, format!("reason-{index}")]);
        }
        let rollout = commanded.owner("rollout status 1").await;
        assert_eq!(rollout["phase"], "rolled back");
        let last = rollout["history"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["by"], &last["what"]), (&json!("operator"), &json!("rollback")));
        let run = commanded.owner("run status").await;
        assert_eq!((&run["settings"]["rounds"], &run["changed"]["learning_rate"]), (&json!(9), &json!(0.25)));
        assert_eq!(commanded.owner("round show 2").await["why"], "operator");
        commanded.stop().await;
        assert_eq!(commanded.ordered(), expected);
    })
    .await;
}

#[tokio::test]
async fn a_release_that_cannot_be_rolled_out_is_refused_with_what_is_wrong() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        for notes in ["two", "three"] {
            commanded.owner(&format!("release create --notes {notes}")).await;
        }
        let deleted = commanded.here("release delete 1 --yes --json").await;
        assert_eq!(deleted.json(), json!({ "deleted": 1 }));
        let refused = async |line: &str| {
            let Told { code, err, .. } = commanded.by("operator", line).await;
            assert_eq!(code, 1, "{line}: {err}");
            err
        };
        assert!(refused("rollout start 9").await.contains("there is no release 9; `coordinator release list`"));
        assert!(refused("rollout start 1").await.contains("release 1 was deleted"));
        commanded.owner("rollout start 3 --stages 100%:1h").await;
        assert!(refused("rollout start 2").await.contains("channel stable has rollout 1, which is soaking"));
        assert_eq!(commanded.owner("rollout promote 1").await["phase"], "completed");
        let older = refused("rollout start 2").await;
        assert!(older.contains("channel stable has release 3 already, release 2 is older"), "{older}");
        assert!(refused("rollout pause 1").await.contains("rollout 1 is completed, it cannot be told to pause"));
        assert!(refused("rollout status 7").await.contains("there is no rollout 7; `rollout history` lists them"));

        // What a rollout needs is not deleted, whether the coordinator is asked or the store.
        commanded.owner("rollout start 2 --channel beta --stages 100%:1h").await;
        for _ in ["asked", "read"] {
            let kept = commanded.here("release delete 3 --yes").await;
            assert!(kept.code == 1 && kept.err.contains("channel stable has it, by rollout 1"), "{kept:?}");
            let kept = commanded.here("release delete 2 --yes").await;
            assert!(kept.code == 1 && kept.err.contains("rollout 2 to beta is soaking with it"), "{kept:?}");
            if commanded.serving.is_some() {
                commanded.stop().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_watched_rollout_ends_the_command_with_how_it_ended() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        let watched = async || commanded.by("viewer", "rollout status --watch --json").await;
        commanded.owner("rollout start 1 --channel one --stages 50%:1h,100%:1h").await;
        let promoted = async {
            commanded.owner("rollout promote 1").await;
            commanded.owner("rollout promote 1").await
        };
        let (told, _) = tokio::join!(watched(), promoted);
        assert_eq!(told.code, 0, "{}", told.err);
        let last: Value = serde_json::from_str(told.out.lines().last().unwrap()).unwrap();
        assert_eq!(last["phase"], "completed");
        for (channel, verb, code) in [("two", "pause", 5), ("three", "abort --yes", 4), ("four", "rollback --yes", 4)] {
            let number = commanded.owner(&format!("rollout start 1 --channel {channel}")).await["number"].clone();
            let (verb, sure) = verb.split_once(' ').unwrap_or((verb, ""));
            commanded.owner(format!("rollout {verb} {number} {sure}").trim_end()).await;
            assert_eq!(watched().await.code, code, "{verb}");
        }
        assert_eq!(commanded.by("viewer", "rollout status 3").await.code, 0, "who does not watch is only told");
        commanded.stop().await;
        let told = commanded.here("rollout status 3 --json").await;
        assert_eq!((told.code, told.out.contains("\"aborted\"")), (3, true), "{}", told.err);
    })
    .await;
}

#[tokio::test]
async fn labels_lead_to_another_channel_and_tokens_let_workers_in() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        assert_eq!(commanded.owner("rollout start 1 --stages 100%:1h").await["meant"], 2);
        let row = commanded.owner("worker label w1 channel=beta region=eu").await;
        assert_eq!(row["labels"], json!({ "channel": "beta", "region": "eu" }));
        assert_eq!(commanded.owner("rollout status").await["meant"], 1);
        let row = commanded.owner(&format!("worker label {} region=", worker(1).id())).await;
        assert_eq!(row["labels"], json!({ "channel": "beta" }));
        let beta = commanded.owner("rollout start 1 --channel beta --stages 100%:1h").await;
        assert_eq!((&beta["meant"], &beta["number"]), (&json!(1), &json!(2)));

        let tokens = commanded.owner("worker token 2").await;
        let tokens = tokens["tokens"].as_array().unwrap();
        assert_eq!(tokens.len(), 2);
        for (n, token) in (7..).zip(tokens) {
            let mut late = Worker::connect(n, commanded.serving()).await;
            let token = token.as_str().unwrap().parse().unwrap();
            late.say(&Message::Enroll(Enroll { token, name: format!("late-{n}") })).await;
            assert!(matches!(late.hear().await, Some(Message::Enrolled(_))));
        }
        let row = commanded.owner("worker show late-8").await;
        assert_eq!((&row["key"], &row["standing"]), (&json!(worker(8).id()), &json!("admitted")));
        commanded.stop().await;
    })
    .await;
}

#[tokio::test]
async fn commands_end_with_the_code_that_help_documents() {
    in_time(async {
        let (mut commanded, _workers) = begun().await;
        let path = commanded.path().to_owned();
        let code = async |line: &str, code: i32, said: &str| {
            let told = command(&path, line).await;
            assert_eq!(told.code, code, "{line}: {told:?}");
            assert!(told.err.contains(said), "{line}: {}", told.err);
        };
        code("run status", 2, "--config and --admin is missing; name either").await;
        code("run status --config coordinator.toml --admin viewer/admin.toml", 2, "are both there").await;
        code("run set --admin owner/admin.toml", 2, "there is nothing to set; name at least one of --rounds").await;
        code("release show 1 --admin owner/admin.toml", 2, "release show needs the coordinator's own files").await;
        code("release delete 1 --admin owner/admin.toml", 2, "in place of --admin").await;
        code("worker label w1 beta --admin owner/admin.toml", 2, "label \"beta\" has no `=`").await;
        code("rollout start 1 --stage 200%:1m --admin owner/admin.toml", 2, "share \"200%\" is out of bounds").await;
        code("rollout start 1 --stage 5%:10 --admin owner/admin.toml", 2, "\"10\" is no length of time").await;
        code("rollout start 1 --stages 5%:1m --admin owner/admin.toml", 2, "the last stage has a share of 50000").await;
        code("rollout start 1 --patience x --admin owner/admin.toml", 2, "\"x\" is no length of time").await;
        code("worker token 10001 --admin owner/admin.toml", 2, "1..=10000").await;
        code("schema nothing", 2, "there is no schema \"nothing\"").await;
        code("worker revoke w1 --admin owner/admin.toml", 1, "add --yes").await;
        code("round abandon --admin owner/admin.toml", 1, "add --yes").await;
        code("round show 77 --admin viewer/admin.toml", 1, "round 77 is not known, the latest is 1").await;
        code("run set --rounds 0 --admin owner/admin.toml", 1, "rounds is 0").await;
        code("run status --admin none.toml", 1, "none.toml: ").await;
        code("run status --admin viewer/admin.toml --address nowhere", 1, "cannot be resolved; write HOST:PORT").await;

        // A key that no [[admins]] has is told its public half.
        let key = coordinator_key();
        let init = format!("admin init stranger --address {} --coordinator-key {key}", commanded.serving().address);
        code(&init, 0, "").await;
        code("run status --admin stranger/admin.toml", 6, "add it to its [[admins]]").await;
        let why = "x".repeat(2000);
        let told = command_of(&path, &["run", "pause", "--why", &why, "--admin", "owner/admin.toml"]).await;
        assert!(told.code == 1 && told.err.contains("2000") && told.err.contains("1024"), "{told:?}");
        commanded.stop().await;
        for question in ["run status", "round list", "round show 1", "worker show w1", "rollout history"] {
            let told = commanded.here(question).await;
            assert_eq!((told.code, told.err.contains("this is what the store holds")), (3, true), "{told:?}");
        }
        code("top --config coordinator.toml --address 127.0.0.1:0", 1, "no coordinator answers").await;
        let nobody = "run pause --config coordinator.toml --address 127.0.0.1:0";
        code(nobody, 1, "only the one that serves changes anything").await;
    })
    .await;
}

fn coordinator_key() -> String {
    crate::served::coordinator().id().to_string()
}

#[tokio::test]
async fn a_key_is_made_once_and_its_table_is_what_a_configuration_takes() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let key = async || command(folder.path(), "admin key a.key --name ann --role operator --json").await.json();
        let made = key().await;
        assert_eq!(key().await, made, "it is kept");
        let table: toml::Table = made["table"].as_str().unwrap().parse().unwrap();
        let admin = &table["admins"][0];
        assert_eq!((admin["name"].as_str(), admin["role"].as_str()), (Some("ann"), Some("operator")));
        assert_eq!(admin["key"].as_str(), made["public_key"].as_str());
        let init = format!("admin init . --address here --coordinator-key {}", coordinator_key());
        let told = command(folder.path(), &init).await;
        assert!(told.code == 1 && told.err.contains("\"here\" has no port; write HOST:PORT"), "{told:?}");
        let init = init.replace("here", "here:1");
        assert_eq!(command(folder.path(), &init).await.code, 0);
        let again = command(folder.path(), &init).await;
        assert!(again.code == 1 && again.err.contains("is there; name another folder"), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn a_configuration_is_checked_with_all_that_it_names() {
    in_time(async {
        let mut commanded = Commanded::start(1);
        let check = async || {
            let told = command(commanded.path(), "config check --json").await;
            (told.code, serde_json::from_str::<Value>(&told.out).unwrap())
        };
        let (code, found) = check().await;
        assert_eq!((code, &found["ok"]), (0, &json!(true)), "{found}");
        assert!(found["checks"][2]["detail"].as_str().unwrap().contains("is in use"), "{found}");
        commanded.stop().await;
        let check = async || {
            let told = command(commanded.path(), "config check --json").await;
            (told.code, serde_json::from_str::<Value>(&told.out).unwrap())
        };
        let (code, found) = check().await;
        assert_eq!(code, 0, "{found}");
        assert!(found["checks"][2]["detail"].as_str().unwrap().starts_with("version 0 of 1, 2 workers"), "{found}");
        let path = commanded.path().join("coordinator.toml");
        std::fs::rename(commanded.path().join("coordinator.key"), commanded.path().join("away.key")).unwrap();
        let (code, found) = check().await;
        assert_eq!((code, &found["checks"][1]["ok"]), (1, &json!(false)));
        assert!(found["checks"][1]["detail"].as_str().unwrap().contains("coordinator.key"), "{found}");
        let text = std::fs::read_to_string(&path).unwrap().replace("batch = 8", "batch = 0");
        std::fs::write(&path, text).unwrap();
        let (code, found) = check().await;
        let detail = found["checks"][0]["detail"].as_str().unwrap();
        assert_eq!((code, found["checks"].as_array().unwrap().len()), (1, 1));
        assert!(detail.starts_with("coordinator.toml: training batch is 0, allowed is 1 to"), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn completions_and_manual_pages_are_of_every_command() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            let told = command(folder.path(), &format!("completions {shell}")).await;
            assert!(told.code == 0 && told.out.contains("rollout") && told.out.contains("abandon"), "{shell}");
        }
        assert_eq!(command(folder.path(), "completions tcsh").await.code, 2);
        assert_eq!(command(folder.path(), "man pages").await.code, 0);
        for page in ["coordinator", "coordinator-worker-label", "coordinator-rollout-start", "coordinator-config-check"]
        {
            let text = std::fs::read_to_string(folder.path().join(format!("pages/{page}.1"))).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        let named = |name: &str| std::fs::read_to_string(folder.path().join("pages").join(name)).unwrap();
        assert!(named("coordinator-rollout.1").contains("4 rolled back or aborted"), "examples and codes are there");
    })
    .await;
}
