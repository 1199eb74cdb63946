//! Seats: the live side's people go into the database at the end, and back at the next start.
//!
//! So a deploy is not seen in the counts: whoever was here is still here when the new hub opens, and is
//! counted out only where they do not come back in time. Here both wings meet, and know nothing of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::clock::{Clock, millis};
use crate::history::Store;
use crate::history::store::Seat;
use crate::live::{Hold, Hub, Person};

/// Who is here now, with seats that are held for so long from now on.
#[must_use]
pub fn of(hub: &Hub, clock: &Clock, hold: Duration) -> Vec<Seat> {
    let held_until = clock.wall().plus(millis(hold));
    let seat = |Person { room, visitor, mood }| {
        let mood = mood.and_then(|mood| hub.vocabulary().name(mood)).map(str::to_owned);
        Seat { room, visitor, mood, held_until }
    };
    hub.people().into_iter().map(seat).collect()
}

/// Saves these seats for the next start.
pub async fn save(store: &Store, seats: &[Seat]) {
    if seats.is_empty() {
        return;
    }
    match store.save_seats(seats).await {
        Ok(()) => info!(seats = seats.len(), "saved who was here, for the next start"),
        Err(error) => warn!(%error, "cannot save who was here: the next start counts everybody anew"),
    }
}

/// Holds the seats that the last hub saved, each until its time is over. Nobody has come yet.
pub async fn hold(hub: &Arc<Hub>, store: &Store, clock: &Clock, longest: Duration) {
    let seats = match store.take_seats().await {
        Ok(seats) => seats,
        Err(error) => return warn!(%error, "cannot read who was here before: everybody is counted anew"),
    };
    let (now, wall) = (Instant::now(), clock.wall());
    let mut holds: Vec<(Instant, Hold)> = Vec::new();
    for seat in seats {
        let left = Duration::from_millis(seat.held_until.millis().saturating_sub(wall.millis()));
        let mood = seat.mood.and_then(|name| hub.vocabulary().find(&name));
        // Where the wall clock was set back, no seat is held for longer than it should be.
        let left = left.min(longest);
        if !left.is_zero()
            && let Ok(hold) = hub.hold(&seat.room, &seat.visitor, mood)
        {
            holds.push((now + left, hold));
        }
    }
    if holds.is_empty() {
        return;
    }
    info!(seats = holds.len(), "holding the seats of those who were here before");
    holds.sort_by_key(|(until, _)| *until);
    tokio::spawn(async move {
        for (until, hold) in holds {
            sleep_until(until).await;
            drop(hold);
        }
    });
}
