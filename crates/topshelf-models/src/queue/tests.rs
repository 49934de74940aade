//! The queue before an encoder whose calls can be watched and held up.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::thread;

use super::*;
use crate::encoder::{Sequence, TokenBatch};

/// Sequences of these ids make a call panic or fail.
const PANICS: u32 = 1000;
const FAILS: u32 = 1001;

/// A request's end of the line.
type Answered<'q> = Pin<Box<dyn Future<Output = Result<Vec<f32>>> + Send + 'q>>;

/// Scores a sequence by its first id, notes the first ids of each call.
struct Machine {
    budget: usize,
    takes: Duration,
    calls: Arc<Mutex<Vec<Vec<u32>>>>,
    /// Told at the beginning of each call, which then waits for the other end.
    gate: Option<Mutex<(Sender<()>, Receiver<()>)>>,
}

impl Encoder for Machine {
    fn engine(&self) -> &'static str {
        "machine"
    }

    fn width(&self, _want: Output) -> Option<usize> {
        Some(1)
    }

    fn token_budget(&self) -> usize {
        self.budget
    }

    fn encode(&self, batch: &TokenBatch, _want: Output) -> Result<Vec<f32>> {
        let ids: Vec<u32> = (0..batch.len()).map(|index| batch.sequence(index).0[0]).collect();
        self.calls.lock().unwrap().push(ids.clone());
        if let Some(gate) = &self.gate {
            let gate = gate.lock().unwrap();
            // Errors once the test has let go of its ends: then nothing waits any more.
            let _ = gate.0.send(());
            let _ = gate.1.recv();
        }
        thread::sleep(self.takes);
        assert!(!ids.contains(&PANICS), "on purpose");
        if ids.contains(&FAILS) {
            let reason = "it fails".to_owned();
            return Err(ModelError::Inference { name: "m".to_owned(), reason });
        }
        Ok(ids.into_iter().map(|id| id as f32).collect())
    }
}

/// A queue before such a machine.
struct Bench {
    queue: Queue,
    calls: Arc<Mutex<Vec<Vec<u32>>>>,
    started: Receiver<()>,
    release: RefCell<Option<Sender<()>>>,
}

impl Bench {
    fn new(budget: usize) -> Self {
        Self::of(|calls| Machine { budget, takes: Duration::ZERO, calls, gate: None })
    }

    /// Each call waits to be released.
    fn gated(budget: usize) -> Self {
        let (started, has_started) = channel();
        let (release, released) = channel();
        let gate = Some(Mutex::new((started, released)));
        let bench = Self::of(|calls| Machine { budget, takes: Duration::ZERO, calls, gate });
        Self { started: has_started, release: RefCell::new(Some(release)), ..bench }
    }

    fn of(machine: impl FnOnce(Arc<Mutex<Vec<Vec<u32>>>>) -> Machine) -> Self {
        let calls = Arc::default();
        let machine = Arc::new(machine(Arc::clone(&calls)));
        let queue = Queue::start("m", machine, Output::Logits).unwrap();
        Self { queue, calls, started: channel().1, release: RefCell::default() }
    }

    /// Puts a request into the queue.
    fn ask(&self, work: Plain, deadline: Option<Instant>) -> Answered<'_> {
        let call = deadline.map_or_else(Call::new, |deadline| Call::new().due_at(deadline));
        let queue = &self.queue;
        let mut future: Answered<'_> = Box::pin(async move { queue.run(&call, work).await });
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        future
    }

    /// Holds the engine at a call of a request of its own.
    fn block(&self) -> Answered<'_> {
        let future = self.ask(plain(&[(7, 1)]), None);
        self.started.recv().unwrap();
        future
    }

    /// Lets all calls go on from now on.
    fn open(&self) {
        self.release.take();
    }

    fn calls(&self) -> Vec<Vec<u32>> {
        self.calls.lock().unwrap().clone()
    }

    fn counts(&self) -> QueueCounts {
        self.queue.stats().counts()
    }
}

/// Sequences whose scores are the answer.
#[derive(Default)]
struct Plain {
    sequences: Vec<Sequence>,
    leading: usize,
    /// How often it is read before it is read whole, and what is done then.
    portions: usize,
    on_read: Option<Box<dyn FnMut() + Send>>,
    panics_in_take: bool,
    panics_in_finish: bool,
    rows: Vec<f32>,
    taken: Vec<usize>,
}

