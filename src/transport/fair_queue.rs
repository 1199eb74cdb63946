//! The fair queue: an address that sends much does not delay those that send little.
//!
//! The runtime runs ready tasks in the order in which they woke up. So a message would wait for all that arrived before it,
//! those of a thousand sockets of one address included. Each address has a rate of reads and requests that are handled at
//! once. What is beyond it waits here. A task wakes a few of it at a time and yields in between, so that the runtime
//! handles what has arrived meanwhile first. Nothing is rejected here, and on an idle hub nothing waits.

use std::collections::VecDeque;
use std::mem::replace;
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

use super::rate::BURST_SECONDS;
use crate::address::Address;
use crate::address_rate::AddressRate;
use crate::panics::Panics;
use crate::sync::lock;
use crate::time::Clock;

/// Reads and requests of one address a second that do not wait: of a hundred people who send a message every five seconds.
/// Under the attacks of `make bench ARGS=--hostile` from 50 addresses, a change reaches honest members within 5.1 to 7.1 ms,
/// p99, and within 6.8 to 10.6 ms without the queue (1.6 to 2.1 ms in a quiet minute).
const IMMEDIATE: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// How many are woken between two yields.
const AT_ONCE: usize = 4;

/// The most places, those of what has left included: 1 MiB. Beyond it, nothing waits.
const PLACES: usize = 65_536;

/// What waits, of all addresses.
#[derive(Debug)]
pub(super) struct FairQueue {
    immediate: AddressRate,
    panics: Panics,
    /// Held for O(1), or for the empty places at the front.
    queue: Mutex<Queue>,
}

/// First in, first out. A socket or a request has one place at most.
#[derive(Debug, Default)]
struct Queue {
    /// `None` for what has left.
    waiting: VecDeque<Option<Waker>>,
    /// The places that are over. Those in `waiting` have the next numbers.
    over: u64,
    /// Whether a task wakes what waits.
    is_running: bool,
}

/// The place of one socket or request, if it waits. It leaves the queue with [`FairQueue::leave`].
#[derive(Debug, Default)]
pub(super) struct Place(Option<NonZeroU64>);

impl FairQueue {
    /// An empty queue.
    pub(super) fn new(clock: &Clock, panics: Panics) -> Arc<Self> {
        let immediate = AddressRate::new(IMMEDIATE, BURST_SECONDS, clock);
        Arc::new(Self { immediate, panics, queue: Mutex::default() })
    }

    /// Ready when what has this place may be handled. Takes a place if it has none and its address is over the rate.
    pub(super) fn poll_turn(
        self: &Arc<Self>,
        address: Address,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if place.0.is_none() && self.immediate.allows(address, NonZeroU32::MIN) {
            return Poll::Ready(());
        }
        let mut queue = lock(&self.queue);
        let is_full = queue.waiting.len() >= PLACES;
        match place.0.map(|number| queue.waker(number)) {
            None if is_full => Poll::Ready(()),
            None => {
                place.0 = Some(queue.push(cx.waker().clone()));
                if !replace(&mut queue.is_running, true) {
                    drop(self.panics.spawn(Arc::clone(self).run()));
                }
                Poll::Pending
            }
            // It was woken for another reason.
            Some(Some(waker)) => {
                waker.clone_from(&Some(cx.waker().clone()));
                Poll::Pending
            }
            Some(None) => {
                place.0 = None;
                Poll::Ready(())
            }
        }
    }

    /// Gives up a place, so that the task behind it can be freed.
    pub(super) fn leave(&self, place: &mut Place) {
        if let Some(number) = place.0.take()
            && let Some(waker) = lock(&self.queue).waker(number)
        {
            *waker = None;
        }
    }

    /// Drops the state of addresses that have sent nothing lately.
    pub(super) fn remove_idle(&self) {
        self.immediate.remove_idle();
    }

    /// Wakes what waits until there is nothing left.
    async fn run(self: Arc<Self>) {
        loop {
            yield_now().await;
            let next = lock(&self.queue).take_next();
            if next.is_empty() {
                return;
            }
            next.into_iter().for_each(Waker::wake);
        }
    }
}

impl Queue {
    fn push(&mut self, waker: Waker) -> NonZeroU64 {
        self.waiting.push_back(Some(waker));
        // The first number is 1.
        NonZeroU64::MIN.saturating_add(self.over + self.waiting.len() as u64 - 1)
    }

