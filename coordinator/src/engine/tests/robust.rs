//! Rounds under rules that bear liars: what is asked for when, what becomes of late workers, and what liars change.

use packfed_protocol::{LaneClips, Timestamp, UpdateHeader};

use super::fleet::Fleet;
use crate::aggregation::{Aggregation, AggregationTask, RobustRule, Rule};
use crate::event::{Effect, Event, Ticket, Write};
use crate::plan::RawPlan;
use crate::status::StatusStage;
use crate::store::Store;

const RULES: [RobustRule; 3] = [
    RobustRule::Median,
    RobustRule::TrimmedMean { trim: 0.34 },
    RobustRule::MultiKrum { malicious_max: 0, selected: None },
];

fn under(rule: RobustRule) -> impl FnOnce(&mut RawPlan) {
    move |raw| {
        raw.aggregation = Aggregation { rule: Rule::Robust(rule), clip_norm: None };
        (raw.selection.min, raw.reporting.min) = (3, 3);
    }
}

/// A fleet whose whole cohort is drawn for round 1.
fn opened(n: u32, change: impl FnOnce(&mut RawPlan)) -> Fleet {
    let mut fleet = Fleet::of(n, change);
    fleet.check_in_all(0..n as usize);
    fleet
}

#[test]
fn the_rule_is_asked_for_when_everything_is_stored_and_its_answer_commits() {
    for rule in RULES {
        let mut fleet = opened(3, under(rule));
        fleet.report(2);
        fleet.report(0);
        let last = [
            "store accept 1 into 1",
            "verdict accepted",
            "aggregate 3 of 1",
            "store commit 1 as version 1",
            "wake 1000",
        ];
        assert_eq!(fleet.report(1), last);
        let summary = fleet.disk.stored.last.unwrap();
        assert_eq!((summary.updates, summary.examples, summary.train_loss), (3, 3 + 10 + 17, 0.5), "the median loss");
    }
}

/// What is asked for when the last update comes; nobody answers.
fn asked(fleet: &mut Fleet) -> Box<AggregationTask> {
    fleet.answers = false;
    let mut task = None;
    for i in fleet.drawn() {
        let update = fleet.update(i);
        let effects = fleet.engine.clone().handle(Event::Update { ticket: Ticket(0), update }, fleet.now);
        task = effects.into_iter().find_map(|effect| match effect {
            Effect::Aggregate(task) => Some(task),
            _ => None,
        });
        fleet.report(i);
        if task.is_some() {
            break;
        }
    }
    task.expect("the goal asks for the rule")
}

/// The same, and the answer.
fn waiting(fleet: &mut Fleet) -> Event {
    asked(fleet).answer(&fleet.disk.journal)
}

#[test]
fn while_the_rule_is_at_work_nothing_of_the_round_changes() {
    let mut fleet = opened(4, |raw| {
        under(RobustRule::Median)(raw);
        raw.reporting.goal = 3;
        raw.over_selection = 1;
    });
    let late = *fleet.drawn().last().unwrap();
    let (late_update, again) = (fleet.update(late), fleet.update(fleet.drawn()[0]));
    let answer = waiting(&mut fleet);
    assert_eq!(fleet.engine.status().stage, StatusStage::Aggregating { round: 1, reports: 3 });
    assert_eq!(fleet.engine.deadline(), None, "no time-out ends it");
    assert_eq!(fleet.tick_to(100_000), [""; 0]);
    assert_eq!(fleet.send(late_update), ["verdict discarded"]);
    assert_eq!(fleet.send(again), ["verdict rejected replayed"]);
    assert_eq!(fleet.check_in(late), [format!("store members {late}")], "it waits for the next round");
    assert_eq!(fleet.handle(answer.clone()), ["store commit 1 as version 1", "wake 101000"]);
    assert_eq!(fleet.handle(answer), [""; 0], "a second answer is of no interest");
}

#[test]
fn a_process_that_dies_over_the_rule_asks_again_and_ends_in_the_same_model() {
    for rule in RULES {
        let mut whole = opened(4, under(rule));
        (0..4).for_each(|i| drop(whole.report(i)));
        let mut fleet = opened(4, under(rule));
        let answer = waiting(&mut fleet);
        fleet.restart();
        fleet.answers = true;
        assert_eq!(fleet.handle(answer)[0], "aggregate 4 of 1", "the old answer came too early");
        assert_eq!(fleet.disk.stored.head, whole.disk.stored.head, "{rule:?}");
    }
}

#[test]
fn a_journal_that_holds_other_words_ends_the_round_and_not_the_process() {
    let mut fleet = opened(3, under(RobustRule::Median));
    let other = fleet.mangled(2, |_, payload| payload[0] ^= 1);
    let task = asked(&mut fleet);
    let (round, worker) = (other.header().round, other.header().worker);
    fleet.disk.journal.write(&Write::Accept { round, worker, frame: other.frame() }).unwrap();
    let error = task.run(&fleet.disk.journal).unwrap_err().to_string();
    let expected = format!("aggregation of round 1: the journalled update of worker {worker} has digest ");
    assert!(error.starts_with(&expected), "{error}");
    let event = task.answer(&fleet.disk.journal);
    assert_eq!(fleet.handle(event), ["store abandon 1", "wake 1000"]);
    assert_eq!(fleet.engine.counters().abandoned["fault"], 1);
    fleet.answers = true;
    fleet.whole_round();
    assert_eq!(fleet.engine.head().version(), 1, "the next round has the same base");
}