/// A request of sequences of these ids and lengths.
fn plain(sequences: &[(u32, usize)]) -> Plain {
    let sequence = |&(id, length): &(u32, usize)| Sequence {
        ids: vec![id; length],
        type_ids: vec![0; length],
        unattended: 0,
    };
    Plain { sequences: sequences.iter().map(sequence).collect(), ..Plain::default() }
}

impl Piecework for Plain {
    type Answer = Vec<f32>;

    fn guess(&self) -> usize {
        self.sequences.iter().map(Sequence::len).sum()
    }

    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        assert!(*room > 0);
        if let Some(on_read) = &mut self.on_read {
            on_read();
        }
        if self.portions > 0 {
            self.portions -= 1;
            *room = 0;
            return Ok(None);
        }
        self.rows = vec![f32::NAN; self.sequences.len()];
        let all = std::mem::take(&mut self.sequences);
        Ok(Some(Sequences { all, leading: self.leading }))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        assert!(!self.panics_in_take, "in take");
        assert!(index < self.leading || self.taken.len() >= self.leading);
        assert_eq!((rows.len(), sequence.ids[0] as f32), (1, rows[0]));
        self.taken.push(index);
        self.rows[index] = rows[0];
        Ok(())
    }

    fn finish(self) -> Result<Vec<f32>> {
        assert!(!self.panics_in_finish, "in finish");
        Ok(self.rows)
    }
}

fn after(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

#[test]
fn alone_the_longest_go_first_and_the_answer_is_in_order() {
    let bench = Bench::new(100);
    let work = plain(&[(1, 20), (2, 90), (3, 30), (4, 60), (5, 300), (6, 20)]);
    assert_eq!(bench.queue.run_blocking(work).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(bench.calls(), [vec![5], vec![2], vec![4, 3], vec![1, 6]]);
    assert_eq!(bench.queue.run_blocking(plain(&[])).unwrap(), [0.0; 0]);
    let counts = bench.counts();
    assert_eq!((counts.waiting, counts.under_way, counts.tokens_ahead), (0, 0, 0));
    assert_eq!((counts.answered, counts.withdrawn), (2, 0));
    assert_eq!((counts.calls, counts.sequences, counts.tokens), (4, 6, 520));
    assert_eq!(counts.waits.iter().sum::<u64>(), 1);
}

#[test]
fn what_leads_comes_back_first_even_from_one_call() {
    let bench = Bench::new(100);
    let work = Plain { leading: 2, ..plain(&[(1, 5), (2, 9), (3, 40), (4, 60)]) };
    assert_eq!(bench.queue.run_blocking(work).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(bench.calls(), [vec![4, 2, 1], vec![3]]);
}

#[test]
fn requests_share_calls_in_the_order_in_which_they_are_due() {
    let bench = Bench::gated(100);
    let blocker = bench.block();
    let requests = [
        bench.ask(plain(&[(1, 30), (1, 20)]), Some(after(0))),
        bench.ask(plain(&[(2, 20), (3, 10)]), Some(after(0))),
        bench.ask(plain(&[(4, 40)]), Some(after(0))),
        bench.ask(plain(&[(5, 10)]), Some(after(0))),
    ];
    bench.open();
    let answers: Vec<Vec<f32>> =
        requests.into_iter().map(|request| block_on(request).unwrap()).collect();
    assert_eq!(answers, [vec![1.0, 1.0], vec![2.0, 3.0], vec![4.0], vec![5.0]]);
    drop(blocker);
    // The third does not fit beside the first two, and the fourth does.
    assert_eq!(bench.calls(), [vec![7], vec![1, 1, 2, 3, 5], vec![4]]);
}

#[test]
fn a_small_request_overtakes_a_large_one_between_two_calls() {
    let bench = Bench::gated(10_000);
    let large = bench.ask(plain(&[(1, 3_000); 9]), None);
    bench.started.recv().unwrap();
    let small = bench.ask(plain(&[(2, 20), (3, 10)]), None);
    bench.open();
    assert_eq!(block_on(large).unwrap(), [1.0; 9]);
    assert_eq!(block_on(small).unwrap(), [2.0, 3.0]);
    // It is not held up by more of the large one either.
    assert_eq!(bench.calls(), [vec![1; 3], vec![2, 3], vec![1; 3], vec![1; 3]]);
}

#[test]
fn a_deadline_brings_forward_and_patience_does_not_put_off() {
    let bench = Bench::gated(10);
    let blocker = bench.block();
    let order = [(1, None), (2, Some(after(3_600_000))), (3, Some(after(0)))];
    let requests: Vec<_> =
        order.into_iter().map(|(id, due)| bench.ask(plain(&[(id, 10_000)]), due)).collect();
    bench.open();
    for request in requests {
        block_on(request).unwrap();
    }
    drop(blocker);
    assert_eq!(bench.calls(), [[7], [3], [1], [2]]);
}

#[test]
fn nothing_that_comes_later_goes_before_what_is_overdue() {
    let bench = Bench::gated(100);
    let blocker = bench.block();
    let large = bench.ask(plain(&[(1, 60); 5]), Some(after(0)));
    let small: Vec<_> = (0..5).map(|_| bench.ask(plain(&[(2, 50)]), Some(after(0)))).collect();
    bench.open();
    assert_eq!(block_on(large).unwrap(), [1.0; 5]);
    for request in small {
        assert_eq!(block_on(request).unwrap(), [2.0]);
    }
    drop(blocker);
    let calls = bench.calls();
    assert_eq!(calls[1..6], [[1]; 5], "{calls:?}");
    assert_eq!(calls[6..], [vec![2, 2], vec![2, 2], vec![2]]);
}

#[test]
fn a_large_request_ends_under_a_constant_stream_of_small_ones() {
    let takes = Duration::from_millis(1);
    let bench = Bench::of(|calls| Machine { budget: 10, takes, calls, gate: None });
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // More than the machine can do: each call is of one of them.
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    bench.queue.run_blocking(plain(&[(2, 10)])).unwrap();
                }
            });
        }
        while bench.counts().calls < 20 {
            thread::yield_now();
        }
        let large = bench.queue.run_blocking(plain(&[(1, 10); 50]));
        done.store(true, Ordering::SeqCst);
        assert_eq!(large.unwrap(), [1.0; 50]);
    });
    let calls = bench.calls();
    let first = calls.iter().position(|call| call == &[1]).unwrap();
    let last = calls.iter().rposition(|call| call == &[1]).unwrap();
    assert!(last - first < 5 * 50, "{first} to {last}");
}