    /// The waker of a place that is not over.
    fn waker(&mut self, number: NonZeroU64) -> Option<&mut Option<Waker>> {
        let index = (number.get() - 1).checked_sub(self.over)?;
        self.waiting.get_mut(usize::try_from(index).ok()?)
    }

    /// Removes the first places, and returns their wakers. If there is none, the task that asks ends.
    fn take_next(&mut self) -> Vec<Waker> {
        let mut next = Vec::with_capacity(AT_ONCE);
        while next.len() < AT_ONCE
            && let Some(waker) = self.waiting.pop_front()
        {
            self.over += 1;
            next.extend(waker);
        }
        if next.is_empty() {
            self.is_running = false;
            self.waiting = VecDeque::new(); // the memory of a storm
        }
        next
    }
}

/// Waits for the turn of a request.
#[derive(Debug)]
pub(super) struct RequestTurn<'a> {
    queue: &'a Arc<FairQueue>,
    address: Address,
    place: Place,
}

impl<'a> RequestTurn<'a> {
    pub(super) fn new(queue: &'a Arc<FairQueue>, address: Address) -> Self {
        Self { queue, address, place: Place::default() }
    }
}

impl Future for RequestTurn<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { queue, address, place } = &mut *self;
        queue.poll_turn(*address, place, cx)
    }
}

impl Drop for RequestTurn<'_> {
    fn drop(&mut self) {
        self.queue.leave(&mut self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Wake;

    use futures_util::future::FutureExt;

    use super::*;
    use crate::protocol::Time;

    /// Its count says whether the queue still has it.
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    fn queue() -> Arc<FairQueue> {
        FairQueue::new(&Clock::manual(Time::from_millis(0)), Panics::register())
    }

    /// Waits until the queue's task has ended, which keeps no memory.
    async fn until_empty(queue: &FairQueue) {
        while lock(&queue.queue).is_running {
            yield_now().await;
        }
        assert_eq!(lock(&queue.queue).waiting.capacity(), 0);
    }

    fn address(last: u8) -> Address {
        std::net::IpAddr::from(Ipv4Addr::new(127, 0, 0, last)).into()
    }

    /// Uses up what an address may do at once.
    fn exhaust(queue: &Arc<FairQueue>, address: Address) {
        while queue.immediate.allows(address, NonZeroU32::MIN) {}
    }

    #[tokio::test]
    async fn address_over_its_rate_waits_and_others_do_not() {
        let queue = queue();
        exhaust(&queue, address(1));
        assert_eq!(RequestTurn::new(&queue, address(1)).now_or_never(), None);
        assert_eq!(RequestTurn::new(&queue, address(2)).now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn requests_over_the_rate_are_handled_in_order_a_few_at_a_time() {
        let queue = queue();
        exhaust(&queue, address(1));
        let handled = Arc::new(Mutex::new(Vec::new()));
        let requests = (0..3 * AT_ONCE).map(|number| {
            let (queue, handled) = (Arc::clone(&queue), Arc::clone(&handled));
            tokio::spawn(async move {
                RequestTurn::new(&queue, address(1)).await;
                lock(&handled).push(number);
            })
        });
        let requests: Vec<_> = requests.collect();
        let mut most_at_once = 0;
        while requests.iter().any(|request| !request.is_finished()) {
            let before = lock(&handled).len();
            yield_now().await;
            most_at_once = most_at_once.max(lock(&handled).len() - before);
        }
        assert_eq!(*lock(&handled), (0..3 * AT_ONCE).collect::<Vec<_>>());
        assert!(most_at_once <= 2 * AT_ONCE, "{most_at_once} without a yield in between");
        until_empty(&queue).await;
    }

    #[tokio::test]
    async fn queue_with_all_places_taken_lets_requests_pass() {
        let queue = queue();
        exhaust(&queue, address(1));
        lock(&queue.queue).waiting.resize_with(PLACES, || None);
        assert_eq!(RequestTurn::new(&queue, address(1)).now_or_never(), Some(()));
        lock(&queue.queue).waiting.pop_back();
        assert_eq!(RequestTurn::new(&queue, address(1)).now_or_never(), None);
    }

    #[tokio::test]
    async fn request_that_ends_while_it_waits_keeps_nothing_and_delays_no_other() {
        let queue = queue();
        exhaust(&queue, address(1));
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut ended = RequestTurn::new(&queue, address(1));
        assert!(ended.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(Arc::strong_count(&task), 3, "here, in the waker, and in the queue");
        drop(ended);
        assert_eq!(Arc::strong_count(&task), 2);
        RequestTurn::new(&queue, address(1)).await;
        until_empty(&queue).await;
    }
}