/// The head after one round in which the workers report in an order.
fn committed(rule: RobustRule, order: [usize; 4]) -> crate::head::HeadRecord {
    let mut fleet = opened(4, under(rule));
    order.into_iter().for_each(|i| drop(fleet.report(i)));
    assert_eq!(fleet.engine.head().version(), 1);
    fleet.disk.stored.head
}

#[test]
fn the_order_of_arrival_does_not_change_the_model() {
    for rule in RULES {
        let first = committed(rule, [0, 1, 2, 3]);
        for order in [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            assert_eq!(committed(rule, order), first, "{rule:?} {order:?}");
        }
    }
}

/// The head after a round of five in which worker 4 says and sends this.
fn attacked(aggregation: Aggregation, lie: impl FnOnce(&mut UpdateHeader, &mut Vec<u8>)) -> Fleet {
    let mut fleet = opened(5, |raw| {
        (raw.selection.min, raw.reporting.min) = (5, 5);
        raw.aggregation = aggregation;
        raw.levels = 32.0;
    });
    (0..4).for_each(|i| drop(fleet.report(i)));
    let update = fleet.mangled(4, lie);
    fleet.send(update);
    assert_eq!(fleet.engine.head().version(), 1);
    fleet
}

#[test]
fn a_claim_of_examples_moves_the_mean_alone() {
    let claim = |header: &mut UpdateHeader, _: &mut Vec<u8>| header.examples = 100;
    for rule in [Rule::Mean, Rule::Robust(RobustRule::Median), Rule::Robust(RULES[1]), Rule::Robust(RULES[2])] {
        let aggregation = Aggregation { rule, clip_norm: None };
        let [honest, lying] = [attacked(aggregation, |_, _| {}), attacked(aggregation, claim)];
        assert_eq!(honest.digest() == lying.digest(), rule != Rule::Mean, "{rule:?}");
    }
}

#[test]
fn what_a_liar_says_of_clipping_moves_the_scales_under_the_mean_alone() {
    let all_clipped = |header: &mut UpdateHeader, _: &mut Vec<u8>| {
        header.clipped = vec![LaneClips { wave: 8, residual: 32 }, LaneClips { wave: 4, residual: 5 }];
    };
    for (aggregation, moves) in [
        (Aggregation::MEAN, true),
        (Aggregation { rule: Rule::Mean, clip_norm: Some(1e6) }, false),
        (Aggregation { rule: Rule::Robust(RobustRule::Median), clip_norm: None }, false),
        (Aggregation { rule: Rule::Robust(RobustRule::TrimmedMean { trim: 0.2 }), clip_norm: None }, false),
        (
            Aggregation {
                rule: Rule::Robust(RobustRule::MultiKrum { malicious_max: 1, selected: None }),
                clip_norm: None,
            },
            false,
        ),
    ] {
        let [honest, lying] = [attacked(aggregation, |_, _| {}), attacked(aggregation, all_clipped)];
        assert_eq!(honest.engine.scales != lying.engine.scales, moves, "{aggregation:?}");
    }
}

#[test]
fn an_update_of_random_words_is_not_among_those_that_krum_keeps() {
    let rule = Rule::Robust(RobustRule::MultiKrum { malicious_max: 1, selected: Some(4) });
    let far = |_: &mut UpdateHeader, payload: &mut Vec<u8>| {
        // x and y at an end of their range, in every block.
        payload
            .as_chunks_mut::<16>()
            .0
            .iter_mut()
            .for_each(|word| word[..4].copy_from_slice(&[0xff, 0x7f, 0x01, 0x80]));
    };
    let aggregation = Aggregation { rule, clip_norm: None };
    let [one, other] = [
        attacked(aggregation, far),
        attacked(aggregation, |header, payload| {
            far(header, payload);
            payload[4] ^= 0x70;
        }),
    ];
    assert_eq!(one.digest(), other.digest(), "what it says does not show");
}

#[test]
fn a_long_update_is_shrunk_to_the_norm_under_the_mean() {
    let mean = |clip_norm| {
        attacked(Aggregation { rule: Rule::Mean, clip_norm }, |header, payload| {
            header.examples = 100;
            payload
                .as_chunks_mut::<16>()
                .0
                .iter_mut()
                .for_each(|word| word[..4].copy_from_slice(&[0xff, 0x7f, 0xff, 0x7f]));
        })
    };
    let reach = |fleet: &Fleet| {
        let state = fleet.engine.head().state();
        (0..state.layout().lanes()).map(|lane| state.value(lane).powi(2)).sum::<f64>().sqrt()
    };
    let (loose, tight) = (mean(None), mean(Some(0.25)));
    assert!(reach(&loose) > 1.0, "{}", reach(&loose));
    assert!(reach(&tight) < 0.26, "a mean is no longer than its longest update: {}", reach(&tight));
    assert_eq!(mean(Some(1e9)).digest(), loose.digest(), "a norm that nobody reaches changes nothing");
    assert_eq!(loose.now, Timestamp(0));
}