#[test]
fn what_nobody_waits_for_is_not_read_and_not_run() {
    let bench = Bench::gated(10);
    let blocker = bench.block();
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let on_read: Box<dyn FnMut() + Send> = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    drop(bench.ask(Plain { on_read: Some(on_read), ..plain(&[(1, 10)]) }, Some(after(0))));
    bench.open();
    assert_eq!(bench.queue.run_blocking(plain(&[(2, 10)])).unwrap(), [2.0]);
    assert_eq!(block_on(blocker).unwrap(), [7.0]);
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    assert_eq!(bench.calls(), [[7], [2]]);
    assert_eq!((bench.counts().answered, bench.counts().withdrawn), (2, 1));
}

#[test]
fn who_goes_away_costs_no_further_call() {
    let bench = Bench::gated(10);
    let large = bench.ask(plain(&[(1, 10); 20]), None);
    bench.started.recv().unwrap();
    assert_eq!((bench.counts().waiting, bench.counts().under_way), (0, 1));
    assert_eq!(bench.counts().tokens_ahead, 200);
    drop(large);
    bench.open();
    assert_eq!(bench.queue.run_blocking(plain(&[(2, 10)])).unwrap(), [2.0]);
    assert_eq!(bench.calls(), [[1], [2]]);
    assert_eq!(bench.counts().tokens_ahead, 0);
}

#[test]
fn only_who_makes_a_call_fail_fails() {
    for (guilty, reason) in [(PANICS, "on purpose"), (FAILS, "it fails")] {
        let bench = Bench::gated(100);
        let blocker = bench.block();
        let first = bench.ask(plain(&[(1, 5), (2, 10)]), Some(after(0)));
        let second = bench.ask(plain(&[(3, 10), (guilty, 5), (4, 10)]), Some(after(0)));
        let third = bench.ask(plain(&[(5, 10)]), Some(after(0)));
        bench.open();
        assert_eq!(block_on(first).unwrap(), [1.0, 2.0]);
        let error = block_on(second).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(block_on(third).unwrap(), [5.0]);
        drop(blocker);
        assert_eq!(bench.calls()[1].len(), 6);
        assert_eq!(bench.calls().len(), 2 + 3);
        let error = bench.queue.run_blocking(plain(&[(guilty, 1)])).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(bench.calls().len(), 2 + 3 + 1, "one that was alone is not run again");
        assert_eq!(bench.queue.run_blocking(plain(&[(6, 1)])).unwrap(), [6.0]);
    }
}

