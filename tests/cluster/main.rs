//! Presence over several nodes, from outside: real hub processes, real NATS servers, real sockets.
//!
//! The scenarios are those of docs/cluster.md. Each test is the short form of one; `long_form` runs the long forms and prints a
//! table. `tests/cluster/run` runs both.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a panic here is a failed test")]
#![expect(clippy::disallowed_methods, reason = "plain queues and locks of tests")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]
#![expect(clippy::print_stdout, reason = "a table of figures, and the seeds of randomized tests")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]

mod cluster;
mod docs;
mod figure;
mod load;
mod log_away;
mod member;
mod nats;
mod proxy;
mod scenarios;
mod secrets;
mod settings;
mod spy;
#[path = "../hub/support/mod.rs"]
#[allow(dead_code, reason = "helpers of the hub's tests, of which this uses some")]
mod support;

use figure::{Figure, Scale, table};
use scenarios::{ALL, agree, chaos, erase, hubs, join, links, log, moves, samples, servers};

#[tokio::test(flavor = "multi_thread")]
async fn all_sockets_of_all_nodes_agree_with_a_model() {
    agree::agree(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn join_flood_over_three_nodes_is_counted_exactly() {
    agree::flood(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn person_on_two_nodes_counts_once_with_the_later_mood() {
    moves::two_places(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_node_is_seen_by_no_other_member() {
    moves::hop(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_is_a_flat_line_for_every_member() {
    moves::rolling(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_killed_hub_are_out_after_15_s_and_not_before() {
    hubs::kill_hub(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_that_hangs_delays_no_count_and_is_named() {
    hubs::stop_hub(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn death_of_a_nats_server_changes_no_count() {
    servers::kill_nats(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_server_that_hangs_is_noticed_and_left() {
    servers::stop_nats(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_without_nats_at_its_start_is_alone_until_nats_is_there() {
    servers::late_nats(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_is_reported_and_heals_without_joins() {
    links::split(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mood_from_before_a_partition_does_not_come_back() {
    links::stale_mood(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_behind_a_long_link_agrees_and_is_healthy() {
    links::far(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_mood_counts_although_a_clock_is_ahead() {
    links::skew(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_for_the_events_of_all() {
    log::events(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_acked_while_a_server_of_the_log_is_dead() {
    log::kill_log(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_acked_without_a_log_and_are_everywhere_later() {
    log::no_quorum(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_lost_log_are_published_again() {
    log::log_lost(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_report_a_file_with_other_records_until_it_joins_again() {
    log::differ(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_has_each_presence_sample_once() {
    samples::samples(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_visitor_is_in_no_file_of_any_node_and_not_in_the_log() {
    erase::erase(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn import_on_one_node_reaches_all_nodes() {
    log::import(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_gets_the_events_of_all_nodes_and_answers_for_them() {
    log::replica(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acked_events_survive_random_faults_of_hubs_and_servers() {
    chaos::chaos(Scale::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_joins_under_load_has_what_all_have() {
    join::join(Scale::Short).await;
}

/// `ONLY` has the names of the scenarios to run; all by default.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: make cluster-test"]
async fn long_form() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut figures: Vec<Figure> = Vec::new();
    for (name, run) in ALL {
        if only.is_empty() || only.split(',').any(|wanted| wanted == name) {
            let measured = run(Scale::Long).await;
            println!("{name}: passed\n{}", table(&measured));
            figures.extend(measured);
        }
    }
    println!("\n{}", table(&figures));
    assert!(figures.iter().all(Figure::is_within_bar), "a bar is missed");
}
