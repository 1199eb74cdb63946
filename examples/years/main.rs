//! Years: generates a realistic history and commits it as the hub does.
//!
//! ```sh
//! cargo run --release --example years -- --page-views 1000000
//! ```
//!
//! With `--day-of-paths 1000000` it commits one day with that many distinct paths, and prints what the last part costs.
//!
//! It writes to `DATABASE_URL` with the real store, in batches of 10,000 page views and the other events of the same time,
//! and prints the time that it took. The same seed gives the same history. `random.rs` has the random numbers,
//! `generator.rs` the rooms, pages and visitors, and their events of each hour.

#![expect(clippy::indexing_slicing, reason = "indices in range: a tool may panic")]

mod generator;
mod random;

use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use breathing_room::config::Clock;
use breathing_room::internals::{Batch, Store, quarters_from};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};

use generator::Generator;

/// Generates a realistic history at `DATABASE_URL`.
#[derive(Debug, Parser)]
struct Settings {
    /// The SQLite file; created if missing
    #[arg(long, env, value_name = "URL", default_value = "sqlite://data/years.db")]
    database_url: String,
    /// Number of page views
    #[arg(long, value_name = "NUMBER", default_value = "1000000")]
    page_views: u64,
    /// Number of months, up to now
    #[arg(long, value_name = "NUMBER", default_value = "12", value_parser = clap::value_parser!(u64).range(1..=120))]
    months: u64,
    /// Number of rooms
    #[arg(long, value_name = "NUMBER", default_value = "40", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Number of paths
    #[arg(long, value_name = "NUMBER", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..))]
    paths: u32,
    /// Number of visitors
    #[arg(long, value_name = "NUMBER", default_value = "200000", value_parser = clap::value_parser!(u32).range(1..))]
    visitors: u32,
    /// The seed; the same seed gives the same history
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// No watch sessions and no presence, to measure the cost of page views
    #[arg(long)]
    only_page_views: bool,
    /// Instead of months, one day of page views with this many distinct paths
    #[arg(long, value_name = "NUMBER", conflicts_with = "months")]
    day_of_paths: Option<u32>,
    /// Page views per transaction
    #[arg(long, value_name = "NUMBER", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    let store = Store::open(&settings.database_url).await?;
    let now = Clock::system().wall();
    store.begin_quarters(quarters_from(now)).await?;
    let mut writer = Writer { store, size: settings.batch, waiting: Batch::default(), cost: Cost::default() };
    let mut generator = Generator::new(&settings, now);
    match settings.day_of_paths {
        Some(paths) => day_of_paths(&mut writer, &mut generator, paths, settings.page_views).await?,
        None => {
            while let Some(hour) = generator.next_hour()? {
                writer.add(hour).await?;
            }
        }
    }
    writer.commit().await?;
    writer.store.close().await;
    writeln!(std::io::stdout(), "{}", writer.cost)?;
    Ok(())
}

/// Commits a day of page views whose paths repeat after `paths`, and prints the cost of the last tenth.
async fn day_of_paths(
    writer: &mut Writer,
    generator: &mut Generator,
    paths: u32,
    page_views: u64,
) -> Result<(), Box<dyn Error>> {
    let mut before = Cost::default();
    for n in 0..page_views {
        if n == page_views - page_views / 10 {
            before = writer.cost.clone();
        }
        writer.add(generator.view_of_day(n, page_views, paths)?).await?;
    }
    writer.commit().await?;
    let last = writer.cost.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
    let views = writer.cost.page_views - before.page_views;
    writeln!(std::io::stdout(), "the last {views} page views: {:.2} µs of CPU each", last / views as f64)?;
    Ok(())
}

/// Commits batches to the store and measures the cost.
struct Writer {
    store: Store,
    size: u64,
    waiting: Batch,
    cost: Cost,
}

impl Writer {
    async fn add(&mut self, events: Batch) -> Result<(), Box<dyn Error>> {
        self.waiting.append(events);
        if self.waiting.page_views.len() as u64 >= self.size {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Box<dyn Error>> {
        let batch = std::mem::take(&mut self.waiting);
        let (started, cpu) = (Instant::now(), cpu());
        self.store.commit(&batch).await?;
        self.cost.add(&batch, started.elapsed(), self::cpu().saturating_sub(cpu));
        Ok(())
    }
}

/// The cost of all commits, with everything that the store does.
#[derive(Debug, Clone, Default)]
struct Cost {
    batches: u64,
    page_views: u64,
    watches: u64,
    samples: u64,
    time: Duration,
    cpu: Duration,
}

impl Cost {
    fn add(&mut self, batch: &Batch, time: Duration, cpu: Duration) {
        self.batches += 1;
        self.page_views += batch.page_views.len() as u64;
        self.watches += batch.watches.len() as u64;
        self.samples += batch.sample_count() as u64;
        self.time += time;
        self.cpu += cpu;
        if self.batches.is_multiple_of(100) {
            // A closed standard error does not stop the run.
            let _ = writeln!(std::io::stderr(), "{self}");
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches, page_views, watches, samples, time, cpu } = self;
        let events = page_views + watches + samples;
        write!(
            f,
            "{page_views} page views, {watches} watch sessions, {samples} presence samples in {batches} "
        )?;
        write!(f, "transactions: {:.1} s, {:.1} s of CPU, ", time.as_secs_f64(), cpu.as_secs_f64())?;
        write!(f, "{:.2} µs of CPU per event", cpu.as_secs_f64() * 1e6 / events as f64)
    }
}

/// CPU time of this process, all threads together.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