#[test]
fn a_panic_in_a_piece_is_an_error_of_that_request() {
    let bench = Bench::gated(100);
    let blocker = bench.block();
    let reading: Box<dyn FnMut() + Send> = Box::new(|| panic!("in read"));
    let requests = [
        ("in read", Plain { on_read: Some(reading), ..plain(&[(1, 5)]) }),
        ("in take", Plain { panics_in_take: true, ..plain(&[(2, 5), (3, 5)]) }),
        ("in finish", Plain { panics_in_finish: true, ..plain(&[(4, 5)]) }),
        ("", plain(&[(5, 5)])),
    ];
    let requests: Vec<_> = requests
        .into_iter()
        .map(|(message, work)| (message, bench.ask(work, Some(after(0)))))
        .collect();
    bench.open();
    for (message, request) in requests {
        match block_on(request) {
            Ok(rows) => assert_eq!((message, rows), ("", vec![5.0])),
            Err(error) => {
                assert!(!message.is_empty(), "{error}");
                assert!(error.to_string().contains(message), "{error}");
            }
        }
    }
    drop(blocker);
    assert_eq!(bench.calls(), [vec![7], vec![2, 3, 4, 5]]);
    assert_eq!(bench.counts().waiting + bench.counts().under_way, 0);
}

#[test]
fn while_a_large_request_is_read_more_urgent_ones_go_first() {
    let bench = Bench::gated(10);
    let (portion, read_one) = channel();
    let (next, read_next) = channel::<()>();
    let on_read: Box<dyn FnMut() + Send> = Box::new(move || {
        let _ = portion.send(());
        let _ = read_next.recv();
    });
    let large = Plain { portions: 2, on_read: Some(on_read), ..plain(&[(1, 10_000); 3]) };
    let large = bench.ask(large, None);
    read_one.recv().unwrap();
    let small = bench.ask(plain(&[(2, 5)]), Some(after(0)));
    bench.open();
    drop(next);
    assert_eq!(block_on(small).unwrap(), [2.0]);
    assert_eq!(block_on(large).unwrap(), [1.0; 3]);
    assert_eq!(bench.calls(), [[2], [1], [1], [1]]);
}

#[test]
fn more_callers_than_places_are_all_served() {
    let bench = Bench::gated(10);
    let blocker = bench.block();
    let mut requests: Vec<_> =
        (0..3 * PLACES as u32).map(|_| bench.ask(plain(&[(1, 1)]), None)).collect();
    assert_eq!(bench.queue.shared.lock().held_back.len(), 2 * PLACES + 1);
    assert_eq!(bench.counts().waiting, 3 * PLACES);
    // Some go away, from the queue and from before it.
    requests.retain({
        let mut place = 0;
        move |_| {
            place += 1;
            place % 3 > 0
        }
    });
    bench.open();
    for request in requests {
        assert_eq!(block_on(request).unwrap(), [1.0]);
    }
    drop(blocker);
    let counts = bench.counts();
    assert_eq!((counts.answered, counts.withdrawn), (2 * PLACES as u64 + 1, PLACES as u64));
    // The last ones withdrawn are gone at the next round.
    bench.queue.run_blocking(plain(&[(1, 1)])).unwrap();
    assert_eq!(bench.queue.shared.lock().free_places, PLACES);
}

#[test]
fn a_free_place_goes_to_the_one_that_is_due_first() {
    let bench = Bench::gated(10);
    let blocker = bench.block();
    let waiting: Vec<_> =
        (1..PLACES).map(|_| bench.ask(plain(&[(1, 10)]), Some(after(0)))).collect();
    let patient = bench.ask(plain(&[(2, 10_000)]), None);
    let urgent = bench.ask(plain(&[(3, 10)]), Some(after(0)));
    let gone = bench.ask(plain(&[(4, 10)]), Some(after(0)));
    drop(gone);
    bench.open();
    assert_eq!(block_on(blocker).unwrap(), [7.0]);
    assert_eq!(block_on(urgent).unwrap(), [3.0]);
    for request in waiting {
        block_on(request).unwrap();
    }
    assert_eq!(block_on(patient).unwrap(), [2.0]);
    let calls = bench.calls();
    let call_of = |id: u32| calls.iter().position(|call| call == &[id]).unwrap();
    assert!(call_of(3) < call_of(2));
    assert!(!calls.contains(&vec![4]));
}
