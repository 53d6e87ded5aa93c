//! Ranks that are threads: what they exchange, sums to the bit, and what happens where one does not come.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: a panic is the failure")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use lumina_testing::lcg;
use lumina_train::collective::{Alone, Collective, RankProblem, Threads};
use lumina_train::{Error, Result};

const LONG: Duration = Duration::from_secs(60);

/// What each rank of a group returns.
fn on_each<T: Send>(ranks: Vec<Threads>, run: impl Fn(&Threads) -> T + Sync) -> Vec<T> {
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || run(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Values of a pass, of sizes so different that f32 sums depend on their order.
fn pass(number: usize, values: usize) -> Vec<f32> {
    let value = |state: u32| (state as f32 - 2e9) * 10f32.powi(-(state as i32 % 9));
    lcg(number as u32 + 1).skip(3).take(values).map(value).collect()
}

/// The part of a vector that a rank owns.
fn part(values: &[f32], rank: usize, size: usize) -> Vec<f32> {
    let at = |rank: usize| values.len() * rank / size;
    values[at(rank)..at(rank + 1)].to_vec()
}

/// The sum of passes given to the ranks in turn.
fn sum_of(rank: &dyn Collective, passes: usize, values: usize) -> Result<Vec<f32>> {
    let size = rank.size();
    let mut sum = None;
    let mut delays = lcg(rank.rank() as u32 + 7 * size as u32).map(|state| u64::from(state >> 24) * 20);
    for first in (0..passes).step_by(size) {
        // Ranks come in any order.
        std::thread::sleep(Duration::from_micros(delays.next().unwrap()));
        let own = first + rank.rank();
        let own = if own < passes { pass(own, values) } else { Vec::new() };
        rank.reduce_scatter((0..size).map(|of| part(&own, of, size)).collect(), &mut sum)?;
    }
    let all = rank.all_gather(to_bytes(&sum.unwrap()))?;
    Ok(all
        .iter()
        .flat_map(|bytes| bytes.chunks_exact(4))
        .map(|four| f32::from_ne_bytes(four.try_into().unwrap()))
        .collect())
}

fn to_bytes(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

#[test]
fn sums_do_not_depend_on_the_number_of_ranks() {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for passes in [1, 4, 6, 7] {
        let in_order = (1..passes).fold(pass(0, 103), |mut sum, number| {
            sum.iter_mut().zip(pass(number, 103)).for_each(|(sum, value)| *sum += value);
            sum
        });
        let backwards = (0..passes - 1).rev().fold(pass(passes - 1, 103), |mut sum, number| {
            sum.iter_mut().zip(pass(number, 103)).for_each(|(sum, value)| *sum += value);
            sum
        });
        assert!(passes < 4 || bits(&in_order) != bits(&backwards), "the order matters for these values");
        assert_eq!(bits(&sum_of(&Alone, passes, 103).unwrap()), bits(&in_order));
        for size in [1, 2, 4] {
            for sum in on_each(Threads::group(size, LONG), |rank| sum_of(rank, passes, 103).unwrap()) {
                assert_eq!(bits(&sum), bits(&in_order), "{passes} passes, {size} ranks");
            }
        }
    }
    // A zero that is added to nothing keeps its sign.
    let mut sum = None;
    Alone.reduce_scatter(vec![vec![-0.0]], &mut sum).unwrap();
    assert!(sum.unwrap()[0].is_sign_negative());
}

#[test]
fn messages_of_any_length_arrive_in_the_order_of_ranks() {
    let message = |from: usize, to: usize| Bytes::from(vec![from as u8; 3 * from + to]);
    for received in on_each(Threads::group(4, LONG), |rank| {
        let own = rank.rank();
        let mut seen = Vec::new();
        for round in 0..20 {
            let received = rank.exchange((0..4).map(|to| message(own, to + round)).collect()).unwrap();
            let expected: Vec<Bytes> = (0..4).map(|from| message(from, own + round)).collect();
            assert_eq!(received, expected);
            let from = round % 4;
            let bytes = if own == from { Bytes::from(format!("{round}")) } else { Bytes::from("not this") };
            seen.push(rank.broadcast(from, bytes).unwrap());
            rank.barrier().unwrap();
        }
        seen
    }) {
        assert_eq!(received, (0..20).map(|round| format!("{round}")).collect::<Vec<_>>());
    }
    assert_eq!(Alone.broadcast(0, Bytes::from("own")).unwrap(), "own");
    assert_eq!((Alone.rank(), Alone.size()), (0, 1));
}

/// What three ranks see where the fourth does something else after a few exchanges.
fn missed(limit: Duration, other: impl Fn(&Threads) + Sync) -> Vec<(usize, RankProblem, Duration)> {
    let mut ranks = Threads::group(4, limit);
    let bad = ranks.remove(2);
    let (ranks, other) = (ranks, &other);
    std::thread::scope(|scope| {
        let fourth = scope.spawn(move || {
            for _ in 0..3 {
                bad.barrier().unwrap();
            }
            other(&bad);
        });
        let seen = on_each(ranks, |rank| {
            for _ in 0..3 {
                rank.barrier().unwrap();
            }
            let begun = Instant::now();
            let Err(Error::Rank { rank: named, problem }) = rank.barrier() else { panic!("no error") };
            let again = rank.barrier().unwrap_err().to_string();
            assert!(again.contains("rank 2"), "{again}");
            (named, problem, begun.elapsed())
        });
        let _ = fourth.join();
        seen
    })
}

#[test]
fn a_rank_that_ends_fails_or_panics_is_named_at_once() {
    type Other = (fn(&Threads), RankProblem);
    let others: [Other; 3] = [
        (|_| (), RankProblem::Ended),
        (|rank| rank.fail("no space left"), RankProblem::Failed("no space left".to_owned())),
        (|_| std::panic::resume_unwind(Box::new("a panic without a message")), RankProblem::Panicked),
    ];
    for (other, expected) in others {
        for (rank, problem, time) in missed(LONG, other) {
            assert_eq!((rank, &problem), (2, &expected));
            assert!(time < LONG / 4, "{time:?}");
        }
    }
}

#[test]
fn a_rank_that_stalls_is_named_at_the_limit() {
    let limit = Duration::from_millis(200);
    let seen = missed(limit, |rank| {
        // Comes when all the others have given up, and learns it.
        std::thread::sleep(3 * limit);
        let error = rank.barrier().unwrap_err().to_string();
        assert!(error.contains("rank 2 did not come within 200ms"), "{error}");
    });
    for (rank, problem, time) in seen {
        assert_eq!((rank, problem), (2, RankProblem::Stalled(limit)));
        assert!(time < LONG / 4, "{time:?}");
    }
}

#[test]
fn parts_that_do_not_fit_are_an_error() {
    let seen = on_each(Threads::group(2, LONG), |rank| {
        let mut sum = Some(vec![0.0; 3]);
        let parts = |values: usize| vec![vec![1.0; values]; 2];
        rank.reduce_scatter(parts(3 + rank.rank()), &mut sum).unwrap_err().to_string()
    });
    assert!(seen.iter().all(|error| error.starts_with("rank 1 computes something else")), "{seen:?}");
}
